//! The judge of a run: reads the log and the read models by other code than the program's, and compares them with what
//! clients were told.

pub mod answers;
pub mod books;
pub mod log;
pub mod tables;
#[cfg(test)]
mod tests;

/// What must not be; each with the keys that it is about.
#[derive(Debug, Default)]
pub struct Violations {
    /// All of them.
    pub found: Vec<String>,
    /// Acknowledged and not in the log as the answer said.
    pub lost: usize,
    /// Done twice.
    pub doubled: usize,
}

impl Violations {
    /// Takes note of one.
    pub fn add(&mut self, what: String) {
        self.found.push(what);
    }

    /// Takes note of something acknowledged that is not in the log.
    pub fn lost(&mut self, what: &str) {
        self.lost += 1;
        self.add(format!("lost: {what}"));
    }

    /// Takes note of something done twice.
    pub fn doubled(&mut self, what: &str) {
        self.doubled += 1;
        self.add(format!("doubled: {what}"));
    }
}
