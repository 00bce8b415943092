//! Rules for new operations that no compiler checks: each failure says the rule and where it is explained.

use orderlog::openapi;
use serde_json::json;
use std::{fs, path::Path};

/// The fuzzer sends the cursor of one list to another, and must know where a 400 is the right answer.
#[test]
fn the_fuzzer_knows_every_list_that_takes_a_cursor() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/schemathesis.toml");
    let config = fs::read_to_string(file).unwrap();
    let section = config.split("[[operations]]").find(|section| {
        section.contains("include-operation-id-regex") && section.contains("list_")
    });
    let pattern = section.unwrap().split('"').nth(1).unwrap();
    let expected = jsonschema::validator_for(&json!({ "pattern": pattern })).unwrap();
    let document = openapi::document();
    for (path, method, operation) in openapi::operations(&document) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let mut parameters = parameters.map(|it| openapi::resolve(&document, it));
        if parameters.any(|it| it["name"] == "cursor") {
            let id = &operation["operationId"];
            assert!(
                expected.is_valid(id),
                "{method} {path} takes a cursor: add {id} to the first \
                 `include-operation-id-regex` of .ci/schemathesis.toml (see docs/extending.md, \
                 \"Rules that no compiler checks\")"
            );
        }
    }
}
