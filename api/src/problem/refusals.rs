//! Refusals of the write side as problems. The matches are exhaustive: a new refusal does not
//! compile without its kind.

use super::{Kind, Problem};
use crate::orders;
use axum::http::header;
use commands::{CommandError, Refusal, customer, email, order, product, wishlist};
use events::{
    StreamId, StreamKind,
    order::{Rejected, RejectionReason},
};
use uuid::Uuid;

impl Problem {
    /// The problem for a command on `stream` that was not applied, or may not have been.
    pub(crate) fn of_command(error: CommandError, stream: StreamId) -> Self {
        match error {
            CommandError::Refused(refusal) => refusal.into(),
            CommandError::VersionMismatch { current } => {
                let detail = format!("the current version is {current}");
                Self::new(Kind::VersionMismatch, detail).with("current_version", current)
            }
            CommandError::KeyReused => Kind::IdempotencyKeyReused.into(),
            CommandError::NotApplied(reason) => {
                tracing::warn!(%stream, reason, "a command was not applied");
                Self::new(Kind::CommandNotApplied, reason).retry_after(1)
            }
            CommandError::OutcomeUnknown => Self::from(Kind::OutcomeUnknown)
                .with("id", stream.id.to_string())
                .at(stream)
                .retry_after(1),
            CommandError::Fault => Self::internal(&error),
        }
    }

    /// The problem for the caller whose order was rejected.
    pub(crate) fn of_rejection(order_id: Uuid, rejected: &Rejected, replayed: bool) -> Self {
        let mut problem = rejection(rejected);
        if let Some(product_id) = rejected.product_id {
            problem = problem.with("product_id", product_id.to_string());
        }
        if let Some(available) = rejected.available {
            problem = problem.with("available", available);
        }
        if let Some(requested) = rejected.requested {
            problem = problem.with("requested", requested);
        }
        if let Some(code) = &rejected.decline_code {
            problem = problem.with("decline_code", &**code);
        }
        problem
            .replayed(replayed)
            .with("order_id", order_id.to_string())
            .at(StreamId::order(order_id))
    }

    /// Adds the `Location` of the resource.
    fn at(self, stream: StreamId) -> Self {
        let location = match stream.kind {
            StreamKind::Order => orders::location(stream.id),
            StreamKind::Product => crate::products::location(stream.id),
            StreamKind::Customer => crate::customers::location(stream.id),
            StreamKind::Wishlist => crate::wishlist::LOCATION.to_owned(),
            StreamKind::Email | StreamKind::Writer => return self,
        };
        self.with_header(header::LOCATION, &location)
    }
}

/// The kind and the detail of a rejected order.
fn rejection(rejected: &Rejected) -> Problem {
    let (kind, detail) = match rejected.reason {
        RejectionReason::InsufficientStock => return insufficient_stock(rejected),
        RejectionReason::ProductNotFound => {
            (Kind::ProductNotFound, "a product of the order does not exist or is discontinued")
        }
        RejectionReason::CustomerNotFound => {
            (Kind::CustomerNotFound, "the customer of the order does not exist or was erased")
        }
        RejectionReason::ValidationFailed => {
            (Kind::ValidationFailed, "the subtotal of the order is above 2^53 - 1 minor units")
        }
        RejectionReason::PaymentDeclined => {
            (Kind::PaymentDeclined, "the payment gateway declined the payment")
        }
        RejectionReason::TooManyOpenOrders => {
            (Kind::TooManyOpenOrders, "too many other orders of the customer are pending")
        }
        RejectionReason::TooManyDeclinedPayments => (
            Kind::TooManyDeclinedPayments,
            "too many payments of the customer were declined within an hour",
        ),
        RejectionReason::Expired => (Kind::Expired, "the order was still pending at its deadline"),
    };
    Problem::new(kind, detail)
}

fn insufficient_stock(rejected: &Rejected) -> Problem {
    let (Some(requested), Some(available)) = (rejected.requested, rejected.available) else {
        return Kind::InsufficientStock.into();
    };
    let detail =
        format!("the order needs {requested} of the product, and only {available} can be reserved");
    Problem::new(Kind::InsufficientStock, detail)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Product(refusal) => refusal.into(),
            Refusal::Order(refusal) => refusal.into(),
            Refusal::Customer(refusal) => refusal.into(),
            Refusal::Email(refusal) => refusal.into(),
            Refusal::Wishlist(refusal) => refusal.into(),
        }
    }
}

impl From<product::Refusal> for Problem {
    fn from(refusal: product::Refusal) -> Self {
        use product::Refusal;
        let detail = refusal.to_string();
        match refusal {
            Refusal::NotFound => Self::new(Kind::NotFound, detail),
            Refusal::StockBelowReserved { on_hand, reserved } => {
                Self::new(Kind::StockBelowReserved, detail)
                    .with("on_hand", on_hand)
                    .with("reserved", reserved)
            }
            Refusal::InsufficientStock { available, requested } => {
                Self::new(Kind::InsufficientStock, detail)
                    .with("available", available)
                    .with("requested", requested)
            }
            Refusal::Discontinued => Self::new(Kind::ProductNotFound, detail),
            Refusal::InvalidQuantity | Refusal::StockOverflow => {
                Self::new(Kind::ValidationFailed, detail)
            }
            // The API makes the ids, and no request asks for an internal step.
            Refusal::AlreadyExists
            | Refusal::ReservationClosed
            | Refusal::AlreadyReserved { .. } => Self::internal(&refusal),
        }
    }
}

impl From<order::Refusal> for Problem {
    fn from(refusal: order::Refusal) -> Self {
        use order::Refusal;
        let detail = refusal.to_string();
        match refusal {
            Refusal::NotFound => Self::new(Kind::NotFound, detail),
            Refusal::IllegalTransition { from, to } => Self::new(Kind::IllegalTransition, detail)
                .with("from", from.as_str())
                .with("to", to.as_str()),
            Refusal::InvalidLines => Self::new(Kind::ValidationFailed, detail),
            Refusal::AlreadyExists
            | Refusal::TooLate { .. }
            | Refusal::NotPriced
            | Refusal::UnknownPayment { .. }
            | Refusal::NotOwed { .. } => Self::internal(&refusal),
        }
    }
}

impl From<customer::Refusal> for Problem {
    fn from(refusal: customer::Refusal) -> Self {
        use customer::Refusal;
        let detail = refusal.to_string();
        match refusal {
            Refusal::NotFound => Self::new(Kind::NotFound, detail),
            Refusal::ChangeInProgress => Self::new(Kind::CommandNotApplied, detail).retry_after(1),
            Refusal::Erased => Self::new(Kind::Gone, detail),
            Refusal::TooManyOpenOrders { .. } => Self::new(Kind::TooManyOpenOrders, detail),
            Refusal::TooManyDeclinedPayments { .. } => {
                Self::new(Kind::TooManyDeclinedPayments, detail)
            }
            Refusal::AlreadyExists
            | Refusal::NotErased
            | Refusal::RegistrationAnswered
            | Refusal::UnknownAttempt { .. }
            | Refusal::OrderClosed => Self::internal(&refusal),
        }
    }
}

impl From<email::Refusal> for Problem {
    fn from(refusal: email::Refusal) -> Self {
        match refusal {
            email::Refusal::Taken => Kind::EmailTaken.into(),
            email::Refusal::Closed => Self::internal(&refusal),
        }
    }
}

impl From<wishlist::Refusal> for Problem {
    fn from(refusal: wishlist::Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            wishlist::Refusal::Full { most } => {
                Self::new(Kind::WishlistFull, detail).with("most", most)
            }
            wishlist::Refusal::Cleared => Self::new(Kind::Gone, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_has_the_members_its_caller_needs_to_act() {
        let refusal = product::Refusal::InsufficientStock { available: 1, requested: 2 };
        let problem = Problem::from(Refusal::Product(refusal));
        assert_eq!(problem.kind(), Kind::InsufficientStock);
        assert_eq!(problem.extension("available"), json!(1));
        let (from, to) = (order::Status::Shipped, order::Status::Cancelled);
        let problem = Problem::from(order::Refusal::IllegalTransition { from, to });
        assert_eq!(problem.kind(), Kind::IllegalTransition);
        assert_eq!([problem.extension("from"), problem.extension("to")], ["shipped", "cancelled"]);
    }

    #[test]
    fn a_command_in_doubt_names_the_resource_to_look_for() {
        let stream = StreamId::order(Uuid::from_u128(7));
        let not_applied = Problem::of_command(CommandError::NotApplied("not open"), stream);
        assert_eq!(not_applied.kind(), Kind::CommandNotApplied);
        let unknown = Problem::of_command(CommandError::OutcomeUnknown, stream);
        assert_eq!(unknown.kind(), Kind::OutcomeUnknown);
        assert_eq!(unknown.extension("id"), json!(stream.id.to_string()));
        let stale = Problem::of_command(CommandError::VersionMismatch { current: 3 }, stream);
        assert_eq!(stale.extension("current_version"), json!(3));
    }

    #[test]
    fn a_rejected_order_is_named_in_its_problem() {
        let id = Uuid::from_u128(7);
        let rejected = Rejected {
            reason: RejectionReason::InsufficientStock,
            product_id: Some(Uuid::from_u128(8)),
            available: Some(1),
            requested: Some(2),
            decline_code: None,
            rests_on: std::sync::Arc::default(),
        };
        let problem = Problem::of_rejection(id, &rejected, true);
        assert_eq!(problem.kind(), Kind::InsufficientStock);
        assert_eq!(problem.extension("order_id"), json!(id.to_string()));
        assert_eq!(problem.extension("product_id"), json!(Uuid::from_u128(8).to_string()));
        assert_eq!(problem.extension("requested"), json!(2));
        assert_eq!(
            problem.0.detail,
            "the order needs 2 of the product, and only 1 can be reserved"
        );
    }
}
