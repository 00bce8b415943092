//! The expected rows: a fold of the log's JSON that is independent of the program's code.

mod shop;

use events::{Offset, Partition, Position, StreamId, StreamKind, Timestamp, log::Record};
use projections::ReadModel;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Events that leave an order unchanged as the API shows it.
const BOOKKEEPING: [&str; 4] =
    ["OrderCustomerSettled", "OrderStockSettled", "MailSent", "MailRefused"];

/// Rows by key, in the JSON of the database.
pub type Rows = BTreeMap<String, Value>;

/// An event in the log.
pub struct Fact {
    pub position: Position,
    pub record: Record,
    body: Value,
}

impl Fact {
    pub fn new((position, record): (Position, Record)) -> Self {
        let body = serde_json::from_slice(&record.body).unwrap();
        Self { position, record, body }
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&&*self.record.event_type)
    }

    fn time(&self) -> Value {
        time(self.record.time)
    }
}

fn time(time: Timestamp) -> Value {
    let fraction = time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    format!("{}+00:00", fraction.trim_end_matches('0').trim_end_matches('.')).into()
}

/// The rows of a read model for the facts before the checkpoints; of a parked stream only the facts
/// before it was parked.
pub fn rows(
    model: ReadModel,
    facts: &[Fact],
    checkpoints: &BTreeMap<Partition, Offset>,
    parked: &BTreeMap<StreamId, Offset>,
) -> Rows {
    let seen = |fact: &&Fact| {
        let checkpoint = checkpoints.get(&fact.position.partition);
        let parked = parked.get(&fact.record.stream);
        checkpoint.is_some_and(|next| fact.position.offset < *next)
            && parked.is_none_or(|first| fact.position.offset < *first)
    };
    let seen = facts.iter().filter(seen);
    let (kind, key) = match model {
        ReadModel::Orders => (StreamKind::Order, "order_id"),
        ReadModel::Products => (StreamKind::Product, "product_id"),
        ReadModel::Customers => (StreamKind::Customer, "customer_id"),
        ReadModel::History => {
            return seen.map(|fact| (fact.record.event_id.to_string(), history(fact))).collect();
        }
        ReadModel::Wishlists => return shop::wishlists(seen),
        ReadModel::Search => return shop::search(seen),
        ReadModel::Sales => return shop::sales(seen),
    };
    let mut streams: BTreeMap<String, Vec<&Fact>> = BTreeMap::new();
    for fact in seen.filter(|fact| fact.record.stream.kind == kind) {
        streams.entry(fact.record.stream.id.to_string()).or_default().push(fact);
    }
    let row = |(id, facts): (String, Vec<&Fact>)| {
        let mut row = match model {
            ReadModel::Orders => order(&facts),
            ReadModel::Products => product(&facts),
            _ => customer(&facts),
        };
        row[key] = id.clone().into();
        row["partition"] = facts[0].position.partition.0.into();
        row["version"] = facts.len().into();
        (id, row)
    };
    streams.into_iter().map(row).collect()
}

fn history(fact: &Fact) -> Value {
    let (record, metadata) = (&fact.record, &fact.record.metadata);
    json!({
        "version": metadata.version, "log_offset": fact.position.offset.0,
        "occurred_at": fact.time(), "partition": fact.position.partition.0,
        "stream_kind": record.stream.kind as u8, "schema_version": metadata.schema,
        "stream_id": record.stream.id, "event_id": record.event_id,
        "command_id": metadata.command_id, "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id, "event_type": &*record.event_type,
        "body": std::str::from_utf8(&record.body).unwrap(),
    })
}

/// Sets the version and time of the last event that changes the row as shown.
fn shown(row: &mut Value, facts: &[&Fact], shows: impl Fn(&Fact) -> bool) {
    let last = facts.iter().rposition(|fact| shows(fact));
    row["shown_version"] = last.map_or(0, |last| last + 1).into();
    row["updated_at"] = facts[last.unwrap_or(0)].time();
}

/// The last event with one of these names.
fn last<'a>(facts: &[&'a Fact], names: &[&str]) -> Option<&'a Fact> {
    facts.iter().rev().find(|fact| fact.is(names)).copied()
}

fn order(facts: &[&Fact]) -> Value {
    let placed = &facts[0].body;
    let priced = last(facts, &["OrderPriced"]).map_or(&Value::Null, |fact| &fact.body);
    let lines = if priced.is_null() { &placed["lines"] } else { &priced["lines"] };
    let discounts = if priced.is_null() { json!([]) } else { priced["discounts"].clone() };
    let named = |names: &[(&str, &'static str)], none: &'static str| {
        let events: Vec<&str> = names.iter().map(|(event, _)| *event).collect();
        let last = last(facts, &events);
        last.map_or(none, |last| names.iter().find(|(event, _)| last.is(&[event])).unwrap().1)
    };
    let status = named(
        &[
            ("OrderRejected", "rejected"),
            ("OrderConfirmed", "confirmed"),
            ("OrderProcessingStarted", "processing"),
            ("OrderShipped", "shipped"),
            ("OrderDelivered", "delivered"),
            ("OrderCancelled", "cancelled"),
        ],
        "pending",
    );
    let payment = named(
        &[
            ("PaymentStarted", "started"),
            ("PaymentCaptured", "captured"),
            ("PaymentDeclined", "declined"),
            ("PaymentVoided", "voided"),
            ("RefundIssued", "refunded"),
            ("RefundFailed", "refund_failed"),
        ],
        "none",
    );
    let ended = last(facts, &["OrderRejected", "OrderCancelled"]);
    let started = last(facts, &["PaymentStarted"]);
    let mut row = json!({
        "customer_id": placed["customer_id"], "status": status, "items": lines,
        "currency": priced["total"]["currency"], "subtotal": priced["subtotal"]["amount"],
        "discount": priced["discount"]["amount"], "discounts": discounts,
        "total": priced["total"]["amount"], "payment_method": placed["payment_method"],
        "payment_id": started.map(|fact| &fact.body["payment_id"]), "payment": payment,
        "reason": ended.map(|fact| {
            &fact.body[if fact.is(&["OrderRejected"]) { "reason" } else { "plain_reason" }]
        }),
        "sealed_reason": last(facts, &["OrderCancelled"]).map(|fact| &fact.body["reason"]),
        "shipping_address": placed["shipping_address"], "placed_at": facts[0].time(),
    });
    shown(&mut row, facts, |fact| !fact.is(&BOOKKEEPING));
    row
}

fn product(facts: &[&Fact]) -> Value {
    let sum = |names: &[&str], field: &str| -> i64 {
        let facts = facts.iter().filter(|fact| fact.is(names));
        facts.map(|fact| fact.body[field].as_i64().unwrap()).sum()
    };
    let stock = sum(&["ProductAdded"], "initial_stock") + sum(&["StockChanged"], "quantity");
    let gone = sum(&["StockShipped"], "quantity");
    let held = sum(&["StockReserved"], "quantity") - sum(&["StockReleased"], "quantity");
    let described = last(facts, &["ProductAdded", "ProductChanged"]);
    let said = described.map_or(&Value::Null, |fact| &fact.body);
    let or = |value: &Value, none: Value| if described.is_some() { value.clone() } else { none };
    let mut row = json!({
        "listed": last(facts, &["ProductAdded"]).is_some(),
        "name": or(&said["name"], "".into()), "description": said["description"],
        "category": said["category"], "price": or(&said["price"]["amount"], 0.into()),
        "currency": or(&said["price"]["currency"], "".into()), "on_hand": stock - gone,
        "reserved": held - gone, "shipped": gone,
        "discontinued": last(facts, &["ProductDiscontinued"]).is_some(),
        "created_at": last(facts, &["ProductAdded"]).unwrap_or(facts[0]).time(),
    });
    shown(&mut row, facts, |fact| {
        !(fact.is(&["StockReleased", "StockShipped"]) && fact.body["quantity"] == 0)
    });
    row
}

fn customer(facts: &[&Fact]) -> Value {
    const STATUS: [&str; 3] =
        ["RegistrationRequested", "CustomerRegistered", "RegistrationRefused"];
    let erased = facts.iter().any(|fact| fact.is(&["CustomerErased"]));
    let status = match last(facts, &STATUS) {
        Some(_) if erased => "erased",
        None => "unknown",
        Some(fact) if fact.is(&["CustomerRegistered"]) => "registered",
        Some(fact) if fact.is(&["RegistrationRefused"]) => "refused",
        Some(_) => "pending",
    };
    let unless_erased = |fact: Option<_>| fact.filter(|_| !erased);
    let address = unless_erased(last(facts, &["RegistrationRequested", "EmailChanged"]));
    let profile =
        unless_erased(last(facts, &["RegistrationRequested", "EmailChanged", "CustomerChanged"]));
    let text = |fact: Option<&Fact>, field: &str, none: &str| {
        fact.map_or(none.into(), |fact| fact.body[field].clone())
    };
    let confirmed = |fact: &Fact| fact.is(&["OrderClosed"]) && fact.body["confirmed"] == true;
    let orders = facts.iter().filter(|fact| confirmed(fact)).count();
    let vip = profile.is_some_and(|fact| fact.body["vip"] == true);
    let nobody = uuid::Uuid::nil().to_string();
    let mut row = json!({
        "status": status, "email_id": text(address, "email_id", &nobody),
        "email": text(address, "email", ""), "first_name": text(profile, "first_name", ""),
        "last_name": text(profile, "last_name", ""), "vip": vip, "order_count": orders,
        "created_at": facts[0].time(),
    });
    let all = [&STATUS[..], &["CustomerChanged", "EmailChanged", "CustomerErased"]].concat();
    shown(&mut row, facts, |fact| fact.is(&all) || confirmed(fact));
    row
}
