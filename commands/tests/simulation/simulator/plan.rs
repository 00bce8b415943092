//! The plan of a run, generated from its seed. Every part of it can be left out.

use super::{gateway::Mood, post::PostMood};
use events::log::memory::Fault;
use std::time::Duration;

pub const PRODUCTS: u8 = 3;
pub const CUSTOMERS: u8 = 2;
pub const ADDRESSES: u8 = 3;

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of the world: it decides the order of tasks and everything random.
    pub seed: u64,
    pub partitions: u32,
    /// How long after its opening a partition expires no orders.
    pub grace: Duration,
    pub acts: Vec<Planned>,
}

/// An act, and the number of steps after the previous one.
#[derive(Clone, Debug)]
pub struct Planned {
    pub gap: u32,
    pub act: Act,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    Processing,
    Shipped,
    Delivered,
}

/// An action of a client or of the world. A number refers to one of the existing things, modulo
/// their count.
#[derive(Clone, Debug)]
pub enum Act {
    Place {
        customer: u8,
        lines: Vec<(u8, i64)>,
        method: &'static str,
        deadline_s: i64,
        patience_ms: u64,
    },
    Stock {
        product: u8,
        quantity: i64,
        patience_ms: u64,
    },
    Price {
        product: u8,
        amount: i64,
    },
    Discontinue {
        product: u8,
    },
    Cancel {
        order: u16,
    },
    Move {
        order: u16,
        to: To,
    },
    Register {
        address: u8,
    },
    Readdress {
        customer: u8,
        address: u8,
    },
    Vip {
        customer: u8,
    },
    Erase {
        customer: u8,
        patience_ms: u64,
    },
    /// Sends an earlier command again with the same key and body.
    Repeat {
        call: u16,
        twins: u8,
        patience_ms: u64,
    },
    OtherBody {
        call: u16,
    },
    Look {
        stream: u16,
    },
    Wait {
        order: u16,
    },
    /// Sends the opens of an order again, very late.
    Straggle {
        order: u16,
    },
    Kill,
    Stop,
    Start,
    Freeze {
        process: u8,
    },
    Thaw,
    Jump {
        process: u8,
        seconds: i64,
    },
    /// Sets a clock that was wrong right again.
    SetRight {
        process: u8,
    },
    Faults {
        partition: u8,
        faults: Vec<Fault>,
    },
    Hide {
        partition: u8,
        looks: Option<u32>,
    },
    Reveal {
        partition: u8,
    },
    Release {
        partition: u8,
    },
    Ghosts {
        partition: u8,
    },
    Latency {
        ms: u64,
    },
    Weather {
        lost_one_in: u64,
        slow_ms: u64,
    },
    Mood(Mood),
    Post(PostMood),
    Pass {
        ms: u64,
    },
}

impl Act {
    /// The name of the act.
    pub fn kind(&self) -> String {
        let whole = format!("{self:?}");
        whole.split([' ', '(']).next().unwrap().to_owned()
    }
}

/// Kinds of trouble. A run has only some of them, because troubles that always come together hide
/// bugs that need one of them alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Deaths,
    Takeovers,
    Freezes,
    Clocks,
    Faults,
    Veils,
    Weather,
    Gateway,
    Mail,
    Lateness,
    Impatience,
}

const TROUBLES: [Trouble; 11] = [
    Trouble::Deaths,
    Trouble::Takeovers,
    Trouble::Freezes,
    Trouble::Clocks,
    Trouble::Faults,
    Trouble::Veils,
    Trouble::Weather,
    Trouble::Gateway,
    Trouble::Mail,
    Trouble::Lateness,
    Trouble::Impatience,
];

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance(fastrand::Rng::with_seed(seed));
        let partitions = 1 + chance.below(3);
        let grace = Duration::from_secs(u64::from(1 + chance.below(30)));
        let troubles: Vec<Trouble> = TROUBLES.into_iter().filter(|_| chance.0.bool()).collect();
        let count = 15 + chance.below(60);
        let acts = (0..count).map(|_| Planned { gap: chance.gap(), act: chance.act(&troubles) });
        Self { seed, partitions, grace, acts: acts.collect() }
    }
}

struct Chance(fastrand::Rng);

impl Chance {
    fn below(&mut self, end: u32) -> u32 {
        self.0.u32(..end)
    }

    fn byte(&mut self) -> u8 {
        self.0.u8(..)
    }

    fn gap(&mut self) -> u32 {
        let most = [1, 10, 60, 400][self.0.usize(..4)];
        self.below(most)
    }

    fn patience(&mut self, troubles: &[Trouble]) -> u64 {
        if troubles.contains(&Trouble::Impatience) && self.0.bool() {
            return self.0.u64(..50);
        }
        20_000
    }

    fn deadline(&mut self) -> i64 {
        let most = if self.0.bool() { 900 } else { 20 };
        self.0.i64(0..most)
    }

    fn act(&mut self, troubles: &[Trouble]) -> Act {
        if !troubles.is_empty() && self.below(5) < 2 {
            let trouble = troubles[self.0.usize(..troubles.len())];
            return self.trouble(trouble);
        }
        let patience_ms = self.patience(troubles);
        match self.below(20) {
            0..=6 => Act::Place {
                customer: self.byte(),
                lines: self.lines(),
                method: self.method(),
                deadline_s: self.deadline(),
                patience_ms,
            },
            7..=8 => Act::Stock { product: self.byte(), quantity: self.0.i64(-3..8), patience_ms },
            9 if self.below(8) == 0 => Act::Discontinue { product: self.byte() },
            9 => Act::Price { product: self.byte(), amount: self.0.i64(0..20_000) },
            10..=11 => Act::Cancel { order: self.0.u16(..) },
            12..=13 => Act::Move {
                order: self.0.u16(..),
                to: [To::Processing, To::Shipped, To::Delivered][self.0.usize(..3)].clone(),
            },
            14 => Act::Register { address: self.byte() },
            15 if self.below(3) == 0 => Act::Erase { customer: self.byte(), patience_ms },
            15 if self.0.bool() => Act::Vip { customer: self.byte() },
            15 => Act::Readdress { customer: self.byte(), address: self.byte() },
            16..=17 => Act::Repeat { call: self.0.u16(..), twins: self.0.u8(1..4), patience_ms },
            18 => Act::OtherBody { call: self.0.u16(..) },
            _ if self.0.bool() => Act::Look { stream: self.0.u16(..) },
            _ => Act::Wait { order: self.0.u16(..) },
        }
    }

    /// A payment method. Most payments succeed at once.
    fn method(&mut self) -> &'static str {
        match self.below(12) {
            0..=1 => "declined",
            2 => "unknown",
            3..=4 => "slow",
            5 => "slowly declined",
            _ => "visa",
        }
    }

    fn lines(&mut self) -> Vec<(u8, i64)> {
        let count = self.0.usize(1..=usize::from(PRODUCTS));
        (0..count).map(|_| (self.byte(), self.0.i64(1..4))).collect()
    }

    fn trouble(&mut self, trouble: Trouble) -> Act {
        let partition = self.byte();
        match trouble {
            Trouble::Deaths if self.below(4) == 0 => Act::Stop,
            Trouble::Deaths if self.0.bool() => Act::Kill,
            Trouble::Deaths | Trouble::Takeovers => Act::Start,
            Trouble::Freezes if self.0.bool() => Act::Freeze { process: self.byte() },
            Trouble::Freezes => Act::Thaw,
            Trouble::Clocks if self.below(4) == 0 => Act::Pass { ms: self.0.u64(..120_000) },
            Trouble::Clocks => match self.below(6) {
                0 => Act::SetRight { process: self.byte() },
                1 => Act::Jump { process: self.byte(), seconds: self.0.i64(0..4 * 86_400) },
                _ => {
                    let most = [2, 90, 7200][self.0.usize(..3)];
                    Act::Jump { process: self.byte(), seconds: self.0.i64(-most..most) }
                }
            },
            Trouble::Faults => match self.below(5) {
                0 => Act::Release { partition },
                1 => Act::Ghosts { partition },
                _ => Act::Faults { partition, faults: self.faults() },
            },
            Trouble::Veils => match self.below(3) {
                0 => Act::Reveal { partition },
                1 => Act::Hide { partition, looks: None },
                _ => Act::Hide { partition, looks: Some(1 + self.below(5)) },
            },
            Trouble::Weather if self.below(3) == 0 => Act::Latency { ms: self.0.u64(..2000) },
            Trouble::Weather => {
                let lost_one_in = [0, 3, 10, 50][self.0.usize(..4)];
                let slow_ms = [0, 1, 20, 800][self.0.usize(..4)];
                Act::Weather { lost_one_in, slow_ms }
            }
            Trouble::Gateway => {
                let moods = [Mood::Calm, Mood::Failing, Mood::Slow, Mood::Silent];
                Act::Mood(moods[self.0.usize(..4)])
            }
            Trouble::Mail => {
                use PostMood::{Failing, Open, Silent, Slow, Strict};
                Act::Post([Open, Failing, Slow, Silent, Strict][self.0.usize(..5)])
            }
            Trouble::Lateness => Act::Straggle { order: self.0.u16(..) },
            Trouble::Impatience => Act::Pass { ms: self.0.u64(..3000) },
        }
    }

    fn faults(&mut self) -> Vec<Fault> {
        let count = self.0.usize(1..4);
        let fault = |chance: &mut fastrand::Rng| match chance.u32(..8) {
            0 => Fault::Clean,
            1 => Fault::NotApplied,
            2 => Fault::UnknownLanded,
            3 => Fault::UnknownLost,
            4 => Fault::Ghost,
            5 => Fault::Cut(chance.usize(..3)),
            6 => Fault::Suspect,
            _ => Fault::Hold,
        };
        (0..count).map(|_| fault(&mut self.0)).collect()
    }
}
