//! JSON Schemas (draft 7) of the events, one file per event version in `schemas/`.
//!
//! The schemas of current versions are generated from the event types, and a test compares them
//! with the files. Older versions exist as files only and never change.

use crate::{StreamKind, customer, email, order, product, wishlist};
use include_dir::{Dir, include_dir};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/schemas");

/// The schema of one version of one event.
#[derive(Clone, Debug)]
pub struct EventSchema {
    /// The kind of stream that holds the event.
    pub kind: StreamKind,
    /// The wire name (`ce_type`).
    pub event_type: &'static str,
    /// The schema version.
    pub version: u16,
    /// The schema; it contains no references to other documents.
    pub schema: Value,
}

impl EventSchema {
    /// The file name of the schema.
    pub fn file(&self) -> String {
        file(self.event_type, self.version)
    }
}

fn file(event_type: &str, version: u16) -> String {
    format!("{event_type}.v{version}.json")
}

/// Generates the schemas of the current versions from the event types.
pub fn current() -> Vec<EventSchema> {
    let kinds = [
        (StreamKind::Product, product::Event::json_schemas()),
        (StreamKind::Order, order::Event::json_schemas()),
        (StreamKind::Customer, customer::Event::json_schemas()),
        (StreamKind::Email, email::Event::json_schemas()),
        (StreamKind::Wishlist, wishlist::Event::json_schemas()),
    ];
    let of = |(kind, schemas): (StreamKind, Vec<(&'static str, u16, Value)>)| {
        schemas.into_iter().map(move |(event_type, version, schema)| EventSchema {
            kind,
            event_type,
            version,
            schema,
        })
    };
    kinds.into_iter().flat_map(of).collect()
}

/// The checked-in schemas of every version ever written; for each event the oldest version first.
pub fn all() -> Vec<EventSchema> {
    let versions = current().into_iter().flat_map(|today| {
        (1..=today.version).map(move |version| EventSchema { version, ..today.clone() })
    });
    let checked_in = versions.filter_map(|event| {
        let text = FILES.get_file(event.file())?;
        Some(EventSchema { schema: serde_json::from_slice(text.contents()).ok()?, ..event })
    });
    checked_in.collect()
}

/// Generates the schema of the JSON that `T` is written as.
pub(crate) fn of<T: JsonSchema>(event_type: &str) -> Value {
    let settings = SchemaSettings::draft07().for_serialize().with(|settings| {
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    schema["title"] = json!(event_type);
    close(&mut schema);
    schema
}

/// Forbids additional members in every object: a new member needs a new schema version.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("type") == Some(&json!("object")) {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
