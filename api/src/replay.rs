//! Earlier answers: an aggregate as it was at an earlier version, folded from its history.

use crate::{App, causality, problem::Problem, query};
use commands::{State, StateView, aggregate::At, order::Status};
use events::{Event, StreamId};
use projections::{ReadModel, history::Entry, history::Range};
use std::time::Duration;

/// Events read in one query.
const PAGE: u32 = 1_000;

/// The aggregate as it was answered to the command whose last event has version `version`: at the
/// first version from there on that has an outcome, because an order is answered when it is
/// decided. `live` is the aggregate as it is now.
///
/// # Errors
/// If the history does not catch up within `within`, or cannot be decoded.
pub async fn as_answered(
    app: &App,
    live: &StateView,
    version: u64,
    within: Duration,
) -> Result<StateView, Problem> {
    if live.version == version || is_as_decided(live, version) {
        return Ok(live.clone());
    }
    fold(app, live, within, |folded| folded.version >= version && folded.state.is_final()).await
}

/// Whether no event has followed the outcome of the command whose last event has version
/// `version`, not even bookkeeping. Also `false` if only the history can tell.
fn is_as_decided(live: &StateView, version: u64) -> bool {
    match &live.state {
        State::Order(order) => {
            let decided = match order.status() {
                Some(Status::Confirmed) => true,
                // Events of its payment may follow.
                Some(Status::Rejected) => order.payment().is_none(),
                _ => false,
            };
            decided && live.version == live.state.shown_version()
        }
        // One event decides a registration, and one a change of the e-mail address.
        State::Customer(_) => live.state.is_final() && live.version == version + 1,
        State::Product(_) | State::Email(_) | State::Wishlist(_) => false,
    }
}

/// The aggregate `live` with the details that its shard has dropped to save memory.
///
/// # Errors
/// As [`as_answered`].
pub async fn in_full(app: &App, live: &StateView, within: Duration) -> Result<StateView, Problem> {
    fold(app, live, within, |folded| folded.version >= live.version).await
}

/// Folds the history of `live`'s stream until `done`, or to the version of `live`.
async fn fold(
    app: &App,
    live: &StateView,
    within: Duration,
    done: impl Fn(&StateView) -> bool,
) -> Result<StateView, Problem> {
    let reads = app.reads()?;
    let token = live.position.into_iter().collect();
    let arrived = reads.wait_for(ReadModel::History, &token, within).await;
    arrived.map_err(|error| causality::behind(&error))?;
    let empty = State::empty(live.stream.kind).ok_or_else(|| Problem::not_found("stream"))?;
    let mut folded = StateView { stream: live.stream, version: 0, position: None, state: empty };
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

/// A stream as it was after the last event that `includes` accepts; `None` if it accepts none. The
/// history must have caught up with the moment that the caller means.
///
/// # Errors
/// If the history does not answer, or cannot be decoded.
pub async fn as_of(
    app: &App,
    stream: StreamId,
    includes: impl Fn(&Entry) -> bool,
) -> Result<Option<StateView>, Problem> {
    let reads = app.reads()?;
    let empty = State::empty(stream.kind).ok_or_else(|| Problem::not_found("stream"))?;
    let mut folded = StateView { stream, version: 0, position: None, state: empty };
    loop {
        let range = Range { after: folded.version, up_to: u64::MAX, limit: PAGE };
        let page = reads.history(stream, range).await.map_err(|error| query::failed(&error))?;
        let whole = page.len() == PAGE as usize;
        for entry in page {
            if !includes(&entry) {
                return Ok(Some(folded).filter(|folded| folded.version > 0));
            }
            evolve(&mut folded, &entry)?;
        }
        if !whole {
            return Ok(Some(folded).filter(|folded| folded.version > 0));
        }
    }
}

fn evolve(folded: &mut StateView, entry: &Entry) -> Result<(), Problem> {
    let data = entry.data.get().as_bytes();
    let event = Event::from_json(entry.stream, &entry.event_type, entry.schema, data)
        .map_err(|error| Problem::internal(&error))?;
    folded.state.evolve(&event, At { version: entry.version, time: entry.occurred_at });
    folded.version = entry.version;
    folded.position = Some(entry.position);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use events::{
        Position,
        order::{Confirmed, CustomerSettled, Placed, ProcessingStarted, Rejected, RejectionReason},
    };
    use std::sync::Arc;
    use uuid::Uuid;

    fn order(events: &[events::order::Event]) -> StateView {
        let stream = StreamId::order(Uuid::nil());
        let mut state = State::empty(stream.kind).unwrap();
        let mut version = 0;
        let mut all: Vec<Event> = vec![Event::Order(placed().into())];
        all.extend(events.iter().cloned().map(Event::Order));
        for event in &all {
            version += 1;
            let time = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
            state.evolve(event, At { version, time });
        }
        StateView { stream, version, position: None::<Position>, state }
    }

    fn placed() -> Placed {
        Placed {
            customer_id: Uuid::nil(),
            lines: Arc::default(),
            payment_method: "pm_card_visa".into(),
            shipping_address: None,
            deadline: DateTime::from_timestamp(1_800_000_900, 0).unwrap(),
            not_after: DateTime::from_timestamp(1_800_004_500, 0).unwrap(),
        }
    }

    #[test]
    fn an_order_is_as_decided_until_anything_follows() {
        let decided = |events: &[_]| is_as_decided(&order(events), 1);
        assert!(!decided(&[]), "not decided yet");
        assert!(decided(&[Confirmed::default().into()]));
        assert!(!decided(&[Confirmed::default().into(), CustomerSettled {}.into()]), "bookkeeping");
        assert!(!decided(&[Confirmed::default().into(), ProcessingStarted {}.into()]));
        let rejected = Rejected {
            reason: RejectionReason::Expired,
            product_id: None,
            available: None,
            requested: None,
            decline_code: None,
            rests_on: Arc::default(),
        };
        assert!(decided(&[rejected.clone().into()]));
        assert!(!decided(&[rejected.into(), CustomerSettled {}.into()]));
    }
}
