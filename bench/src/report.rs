//! The printed table, in Markdown.

use crate::{
    args::{Over, name},
    measure::Measured,
};
use std::time::Duration;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// The log, or the table.
    pub on: String,
    /// How operations reached the program.
    pub over: String,
    /// Concurrent clients.
    pub clients: Option<usize>,
    /// The unit that is counted: commands, orders, events, rows.
    pub unit: &'static str,
    /// Units per second.
    pub per_second: f64,
    /// The measurement.
    pub measured: Measured,
    /// Rows per second of the floor.
    pub floor: Option<f64>,
}

/// The head of the table.
pub const HEAD: &str = "\
| workload | log | over | clients | a second | p50 ms | p99 ms | p99.9 ms | events/s | events/batch | cpu µs/op | of the floor |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

impl Line {
    /// A line of a run in this process, without closed-loop clients.
    pub fn new(
        what: impl Into<String>,
        on: impl Into<String>,
        unit: &'static str,
        measured: Measured,
    ) -> Self {
        Self {
            what: what.into(),
            on: on.into(),
            over: name(Over::Process),
            clients: None,
            unit,
            per_second: measured.per_second(),
            measured,
            floor: None,
        }
    }

    /// A line of the raw storage, which counts rows.
    pub fn raw(what: impl Into<String>, on: &str, measured: Measured) -> Self {
        let per_second = measured.events_per_second();
        Self { over: none(), per_second, ..Self::new(what, on, "rows", measured) }
    }

    /// The same line for closed-loop clients that reach the program in the way `over`.
    #[must_use]
    pub fn of_clients(self, over: Over, clients: u16) -> Self {
        Self { over: name(over), clients: Some(usize::from(clients)), ..self }
    }

    /// The line in Markdown.
    pub fn markdown(&self) -> String {
        let Self { what, on, over, unit, measured, .. } = self;
        let clients = self.clients.map_or_else(none, |clients| clients.to_string());
        let [p50, p99, p999] =
            [0.5, 0.99, 0.999].map(|at| measured.latency_at(at).map_or_else(none, millis));
        let events = measured.events_per_second();
        let floor = self.floor.map_or_else(none, |floor| format!("{:.2}", events / floor));
        format!(
            "| {what} | {on} | {over} | {clients} | {} {unit} | {p50} | {p99} | {p999} | {} | {} | {} | {floor} |",
            rounded(self.per_second),
            if events > 0.0 { rounded(events) } else { none() },
            per(measured.appended.events, measured.appended.batches, 1),
            per(micros(measured.cpu), measured.operations, 0),
        )
    }
}

fn none() -> String {
    "-".to_owned()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

#[allow(clippy::cast_precision_loss, reason = "means are printed with a few digits")]
fn per(sum: u64, count: u64, digits: usize) -> String {
    if sum == 0 || count == 0 {
        return none();
    }
    format!("{:.digits$}", sum as f64 / count as f64)
}

/// Formats `12345.6` as `12,346`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are not negative and far below 2^53"
)]
fn rounded(number: f64) -> String {
    thousands(number.round() as u64)
}

/// Formats `12346` as `12,346`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(rounded(0.4), "0");
        assert_eq!(rounded(999.6), "1,000");
        assert_eq!(rounded(1_234_567.0), "1,234,567");
    }
}
