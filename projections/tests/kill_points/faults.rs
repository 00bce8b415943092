//! The kinds of faults and the places where they strike.

use crate::shop::Chance;
use std::{collections::BTreeMap, fmt, ops::AddAssign};

/// The fault at a message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// The connection closes before the message arrives.
    CutBefore,
    /// Half of the message arrives.
    CutWithin,
    /// The message arrives and is executed, but the client gets no answer.
    CutAfter,
    /// The client dies, with all its connections, before the message arrives.
    KillBefore,
    /// The client dies after the message is executed.
    KillAfter,
    /// The message waits until other clients have made progress or wait too.
    Hold,
    /// The whole client waits in the same way.
    Freeze,
    /// The server ends the session while the message waits.
    Terminate,
    /// The server process of the session is killed. All sessions end, and the server recovers.
    Crash,
    /// The server is stopped immediately and restarted.
    Restart,
}

impl Act {
    fn chosen(chance: &mut Chance) -> Self {
        match chance.below(100) {
            0..12 => Self::CutBefore,
            12..18 => Self::CutWithin,
            18..32 => Self::CutAfter,
            32..46 => Self::KillBefore,
            46..60 => Self::KillAfter,
            60..76 => Self::Hold,
            76..86 => Self::Freeze,
            86..92 => Self::Terminate,
            92..97 => Self::Crash,
            _ => Self::Restart,
        }
    }
}

/// The message at which a fault strikes.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// The n-th message.
    Message(u32),
    /// The n-th message of this kind of statement.
    Statement(&'static str, u32),
}

/// A planned fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub when: When,
    pub act: Act,
}

/// The most delicate statements, which are chosen more often than by pure chance.
const SORE: [&str; 15] = [
    "commit",
    "commit",
    "commit",
    "moving a checkpoint",
    "moving a checkpoint",
    "inserting rows",
    "updating rows",
    "copying rows",
    "parking",
    "savepoints",
    "switching",
    "making a version",
    "making indexes",
    "dropping a version",
    "leases",
];

/// Plans the faults of one client.
pub fn plan(chance: &mut Chance, longest: u32) -> Vec<Fault> {
    let count = 1 + chance.below(3);
    (0..count).map(|_| fault(chance, longest)).collect()
}

fn fault(chance: &mut Chance, longest: u32) -> Fault {
    let up_to = |chance: &mut Chance, most: u32| 1 + chance.below(u64::from(most)) as u32;
    let when = if chance.one_in(3) {
        When::Message(up_to(chance, longest))
    } else {
        let statement = SORE[chance.below(SORE.len() as u64) as usize];
        When::Statement(statement, up_to(chance, 1 + longest / 16))
    };
    Fault { when, act: Act::chosen(chance) }
}

/// The counts of all faults.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub seeds: u64,
    pub checks: u64,
    pub events: u64,
    pub by_act: BTreeMap<Act, u64>,
    pub by_statement: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn struck(&mut self, act: Act, statement: &'static str) {
        *self.by_act.entry(act).or_default() += 1;
        *self.by_statement.entry(statement).or_default() += 1;
    }

    pub fn faults(&self) -> u64 {
        self.by_act.values().sum()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.checks += other.checks;
        self.events += other.events;
        for (act, count) in other.by_act {
            *self.by_act.entry(act).or_default() += count;
        }
        for (statement, count) in other.by_statement {
            *self.by_statement.entry(statement).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, checks, events, by_act, by_statement } = self;
        writeln!(f, "{seeds} seeds, {events} events, {} faults, {checks} checks", self.faults())?;
        writeln!(f, "by kind: {by_act:?}")?;
        write!(f, "by statement: {by_statement:?}")
    }
}
