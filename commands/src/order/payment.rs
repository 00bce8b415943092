//! How an order decides commands about its payment. It records whatever the gateway reports, in
//! every status; recording the same report again changes nothing.

use super::{
    Order, Payment, PaymentState, RecordCaptured, RecordDeclined, RecordRefund, RecordRefundFailed,
    RecordVoided, Refusal, StartPayment, Status, decide::rejected,
};
use events::order::{
    Confirmed, Event, PaymentCaptured, PaymentDeclined, PaymentStarted, PaymentVoided,
    RefundFailed, RefundIssued, Rejected, RejectionReason,
};
use std::sync::Arc;

/// How many refunds of a payment may fail before a person must return the money.
const REFUNDS: u32 = 3;

/// The decline code of a pending order of whose payment only a part was taken.
const SHORT: &str = "amount_received";

/// The decline code of a pending order whose payment was voided at the gateway, not by this
/// program.
const VOIDED: &str = "voided";

impl Order {
    /// Refuses a payment that the gateway created for an order which is no longer pending. The
    /// dispatcher captures only payments whose id is in the log, so no money moves. If the gateway
    /// created two payments for one order, only the one that is logged can be captured.
    pub(super) fn start_payment(
        &self,
        status: Status,
        start: &StartPayment,
    ) -> Result<Vec<Event>, Refusal> {
        let &StartPayment { ordinal, ref payment_id } = start;
        match (status, self.payment()) {
            (Status::Pending, Some(payment)) if payment.ordinal == ordinal => Ok(vec![]),
            (Status::Pending, None) if ordinal == 1 => {
                let amount = self
                    .detail()
                    .and_then(|detail| detail.priced.as_ref())
                    .ok_or(Refusal::NotPriced)?
                    .total;
                let payment_id = Arc::clone(payment_id);
                Ok(vec![PaymentStarted { ordinal, payment_id, amount }.into()])
            }
            (Status::Pending, _) => Err(Refusal::UnknownPayment { ordinal }),
            (
                Status::Confirmed
                | Status::Processing
                | Status::Shipped
                | Status::Delivered
                | Status::Cancelled
                | Status::Rejected,
                _,
            ) => Err(Refusal::TooLate { status }),
        }
    }

    pub(super) fn record_captured(
        &self,
        status: Status,
        captured: &RecordCaptured,
    ) -> Result<Vec<Event>, Refusal> {
        let &RecordCaptured { ordinal, amount } = captured;
        let Some(payment) = self.payment_of(status, ordinal)? else { return Ok(vec![]) };
        let captured = PaymentCaptured { ordinal, amount }.into();
        Ok(match payment.state {
            PaymentState::Started if status == Status::Pending => {
                // Less was taken than is to be paid, or other money. What was taken goes back.
                let is_short = amount.currency != payment.amount.currency
                    || amount.amount < payment.amount.amount;
                let end = if is_short {
                    Rejected { decline_code: Some(SHORT.into()), ..declined() }.into()
                } else {
                    Confirmed { mail: true }.into()
                };
                vec![captured, end]
            }
            // The money was taken, even if the gateway reported otherwise before. The order then
            // owes a refund.
            PaymentState::Started | PaymentState::Declined | PaymentState::Voided => vec![captured],
            PaymentState::Captured | PaymentState::Refunded | PaymentState::RefundRefused => vec![],
        })
    }

    pub(super) fn record_declined(
        &self,
        status: Status,
        declined: &RecordDeclined,
    ) -> Result<Vec<Event>, Refusal> {
        let RecordDeclined { ordinal, code } = declined.clone();
        if !self.would_not_be_created(status, ordinal) {
            let Some(payment) = self.payment_of(status, ordinal)? else { return Ok(vec![]) };
            if payment.state != PaymentState::Started {
                return Ok(vec![]);
            }
        }
        let rejected = end_without_money(status, &code);
        Ok(std::iter::once(PaymentDeclined { ordinal, code }.into()).chain(rejected).collect())
    }

    pub(super) fn record_voided(
        &self,
        status: Status,
        voided: &RecordVoided,
    ) -> Result<Vec<Event>, Refusal> {
        let &RecordVoided { ordinal } = voided;
        let Some(payment) = self.payment_of(status, ordinal)? else { return Ok(vec![]) };
        if payment.state != PaymentState::Started {
            return Ok(vec![]);
        }
        let rejected = end_without_money(status, VOIDED);
        Ok(std::iter::once(PaymentVoided { ordinal }.into()).chain(rejected).collect())
    }

    pub(super) fn record_refund(
        &self,
        status: Status,
        refund: &RecordRefund,
    ) -> Result<Vec<Event>, Refusal> {
        if !status.is_dead() {
            return Err(Refusal::NotOwed { status });
        }
        let RecordRefund { ordinal, refund_id, amount } = refund.clone();
        let Some(payment) = self.payment_of(status, ordinal)? else { return Ok(vec![]) };
        match payment.state {
            PaymentState::Captured | PaymentState::RefundRefused => {
                Ok(vec![RefundIssued { ordinal, refund_id, amount }.into()])
            }
            PaymentState::Refunded => Ok(vec![]),
            PaymentState::Started | PaymentState::Declined | PaymentState::Voided => {
                Err(Refusal::NotOwed { status })
            }
        }
    }

    /// A refusal of the gateway is recorded while the refund is owed; a refund that failed later,
    /// once it is recorded as made. Anything else is old news.
    pub(super) fn record_refund_failed(
        &self,
        status: Status,
        failed: &RecordRefundFailed,
    ) -> Result<Vec<Event>, Refusal> {
        if !status.is_dead() {
            return Err(Refusal::NotOwed { status });
        }
        let RecordRefundFailed { ordinal, refund, refund_id, code } = failed.clone();
        let Some(payment) = self.payment_of(status, ordinal)? else { return Ok(vec![]) };
        let expected =
            if refund_id.is_some() { PaymentState::Refunded } else { PaymentState::Captured };
        if payment.refund != refund || payment.state != expected {
            return Ok(vec![]);
        }
        let again = refund_id.is_some() && refund < REFUNDS;
        Ok(vec![RefundFailed { ordinal, refund, refund_id, code, again }.into()])
    }

    /// The payment with this ordinal. `None` if the order is finished and has no such payment, or
    /// has already dropped it; then everything about it is in the log.
    fn payment_of(&self, status: Status, ordinal: u32) -> Result<Option<&Payment>, Refusal> {
        match self.payment().filter(|payment| payment.ordinal == ordinal) {
            None if !status.is_done() => Err(Refusal::UnknownPayment { ordinal }),
            payment => Ok(payment),
        }
    }

    /// Whether this is the payment that the order is about to start. The gateway may refuse to
    /// create it.
    fn would_not_be_created(&self, status: Status, ordinal: u32) -> bool {
        let is_priced = self.detail().is_some_and(|detail| detail.priced.is_some());
        status == Status::Pending && is_priced && self.payment.is_none() && ordinal == 1
    }
}

/// Rejects a pending order; an order in any other status stays as it is.
fn end_without_money(status: Status, code: &str) -> Option<Event> {
    (status == Status::Pending)
        .then(|| Rejected { decline_code: Some(code.into()), ..declined() }.into())
}

fn declined() -> Rejected {
    rejected(RejectionReason::PaymentDeclined)
}
