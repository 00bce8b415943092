//! Commands: from a request to a decided aggregate, and from there to an answer.

use crate::{
    App,
    auth::{Access, Caller},
    causality::{Expected, LOG_POSITION, Prefer, etag, set_header},
    extract::{self, Media, Params},
    idempotency::{self, IDEMPOTENCY_REPLAYED},
    problem::Problem,
    replay,
    trace::Trace,
    validate,
};
use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use commands::{Command, CommandError, Router, State, StateView};
use events::{Fingerprint, LogPosition, StreamId};
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How long a query to a shard is repeated while its partition is not open.
const LOOK_FOR: Duration = Duration::from_secs(3);
const LOOK_DELAY: Duration = Duration::from_millis(50);
/// The shortest wait for the history that an earlier answer is rebuilt from.
const REPLAY_WAIT: Duration = Duration::from_secs(1);

/// The body of a command's request.
pub trait CommandBody: DeserializeOwned + Serialize + Send + 'static {
    /// Who may send the command. What depends on the resource is checked later.
    const ACCESS: Access;
    /// The media types of the body.
    const MEDIA: Media = Media::Json;

    /// Takes the command's query parameters into the body. Most commands have none.
    ///
    /// # Errors
    /// `invalid-parameter`.
    fn take(&mut self, _: &mut Params) -> Result<(), Problem> {
        Ok(())
    }
}

/// A command as received: its body, and everything else that the request says.
#[derive(Clone, Debug)]
pub struct Received<T> {
    /// The body.
    pub body: T,
    /// Everything but the body.
    pub envelope: Envelope,
}

/// Everything about a command but its body.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The caller.
    pub caller: Caller,
    /// How long the caller will wait.
    pub prefer: Prefer,
    /// Whether the request has an `Idempotency-Key`.
    pub keyed: bool,
    /// Id of the command.
    pub command_id: Uuid,
    fingerprint: Fingerprint,
    expected: Expected,
    traceparent: Option<Box<str>>,
}

impl<T: CommandBody> FromRequest<Arc<App>> for Received<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let path = path(&mut parts).await;
        let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_default();
        caller.require(T::ACCESS)?;
        let mut params = Params::of(parts.uri.query().unwrap_or_default())?;
        let key = idempotency::key(&parts.headers)?;
        let expected = Expected::of(&parts.headers)?;
        let method = parts.method.as_str();
        let mut body: T = extract::json(&parts.headers, body, T::MEDIA).await?;
        body.take(&mut params)?;
        params.end()?;
        validate::screen(&body)?;
        let fingerprint = idempotency::fingerprint(&app.fingerprint_secret, method, &path, &body)?;
        let command_id = match &key {
            Some(key) => {
                idempotency::command_id(key, caller.0.as_ref(), method, &path, fingerprint)
            }
            None => app.environment.uuid(),
        };
        let envelope = Envelope {
            prefer: Prefer::of(&parts.headers),
            keyed: key.is_some(),
            traceparent: parts.extensions.get::<Trace>().map(|trace| trace.0.clone()),
            caller,
            command_id,
            fingerprint,
            expected,
        };
        Ok(Self { body, envelope })
    }
}

/// The path that names the command: the route, with its ids as read. Escapes in the path of the
/// request therefore make no other command.
async fn path(parts: &mut Parts) -> String {
    let Ok(route) = MatchedPath::from_request_parts(parts, &()).await else {
        return parts.uri.path().to_owned();
    };
    let read = RawPathParams::from_request_parts(parts, &()).await;
    let mut path = route.as_str().to_owned();
    for (name, value) in read.iter().flatten() {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    path
}

impl Envelope {
    /// The id of the resource that the command creates.
    pub fn created_id(&self, app: &App) -> Uuid {
        if self.keyed { idempotency::created_id(self.command_id) } else { app.environment.uuid() }
    }

    /// The version that the command requires. Of several, the one that is current now: if another
    /// is by the time of the decision, the caller gets the same refusal as for a stale version.
    async fn expected_version(&self, app: &App, stream: StreamId) -> Result<Option<u64>, Problem> {
        match &self.expected {
            Expected::Any => Ok(None),
            Expected::OneOf(versions) if versions.len() < 2 => {
                Ok(Some(versions.first().copied().unwrap_or(u64::MAX)))
            }
            Expected::OneOf(versions) => {
                let current = look(app, stream).await?.state.shown_version();
                Ok(Some(if versions.contains(&current) { current } else { u64::MAX }))
            }
        }
    }

    fn request(
        &self,
        stream: StreamId,
        command: Command,
        expected_version: Option<u64>,
    ) -> commands::Request {
        commands::Request {
            stream,
            command,
            command_id: self.command_id,
            fingerprint: self.fingerprint,
            expected_version,
            correlation_id: self.command_id,
            causation_id: self.command_id,
            traceparent: self.traceparent.clone(),
        }
    }
}

/// The decision on a command that was not refused.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The aggregate as the answer shows it.
    pub view: StateView,
    /// Whether the outcome is known; if not, the answer is a 202.
    pub is_final: bool,
    /// Whether this answer has been given before.
    pub replayed: bool,
    /// Whether the command changed anything, then or, if replayed, the first time.
    pub changed: bool,
}

/// Sends a command to its shard and waits for its outcome, as long as the caller prefers.
///
/// # Errors
/// The problem for the refusal or the fault.
pub async fn carry_out(
    app: &App,
    envelope: &Envelope,
    stream: StreamId,
    command: impl Into<Command>,
) -> Result<Decided, Problem> {
    let router = app.router()?;
    let expected = envelope.expected_version(app, stream).await?;
    let sent = router.send(envelope.request(stream, command.into(), expected)).await;
    let outcome = sent.map_err(|error| Problem::of_command(error, stream))?;
    let replayed = outcome.replayed.is_some();
    let changed = outcome.changed || replayed;
    let version = outcome.replayed.unwrap_or(outcome.view.version);
    // `Prefer: wait=0` is about the outcome. A retry still gets the answer that was given.
    let within = envelope.prefer.query_wait().max(REPLAY_WAIT);
    let view = match outcome.replayed {
        Some(version) => replay::as_answered(app, &outcome.view, version, within).await?,
        None => outcome.view,
    };
    if view.state.is_final() {
        return Ok(Decided { view, is_final: true, replayed, changed });
    }
    let Some(live) = await_final(app, stream, envelope.prefer.command_wait()).await? else {
        return Ok(Decided { view, is_final: false, replayed, changed });
    };
    if app.reads.is_none() {
        return Ok(Decided { view: live, is_final: true, replayed, changed });
    }
    // Later events may have followed the outcome by now. A retry is answered without them, so this
    // answer leaves them out as well.
    Ok(match replay::as_answered(app, &live, version, within).await {
        Ok(view) => Decided { is_final: view.state.is_final(), view, replayed, changed },
        // The outcome is known and cannot be shown yet: a 202, and the caller reads it later.
        Err(_) => Decided { view, is_final: false, replayed, changed },
    })
}

/// Waits until `stream` has reached the outcome that clients wait for; `None` if that takes longer
/// than `within`. The command is durable already, so a partition that is just being reopened is no
/// error.
///
/// # Errors
/// `unavailable` if this node has no write side.
pub async fn await_final(
    app: &App,
    stream: StreamId,
    within: Duration,
) -> Result<Option<StateView>, Problem> {
    if within.is_zero() {
        return Ok(None);
    }
    let final_state = app.router()?.await_final(stream, within).await;
    Ok(final_state.unwrap_or_else(|error| {
        tracing::warn!(%stream, %error, "waiting for an outcome failed");
        None
    }))
}

/// Runs the work of a command in a task of its own, so that a client that disconnects does not
/// stop it halfway.
///
/// # Errors
/// The error of the work; `internal-error` if it panics.
pub async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    use tracing::Instrument;
    let task = tokio::spawn(work.in_current_span());
    task.await.unwrap_or_else(|error| Err(Problem::internal(&error)))
}

/// An answer to a command.
pub struct Answer<B> {
    /// 201 for a new resource, 204 without a body, else 200. Replaced by 202 while the outcome is
    /// unknown.
    pub status: StatusCode,
    /// Path of the resource.
    pub location: Option<String>,
    /// The resource.
    pub body: B,
    /// The position that a later query must reflect to show this state.
    pub position: LogPosition,
}

impl<B: Serialize> Answer<B> {
    /// The answer that shows a decided aggregate as `body`.
    pub fn of(decided: &Decided, status: StatusCode, location: String, body: B) -> Self {
        let position = position(&decided.view);
        Self { status, location: Some(location), body, position }
    }

    /// The response to the command of `envelope`.
    pub fn respond(self, envelope: &Envelope, decided: &Decided) -> Response {
        let status = if decided.is_final { self.status } else { StatusCode::ACCEPTED };
        let mut response = match status {
            StatusCode::NO_CONTENT => status.into_response(),
            status => (status, Json(self.body)).into_response(),
        };
        if status != StatusCode::OK
            && let Some(location) = &self.location
        {
            set_header(&mut response, header::LOCATION, location);
        }
        set_header(&mut response, header::ETAG, &etag(decided.view.state.shown_version()));
        set_header(&mut response, header::CACHE_CONTROL, "no-store");
        set_header(&mut response, LOG_POSITION, &self.position.to_string());
        if decided.replayed {
            set_header(&mut response, IDEMPOTENCY_REPLAYED, "true");
        }
        envelope.prefer.applied(&mut response, !decided.is_final);
        response
    }
}

/// The position of an aggregate's last event, as a token.
pub fn position(view: &StateView) -> LogPosition {
    view.position.into_iter().collect()
}

/// The current state of an aggregate, from its shard. Waits a moment for a partition that is just
/// being reopened.
///
/// # Errors
/// `command-not-applied` if the partition does not open in time.
pub async fn look(app: &App, stream: StreamId) -> Result<StateView, Problem> {
    ask(app, stream, |router| async move { router.state(stream).await }).await
}

/// Checks what the aggregate checks itself, too, when it decides. So a yes need not be up to date,
/// and costs the log no record; a no must be.
///
/// # Errors
/// What the check says, and as [`look`].
pub async fn passes(
    app: &App,
    stream: StreamId,
    check: impl Fn(&State) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let seen = ask(app, stream, |router| async move { router.glance(stream).await }).await?;
    if check(&seen.state).is_ok() {
        return Ok(());
    }
    check(&look(app, stream).await?.state)
}

/// Whether the command was applied at `stream` before. A retry gets the first answer again, even
/// if a customer or product that it names is gone by now. Waits as [`look`] does.
///
/// # Errors
/// As [`look`].
pub async fn is_retry(app: &App, envelope: &Envelope, stream: StreamId) -> Result<bool, Problem> {
    let id = envelope.command_id;
    Ok(envelope.keyed
        && ask(app, stream, |router| async move { router.was_applied(stream, id).await }).await?)
}

/// Sends a query to a shard. It changes nothing, so it can be repeated after any error.
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
