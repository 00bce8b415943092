//! One day in the shop as a single story, over HTTP only: a customer, the staff and an unreliable
//! gateway.

use crate::{
    client::{Answer, Api},
    on_both_logs,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

on_both_logs!(a_shopping_day);

/// The customer of the day, with a token.
struct Reader {
    id: Uuid,
    api: Api,
}

impl Reader {
    async fn orders(&self, lines: &[(Uuid, i64)], payment_method: &str, key: &str) -> Answer {
        let order = crate::client::order_paid_by(self.id, lines, payment_method);
        self.api.post("/orders", &order).key(key).header("prefer", "wait=30").send().await
    }
}

async fn read_after(api: &Api, path: &str, after: &[&Answer]) -> Value {
    api.get(path).after(after.iter().copied()).expect(200).await.body
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().filter_map(|item| item["name"].as_str()).collect()
}

fn amount(body: &Value, member: &str) -> i64 {
    body[member]["amount"].as_i64().unwrap_or_else(|| panic!("no {member} in {body}"))
}

mod scenario {
    use super::*;
    use crate::app::TestApp;
    use orderlog::auth::Role;

    #[expect(clippy::too_many_lines, reason = "a day is one story")]
    pub async fn a_shopping_day(app: &TestApp) {
        let staff = &app.staff;

        // Before opening, the staff add three books.
        let shelf = |name: &str, category: &str, price: i64, stock: i64| {
            let price = json!({"amount": price, "currency": "GBP"});
            let stock = json!(stock);
            let body = json!({
                "name": name, "category": category, "price": price, "initial_stock": stock,
            });
            async move { staff.post("/products", &body).expect(201).await }
        };
        let earthsea = shelf("A Wizard of Earthsea", "fantasy", 899, 3).await;
        let tombs = shelf("The Tombs of Atuan", "fantasy", 999, 10).await;
        let emma = shelf("Emma", "classics", 4_000, 5).await;
        let shelved = [&earthsea, &tombs, &emma];
        let [earthsea_id, tombs_id, emma_id] = shelved.map(|added| added.id("product_id"));

        // A reader registers. The address belongs to one customer, in upper or lower case.
        let somebody = json!({
            "email": "Ged@Example.org", "first_name": "Ged", "last_name": "Sparrowhawk",
        });
        let registered = app.staff.anonymous().post("/customers", &somebody).expect(201).await;
        let id = registered.id("customer_id");
        let reader = Reader { id, api: app.caller(Role::Customer, &id.to_string()) };
        let twin = json!({"email": "ged@example.ORG", "first_name": "G", "last_name": "S"});
        let taken = app.staff.anonymous().post("/customers", &twin).expect(409).await;
        assert_eq!(taken.problem(), "email-taken");

        // The reader browses and searches; a typo does not matter.
        let fantasy = read_after(&reader.api, "/products?category=fantasy", &shelved).await;
        assert_eq!(fantasy["items"].as_array().unwrap().len(), 2);
        for text in ["earthsea", "earths", "eathsea", "wizard+earthsea"] {
            let found = read_after(&reader.api, &format!("/search?q={text}"), &shelved).await;
            assert_eq!(names(&found).first(), Some(&"A Wizard of Earthsea"), "{text}");
        }

        // The reader adds a book to the wishlist twice and removes it once.
        let note = json!({"product_id": tombs_id});
        reader.api.post("/wishlist/items", &note).expect(201).await;
        let noted = reader.api.post("/wishlist/items", &note).expect(200).await;
        let wishes = read_after(&reader.api, "/wishlist/items", &[&noted]).await;
        assert_eq!(names(&wishes), ["The Tombs of Atuan"]);
        let forget = format!("/wishlist/items/{tombs_id}");
        reader.api.call(Method::DELETE, &forget).expect(204).await;

        // The first order is declined by the bank, and the shop releases the books.
        let basket = [(earthsea_id, 1), (tombs_id, 2)];
        let declined = reader.orders(&basket, "pm_card_declined", "morning").await;
        assert_eq!((declined.status, declined.problem()), (402, "payment-declined"));
        let declined_id = declined.id("order_id");

        // The same key gets the same answer; a new try has a new key.
        let again = reader.orders(&basket, "pm_card_declined", "morning").await;
        assert_eq!((again.status, again.id("order_id")), (402, declined_id));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        let placed = reader.orders(&basket, "pm_card_visa", "morning, another card").await;
        assert_eq!(placed.status, 201, "{:?}", placed.body);
        assert_eq!(placed.body["status"], "confirmed");
        let subtotal = amount(&placed.body, "subtotal");
        assert_eq!(subtotal, 899 + 2 * 999);
        // A declined order was never confirmed, so this is the first order: 10.00 off, but at most
        // 30 %.
        assert_eq!(amount(&placed.body, "total"), subtotal - subtotal * 3 / 10);
        let retried = reader.orders(&basket, "pm_card_visa", "morning, another card").await;
        assert_eq!(retried.body["order_id"], placed.body["order_id"]);

        // An order of more than the stock is refused, with the available units.
        let greedy = reader.orders(&[(earthsea_id, 3)], "pm_card_visa", "all of them").await;
        assert_eq!((greedy.status, greedy.problem()), (409, "insufficient-stock"));
        assert_eq!((&greedy.body["available"], &greedy.body["requested"]), (&json!(2), &json!(3)));

        // A gateway that fails twice delays the order but does not fail it.
        let stubborn = reader.orders(&[(tombs_id, 1)], "pm_card_error", "a slow gateway").await;
        assert_eq!(stubborn.status, 201, "{:?}", stubborn.body);

        // A second order is cancelled before it is shipped, and the money is refunded.
        let regretted = reader.orders(&[(emma_id, 1)], "pm_card_visa", "on a whim").await;
        let cancel = format!("/orders/{}/cancel", regretted.id("order_id"));
        let cancelled = reader
            .api
            .post(&cancel, &json!({"reason": "too much Emma"}))
            .header("prefer", "wait=30")
            .expect(200)
            .await;
        assert_eq!(cancelled.body["status"], "cancelled");
        assert_eq!(cancelled.body["refund"], "done");
        assert_eq!(cancelled.body["reason"], "too much Emma");

        // The staff pack and ship the first order. The customer cannot do that, and a shipped order
        // cannot be cancelled.
        let order_id = placed.id("order_id");
        let status = format!("/orders/{order_id}/status");
        let to = |status: &str| json!({ "status": status });
        reader.api.patch(&status, &to("shipped")).expect(403).await;
        staff.patch(&status, &to("processing")).expect(200).await;
        staff.patch(&status, &to("shipped")).expect(200).await;
        let late = reader.api.post(&format!("/orders/{order_id}/cancel"), &json!({})).send().await;
        assert_eq!((late.status, late.problem()), (409, "illegal-transition"));
        assert_eq!(
            (&late.body["from"], &late.body["to"]),
            (&json!("shipped"), &json!("cancelled"))
        );
        let delivered = staff.patch(&status, &to("delivered")).expect(200).await;

        // The history of the order.
        let path = format!("/orders/{order_id}/history");
        let history = read_after(&reader.api, &path, &[&delivered]).await;
        let types: Vec<&str> = history["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|item| item["type"].as_str())
            .collect();
        let told = [
            "OrderPlaced",
            "OrderPriced",
            "PaymentStarted",
            "PaymentCaptured",
            "OrderConfirmed",
            "OrderProcessingStarted",
            "OrderShipped",
            "OrderDelivered",
        ];
        let mut told_in_order = types.iter();
        for event in told {
            assert!(told_in_order.any(|one| *one == event), "{event} in {types:?}");
        }

        // Shipped books have left the stock; those of cancelled and declined orders are available
        // again.
        app.settled().await;
        app.caught_up().await;
        let stock = async |id: Uuid| {
            let shown = staff.get(&format!("/products/{id}")).expect(200).await.body;
            ["on_hand", "reserved", "shipped", "available"].map(|it| shown[it].as_i64().unwrap())
        };
        assert_eq!(stock(earthsea_id).await, [2, 0, 1, 2]);
        assert_eq!(stock(tombs_id).await, [8, 1, 2, 7]);
        assert_eq!(stock(emma_id).await, [5, 0, 0, 5]);
        let profile = staff.get(&format!("/customers/{id}")).expect(200).await.body;
        assert_eq!(profile["order_count"], 3, "confirmed ones, the cancelled one among them");

        // The report counts two orders, and lists the best seller first.
        let report = staff.get("/reports/sales?bucket=day").expect(200).await.body;
        let sums = |member: &str| -> i64 {
            let items = report["items"].as_array().unwrap();
            items
                .iter()
                .map(|item| item[member].as_i64().unwrap_or_else(|| amount(item, member)))
                .sum()
        };
        assert_eq!(sums("orders"), 2);
        let revenue = amount(&placed.body, "total") + amount(&stubborn.body, "total");
        assert_eq!(sums("revenue"), revenue);
        assert_eq!(report["best_sellers"][0]["name"], "The Tombs of Atuan");
        assert_eq!(report["best_sellers"][0]["units"], 3);

        // One book is discontinued: it cannot be ordered any more, but earlier orders stay
        // readable.
        staff.call(Method::DELETE, &format!("/products/{emma_id}")).expect(200).await;
        let too_late = reader.orders(&[(emma_id, 1)], "pm_card_visa", "after all").await;
        assert!(matches!(too_late.status, 404 | 409), "{:?}", too_late.body);
        reader.api.get(&format!("/orders/{}", regretted.id("order_id"))).expect(200).await;

        // In the evening the reader's account is erased.
        let me = format!("/customers/{id}");
        let erased =
            reader.api.call(Method::DELETE, &format!("{me}?confirm=open-orders")).expect(200).await;
        let gone = staff.get(&me).after([&erased]);
        assert_eq!(gone.expect(410).await.problem(), "gone");
        let kept = staff.get(&format!("/orders/{order_id}")).expect(200).await.body;
        assert_eq!((&kept["status"], &kept["total"]), (&json!("delivered"), &placed.body["total"]));

        // The address is free again.
        let next = json!({"email": "ged@example.org", "first_name": "G", "last_name": "H"});
        staff.anonymous().post("/customers", &next).expect(201).await;
    }
}
