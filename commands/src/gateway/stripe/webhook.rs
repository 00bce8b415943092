//! Stripe's notices: their signature, and the payment that each is about.

use super::Secret;
use events::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

/// How far the time of a notice may differ from ours, in seconds, so that an intercepted notice
/// cannot be sent again later.
const TOLERANCE: u64 = 300;

/// The most signatures of a notice. Stripe sends one for each of its secrets, and there are two while
/// a secret is being rolled.
const MAX_SIGNATURES: usize = 8;

/// The header with the time and the signatures.
pub const SIGNATURE_HEADER: &str = "stripe-signature";

/// The notice does not come from Stripe, or it is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// The header is not `t=<seconds>,v1=<64 hexadecimal digits>`.
    #[error("Stripe-Signature is missing or malformed")]
    Malformed,
    /// No signature matches the body under our secret.
    #[error("no signature matches the body")]
    Wrong,
    /// The time differs too much from ours.
    #[error("the time of the signature is too far from the current time")]
    Stale,
}

/// Checks a `Stripe-Signature` of `body`. While a secret is being rolled, the header may contain
/// several signatures; one that matches is enough.
///
/// # Errors
/// [`BadSignature`].
pub fn verify(
    secret: &Secret,
    header: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), BadSignature> {
    let (mut time, mut signatures) = (None, Vec::new());
    for item in header.split(',') {
        match item.trim().split_once('=') {
            Some(("t", text)) if time.is_none() => time = Some(text),
            Some(("v1", text)) if signatures.len() < MAX_SIGNATURES => signatures.push(text),
            Some(("t" | "v1", _)) => return Err(BadSignature::Malformed),
            _ => {}
        }
    }
    let time = time.ok_or(BadSignature::Malformed)?;
    let seconds: i64 = time.parse().map_err(|_| BadSignature::Malformed)?;
    let signatures: Option<Vec<[u8; 32]>> = signatures.into_iter().map(unhex).collect();
    let signatures = signatures.filter(|it| !it.is_empty()).ok_or(BadSignature::Malformed)?;
    // The time costs less to check than the body, which anybody may send.
    if seconds.abs_diff(now.timestamp()) > TOLERANCE {
        return Err(BadSignature::Stale);
    }
    let Some(mac) = mac(secret, time, body) else { return Err(BadSignature::Wrong) };
    // Each comparison takes constant time.
    if signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok()) {
        return Ok(());
    }
    Err(BadSignature::Wrong)
}

/// The header that Stripe would send, for tests and for trying out an endpoint.
pub fn sign(secret: &Secret, body: &[u8], at: Timestamp) -> String {
    let time = at.timestamp().to_string();
    let tag = mac(secret, &time, body).map(|mac| mac.finalize().into_bytes());
    tag.iter().flatten().fold(format!("t={time},v1="), |mut header, byte| {
        header.extend(
            [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
        );
        header
    })
}

/// HMAC accepts a key of any length, so the result is never `None`.
fn mac(secret: &Secret, time: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).ok()?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = Some(text).filter(|text| text.len() == 64 && text.is_ascii())?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

/// What is used of a notice: the payment to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The type of Stripe's event, for the log only.
    pub kind: String,
    /// The payment that it is about, if any.
    pub payment_id: Option<String>,
}

impl Notice {
    /// Reads a notice. Names no payment if the body is not a notice or is about something else.
    pub fn of(body: &[u8]) -> Self {
        let event: Event = serde_json::from_slice(body).unwrap_or_default();
        let object = event.data.object;
        let payment_id = match object.kind.as_str() {
            "payment_intent" => object.id,
            // Charges, refunds and disputes name their payment; some events contain the whole
            // intent.
            _ => object.payment_intent.and_then(|it| it.as_str().map(str::to_owned)),
        };
        let is_id = |id: &String| id.starts_with("pi_") && id.len() <= 255;
        Self { kind: event.kind, payment_id: payment_id.filter(is_id) }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    data: EventData,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EventData {
    object: Object,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    #[serde(rename = "object")]
    kind: String,
    id: Option<String>,
    payment_intent: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BODY: &[u8] = br#"{"id":"evt_1"}"#;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn secret() -> Secret {
        "whsec_test".into()
    }

    #[test]
    fn the_signature_is_the_one_that_stripe_computes() {
        // From `printf '1800000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test`.
        let known =
            "t=1800000000,v1=45705be2a45ab5acdd1395cc695e9e7073125385ec24194921c401dff44176f8";
        assert_eq!(sign(&secret(), BODY, at(1_800_000_000)), known);
        assert_eq!(verify(&secret(), known, BODY, at(1_800_000_000)), Ok(()));
    }

    #[test]
    fn a_notice_is_valid_for_five_minutes() {
        let header = sign(&secret(), BODY, at(1_800_000_000));
        for (now, checked) in [
            (1_800_000_300, Ok(())),
            (1_799_999_700, Ok(())),
            (1_800_000_301, Err(BadSignature::Stale)),
            (1_799_999_699, Err(BadSignature::Stale)),
        ] {
            assert_eq!(verify(&secret(), &header, BODY, at(now)), checked, "{now}");
        }
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        let header = sign(&secret(), BODY, at(1_800_000_000));
        let (time, ours) = header.split_once(',').unwrap();
        let other = format!("v1={}", "0".repeat(64));
        for header in
            [format!("{time},{other},{ours}"), format!("{time}, {ours}, v0=x, {other}, junk")]
        {
            assert_eq!(verify(&secret(), &header, BODY, at(1_800_000_000)), Ok(()), "{header}");
        }
        let header = format!("{time},{other}");
        let refused = verify(&secret(), &header, BODY, at(1_800_000_000));
        assert_eq!(refused, Err(BadSignature::Wrong));
    }

    /// Each signature costs a comparison, and anybody may send a notice.
    #[test]
    fn a_notice_with_many_signatures_or_two_times_is_refused() {
        let now = at(1_800_000_000);
        let header = sign(&secret(), BODY, now);
        let with =
            |others: usize| header.clone() + &format!(",v1={}", "0".repeat(64)).repeat(others);
        assert_eq!(verify(&secret(), &with(MAX_SIGNATURES - 1), BODY, now), Ok(()));
        let twice = format!("t=1800000000,{header}");
        for header in [with(MAX_SIGNATURES), with(900), twice] {
            assert_eq!(verify(&secret(), &header, BODY, now), Err(BadSignature::Malformed));
        }
        let late = at(1_800_000_301);
        assert_eq!(verify(&secret(), &with(7), b"another", late), Err(BadSignature::Stale));
    }

    #[test]
    fn another_body_secret_or_time_is_refused() {
        let now = at(1_800_000_000);
        let header = sign(&secret(), BODY, now);
        assert_eq!(verify(&secret(), &header, b"{}", now), Err(BadSignature::Wrong));
        assert_eq!(verify(&"whsec_other".into(), &header, BODY, now), Err(BadSignature::Wrong));
        let moved = header.replace("t=1800000000", "t=1800000001");
        assert_eq!(verify(&secret(), &moved, BODY, now), Err(BadSignature::Wrong));
        let malformed = ["", "t=1", "v1=00", "t=x,v1=", "t=1800000000,v1=zz", "t=,v1=\u{e9}"];
        for header in malformed {
            let refused = verify(&secret(), header, BODY, now);
            assert_eq!(refused, Err(BadSignature::Malformed), "{header}");
        }
    }

    #[test]
    fn a_notice_names_the_payment_it_is_about() {
        let of = |object: serde_json::Value| {
            let event = json!({"type": "some.thing", "data": {"object": object}});
            Notice::of(event.to_string().as_bytes()).payment_id
        };
        let intent = json!({"object": "payment_intent", "id": "pi_1"});
        assert_eq!(of(intent.clone()).as_deref(), Some("pi_1"));
        let refund = json!({"object": "refund", "id": "re_1", "payment_intent": "pi_2"});
        assert_eq!(of(refund).as_deref(), Some("pi_2"));
        for other in [
            json!({"object": "charge", "payment_intent": intent}),
            json!({"object": "customer", "id": "cus_1"}),
            json!({"object": "payment_intent", "id": "../pi"}),
            json!(null),
            json!([1]),
        ] {
            assert_eq!(of(other), None);
        }
        for body in [&b""[..], b"null", b"[]", b"{", b"\xff"] {
            assert_eq!(Notice::of(body).payment_id, None);
        }
    }
}
