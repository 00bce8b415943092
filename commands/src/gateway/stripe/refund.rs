//! Refunds.

use super::{Client, Failure, amount, intent::Intent};
use crate::gateway::{FailedRefund, Refund};
use events::Money;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// How often one call asks for what is left. Somebody may refund a part in Stripe's dashboard
/// meanwhile.
const ROUNDS: usize = 4;

/// The code of a refund that failed for no reason that Stripe tells.
const FAILED: &str = "refund_failed";

/// The fields of a refund that are used here.
#[derive(Debug, Deserialize)]
struct Refunded {
    id: Arc<str>,
    /// In Stripe's units.
    #[serde(default)]
    amount: i64,
    /// Absent for some payment methods; then the refund counts as done.
    status: Option<String>,
    failure_reason: Option<Arc<str>>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// A page of refunds; a payment has only a few.
#[derive(Debug, Deserialize)]
struct Refunds {
    data: Vec<Refunded>,
}

impl Refunded {
    fn is_dead(&self) -> bool {
        matches!(self.status.as_deref(), Some("failed" | "canceled"))
    }

    /// What the order is told of it.
    fn result(&self) -> Refund {
        if self.is_dead() {
            Refund::Failed(self.failure())
        } else {
            Refund::Issued(Arc::clone(&self.id))
        }
    }

    fn failure(&self) -> FailedRefund {
        let code = self.failure_reason.clone().unwrap_or_else(|| FAILED.into());
        FailedRefund { refund_id: Arc::clone(&self.id), code }
    }

    fn is_under(&self, key: &str) -> bool {
        self.metadata.get("key").is_some_and(|it| it == key)
    }
}

impl Refunds {
    async fn of(client: &Client, payment_id: &str) -> Result<Self, Failure> {
        let given = [("payment_intent", payment_id), ("limit", "100")];
        client.get("refunds", &given).await
    }

    fn alive(&self) -> impl Iterator<Item = &Refunded> {
        self.data.iter().filter(|refund| !refund.is_dead())
    }

    /// What has gone back or is on its way, in Stripe's units.
    fn given_back(&self) -> i64 {
        self.alive().map(|refund| refund.amount).sum()
    }
}

/// Refunds what is left of the payment, unless that was done under this key. A refund under this key
/// that failed is not repeated under it: the order counts those, and asks under the next key.
pub(super) async fn refund(
    client: &Client,
    key: &str,
    intent: &Intent,
    captured: Money,
) -> Result<Refund, Failure> {
    let payment_id = &*intent.id;
    // The amount was captured, so it fits Stripe's units.
    let captured = amount::of_stripe(captured).unwrap_or_default();
    let received = intent.amount_received.unwrap_or(captured);
    // What was asked for and refused, and why.
    let mut refused: Option<(i64, Arc<str>)> = None;
    for _ in 0..ROUNDS {
        let before = Refunds::of(client, payment_id).await?;
        if let Some(done) = before.data.iter().find(|refund| refund.is_under(key)) {
            return Ok(done.result());
        }
        let left = received - before.given_back();
        // Someone refunded all of it in Stripe's dashboard.
        if left <= 0
            && let Some(done) = before.alive().next()
        {
            return Ok(Refund::Issued(Arc::clone(&done.id)));
        }
        if let Some((_, code)) = refused.take().filter(|(asked, _)| *asked == left) {
            return Ok(Refund::Refused(code));
        }
        let form = [
            ("payment_intent", payment_id),
            ("amount", &*left.to_string()),
            ("metadata[key]", key),
        ];
        // Stripe takes a key with another amount for a mistake.
        let once = format!("{key}/{left}");
        match client.post::<Refunded>("refunds", &once, &form).await {
            Ok(refund) => return Ok(refund.result()),
            Err(Failure::Refused(error)) if error.is_about_balance() => {
                return Err(Failure::NotNow(error));
            }
            // The next look tells whether it was refused because less is left by now.
            Err(Failure::Refused(error)) => refused = Some((left, error.decline_word())),
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Malformed)
}

/// The refund under this key, if it failed and none took its place.
pub(super) async fn failed(
    client: &Client,
    key: &str,
    payment_id: &str,
) -> Result<Option<FailedRefund>, Failure> {
    let refunds = Refunds::of(client, payment_id).await?;
    if refunds.alive().any(|refund| refund.is_under(key)) {
        return Ok(None);
    }
    let failed = refunds.data.iter().find(|refund| refund.is_under(key));
    Ok(failed.map(Refunded::failure))
}
