//! Converts events of old schema versions to the current version.
//!
//! An upcaster is a pure function that converts the JSON of an event from one schema version to the
//! next. A chain of upcasters converts any version ever written to the current one. Events of the
//! current version skip this module.

use crate::Timestamp;
use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::Value;

/// One step: converts the JSON of `event_type` from schema version `from` to `from + 1`.
pub struct Upcaster {
    /// The wire name of the event.
    pub event_type: &'static str,
    /// The schema version that it converts.
    pub from: u16,
    /// The conversion.
    pub step: fn(Value) -> Value,
}

/// All steps. A new schema version adds a line here and a golden file, and removes nothing.
pub const UPCASTERS: &[Upcaster] = &[
    Upcaster { event_type: "OrderPlaced", from: 1, step: opens_until_an_hour_after_its_deadline },
    Upcaster { event_type: "OrderConfirmed", from: 1, step: owes_no_mail },
    Upcaster { event_type: "OrderShipped", from: 1, step: owes_no_mail },
    Upcaster { event_type: "OrderCancelled", from: 1, step: owes_no_mail },
    // Version 2 knows more reasons.
    Upcaster { event_type: "OrderRejected", from: 1, step: |body| body },
    Upcaster { event_type: "OrderCancelled", from: 2, step: gives_its_reason_in_plain },
    Upcaster { event_type: "OrderClosed", from: 1, step: |body| with_false(body, "declined") },
    Upcaster {
        event_type: "CustomerRegistered",
        from: 1,
        step: |body| with_false(body, "returning"),
    },
    Upcaster { event_type: "EmailChanged", from: 1, step: |body| with_false(body, "returning") },
    Upcaster { event_type: "EmailReleased", from: 1, step: |body| with_false(body, "ordered") },
];

/// The end of an order of version 1 was made from its deadline, as if the wall clock and log time
/// were one.
fn opens_until_an_hour_after_its_deadline(mut body: Value) -> Value {
    if let Value::Object(members) = &mut body {
        let deadline = members.get("deadline").and_then(|it| Timestamp::deserialize(it).ok());
        let not_after = deadline.and_then(|it| it.checked_add_signed(TimeDelta::hours(1)));
        members.insert("not_after".to_owned(), serde_json::json!(not_after));
    }
    body
}

/// The shop owes no e-mail for events of version 1.
fn owes_no_mail(body: Value) -> Value {
    with_false(body, "mail")
}

/// The reason was not sealed before version 3.
fn gives_its_reason_in_plain(mut body: Value) -> Value {
    if let Value::Object(members) = &mut body
        && let Some(reason) = members.remove("reason")
    {
        members.insert("plain_reason".to_owned(), reason);
    }
    body
}

/// Adds a member that says what nobody recorded then.
fn with_false(mut body: Value, member: &str) -> Value {
    if let Value::Object(members) = &mut body {
        members.insert(member.to_owned(), false.into());
    }
    body
}

/// Converts `body` from version `from` to version `to`; `None` if a step is missing or `from` is
/// newer than `to`.
pub fn upcast(
    steps: &[Upcaster],
    event_type: &str,
    from: u16,
    to: u16,
    body: Value,
) -> Option<Value> {
    if from == 0 || from > to {
        return None;
    }
    (from..to).try_fold(body, |body, version| {
        let upcaster =
            steps.iter().find(|step| step.event_type == event_type && step.from == version)?;
        Some((upcaster.step)(body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STEPS: &[Upcaster] = &[
        Upcaster {
            event_type: "ParcelSent",
            from: 2,
            step: |body| json!({ "weight_g": body["grams"] }),
        },
        Upcaster {
            event_type: "ParcelSent",
            from: 1,
            step: |body| json!({ "grams": body["kilograms"].as_i64().map(|kilograms| kilograms * 1000) }),
        },
    ];

    #[test]
    fn an_order_of_version_1_may_be_opened_until_an_hour_after_its_deadline() {
        let body = json!({ "deadline": "2026-03-04T05:06:07.123456Z" });
        let read = upcast(UPCASTERS, "OrderPlaced", 1, 2, body).unwrap();
        assert_eq!(read["not_after"], "2026-03-04T06:06:07.123456Z");
    }

    #[test]
    fn a_chain_runs_in_the_order_of_versions() {
        assert_eq!(
            upcast(STEPS, "ParcelSent", 1, 3, json!({ "kilograms": 2 })),
            Some(json!({ "weight_g": 2000 }))
        );
        assert_eq!(
            upcast(STEPS, "ParcelSent", 3, 3, json!({ "weight_g": 5 })),
            Some(json!({ "weight_g": 5 }))
        );
    }

    #[test]
    fn a_missing_step_or_a_newer_version_is_not_guessed() {
        assert_eq!(upcast(STEPS, "ParcelSent", 4, 3, json!({})), None);
        assert_eq!(upcast(STEPS, "ParcelSent", 0, 3, json!({})), None);
        assert_eq!(upcast(STEPS, "ParcelLost", 1, 2, json!({})), None);
    }
}
