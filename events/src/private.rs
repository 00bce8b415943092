//! Texts that no log line may hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// A text in the clear that is about a person or about their money: a name, an address, a means of
/// payment. It is written out like any text, but no format prints it, so no log line can hold it by
/// mistake.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Private(Arc<str>);

impl Private {
    /// The text itself, for those who need it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Private {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Private(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_out_and_never_printed() {
        let text = Private::from("pm_card_visa");
        assert_eq!(serde_json::to_string(&text).unwrap(), "\"pm_card_visa\"");
        assert!(!format!("{text:?} {text:#?}").contains("card"));
    }
}
