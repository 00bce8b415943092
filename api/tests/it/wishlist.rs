//! Wishlists over HTTP.

use crate::{client::Api, on_both_logs};
use orderlog::auth::Role;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

on_both_logs!(a_wishlist_is_the_customers_own_and_shows_products_as_they_are);

fn products(page: &Value) -> Vec<Uuid> {
    let id = |item: &Value| item["product_id"].as_str().unwrap().parse().unwrap();
    page["items"].as_array().unwrap().iter().map(id).collect()
}

async fn list(api: &Api, token: &str, query: &str) -> Value {
    let path = format!("/wishlist/items{query}");
    api.get(&path).header("min-log-position", token).expect(200).await.body
}

mod scenario {
    use super::*;
    use crate::app::TestApp;

    pub async fn a_wishlist_is_the_customers_own_and_shows_products_as_they_are(app: &TestApp) {
        let staff = &app.staff;
        let customer = staff.customer().await;
        let reader = app.caller(Role::Customer, &customer.to_string());
        let mut books = Vec::new();
        for price in [100, 200, 300] {
            books.push(staff.product(price, 5).await);
        }
        app.caught_up().await;
        let item = |product: Uuid| json!({"product_id": product});
        let first = reader.post("/wishlist/items", &item(books[0])).key("one").expect(201).await;
        assert_eq!(first.header("location"), Some("/api/v1/wishlist/items"));
        assert_eq!(first.id("product_id"), books[0]);
        let again = reader.post("/wishlist/items", &item(books[0])).expect(200).await;
        assert_eq!(again.body, first.body);
        for book in &books[1..] {
            let key = book.to_string();
            reader.post("/wishlist/items", &item(*book)).key(&key).expect(201).await;
        }
        let removed = format!("/wishlist/items/{}", books[1]);
        let gone = reader.call(Method::DELETE, &removed).key("off").expect(204).await;
        assert!(gone.header("etag").is_some() && gone.header("content-type").is_none());
        reader.call(Method::DELETE, &removed).expect(204).await;
        reader.call(Method::DELETE, &removed).key("off").expect(204).await;
        let replayed = reader.post("/wishlist/items", &item(books[0])).key("one").expect(201).await;
        assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
        assert_eq!((&replayed.body, replayed.header("etag")), (&first.body, first.header("etag")));
        let reused = reader.post("/wishlist/items", &item(books[2])).key("one").expect(422).await;
        assert_eq!(reused.problem(), "idempotency-key-reused");
        let stale = reader.post("/wishlist/items", &item(books[1])).header("if-match", "\"1\"");
        stale.expect(412).await;

        let price = json!({"price": {"amount": 250, "currency": "GBP"}});
        staff.patch(&format!("/products/{}", books[2]), &price).expect(200).await;
        staff.call(Method::DELETE, &format!("/products/{}", books[0])).expect(200).await;
        app.caught_up().await;
        let token = gone.header("log-position").unwrap();
        let shown = list(&reader, token, "").await;
        assert_eq!(products(&shown), [books[2], books[0]]);
        assert_eq!(shown["items"][0]["price"]["amount"], 250);
        assert_eq!(shown["items"][0]["available"], 5);
        assert_eq!(shown["items"][1]["discontinued"], true);
        let page = list(&reader, token, "?limit=1").await;
        let rest = format!("?limit=1&cursor={}", page["next_cursor"].as_str().unwrap());
        let rest = list(&reader, token, &rest).await;
        assert_eq!((products(&page), products(&rest)), (vec![books[2]], vec![books[0]]));
        assert_eq!(rest["next_cursor"], Value::Null);
        refusals(app, &reader, &books).await;
    }

    async fn refusals(app: &TestApp, reader: &Api, books: &[Uuid]) {
        let item = |product: Uuid| json!({"product_id": product});
        // A discontinued product can stay on the list but cannot be added. A product that is on the
        // list can be added again.
        reader.post("/wishlist/items", &item(books[0])).expect(200).await;
        reader.call(Method::DELETE, &format!("/wishlist/items/{}", books[0])).expect(204).await;
        for product in [books[0], Uuid::nil()] {
            let refused = reader.post("/wishlist/items", &item(product)).expect(404).await;
            assert_eq!(refused.problem(), "product-not-found");
            assert_eq!(refused.id("product_id"), product);
        }
        // A repeated key gets the first answer, even if the product was discontinued or removed
        // since.
        for (product, key) in [(books[0], "one"), (books[2], &*books[2].to_string())] {
            let path = product.to_string();
            app.staff.call(Method::DELETE, &format!("/products/{path}")).expect(200).await;
            reader.call(Method::DELETE, &format!("/wishlist/items/{path}")).expect(204).await;
            let again = reader.post("/wishlist/items", &item(product)).key(key).expect(201).await;
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            assert_eq!(again.id("product_id"), product);
            let other = reader.post("/wishlist/items", &item(Uuid::nil())).key(key).expect(422);
            assert_eq!(other.await.problem(), "idempotency-key-reused");
        }
        let other = app.staff.customer().await;
        let other = app.caller(Role::Customer, &other.to_string());
        let empty = other.get("/wishlist/items").expect(200).await.body;
        assert_eq!(empty["items"], json!([]));
        let stranger = app.caller(Role::Customer, &Uuid::nil().to_string());
        let refused = stranger.post("/wishlist/items", &item(books[1])).expect(404).await;
        assert_eq!(refused.problem(), "customer-not-found");
        app.staff.get("/wishlist/items").expect(403).await;
        app.staff.post("/wishlist/items", &item(books[1])).expect(403).await;
        app.staff.call(Method::DELETE, &format!("/wishlist/items/{}", books[1])).expect(403).await;
        app.staff.anonymous().get("/wishlist/items").expect(401).await;
        let cursor = reader.get("/wishlist/items?cursor=nonsense").expect(400).await;
        assert_eq!(cursor.problem(), "invalid-parameter");
    }
}
