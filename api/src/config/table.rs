//! The settings as a table, from the definitions that also make `--help`.

use super::Settings;
use clap::{Arg, Args, Command};
use std::fmt::Write;

/// The variables that [`super::LogSettings`] reads without a flag.
const KAFKA: &str = "| | `KAFKA_SECURITY_*`, `KAFKA_SASL_*`, `KAFKA_SSL_*` | none | Security \
    properties of the Kafka client: `KAFKA_SASL_USERNAME` sets `sasl.username` of librdkafka. |\n";

/// Every setting with its flag, its environment variable, its default and its meaning, as a Markdown
/// table.
pub fn table() -> String {
    let command = Settings::augment_args(Command::new("orderlog"));
    let mut text = "| flag | environment | default | meaning |\n|---|---|---|---|\n".to_owned();
    for arg in command.get_arguments() {
        let (meaning, default) = meaning(arg);
        let flag = arg.get_long().map(|flag| format!("`--{flag}`")).unwrap_or_default();
        let variable = arg.get_env().map(|name| format!("`{}`", name.display()));
        let cells = [flag, variable.unwrap_or_default(), default, meaning];
        let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        if arg.get_long() == Some("kafka-topic") {
            text.push_str(KAFKA);
        }
    }
    text
}

/// The meaning and the default. A default that the program works out is part of the help text:
/// `[default: 12]`.
fn meaning(arg: &Arg) -> (String, String) {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default().replace('\n', " ");
    let help = help.trim_end_matches('.');
    let (text, told) = match help.split_once(" [default: ") {
        Some((text, default)) => (text, Some(default.trim_end_matches(']'))),
        None => (help, None),
    };
    let values = arg.get_default_values().iter();
    let values: Vec<String> = values.map(|value| format!("`{}`", value.display())).collect();
    let default = match told {
        _ if !values.is_empty() => values.join(", "),
        Some(default) if default.contains([' ', '`']) => default.to_owned(),
        Some(default) => format!("`{default}`"),
        None => "unset".to_owned(),
    };
    (format!("{text}.{}", choices(arg)), default)
}

/// The values of a setting that has only a few.
fn choices(arg: &Arg) -> String {
    let values = arg.get_possible_values().into_iter().filter(|value| !value.is_hide_set());
    let names: Vec<String> = values.map(|value| format!("`{}`", value.get_name())).collect();
    if names.is_empty() { String::new() } else { format!(" Values: {}.", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_in_the_documents() {
        crate::checked_in::assert_section("docs/operating.md", "settings", &table());
    }

    /// A URL may contain a password or a key, and `--help` would print it.
    #[test]
    fn help_shows_no_url_of_the_environment() {
        let command = Settings::augment_args(Command::new("orderlog"));
        for arg in command.get_arguments() {
            let names = arg.get_value_names().unwrap_or_default();
            let is_url = names.iter().any(|name| name.contains("URL"));
            assert!(!is_url || arg.is_hide_env_values_set(), "{}", arg.get_id());
        }
    }

    #[test]
    fn every_setting_has_a_flag_a_variable_and_a_meaning() {
        let table = table();
        for line in table.lines().skip(2) {
            let cells: Vec<&str> = line.split(" | ").collect();
            assert_eq!(cells.len(), 4, "{line}");
            assert!(cells[1].contains('`') && !cells[2].is_empty(), "{line}");
            assert!(cells[3].ends_with(". |") && cells[3].len() > 15, "{line}");
        }
        assert!(table.contains("| `--listen` | `LISTEN_ADDR` | `127.0.0.1:8080` | "), "{table}");
        assert!(table.contains(" | `LOG_PARTITIONS` | `12` | "), "{table}");
    }
}
