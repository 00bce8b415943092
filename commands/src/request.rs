//! A command on its way to the shard that decides it, and the answer to it.

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

/// Implements what is the same for every kind of aggregate.
macro_rules! kinds {
    ($($variant:ident $module:ident),+) => {
        $(impl From<$module::Command> for Command {
            fn from(command: $module::Command) -> Self { Self::$variant(command) }
        }
        impl From<$module::Refusal> for Refusal {
            fn from(refusal: $module::Refusal) -> Self { Self::$variant(refusal) }
        })+

        impl State {
            /// The state of a stream without events; `None` for a writer's stream, which has no
            /// aggregate.
            pub fn empty(kind: StreamKind) -> Option<Self> {
                match kind {
                    StreamKind::Writer => None,
                    $(StreamKind::$variant => Some(Self::$variant(Arc::default())),)+
                }
            }

            /// Decides `command` at log time `now`. `None` if the command is for another kind of
            /// aggregate.
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

            /// Applies `event`. `false` if the event belongs to another kind of stream.
            pub fn evolve(&mut self, event: &Event, at: At) -> bool {
                match (self, event) {
                    $((Self::$variant(state), Event::$variant(event)) => {
                        Arc::make_mut(state).evolve(event, at);
                        true
                    })+
                    _ => false,
                }
            }

            /// The stream version of the last event that changed what clients see of the aggregate.
            pub fn shown_version(&self) -> u64 {
                match self {
                    Self::Product(state) => state.shown().version,
                    Self::Order(state) => state.shown().version,
                    Self::Customer(state) => state.shown().version,
                    Self::Email(_) => 0,
                    Self::Wishlist(state) => state.shown_version(),
                }
            }
        }
    };
}
kinds!(Product product, Order order, Customer customer, Email email, Wishlist wishlist);

impl State {
    /// Drops what no later decision needs. The shard calls it after the answers have taken their
    /// own copy of the state.
    pub(crate) fn compact(&mut self) {
        if let Self::Order(order) = self
            && order.status().is_some_and(order::Status::is_done)
        {
            Arc::make_mut(order).compact();
        }
    }

    /// Whether no operation that a client may be waiting for is still in progress.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Order(order) => order.exists() && !order.is_pending(),
            Self::Customer(customer) => customer.exists() && !customer.is_change_pending(),
            Self::Product(_) | Self::Email(_) | Self::Wishlist(_) => true,
        }
    }
}

/// A command with its identity, its preconditions and its origin.
#[derive(Clone, Debug)]
pub struct Request {
    /// The stream that decides it.
    pub stream: StreamId,
    /// The command itself.
    pub command: Command,
    /// Identifies the command: two requests with the same id are the same command. A `UUIDv5` is
    /// derived from a client's idempotency key; the shard remembers such commands, because a client
    /// may repeat them. It does not remember others.
    pub command_id: Uuid,
    /// The fingerprint of the HTTP request; all zero for the program's own commands.
    pub fingerprint: Fingerprint,
    /// The version that the client requires (`If-Match`); `None` if it requires none.
    pub expected_version: Option<u64>,
    /// The first command of the process that this command belongs to.
    pub correlation_id: Uuid,
    /// The command or event that directly caused this command.
    pub causation_id: Uuid,
    /// The W3C trace context of the request.
    pub traceparent: Option<Box<str>>,
}

/// An aggregate's state at one version, as a shard tells it to a caller.
#[derive(Clone, Debug)]
pub struct StateView {
    /// Its stream.
    pub stream: StreamId,
    /// The version of its last event; 0 if the stream has no events.
    pub version: u64,
    /// The position of its last event; `None` if the stream has no events.
    pub position: Option<Position>,
    /// Its state.
    pub state: State,
}

/// What came of a command that the aggregate accepted.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The aggregate after the command.
    pub view: StateView,
    /// Whether it appended events.
    pub changed: bool,
    /// Set if the command had already been applied: the version of the last event it appended then.
    /// To give the first answer again, fold the stream's history up to the version that answered
    /// it.
    pub replayed: Option<u64>,
}

/// Why a command was not applied, or why nobody knows whether it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The aggregate refused it.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The aggregate's version is not the one that the client requires.
    #[error("the current version is {current}")]
    VersionMismatch {
        /// The current version.
        current: u64,
    },
    /// The command id belongs to another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// Nothing was appended, for a temporary reason: the partition is not open, or its mailbox is
    /// full.
    #[error("not applied: {0}")]
    NotApplied(&'static str),
    /// No answer arrived. The command may have been applied.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
    /// The decision panicked, which is a bug in this program.
    #[error("the decision of the command panicked")]
    Fault,
}
