//! An order as clients see it.

use crate::validate::MoneyBody;
use chrono::{DateTime, Utc};
use commands::order::{Order, RefundState, Status};
use events::{
    Money,
    order::{Discount, DiscountKind},
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// An order. What depends on the price is not there until the price is fixed.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderBody {
    /// Its id.
    pub order_id: Uuid,
    /// Who ordered.
    pub customer_id: Uuid,
    /// Where it stands.
    #[schema(value_type = OrderStatus)]
    pub status: &'static str,
    /// Its lines, one a product.
    pub items: Vec<ItemBody>,
    /// The sum of the lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneyBody>)]
    pub subtotal: Option<Money>,
    /// The sum of the discounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneyBody>)]
    pub discount: Option<Money>,
    /// The discounts: at most one of each kind, in this order.
    pub discounts: Vec<DiscountBody>,
    /// What is paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneyBody>)]
    pub total: Option<Money>,
    /// The gateway's token for the means of payment.
    #[schema(example = "pm_card_visa")]
    pub payment_method: String,
    /// The gateway's id of the payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<String>,
    /// What becomes of money taken, when the order is cancelled or rejected.
    #[schema(value_type = RefundStatus)]
    pub refund: &'static str,
    /// Why it was rejected (a problem's name, or `expired`) or cancelled (the caller's words).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was placed.
    pub placed_at: DateTime<Utc>,
    /// When it last changed as shown here.
    pub updated_at: DateTime<Utc>,
    /// The version shown here: the `ETag`.
    pub version: u64,
}

/// A line of an order. Name and prices are there once the price is fixed.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = OrderItem)]
pub struct ItemBody {
    /// The product.
    pub product_id: Uuid,
    /// Its name when it was reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Units.
    pub quantity: i64,
    /// The price of one when it was reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneyBody>)]
    pub unit_price: Option<Money>,
    /// `quantity` times `unit_price`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneyBody>)]
    pub line_total: Option<Money>,
}

/// A discount of an order.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = OrderDiscount)]
pub struct DiscountBody {
    /// What for.
    #[schema(value_type = DiscountName)]
    pub kind: DiscountKind,
    /// How much less to pay; negative only for `cap`, which takes back what exceeds 30 % of the subtotal.
    #[schema(value_type = MoneyBody)]
    pub amount: Money,
}

/// Where an order stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes the names in the OpenAPI document")]
pub enum OrderStatus {
    /// Not decided yet.
    Pending,
    /// Paid: the shop will deliver it.
    Confirmed,
    /// Being packed.
    Processing,
    /// It left the house.
    Shipped,
    /// It arrived.
    Delivered,
    /// Somebody changed their mind.
    Cancelled,
    /// Refused, declined or expired.
    Rejected,
}

/// What becomes of money taken for a dead order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes the names in the OpenAPI document")]
pub enum RefundStatus {
    /// There is nothing to give back.
    None,
    /// It has not gone back yet.
    Pending,
    /// It went back.
    Done,
}

/// What a discount is for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes the names in the OpenAPI document")]
pub enum DiscountName {
    /// 10 % for VIP customers.
    Vip,
    /// 5 % above a subtotal of 100.00.
    Volume,
    /// 10.00 off the first order.
    FirstOrder,
    /// What the bound of 30 % takes back.
    Cap,
}

impl OrderBody {
    /// From the aggregate. `None` when it never was placed, or has let go of its details.
    pub fn of_state(order_id: Uuid, order: &Order) -> Option<Self> {
        let (status, detail) = (order.status()?, order.detail()?);
        let priced = detail.priced.as_ref();
        let items = match priced {
            Some(priced) => priced.lines.iter().map(ItemBody::priced).collect(),
            None => detail.lines.iter().map(ItemBody::asked).collect(),
        };
        let discounts = priced.iter().flat_map(|priced| priced.discounts.iter());
        Some(Self {
            order_id,
            customer_id: order.customer_id(),
            status: status.as_str(),
            items,
            subtotal: priced.map(|priced| priced.subtotal),
            discount: priced.map(|priced| priced.discount),
            discounts: discounts.map(DiscountBody::from).collect(),
            total: priced.map(|priced| priced.total),
            payment_method: detail.payment_method.to_string(),
            payment_id: order.payment().map(|payment| payment.payment_id.to_string()),
            refund: match order.refund_state() {
                RefundState::None => "none",
                RefundState::Pending => "pending",
                RefundState::Done => "done",
            },
            reason: order.reason().map(str::to_owned),
            placed_at: order.placed_at(),
            updated_at: order.updated_at(),
            version: order.shown_version(),
        })
    }
}

impl From<projections::orders::Order> for OrderBody {
    fn from(row: projections::orders::Order) -> Self {
        Self {
            order_id: row.order_id,
            customer_id: row.customer_id,
            status: row.status.as_str(),
            items: row.items.into_iter().map(ItemBody::from).collect(),
            subtotal: row.subtotal,
            discount: row.discount,
            discounts: row.discounts.iter().map(DiscountBody::from).collect(),
            total: row.total,
            payment_method: row.payment_method,
            payment_id: row.payment_id,
            refund: row.refund.as_str(),
            reason: row.reason,
            placed_at: row.placed_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}

impl ItemBody {
    fn asked(line: &events::order::Line) -> Self {
        let (product_id, quantity) = (line.product_id, line.quantity);
        Self { product_id, name: None, quantity, unit_price: None, line_total: None }
    }

    fn priced(line: &events::order::PricedLine) -> Self {
        Self {
            product_id: line.product_id,
            name: Some(line.name.to_string()),
            quantity: line.quantity,
            unit_price: Some(line.unit_price),
            line_total: Some(line.line_total),
        }
    }
}

impl From<projections::orders::Item> for ItemBody {
    fn from(item: projections::orders::Item) -> Self {
        Self {
            product_id: item.product_id,
            name: item.name,
            quantity: item.quantity,
            unit_price: item.unit_price,
            line_total: item.line_total,
        }
    }
}

impl From<&Discount> for DiscountBody {
    fn from(discount: &Discount) -> Self {
        Self { kind: discount.kind, amount: discount.amount }
    }
}

/// The status that a staff member may ask for by this name.
pub fn wanted_status(name: &str) -> Option<Status> {
    [Status::Processing, Status::Shipped, Status::Delivered, Status::Cancelled]
        .into_iter()
        .find(|status| status.as_str() == name)
}
