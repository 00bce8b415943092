//! Events to rows.

use super::{Item, Refund, Status};
use crate::copy::Rows;
use crate::streams::{ColumnType, Head, StreamRow, Table, stream_row};
use events::{
    Money, Timestamp,
    order::{self, Discount, Line, PricedLine},
};
use serde::Serialize;
use sqlx::{Postgres, types::Json};
use std::{borrow::Cow, sync::Arc};
use uuid::Uuid;

/// The `orders` table of one version.
pub(crate) type Orders = Table<OrderRow>;

stream_row! {
    OrderRow in "orders", from Order(order::Event), shown as ShownOrder {
        shown {
            order_id: Uuid,
            shown_version: i64,
            customer_id: Uuid,
            status: String,
            items: Items as Json<Vec<Item>>,
            currency: Option<String>,
            subtotal: Option<i64>,
            discount: Option<i64>,
            discounts: Discounts as Json<Vec<Discount>>,
            total: Option<i64>,
            payment_method: String,
            payment_id: Option<String>,
            payment: String,
            reason: Option<String>,
            sealed_reason: Option<String>,
            shipping_address: Option<String>,
            placed_at: Timestamp,
            updated_at: Timestamp,
        }
        hidden {
            partition: i32,
            version: i64,
        }
    }
}

impl StreamRow for OrderRow {
    fn begin(head: Head, event: &order::Event) -> Option<Self> {
        let order::Event::Placed(placed) = event else { return None };
        Some(Self {
            order_id: head.id,
            partition: head.partition,
            version: 0,
            shown_version: 0,
            customer_id: placed.customer_id,
            status: Status::Pending.as_str().to_owned(),
            items: Items::Asked(Arc::clone(&placed.lines)),
            currency: None,
            subtotal: None,
            discount: None,
            discounts: Discounts::Given(Arc::default()),
            total: None,
            payment_method: placed.payment_method.reveal().to_owned(),
            payment_id: None,
            payment: Payment::None.as_str().to_owned(),
            reason: None,
            sealed_reason: None,
            shipping_address: placed.shipping_address.as_ref().map(|at| at.as_str().to_owned()),
            placed_at: head.time,
            updated_at: head.time,
        })
    }

    fn apply(&mut self, event: &order::Event) {
        use order::Event as E;
        match event {
            E::Priced(priced) => self.price(priced),
            E::Rejected(rejected) => {
                self.stand(Status::Rejected);
                self.reason = Some(rejected.reason.as_str().to_owned());
            }
            E::PaymentStarted(started) => {
                self.payment_id = Some(started.payment_id.to_string());
                self.pay(Payment::Started);
            }
            E::PaymentCaptured(_) => self.pay(Payment::Captured),
            E::PaymentDeclined(_) => self.pay(Payment::Declined),
            E::PaymentVoided(_) => self.pay(Payment::Voided),
            E::RefundIssued(_) => self.pay(Payment::Refunded),
            E::RefundFailed(_) => self.pay(Payment::RefundFailed),
            E::Confirmed(_) => self.stand(Status::Confirmed),
            E::ProcessingStarted(_) => self.stand(Status::Processing),
            E::Shipped(_) => self.stand(Status::Shipped),
            E::Delivered(_) => self.stand(Status::Delivered),
            E::Cancelled(cancelled) => {
                self.stand(Status::Cancelled);
                self.reason = cancelled.plain_reason.as_deref().map(str::to_owned);
                self.sealed_reason = cancelled.reason.as_ref().map(|it| it.as_str().to_owned());
            }
            // `begin` has already used `Placed`. The bookkeeping events change nothing that the
            // order shows.
            E::Placed(_)
            | E::CustomerSettled(_)
            | E::StockSettled(_)
            | E::MailSent(_)
            | E::MailRefused(_) => {}
        }
    }
}

impl OrderRow {
    fn stand(&mut self, status: Status) {
        status.as_str().clone_into(&mut self.status);
    }

    fn pay(&mut self, payment: Payment) {
        payment.as_str().clone_into(&mut self.payment);
    }

    fn price(&mut self, priced: &order::Priced) {
        let amount = |money: Money| Some(money.amount);
        self.items = Items::Priced(Arc::clone(&priced.lines));
        self.currency = Some(priced.total.currency.code().to_owned());
        self.subtotal = amount(priced.subtotal);
        self.discount = amount(priced.discount);
        self.discounts = Discounts::Given(Arc::clone(&priced.discounts));
        self.total = amount(priced.total);
    }
}

/// What is known of the payment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Payment {
    None,
    Started,
    Captured,
    Declined,
    Voided,
    Refunded,
    RefundFailed,
}

impl Payment {
    const ALL: [Self; 7] = [
        Self::None,
        Self::Started,
        Self::Captured,
        Self::Declined,
        Self::Voided,
        Self::Refunded,
        Self::RefundFailed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Started => "started",
            Self::Captured => "captured",
            Self::Declined => "declined",
            Self::Voided => "voided",
            Self::Refunded => "refunded",
            Self::RefundFailed => "refund_failed",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|payment| payment.as_str() == name)
    }

    /// The state of the refund of an order that was cancelled or rejected. A payment that has
    /// started may still be captured.
    pub(super) fn refund(self, status: Status) -> Refund {
        if !matches!(status, Status::Cancelled | Status::Rejected) {
            return Refund::None;
        }
        match self {
            Self::Started | Self::Captured => Refund::Pending,
            Self::Refunded => Refund::Done,
            Self::RefundFailed => Refund::Failed,
            Self::None | Self::Declined | Self::Voided => Refund::None,
        }
    }
}

/// Lines, serialised to JSON only when the row is written, not at each event.
#[derive(Clone, Debug)]
pub(crate) enum Items {
    Asked(Arc<[Line]>),
    Priced(Arc<[PricedLine]>),
    Stored(String),
}

/// Discounts, serialised to JSON only when the row is written.
#[derive(Clone, Debug)]
pub(crate) enum Discounts {
    Given(Arc<[Discount]>),
    Stored(String),
}

/// These types have string keys only, so they always serialise.
fn json<'a>(value: &impl Serialize) -> Cow<'a, str> {
    Cow::Owned(serde_json::to_string(value).unwrap_or_default())
}

fn copy_json(rows: &mut Rows, value: &impl Serialize) {
    rows.put_with(|bytes| serde_json::to_writer(bytes, value).unwrap_or_default());
}

impl ColumnType for Items {
    const SQL: &'static str = "json";
    const WIRE: &'static str = "text";
    type Bound<'a> = Cow<'a, str>;

    fn bound(&self) -> Cow<'_, str> {
        match self {
            Self::Asked(lines) => json(lines),
            Self::Priced(lines) => json(lines),
            Self::Stored(text) => Cow::Borrowed(text),
        }
    }

    fn copy(&self, rows: &mut Rows) {
        match self {
            Self::Asked(lines) => copy_json(rows, lines),
            Self::Priced(lines) => copy_json(rows, lines),
            Self::Stored(text) => rows.put(text.as_bytes()),
        }
    }
}

impl ColumnType for Discounts {
    const SQL: &'static str = "json";
    const WIRE: &'static str = "text";
    type Bound<'a> = Cow<'a, str>;

    fn bound(&self) -> Cow<'_, str> {
        match self {
            Self::Given(discounts) => json(discounts),
            Self::Stored(text) => Cow::Borrowed(text),
        }
    }

    fn copy(&self, rows: &mut Rows) {
        match self {
            Self::Given(discounts) => copy_json(rows, discounts),
            Self::Stored(text) => rows.put(text.as_bytes()),
        }
    }
}

/// Decodes a column of JSON text without parsing it.
macro_rules! stored_text {
    ($($column:ident),+) => {
        $(impl sqlx::Type<Postgres> for $column {
            fn type_info() -> sqlx::postgres::PgTypeInfo {
                <String as sqlx::Type<Postgres>>::type_info()
            }

            fn compatible(ty: &sqlx::postgres::PgTypeInfo) -> bool {
                <String as sqlx::Type<Postgres>>::compatible(ty)
            }
        }

        impl<'r> sqlx::Decode<'r, Postgres> for $column {
            fn decode(
                value: sqlx::postgres::PgValueRef<'r>,
            ) -> Result<Self, sqlx::error::BoxDynError> {
                <String as sqlx::Decode<Postgres>>::decode(value).map(Self::Stored)
            }
        })+
    };
}
stored_text!(Items, Discounts);
