//! All pairs of status changes of an order, over HTTP.

use super::{FAR, Paid, on_both_logs};
use serde_json::json;
use uuid::Uuid;

on_both_logs!(FAR; an_order_goes_only_where_it_may);

const TARGETS: [&str; 4] = ["processing", "shipped", "delivered", "cancelled"];

/// Whether the status change is allowed. Setting the same status again changes nothing.
fn may_go(from: &str, to: &str) -> bool {
    let moves: &[&str] = match from {
        "pending" => &["cancelled"],
        "confirmed" => &["processing", "shipped", "cancelled"],
        "processing" => &["shipped", "cancelled"],
        "shipped" => &["delivered"],
        _ => &[],
    };
    moves.contains(&to) || from == to
}

/// Makes a new order with this status.
async fn order_at(shop: &Paid, status: &str) -> Uuid {
    let method = match status {
        "pending" => "pm_card_slow",
        "rejected" => "pm_card_declined",
        _ => "pm_card_visa",
    };
    let placed = shop.order(method).header("prefer", "wait=0").send().await;
    let order = placed.id("order_id");
    let first = if ["pending", "rejected"].contains(&status) { status } else { "confirmed" };
    shop.shows(order, "status", first).await;
    let way: &[&str] = match status {
        "processing" | "shipped" | "cancelled" => &[status],
        "delivered" => &["shipped", "delivered"],
        _ => &[],
    };
    let path = format!("/orders/{order}/status");
    for step in way {
        shop.app.staff.patch(&path, &json!({"status": step})).expect(200).await;
    }
    order
}

mod scenario {
    use super::*;

    pub async fn an_order_goes_only_where_it_may(shop: &Paid) {
        let all =
            ["pending", "confirmed", "processing", "shipped", "delivered", "cancelled", "rejected"];
        for from in all {
            for to in TARGETS {
                let order = order_at(shop, from).await;
                let path = format!("/orders/{order}/status");
                let answer = shop.app.staff.patch(&path, &json!({ "status": to }));
                let answer = answer.header("prefer", "wait=0").send().await;
                if may_go(from, to) {
                    assert!([200, 202].contains(&answer.status), "{from} to {to}: {answer:?}");
                    assert_eq!(answer.body["status"], to, "{from} to {to}");
                } else {
                    assert_eq!(answer.status, 409, "{from} to {to}: {answer:?}");
                    assert_eq!(answer.problem(), "illegal-transition");
                    assert_eq!(
                        (&answer.body["from"], &answer.body["to"]),
                        (&json!(from), &json!(to))
                    );
                    shop.shows(order, "status", from).await;
                }
            }
        }
        for wanted in ["pending", "confirmed", "rejected", "lost"] {
            let order = order_at(shop, "confirmed").await;
            let path = format!("/orders/{order}/status");
            shop.app.staff.patch(&path, &json!({ "status": wanted })).expect(422).await;
        }
        // Held payments are captured now, and those of cancelled orders are refunded.
        shop.stripe.mend();
        let books = shop.app.settled().await;
        let book = &books.products[&shop.book];
        let away = books.count("shipped") + books.count("delivered");
        assert_eq!(book.shipped, i64::try_from(away).unwrap());
        assert_eq!(book.on_hand, 100 - book.shipped);
        let held = books.count("confirmed") + books.count("processing");
        assert_eq!(book.reserved(), i64::try_from(held).unwrap());
    }
}
