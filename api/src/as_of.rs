//! `?as_of=`: one resource as it was at an earlier moment, folded from its history.

use crate::{
    App,
    causality::{self, Freshness},
    extract::{Params, Unescaped},
    problem::Problem,
    query::{self, Found},
    replay,
};
use commands::State;
use events::{StreamId, Timestamp};
use projections::{
    ReadModel,
    past::{Ends, Moment, PastError},
};
use std::{sync::Arc, time::Duration};

/// How long to wait until the history has caught up with the log, without a preference.
const WAIT: Duration = Duration::from_secs(5);

/// The parameter `as_of`.
///
/// # Errors
/// `invalid-parameter`.
pub(crate) fn moment(params: &mut Params) -> Result<Option<Moment>, Problem> {
    let expected = "a time like 2026-11-20T12:00:00Z, or the Log-Position of an answer";
    Ok(params.read::<Unescaped<Moment>>("as_of", expected)?.map(|asked| asked.0))
}

/// What `show` makes of the stream as it was, at the position of the last event folded.
///
/// # Errors
/// `invalid-parameter` for a moment that is not in the past of this log, `not-found` if the stream
/// had not begun or `show` hides it.
pub(crate) async fn read<T>(
    app: &Arc<App>,
    stream: StreamId,
    moment: &Moment,
    freshness: &Freshness,
    show: impl Fn(&State) -> Option<T>,
) -> Result<Found<T>, Problem> {
    let ends = ends(app, moment.clone(), app.environment.now()).await?;
    let reads = app.reads()?;
    let [partition] = query::partition(app, stream);
    let within = freshness.prefer.wait.unwrap_or(WAIT);
    let arrived = reads.wait_for_end(ReadModel::History, partition, within).await;
    arrived.map_err(|error| causality::behind(&error))?;
    let folded =
        replay::as_of(app, stream, |entry| ends.include(entry.position, entry.occurred_at));
    let folded = folded.await?.ok_or_else(|| Problem::not_found("resource"))?;
    let value = show(&folded.state).ok_or_else(|| Problem::not_found("resource"))?;
    let position = folded.position.into_iter().collect();
    Ok(Found { value, position })
}

/// Where the log ended at `moment`. Runs in a task of its own, because the log's reader must not be
/// dropped halfway when the caller disconnects.
async fn ends(app: &Arc<App>, moment: Moment, now: Timestamp) -> Result<Ends, Problem> {
    let log = Arc::clone(&app.log);
    let found = tokio::spawn(async move { Ends::of(&moment, &*log, now).await });
    match found.await.map_err(|error| Problem::internal(&error))? {
        Ok(ends) => Ok(ends),
        Err(error @ (PastError::Future(_) | PastError::NoSuchEvent(_))) => {
            Err(Problem::invalid_parameter("as_of", &error.to_string()))
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the log does not answer");
            Err(Problem::unavailable("the log does not answer"))
        }
    }
}
