//! The commands of the clients and the replies to them.

use events::StreamId;
use reqwest::{Method, header::HeaderMap};
use serde_json::Value;
use uuid::Uuid;

/// The namespace of ids derived from idempotency keys; part of the log's format.
const COMMANDS: Uuid = Uuid::from_u128(0x6f72_6465_726c_8f67_b26b_6579_6564_0001);

/// What a command asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Place an order.
    Order,
    /// Change the stock of a product.
    Stock {
        /// The product.
        product: Uuid,
        /// Units to add; negative to remove.
        quantity: i64,
    },
    /// Cancel an order.
    Cancel {
        /// The order.
        order: Uuid,
    },
    /// Change the status of an order.
    Move {
        /// The order.
        order: Uuid,
        /// The new status.
        to: &'static str,
    },
    /// Register a customer.
    Register,
    /// Add a product.
    Product,
}

/// A command with its idempotency key, which is the same in every attempt.
#[derive(Clone, Debug)]
pub struct Command {
    /// What the command asks for.
    pub action: Action,
    /// The idempotency key.
    pub key: String,
    /// The command id derived from the key.
    pub id: Uuid,
    /// The HTTP method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The request body.
    pub body: Value,
}

/// The caller, as named in the token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `sub`.
    pub subject: String,
}

impl Command {
    /// Derives the command id from a key, independently of the program's code.
    pub fn id(caller: &Caller, method: &Method, path: &str, key: &str) -> Uuid {
        let mut name = Vec::new();
        for part in [&caller.issuer, &caller.subject, method.as_str(), path, key] {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        Uuid::new_v5(&COMMANDS, &name)
    }

    /// The stream that the command changes.
    pub fn stream(&self) -> StreamId {
        let created = Uuid::new_v5(&self.id, b"id");
        match self.action {
            Action::Order => StreamId::order(created),
            Action::Register => StreamId::customer(created),
            Action::Product => StreamId::product(created),
            Action::Stock { product, .. } => StreamId::product(product),
            Action::Cancel { order } | Action::Move { order, .. } => StreamId::order(order),
        }
    }

    /// Whether the command creates a resource. The program remembers refusals of such commands too.
    pub fn creates(&self) -> bool {
        matches!(self.action, Action::Order | Action::Register | Action::Product)
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The name of the problem, if the response is one.
    pub problem: Option<String>,
    /// The version in the `ETag`.
    pub etag: Option<u64>,
    /// The header `Location`.
    pub location: Option<String>,
    /// The header `Log-Position`.
    pub position: Option<String>,
    /// Whether the response has the header `Idempotency-Replayed`.
    pub replayed: bool,
    /// The body.
    pub body: Value,
}

impl Answer {
    /// Makes one from an HTTP response.
    pub fn new(status: u16, headers: &HeaderMap, body: Value) -> Self {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let kind = body["type"].as_str().unwrap_or_default();
        Self {
            status,
            problem: kind.strip_prefix("/problems/").map(str::to_owned),
            etag: text("etag").and_then(|tag| tag.trim_matches('"').parse().ok()),
            location: text("location"),
            position: text("log-position"),
            replayed: text("idempotency-replayed").is_some(),
            body,
        }
    }

    /// The parts that must be the same whenever the key is sent again.
    pub fn essence(&self) -> (u16, &Option<String>, Option<u64>, &Option<String>, &Option<String>) {
        (self.status, &self.problem, self.etag, &self.location, &self.position)
    }
}

/// The result of one attempt.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A final answer.
    Final(Answer),
    /// The order is durable but still pending (202).
    Accepted,
    /// The answer says that the command was not applied.
    NotApplied,
    /// The command was never sent: the connection was refused.
    NotSent,
    /// No answer, or one that leaves the outcome open.
    Unknown(String),
    /// An answer that no client should ever get.
    Wrong(Answer),
}

impl Reply {
    /// Sorts an answer.
    pub fn of(answer: Answer) -> Self {
        let problem = answer.problem.as_deref().unwrap_or_default();
        match (answer.status, problem) {
            (202, _) => Self::Accepted,
            (200 | 201 | 402 | 404 | 409, _) | (422, "validation-failed") => Self::Final(answer),
            (503, "command-not-applied") => Self::NotApplied,
            (503, _) => Self::Unknown(format!("503 {problem}")),
            _ => Self::Wrong(answer),
        }
    }
}

/// A command and the replies to all its attempts.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The command.
    pub command: Command,
    /// One reply per attempt, in order.
    pub replies: Vec<Reply>,
    /// Whether two attempts were in flight at the same time; they may be decided in either order.
    pub twins: bool,
}

/// The outcome of a command, as its client knows it in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command was applied, or its refusal is part of the history (a rejected order).
    Acknowledged,
    /// The command was refused or not applied, for certain.
    Refused,
    /// The client never learned the outcome.
    Unknown,
}

impl Exchange {
    /// The first final answer.
    pub fn answer(&self) -> Option<&Answer> {
        self.answers().next()
    }

    /// All final answers.
    pub fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.replies.iter().filter_map(|reply| match reply {
            Reply::Final(answer) => Some(answer),
            _ => None,
        })
    }

    /// The answer that says that the command was applied, or that its refusal is part of the
    /// history.
    pub fn acknowledgement(&self) -> Option<&Answer> {
        self.answers().find(|answer| self.is_acknowledgement(answer))
    }

    fn is_acknowledgement(&self, answer: &Answer) -> bool {
        let rejected = answer.body["order_id"].is_string();
        answer.status < 300 || (self.command.creates() && rejected)
    }

    /// The outcome as the client knows it.
    pub fn outcome(&self) -> Outcome {
        if self.acknowledgement().is_some() {
            return Outcome::Acknowledged;
        }
        let open = |reply: &Reply| match reply {
            Reply::Unknown(_) | Reply::Accepted | Reply::Wrong(_) => true,
            // Of two at the same time, the loser's refusal is part of the history; otherwise a taken
            // address leaves nothing behind.
            Reply::Final(answer) => answer.problem.as_deref() == Some("email-taken"),
            _ => false,
        };
        if self.replies.is_empty() || self.replies.iter().any(open) {
            return Outcome::Unknown;
        }
        Outcome::Refused
    }
}
