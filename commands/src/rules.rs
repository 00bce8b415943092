//! The rules of the shop that an operator may set.

use crate::pricing::DiscountRules;
use events::Currency;

/// The rules of the shop. What was decided by them is in the log, so a change of the rules changes
/// no earlier order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShopRules {
    /// How much a customer may have under way.
    pub limits: OrderLimits,
    /// The amounts of the discounts.
    pub discounts: DiscountRules,
}

/// How much a customer may have under way. The customer's aggregate decides by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderLimits {
    /// The most orders that are pending at the same time; 0 for no limit.
    pub open_orders: u32,
    /// The most payments that are declined within an hour of log time, up to
    /// [`REMEMBERED_DECLINES`](crate::customer::REMEMBERED_DECLINES); 0 for no limit.
    pub declined_payments: u32,
}

impl ShopRules {
    /// The default discounts of a shop with this currency, without limits.
    pub fn new(currency: Currency) -> Self {
        Self { limits: OrderLimits::default(), discounts: DiscountRules::of(currency) }
    }
}
