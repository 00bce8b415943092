//! What the documents may name: crates, tests, benches, commands, flags and settings.

use crate::program::bare;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Packages of the workspace.
pub const CRATES: [&str; 5] = ["events", "commands", "projections", "api", "bench"];

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The commands of a program, each with its flags.
pub struct Commands(BTreeMap<String, Flags>);

/// The flags of a command, and whether a value follows as a word of its own.
type Flags = BTreeMap<String, bool>;

impl Commands {
    /// What `orderlog --help` says. The program without a command is the command "".
    pub fn of_program() -> Self {
        let help = |arguments: &[&str]| {
            let output = bare(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let main = help(&["--help"]);
        let names = commands_in(&main);
        let mut commands = BTreeMap::from([(String::new(), flags_in(&main))]);
        for name in names {
            let flags = flags_in(&help(&[name.as_str(), "--help"]));
            commands.insert(name, flags);
        }
        Self(commands)
    }

    pub fn knows_flag(&self, flag: &str) -> bool {
        self.0.values().any(|flags| flags.contains_key(flag))
    }

    /// What is wrong with the words behind `orderlog`.
    pub fn fault_of(&self, words: &[String]) -> Option<String> {
        let (mut command, mut given) = ("", Vec::new());
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if let Some(flag) = word.strip_prefix("--") {
                let (flag, value) =
                    flag.split_once('=').map_or((flag, None), |(it, value)| (it, Some(value)));
                given.push(flag);
                let setting = self.0.get("").and_then(|flags| flags.get(flag));
                if value.is_none() && setting == Some(&true) {
                    words.next();
                }
            } else if command.is_empty() && is_word(word) {
                command = word;
            }
        }
        let Some(flags) = self.0.get(command) else {
            return Some(format!("`orderlog {command}` is not a command"));
        };
        let unknown = given.iter().find(|flag| !flag.is_empty() && !flags.contains_key(**flag))?;
        Some(format!("`orderlog {command}` has no flag --{unknown}"))
    }
}

fn is_word(word: &str) -> bool {
    !word.starts_with('-') && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// The names in the section `Commands:` of a help text.
fn commands_in(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let section = section.take_while(|line| !line.is_empty());
    // A description goes on at a greater depth.
    let names = section.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The flags at the beginning of lines of a help text.
fn flags_in(help: &str) -> Flags {
    let mut flags = Flags::new();
    for line in help.lines() {
        let mut words =
            line.split_whitespace().skip_while(|word| word.len() == 3 && word.ends_with(','));
        let Some(flag) = words.next().and_then(|word| word.strip_prefix("--")) else { continue };
        let flag = flag.split(['[', '=']).next().unwrap_or_default();
        flags.insert(flag.to_owned(), words.next().is_some_and(|word| word.starts_with('<')));
    }
    flags
}

/// The names in capitals that the program, its tests and its scripts read.
pub fn settings() -> BTreeSet<String> {
    let output = bare(&["settings"]).output().unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    for file in ["docker-compose.yml", "Dockerfile"] {
        text.push_str(&fs::read_to_string(root().join(file)).unwrap_or_default());
    }
    for folder in [".ci", ".github/workflows"] {
        for file in files_below(&root().join(folder)) {
            text.push_str(&fs::read_to_string(file).unwrap_or_default());
        }
    }
    let mut known: BTreeSet<String> = capitals(&text).map(|(_, name)| name.to_owned()).collect();
    for file in CRATES.iter().flat_map(|name| files_below(&root().join(name))) {
        let is_source = file.extension().is_some_and(|extension| extension == "rs");
        // The words that its own tests make up prove nothing.
        if is_source && !file.to_string_lossy().contains("tests/it/documents") {
            known.extend(named_in(&fs::read_to_string(file).unwrap_or_default()));
        }
    }
    known
}

/// Names in quotes, and names of constants.
fn named_in(source: &str) -> impl Iterator<Item = String> {
    let named = capitals(source).filter(|(at, _)| {
        let before = &source[..*at];
        ["\"", "const ", "static "].iter().any(|start| before.ends_with(start))
    });
    named.map(|(_, name)| name.to_owned())
}

/// Words of capitals with an underscore between them, with their places.
pub fn capitals(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut at = 0;
    let words = text.split_inclusive(move |letter| !is_part(letter)).map(move |word| {
        at += word.len();
        (at - word.len(), word.trim_end_matches(|letter| !is_part(letter)))
    });
    words.filter(|(_, word)| {
        let is_capital =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        word.starts_with(|first: char| first.is_ascii_uppercase())
            && word.trim_end_matches('_').contains('_')
            && word.bytes().all(is_capital)
    })
}

/// All files below a folder; none if there is no such folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "Usage: x\n\nCommands:\n  serve    Run it.\n           And on.\n  rebuild  Again.\n\n\
        Options:\n      --accept\n          Text with --other inside\n  -h, --help  Print\n\
        \x20     --listen <ADDR>  [env: LISTEN_ADDR=]\n      --auth-builtin[=<BOOL>]\n";

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn help_names_commands_and_flags() {
        assert_eq!(commands_in(HELP), ["serve", "rebuild"]);
        let flags = [("accept", false), ("auth-builtin", false), ("help", false), ("listen", true)];
        assert_eq!(flags_in(HELP), flags.map(|(name, value)| (name.to_owned(), value)).into());
    }

    #[test]
    fn an_unknown_command_or_flag_is_found() {
        let flags = || flags_in(HELP);
        let commands = ["", "serve", "rebuild"].map(|name| (name.to_owned(), flags()));
        let commands = Commands(commands.into());
        for good in [
            "serve",
            "--listen 1 serve",
            "rebuild orders --accept",
            "--listen=1 --help",
            "-h",
            "<command>",
        ] {
            assert_eq!(commands.fault_of(&words(good)), None, "{good}");
        }
        for (bad, told) in [
            ("fly", "`orderlog fly` is not a command"),
            ("--listen 1 fly --accept", "`orderlog fly` is not a command"),
            ("rebuild --except", "`orderlog rebuild` has no flag --except"),
        ] {
            assert_eq!(commands.fault_of(&words(bad)).as_deref(), Some(told));
        }
    }

    #[test]
    fn names_in_capitals_have_an_underscore() {
        let text = "`LISTEN_ADDR`=x KAFKA_SASL_* ROLES Ab_C A_1, _B_ x_Y_Z";
        let found: Vec<&str> = capitals(text).map(|(_, name)| name).collect();
        assert_eq!(found, ["LISTEN_ADDR", "KAFKA_SASL_", "A_1"]);
        let source = "env(\"A_B\"); const C_D: u8 = E_F; static G_H";
        assert_eq!(named_in(source).collect::<Vec<_>>(), ["A_B", "C_D", "G_H"]);
    }
}
