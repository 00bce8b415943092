//! A `PaymentIntent`, and the next request it needs: a pure function of its state.

use super::{Ending, amount, failure::decline_word};
use events::Money;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// The cancellation reason for a declined payment. When the intent is looked up later, the reason
/// tells that the payment was declined.
const ABANDONED: &str = "abandoned";
/// The cancellation reason for a payment whose order is cancelled or rejected.
const UNWANTED: &str = "requested_by_customer";
/// The decline code to use if Stripe has none or has forgotten it.
const DECLINED: &str = "card_declined";

/// The fields of a `PaymentIntent` that are used here.
#[derive(Debug, Deserialize)]
pub(super) struct Intent {
    pub id: Arc<str>,
    pub status: Status,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What was paid, in Stripe's units.
    pub amount_received: Option<i64>,
    #[serde(default)]
    currency: String,
    last_payment_error: Option<PaymentError>,
    cancellation_reason: Option<String>,
}

/// Why the last attempt to confirm failed.
#[derive(Debug, Deserialize)]
struct PaymentError {
    code: Option<String>,
    decline_code: Option<String>,
}

/// The status of an intent, in Stripe's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
    #[serde(other)]
    Unknown,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresConfirmation => "requires_confirmation",
            Self::RequiresAction => "requires_action",
            Self::Processing => "processing",
            Self::RequiresCapture => "requires_capture",
            Self::Canceled => "canceled",
            Self::Succeeded => "succeeded",
            Self::Unknown => "in a state unknown here",
        }
    }
}

/// The result that the caller wants for a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Take the money.
    Capture,
    /// Take no money.
    Settle,
    /// The confirmation was refused: cancel the payment as declined, without another attempt.
    Decline,
}

/// The next step for an intent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Ended(Ending),
    /// Stripe is still processing it.
    Wait,
    Confirm,
    /// Cancel it, with this reason.
    Cancel(&'static str),
}

impl Intent {
    /// The next step towards the goal.
    pub fn step(&self, goal: Goal) -> Step {
        let give_up = |declined: bool| Step::Cancel(if declined { ABANDONED } else { UNWANTED });
        let wanted = goal != Goal::Settle;
        match self.status {
            Status::Succeeded | Status::Canceled => self.ending().map_or(Step::Wait, Step::Ended),
            Status::Processing | Status::Unknown => Step::Wait,
            Status::RequiresConfirmation if goal == Goal::Capture => Step::Confirm,
            Status::RequiresConfirmation | Status::RequiresCapture => {
                give_up(goal == Goal::Decline)
            }
            // It was confirmed before, and the confirmation failed.
            Status::RequiresPaymentMethod | Status::RequiresAction => {
                give_up(wanted || self.last_payment_error.is_some())
            }
        }
    }

    /// The final state of the payment. An intent that can still be confirmed has none, whatever
    /// happened before.
    pub fn ending(&self) -> Option<Ending> {
        match self.status {
            Status::Succeeded => Some(self.received().map_or(Ending::Captured, Ending::Received)),
            Status::Canceled if self.cancellation_reason.as_deref() == Some(ABANDONED) => {
                Some(Ending::Declined(self.decline_word().unwrap_or_else(|| DECLINED.into())))
            }
            Status::Canceled => Some(Ending::Voided),
            Status::RequiresPaymentMethod
            | Status::RequiresConfirmation
            | Status::RequiresAction
            | Status::Processing
            | Status::RequiresCapture
            | Status::Unknown => None,
        }
    }

    /// What was taken, if Stripe tells. What was to be taken counts for nothing: somebody may have
    /// changed it at Stripe.
    fn received(&self) -> Option<Money> {
        let currency = self.currency.to_ascii_uppercase().parse().ok()?;
        Some(amount::to_money(self.amount_received?, currency))
    }

    /// Stripe's code for the reason of the decline.
    pub fn decline_word(&self) -> Option<Arc<str>> {
        if self.status == Status::RequiresAction {
            return Some("authentication_required".into());
        }
        let error = self.last_payment_error.as_ref()?;
        Some(decline_word(error.code.as_deref(), error.decline_code.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn intent(status: &str) -> Intent {
        serde_json::from_value(json!({"id": "pi_1", "status": status, "amount": 500})).unwrap()
    }

    fn failed(status: &str, error: &serde_json::Value) -> Intent {
        let intent = json!({"id": "pi_1", "status": status, "last_payment_error": error});
        serde_json::from_value(intent).unwrap()
    }

    fn cancelled(reason: &str) -> Intent {
        Intent { cancellation_reason: Some(reason.to_owned()), ..intent("canceled") }
    }

    #[test]
    fn only_what_was_never_confirmed_is_confirmed() {
        assert_eq!(intent("requires_confirmation").step(Goal::Capture), Step::Confirm);
        for status in ["requires_payment_method", "requires_action", "processing", "new_word"] {
            assert_ne!(intent(status).step(Goal::Capture), Step::Confirm, "{status}");
        }
        for goal in [Goal::Settle, Goal::Decline] {
            assert_ne!(intent("requires_confirmation").step(goal), Step::Confirm);
        }
    }

    #[test]
    fn money_that_was_taken_is_captured_whatever_was_wanted() {
        for goal in [Goal::Capture, Goal::Settle, Goal::Decline] {
            assert_eq!(intent("succeeded").step(goal), Step::Ended(Ending::Captured));
            assert_eq!(intent("processing").step(goal), Step::Wait);
            assert_eq!(intent("new_word").step(goal), Step::Wait);
        }
    }

    #[test]
    fn what_was_taken_is_told_whatever_was_to_be_taken() {
        let taken = |received: i64, currency: &str| {
            let intent = json!({"id": "pi_1", "status": "succeeded", "amount": 4500,
                "amount_received": received, "currency": currency});
            serde_json::from_value::<Intent>(intent).unwrap().ending()
        };
        let money = |amount, currency: &str| Money::new(amount, currency.parse().unwrap());
        assert_eq!(taken(4500, "gbp"), Some(Ending::Received(money(4500, "GBP"))));
        assert_eq!(taken(5000, "usd"), Some(Ending::Received(money(5000, "USD"))));
    }

    #[test]
    fn a_declined_intent_is_cancelled_and_remembered_as_declined() {
        let error = json!({"code": "card_declined", "decline_code": "insufficient_funds"});
        let declined = failed("requires_payment_method", &error);
        for goal in [Goal::Capture, Goal::Settle, Goal::Decline] {
            assert_eq!(declined.step(goal), Step::Cancel(ABANDONED));
        }
        assert_eq!(declined.decline_word().as_deref(), Some("insufficient_funds"));
        assert_eq!(cancelled(ABANDONED).ending(), Some(Ending::Declined(DECLINED.into())));
        assert_eq!(cancelled(UNWANTED).ending(), Some(Ending::Voided));
        assert_eq!(intent("canceled").ending(), Some(Ending::Voided));
    }

    #[test]
    fn a_question_from_the_bank_is_a_decline() {
        let asked = intent("requires_action");
        assert_eq!(asked.step(Goal::Capture), Step::Cancel(ABANDONED));
        assert_eq!(asked.decline_word().as_deref(), Some("authentication_required"));
    }

    #[test]
    fn an_unwanted_intent_is_cancelled() {
        assert_eq!(intent("requires_confirmation").step(Goal::Settle), Step::Cancel(UNWANTED));
        assert_eq!(intent("requires_payment_method").step(Goal::Settle), Step::Cancel(UNWANTED));
    }
}
