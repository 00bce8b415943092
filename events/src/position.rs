//! Positions in the log.
//!
//! Offsets can be compared, and that is all: logs leave gaps (control records, aborted batches), so
//! this module has no arithmetic on offsets, on purpose.

use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

/// A partition of the log, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An offset in a partition. Offsets are compared, never calculated with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    /// The start of every partition.
    pub const START: Self = Self(0);

    /// The offset to continue reading from after a record at this offset. The next record may be at
    /// a higher offset.
    #[must_use]
    pub fn after(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of one event: `partition:offset` in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// The event's offset in it.
    pub offset: Offset,
}

/// The text does not have the form `partition:offset`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a position has the form `partition:offset`; a token is a comma-separated list of them")]
pub struct PositionError;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// Accepts digits only: the parsers of `i64` and `u32` also accept a sign.
fn number<T: FromStr>(text: &str) -> Result<T, PositionError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PositionError);
    }
    text.parse().map_err(|_| PositionError)
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (partition, offset) = text.split_once(':').ok_or(PositionError)?;
        Ok(Self { partition: Partition(number(partition)?), offset: Offset(number(offset)?) })
    }
}

impl Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Position {
    fn schema_name() -> Cow<'static, str> {
        "Position".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+:[0-9]+$" })
    }
}

/// The causal token of the HTTP API: the last event of each partition that took part.
///
/// It contains offsets of events only, so a read model that has applied these events satisfies it,
/// no matter which control records follow them. Its text form is `3:1042,7:99`, ascending by
/// partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPosition(BTreeMap<Partition, Offset>);

impl LogPosition {
    /// Extends the token so that it includes `position`.
    pub fn cover(&mut self, position: Position) {
        let offset = self.0.entry(position.partition).or_insert(position.offset);
        *offset = (*offset).max(position.offset);
    }

    /// The positions in the token, one per partition.
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        self.0.iter().map(|(&partition, &offset)| Position { partition, offset })
    }

    /// Whether the token contains no position.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Position> for LogPosition {
    fn from_iter<I: IntoIterator<Item = Position>>(positions: I) -> Self {
        let mut token = Self::default();
        positions.into_iter().for_each(|position| token.cover(position));
        token
    }
}

impl From<Position> for LogPosition {
    fn from(position: Position) -> Self {
        Self::from_iter([position])
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, position) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            position.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for LogPosition {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        text.split(',').map(str::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_keeps_the_latest_of_a_partition() {
        let token: LogPosition = "7:99,3:1042,7:98".parse().unwrap();
        assert_eq!(token.to_string(), "3:1042,7:99");
    }

    #[test]
    fn a_bad_token_is_refused() {
        for text in
            ["", "3", "3:", ":4", "3:-4", "+3:4", "3:4,", "a:1", "3:99999999999999999999", "3:4 "]
        {
            assert_eq!(text.parse::<LogPosition>(), Err(PositionError), "{text:?}");
        }
    }
}
