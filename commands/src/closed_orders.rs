//! The orders that have been closed at a product or customer.

use events::Timestamp;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Up to so many closes are kept in a list. A node of a tree takes the room of ten, also when it is
/// empty, and most customers have one order.
const FEW: usize = 8;

/// The orders that have been closed at an aggregate. Each close is remembered until the order's
/// `not_after` in log time. After that moment any open is refused as too late, so forgetting the
/// close is safe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ClosedOrders {
    /// By time.
    Few(Arc<[(Timestamp, Uuid)]>),
    Many(Box<Many>),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Many {
    until: OrdMap<Uuid, Timestamp>,
    by_time: OrdSet<(Timestamp, Uuid)>,
}

impl Default for ClosedOrders {
    fn default() -> Self {
        Self::Few(Arc::default())
    }
}

impl ClosedOrders {
    pub(crate) fn contains(&self, order_id: Uuid) -> bool {
        match self {
            Self::Few(closes) => closes.iter().any(|(_, closed)| *closed == order_id),
            Self::Many(many) => many.until.contains_key(&order_id),
        }
    }

    /// Whether the order can no longer be opened at log time `now`.
    pub(crate) fn refuses(&self, order_id: Uuid, not_after: Timestamp, now: Timestamp) -> bool {
        now > not_after || self.contains(order_id)
    }

    pub(crate) fn insert(&mut self, order_id: Uuid, until: Timestamp) {
        match self {
            Self::Few(closes) => {
                let others = closes.iter().copied().filter(|(_, closed)| *closed != order_id);
                let mut closes: Vec<_> = others.chain([(until, order_id)]).collect();
                closes.sort_unstable();
                *self = Self::of(closes);
            }
            Self::Many(many) => many.insert(order_id, until),
        }
    }

    /// Forgets the closes whose `not_after` lies before `now`.
    pub(crate) fn forget_before(&mut self, now: Timestamp) {
        match self {
            Self::Few(closes) => {
                let over = closes.partition_point(|(until, _)| *until < now);
                if over > 0 {
                    *closes = closes[over..].into();
                }
            }
            Self::Many(many) => {
                many.forget_before(now);
                // Half of the room stays free, so that one more close does not change it back.
                if many.by_time.len() <= FEW / 2 {
                    *self = Self::Few(many.by_time.iter().copied().collect());
                }
            }
        }
    }

    /// These closes, in order of time.
    fn of(closes: Vec<(Timestamp, Uuid)>) -> Self {
        if closes.len() <= FEW {
            return Self::Few(closes.into());
        }
        let mut many = Many::default();
        for (until, order_id) in closes {
            many.insert(order_id, until);
        }
        Self::Many(Box::new(many))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(closes) => closes.len(),
            Self::Many(many) => {
                assert_eq!(many.until.len(), many.by_time.len());
                many.until.len()
            }
        }
    }
}

impl Many {
    fn insert(&mut self, order_id: Uuid, until: Timestamp) {
        if let Some(earlier) = self.until.insert(order_id, until) {
            self.by_time.remove(&(earlier, order_id));
        }
        self.by_time.insert((until, order_id));
    }

    fn forget_before(&mut self, now: Timestamp) {
        while let Some(&(until, order_id)) = self.by_time.get_min()
            && until < now
        {
            self.by_time.remove(&(until, order_id));
            self.until.remove(&order_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ClosedOrders;
    use crate::aggregate::testing::{at, id};

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
    fn few_and_many_closes_are_remembered_alike() {
        let mut closed = ClosedOrders::default();
        for order in 0..40_u32 {
            closed.insert(id(order.into()), at(order.into()));
            assert_eq!(closed.len(), order as usize + 1);
        }
        assert!(matches!(closed, ClosedOrders::Many(_)));
        for now in 0..=40_u32 {
            closed.forget_before(at(now.into()));
            assert_eq!(closed.len(), 40 - now as usize);
            assert!((0..40).all(|order| closed.contains(id(order.into())) == (order >= now)));
        }
        assert_eq!(closed, ClosedOrders::default());
    }
}
