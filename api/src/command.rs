//! From a request to a decided aggregate, and back to an answer.

use crate::{
    App,
    auth::{Access, Caller},
    causality::{self, LOG_POSITION, Prefer, etag, set_header},
    extract::{self, Media, Params},
    idempotency::{self, IDEMPOTENCY_REPLAYED},
    problem::Problem,
    replay,
    trace::Trace,
};
use axum::{
    Json,
    extract::{FromRequest, OriginalUri, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use commands::{Command, CommandError, Router, Snapshot};
use events::{Fingerprint, LogPosition, StreamId};
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How long is looked for an aggregate whose partition is not open.
const LOOK_FOR: Duration = Duration::from_secs(3);
const LOOK_DELAY: Duration = Duration::from_millis(50);
/// The least that the history is waited for which an earlier answer is made from.
const REPLAY_WAIT: Duration = Duration::from_secs(1);

/// The body of a command.
pub trait CommandBody: DeserializeOwned + Serialize + Send + 'static {
    /// Whom the command is for; what depends on the resource comes later.
    const ACCESS: Access;
    /// How the body is written.
    const MEDIA: Media = Media::Json;
}

/// A command as it came in: who asks, what, and how they want it answered.
#[derive(Clone, Debug)]
pub struct Received<T> {
    /// What is asked.
    pub body: T,
    /// The rest.
    pub envelope: Envelope,
}

/// All of a command but what it asks.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Who asks.
    pub caller: Caller,
    /// How they want to wait.
    pub prefer: Prefer,
    /// Whether they may send it again under the same key.
    pub keyed: bool,
    /// Names the command.
    pub command_id: Uuid,
    fingerprint: Fingerprint,
    expected_version: Option<u64>,
    traceparent: Option<Box<str>>,
}

impl<T: CommandBody> FromRequest<Arc<App>> for Received<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_default();
        caller.require(T::ACCESS)?;
        // No command has a parameter.
        Params::of(parts.uri.query().unwrap_or_default())?.end()?;
        let key = idempotency::key(&parts.headers)?;
        let expected_version = causality::expected_version(&parts.headers)?;
        let method = parts.method.as_str();
        let original = parts.extensions.get::<OriginalUri>();
        let path = original.map_or(parts.uri.path(), |OriginalUri(uri)| uri.path());
        let body: T = extract::json(&parts.headers, body, T::MEDIA).await?;
        let fingerprint = idempotency::fingerprint(&app.fingerprint_secret, method, path, &body)?;
        let command_id = match &key {
            Some(key) => idempotency::command_id(key, caller.0.as_ref(), method, path, fingerprint),
            None => app.environment.uuid(),
        };
        let envelope = Envelope {
            prefer: Prefer::of(&parts.headers),
            keyed: key.is_some(),
            traceparent: parts.extensions.get::<Trace>().map(|trace| trace.0.clone()),
            caller,
            command_id,
            fingerprint,
            expected_version,
        };
        Ok(Self { body, envelope })
    }
}

impl Envelope {
    /// The id of what the command creates.
    pub fn created_id(&self, app: &App) -> Uuid {
        if self.keyed { idempotency::created_id(self.command_id) } else { app.environment.uuid() }
    }

    fn request(&self, stream: StreamId, command: Command) -> commands::Request {
        commands::Request {
            stream,
            command,
            command_id: self.command_id,
            fingerprint: self.fingerprint,
            expected_version: self.expected_version,
            correlation_id: self.command_id,
            causation_id: self.command_id,
            traceparent: self.traceparent.clone(),
        }
    }
}

/// What became of a command that was not refused.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The aggregate as the answer shows it.
    pub snapshot: Snapshot,
    /// Whether the outcome is there; if not, the answer is a 202.
    pub settled: bool,
    /// Whether this answer was given before.
    pub replayed: bool,
    /// Whether the command changed anything; of one that is answered again, when it was answered
    /// first.
    pub changed: bool,
}

/// Sends a command to its shard, and waits for its outcome as long as the caller wants to.
///
/// # Errors
/// The problem that the refusal or the fault is to the caller.
pub async fn carry_out(
    app: &App,
    envelope: &Envelope,
    stream: StreamId,
    command: impl Into<Command>,
) -> Result<Decided, Problem> {
    let router = app.router()?;
    let sent = router.send(envelope.request(stream, command.into())).await;
    let outcome = sent.map_err(|error| Problem::of_command(error, stream))?;
    let replayed = outcome.replayed.is_some();
    let changed = outcome.changed || replayed;
    let version = outcome.replayed.unwrap_or(outcome.snapshot.version);
    // Who does not want to wait for an outcome still wants the answer that was given.
    let within = envelope.prefer.query_wait().max(REPLAY_WAIT);
    let snapshot = match outcome.replayed {
        Some(version) => replay::as_answered(app, &outcome.snapshot, version, within).await?,
        None => outcome.snapshot,
    };
    if snapshot.state.is_settled() {
        return Ok(Decided { snapshot, settled: true, replayed, changed });
    }
    let Some(live) = wait_settled(app, stream, envelope.prefer.command_wait()).await? else {
        return Ok(Decided { snapshot, settled: false, replayed, changed });
    };
    if app.reads.is_none() {
        return Ok(Decided { snapshot: live, settled: true, replayed, changed });
    }
    // More may have followed the outcome by now, and whoever asks again gets the answer without it.
    Ok(match replay::as_answered(app, &live, version, within).await {
        Ok(snapshot) => {
            Decided { settled: snapshot.state.is_settled(), snapshot, replayed, changed }
        }
        // The outcome is there and cannot be shown: later, then.
        Err(_) => Decided { snapshot, settled: false, replayed, changed },
    })
}

/// Waits until nothing that a client waits for is under way at `stream`. `None` when that is not so
/// within `within`. The command itself is durable already, so a partition that is just being opened
/// anew is no failure of it.
///
/// # Errors
/// When this node has no write side.
pub async fn wait_settled(
    app: &App,
    stream: StreamId,
    within: Duration,
) -> Result<Option<Snapshot>, Problem> {
    if within.is_zero() {
        return Ok(None);
    }
    let settled = app.router()?.settled(stream, within).await;
    Ok(settled.unwrap_or_else(|error| {
        tracing::warn!(%stream, %error, "an outcome could not be waited for");
        None
    }))
}

/// The work of a command in a task of its own: a client that goes away does not stop it halfway.
///
/// # Errors
/// What the work ends with; `internal-error` when it panics.
pub async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    use tracing::Instrument;
    let task = tokio::spawn(work.in_current_span());
    task.await.unwrap_or_else(|error| Err(Problem::internal(&error)))
}

/// An answer to a command.
pub struct Answer<B> {
    /// 201 for what was created, 204 where there is nothing to show, 200 else; 202 is made of it
    /// when the outcome is not there.
    pub status: StatusCode,
    /// Where the resource is.
    pub location: Option<String>,
    /// The resource.
    pub body: B,
    /// What a later query must reflect to show it.
    pub position: LogPosition,
}

impl<B: Serialize> Answer<B> {
    /// The response to the command of `envelope`.
    pub fn respond(self, envelope: &Envelope, decided: &Decided) -> Response {
        let status = if decided.settled { self.status } else { StatusCode::ACCEPTED };
        let mut response = match status {
            StatusCode::NO_CONTENT => status.into_response(),
            status => (status, Json(self.body)).into_response(),
        };
        if status != StatusCode::OK
            && let Some(location) = &self.location
        {
            set_header(&mut response, header::LOCATION, location);
        }
        set_header(&mut response, header::ETAG, &etag(decided.snapshot.state.shown_version()));
        set_header(&mut response, header::CACHE_CONTROL, "no-store");
        set_header(&mut response, LOG_POSITION, &self.position.to_string());
        if decided.replayed {
            set_header(&mut response, IDEMPOTENCY_REPLAYED, "true");
        }
        envelope.prefer.applied(&mut response, !decided.settled);
        response
    }
}

/// The position of a snapshot as a token.
pub fn position(snapshot: &Snapshot) -> LogPosition {
    snapshot.position.into_iter().collect()
}

/// The aggregate as decided now. A partition that is just being opened anew is waited for, for a
/// moment.
///
/// # Errors
/// `command-not-applied` when it does not open.
pub async fn look(app: &App, stream: StreamId) -> Result<Snapshot, Problem> {
    ask(app, stream, |router| async move { router.state(stream).await }).await
}

/// Whether the command was applied at `stream` before. Then it gets the answer that it got,
/// whatever has become by now of what it names. As [`look`].
///
/// # Errors
/// As [`look`].
pub async fn is_retry(app: &App, envelope: &Envelope, stream: StreamId) -> Result<bool, Problem> {
    let id = envelope.command_id;
    Ok(envelope.keyed
        && ask(app, stream, |router| async move { router.knows(stream, id).await }).await?)
}

/// Asks a shard for what changes nothing: so it can be asked again whatever became of it.
async fn ask<T, F>(
    app: &App,
    stream: StreamId,
    question: impl Fn(Router) -> F,
) -> Result<T, Problem>
where
    F: Future<Output = Result<T, CommandError>> + Send,
{
    let router = app.router()?;
    let began = app.environment.monotonic();
    loop {
        let waited = app.environment.monotonic().saturating_sub(began);
        match question(router.clone()).await {
            Err(CommandError::NotApplied(_) | CommandError::OutcomeUnknown)
                if waited < LOOK_FOR =>
            {
                app.environment.sleep(LOOK_DELAY).await;
            }
            Err(CommandError::OutcomeUnknown) => {
                return Err(Problem::of_command(CommandError::NotApplied("no answer"), stream));
            }
            answered => return answered.map_err(|error| Problem::of_command(error, stream)),
        }
    }
}
