//! Carries out what aggregates owe the world.
//!
//! What is owed is a pure function of an aggregate's state; the [`Board`] holds it, the dispatcher works it off: earliest due
//! first, bounded in all and by kind, with back-off. Every effect is safe to repeat and ends in an event, so nothing here needs
//! to be remembered: after a crash the shards post again what is still owed.

mod board;
mod breaker;
mod customers;
mod mail;
mod orders;
mod payments;

use crate::{
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
pub use payments::{Heard, NotHeard, Payments};

/// Streams whose effects are carried out at the same time.
const STREAMS_AT_ONCE: u32 = 1024;

/// Of these, the most that call the gateway or wait for their turn: however slow it is, the others have room.
const STREAMS_AT_GATEWAY: usize = STREAMS_AT_ONCE as usize / 2;

/// Calls to the gateway at the same time.
const GATEWAY_CALLS_AT_ONCE: usize = 64;

/// A call that takes longer is given up: what it did will be asked again.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(30);

/// Letters that are written and sent at the same time. Nobody but other letters waits for them.
const LETTERS_AT_ONCE: u32 = 16;

/// Something owed by an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// By an order.
    Order(order::Effect),
    /// By a customer.
    Customer(customer::Effect),
}

impl Effect {
    fn is_mail(&self) -> bool {
        matches!(self, Self::Order(order::Effect::Mail { .. }))
    }
}

/// What is owed.
pub struct Owed;

impl Owed {
    /// What `stream` owes in this state.
    pub fn by(state: &State) -> Vec<Effect> {
        match state {
            State::Order(order) => order.owed().into_iter().map(Effect::Order).collect(),
            State::Customer(customer) => {
                customer.owed().into_iter().map(Effect::Customer).collect()
            }
            State::Product(_) | State::Email(_) | State::Wishlist(_) => Vec::new(),
        }
    }
}

/// An effect that did not come through; it stays owed.
#[derive(Debug, thiserror::Error)]
enum EffectError {
    /// A shard did not take the command now.
    #[error("a command was not applied")]
    Command(#[from] CommandError),
    /// The gateway did not answer, or is being left alone for a while.
    #[error("the gateway did not answer")]
    Gateway(#[from] crate::gateway::GatewayError),
    /// The letter did not go out.
    #[error("a letter did not go out")]
    Mail(#[from] MailError),
    /// The key store did not do what was asked.
    #[error("the key store did not answer")]
    Keys(#[from] KeyError),
    /// Too much waits for the gateway already.
    #[error("too much waits for the gateway")]
    Busy,
    /// The gateway is still at it.
    #[error("the gateway is still at it")]
    UnderWay,
    /// A shard's answer made no sense for the effect.
    #[error("an answer is missing")]
    Unanswered,
    /// Carrying it out panicked: a fault of the program, or of the gateway's library.
    #[error("carrying it out panicked")]
    Panicked,
}

/// Works a queue of the board off.
pub struct Dispatcher {
    queue: Arc<Queue>,
    /// Streams whose effects are carried out at the same time.
    at_once: u32,
    hands: Arc<Hands>,
    environment: Arc<dyn Environment>,
    stop: watch::Receiver<bool>,
}

/// What effects reach beyond the log.
#[derive(Clone)]
pub struct Outside {
    /// Moves money.
    pub gateway: Arc<dyn Gateway>,
    /// Has the keys of personal data.
    pub keys: Arc<dyn KeyStore>,
    /// Writes to customers.
    pub mailer: Arc<dyn Mailer>,
}

/// What effects are carried out with.
struct Hands {
    router: Router,
    gateway: Arc<dyn Gateway>,
    keys: Arc<dyn KeyStore>,
    mailer: Arc<dyn Mailer>,
    mail_breaker: Breaker,
    sent: mail::Sent,
    gateway_queue: Semaphore,
    gateway_calls: Semaphore,
    breaker: Breaker,
    environment: Arc<dyn Environment>,
}

impl Dispatcher {
    /// The dispatchers of what is on `board`: of the letters, and of all else. So a slow mail server holds nothing up.
    pub fn of(
        board: &Board,
        router: Router,
        outside: Outside,
        environment: &Arc<dyn Environment>,
        [stop_mail, stop]: [watch::Receiver<bool>; 2],
    ) -> [Self; 2] {
        let Outside { gateway, keys, mailer } = outside;
        let hands = Arc::new(Hands {
            router,
            gateway,
            keys,
            mailer,
            mail_breaker: Breaker::new(Arc::clone(environment), "mail server"),
            sent: mail::Sent::default(),
            gateway_queue: Semaphore::new(STREAMS_AT_GATEWAY),
            gateway_calls: Semaphore::new(GATEWAY_CALLS_AT_ONCE),
            breaker: Breaker::new(Arc::clone(environment), "payment gateway"),
            environment: Arc::clone(environment),
        });
        let one = |queue: &Arc<Queue>, at_once, stop| Self {
            queue: Arc::clone(queue),
            at_once,
            hands: Arc::clone(&hands),
            environment: Arc::clone(environment),
            stop,
        };
        [one(&board.mail, LETTERS_AT_ONCE, stop_mail), one(&board.effects, STREAMS_AT_ONCE, stop)]
    }

    /// The way for what the gateway tells of itself, to the dispatcher of what is owed there.
    pub fn payments(&self) -> Payments {
        Payments::new(Arc::clone(&self.queue), Arc::clone(&self.hands))
    }

    /// Works until told to stop, or until nobody is left to tell it; then waits for what is under way.
    pub async fn run_to_end(self) {
        let at_once = self.at_once;
        let streams = Arc::new(Semaphore::new(at_once as usize));
        self.work(&streams).await;
        // The semaphore is never closed.
        let _ = streams.acquire_many(at_once).await;
    }

    /// The same, but what is under way ends by itself.
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
                Ok((stream, effects)) => self.set_to_work(stream, effects, permit),
                Err(wait) => {
                    drop(permit);
                    self.rest(wait).await;
                }
            }
        }
    }

    /// Carries out what a stream owes, beside the others.
    fn set_to_work(&self, stream: StreamId, effects: Vec<Effect>, permit: OwnedSemaphorePermit) {
        let (queue, hands) = (Arc::clone(&self.queue), Arc::clone(&self.hands));
        let stop = self.stop.clone();
        self.environment.spawn(Box::pin(async move {
            let mut effects = effects;
            loop {
                hands.carry_out(stream, &effects).await;
                match queue.carried_out(stream, &effects) {
                    Next::Effects(_) if *stop.borrow() => break,
                    Next::Effects(next) => effects = next,
                    Next::Rest => break,
                }
            }
            drop(permit);
        }));
    }

    /// Waits for something new, for what is due next, or for the end.
    async fn rest(&mut self, wait: Option<Duration>) {
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

impl Hands {
    /// Carries out a stream's effects side by side. Those that fail stay owed.
    async fn carry_out(&self, stream: StreamId, effects: &[Effect]) {
        let each = effects.iter().map(|effect| async move {
            // A panic is one effect's failure: who does not report back is believed to be at it for ever.
            let done = AssertUnwindSafe(self.effect(stream, effect)).catch_unwind().await;
            match done.unwrap_or(Err(EffectError::Panicked)) {
                Ok(()) => {}
                Err(EffectError::Busy | EffectError::UnderWay) => {
                    tracing::debug!(%stream, ?effect, "an effect waits for the gateway");
                }
                Err(failure) => {
                    let cause = &failure as &dyn std::error::Error;
                    tracing::info!(%stream, ?effect, cause, "an effect did not come through; it stays owed");
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

    /// Sends one command of the program's own; a refusal is an answer here, not a failure.
    async fn tell(
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

/// Tells a refusal, which settles the matter, from a failure, which does not.
fn answer_or_refusal(
    answer: Result<Outcome, CommandError>,
) -> Result<Result<Outcome, crate::request::Refusal>, EffectError> {
    match answer {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(CommandError::Refused(refusal)) => Ok(Err(refusal)),
        Err(error) => Err(error.into()),
    }
}

/// A command that `source` owes to `target`, named by the effect: the same effect is the same command.
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
