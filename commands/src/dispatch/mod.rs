//! Carries out the effects that aggregates owe.
//!
//! The effects that are owed are a pure function of an aggregate's state. The shards post them on
//! the [`Board`]; the dispatchers carry them out, earliest due first, limited in total and by kind,
//! with back-off. Every effect is safe to repeat and ends in an event, so nothing here needs to
//! survive a crash: the shards then post again what is still owed.

mod board;
mod breaker;
mod customers;
mod mail;
mod orders;
mod payments;

use crate::{
    ShopRules,
    aggregate::EffectId,
    customer,
    gateway::Gateway,
    mail::{MailError, Mailer},
    order,
    request::{Command, CommandError, Outcome, Request, State},
    router::Router,
};
use events::{
    Environment, Fingerprint, StreamId,
    keys::{KeyError, KeyStore},
};
use futures::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

pub use board::Board;
use board::{Next, Queue};
use breaker::Breaker;
pub use payments::{NoticeError, NoticeResult, Payments};

/// How many streams may have their effects carried out at the same time.
const STREAMS_AT_ONCE: u32 = 1024;

/// How many orders may have their payments carried out at the same time.
const PAYMENTS_AT_ONCE: u32 = 512;

/// How many calls to the gateway may be in progress at the same time.
const GATEWAY_CALLS_AT_ONCE: usize = 64;

/// How long a call to the gateway may take. A call that takes longer is dropped and repeated.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(30);

/// How many letters may be written and sent at the same time. Only letters wait for this limit.
const LETTERS_AT_ONCE: u32 = 16;

/// An effect that an aggregate owes.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Owed by an order.
    Order(order::Effect),
    /// Owed by a customer.
    Customer(customer::Effect),
}

impl Effect {
    /// Identifies the effect among those of its stream. Log lines name it: the effect itself holds
    /// what no log line may.
    fn id(&self) -> EffectId {
        match self {
            Self::Order(effect) => effect.id(),
            Self::Customer(effect) => effect.id(),
        }
    }

    fn is_mail(&self) -> bool {
        matches!(self, Self::Order(order::Effect::Mail { .. }))
    }

    /// Whether it needs the payment gateway.
    fn is_payment(&self) -> bool {
        use order::Effect::{Capture, Refund, Settle, StartPayment};
        matches!(
            self,
            Self::Order(StartPayment { .. } | Capture { .. } | Settle { .. } | Refund { .. })
        )
    }
}

/// The effects that the stream with this state owes.
pub fn owed_by(state: &State) -> Vec<Effect> {
    match state {
        State::Order(order) => order.owed().into_iter().map(Effect::Order).collect(),
        State::Customer(customer) => customer.owed().into_iter().map(Effect::Customer).collect(),
        State::Product(_) | State::Email(_) | State::Wishlist(_) => Vec::new(),
    }
}

/// Why an effect failed; it stays owed.
#[derive(Debug, thiserror::Error)]
enum EffectError {
    /// A shard did not apply the command.
    #[error("a command was not applied")]
    Command(#[from] CommandError),
    /// The gateway did not answer, or its breaker has tripped.
    #[error("the gateway did not answer")]
    Gateway(#[from] crate::gateway::GatewayError),
    /// The letter was not sent.
    #[error("a letter was not sent")]
    Mail(#[from] MailError),
    /// The key store failed.
    #[error("the key store failed")]
    Keys(#[from] KeyError),
    /// The gateway is still processing the payment.
    #[error("the gateway is still processing the payment")]
    UnderWay,
    /// A shard gave no answer, or one that does not fit the effect.
    #[error("a shard gave no answer, or one that does not fit")]
    Unanswered,
    /// Carrying it out panicked, which is a bug in this program or in the gateway's library.
    #[error("carrying out the effect panicked")]
    Panicked,
}

/// Carries out what is owed on one queue of the board.
pub struct Dispatcher {
    queue: Arc<Queue>,
    /// How many streams may have their effects carried out at the same time.
    at_once: u32,
    executor: Arc<Executor>,
    environment: Arc<dyn Environment>,
    stop: watch::Receiver<bool>,
}

/// What the dispatchers use outside the log.
#[derive(Clone)]
pub struct Outside {
    /// Moves money.
    pub gateway: Arc<dyn Gateway>,
    /// Holds the keys of personal data.
    pub keys: Arc<dyn KeyStore>,
    /// Sends letters to customers.
    pub mailer: Arc<dyn Mailer>,
}

/// Carries out single effects.
struct Executor {
    router: Router,
    gateway: Arc<dyn Gateway>,
    keys: Arc<dyn KeyStore>,
    mailer: Arc<dyn Mailer>,
    mail_breaker: Breaker,
    sent: mail::Sent,
    gateway_calls: Semaphore,
    breaker: Breaker,
    rules: ShopRules,
    environment: Arc<dyn Environment>,
}

impl Dispatcher {
    /// The dispatchers of `board`: one for letters, one for payments and one for everything else, so
    /// that a slow mail server delays only letters, and a slow bank only payments.
    pub fn of(
        board: &Board,
        router: Router,
        outside: Outside,
        rules: ShopRules,
        environment: &Arc<dyn Environment>,
        [stop_mail, stop]: [watch::Receiver<bool>; 2],
    ) -> [Self; 3] {
        let Outside { gateway, keys, mailer } = outside;
        let executor = Arc::new(Executor {
            router,
            gateway,
            keys,
            mailer,
            mail_breaker: Breaker::new(Arc::clone(environment), "mail server"),
            sent: mail::Sent::default(),
            gateway_calls: Semaphore::new(GATEWAY_CALLS_AT_ONCE),
            breaker: Breaker::new(Arc::clone(environment), "payment gateway"),
            rules,
            environment: Arc::clone(environment),
        });
        let one = |queue: &Arc<Queue>, at_once, stop| Self {
            queue: Arc::clone(queue),
            at_once,
            executor: Arc::clone(&executor),
            environment: Arc::clone(environment),
            stop,
        };
        [
            one(&board.mail, LETTERS_AT_ONCE, stop_mail),
            one(&board.payments, PAYMENTS_AT_ONCE, stop.clone()),
            one(&board.effects, STREAMS_AT_ONCE, stop),
        ]
    }

    /// Receives the gateway's notices, and makes this dispatcher retry the orders they are about.
    pub fn payments(&self) -> Payments {
        Payments::new(Arc::clone(&self.queue), Arc::clone(&self.executor))
    }

    /// Carries out effects until told to stop, or until the sender of the stop signal is gone. Then
    /// waits for the effects in progress.
    pub async fn run_to_end(self) {
        let at_once = self.at_once;
        let streams = Arc::new(Semaphore::new(at_once as usize));
        self.work(&streams).await;
        // The semaphore is never closed.
        let _ = streams.acquire_many(at_once).await;
    }

    /// Like [`run_to_end`](Self::run_to_end), but does not wait for the effects in progress.
    pub async fn run(self) {
        let streams = Arc::new(Semaphore::new(self.at_once as usize));
        self.work(&streams).await;
    }

    async fn work(mut self, streams: &Arc<Semaphore>) {
        loop {
            let permit = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return,
                permit = Arc::clone(streams).acquire_owned() => permit,
            };
            // The semaphore is never closed.
            let Ok(permit) = permit else { return };
            match self.queue.take_due() {
                Ok((stream, effects)) => self.spawn_effects(stream, effects, permit),
                Err(wait) => {
                    drop(permit);
                    self.wait(wait).await;
                }
            }
        }
    }

    /// Carries out what a stream owes, in a task of its own.
    fn spawn_effects(&self, stream: StreamId, effects: Vec<Effect>, permit: OwnedSemaphorePermit) {
        let (queue, executor) = (Arc::clone(&self.queue), Arc::clone(&self.executor));
        let stop = self.stop.clone();
        self.environment.spawn(Box::pin(async move {
            let mut effects = effects;
            loop {
                executor.carry_out(stream, &effects).await;
                match queue.carried_out(stream, &effects) {
                    Next::Effects(_) if *stop.borrow() => break,
                    Next::Effects(next) => effects = next,
                    Next::Done => break,
                }
            }
            drop(permit);
        }));
    }

    /// Waits until something new is posted, the next stream is due, or the dispatcher must stop.
    async fn wait(&mut self, wait: Option<Duration>) {
        let due = async {
            match wait {
                Some(wait) => self.environment.sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => {}
            () = self.queue.news() => {}
            () = due => {}
        }
    }
}

impl Executor {
    /// Carries out a stream's effects concurrently. An effect that fails stays owed.
    async fn carry_out(&self, stream: StreamId, effects: &[Effect]) {
        let each = effects.iter().map(|effect| async move {
            // A panic must fail only this effect. If it ended the task, the board would believe for
            // ever that the stream is being carried out.
            let done = AssertUnwindSafe(self.effect(stream, effect)).catch_unwind().await;
            match done.unwrap_or(Err(EffectError::Panicked)) {
                Ok(()) => {}
                Err(EffectError::UnderWay) => {
                    tracing::debug!(%stream, effect = %effect.id(), "an effect waits for the gateway");
                }
                Err(failure) => {
                    let cause = &failure as &dyn std::error::Error;
                    let effect = effect.id();
                    tracing::info!(%stream, %effect, cause, "an effect failed; it stays owed");
                    metrics::counter!("orderlog_effect_failures_total").increment(1);
                }
            }
        });
        futures::future::join_all(each).await;
    }

    async fn effect(&self, stream: StreamId, effect: &Effect) -> Result<(), EffectError> {
        match effect {
            Effect::Order(effect) => self.order_effect(stream, effect).await,
            Effect::Customer(effect) => self.customer_effect(stream, effect).await,
        }
    }

    /// Sends one of the program's own commands. A refusal is an answer, not a failure.
    async fn send_command(
        &self,
        request: Request,
    ) -> Result<Result<Outcome, crate::request::Refusal>, EffectError> {
        let mut answers = self.router.send_internal(vec![request]).await;
        match answers.pop() {
            Some(answer) => answer_or_refusal(answer),
            None => Err(EffectError::Unanswered),
        }
    }
}

/// Separates a refusal, after which the command need not be repeated, from a failure, after which
/// it must be.
fn answer_or_refusal(
    answer: Result<Outcome, CommandError>,
) -> Result<Result<Outcome, crate::request::Refusal>, EffectError> {
    match answer {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(CommandError::Refused(refusal)) => Ok(Err(refusal)),
        Err(error) => Err(error.into()),
    }
}

/// A command that `source` owes to `target`. The command id derives from the effect, so the same
/// effect is always the same command.
fn owed_request(
    source: StreamId,
    target: StreamId,
    effect: &str,
    command: impl Into<Command>,
) -> Request {
    let command_id = Uuid::new_v5(&source.id, effect.as_bytes());
    Request {
        stream: target,
        command: command.into(),
        command_id,
        fingerprint: Fingerprint::default(),
        expected_version: None,
        correlation_id: source.id,
        causation_id: command_id,
        traceparent: None,
    }
}
