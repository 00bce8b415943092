//! What was asked and what was answered.

use events::StreamId;
use reqwest::{Method, header::HeaderMap};
use serde_json::Value;
use uuid::Uuid;

/// The namespace of the ids of keyed commands: part of the log's format.
const COMMANDS: Uuid = Uuid::from_u128(0x6f72_6465_726c_8f67_b26b_6579_6564_0001);

/// What a command asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// An order.
    Order,
    /// Other units on hand of a product.
    Stock {
        /// Which product.
        product: Uuid,
        /// Units more.
        quantity: i64,
    },
    /// That an order is cancelled.
    Cancel {
        /// Which order.
        order: Uuid,
    },
    /// That an order moves on.
    Move {
        /// Which order.
        order: Uuid,
        /// Where to.
        to: &'static str,
    },
    /// To be a customer.
    Register,
    /// A new product.
    Product,
}

/// A command with its key: the same in every attempt.
#[derive(Clone, Debug)]
pub struct Command {
    /// What it asks for.
    pub asked: Asked,
    /// The idempotency key.
    pub key: String,
    /// The id that the key leads to.
    pub id: Uuid,
    /// How it is sent.
    pub method: Method,
    /// Where.
    pub path: String,
    /// With what.
    pub body: Value,
}

/// Who sends: what the token says.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
}

impl Command {
    /// The id that a key leads to, told again by other code than the program's.
    pub fn id(caller: &Caller, method: &Method, path: &str, key: &str) -> Uuid {
        let mut name = Vec::new();
        for part in [&caller.issuer, &caller.subject, method.as_str(), path, key] {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        Uuid::new_v5(&COMMANDS, &name)
    }

    /// The stream that it changes.
    pub fn stream(&self) -> StreamId {
        let created = Uuid::new_v5(&self.id, b"id");
        match self.asked {
            Asked::Order => StreamId::order(created),
            Asked::Register => StreamId::customer(created),
            Asked::Product => StreamId::product(created),
            Asked::Stock { product, .. } => StreamId::product(product),
            Asked::Cancel { order } | Asked::Move { order, .. } => StreamId::order(order),
        }
    }

    /// Whether it makes something new: then refusals are remembered too.
    pub fn creates(&self) -> bool {
        matches!(self.asked, Asked::Order | Asked::Register | Asked::Product)
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The name of the problem, if it is one.
    pub problem: Option<String>,
    /// The version answered with.
    pub etag: Option<u64>,
    /// Where the resource is.
    pub location: Option<String>,
    /// The causal token.
    pub position: Option<String>,
    /// Whether the server says that this was answered before.
    pub replayed: bool,
    /// The body.
    pub body: Value,
}

impl Answer {
    /// From what came over HTTP.
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

    /// What must be the same whenever the key is sent again.
    pub fn essence(&self) -> (u16, &Option<String>, Option<u64>, &Option<String>, &Option<String>) {
        (self.status, &self.problem, self.etag, &self.location, &self.position)
    }
}

/// What came of one attempt.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A final answer: the command is decided.
    Final(Answer),
    /// It is durable, and not decided yet.
    Accepted,
    /// It says that nothing was applied.
    NotApplied,
    /// It was never sent: nobody took the connection.
    NotSent,
    /// No answer, or one that settles nothing.
    Unknown(String),
    /// An answer that no client should ever get.
    Wrong(Answer),
}

impl Reply {
    /// What an answer says.
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

/// A command and all that came of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// What was asked.
    pub command: Command,
    /// One reply an attempt, in the order in which they came.
    pub replies: Vec<Reply>,
    /// Attempts were under way at once: they may be decided in either order.
    pub twins: bool,
}

/// What the client knows in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was done, or its refusal is part of the history (an order that was rejected).
    Acknowledged,
    /// It was refused, or not applied, and nothing else can have come of it.
    Refused,
    /// Its client never learned.
    Unknown,
}

impl Told {
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

    /// The answer that says that something was done, or rejected for good.
    pub fn acknowledgement(&self) -> Option<&Answer> {
        self.answers().find(|answer| self.is_acknowledgement(answer))
    }

    fn is_acknowledgement(&self, answer: &Answer) -> bool {
        let rejected =
            answer.body["order_id"].is_string() || answer.problem.as_deref() == Some("email-taken");
        answer.status < 300 || (self.command.creates() && rejected)
    }

    /// What the client knows.
    pub fn fate(&self) -> Fate {
        if self.acknowledgement().is_some() {
            return Fate::Acknowledged;
        }
        let open =
            |reply: &Reply| matches!(reply, Reply::Unknown(_) | Reply::Accepted | Reply::Wrong(_));
        if self.replies.is_empty() || self.replies.iter().any(open) {
            return Fate::Unknown;
        }
        Fate::Refused
    }
}
