//! The checks of a run. They read the log and the read models independently of the program's code,
//! and compare them with the answers that clients got.

pub mod answers;
pub mod books;
pub mod log;
pub mod tables;
#[cfg(test)]
mod tests;

/// The violations found, each with the keys that it is about.
#[derive(Debug, Default)]
pub struct Violations {
    /// All violations.
    pub found: Vec<String>,
    /// Number of commands that were acknowledged but are not in the log as the answer said.
    pub lost: usize,
    /// Number of commands or effects that happened twice.
    pub doubled: usize,
}

impl Violations {
    /// Adds a violation.
    pub fn add(&mut self, what: String) {
        self.found.push(what);
    }

    /// Adds an acknowledged command that is not in the log.
    pub fn lost(&mut self, what: &str) {
        self.lost += 1;
        self.add(format!("lost: {what}"));
    }

    /// Adds a command or effect that happened twice.
    pub fn doubled(&mut self, what: &str) {
        self.doubled += 1;
        self.add(format!("doubled: {what}"));
    }
}
