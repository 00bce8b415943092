//! Texts that people send: no text of any command may hold the number of a payment card, or
//! characters that are not seen.

use crate::{client::Api, on_both_logs};
use orderlog::{auth::Role, openapi};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

on_both_logs!(
    no_text_of_any_command_may_hold_a_card_number_or_what_is_not_seen,
    a_text_is_kept_without_the_white_space_around_it_by_every_route,
);

/// A body that fits the schema, with the pointers to its free texts.
fn sample(document: &Value, schema: &Value, at: &str, texts: &mut Vec<String>) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap();
        return sample(document, schema, at, texts);
    }
    let either =
        schema["oneOf"].as_array().and_then(|any| any.iter().find(|it| it["type"] != "null"));
    if let Some(either) = either {
        return sample(document, either, at, texts);
    }
    let kind = schema["type"].as_str().or(schema["type"][0].as_str()).unwrap();
    match kind {
        "object" => {
            let members = schema["properties"].as_object().into_iter().flatten();
            let member = |(name, schema): (&String, &Value)| {
                (name.clone(), sample(document, schema, &format!("{at}/{name}"), texts))
            };
            Value::Object(members.map(member).collect())
        }
        "array" => json!([sample(document, &schema["items"], &format!("{at}/0"), texts)]),
        "string" if schema["format"] == "uuid" => json!(Uuid::now_v7()),
        "string" => {
            texts.push(at.to_owned());
            json!("x")
        }
        "integer" => json!(1),
        "boolean" => json!(true),
        other => panic!("{at}: {other}"),
    }
}

mod scenario {
    use super::*;
    use crate::app::TestApp;

    pub async fn no_text_of_any_command_may_hold_a_card_number_or_what_is_not_seen(app: &TestApp) {
        let document = serde_json::to_value(openapi::document()).unwrap();
        let admin = app.caller(Role::Admin, "operator");
        let before = app.events_in_log().await;
        let mut tried = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let schema = operation.pointer("/requestBody/content/application~1json/schema");
                let Some(schema) = schema.filter(|_| !path.ends_with("/webhook")) else { continue };
                let mut texts = Vec::new();
                let body = sample(&document, schema, "", &mut texts);
                let method: Method = method.to_uppercase().parse().unwrap();
                let path = path.trim_start_matches("/api/v1");
                let path = path.replace("{id}", &Uuid::now_v7().to_string());
                for (pointer, text) in texts.iter().flat_map(|at| {
                    ["a 4242-4242 4242.4242", "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "a\u{202e}b", "a\u{200b}"]
                        .map(|it| (at, it))
                }) {
                    let mut body = body.clone();
                    *body.pointer_mut(pointer).unwrap() = text.into();
                    let answer = admin.call(method.clone(), &path).json(&body).expect(422).await;
                    let told = answer.body.to_string();
                    assert!(told.contains(&format!("\"pointer\":\"{pointer}\"")), "{path} {told}");
                    assert!(!told.contains("4242") && !told.contains("٤٢"), "{told}");
                    tried += 1;
                }
            }
        }
        assert!(tried >= 4 * 15, "{tried}");
        assert_eq!(app.events_in_log().await, before, "something was appended");
    }

    pub async fn a_text_is_kept_without_the_white_space_around_it_by_every_route(app: &TestApp) {
        let names = json!({"first_name": " \t\u{3000}Ann\n", "last_name": "\u{a0}Lee "});
        let mut person = names.clone();
        person["email"] = json!(" ann@example.org\n");
        let made = app.staff.anonymous().post("/customers", &person).expect(201).await;
        for (member, kept) in
            [("first_name", "Ann"), ("last_name", "Lee"), ("email", "ann@example.org")]
        {
            assert_eq!(made.body[member], kept);
        }
        let path = format!("/customers/{}", made.id("customer_id"));
        let same = app.staff.patch(&path, &names).expect(200).await;
        assert_eq!(same.header("etag"), made.header("etag"), "nothing has changed");

        let texts =
            json!({"name": " A book ", "category": "\u{a0}books\n", "description": "\n1\n2\n"});
        let mut product = texts.clone();
        product["price"] = json!({"amount": 1, "currency": "GBP"});
        let made = app.staff.post("/products", &product).expect(201).await;
        for (member, kept) in [("name", "A book"), ("category", "books"), ("description", "1\n2")] {
            assert_eq!(made.body[member], kept);
        }
        let path = format!("/products/{}", made.id("product_id"));
        let same = app.staff.patch(&path, &texts).expect(200).await;
        assert_eq!(same.header("etag"), made.header("etag"), "nothing has changed");
        refused_names(&app.staff).await;
    }

    /// A name is in letters to people, so it is one line and no link.
    async fn refused_names(staff: &Api) {
        for name in
            ["Ann\n\nYour parcel is held", "http://evil.example", "\u{2800}", "\u{200b}", "A\u{1b}"]
        {
            for (path, body, pointer) in [
                (
                    "/customers",
                    json!({"email": "a@example.org", "first_name": name, "last_name": "B"}),
                    "/first_name",
                ),
                (
                    "/products",
                    json!({"name": name, "price": {"amount": 1, "currency": "GBP"}}),
                    "/name",
                ),
            ] {
                let refused = staff.post(path, &body).expect(422).await;
                assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{name:?}");
            }
        }
    }
}
