//! The topic of events as an AsyncAPI 3.0 document, for programs that read the topic themselves.

use crate::{openapi, pages::Text};
use axum::{http::HeaderMap, response::Response};
use events::{
    StreamKind,
    json_schema::{self, EventSchema},
};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// `GET /asyncapi.json`.
pub async fn serve(headers: HeaderMap) -> Response {
    static TEXT: LazyLock<Text> = LazyLock::new(|| document().to_string().into());
    TEXT.clone().answer(&headers, "application/json")
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

const ABOUT: &str = "Every event of the shop, in order; events are never deleted. Read the topic \
    with `isolation.level=read_committed`. The events of one stream (`ce_subject`) are in one \
    partition, in the order of their versions. Events are CloudEvents 1.0 in binary mode. Personal \
    data is encrypted with a key per customer that is not in the topic. Only orderlog may write to \
    the topic.";

const CLAIM: &str = "Bookkeeping: a writer takes over the partition. Readers ignore it.";
const BEAT: &str = "Bookkeeping: the writer still owns the partition. Readers ignore it.";

const PACKED: &str = "Metadata, packed: big-endian, 107 bytes. Offset 0: layout, 1. 1: stream \
    version, u64, contiguous from 1. 9: schema version, u16, as in the message's name. 11: command \
    id, UUID. 27: request fingerprint, 16 bytes. 43: correlation id, UUID. 59: causation id, UUID. \
    75: term of the writer, u64. 83: batch id, UUID. 99: index in the batch, u32. 103: length of \
    the batch, u32. Only complete batches count. A batch is void if another batch follows before \
    it is complete, or if its term is lower than an earlier one.";

fn name(event: &EventSchema) -> String {
    format!("{}.v{}", event.event_type, event.version)
}

fn channel(messages: &Map<String, Value>) -> Value {
    json!({
        "address": "orderlog.events",
        "title": "The event log",
        "description": "The topic `KAFKA_TOPIC`. Its number of partitions (`LOG_PARTITIONS`) is \
                        fixed when it is created. The partition of a record is the positive \
                        murmur2 hash of its key modulo that number, as Kafka computes it by \
                        default.",
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

/// The headers that all records have.
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
                    "type": "string", "format": "uuid", "description": "Id of the event",
                },
                "ce_type": { "type": "string" },
                "ce_source": { "type": "string", "const": "/orderlog" },
                "ce_subject": { "type": "string", "description": "Id of the stream, as in the key" },
                "ce_time": {
                    "type": "string", "format": "date-time",
                    "description": "Time of the event; never goes back within a partition",
                },
                "content-type": { "type": "string", "const": "application/json" },
                "ol": { "type": "string", "contentEncoding": "binary", "description": PACKED },
                "traceparent": {
                    "type": "string",
                    "description": "W3C trace context of the request, if it has one",
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
        "description": "Id of the stream: `<kind>-<uuid>`",
    });
    json!({ "kafka": { "key": key, "bindingVersion": "0.5.0" } })
}

/// The document as JSON, indented.
///
/// # Errors
/// Never, because the document always serialises.
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
