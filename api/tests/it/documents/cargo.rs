//! Cargo commands in documents.

use super::names::{CRATES, Commands, files_below, root};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Flags of Cargo and of the test harness that a value follows.
const WITH_VALUE: [&str; 14] = [
    "-p",
    "--package",
    "--test",
    "--bench",
    "--bin",
    "--example",
    "--features",
    "--target",
    "--profile",
    "-j",
    "--jobs",
    "--skip",
    "--test-threads",
    "--config",
];

/// What is wrong with the words behind `cargo`.
pub fn fault_of(words: &[String], program: &Commands) -> Option<String> {
    let split = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (own, passed) = (&words[..split], words.get(split + 1..).unwrap_or_default());
    let command = own.first().map(String::as_str)?;
    if !["test", "bench", "run", "build", "check", "clippy"].contains(&command) {
        return None;
    }
    let package = value_of(own, "-p").or_else(|| value_of(own, "--package"));
    if let Some(package) = package.filter(|package| !CRATES.contains(package)) {
        return Some(format!("there is no package {package}"));
    }
    let packages: Vec<&str> = package.map_or(CRATES.to_vec(), |package| vec![package]);
    for (flag, folder) in [("--test", "tests"), ("--bench", "benches")] {
        let Some(target) = value_of(own, flag) else { continue };
        if !packages.iter().any(|package| target_of(package, folder, target).is_some()) {
            return Some(format!("{} has no {flag} {target}", packages.join(", ")));
        }
    }
    match command {
        "test" => unknown_test(own, passed, &packages),
        "run" => program.fault_of(passed),
        "bench" => unknown_argument(passed),
        _ => None,
    }
}

fn value_of<'a>(words: &'a [String], flag: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| word == flag)?;
    words.get(at + 1).map(String::as_str)
}

/// Words that are neither flags nor their values.
fn positional(words: &[String]) -> impl Iterator<Item = &str> {
    let mut is_value = false;
    words.iter().map(String::as_str).filter(move |word| {
        let was_value = std::mem::replace(&mut is_value, WITH_VALUE.contains(word));
        !was_value && !word.starts_with('-')
    })
}

/// The source of a test or bench, and the folder of its modules.
fn target_of(package: &str, folder: &str, target: &str) -> Option<[PathBuf; 2]> {
    let folder = root().join(package).join(folder);
    let modules = folder.join(target);
    let files = [folder.join(format!("{target}.rs")), modules.join("main.rs")];
    files.into_iter().find(|file| file.is_file()).map(|file| [file, modules])
}

/// A name given to `cargo test` has to select something.
fn unknown_test(own: &[String], passed: &[String], packages: &[&str]) -> Option<String> {
    // Capitals stand for a name that the reader chooses.
    let is_placeholder = |word: &str| word.bytes().all(|byte| !byte.is_ascii_lowercase());
    let filters = positional(own).skip(1).chain(positional(passed));
    let filters: Vec<&str> = filters.filter(|word| !is_placeholder(word)).collect();
    if filters.is_empty() {
        return None;
    }
    let mut names = BTreeSet::new();
    for package in packages {
        let sources = match value_of(own, "--test") {
            Some(target) => target_of(package, "tests", target).into_iter().flatten().collect(),
            None if own.iter().any(|word| word == "--lib") => {
                vec![root().join(package).join("src")]
            }
            None => vec![root().join(package).join("src"), root().join(package).join("tests")],
        };
        names.extend(sources.iter().flat_map(|source| names_in(source)));
    }
    let is_known = |part: &str| names.iter().any(|name| name.contains(part));
    let unknown = filters.into_iter().find(|filter| !filter.split("::").all(is_known))?;
    Some(format!("no test of {} has a name with `{unknown}`", packages.join(", ")))
}

/// The names of files, modules and functions in a file or below a folder.
fn names_in(source: &Path) -> BTreeSet<String> {
    let files = if source.is_file() { vec![source.to_owned()] } else { files_below(source) };
    let mut names = BTreeSet::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|it| it == "rs")) {
        let inside = file.strip_prefix(source).unwrap_or(file);
        names.extend(inside.with_extension("").iter().map(|name| name.to_string_lossy().into()));
        let text = fs::read_to_string(file).unwrap();
        for start in ["fn ", "mod "] {
            let declared = text.split(start).skip(1);
            let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
            names.extend(
                declared.map(|rest| rest.split(|it| !is_name(it)).next().unwrap().to_owned()),
            );
        }
    }
    names
}

/// A flag of a bench is a field of its arguments, and a word behind no flag is one of their values.
pub fn unknown_argument(passed: &[String]) -> Option<String> {
    let source: String = files_below(&root().join("bench"))
        .iter()
        .filter(|file| file.extension().is_some_and(|it| it == "rs"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    for word in passed {
        let Some(flag) = word.strip_prefix("--").and_then(|it| it.split('=').next()) else {
            continue;
        };
        let field = format!("{}: ", flag.replace('-', "_"));
        if flag != "help" && !source.contains(&field) {
            return Some(format!("no bench has a flag --{flag}"));
        }
    }
    let first = passed.first().filter(|word| !word.starts_with(['-', '<', '$']))?;
    let known = [format!("{},", in_pascal_case(first)), format!("\"{first}\"")];
    let is_known = known.iter().any(|known| source.contains(known));
    (!is_known).then(|| format!("no bench knows `{first}`"))
}

fn in_pascal_case(word: &str) -> String {
    let parts = word.split('-').map(|part| {
        let mut letters = part.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cargo_command_names_what_exists() {
        let program = Commands::of_program();
        let fault = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            fault_of(&words, &program)
        };
        for good in [
            "test",
            "test -p api --test it documents",
            "test -p api --test it -- a_cargo_command --skip nothing --nocapture",
            "test -p events --lib codec",
            "test NAME",
            "bench -p bench --bench load -- rebuild --log kafka --no-floor",
            "run --release -- rebuild orders --throttle",
            "install whatever",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for (bad, told) in [
            ("test -p shop", "there is no package shop"),
            ("test -p api --test load", "api has no --test load"),
            ("test -p api --test it no_such", "no test of api has a name with `no_such`"),
            ("test -p events --lib kill_points", "no test of events has a name with `kill_points`"),
            ("bench -p bench --bench it", "bench has no --bench it"),
            ("bench -p bench --bench load -- fly", "no bench knows `fly`"),
            ("bench -p bench --bench load -- rebuild --gently", "no bench has a flag --gently"),
            ("run -- fly", "`orderlog fly` is not a command"),
        ] {
            assert_eq!(fault(bad).as_deref(), Some(told), "{bad}");
        }
    }
}
