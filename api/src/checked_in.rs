//! Generated documents that are checked in, for readers of the repository.

/// Asserts that `api/<file>` is `text`. `orderlog <command> > api/<file>` updates the file.
#[track_caller]
pub fn assert_is(file: &str, command: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    let same = checked_in.trim_end() == text.trim_end();
    assert!(same, "api/{file} is out of date: run `orderlog {command} > api/{file}`");
}
