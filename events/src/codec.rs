//! Converts domain events to log records and back.

use crate::{
    Metadata, Position, Recorded, StreamId, StreamKind, Timestamp, customer, email,
    log::Record,
    order, product,
    upcast::{UPCASTERS, upcast},
    wishlist,
};
use bytes::Bytes;
use uuid::Uuid;

/// A domain event of any stream kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An event of a product.
    Product(product::Event),
    /// An event of an order.
    Order(order::Event),
    /// An event of a customer.
    Customer(customer::Event),
    /// An event of an e-mail address.
    Email(email::Event),
    /// An event of a wishlist.
    Wishlist(wishlist::Event),
}

/// Why this program cannot decode a record. A shard stops at such a record; a read model parks its
/// stream from there on. No record is ever skipped.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No event of this stream kind has this name.
    #[error("{stream} has an event of unknown type {event_type:?}")]
    UnknownType {
        /// The stream.
        stream: StreamId,
        /// The name found.
        event_type: String,
    },
    /// No chain of upcasters leads from this schema version to the current one.
    #[error(
        "{stream} has a {event_type} of schema version {found}; this program reads versions up \
         to {known}"
    )]
    UnknownSchema {
        /// The stream.
        stream: StreamId,
        /// The event's name.
        event_type: String,
        /// The version found.
        found: u16,
        /// The version known.
        known: u16,
    },
    /// The JSON does not have the shape of the event.
    #[error("{stream} has a {event_type} whose JSON cannot be decoded")]
    Malformed {
        /// The stream.
        stream: StreamId,
        /// The event's name.
        event_type: String,
        /// The error of serde.
        #[source]
        source: serde_json::Error,
    },
}

macro_rules! each_kind {
    ($event:expr, $inner:ident => $then:expr) => {
        match $event {
            Event::Product($inner) => $then,
            Event::Order($inner) => $then,
            Event::Customer($inner) => $then,
            Event::Email($inner) => $then,
            Event::Wishlist($inner) => $then,
        }
    };
}

impl Event {
    /// The wire name (`ce_type`).
    pub fn type_name(&self) -> &'static str {
        each_kind!(self, event => event.type_name())
    }

    /// The schema version that this program writes.
    pub fn schema(&self) -> u16 {
        each_kind!(self, event => event.schema())
    }

    /// The event's JSON.
    ///
    /// # Panics
    /// Never: the event types have string keys only and are written to memory.
    #[allow(clippy::expect_used, reason = "serialising these types to memory cannot fail")]
    pub fn to_json(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(256);
        each_kind!(self, event => event.write_json(&mut body)).expect("events serialise");
        body
    }

    /// Makes the record of this event in `stream`. Sets `metadata.schema` from the event.
    pub fn to_record(
        &self,
        event_id: Uuid,
        stream: StreamId,
        time: Timestamp,
        metadata: Metadata,
    ) -> Record {
        Record {
            event_id,
            stream,
            event_type: self.type_name().into(),
            time,
            metadata: Metadata { schema: self.schema(), ..metadata },
            traceparent: None,
            body: Bytes::from(self.to_json()),
        }
    }

    /// The current schema version of an event name, for a stream kind.
    pub fn known_schema(kind: StreamKind, event_type: &str) -> Option<u16> {
        Self::types(kind).iter().find(|(name, _)| *name == event_type).map(|&(_, schema)| schema)
    }

    /// The wire names of a stream kind with their current schema versions.
    pub fn types(kind: StreamKind) -> &'static [(&'static str, u16)] {
        match kind {
            StreamKind::Writer => &[],
            StreamKind::Product => product::Event::TYPES,
            StreamKind::Order => order::Event::TYPES,
            StreamKind::Customer => customer::Event::TYPES,
            StreamKind::Email => email::Event::TYPES,
            StreamKind::Wishlist => wishlist::Event::TYPES,
        }
    }

    /// Decodes an event from the JSON of any schema version ever written.
    ///
    /// # Errors
    /// A [`DecodeError`] for an unknown name, a newer schema version, or JSON that does not fit.
    pub fn from_json(
        stream: StreamId,
        event_type: &str,
        schema: u16,
        body: &[u8],
    ) -> Result<Self, DecodeError> {
        let malformed =
            |source| DecodeError::Malformed { stream, event_type: event_type.to_owned(), source };
        let unknown_type =
            || DecodeError::UnknownType { stream, event_type: event_type.to_owned() };
        let known = Self::known_schema(stream.kind, event_type).ok_or_else(unknown_type)?;
        if schema == known {
            return Self::read_json(stream.kind, event_type, body)
                .ok_or_else(unknown_type)?
                .map_err(malformed);
        }
        let old = serde_json::from_slice(body).map_err(malformed)?;
        let new = upcast(UPCASTERS, event_type, schema, known, old).ok_or_else(|| {
            DecodeError::UnknownSchema {
                stream,
                event_type: event_type.to_owned(),
                found: schema,
                known,
            }
        })?;
        Self::read_json(stream.kind, event_type, new.to_string().as_bytes())
            .ok_or_else(unknown_type)?
            .map_err(malformed)
    }

    fn read_json(
        kind: StreamKind,
        event_type: &str,
        body: &[u8],
    ) -> Option<serde_json::Result<Self>> {
        Some(match kind {
            StreamKind::Writer => return None,
            StreamKind::Product => product::Event::read_json(event_type, body)?.map(Self::Product),
            StreamKind::Order => order::Event::read_json(event_type, body)?.map(Self::Order),
            StreamKind::Customer => {
                customer::Event::read_json(event_type, body)?.map(Self::Customer)
            }
            StreamKind::Email => email::Event::read_json(event_type, body)?.map(Self::Email),
            StreamKind::Wishlist => {
                wishlist::Event::read_json(event_type, body)?.map(Self::Wishlist)
            }
        })
    }
}

impl Record {
    /// Decodes the domain event of this record, which is stored at `position`.
    ///
    /// # Errors
    /// A [`DecodeError`] when this program cannot read the event.
    pub fn decode(&self, position: Position) -> Result<Recorded<Event>, DecodeError> {
        let event =
            Event::from_json(self.stream, &self.event_type, self.metadata.schema, &self.body)?;
        Ok(Recorded {
            event_id: self.event_id,
            stream: self.stream,
            position,
            time: self.time,
            metadata: self.metadata,
            event,
        })
    }
}

macro_rules! into_event {
    ($($module:ident => $variant:ident),+) => {
        $(impl From<$module::Event> for Event {
            fn from(event: $module::Event) -> Self { Self::$variant(event) }
        })+
    };
}
into_event!(
    product => Product, order => Order, customer => Customer, email => Email, wishlist => Wishlist
);
