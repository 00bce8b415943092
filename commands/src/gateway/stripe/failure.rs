//! What Stripe returns when a request fails, and whether to repeat the request.

use reqwest::{StatusCode, header::HeaderMap};
use serde::Deserialize;
use std::sync::Arc;

/// The largest length of a decline code, in characters.
const MAX_WORD: usize = 100;

/// Why there is no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Stripe refuses this request, and would refuse it again.
    #[error(transparent)]
    Refused(Refused),
    /// Stripe refuses for a temporary reason, for a reason in our account, or because of a fault of
    /// its own.
    #[error("Stripe gave no usable answer")]
    NotNow(#[source] Refused),
    /// There was no complete response. The request may have been carried out.
    #[error("Stripe did not answer")]
    NoAnswer(#[source] reqwest::Error),
    /// The response cannot be understood.
    #[error("Stripe's answer cannot be understood")]
    Malformed,
}

/// An error from Stripe. Leaves out Stripe's message, because it may repeat personal data.
#[derive(Debug, thiserror::Error)]
#[error("{status} {kind} {} (request {request_id})", code.as_deref().unwrap_or("(no code)"))]
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
    /// Some refusals have only this.
    message_code: Option<String>,
    decline_code: Option<String>,
}

/// Codes of refusals that are about our account, so that another card would not help the customer.
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
    /// Classifies a response that is not a success.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let refused = Refused::of(status, headers, body);
        if refused.is_permanent() { Self::Refused(refused) } else { Self::NotNow(refused) }
    }
}

impl Refused {
    /// Reads the error from a response.
    fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let error = serde_json::from_slice::<ErrorBody>(body).unwrap_or_default().error;
        let request_id = headers.get("request-id").and_then(|id| id.to_str().ok());
        Self {
            status: status.as_u16(),
            kind: error.kind,
            code: error.code.or(error.message_code),
            decline_code: error.decline_code,
            request_id: request_id.unwrap_or("unknown").to_owned(),
        }
    }

    /// Whether the fault is Stripe's own.
    pub fn is_fault(&self) -> bool {
        self.status >= 500
    }

    /// Whether another request has changed the object's state first.
    pub fn is_about_state(&self) -> bool {
        self.code.as_deref() == Some("payment_intent_unexpected_state")
    }

    /// Whether the object does not exist.
    pub fn is_missing(&self) -> bool {
        self.status == 404
    }

    /// Whether the shop's own balance is too low, which it may not be tomorrow.
    pub fn is_about_balance(&self) -> bool {
        let codes =
            ["balance_insufficient", "insufficient_funds", "insufficient_balance_for_refund"];
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    /// Whether the reason is this call's own, so that others are not concerned.
    pub fn is_about_this_call(&self) -> bool {
        self.is_about_balance()
            || self.kind == "idempotency_error"
            || matches!(self.code.as_deref(), Some("idempotency_key_in_use" | "lock_timeout"))
    }

    /// The decline code that the customer sees.
    pub fn decline_word(&self) -> Arc<str> {
        let code = self.code.as_deref().or(Some(self.kind.as_str())).filter(|it| !it.is_empty());
        decline_word(code, self.decline_code.as_deref())
    }

    /// Whether the same request would fail again.
    fn is_permanent(&self) -> bool {
        let about_us = self.kind == "idempotency_error"
            || self.code.as_deref().is_some_and(|code| OURS.contains(&code));
        matches!(self.status, 400 | 402 | 404 | 422) && !about_us
    }
}

/// The bank's code if there is one, otherwise Stripe's. A customer must not learn that a card was
/// reported stolen or is suspected, so such codes are replaced.
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
    fn a_refusal_of_the_request_is_permanent_and_a_temporary_one_is_not() {
        let request = json!({"type": "invalid_request_error", "code": "resource_missing"});
        let card = json!({"type": "card_error", "code": "card_declined"});
        for (status, error, is_permanent) in [
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
            assert_eq!(answered(status, error).is_permanent(), is_permanent, "{status} {error}");
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
