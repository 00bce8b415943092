//! Checks that this program can decode every version of every event, with the golden files, which
//! are compiled in.

use events::{Event, StreamId, StreamKind, full_text};
use include_dir::{Dir, include_dir};
use uuid::Uuid;

static GOLDEN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../events/golden");

/// The golden files that this program cannot decode, and why.
pub(super) fn unreadable() -> Vec<String> {
    GOLDEN.files().filter_map(|file| check(file.path().to_str()?, file.contents()).err()).collect()
}

/// Decodes a file named `<type>.v<schema>.json` or `<type>.v<schema>.<shape>.json`.
fn check(name: &str, body: &[u8]) -> Result<(), String> {
    let mut parts = name.split('.');
    let event_type = parts.next().unwrap_or_default();
    let schema = parts.next().and_then(|part| part.strip_prefix('v')?.parse().ok());
    let schema = schema.ok_or_else(|| format!("{name}: not the name of a golden file"))?;
    let known = |kind: &StreamKind| Event::known_schema(*kind, event_type).is_some();
    let kind = StreamKind::ALL.into_iter().find(known);
    let kind = kind.ok_or_else(|| format!("{name}: unknown type"))?;
    let stream = StreamId { kind, id: Uuid::nil() };
    Event::from_json(stream, event_type, schema, body)
        .map(drop)
        .map_err(|error| format!("{name}: {}", full_text(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_golden_file_is_compiled_in_and_decoded() {
        assert_eq!(unreadable(), [] as [&str; 0]);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../events/golden");
        assert_eq!(GOLDEN.files().count(), std::fs::read_dir(folder).unwrap().count());
    }

    #[test]
    fn undecodable_files_are_named() {
        assert!(check("OrderConfirmed.v99.json", b"{}").unwrap_err().contains("schema version 99"));
        assert!(check("OrderForgotten.v1.json", b"{}").unwrap_err().contains("unknown type"));
        assert!(check("OrderPlaced.v1.json", b"[]").is_err());
        assert!(check("README", b"").is_err());
    }
}
