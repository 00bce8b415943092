//! Clients: their commands and idempotency keys, and the checks of the answers.

use super::{
    books::{Books, Broken, ensure},
    shop::Shop,
    world::OUTSIDE,
};
use commands::{Command, CommandError, Outcome, Request, StateView};
use events::{Fingerprint, StreamId};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How much older than the question the state in an answer without events may be: the lease of a
/// shard plus some time for the network.
const STALE: Duration = Duration::from_secs(3);

/// A command with a client's key and all its attempts.
pub struct Call {
    pub request: Request,
    in_flight: u32,
    /// Whether a client stopped waiting for an answer, or was told that the outcome is unknown.
    doubt: bool,
    /// The version of the acknowledgement.
    acknowledged: Option<u64>,
    /// Whether there is a final answer.
    pub is_over: bool,
}

/// The fingerprint of the request body of every key, and that of another body.
pub const BODY: Fingerprint = Fingerprint([7; 16]);
pub const OTHER_BODY: Fingerprint = Fingerprint([9; 16]);

/// A request with the idempotency key `key`.
pub fn keyed(stream: StreamId, command: impl Into<Command>, key: &str) -> Request {
    let command_id = Uuid::new_v5(&stream.id, key.as_bytes());
    Request {
        stream,
        command: command.into(),
        command_id,
        fingerprint: BODY,
        expected_version: None,
        correlation_id: command_id,
        causation_id: command_id,
        traceparent: None,
    }
}

impl Call {
    pub fn new(request: Request) -> Self {
        Self { request, in_flight: 0, doubt: false, acknowledged: None, is_over: false }
    }
}

type Answer = Result<Outcome, CommandError>;

impl Shop {
    /// Adds a new command. Returns its index among the calls.
    pub fn call(&self, request: Request) -> usize {
        let mut calls = self.calls();
        calls.push(Call::new(request));
        calls.len() - 1
    }

    /// Sends a command once and waits at most `patience`.
    pub async fn attempt(self: Arc<Self>, at: usize, patience: Duration) {
        let Some((process, router)) = self.door() else {
            return self.world.sleep(Duration::from_millis(50)).await;
        };
        let (request, began) = (self.begin(at), self.world.clock());
        self.tell(|| format!("call {at} to {process}: {} {:?}", request.stream, request.command));
        // `send` retries while the partition is not open, `try_send` does not.
        let again = self.world.once_in(2);
        let asked = async {
            if again { router.send(request).await } else { router.try_send(request).await }
        };
        let answer = tokio::select! {
            biased;
            answer = asked => Some(answer),
            () = self.world.sleep(patience) => None,
        };
        self.observe();
        self.tell(|| format!("call {at}: {}", brief(answer.as_ref())));
        if let Err(broken) = self.end(at, answer, began) {
            self.breaks(format!("call {at}: {broken}"));
        }
    }

    /// Sends a command until there is a final answer.
    pub async fn insist(self: Arc<Self>, at: usize) {
        while !self.calls()[at].is_over {
            Arc::clone(&self).attempt(at, Duration::from_secs(20)).await;
            self.world.sleep(Duration::from_millis(100)).await;
        }
    }

    fn begin(&self, at: usize) -> Request {
        let mut calls = self.calls();
        let call = &mut calls[at];
        call.in_flight += 1;
        self.books().denied.remove(&call.request.command_id);
        call.request.clone()
    }

    fn end(&self, at: usize, answer: Option<Answer>, began: Duration) -> Result<(), Broken> {
        let oldest = began.saturating_sub(STALE);
        let (mut calls, mut books) = (self.calls(), self.books());
        let call = &mut calls[at];
        call.in_flight -= 1;
        match answer {
            None | Some(Err(CommandError::OutcomeUnknown)) => call.doubt = true,
            Some(Ok(outcome)) => {
                call.is_over = true;
                call.applied(&books, &outcome, oldest)?;
            }
            Some(Err(CommandError::Refused(refusal))) => {
                call.is_over = true;
                let first = call.acknowledged_before(&books, oldest);
                ensure!(first.is_none(), "acknowledged at {first:?}, then {refusal:?}");
                call.deny(&mut books)?;
            }
            Some(Err(CommandError::NotApplied(_))) => call.deny(&mut books)?,
            Some(Err(error)) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// Sends the same key with another body, which must not succeed.
    pub async fn other_body(self: Arc<Self>, at: usize) {
        let Some((_, router)) = self.door() else { return };
        let oldest = self.world.clock().saturating_sub(STALE);
        let (mut request, known) = {
            let call = &self.calls()[at];
            (call.request.clone(), call.acknowledged_before(&self.books(), oldest).is_some())
        };
        if !known {
            return;
        }
        request.fingerprint = OTHER_BODY;
        match router.try_send(request).await {
            Err(
                CommandError::KeyReused
                | CommandError::NotApplied(_)
                | CommandError::OutcomeUnknown,
            ) => {}
            answer => self.breaks(format!("call {at} with another body: {}", brief(Some(&answer)))),
        }
    }

    /// Reads an aggregate and checks the answer.
    pub async fn look(self: Arc<Self>, stream: StreamId) {
        let Some((_, router)) = self.door() else { return };
        let oldest = self.world.clock().saturating_sub(STALE);
        let Ok(view) = router.state(stream).await else { return };
        self.observe();
        if let Err(broken) = is_durable_and_fresh(&self.books(), &view, oldest) {
            self.breaks(format!("a look at {stream}: {broken}"));
        }
    }

    /// Waits until a stream is final and checks the answer.
    pub async fn wait(self: Arc<Self>, stream: StreamId) {
        let Some((_, router)) = self.door() else { return };
        let final_state = router.await_final(stream, Duration::from_secs(20));
        let patience = self.world.sleep(Duration::from_secs(30));
        let final_state = tokio::select! {
            biased;
            final_state = final_state => final_state,
            () = patience => return,
        };
        let Ok(Some(view)) = final_state else { return };
        self.observe();
        let (shown, landed) = (view.version, self.books().version(stream));
        if shown > landed || (shown > 0 && !view.state.is_final()) {
            self.breaks(format!("{stream} is final at {shown} of {landed}: {view:?}"));
        }
    }

    /// Runs a client's action as a task.
    pub fn client(self: &Arc<Self>, deed: impl Future<Output = ()> + Send + 'static) {
        self.world.spawn(OUTSIDE, Box::pin(deed));
    }
}

impl Call {
    fn applied(
        &mut self,
        books: &Books,
        outcome: &Outcome,
        oldest: Duration,
    ) -> Result<(), Broken> {
        let Outcome { view, changed, replayed } = outcome;
        if !changed && replayed.is_none() {
            let first = self.acknowledged_before(books, oldest);
            ensure!(first.is_none(), "acknowledged at {first:?}, then nothing to do");
            return is_durable_and_fresh(books, view, oldest);
        }
        let applied = books.applied.get(&self.request.command_id);
        let applied = applied.ok_or("acknowledged, but not in the log")?;
        ensure!(applied.stream == self.request.stream, "the command is in another stream");
        let version = replayed.unwrap_or(view.version);
        ensure!(
            version == applied.version,
            "acknowledged at {version}, but it is at {}",
            applied.version
        );
        let landed = books.version(view.stream);
        ensure!(view.version <= landed, "shows version {} of {landed}", view.version);
        let first = *self.acknowledged.get_or_insert(version);
        ensure!(first == version, "acknowledged at {first}, then at {version}");
        Ok(())
    }

    /// The version of the acknowledgement. `None` if it is so recent that it may be unknown to a
    /// process that has lost the partition and has not noticed yet.
    fn acknowledged_before(&self, books: &Books, oldest: Duration) -> Option<u64> {
        let then = books.version_at(self.request.stream, oldest);
        self.acknowledged.filter(|version| *version <= then)
    }

    /// Records that the client was told that the command was not applied. If that holds for every
    /// attempt, the command must never be in the log.
    fn deny(&self, books: &mut Books) -> Result<(), Broken> {
        if self.in_flight > 0 || self.doubt || self.acknowledged.is_some() {
            return Ok(());
        }
        let id = self.request.command_id;
        ensure!(
            !books.applied.contains_key(&id),
            "the command is applied, but its client is told that it is not"
        );
        books.denied.insert(id);
        Ok(())
    }
}

fn is_durable_and_fresh(books: &Books, view: &StateView, oldest: Duration) -> Result<(), Broken> {
    let (shown, landed) = (view.version, books.version(view.stream));
    ensure!(shown <= landed, "shows version {shown} of {landed}");
    let then = books.version_at(view.stream, oldest);
    ensure!(shown >= then, "shows version {shown}, but the stream had {then} before {oldest:?}");
    Ok(())
}

fn brief(answer: Option<&Answer>) -> String {
    match answer {
        None => "the client gave up".into(),
        Some(Ok(Outcome { view, changed, replayed })) => {
            format!("at version {}, changed {changed}, replayed {replayed:?}", view.version)
        }
        Some(Err(error)) => format!("{error}"),
    }
}
