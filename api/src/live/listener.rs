//! One listener: sends the history, then new events, until the stream ends.

use super::{Live, Seat};
use crate::{
    auth::Principal,
    causality::{self, Freshness},
    orders::history::EventBody,
    problem::Problem,
    query,
};
use axum::body::Bytes;
use events::{StreamId, Timestamp};
use futures::{Stream, stream};
use projections::{QueryError, ReadModel, history::Range};
use std::{collections::VecDeque, convert::Infallible, pin::Pin, time::Duration};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Events read in one query.
const PAGE: u32 = 200;
/// Clients reconnect after two to five seconds, so that they do not all come at once.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_JITTER: Duration = Duration::from_secs(3);
/// The longest expiry timer. No connection lasts that long.
const LONGEST: Duration = Duration::from_hours(24 * 7);

/// An event in the format of server-sent events.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Version of the stream after the event.
    pub version: u64,
    /// The lines to send.
    pub text: Bytes,
}

impl Frame {
    /// Encodes an event as `/history` shows it.
    ///
    /// # Errors
    /// Never for an event that was read from the log, which always serialises.
    pub fn of(event: &EventBody) -> serde_json::Result<Self> {
        let EventBody { version, event_type, .. } = event;
        // A line break in JSON is only white space; in this format it would end the line.
        let data = serde_json::to_string(event)?.replace(['\n', '\r'], " ");
        let text = format!("id: {version}\nevent: {event_type}\ndata: {data}\n\n");
        Ok(Self { version: *version, text: text.into() })
    }
}

/// A client that listens to a stream.
pub struct Listener {
    live: Live,
    seat: Seat,
    /// The last version sent.
    last: u64,
    ready: VecDeque<Bytes>,
    /// Whether the history is read to its end, so that the next events come from the log.
    caught_up: bool,
    heartbeat: Pin<Box<Sleep>>,
}

impl Listener {
    /// Listens to a stream, from the event after version `after` until the time `until`.
    ///
    /// # Errors
    /// `invalid-parameter` if there is no such version, `projection-behind` if the history does not
    /// catch up in time, `unavailable` or `rate-limited` if there are too many listeners.
    pub async fn open(
        live: &Live,
        stream: StreamId,
        principal: &Principal,
        after: u64,
        until: Option<Timestamp>,
        freshness: &Freshness,
    ) -> Result<Self, Problem> {
        let hub = &live.0;
        let left = until.map(|until| (until - hub.environment.now()).to_std().unwrap_or_default());
        let time = left.unwrap_or(LONGEST).min(LONGEST);
        let seat = live.enter(stream, principal, time)?;
        let within = freshness.prefer.query_wait();
        if timeout(within, seat.begun.cancelled()).await.is_err() {
            return Err(Problem::unavailable("the events of the order cannot be streamed now"));
        }
        let arrived = hub.reads.wait_for_end(ReadModel::History, seat.partition, within).await;
        arrived.map_err(|error| causality::behind(&error))?;
        let mut listener = Self {
            live: live.clone(),
            last: after.saturating_sub(1),
            ready: VecDeque::new(),
            caught_up: false,
            heartbeat: Box::pin(sleep(hub.settings.heartbeat)),
            seat,
        };
        listener.read_page().await.map_err(|error| query::failed(&error))?;
        if after > 0 {
            // The event that the caller has seen is read to see that it exists, and not sent again.
            let seen = listener.ready.pop_front();
            if seen.is_none() || listener.last < after {
                let detail = "must be the id of an event of this order";
                return Err(Problem::invalid_parameter("Last-Event-ID", detail));
            }
        }
        let retry = RETRY + hub.environment.jitter(RETRY_JITTER);
        listener.ready.push_front(format!("retry: {}\n\n", retry.as_millis()).into());
        Ok(listener)
    }

    /// The lines to send, as a stream.
    pub fn lines(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut listener| async move {
            let lines = listener.next().await?;
            Some((Ok(lines), listener))
        })
    }

    /// The next lines to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(lines) = self.ready.pop_front() {
                let heartbeat = self.live.0.settings.heartbeat;
                self.heartbeat.as_mut().reset(Instant::now() + heartbeat);
                return Some(lines);
            }
            if self.live.0.stop.is_cancelled() || self.seat.over.is_cancelled() {
                return None;
            }
            if self.caught_up {
                self.wait().await?;
            } else if let Err(error) = Box::pin(self.read_page()).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the history cannot be read, ending a listener's stream");
                return None;
            }
        }
    }

    /// Waits for an event or a heartbeat; `None` if the stream must end.
    async fn wait(&mut self) -> Option<()> {
        let frame = tokio::select! {
            biased;
            () = self.live.0.stop.cancelled() => return None,
            () = self.seat.over.cancelled() => return None,
            frame = self.seat.events.recv() => frame?,
            () = &mut self.heartbeat => {
                self.ready.push_back(Bytes::from_static(b":\n\n"));
                return Some(());
            }
        };
        if frame.version == self.last + 1 {
            self.last = frame.version;
            self.ready.push_back(frame.text.clone());
        } else if frame.version > self.last {
            let (stream, last, came) = (self.seat.stream, self.last, frame.version);
            tracing::error!(%stream, last, came, "events are missing, ending a listener's stream");
            return None;
        }
        Some(())
    }

    /// Reads the next page of the history.
    async fn read_page(&mut self) -> Result<(), QueryError> {
        let range = Range { after: self.last, up_to: u64::MAX, limit: PAGE };
        let entries = self.live.0.reads.history(self.seat.stream, range).await?;
        self.caught_up = entries.len() < PAGE as usize;
        for entry in entries {
            let event = EventBody::from(entry);
            let Ok(frame) = Frame::of(&event) else { continue };
            self.last = frame.version;
            self.ready.push_back(frame.text);
        }
        Ok(())
    }
}
