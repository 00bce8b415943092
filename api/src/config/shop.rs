//! The rules of the shop.

use commands::{OrderLimits, ShopRules, customer::REMEMBERED_DECLINES, pricing::DiscountRules};
use events::Currency;

/// The most units of one product in an order, in any shop.
pub const MAX_UNITS: i64 = 1_000_000;

/// Settings of the shop's rules.
#[derive(Clone, Debug, clap::Args)]
pub struct ShopSettings {
    /// Orders of one customer that may be pending at the same time; 0 for no limit.
    #[arg(long, env = "OPEN_ORDERS_PER_CUSTOMER", default_value_t = 20, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub open_orders_per_customer: u32,
    /// Payments of one customer that may be declined within an hour; 0 for no limit. While the limit
    /// is reached, orders of the customer are rejected, so that nobody can try out stolen cards.
    #[arg(long, env = "DECLINED_PAYMENTS_PER_HOUR", default_value_t = 10, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=REMEMBERED_DECLINES as i64))]
    pub declined_payments_per_hour: u32,
    /// Units of one product in an order.
    #[arg(long, env = "UNITS_PER_PRODUCT", default_value_t = MAX_UNITS, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(1..=MAX_UNITS))]
    pub units_per_product: i64,
    /// Subtotal above which an order gets the volume discount, in minor units of the currency
    /// [default: 100 units of the currency, such as 10000 pence].
    #[arg(long, env = "VOLUME_DISCOUNT_ABOVE", value_name = "AMOUNT")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    pub volume_discount_above: Option<i64>,
    /// Discount on a first order, in minor units of the currency; 0 for none
    /// [default: 10 units of the currency, such as 1000 pence].
    #[arg(long, env = "FIRST_ORDER_DISCOUNT", value_name = "AMOUNT")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    pub first_order_discount: Option<i64>,
}

impl ShopSettings {
    /// The rules of a shop with this currency.
    pub fn rules(&self, currency: Currency) -> ShopRules {
        let default = DiscountRules::of(currency);
        ShopRules {
            limits: OrderLimits {
                open_orders: self.open_orders_per_customer,
                declined_payments: self.declined_payments_per_hour,
            },
            discounts: DiscountRules {
                volume_beyond: self.volume_discount_above.unwrap_or(default.volume_beyond),
                first_order: self.first_order_discount.unwrap_or(default.first_order),
                ..default
            },
        }
    }
}
