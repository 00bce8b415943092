//! An order as an answer shows it.

use crate::{App, customers, problem::Problem, query::Versioned, validate::MoneyBody};
use chrono::{DateTime, Utc};
use commands::order::{CANCEL_REASON, Order, RefundState};
use events::{
    Money, Private, Sealed,
    order::{Discount, DiscountKind},
    seal::Key,
};
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;
use uuid::Uuid;

/// An order. Subtotal, discounts and total are absent until the order is priced.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderBody {
    /// Id of the order.
    pub order_id: Uuid,
    /// Id of the customer who placed it.
    pub customer_id: Uuid,
    /// Status of the order.
    #[schema(value_type = OrderStatus)]
    pub status: &'static str,
    /// The lines of the order, one for each product.
    pub items: Vec<ItemBody>,
    /// The sum of the lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneyBody>)]
    pub subtotal: Option<Money>,
    /// The sum of the discounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneyBody>)]
    pub discount: Option<Money>,
    /// The discounts: at most one of each kind, in the order `vip`, `volume`, `first_order`, `cap`.
    pub discounts: Vec<DiscountBody>,
    /// The amount to pay: `subtotal` less `discount`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneyBody>)]
    pub total: Option<Money>,
    /// The payment gateway's token for the means of payment.
    #[schema(value_type = String, example = "pm_card_visa")]
    pub payment_method: Private,
    /// The payment gateway's id of the payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<String>,
    /// State of the refund of a cancelled or rejected order.
    #[schema(value_type = RefundStatus)]
    pub refund: &'static str,
    /// Why the order was rejected (the name of a problem, or `expired`) or cancelled (the text
    /// that the caller gave, which is gone once the customer is erased).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where to ship the order. Only single reads show it, and none once the customer is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1 Mill Lane, York")]
    pub shipping_address: Option<Private>,
    /// When the order was placed.
    pub placed_at: DateTime<Utc>,
    /// Time of the last change that this document shows.
    pub updated_at: DateTime<Utc>,
    /// Version of the order as shown here; the same number as in `ETag`.
    pub version: u64,
}

/// A line of an order. Name and prices are absent until the order is priced.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = OrderItem)]
pub struct ItemBody {
    /// Id of the product.
    pub product_id: Uuid,
    /// Name of the product at the time it was reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number of units.
    pub quantity: i64,
    /// Price of one unit at the time it was reserved.
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
    /// Kind of discount.
    #[schema(value_type = DiscountName)]
    pub kind: DiscountKind,
    /// The amount taken off. Negative only for `cap`, which limits all discounts together to 30 %
    /// of the subtotal.
    #[schema(value_type = MoneyBody)]
    pub amount: Money,
}

/// Status of an order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes the names in the OpenAPI document")]
pub enum OrderStatus {
    /// Waiting for stock, price or payment.
    Pending,
    /// Stock is reserved and the order is paid.
    Confirmed,
    /// The order is being packed.
    Processing,
    /// The order has left the warehouse.
    Shipped,
    /// The order has arrived.
    Delivered,
    /// The customer or the staff cancelled the order.
    Cancelled,
    /// Stock was insufficient, the payment was declined, or the order expired.
    Rejected,
}

/// State of the refund of a cancelled or rejected order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes the names in the OpenAPI document")]
pub enum RefundStatus {
    /// No money was taken, or the order stands.
    None,
    /// The money has not been returned yet.
    Pending,
    /// The money has been returned.
    Done,
    /// A refund failed. The shop tries again, or returns the money by hand.
    Failed,
}

/// Kind of a discount.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes the names in the OpenAPI document")]
pub enum DiscountName {
    /// 10 % for VIP customers.
    Vip,
    /// 5 % of a subtotal above an amount that the shop sets, by default 100.00.
    Volume,
    /// An amount off the first order, which the shop sets, by default 10.00.
    FirstOrder,
    /// Takes back what exceeds 30 % of the subtotal.
    Cap,
}

/// An order whose personal texts are sealed, as the log and the read model have them.
#[derive(Clone, Debug)]
pub struct SealedOrder {
    body: OrderBody,
    shipping_address: Option<Sealed>,
    reason: Option<Sealed>,
}

impl SealedOrder {
    /// The customer who placed it.
    pub fn customer_id(&self) -> Uuid {
        self.body.customer_id
    }

    /// The order as lists and answers to commands show it.
    #[must_use]
    pub fn without_address(self) -> Self {
        Self { shipping_address: None, ..self }
    }

    fn is_sealed(&self) -> bool {
        self.shipping_address.is_some() || self.reason.is_some()
    }

    /// Decrypts the texts. Without a key, because it is destroyed, they are absent.
    fn open(self, key: Option<&Key>) -> Result<OrderBody, Problem> {
        let Self { mut body, shipping_address, reason } = self;
        let open = |sealed: Option<Sealed>, field| {
            let text = key.zip(sealed).map(|(key, it)| it.open(key, body.customer_id, field));
            text.transpose().map_err(|error| Problem::internal(&error))
        };
        body.shipping_address = open(shipping_address, "shipping_address")?.map(Private::from);
        if reason.is_some() {
            body.reason = open(reason, CANCEL_REASON)?;
        }
        Ok(body)
    }
}

/// Decrypts the texts of orders with the keys of their customers.
///
/// # Errors
/// If the key store does not answer, or a text does not open with its key.
pub async fn open_all(app: &App, orders: Vec<SealedOrder>) -> Result<Vec<OrderBody>, Problem> {
    let sealed = orders.iter().filter(|order| order.is_sealed());
    let customers: BTreeSet<Uuid> = sealed.map(SealedOrder::customer_id).collect();
    let keys = customers::keys(app, customers).await?;
    orders
        .into_iter()
        .map(|order| {
            let key = keys.get(&order.customer_id());
            order.open(key)
        })
        .collect()
}

/// Decrypts the texts of one order.
///
/// # Errors
/// As [`open_all`].
pub async fn open(app: &App, order: SealedOrder) -> Result<OrderBody, Problem> {
    let key =
        if order.is_sealed() { customers::key(app, order.customer_id()).await? } else { None };
    order.open(key.as_ref())
}

impl SealedOrder {
    /// The order of an aggregate. `None` if the order was never placed, or if the shard has dropped
    /// its details to save memory.
    pub fn of_state(order_id: Uuid, order: &Order) -> Option<Self> {
        let (status, detail) = (order.status()?, order.detail()?);
        let priced = detail.priced.as_ref();
        let items = match priced {
            Some(priced) => priced.lines.iter().map(ItemBody::priced).collect(),
            None => detail.lines.iter().map(ItemBody::asked).collect(),
        };
        let discounts = priced.iter().flat_map(|priced| priced.discounts.iter());
        let body = OrderBody {
            order_id,
            customer_id: order.customer_id(),
            status: status.as_str(),
            items,
            subtotal: priced.map(|priced| priced.subtotal),
            discount: priced.map(|priced| priced.discount),
            discounts: discounts.map(DiscountBody::from).collect(),
            total: priced.map(|priced| priced.total),
            payment_method: detail.payment_method.clone(),
            payment_id: order.payment().map(|payment| payment.payment_id.to_string()),
            refund: refund(order),
            reason: order.reason().map(str::to_owned),
            shipping_address: None,
            placed_at: order.shown().created_at,
            updated_at: order.shown().updated_at,
            version: order.shown().version,
        };
        Some(Self {
            body,
            shipping_address: detail.shipping_address.clone(),
            reason: order.sealed_reason().cloned(),
        })
    }
}

impl OrderBody {
    /// Copies from the aggregate the members that can still change after the order was cancelled.
    pub fn update(&mut self, order: &Order) {
        self.refund = refund(order);
        self.updated_at = order.shown().updated_at;
        self.version = order.shown().version;
    }
}

fn refund(order: &Order) -> &'static str {
    match order.refund_state() {
        RefundState::None => "none",
        RefundState::Pending => "pending",
        RefundState::Done => "done",
        RefundState::Failed => "failed",
    }
}

impl Versioned for OrderBody {
    fn version(&self) -> u64 {
        self.version
    }
}

impl From<projections::orders::Order> for SealedOrder {
    fn from(row: projections::orders::Order) -> Self {
        let body = OrderBody {
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
            shipping_address: None,
            placed_at: row.placed_at,
            updated_at: row.updated_at,
            version: row.version,
        };
        Self { body, shipping_address: row.shipping_address, reason: row.sealed_reason }
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

#[cfg(test)]
mod tests {
    use super::*;
    use commands::aggregate::{Aggregate, At};
    use events::{
        Currency,
        order::{
            Cancelled, Event, Line, PaymentCaptured, PaymentStarted, Placed, Priced, PricedLine,
        },
    };
    use projections::orders as rows;
    use std::sync::Arc;

    fn pounds(amount: i64) -> Money {
        Money::new(amount, "GBP".parse::<Currency>().unwrap())
    }

    fn time(second: u64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + i64::try_from(second).unwrap(), 0).unwrap()
    }

    fn placed() -> Event {
        Event::Placed(Placed {
            customer_id: Uuid::from_u128(2),
            lines: [Line { product_id: Uuid::from_u128(3), quantity: 2 }].into(),
            payment_method: "pm_card_visa".into(),
            shipping_address: None,
            deadline: time(900),
            not_after: time(4500),
        })
    }

    fn priced() -> Event {
        let line = PricedLine {
            product_id: Uuid::from_u128(3),
            name: "Book".into(),
            quantity: 2,
            unit_price: pounds(2_500),
            line_total: pounds(5_000),
        };
        let kind = DiscountKind::FirstOrder;
        Event::Priced(Priced {
            lines: [line].into(),
            subtotal: pounds(5_000),
            discounts: [Discount { kind, amount: pounds(1_000) }].into(),
            discount: pounds(1_000),
            total: pounds(4_000),
            rests_on: Arc::default(),
        })
    }

    fn folded(events: &[Event]) -> Order {
        let mut order = Order::default();
        for (version, event) in (1..).zip(events) {
            order.evolve(event, At { version, time: time(version) });
        }
        order
    }

    fn row() -> rows::Order {
        let item = rows::Item {
            product_id: Uuid::from_u128(3),
            name: None,
            quantity: 2,
            unit_price: None,
            line_total: None,
        };
        rows::Order {
            order_id: Uuid::from_u128(1),
            customer_id: Uuid::from_u128(2),
            status: rows::Status::Pending,
            items: vec![item],
            subtotal: None,
            discount: None,
            discounts: Vec::new(),
            total: None,
            payment_method: "pm_card_visa".into(),
            payment_id: None,
            refund: rows::Refund::None,
            reason: None,
            sealed_reason: None,
            shipping_address: None,
            placed_at: time(1),
            updated_at: time(1),
            version: 1,
        }
    }

    #[track_caller]
    fn assert_same(events: &[Event], row: rows::Order) {
        let key = Key::new([1; 32]);
        let state = SealedOrder::of_state(Uuid::from_u128(1), &folded(events)).unwrap();
        let state = state.open(Some(&key)).unwrap();
        assert_eq!(state, SealedOrder::from(row).open(Some(&key)).unwrap());
    }

    #[test]
    fn a_pending_order_is_the_same_from_the_aggregate_and_from_its_row() {
        assert_same(&[placed()], row());
    }

    #[test]
    fn a_cancelled_order_is_the_same_from_the_aggregate_and_from_its_row() {
        let (ordinal, amount) = (1, pounds(4_000));
        let key = Key::new([1; 32]);
        let too_late = Sealed::seal(&key, row().customer_id, CANCEL_REASON, "too late").unwrap();
        let events = [
            placed(),
            priced(),
            Event::PaymentStarted(PaymentStarted { ordinal, payment_id: "pay_1".into(), amount }),
            Event::PaymentCaptured(PaymentCaptured { ordinal, amount }),
            Event::Confirmed(events::order::Confirmed::default()),
            Event::Cancelled(Cancelled {
                reason: Some(too_late.clone()),
                plain_reason: None,
                mail: false,
            }),
        ];
        let mut row = row();
        row.status = rows::Status::Cancelled;
        row.items[0].name = Some("Book".to_owned());
        row.items[0].unit_price = Some(pounds(2_500));
        row.items[0].line_total = Some(pounds(5_000));
        row.subtotal = Some(pounds(5_000));
        row.discount = Some(pounds(1_000));
        row.discounts = vec![Discount { kind: DiscountKind::FirstOrder, amount: pounds(1_000) }];
        row.total = Some(pounds(4_000));
        row.payment_id = Some("pay_1".to_owned());
        row.refund = rows::Refund::Pending;
        row.sealed_reason = Some(too_late);
        (row.version, row.updated_at) = (6, time(6));
        assert_same(&events, row);
    }

    #[test]
    fn the_address_opens_with_the_key_and_is_absent_without() {
        let key = Key::new([1; 32]);
        let address = "1 Mill Lane, York";
        let mut row = row();
        let sealed = Sealed::seal(&key, row.customer_id, "shipping_address", address).unwrap();
        row.shipping_address = Some(sealed);
        let order = SealedOrder::from(row);
        let shown = order.clone().open(Some(&key)).unwrap();
        assert_eq!(shown.shipping_address.as_ref().map(Private::reveal), Some(address));
        assert!(!format!("{shown:?}").contains("Mill"), "no log line can hold it");
        assert_eq!(order.clone().open(None).unwrap().shipping_address, None);
        assert_eq!(order.without_address().open(Some(&key)).unwrap().shipping_address, None);
    }

    #[test]
    fn an_order_that_was_never_placed_has_no_body() {
        assert!(SealedOrder::of_state(Uuid::nil(), &Order::default()).is_none());
    }
}
