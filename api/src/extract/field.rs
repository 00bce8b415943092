//! Members of a patch (RFC 7396).

use super::Object;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A member of a patch: absent, null, or a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// Absent: the value stays as it is.
    #[default]
    Absent,
    /// Null: removes an optional value.
    Null,
    /// A value.
    Value(T),
}

impl<T> Field<T> {
    /// Whether the member is absent.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// `None` if absent, `Some(None)` if null, else the value.
    pub fn nullable(&self) -> Option<Option<&T>> {
        match self {
            Self::Absent => None,
            Self::Null => Some(None),
            Self::Value(value) => Some(Some(value)),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent | Self::Null => serializer.serialize_none(),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

/// For `deserialize_with`: a member of a patch that is an object or null.
///
/// # Errors
/// If the value is anything else.
pub fn object_field<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Field<T>, D::Error> {
    let object = Option::<Object<T>>::deserialize(from)?;
    Ok(object.map_or(Field::Null, |Object(object)| Field::Value(object)))
}
