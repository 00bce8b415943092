//! What comes back from Stripe instead of an answer, and what it says of the next try.

use reqwest::{StatusCode, header::HeaderMap};
use serde::Deserialize;
use std::sync::Arc;

/// Characters of a decline's word.
const MAX_WORD: usize = 100;

/// Why there is no answer to go by.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Stripe says no to this request, and will say so again.
    #[error(transparent)]
    Refused(Refused),
    /// Stripe says no for a reason of the moment or of ours, or has a fault.
    #[error("Stripe gives no answer that settles anything")]
    NotNow(#[source] Refused),
    /// Nothing came back, or not all of it: what was asked for may have been done.
    #[error("no answer came from Stripe")]
    NoAnswer(#[source] reqwest::Error),
    /// What came back makes no sense.
    #[error("the answer is not Stripe's")]
    Malformed,
}

/// An error of Stripe's. Its message is left out: it may repeat what it was sent.
#[derive(Debug, thiserror::Error)]
#[error("{status} {kind} {} (request {request_id})", code.as_deref().unwrap_or("without a code"))]
pub(super) struct Refused {
    status: u16,
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
    request_id: String,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorDetail,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorDetail {
    #[serde(rename = "type", default)]
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
}

/// Codes of refusals that are about our account: no customer can do better with another card.
const OURS: [&str; 9] = [
    "account_invalid",
    "account_closed",
    "api_key_expired",
    "idempotency_key_in_use",
    "livemode_mismatch",
    "lock_timeout",
    "rate_limit",
    "secret_key_required",
    "testmode_charges_only",
];

impl Failure {
    /// What an answer says that is no success.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let refused = Refused::of(status, headers, body);
        if refused.is_final() { Self::Refused(refused) } else { Self::NotNow(refused) }
    }
}

impl Refused {
    /// What Stripe says in an answer that is none.
    fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let error = serde_json::from_slice::<ErrorBody>(body).unwrap_or_default().error;
        let request_id = headers.get("request-id").and_then(|id| id.to_str().ok());
        Self {
            status: status.as_u16(),
            kind: error.kind,
            code: error.code,
            decline_code: error.decline_code,
            request_id: request_id.unwrap_or("unknown").to_owned(),
        }
    }

    /// Whether the fault is Stripe's.
    pub fn is_fault(&self) -> bool {
        self.status >= 500
    }

    /// Whether another request came first: the object is not where it was.
    pub fn is_about_state(&self) -> bool {
        self.code.as_deref() == Some("payment_intent_unexpected_state")
    }

    /// Whether there is no such object.
    pub fn is_missing(&self) -> bool {
        self.status == 404
    }

    /// Whether all the money of a payment went back already.
    pub fn is_given_back(&self) -> bool {
        self.code.as_deref() == Some("charge_already_refunded")
    }

    /// A word for a customer.
    pub fn decline_word(&self) -> Arc<str> {
        let code = self.code.as_deref().or(Some(self.kind.as_str())).filter(|it| !it.is_empty());
        decline_word(code, self.decline_code.as_deref())
    }

    /// Whether the request is at fault, so that it fails again.
    fn is_final(&self) -> bool {
        let about_us = self.kind == "idempotency_error"
            || self.code.as_deref().is_some_and(|code| OURS.contains(&code));
        matches!(self.status, 400 | 402 | 404 | 422) && !about_us
    }
}

/// The bank's word if there is one, else Stripe's. That a card was reported stolen is not for whoever shows it.
pub(super) fn decline_word(code: Option<&str>, decline_code: Option<&str>) -> Arc<str> {
    const UNTOLD: [&str; 5] =
        ["fraudulent", "lost_card", "merchant_blacklist", "pickup_card", "stolen_card"];
    let told = decline_code.filter(|code| !UNTOLD.contains(code) && *code != "generic_decline");
    let word = told.or(code).unwrap_or("card_declined");
    word.chars().take(MAX_WORD).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answered(status: u16, error: &serde_json::Value) -> Refused {
        let body = json!({"error": error}).to_string();
        Refused::of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn a_refusal_of_the_request_is_final_and_one_of_the_moment_is_not() {
        let request = json!({"type": "invalid_request_error", "code": "resource_missing"});
        let card = json!({"type": "card_error", "code": "card_declined"});
        for (status, error, is_final) in [
            (402, &card, true),
            (400, &request, true),
            (404, &request, true),
            (400, &json!({"type": "idempotency_error"}), false),
            (400, &json!({"type": "x", "code": "testmode_charges_only"}), false),
            (401, &request, false),
            (403, &request, false),
            (409, &request, false),
            (429, &request, false),
            (500, &request, false),
            (503, &json!("no object"), false),
            (302, &request, false),
        ] {
            assert_eq!(answered(status, error).is_final(), is_final, "{status} {error}");
        }
    }

    #[test]
    fn a_decline_has_the_banks_word_unless_it_is_about_theft() {
        let declined =
            |code| answered(402, &json!({"code": "card_declined", "decline_code": code}));
        assert_eq!(&*declined("insufficient_funds").decline_word(), "insufficient_funds");
        assert_eq!(&*declined("stolen_card").decline_word(), "card_declined");
        let plain = answered(400, &json!({"type": "invalid_request_error"}));
        assert_eq!(&*plain.decline_word(), "invalid_request_error");
        assert_eq!(&*answered(402, &json!(7)).decline_word(), "card_declined");
    }
}
