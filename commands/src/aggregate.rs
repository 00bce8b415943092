//! What all aggregates have in common.

use events::Timestamp;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// The place of an event in its stream and in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The event's version in its stream, from 1.
    pub version: u64,
    /// The event's log time, which never decreases within a partition.
    pub time: Timestamp,
}

/// Decides commands for one stream and folds its events. Both are pure and synchronous. `Default`
/// is the state of a stream without events. Clones are cheap: whatever grows is shared.
pub trait Aggregate: Clone + Default + Send + Sync + 'static {
    /// The commands it decides.
    type Command;
    /// The events of its stream.
    type Event;
    /// Why it refuses a command.
    type Refusal;

    /// The events that `command` causes at log time `now`, which is not before the last event's. An
    /// empty list means that everything the command asks for is already so.
    fn decide(
        &self,
        command: &Self::Command,
        now: Timestamp,
    ) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// Applies an event. It never fails: history is never refused.
    fn evolve(&mut self, event: &Self::Event, at: At);

    /// Drops what no later decision needs. The shard calls it after the answers have taken their
    /// own copy of the state. It changes neither decisions nor what is owed.
    fn compact(&mut self) {}
}

/// Identifies an effect among those of its stream. It stays the same while the effect is owed: only
/// an event raises the ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EffectId {
    /// The name of the effect.
    pub name: &'static str,
    /// The attempt, from 1; 0 for an effect that has only one.
    pub ordinal: u32,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal {
            0 => f.write_str(self.name),
            ordinal => write!(f, "{}/{ordinal}", self.name),
        }
    }
}

/// The orders that have been closed at an aggregate. Each close is remembered until the order's
/// `not_after` in log time. After that moment any open is refused as too late, so forgetting the
/// close is safe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClosedOrders {
    until: OrdMap<Uuid, Timestamp>,
    by_time: OrdSet<(Timestamp, Uuid)>,
}

impl ClosedOrders {
    pub(crate) fn contains(&self, order_id: Uuid) -> bool {
        self.until.contains_key(&order_id)
    }

    /// Whether the order can no longer be opened at log time `now`.
    pub(crate) fn refuses(&self, order_id: Uuid, not_after: Timestamp, now: Timestamp) -> bool {
        now > not_after || self.contains(order_id)
    }

    pub(crate) fn insert(&mut self, order_id: Uuid, until: Timestamp) {
        if let Some(earlier) = self.until.insert(order_id, until) {
            self.by_time.remove(&(earlier, order_id));
        }
        self.by_time.insert((until, order_id));
    }

    /// Forgets the closes whose `not_after` lies before `now`.
    pub(crate) fn forget_before(&mut self, now: Timestamp) {
        while let Some(&(until, order_id)) = self.by_time.get_min()
            && until < now
        {
            self.by_time.remove(&(until, order_id));
            self.until.remove(&order_id);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.until.len(), self.by_time.len());
        self.until.len()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! `given([..]).when(command).then([..])`.

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
            self.decided
                .unwrap()
                .into_iter()
                .fold(self.given, |given, event| given.later(now, event))
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
}

#[cfg(test)]
mod tests {
    use super::{
        ClosedOrders, EffectId,
        testing::{at, id},
    };

    #[test]
    fn a_closed_order_is_remembered_until_its_moment_and_refused_after_it() {
        let mut closed = ClosedOrders::default();
        closed.insert(id(1), at(10));
        closed.insert(id(2), at(20));
        assert!(closed.refuses(id(1), at(10), at(10)));
        closed.forget_before(at(10));
        assert!(closed.contains(id(1)));
        closed.forget_before(at(11));
        assert!(!closed.contains(id(1)));
        assert!(closed.refuses(id(1), at(10), at(11)));
        assert!(closed.contains(id(2)));
        assert!(!closed.refuses(id(3), at(11), at(11)));
        assert_eq!(closed.len(), 1);
    }

    #[test]
    fn an_order_closed_twice_is_remembered_once() {
        let mut closed = ClosedOrders::default();
        closed.insert(id(1), at(10));
        closed.insert(id(1), at(20));
        assert_eq!(closed.len(), 1);
        closed.forget_before(at(15));
        assert!(closed.contains(id(1)));
        closed.forget_before(at(21));
        assert_eq!(closed.len(), 0);
    }

    #[test]
    fn an_effect_is_named_with_its_ordinal() {
        assert_eq!(EffectId { name: "capture", ordinal: 1 }.to_string(), "capture/1");
        assert_eq!(EffectId { name: "open", ordinal: 0 }.to_string(), "open");
    }
}
