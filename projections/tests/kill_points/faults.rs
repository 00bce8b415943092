//! What may happen, and where.

use crate::shop::Chance;
use std::{collections::BTreeMap, fmt, ops::AddAssign};

/// What happens at a message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// The connection is gone before the message arrives.
    CutBefore,
    /// Half of the message arrives.
    CutWithin,
    /// The message arrives and is carried out; the client never hears of it.
    CutAfter,
    /// The client dies before the message arrives, with all its connections.
    KillBefore,
    /// The client dies after the message is carried out.
    KillAfter,
    /// The message waits until others have gone on, or wait too.
    Hold,
    /// So does the whole client.
    Freeze,
    /// The server ends the session while the message waits.
    Terminate,
    /// The server's process of the session is killed: all sessions end, and the server recovers.
    Crash,
    /// The server is stopped at once and started again.
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

/// At which message.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// The so-manieth.
    Message(u32),
    /// The so-manieth of those statements.
    Statement(&'static str, u32),
}

/// Something that is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub when: When,
    pub act: Act,
}

/// Where it hurts most, more often than chance alone would have it.
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

/// The faults of one client.
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

/// What happened, all in all.
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
