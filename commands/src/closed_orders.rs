//! The orders that have been closed at a product or customer.

use events::Timestamp;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
}
