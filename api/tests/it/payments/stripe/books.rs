//! Stripe's state, and the effects of its steps.

use super::{Fault, Step};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use uuid::Uuid;

/// A request's form.
pub type Form = BTreeMap<String, String>;

/// HTTP status and body.
pub type Answer = (u16, Value);

#[derive(Clone, Debug)]
pub struct Intent {
    pub status: &'static str,
    pub amount: i64,
    pub currency: String,
    pub method: String,
    pub order: String,
    pub key: String,
    pub error: Option<Value>,
    pub reason: Option<String>,
}

#[derive(Default)]
pub struct Books {
    pub intents: BTreeMap<String, Intent>,
    pub refunds: Vec<(String, String, i64, String)>,
    /// The refunds that have failed since.
    pub failed_refunds: BTreeSet<String>,
    /// The code with which every refund is refused.
    pub refuses_refunds: Option<&'static str>,
    /// Whether no payment is known.
    pub forgets: bool,
    /// How many of the next refunds fail at once.
    pub fails_refunds: u32,
    /// How much less is taken than is asked for.
    pub takes_less: i64,
    /// How much less somebody has made the payments, and their currency.
    pub altered: Option<(i64, &'static str)>,
    /// The request and the answer of each idempotency key.
    pub remembered: BTreeMap<String, (String, u16, Value)>,
    pub faults: BTreeMap<Step, VecDeque<Fault>>,
    /// Kinds of steps that must wait.
    pub held: BTreeSet<Step>,
    /// Steps that have arrived and are waiting.
    pub waiting: Vec<Step>,
    /// Whether every request fails.
    pub down: bool,
    /// Whether the secret key is refused.
    pub locked: bool,
    pub journal: Vec<Value>,
    pub complaints: Vec<String>,
    pub asked: u64,
    pub shown_to_mock: u64,
}

impl Books {
    pub fn show(&self, id: &str) -> Value {
        let intent = &self.intents[id];
        let (less, currency) = self.altered.unwrap_or((0, &intent.currency));
        let amount = intent.amount - less;
        json!({
            "id": id,
            "object": "payment_intent",
            "status": intent.status,
            "amount": amount,
            "amount_received": if intent.status == "succeeded" { amount - self.takes_less } else { 0 },
            "currency": currency,
            "metadata": {"order_id": intent.order},
            "last_payment_error": intent.error,
            "cancellation_reason": intent.reason,
        })
    }

    pub fn succeed(&mut self, id: &str) {
        let intent = self.intents.get_mut(id).unwrap();
        (intent.status, intent.error) = ("succeeded", None);
        let entry = json!({"did": "captured", "payment_id": id, "amount": intent.amount});
        self.journal.push(entry);
    }

    pub fn decline(&mut self, id: &str, code: &str, decline_code: Option<&str>) {
        let intent = self.intents.get_mut(id).unwrap();
        intent.status = "requires_payment_method";
        intent.error = Some(json!({"code": code, "decline_code": decline_code}));
    }

    /// Stripe's error for a step that does not fit the state of the intent.
    pub fn unexpected(&self, id: &str) -> Answer {
        let error = json!({
            "type": "invalid_request_error",
            "code": "payment_intent_unexpected_state",
            "payment_intent": self.show(id),
        });
        (400, json!({ "error": error }))
    }

    pub fn create(&mut self, form: &Form, key: &str) -> Answer {
        let method = form["payment_method"].clone();
        if !method.starts_with("pm_card") {
            let error = json!({"type": "invalid_request_error", "code": "resource_missing",
                               "param": "payment_method"});
            return (400, json!({ "error": error }));
        }
        let id = format!("pi_{}", Uuid::now_v7().simple());
        let intent = Intent {
            status: "requires_confirmation",
            amount: form["amount"].parse().unwrap(),
            currency: form["currency"].clone(),
            method,
            order: form["metadata[order_id]"].clone(),
            key: key.to_owned(),
            error: None,
            reason: None,
        };
        if intent.currency != "gbp" || form.contains_key("confirm") {
            self.complaints.push(format!("created as {form:?}"));
        }
        self.journal.push(json!({"did": "created", "payment_id": id, "key": intent.key}));
        self.intents.insert(id.clone(), intent);
        (200, self.show(&id))
    }

    pub fn confirm(&mut self, id: &str, form: &Form) -> Answer {
        if form.contains_key("payment_method") {
            self.complaints.push("confirmed with another means of payment".to_owned());
        }
        let intent = self.intents.get_mut(id).unwrap();
        if intent.status != "requires_confirmation" {
            return self.unexpected(id);
        }
        match intent.method.as_str() {
            "pm_card_visa" => self.succeed(id),
            "pm_card_slow" => intent.status = "processing",
            "pm_card_asks" => intent.status = "requires_action",
            other => {
                let (code, word) = match other {
                    "pm_card_authenticationRequired" => ("authentication_required", None),
                    "pm_card_chargeDeclinedStolenCard" => ("card_declined", Some("stolen_card")),
                    _ => ("card_declined", Some("insufficient_funds")),
                };
                self.decline(id, code, word);
                let error = json!({"type": "card_error", "code": code, "decline_code": word,
                                   "payment_intent": self.show(id)});
                return (402, json!({ "error": error }));
            }
        }
        (200, self.show(id))
    }

    pub fn cancel(&mut self, id: &str, form: &Form) -> Answer {
        let intent = self.intents.get_mut(id).unwrap();
        if ["succeeded", "processing", "canceled"].contains(&intent.status) {
            return self.unexpected(id);
        }
        // Cancelling removes the reason of the decline.
        (intent.status, intent.error) = ("canceled", None);
        intent.reason = form.get("cancellation_reason").cloned();
        (200, self.show(id))
    }

    pub fn refund(&mut self, form: &Form) -> Answer {
        let (payment, key) = (form["payment_intent"].clone(), form["metadata[key]"].clone());
        let amount: i64 = form["amount"].parse().unwrap();
        let back = self.given_back(&payment);
        if let Some(code) = self.refuses_refunds {
            let member = if code.contains("balance") { "message_code" } else { "code" };
            return (400, json!({"error": {"type": "invalid_request_error", member: code}}));
        }
        let intent = &self.intents[&payment];
        if intent.status != "succeeded" || back + amount > intent.amount {
            let code = if back > 0 { "charge_already_refunded" } else { "charge_invalid" };
            let error = json!({"type": "invalid_request_error", "code": code});
            return (400, json!({ "error": error }));
        }
        let id = format!("re_{}", Uuid::now_v7().simple());
        if self.fails_refunds > 0 {
            self.fails_refunds -= 1;
            self.failed_refunds.insert(id.clone());
        } else {
            let entry = json!({"did": "refunded", "payment_id": payment, "refund_id": id});
            self.journal.push(entry);
        }
        self.refunds.push((id, payment, amount, key));
        (200, self.show_refund(&self.refunds[self.refunds.len() - 1]))
    }

    /// What of a payment has gone back.
    pub fn given_back(&self, payment: &str) -> i64 {
        let alive = self.refunds.iter().filter(|it| !self.failed_refunds.contains(&it.0));
        alive.filter(|it| it.1 == payment).map(|it| it.2).sum()
    }

    pub fn show_refund(&self, (id, payment, amount, key): &(String, String, i64, String)) -> Value {
        let status = if self.failed_refunds.contains(id) { "failed" } else { "succeeded" };
        json!({"id": id, "object": "refund", "payment_intent": payment, "amount": amount,
               "status": status, "failure_reason": "expired_or_canceled_card",
               "metadata": {"key": key}})
    }
}
