//! Access control: every operation of the API is called by every kind of caller.

use crate::{
    app::{TestApp, ground},
    client::{Api, order},
};
use orderlog::{auth::Role, config::LogChoice};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The expected statuses: without a token, for another customer, for the customer concerned, for
/// staff, for an admin.
type Answers = [u16; 5];

const ANYONE: Answers = [200; 5];
const STAFF: Answers = [401, 403, 403, 200, 200];
const ADMIN: Answers = [401, 403, 403, 403, 200];
/// Another customer's profile is forbidden, because its path contains the customer's id.
const SELF: Answers = [401, 403, 200, 200, 200];
/// Another customer's order is not found.
const OWN: Answers = [401, 404, 200, 200, 200];

/// Each operation with a body and the expected statuses. An operation that is missing here fails
/// the test.
fn table(things: &Things) -> Vec<(&'static str, Value, Answers)> {
    let Things { reader, product, .. } = things;
    let name = json!({ "name": "Another book", "price": { "amount": 1, "currency": "GBP" } });
    let stock = json!({ "quantity": 1, "reason": "received" });
    let wish = json!({ "product_id": product });
    let moved = json!({ "status": "processing" });
    vec![
        ("GET /healthz", Value::Null, ANYONE),
        ("GET /readyz", Value::Null, ANYONE),
        ("GET /metrics", Value::Null, ANYONE),
        // A registration without an address. A caller that is allowed to register gets 400.
        ("POST /api/v1/customers", json!({}), [400; 5]),
        ("GET /api/v1/customers?email=a@example.org", Value::Null, [401, 403, 403, 404, 404]),
        (
            "POST /api/v1/customers/lookup",
            json!({ "email": "a@example.org" }),
            [401, 403, 403, 404, 404],
        ),
        ("GET /api/v1/customers/{id}", Value::Null, SELF),
        ("PATCH /api/v1/customers/{id}", json!({ "first_name": "Bo" }), SELF),
        ("PATCH /api/v1/customers/{id}", json!({ "vip": true }), STAFF),
        ("GET /api/v1/customers/{id}/orders", Value::Null, SELF),
        ("GET /api/v1/products", Value::Null, ANYONE),
        ("POST /api/v1/products", name, [401, 403, 403, 201, 201]),
        ("GET /api/v1/products/{id}", Value::Null, ANYONE),
        ("PATCH /api/v1/products/{id}", json!({ "name": "A book" }), STAFF),
        ("POST /api/v1/products/{id}/stock", stock, STAFF),
        ("POST /api/v1/orders", order(*reader, &[(*product, 1)]), [401, 403, 201, 201, 201]),
        ("GET /api/v1/orders", Value::Null, [401, 200, 200, 200, 200]),
        ("GET /api/v1/orders?customer_id={reader}", Value::Null, SELF),
        ("GET /api/v1/orders/{id}", Value::Null, OWN),
        ("GET /api/v1/orders/{id}/history", Value::Null, OWN),
        ("GET /api/v1/orders/{id}/events", Value::Null, OWN),
        ("POST /api/v1/orders/{id}/events/ticket", json!({}), OWN),
        ("PATCH /api/v1/orders/{id}/status", moved, STAFF),
        ("POST /api/v1/orders/{id}/cancel", json!({}), OWN),
        ("GET /api/v1/search?q=book", Value::Null, ANYONE),
        ("GET /api/v1/reports/sales", Value::Null, STAFF),
        // A caller without a customer account has no wishlist.
        ("POST /api/v1/wishlist/items", wish, [401, 404, 201, 403, 403]),
        ("GET /api/v1/wishlist/items", Value::Null, [401, 200, 200, 403, 403]),
        ("DELETE /api/v1/wishlist/items/{product_id}", Value::Null, [401, 204, 204, 403, 403]),
        // No token gives access, because the sandbox gateway sends no notifications.
        ("POST /api/v1/payments/webhook", json!({}), [404; 5]),
        ("GET /api/v1/admin/parked", Value::Null, ADMIN),
        ("POST /api/v1/admin/parked/{stream}/retry", json!({}), [401, 403, 403, 403, 404]),
        ("GET /api/v1/admin/projections", Value::Null, ADMIN),
        ("POST /api/v1/admin/projections/{name}/pause", json!({}), [401, 403, 403, 403, 409]),
        ("POST /api/v1/admin/projections/{name}/resume", json!({}), [401, 403, 403, 403, 409]),
        ("POST /api/v1/admin/projections/{name}/rebuild", json!({}), [401, 403, 403, 403, 202]),
        ("POST /api/v1/admin/projections/{name}/accept", json!({}), [401, 403, 403, 403, 200]),
        ("POST /api/v1/admin/projections/{name}/rollback", json!({}), [401, 403, 403, 403, 409]),
        ("POST /api/v1/admin/projections/{name}/cancel", json!({}), [401, 403, 403, 403, 200]),
        ("POST /api/v1/admin/projections/{name}/drop", json!({}), [401, 403, 403, 403, 409]),
        ("GET /api/v1/admin/streams/{id}", Value::Null, ADMIN),
        // These operations remove the resources of the others, so they come last.
        ("DELETE /api/v1/products/{id}", Value::Null, STAFF),
        ("DELETE /api/v1/customers/{id}?confirm=open-orders", Value::Null, SELF),
    ]
}

/// The resources that the operations use.
struct Things {
    reader: Uuid,
    product: Uuid,
    order: Uuid,
}

impl Things {
    async fn make(staff: &Api) -> Self {
        let (reader, product) = (staff.customer().await, staff.product(1_000, 100).await);
        let placed = staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
        Self { reader, product, order: placed.id("order_id") }
    }

    /// The path with the ids of the resources.
    fn path(&self, template: &str) -> String {
        let id = match template {
            path if path.contains("/customers/") => self.reader.to_string(),
            path if path.contains("/products/") => self.product.to_string(),
            path if path.contains("/streams/") => format!("order-{}", self.order),
            _ => self.order.to_string(),
        };
        let reader = self.reader.to_string();
        template
            .replace("{id}", &id)
            .replace("{reader}", &reader)
            .replace("{name}", "orders")
            .replace("{product_id}", &self.product.to_string())
            .replace("{stream}", &format!("order-{}", self.order))
    }
}

async fn ask(api: &Api, method: &str, path: &str, body: &Value) -> u16 {
    let call = api.call(method.parse::<Method>().unwrap(), &format!("/{path}"));
    let call = if body.is_null() { call } else { call.json(body) };
    // The body of an event stream does not end, so only the status is read.
    call.open().await.status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_may_what_the_contract_says_and_no_more() {
    let app = TestApp::start(ground(LogChoice::Embedded).await).await;
    let document = app.staff.get("//openapi.json").expect(200).await.body;
    let mut missing = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            missing.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let things = Things::make(&app.staff).await;
    let reader = things.reader.to_string();
    let callers = |app: &TestApp| {
        let [customer, staff, admin] = [Role::Customer, Role::Staff, Role::Admin];
        [
            app.staff.anonymous(),
            app.caller(customer, &Uuid::now_v7().to_string()),
            app.caller(customer, &reader),
            app.caller(staff, "sam"),
            app.caller(admin, "amy"),
        ]
    };
    let mut wrong = Vec::new();
    for (line, body, expected) in table(&things) {
        let (method, template) = line.split_once(' ').unwrap();
        missing.remove(line.split('?').next().unwrap());
        let mut answered = Vec::new();
        for caller in callers(&app) {
            answered.push(ask(&caller, method, &things.path(template), &body).await);
        }
        if answered != expected {
            wrong.push(format!("{line} {body}: {answered:?} and not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    app.abandon().await;
}

/// The subject of a token gives no role, and a subject that is not a customer id owns nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_for_its_role_only() {
    let app = TestApp::start(ground(LogChoice::Embedded).await).await;
    let things = Things::make(&app.staff).await;
    let path = format!("/orders/{}", things.order);
    app.caller(Role::Customer, "no-uuid").get(&path).expect(403).await;
    app.caller(Role::Customer, &things.order.to_string()).get(&path).expect(404).await;
    app.caller(Role::Customer, &things.product.to_string()).get(&path).expect(404).await;
    app.finish().await;
}

/// With an address of their own, operations are not on the shop's, and the shop not on theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_can_have_an_address_of_their_own() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.operations_listen = Some(([127, 0, 0, 1], 0).into());
    let app = TestApp::start(ground).await;
    let admin = app.caller(Role::Admin, "amy");
    let token = app.running().sign(Role::Admin, None).unwrap().unwrap();
    let operations = format!("http://{}", app.running().operations_address());
    let operations = Api::new(operations, Some(token));
    for path in ["//healthz", "//readyz", "//metrics", "/admin/projections", "/admin/parked"] {
        operations.get(path).expect(200).await;
        assert_eq!(admin.get(path).expect(404).await.problem(), "not-found", "{path}");
    }
    for path in ["/products", "/orders", "//openapi.json", "//docs/"] {
        admin.get(path).expect(200).await;
        assert_eq!(operations.get(path).expect(404).await.problem(), "not-found", "{path}");
    }
    operations.anonymous().get("/admin/projections").expect(401).await;
    app.finish().await;
}
