//! Wishlists, search and sales.

use super::{Fact, Rows};
use events::StreamKind;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn stream(fact: &Fact) -> String {
    fact.record.stream.id.to_string()
}

pub fn wishlists<'a>(facts: impl Iterator<Item = &'a Fact>) -> Rows {
    let mut rows = Rows::new();
    for fact in facts.filter(|fact| fact.record.stream.kind == StreamKind::Wishlist) {
        let customer = stream(fact);
        if fact.is(&["WishlistCleared"]) {
            rows.retain(|_, row| row["customer_id"] != customer);
            continue;
        }
        let product = text(&fact.body["product_id"]);
        let key = format!("{customer} {product}");
        rows.remove(&key);
        if fact.is(&["WishlistItemAdded"]) {
            let row = json!({
                "customer_id": customer, "product_id": product,
                "partition": fact.position.partition.0, "added_at": fact.time(),
                "version": fact.record.metadata.version,
            });
            rows.insert(key, row);
        }
    }
    rows
}

/// The words of the few texts there are.
fn words(text: &Value) -> BTreeSet<String> {
    let plain = text.as_str().unwrap_or_default().replace('ü', "u").replace('ï', "i");
    let words = plain.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

pub fn search<'a>(facts: impl Iterator<Item = &'a Fact>) -> Rows {
    let mut rows = Rows::new();
    let mut gone = BTreeSet::new();
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for fact in facts.filter(|fact| fact.record.stream.kind == StreamKind::Product) {
        let (id, partition) = (stream(fact), fact.position.partition.0);
        if fact.is(&["ProductDiscontinued"]) {
            rows.remove(&id);
            gone.insert(id.clone());
        }
        if !fact.is(&["ProductAdded", "ProductChanged"]) {
            continue;
        }
        let texts = ["name", "category", "description"].map(|field| words(&fact.body[field]));
        let name = texts[0].clone();
        let words: BTreeSet<String> = texts.into_iter().flatten().collect();
        for word in &words {
            let row = json!({ "word": word, "partition": partition, "names": 0, "products": 0 });
            rows.entry(format!("{word} {partition}")).or_insert(row);
        }
        names.insert(id.clone(), name);
        if gone.contains(&id) {
            continue;
        }
        let added = rows.get(&id).map_or_else(|| fact.time(), |row| row["created_at"].clone());
        let row = json!({
            "product_id": id, "partition": partition, "created_at": added, "words": words,
        });
        rows.insert(id, row);
    }
    let sold: Vec<Value> = rows.values().filter(|row| !row["words"].is_null()).cloned().collect();
    for row in sold {
        let name = &names[text(&row["product_id"])];
        for word in row["words"].as_array().unwrap() {
            let key = format!("{} {}", text(word), row["partition"]);
            let counts = rows.get_mut(&key).unwrap();
            let in_name = i64::from(name.contains(text(word)));
            counts["products"] = (counts["products"].as_i64().unwrap() + 1).into();
            counts["names"] = (counts["names"].as_i64().unwrap() + in_name).into();
        }
    }
    rows
}

pub fn sales<'a>(facts: impl Iterator<Item = &'a Fact>) -> Rows {
    let mut orders: BTreeMap<String, Vec<&Fact>> = BTreeMap::new();
    for fact in facts.filter(|fact| fact.record.stream.kind == StreamKind::Order) {
        orders.entry(stream(fact)).or_default().push(fact);
    }
    let mut rows = Rows::new();
    for (id, facts) in orders {
        let Some(priced) = super::last(&facts, &["OrderPriced"]) else { continue };
        let confirmed = super::last(&facts, &["OrderConfirmed"]).map(hour);
        let cancelled = super::last(&facts, &["OrderCancelled"]).is_some();
        if let Some(bucket) = &confirmed {
            enter(&mut rows, bucket, priced, !cancelled);
        }
        if !cancelled && super::last(&facts, &["OrderShipped", "OrderRejected"]).is_none() {
            let lines = priced.body["lines"].as_array().unwrap().iter();
            let lines: Vec<Value> =
                lines.map(|line| json!([line["product_id"], line["quantity"]])).collect();
            let row = json!({
                "order_id": id, "partition": priced.position.partition.0, "bucket": confirmed,
                "currency": priced.body["total"]["currency"],
                "revenue": priced.body["total"]["amount"],
                "discounts": priced.body["discount"]["amount"], "lines": lines,
            });
            rows.insert(id, row);
        }
    }
    rows
}

fn hour(fact: &Fact) -> String {
    fact.record.time.format("%Y-%m-%dT%H:00:00+00:00").to_string()
}

/// Adds an order to the sums of its hour, or nothing, but so that the row is there.
fn enter(rows: &mut Rows, bucket: &str, priced: &Fact, counts: bool) {
    let (partition, body) = (priced.position.partition.0, &priced.body);
    let times = i64::from(counts);
    let mut add = |key: String, none: Value, amounts: &[(&str, i64)]| {
        let row = rows.entry(key).or_insert(none);
        for (name, amount) in amounts {
            row[*name] = (row[*name].as_i64().unwrap_or_default() + amount * times).into();
        }
    };
    let none = json!({
        "bucket": bucket, "partition": partition, "currency": body["total"]["currency"],
    });
    let amount = |field: &str| body[field]["amount"].as_i64().unwrap();
    let amounts = [("orders", 1), ("revenue", amount("total")), ("discounts", amount("discount"))];
    add(format!("\"{bucket}\" {partition}"), none, &amounts);
    for line in body["lines"].as_array().unwrap() {
        let product = text(&line["product_id"]);
        let none = json!({ "bucket": bucket, "partition": partition, "product_id": product });
        let units = line["quantity"].as_i64().unwrap();
        add(format!("\"{bucket}\" {partition} {product}"), none, &[("units", units)]);
    }
}
