//! Answers given again: an aggregate as it was at an earlier version, folded from its history.

use crate::{App, causality, problem::Problem, query};
use commands::{Snapshot, State, aggregate::At};
use events::Event;
use projections::{ReadModel, history::Entry, history::Range};
use std::time::Duration;

/// Events fetched at once.
const PAGE: u32 = 1_000;

/// The aggregate as the command answered whose last event made it `version`: at that version, or at
/// the first one after it where the outcome was there (an order is answered when it is decided).
/// `live` is the aggregate now.
///
/// # Errors
/// When the history does not get there within `within`, or does not read.
pub async fn as_answered(
    app: &App,
    live: &Snapshot,
    version: u64,
    within: Duration,
) -> Result<Snapshot, Problem> {
    if live.version == version {
        return Ok(live.clone());
    }
    fold(app, live, within, |folded| folded.version >= version && folded.state.is_settled()).await
}

/// The aggregate as it is in `live`, with all that its shard has let go of.
///
/// # Errors
/// As [`as_answered`].
pub async fn in_full(app: &App, live: &Snapshot, within: Duration) -> Result<Snapshot, Problem> {
    fold(app, live, within, |folded| folded.version >= live.version).await
}

/// Folds the history of `live`'s stream until `done`, or to its end.
async fn fold(
    app: &App,
    live: &Snapshot,
    within: Duration,
    done: impl Fn(&Snapshot) -> bool,
) -> Result<Snapshot, Problem> {
    let reads = app.reads()?;
    let token = live.position.into_iter().collect();
    let arrived = reads.wait_for(ReadModel::History, &token, within).await;
    arrived.map_err(|error| causality::behind(&error))?;
    let empty = State::empty(live.stream.kind).ok_or_else(|| Problem::not_found("stream"))?;
    let mut folded = Snapshot { stream: live.stream, version: 0, position: None, state: empty };
    loop {
        let range = Range { after: folded.version, up_to: live.version, limit: PAGE };
        let page =
            reads.history(live.stream, range).await.map_err(|error| query::failed(&error))?;
        if page.is_empty() {
            return Ok(folded);
        }
        for entry in page {
            evolve(&mut folded, &entry)?;
            if done(&folded) {
                return Ok(folded);
            }
        }
    }
}

fn evolve(folded: &mut Snapshot, entry: &Entry) -> Result<(), Problem> {
    let data = entry.data.get().as_bytes();
    let event = Event::from_json(entry.stream, &entry.event_type, entry.schema, data)
        .map_err(|error| Problem::internal(&error))?;
    folded.state.evolve(&event, At { version: entry.version, time: entry.occurred_at });
    folded.version = entry.version;
    folded.position = Some(entry.position);
    Ok(())
}
