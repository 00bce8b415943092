//! Calls every operation of the OpenAPI document with the document's own example. Status, headers
//! and body of the answer must match the document.

use crate::{
    app::TestApp,
    client::{Answer, Api, order},
};
use orderlog::{auth::Role, openapi};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

crate::on_both_logs!(
    every_operation_answers_as_documented,
    every_operation_asks_for_the_role_that_it_names,
);

/// Operations whose example may be refused here, and with which status. There may be no other
/// version of a read model, no rebuild in progress and no parked stream, and the sandbox gateway
/// sends no notifications.
const REFUSED: [(&str, u16); 8] = [
    ("accept_rebuild", 409),
    ("roll_back_projection", 409),
    ("cancel_rebuild", 409),
    ("pause_rebuild", 409),
    ("resume_rebuild", 409),
    ("drop_old_versions", 409),
    ("retry_parked", 404),
    ("payment_webhook", 404),
];

/// The operation whose answer does not end.
const ENDLESS: &str = "listen_to_order";

/// Maps the ids in the examples to resources of this shop. Each operation gets unused resources.
struct World {
    customer: Uuid,
    /// The texts in the examples and their replacements.
    names: Vec<(String, String)>,
}

impl World {
    async fn new(app: &TestApp) -> Self {
        let (customer, product) = (app.staff.customer().await, app.staff.product(2_500, 10).await);
        let body = order(customer, &[(product, 2)]);
        let placed = app.staff.post("/orders", &body).expect(201).await.id("order_id");
        let email = |name: &str| format!("{name}-{}@example.org", Uuid::now_v7().simple());
        let profile = app.staff.get(&format!("/customers/{customer}")).expect(200).await.body;
        let names = [
            (openapi::example_id("customers"), customer.to_string()),
            (openapi::example_id("products"), product.to_string()),
            (openapi::example_id("orders"), placed.to_string()),
            ("email=ann@example.org", format!("email={}", profile["email"].as_str().unwrap())),
            ("ann.lee@example.org", profile["email"].as_str().unwrap().to_owned()),
            ("ann@example.org", email("ann")),
            ("ann@lee.example", email("lee")),
        ];
        Self { customer, names: names.map(|(old, new)| (old.to_owned(), new)).into() }
    }

    /// A text of the document with the replacements applied.
    fn here(&self, text: &str) -> String {
        let put = |text: String, (old, new): &(String, String)| text.replace(old.as_str(), new);
        self.names.iter().fold(text.to_owned(), put)
    }
}

/// An operation of the document.
struct Documented<'a> {
    document: &'a Value,
    path: &'a str,
    method: &'a str,
    operation: &'a Value,
}

impl Documented<'_> {
    fn caller(&self, app: &TestApp, world: &World) -> Api {
        match self.operation["security"][0]["bearer"][0].as_str() {
            Some("customer") => app.caller(Role::Customer, &world.customer.to_string()),
            Some("admin") => app.caller(Role::Admin, "operator"),
            Some(_) => app.staff.clone(),
            None => app.staff.anonymous(),
        }
    }

    /// The path with the example of each parameter, and the query parameters without which the
    /// request is refused: whoever is erased here has an order to be shipped.
    fn url(&self, world: &World) -> String {
        let mut path = self.path.to_owned();
        let mut query = Vec::new();
        let parameters = self.operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.map(|it| openapi::resolve(self.document, it)) {
            let name = parameter["name"].as_str().unwrap();
            let example = parameter["example"].as_str().unwrap_or_default();
            match parameter["in"].as_str() {
                Some("path") => path = path.replace(&format!("{{{name}}}"), example),
                Some("query") if parameter["required"] == true || name == "confirm" => {
                    query.push(format!("{name}={example}"));
                }
                _ => {}
            }
        }
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        world.here(&format!("/{path}{query}"))
    }

    async fn call(&self, api: &Api, world: &World) -> Answer {
        let method = Method::from_bytes(self.method.to_uppercase().as_bytes()).unwrap();
        let call = api.call(method, &self.url(world));
        let content = self.operation["requestBody"]["content"].as_object();
        let Some((media, content)) = content.and_then(|content| content.iter().next()) else {
            return call.send().await;
        };
        call.raw(media, world.here(&content["example"].to_string())).send().await
    }

    #[track_caller]
    fn check(&self, answer: &Answer) {
        let id = self.operation["operationId"].as_str().unwrap();
        let refused = REFUSED.iter().find(|(name, _)| *name == id).map(|(_, status)| *status);
        let succeeds = (200..300).contains(&answer.status);
        assert!(succeeds || refused == Some(answer.status), "{id}: {answer:?}");
        let documented = &self.operation["responses"][answer.status.to_string()];
        assert!(documented.is_object(), "{id} answers {}", answer.status);
        for (name, header) in documented["headers"].as_object().into_iter().flatten() {
            let header = openapi::resolve(self.document, header);
            match answer.header(name) {
                Some(value) if header["schema"]["type"] == "string" => {
                    self.fits(&header["schema"], &json!(value), &format!("{id}, {name}"));
                }
                Some(_) => {}
                None => assert!(header["required"] != true, "{id} has no {name}"),
            }
        }
        let Some(content) = documented["content"].as_object() else {
            assert_eq!(answer.body, json!(""), "{id}");
            return;
        };
        let media = answer.header("content-type").unwrap().split(';').next().unwrap();
        let content = content.get(media).unwrap_or_else(|| panic!("{id} answers {media}"));
        self.fits(&content["schema"], &answer.body, id);
    }

    #[track_caller]
    fn fits(&self, schema: &Value, value: &Value, of: &str) {
        let mut whole = schema.clone();
        whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        whole["components"] = json!({ "schemas": self.document["components"]["schemas"] });
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options.build(&whole).unwrap();
        let faults: Vec<_> = validator.iter_errors(value).map(|it| it.to_string()).collect();
        assert!(faults.is_empty(), "{of}: {faults:?} in {value}");
    }
}

mod scenario {
    use super::*;

    pub async fn every_operation_answers_as_documented(app: &TestApp) {
        let document = app.staff.get("//openapi.json").expect(200).await.body;
        for (path, method, operation) in openapi::operations(&document) {
            let documented = Documented { document: &document, path, method, operation };
            if operation["operationId"] == ENDLESS {
                continue;
            }
            let world = World::new(app).await;
            let answer = documented.call(&documented.caller(app, &world), &world).await;
            documented.check(&answer);
        }
    }

    pub async fn every_operation_asks_for_the_role_that_it_names(app: &TestApp) {
        let document = app.staff.get("//openapi.json").expect(200).await.body;
        let world = World::new(app).await;
        let (nobody, customer) = (app.staff.anonymous(), world.customer.to_string());
        let customer = app.caller(Role::Customer, &customer);
        for (path, method, operation) in openapi::operations(&document) {
            let documented = Documented { document: &document, path, method, operation };
            let id = &operation["operationId"];
            let refused = async |api: &Api, status| {
                let answer = documented.call(api, &world).await;
                assert_eq!(answer.status, status, "{id}: {answer:?}");
            };
            match operation["security"][0]["bearer"][0].as_str() {
                Some("customer") => refused(&nobody, 401).await,
                Some("staff") => {
                    refused(&nobody, 401).await;
                    refused(&customer, 403).await;
                }
                Some(_) => {
                    refused(&nobody, 401).await;
                    refused(&app.staff, 403).await;
                }
                None => {}
            }
        }
    }
}
