//! Documents that the program writes about itself. They are checked in for readers of the
//! repository, and a test fails when one is out of date.

use std::path::Path;

/// Fails when `api/<file>` differs from `text`, which `orderlog <command>` prints.
#[track_caller]
pub fn assert_is(file: &str, command: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    let same = checked_in.trim_end() == text.trim_end();
    assert!(same, "api/{file} is out of date: run `orderlog {command} > api/{file}`");
}

/// Fails when the part of `file` between `<!-- NAME:begin -->` and `<!-- NAME:end -->` differs from
/// `text`, which `orderlog NAME` prints.
#[track_caller]
pub fn assert_section(file: &str, name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let document = std::fs::read_to_string(&path).unwrap_or_default();
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let part = document.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    let Some((part, _)) = part else { panic!("{file} has no part from {begin} to {end}") };
    assert!(
        part.trim() == text.trim(),
        "{file} is out of date: put the output of `orderlog {name}` between {begin} and {end}"
    );
}
