//! The topic of events as an AsyncAPI 3.0 document, for those who read it with tools of their own.

use crate::openapi;
use axum::Json;
use events::{
    StreamKind,
    json_schema::{self, EventSchema},
};
use serde_json::{Map, Value, json};

/// `GET /asyncapi.json`.
pub async fn serve() -> Json<Value> {
    Json(document())
}

/// The document.
pub fn document() -> Value {
    let mut messages: Map<String, Value> =
        json_schema::all().iter().map(|event| (name(event), message(event))).collect();
    messages.insert("WriterClaimed".to_owned(), writer("WriterClaimed", CLAIM));
    messages.insert("WriterBeat".to_owned(), writer("WriterBeat", BEAT));
    let reference =
        |name: &String| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") }));
    let references: Map<String, Value> = messages.keys().map(reference).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "orderlog events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": { "kafka": {
            "host": "{bootstrap}",
            "protocol": "kafka",
            "description": "Apache Kafka 4.x",
            "variables": { "bootstrap": {
                "default": "localhost:9092", "description": "`KAFKA_BOOTSTRAP_SERVERS`",
            }},
        }},
        "channels": { "events": channel(&references) },
        "operations": { "appendEvents": {
            "action": "send",
            "channel": { "$ref": "#/channels/events" },
            "summary": "Each partition has one writer, which appends in transactions.",
        }},
        "components": {
            "messages": messages,
            "messageTraits": { "record": record() },
        },
    })
}

const ABOUT: &str = "Everything that happens in the shop, in order, for ever. Read it with \
    `isolation.level=read_committed`. The events of one stream (`ce_subject`) are in one \
    partition, in the order of their versions. Events are CloudEvents 1.0 in binary mode. What is \
    personal in them is sealed with a key per customer that is not in the topic. Nobody but the \
    program may write here.";

const CLAIM: &str = "Bookkeeping: a writer takes the partition over. To be passed over.";
const BEAT: &str = "Bookkeeping: the writer of the partition is still it. To be passed over.";

const PACKED: &str = "What rides along, packed: big-endian, 107 bytes. 0: layout, 1. 1: stream \
    version, u64, contiguous from 1. 9: schema version, u16: the version in the message's name. \
    11: command id, UUID. 27: request fingerprint, 16 bytes. 43: correlation id, UUID. 59: \
    causation id, UUID. 75: term of the writer, u64. 83: batch id, UUID. 99: index in the batch, \
    u32. 103: length of the batch, u32. A batch counts when it is complete: an incomplete one that \
    another follows is void, and so is one whose term is lower than one before it.";

fn name(event: &EventSchema) -> String {
    format!("{}.v{}", event.event_type, event.version)
}

fn channel(messages: &Map<String, Value>) -> Value {
    json!({
        "address": "orderlog.events",
        "title": "The event log",
        "description": "`KAFKA_TOPIC`; the number of partitions (`LOG_PARTITIONS`) is fixed when \
                        it is made. The partition of a record is the positive murmur2 hash of its \
                        key modulo that number: Kafka's default.",
        "messages": messages,
        "bindings": { "kafka": {
            "topic": "orderlog.events",
            "partitions": 12,
            "topicConfiguration": {
                "cleanup.policy": ["delete"], "retention.ms": -1, "retention.bytes": -1,
            },
            "bindingVersion": "0.5.0",
        }},
    })
}

/// What all records have in common.
fn record() -> Value {
    json!({
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": [
                "ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time",
                "content-type", "ol",
            ],
            "properties": {
                "ce_specversion": { "type": "string", "const": "1.0" },
                "ce_id": {
                    "type": "string", "format": "uuid", "description": "The event's own id",
                },
                "ce_type": { "type": "string" },
                "ce_source": { "type": "string", "const": "/orderlog" },
                "ce_subject": { "type": "string", "description": "The stream, as in the key" },
                "ce_time": {
                    "type": "string", "format": "date-time",
                    "description": "When it was decided; never runs backwards in a partition",
                },
                "content-type": { "type": "string", "const": "application/json" },
                "ol": { "type": "string", "contentEncoding": "binary", "description": PACKED },
                "traceparent": {
                    "type": "string",
                    "description": "W3C trace context of the request, if there is one",
                },
            },
        },
    })
}

fn message(event: &EventSchema) -> Value {
    let text = event.schema["description"].as_str().unwrap_or_default();
    let mut payload = event.schema.clone();
    if let Some(members) = payload.as_object_mut() {
        members.remove("$schema");
    }
    let about = format!("{} of {} {}", event.event_type, article(event.kind), event.kind.as_str());
    json!({
        "name": event.event_type,
        "title": format!("{}, version {}", event.event_type, event.version),
        "summary": text.lines().next().unwrap_or(&about),
        "traits": [{ "$ref": "#/components/messageTraits/record" }],
        "headers": headers(event.event_type, event.kind),
        "payload": payload,
        "bindings": key(event.kind),
    })
}

fn article(kind: StreamKind) -> &'static str {
    if kind.as_str().starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn writer(event_type: &str, text: &str) -> Value {
    json!({
        "name": event_type,
        "title": event_type,
        "summary": text,
        "traits": [{ "$ref": "#/components/messageTraits/record" }],
        "headers": headers(event_type, StreamKind::Writer),
        "payload": { "type": "object" },
        "bindings": key(StreamKind::Writer),
    })
}

fn stream_pattern(kind: StreamKind) -> String {
    format!("^{}-[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$", kind.as_str())
}

fn headers(event_type: &str, kind: StreamKind) -> Value {
    json!({ "type": "object", "properties": {
        "ce_type": { "const": event_type },
        "ce_subject": { "pattern": stream_pattern(kind) },
    }})
}

fn key(kind: StreamKind) -> Value {
    let key = json!({
        "type": "string", "pattern": stream_pattern(kind),
        "description": "The stream: `<kind>-<uuid>`",
    });
    json!({ "kafka": { "key": key, "bindingVersion": "0.5.0" } })
}

/// The document as JSON, indented.
///
/// # Errors
/// Never: it serialises.
pub fn json() -> serde_json::Result<String> {
    openapi::in_order(document())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_one_checked_in() {
        crate::checked_in::assert_is("asyncapi.json", "asyncapi", &json().unwrap());
    }

    #[test]
    fn every_version_of_every_event_is_a_message() {
        let document = document();
        let messages = document["channels"]["events"]["messages"].as_object().unwrap();
        for (event_type, today) in StreamKind::ALL.into_iter().flat_map(events::Event::types) {
            for version in 1..=*today {
                let name = format!("{event_type}.v{version}");
                assert!(messages.contains_key(&name), "{name}");
                let payload = &document["components"]["messages"][&name]["payload"];
                assert_eq!(payload["title"], *event_type);
            }
        }
    }
}
