//! The language of the aggregates' tests: `given([..]).when(command).then([..])`.

use super::{Aggregate, At};
use chrono::TimeDelta;
use events::{Currency, Money, Timestamp};
use std::fmt::Debug;
use uuid::Uuid;

/// `seconds` after the moment at which every test begins.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::seconds(seconds)
}

pub fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub fn pounds(amount: i64) -> Money {
    Money::new(amount, "GBP".parse::<Currency>().unwrap())
}

/// An aggregate with a history, ready for the next command.
pub struct Given<A: Aggregate> {
    pub state: A,
    version: u64,
    now: Timestamp,
}

/// An aggregate with these events: the first at `at(1)`, each of the others a second later.
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let none = Given { state: A::default(), version: 0, now: at(0) };
    events.into_iter().fold(none, |given, event| {
        let next = given.now + TimeDelta::seconds(1);
        given.later(next, event)
    })
}

impl<A: Aggregate> Given<A> {
    /// Adds an event at `time`.
    #[allow(clippy::needless_pass_by_value, reason = "histories read better without borrows")]
    pub fn later(mut self, time: Timestamp, event: A::Event) -> Self {
        self.version += 1;
        self.now = time;
        self.state.evolve(&event, At { version: self.version, time });
        self
    }

    /// Lets time pass until `now`.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    pub fn when(self, command: impl Into<A::Command>) -> Decided<A> {
        let decided = self.state.decide(&command.into(), self.now);
        Decided { given: self, decided }
    }
}

/// The result of a decision, ready to be checked.
pub struct Decided<A: Aggregate> {
    given: Given<A>,
    decided: Result<Vec<A::Event>, A::Refusal>,
}

impl<A: Aggregate> Decided<A>
where
    A::Event: Debug + PartialEq,
    A::Refusal: Debug + PartialEq,
{
    /// Expects these events, and continues with a history that includes them.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = A::Event>) -> Given<A> {
        assert_eq!(self.decided, Ok(events.into_iter().collect()));
        let Given { now, .. } = self.given;
        self.decided.unwrap().into_iter().fold(self.given, |given, event| given.later(now, event))
    }

    #[track_caller]
    pub fn then_nothing(self) -> Given<A> {
        self.then([])
    }

    #[track_caller]
    pub fn then_refused(self, refusal: A::Refusal) {
        self.then_refused_and_back(refusal);
    }

    /// Expects this refusal, and continues with the same history.
    #[track_caller]
    pub fn then_refused_and_back(self, refusal: A::Refusal) -> Given<A> {
        assert_eq!(self.decided, Err(refusal));
        self.given
    }
}

/// Decides a sequence of commands, each so many seconds after the previous one, and returns the
/// final state. Checks what must hold for every aggregate: replaying the history gives the
/// running state, and an aggregate that is compacted after every step decides the same.
pub fn run<A>(
    commands: impl IntoIterator<Item = (u16, A::Command)>,
    mut check: impl FnMut(&A, &A::Command, &Result<Vec<A::Event>, A::Refusal>, Timestamp),
) -> A
where
    A: Aggregate + Debug + PartialEq,
    A::Event: Debug + PartialEq + Clone,
    A::Refusal: Debug + PartialEq,
{
    let (mut running, mut compacted) = (A::default(), A::default());
    let (mut now, mut version) = (at(0), 0);
    let mut history = Vec::new();
    for (seconds, command) in commands {
        now += TimeDelta::seconds(seconds.into());
        let decided = running.decide(&command, now);
        assert_eq!(compacted.decide(&command, now), decided);
        for event in decided.iter().flatten() {
            version += 1;
            let at = At { version, time: now };
            running.evolve(event, at);
            compacted.evolve(event, at);
            history.push((event.clone(), at));
        }
        compacted.compact();
        check(&running, &command, &decided, now);
    }
    let mut replayed = A::default();
    for (event, at) in &history {
        replayed.evolve(event, *at);
    }
    assert_eq!(replayed, running);
    running
}
