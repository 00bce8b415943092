use super::*;
use crate::problem::Kind;
use serde_json::json;
use std::collections::BTreeSet;

/// Asserts that a value matches a schema of the document.
#[track_caller]
fn assert_fits(document: &Value, schema: &Value, value: &Value, of: &str) {
    let mut whole = schema.clone();
    whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    whole["components"] = json!({ "schemas": document["components"]["schemas"] });
    let options = jsonschema::options().should_validate_formats(true);
    let validator = options.build(&whole).unwrap_or_else(|error| panic!("{of}: {error}"));
    let faults: Vec<String> = validator
        .iter_errors(value)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(
        faults.is_empty(),
        "the example of {of} does not match its schema: {faults:?} in {value:#}"
    );
}

#[test]
fn the_document_is_the_one_checked_in() {
    crate::checked_in::assert_is("openapi.json", "openapi", &json().unwrap());
}

#[test]
fn every_reference_can_be_resolved() {
    let document = document();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    let mut names = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{method} {path} is not the only {name}");
        let members = operation.as_object().unwrap();
        assert!(members.values().all(|it| !it.is_null()), "{name} has an empty member");
    }
}

#[test]
fn every_body_has_an_example_that_matches_its_schema() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        let answers = operation["responses"].as_object().unwrap().iter();
        let answers = answers.map(|(status, answer)| (status.as_str(), &answer["content"]));
        let bodies = [("the request", &operation["requestBody"]["content"])];
        for (status, content) in bodies.into_iter().chain(answers) {
            for (media, content) in content.as_object().into_iter().flatten() {
                let of = format!("{method} {path}, {status}, {media}");
                let examples: Vec<&Value> = match &content["examples"] {
                    Value::Object(examples) => examples.values().collect(),
                    _ => vec![&content["example"]],
                };
                assert!(!examples.is_empty(), "{of} has no example");
                for example in examples {
                    let example = resolve(&document, example);
                    let value = example.get("value").unwrap_or(example);
                    assert!(!value.is_null(), "{of}: give its texts an `example`");
                    assert_fits(&document, &content["schema"], value, &of);
                }
            }
        }
    }
}

#[test]
fn every_parameter_and_header_has_an_example_that_matches_its_schema() {
    let document = document();
    let headers = document["components"]["headers"].as_object().unwrap();
    let shared = headers.iter().map(|(name, header)| (name.clone(), header));
    let own = operations(&document).flat_map(|(path, method, operation)| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let name = move |it: &Value| format!("{} of {method} {path}", it["name"]);
        let found = parameters.map(|it| resolve(&document, it));
        found.map(move |it| (name(it), it)).collect::<Vec<_>>()
    });
    for (of, parameter) in shared.chain(own) {
        assert!(parameter["description"].as_str().is_some_and(|it| !it.is_empty()), "{of}");
        let example = parameter.get("example").or_else(|| parameter["schema"].get("default"));
        assert_fits(&document, &parameter["schema"], example.unwrap_or(&Value::Null), &of);
    }
}

/// Tools that generate requests rely on the bounds.
#[test]
fn requests_have_bounds() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        // `Money` is what answers show; a request has a `Price`.
        if schema["additionalProperties"] != false || name == "Money" {
            assert!(!name.ends_with("Request"), "{name} accepts unknown members");
            continue;
        }
        for (member, property) in schema["properties"].as_object().unwrap() {
            let has = |keys: &[&str]| keys.iter().all(|key| property.get(key).is_some());
            let bounded = match property["type"].as_str().or(property["type"][0].as_str()) {
                Some("string") => has(&["maxLength"]) || has(&["format"]) || has(&["enum"]),
                Some("integer") => has(&["minimum", "maximum"]),
                Some("array") => has(&["maxItems"]),
                _ => true,
            };
            assert!(bounded, "{member} of {name} has no bounds");
        }
    }
}

#[test]
fn every_operation_names_the_role_it_requires() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        let ways = operation["security"].as_array();
        let ways = ways.unwrap_or_else(|| panic!("{method} {path} has no security(...)"));
        let open = ways.iter().any(|way| way == &json!({}));
        let role = ways[0]["bearer"][0].as_str();
        assert!(open || role.is_some_and(|role| role.parse::<crate::auth::Role>().is_ok()));
    }
}

#[test]
fn every_error_names_kinds_of_its_status() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let examples = answer["content"]["application/problem+json"]["examples"].as_object();
            let kinds = examples.into_iter().flat_map(|examples| examples.keys());
            let kinds = kinds.filter_map(|name| Kind::ALL.iter().find(|it| it.name() == name));
            let statuses: Vec<_> = kinds.map(|kind| kind.status().as_str().to_owned()).collect();
            let fits = statuses.iter().all(|it| it == status);
            let is_error = status.starts_with(['4', '5']);
            assert_eq!(is_error, !statuses.is_empty(), "{method} {path}: {status}");
            assert!(fits, "{method} {path}: {status} names a problem of another status");
        }
    }
}

/// The schema `Problem` has the members of all kinds.
#[test]
fn every_member_of_a_problem_is_described() {
    let document = document();
    let described = document["components"]["schemas"]["Problem"]["properties"].as_object().unwrap();
    for kind in Kind::ALL {
        let example = crate::problem::example(*kind, "/");
        for name in example.as_object().unwrap().keys() {
            assert!(described.contains_key(name), "{name} of {}", kind.name());
        }
    }
}

/// Tools use summaries as names.
#[test]
fn a_summary_is_one_line() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        let summary = operation["summary"].as_str().unwrap_or_default();
        assert!((1..=100).contains(&summary.len()), "{method} {path}: {summary}");
        assert!(!summary.contains('\n'), "{method} {path}: {summary}");
    }
}
