//! Stream names: `<kind>-<uuid>`.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The kind of thing that a stream describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum StreamKind {
    /// The records of a partition's writers (claims and beats); no domain events.
    Writer = 0,
    /// A product: its description, price and stock.
    Product = 1,
    /// An order.
    Order = 2,
    /// A customer.
    Customer = 3,
    /// One e-mail address, named by its keyed hash.
    Email = 4,
    /// A customer's wishlist; its id is the customer's id.
    Wishlist = 5,
}

impl StreamKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Writer, Self::Product, Self::Order, Self::Customer, Self::Email, Self::Wishlist];

    /// The name that precedes the id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Product => "product",
            Self::Order => "order",
            Self::Customer => "customer",
            Self::Email => "email",
            Self::Wishlist => "wishlist",
        }
    }

    /// The kind with this number, for the binary frames of the embedded log.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

impl FromStr for StreamKind {
    type Err = StreamIdError;

    fn from_str(text: &str) -> Result<Self, StreamIdError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(StreamIdError)
    }
}

/// The name of a stream. Versions count per stream, and the name decides the partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// The kind of thing.
    pub kind: StreamKind,
    /// The id of the thing.
    pub id: Uuid,
}

/// The text does not have the form `<kind>-<uuid>`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stream id has the form `<kind>-<uuid>`")]
pub struct StreamIdError;

impl StreamId {
    /// The stream of an order.
    pub fn order(id: Uuid) -> Self {
        Self { kind: StreamKind::Order, id }
    }

    /// The stream of a product.
    pub fn product(id: Uuid) -> Self {
        Self { kind: StreamKind::Product, id }
    }

    /// The stream of a customer.
    pub fn customer(id: Uuid) -> Self {
        Self { kind: StreamKind::Customer, id }
    }

    /// The stream of an e-mail address.
    pub fn email(id: Uuid) -> Self {
        Self { kind: StreamKind::Email, id }
    }

    /// The stream of a customer's wishlist.
    pub fn wishlist(customer_id: Uuid) -> Self {
        Self { kind: StreamKind::Wishlist, id: customer_id }
    }

    /// The stream of the writers of a partition.
    pub fn writer(partition: crate::Partition) -> Self {
        Self { kind: StreamKind::Writer, id: Uuid::from_u128(u128::from(partition.0)) }
    }

    /// Passes the text form to `use_text` without an allocation. It is the key of the Kafka records
    /// and the input of the partitioner's hash.
    pub fn with_text<T>(&self, use_text: impl FnOnce(&str) -> T) -> T {
        let kind = self.kind.as_str();
        let mut text = [0u8; 48];
        text[..kind.len()].copy_from_slice(kind.as_bytes());
        text[kind.len()] = b'-';
        self.id.hyphenated().encode_lower(&mut text[kind.len() + 1..]);
        // The kind, the hyphen and the UUID are ASCII.
        use_text(std::str::from_utf8(&text[..kind.len() + 37]).unwrap_or_default())
    }
}

impl FromStr for StreamId {
    type Err = StreamIdError;

    fn from_str(text: &str) -> Result<Self, StreamIdError> {
        let (kind, id) = text.split_once('-').ok_or(StreamIdError)?;
        let id = Uuid::try_parse(id).map_err(|_| StreamIdError)?;
        Ok(Self { kind: kind.parse()?, id })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for StreamId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back() {
        let id = StreamId::order(Uuid::from_u128(7));
        assert_eq!(id.to_string(), "order-00000000-0000-0000-0000-000000000007");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("order".parse::<StreamId>(), Err(StreamIdError));
        assert_eq!(
            "basket-00000000-0000-0000-0000-000000000007".parse::<StreamId>(),
            Err(StreamIdError)
        );
    }
}
