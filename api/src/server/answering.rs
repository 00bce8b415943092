//! Answers that their clients take, or do not.
//!
//! In HTTP/1.1 a client that takes nothing blocks the socket, which has a time limit of its own. In
//! HTTP/2 it may leave the window of a stream closed, while its connection looks well. Each stream is
//! a task here, so the task watches whether the body that it sends is asked for more.

use super::connections::Busy;
use axum::body::{Body, Bytes, HttpBody};
use hyper::{
    Response,
    body::{Frame, SizeHint},
    rt::Executor,
};
use std::{
    any::Any,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// The most bytes that are handed over at once. A slow client must take that much within the time
/// limit.
const PIECE: usize = 16 * 1024;

/// The most bytes of the last piece of a frame. They are what a closed window keeps in memory after
/// the body is gone.
const LAST_PIECE: usize = 1024;

/// It is the server's turn: there is nothing to send.
const SERVER: u8 = 0;
/// It is the client's turn, since the last look.
const HANDED_OVER: u8 = 1;
/// It is the client's turn, for some time already.
const CLIENT: u8 = 2;

tokio::task_local! {
    /// Whose turn it is in the stream of this task.
    static TURN: Arc<AtomicU8>;
}

/// Runs the tasks of HTTP/2 streams. Drops a stream, which resets it, if its client takes nothing
/// for the time limit.
#[derive(Clone, Copy)]
pub(super) struct Streams {
    pub time_limit: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        tokio::spawn(watch(stream, self.time_limit));
    }
}

async fn watch(stream: impl Future, time_limit: Duration) {
    let turn = Arc::new(AtomicU8::new(SERVER));
    let mut stream = pin!(TURN.scope(Arc::clone(&turn), stream));
    let mut time = pin!(sleep(time_limit));
    std::future::poll_fn(|context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        match turn.load(Ordering::Relaxed) {
            SERVER => return Poll::Pending,
            HANDED_OVER => {
                turn.store(CLIENT, Ordering::Relaxed);
                time.as_mut().reset(Instant::now() + time_limit);
            }
            _ => {}
        }
        ready!(time.as_mut().poll(context));
        tracing::debug!("a client took nothing of an answer, its stream is reset");
        Poll::Ready(())
    })
    .await;
}

/// What an answer occupies until it is fully sent, as an extension of the response.
#[derive(Clone)]
pub struct Occupied(pub Arc<dyn Any + Send + Sync>);

/// The body of an answer. The connection counts as busy until it is sent.
pub(super) struct Answering {
    body: Body,
    /// The end of a frame that was too large for one piece.
    rest: Bytes,
    _busy: (Busy, Option<Occupied>),
}

impl Answering {
    /// The answer of the router, with a body that keeps the request under way.
    pub fn of(mut response: Response<Body>, busy: Busy) -> Response<Self> {
        let occupied = response.extensions_mut().remove::<Occupied>();
        response.map(|body| Self { body, rest: Bytes::new(), _busy: (busy, occupied) })
    }

    /// The next piece of a frame.
    fn piece(&mut self, mut data: Bytes) -> Frame<Bytes> {
        let most = match data.len() {
            length if length <= LAST_PIECE => length,
            length => PIECE.min(length - LAST_PIECE),
        };
        self.rest = data.split_off(most);
        Frame::data(data)
    }

    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(self.piece(rest))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(data) => self.piece(data),
                Err(frame) => frame,
            })
        }))
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let piece = self.poll_piece(context);
        let turn = if piece.is_ready() { HANDED_OVER } else { SERVER };
        // There is no such task in HTTP/1.1.
        let _ = TURN.try_with(|it| it.store(turn, Ordering::Relaxed));
        piece
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::{super::connections::Connections, *};
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_body_is_handed_over_in_pieces_and_the_last_is_small() {
        let entered = Connections::new().enter(None, 0).unwrap();
        for length in [0, 1, LAST_PIECE, LAST_PIECE + 1, PIECE, 3 * PIECE + 7] {
            let text: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut body =
                Answering::of(Response::new(Body::from(text.clone())), entered.begin()).into_body();
            let (mut heard, mut last) = (Vec::new(), 0);
            while let Some(frame) = body.frame().await {
                assert_eq!(
                    body.size_hint().exact(),
                    Some((length - heard.len() - frame_len(&frame)) as u64)
                );
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.len() <= PIECE);
                last = data.len();
                heard.extend_from_slice(&data);
            }
            assert_eq!(heard, text);
            assert!(last <= LAST_PIECE, "{length}: {last}");
        }
    }

    fn frame_len(frame: &Result<Frame<Bytes>, axum::Error>) -> usize {
        frame.as_ref().unwrap().data_ref().unwrap().len()
    }
}
