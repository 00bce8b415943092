//! Prints errors for log lines and reports.

use std::{error::Error, fmt::Write};

/// The text of an error and of all its causes, on one line.
pub fn full_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
