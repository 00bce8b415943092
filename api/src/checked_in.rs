//! What the program writes of itself, and is checked in for those who only read the repository.

/// Fails when `api/<file>` is not `text`; `orderlog <command> > api/<file>` writes it anew.
#[track_caller]
pub fn assert_is(file: &str, command: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    let same = checked_in.trim_end() == text.trim_end();
    assert!(same, "run `orderlog {command} > api/{file}`: it is not the same any more");
}
