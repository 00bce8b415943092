//! The documents name only what exists: links, files, commands, flags, tests and settings.
//!
//! A worked example may invent files and names: it says so in a comment, `<!-- invented: a/b.rs -->`.

mod cargo;
mod markdown;
mod names;
mod shell;

use markdown::{Code, Document};
use names::{Commands, capitals, root};
use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Component, Path, PathBuf},
};

/// Nobody reads a longer README.
const MOST_LINES: usize = 200;

/// Code that looks like a path of the repository, and is none.
const NOT_PATHS: [&str; 3] = ["events/s", "events/batch", "api/v1"];

/// Flags of other programs.
const OTHER_FLAGS: [&str; 13] = [
    "release",
    "locked",
    "lib",
    "test",
    "bench",
    "bin",
    "nocapture",
    "all-targets",
    "workspace",
    "features",
    "build",
    "ignored",
    "offline",
];

/// Names in capitals that other programs read or write.
const OTHER_NAMES: [&str; 7] = [
    "SSL_CERT_FILE",
    "KAFKA_SECURITY_",
    "KAFKA_SASL_",
    "KAFKA_SSL_",
    // The SDK of OpenTelemetry reads these.
    "OTEL_",
    // A variable of psql.
    "ON_ERROR_STOP",
    // A variable of the test harness.
    "RUST_TEST_THREADS",
];

/// A document, a line of it, and what is wrong there.
type Fault = (String, usize, String);

fn documents() -> Vec<Document> {
    let pages = fs::read_dir(root().join("docs")).into_iter().flatten();
    let pages = pages.map(|page| format!("docs/{}", page.unwrap().file_name().to_string_lossy()));
    let pages = pages.filter(|page| Path::new(page).extension().is_some_and(|it| it == "md"));
    let mut paths: Vec<String> = pages.collect();
    paths.sort();
    let own = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned);
    let existing = own.into_iter().chain(paths).filter(|path| root().join(path).is_file());
    let read =
        |path: String| Document::parse(&path, &fs::read_to_string(root().join(&path)).unwrap());
    existing.map(read).collect()
}

#[track_caller]
fn assert_none(faults: &[Fault]) {
    let told = faults.iter().fold(String::new(), |mut told, (path, line, fault)| {
        let _ = writeln!(told, "{path}:{line}: {fault}");
        told
    });
    assert!(faults.is_empty(), "\n{told}");
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= MOST_LINES, "README.md has {lines} lines, and may have {MOST_LINES}");
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    let faults = documents.iter().flat_map(|document| broken_links(document, &documents));
    assert_none(&faults.collect::<Vec<_>>());
}

#[test]
fn paths_exist() {
    assert_none(&documents().iter().flat_map(missing_paths).collect::<Vec<_>>());
}

#[test]
fn commands_and_flags_exist() {
    let program = Commands::of_program();
    let faults = documents();
    let faults = faults.iter().flat_map(|document| unknown_commands(document, &program));
    assert_none(&faults.collect::<Vec<_>>());
}

#[test]
fn settings_are_known() {
    let known = names::settings();
    let documents = documents();
    let faults = documents.iter().flat_map(|document| unknown_settings(document, &known));
    assert_none(&faults.collect::<Vec<_>>());
}

fn broken_links(document: &Document, all: &[Document]) -> Vec<Fault> {
    let fault_of = |target: &str| {
        if target.contains("://") || target.starts_with("mailto:") {
            return None;
        }
        let (file, anchor) =
            target.split_once('#').map_or((target, None), |(it, at)| (it, Some(at)));
        let path = if file.is_empty() { document.path.clone() } else { beside(document, file) };
        if !root().join(&path).exists() && !document.invents(&path) {
            return Some(format!("the link {target} leads nowhere: there is no {path}"));
        }
        let page = all.iter().find(|page| page.path == path)?;
        let missing = anchor.filter(|anchor| !page.anchors.contains(*anchor))?;
        Some(format!("the link {target} leads nowhere: {path} has no heading #{missing}"))
    };
    let links = document.links.iter();
    let faults = links.filter_map(|(line, target)| Some((*line, fault_of(target)?)));
    faults.map(|(line, fault)| (document.path.clone(), line, fault)).collect()
}

/// The path from the root of a path that a document gives from where it is.
fn beside(document: &Document, path: &str) -> String {
    let mut whole = PathBuf::from(&document.path);
    whole.pop();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(whole.pop()),
            Component::Normal(part) => whole.push(part),
            _ => {}
        }
    }
    whole.to_string_lossy().into_owned()
}

fn missing_paths(document: &Document) -> Vec<Fault> {
    let spans = document.code.iter().filter(|code| code.language.is_none());
    let missing = spans.filter_map(|code| {
        let path = path_of(&code.text)?;
        let exists =
            [path.clone(), beside(document, &path)].iter().any(|it| root().join(it).exists());
        let fault = format!("there is no {path}");
        (!exists && !document.invents(&path)).then(|| (document.path.clone(), code.line, fault))
    });
    missing.collect()
}

/// The path of the repository that a code span names, up to its first placeholder.
fn path_of(text: &str) -> Option<String> {
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-<>*{},:".contains(letter);
    if !text.contains('/') || text.starts_with('/') || !text.chars().all(is_plain) {
        return None;
    }
    // A place in a file: `events/src/lib.rs:12`.
    let text = text.split(':').next().unwrap_or_default();
    if NOT_PATHS.iter().any(|other| text.starts_with(other)) {
        return None;
    }
    let first = text.split('/').next().unwrap_or_default();
    let is_source =
        [".rs", ".c", ".toml", ".md", ".sql", ".yml"].iter().any(|end| text.ends_with(end));
    let is_of_the_top = !first.contains('<') && first != "target" && root().join(first).is_dir();
    if !(is_of_the_top || is_source) || ["data", ".", ".."].contains(&first) {
        return None;
    }
    let parts = text.split('/').take_while(|part| !part.contains(['<', '*', '{']));
    let path = parts.collect::<Vec<_>>().join("/");
    Some(path.trim_end_matches('/').to_owned()).filter(|path| !path.is_empty())
}

fn unknown_commands(document: &Document, program: &Commands) -> Vec<Fault> {
    let fault_of = |code: &Code| {
        let lone = code.text.split([' ', '=']).next().unwrap_or_default();
        if let Some(flag) = lone.strip_prefix("--").filter(|_| code.language.is_none()) {
            return unknown_flag(flag, program);
        }
        shell::commands(code).iter().find_map(|words| {
            let (name, words) = words.split_first()?;
            let fault = match Path::new(name).file_name()?.to_str()? {
                "orderlog" => program.fault_of(words),
                "cargo" => cargo::fault_of(words, program),
                _ => None,
            }?;
            let is_invented = words.iter().any(|word| document.invents(word));
            (!is_invented).then_some(fault)
        })
    };
    let faults = document.code.iter().filter_map(|code| Some((code.line, fault_of(code)?)));
    faults.map(|(line, fault)| (document.path.clone(), line, fault)).collect()
}

fn unknown_flag(flag: &str, program: &Commands) -> Option<String> {
    let bench = || cargo::unknown_argument(&[format!("--{flag}")]).is_none();
    let is_known =
        flag.is_empty() || OTHER_FLAGS.contains(&flag) || program.knows_flag(flag) || bench();
    (!is_known).then(|| format!("there is no flag --{flag}"))
}

fn unknown_settings(document: &Document, known: &BTreeSet<String>) -> Vec<Fault> {
    let own: BTreeSet<String> = document.code.iter().flat_map(shell::variables).collect();
    let is_known = |name: &str| {
        // What stands before a `*` is the beginning of several.
        let is_start = || name.ends_with('_') && known.iter().any(|it| it.starts_with(name));
        known.contains(name) || own.contains(name) || document.invents(name) || is_start()
    };
    let is_other = |name: &str| OTHER_NAMES.iter().any(|other| name.starts_with(other));
    let unknown = capitals(&document.text).filter(|(_, name)| !is_known(name) && !is_other(name));
    let fault = |(at, name): (usize, &str)| {
        let line = document.text[..at].matches('\n').count() + 1;
        (document.path.clone(), line, format!("nothing reads {name}"))
    };
    unknown.map(fault).collect()
}

mod planted {
    //! The checks find what is wrong, and name the line.

    use super::*;

    fn lines(faults: &[Fault]) -> Vec<(usize, &str)> {
        faults.iter().map(|(_, line, fault)| (*line, &**fault)).collect()
    }

    #[test]
    fn broken_links_are_found() {
        let text = "# Here\n[a](#here) [b](../README.md) [c](https://x.example/y)\n\
                    [d](none.md)\n[e](#there)\n\n`[f](g)` [h](../api/src/lib.rs)\n";
        let page = Document::parse("docs/x.md", text);
        let wanted = [
            (3, "the link none.md leads nowhere: there is no docs/none.md"),
            (4, "the link #there leads nowhere: docs/x.md has no heading #there"),
        ];
        // The page itself is not a file.
        let pages = [Document::parse("README.md", ""), page];
        let faults = broken_links(&pages[1], &pages);
        let faults: Vec<Fault> =
            faults.into_iter().filter(|(_, _, fault)| !fault.ends_with("no docs/x.md")).collect();
        assert_eq!(lines(&faults), wanted[..1]);
        let pages = [Document::parse("README.md", text)];
        assert!(
            lines(&broken_links(&pages[0], &pages))
                .contains(&(4, "the link #there leads nowhere: README.md has no heading #there"))
        );
    }

    #[test]
    fn missing_paths_are_found() {
        let text = "`api/src/lib.rs` `events/src/<kind>.rs` `api/src/lib.rs:7` `/docs/features` `a/b`\n\
                    `api/src/none.rs`\n`application/json` `src/none.rs` `events/s`\n\
                    `events/none/*.json` <!-- invented: api/src/new -->`api/src/new/mod.rs`\n";
        let faults = missing_paths(&Document::parse("docs/x.md", text));
        let wanted = [
            (2, "there is no api/src/none.rs"),
            (3, "there is no src/none.rs"),
            (4, "there is no events/none"),
        ];
        assert_eq!(lines(&faults), wanted);
    }

    #[test]
    fn unknown_commands_and_flags_are_found() {
        let text = "`orderlog rebuild orders --throttle` `--listen` `orderlog fly` `--fly`\n\n```sh\n\
                    orderlog serve --listen 127.0.0.1:1 && cargo test -p shop\n```\n\n```text\n\
                    orderlog flies\n```\n";
        let faults = unknown_commands(&Document::parse("x.md", text), &Commands::of_program());
        let wanted = [
            (1, "`orderlog fly` is not a command"),
            (1, "there is no flag --fly"),
            (4, "there is no package shop"),
        ];
        assert_eq!(lines(&faults), wanted);
    }

    #[test]
    fn unknown_settings_are_found() {
        let text = "`LISTEN_ADDR` KAFKA_SASL_*\n`LISTEN_ADR`\n\n```sh\nMY_ID=1\necho $MY_ID\n```\n";
        let faults = unknown_settings(&Document::parse("x.md", text), &names::settings());
        assert_eq!(lines(&faults), [(2, "nothing reads LISTEN_ADR")]);
    }
}
