//! A command on its way to the shard that decides it, and what comes back.

use crate::{
    aggregate::{Aggregate, At},
    customer::{self, Customer},
    email::{self, Email},
    order::{self, Order},
    product::{self, Product},
    wishlist::{self, Wishlist},
};
use events::{Event, Fingerprint, Position, StreamId, StreamKind, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// A command for any aggregate.
#[derive(Clone, Debug)]
pub enum Command {
    /// For a product.
    Product(product::Command),
    /// For an order.
    Order(order::Command),
    /// For a customer.
    Customer(customer::Command),
    /// For an e-mail address.
    Email(email::Command),
    /// For a wishlist.
    Wishlist(wishlist::Command),
}

/// Why an aggregate refused a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// By a product.
    Product(product::Refusal),
    /// By an order.
    Order(order::Refusal),
    /// By a customer.
    Customer(customer::Refusal),
    /// By an e-mail address.
    Email(email::Refusal),
    /// By a wishlist.
    Wishlist(wishlist::Refusal),
}

/// The state of any aggregate; cheap to clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum State {
    /// Of a product.
    Product(Arc<Product>),
    /// Of an order.
    Order(Arc<Order>),
    /// Of a customer.
    Customer(Arc<Customer>),
    /// Of an e-mail address.
    Email(Arc<Email>),
    /// Of a wishlist.
    Wishlist(Arc<Wishlist>),
}

/// Ties the enums of a kind together.
macro_rules! kinds {
    ($($variant:ident $module:ident),+) => {
        $(impl From<$module::Command> for Command {
            fn from(command: $module::Command) -> Self { Self::$variant(command) }
        }
        impl From<$module::Refusal> for Refusal {
            fn from(refusal: $module::Refusal) -> Self { Self::$variant(refusal) }
        })+

        impl State {
            /// What a stream of this kind is before its first event; `None` for a writer's stream.
            pub fn empty(kind: StreamKind) -> Option<Self> {
                match kind {
                    StreamKind::Writer => None,
                    $(StreamKind::$variant => Some(Self::$variant(Arc::default())),)+
                }
            }

            /// Decides `command` at log time `now`. `None` when the command is for another kind of aggregate.
            pub(crate) fn decide(
                &self,
                command: &Command,
                now: Timestamp,
            ) -> Option<Result<Vec<Event>, Refusal>> {
                match (self, command) {
                    $((Self::$variant(state), Command::$variant(command)) => Some(
                        state
                            .decide(command, now)
                            .map(|events| events.into_iter().map(Event::$variant).collect())
                            .map_err(Refusal::$variant),
                    ),)+
                    _ => None,
                }
            }

            /// Folds `event` in. `false` when the event is of another kind of stream.
            pub fn evolve(&mut self, event: &Event, at: At) -> bool {
                match (self, event) {
                    $((Self::$variant(state), Event::$variant(event)) => {
                        Arc::make_mut(state).evolve(event, at);
                        true
                    })+
                    _ => false,
                }
            }

            /// The stream version of the last event that changed the aggregate as shown to clients.
            pub fn shown_version(&self) -> u64 {
                match self {
                    Self::Product(state) => state.shown_version(),
                    Self::Order(state) => state.shown_version(),
                    Self::Customer(state) => state.shown_version(),
                    Self::Email(_) => 0,
                    Self::Wishlist(state) => state.shown_version(),
                }
            }
        }
    };
}
kinds!(Product product, Order order, Customer customer, Email email, Wishlist wishlist);

impl State {
    /// Forgets what no later decision needs, once the answers that show it have their own copy.
    pub(crate) fn compact(&mut self) {
        if let Self::Order(order) = self
            && order.status().is_some_and(order::Status::is_final)
        {
            Arc::make_mut(order).compact();
        }
    }

    /// Whether nothing that a client waits for is under way.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Order(order) => order.exists() && !order.is_pending(),
            Self::Customer(customer) => customer.exists() && !customer.is_change_pending(),
            Self::Product(_) | Self::Email(_) | Self::Wishlist(_) => true,
        }
    }
}

/// A command with all that must be known of it besides.
#[derive(Clone, Debug)]
pub struct Request {
    /// The stream it is for.
    pub stream: StreamId,
    /// What is asked.
    pub command: Command,
    /// Names the command: the same id again is the same command again. A `UUIDv5` stands for a key that a client may repeat and
    /// is remembered; others are not.
    pub command_id: Uuid,
    /// Of the request it came from; all zero for the program's own commands.
    pub fingerprint: Fingerprint,
    /// The version that the client saw, if it insists (`If-Match`).
    pub expected_version: Option<u64>,
    /// The first command of the process.
    pub correlation_id: Uuid,
    /// What directly caused it.
    pub causation_id: Uuid,
    /// The W3C trace context of the request.
    pub traceparent: Option<Box<str>>,
}

/// An aggregate at one version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its stream.
    pub stream: StreamId,
    /// The version of its last event; 0 when there is none.
    pub version: u64,
    /// Where its last event stands; `None` when there is none.
    pub position: Option<Position>,
    /// Its state.
    pub state: State,
}

/// What became of a command that was not refused.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The aggregate after it.
    pub snapshot: Snapshot,
    /// Whether it appended events.
    pub changed: bool,
    /// Set when this command had been applied before: the version of the last event it appended then. The first answer is
    /// the aggregate as of the version that answered it, from its history.
    pub replayed: Option<u64>,
}

/// Why a command was not applied, or is not known to be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The aggregate refused it.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The client saw another version.
    #[error("the current version is {current}")]
    VersionMismatch {
        /// The version shown now.
        current: u64,
    },
    /// The command id belongs to another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// Nothing was appended, for a reason of the moment: the partition is not open, or too much waits for it.
    #[error("not applied: {0}")]
    NotApplied(&'static str),
    /// The answer did not come: it may have been applied.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
    /// Deciding it failed: a fault of the program.
    #[error("deciding the command failed")]
    Fault,
}
