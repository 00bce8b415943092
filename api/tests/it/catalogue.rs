//! The catalogue: search, products on sale and discontinued products.

use crate::{
    client::{Api, order},
    on_both_logs,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

on_both_logs!(
    a_discontinued_product_is_sold_no_more_and_its_orders_go_on,
    a_search_finds_what_is_meant_and_says_what_it_cannot_look_for,
    what_the_caller_holds_is_not_sent_again,
);

async fn listed(api: &Api) -> Vec<Uuid> {
    let page = api.get("/products?limit=200").expect(200).await;
    let id = |item: &Value| item["product_id"].as_str().unwrap().parse().unwrap();
    page.body["items"].as_array().unwrap().iter().map(id).collect()
}

/// The names of the products that a search found.
fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

mod scenario {
    use super::*;
    use crate::app::TestApp;

    pub async fn a_search_finds_what_is_meant_and_says_what_it_cannot_look_for(app: &TestApp) {
        let mut shelved = Vec::new();
        for (name, description) in [
            ("Moby-Dick", "A whale, and who looks for it."),
            ("The Whale", "All about whales."),
            ("Frankenstein", "A whale does not come in it."),
        ] {
            let body = json!({
                "name": name, "description": description,
                "price": {"amount": 900, "currency": "GBP"}, "initial_stock": 2,
            });
            shelved.push(app.staff.post("/products", &body).expect(201).await);
        }
        let anyone = app.staff.anonymous();
        let search = async |query: &str| {
            let path = format!("/search?q={query}");
            anyone.get(&path).after(&shelved).expect(200).await
        };
        let found = search("whale").await;
        assert_eq!(names(&found.body)[0], "The Whale");
        assert_eq!(names(&found.body).len(), 3);
        assert_eq!(found.body["items"][0]["available"], 2);
        assert_eq!(found.header("cache-control"), Some("private, no-cache"));
        for query in ["moby", "MOBY%20dick", "mobi%20dick", "whale%20looks"] {
            assert_eq!(names(&search(query).await.body), ["Moby-Dick"], "{query}");
        }
        assert!(names(&search("octopus").await.body).is_empty());
        let first = search("whale&limit=2").await.body;
        let cursor = first["next_cursor"].as_str().unwrap();
        let rest = search(&format!("whale&limit=2&cursor={cursor}")).await.body;
        assert_eq!((names(&rest).len(), &rest["next_cursor"]), (1, &Value::Null));

        let long = "x".repeat(201);
        let many = "a+b+c+d+e+f+g+h+i";
        let foreign = format!("dick&cursor={cursor}");
        for query in ["", "%20", "%3F%21", "%00", &long, many, "a&q=b", "a&limit=0", &foreign] {
            let refused = anyone.get(&format!("/search?q={query}")).expect(400).await;
            assert_eq!(refused.problem(), "invalid-parameter", "{query}");
        }
        anyone.get("/search").expect(400).await;
        for query in ["%27", "%27+or+1", "a%3A*", "%5C", "%F0%9F%90%8B+whale", "%25", "__", "%FF"] {
            let answer = anyone.get(&format!("/search?q={query}")).send().await;
            assert!([200, 400].contains(&answer.status), "{query}: {:?}", answer.body);
        }
    }

    pub async fn what_the_caller_holds_is_not_sent_again(app: &TestApp) {
        let staff = &app.staff;
        let product = staff.product(900, 10).await;
        let reader = staff.customer().await;
        let placed = staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
        app.settled().await;
        app.caught_up().await;
        let order_id = placed.id("order_id");
        for (path, cache) in [
            (format!("/products/{product}"), "public, no-cache"),
            (format!("/orders/{order_id}"), "private, no-cache"),
        ] {
            let shown = staff.get(&path).expect(200).await;
            assert_eq!(shown.header("cache-control"), Some(cache), "{path}");
            let etag = shown.header("etag").unwrap();
            let held = staff.get(&path).header("if-none-match", etag).expect(304).await;
            for name in ["etag", "cache-control", "log-position"] {
                assert_eq!(held.header(name), shown.header(name), "{path} {name}");
            }
            assert_eq!(held.body, "");
            staff.get(&path).header("if-none-match", "\"999\"").expect(200).await;
            staff.get(&path).header("if-none-match", "*").expect(304).await;
        }
        // 304 is only for callers that may read the resource.
        let other = app.caller(orderlog::auth::Role::Customer, &Uuid::nil().to_string());
        let path = format!("/orders/{order_id}");
        other.get(&path).header("if-none-match", "*").expect(404).await;
        let none = format!("/products/{}", Uuid::nil());
        staff.get(&none).header("if-none-match", "*").expect(404).await;

        // A client that names the position of a change gets the new version, in spite of its old
        // `ETag`.
        let path = format!("/products/{product}");
        let before = staff.get(&path).expect(200).await;
        let stock = json!({"quantity": 1, "reason": "received"});
        let changed = staff.post(&format!("{path}/stock"), &stock).expect(200).await;
        let seen = staff
            .get(&path)
            .header("if-none-match", before.header("etag").unwrap())
            .after([&changed])
            .expect(200)
            .await;
        assert_eq!(seen.body["on_hand"], changed.body["on_hand"]);
    }

    pub async fn a_discontinued_product_is_sold_no_more_and_its_orders_go_on(app: &TestApp) {
        let staff = &app.staff;
        let (kept, product) = (staff.product(500, 10).await, staff.product(900, 10).await);
        let reader = staff.customer().await;
        let mut orders = Vec::new();
        for _ in 0..2 {
            let placed = staff.post("/orders", &order(reader, &[(product, 2)])).expect(201).await;
            orders.push(placed.id("order_id"));
        }
        let path = format!("/products/{product}");
        let delete = || staff.call(Method::DELETE, &path);
        staff.anonymous().call(Method::DELETE, &path).expect(401).await;
        delete().header("if-match", "\"1\"").expect(412).await;
        let first = delete().key("end of it").expect(200).await;
        assert_eq!(first.body["discontinued"], true);
        let again = delete().expect(200).await;
        assert_eq!((&again.body, again.header("etag")), (&first.body, first.header("etag")));
        let replayed = delete().key("end of it").expect(200).await;
        assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
        assert_eq!(replayed.body, first.body);
        let unknown = format!("/products/{}", Uuid::nil());
        staff.call(Method::DELETE, &unknown).expect(404).await;

        let refused = staff.post("/orders", &order(reader, &[(kept, 1), (product, 1)]));
        let refused = refused.expect(404).await;
        assert_eq!(refused.problem(), "product-not-found");
        assert_eq!(refused.id("product_id"), product);
        let stock = json!({"quantity": -1, "reason": "correction"});
        staff.post(&format!("{path}/stock"), &stock).expect(200).await;
        let described = staff.patch(&path, &json!({"name": "A late book"})).expect(200).await;
        assert_eq!(described.body["discontinued"], true);

        let cancel = format!("/orders/{}/cancel", orders[0]);
        staff.call(Method::POST, &cancel).expect(200).await;
        for status in ["processing", "shipped"] {
            let path = format!("/orders/{}/status", orders[1]);
            staff.patch(&path, &json!({"status": status})).expect(200).await;
        }
        app.settled().await;
        app.caught_up().await;
        let shown = staff.anonymous().get(&path).expect(200).await.body;
        assert_eq!(shown["discontinued"], true);
        assert_eq!([&shown["on_hand"], &shown["reserved"], &shown["shipped"]], [7, 0, 2]);
        let sold = listed(staff).await;
        assert!(sold.contains(&kept) && !sold.contains(&product));
        let old = staff.get(&format!("/orders/{}", orders[1])).expect(200).await.body;
        assert_eq!(old["items"][0]["name"], "A book");
    }
}
