//! Refunds.

use super::{Client, Failure, amount};
use events::Money;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// The fields of a refund that are used here.
#[derive(Debug, Deserialize)]
struct Refund {
    id: Arc<str>,
    /// Absent for some payment methods; then the refund counts as done.
    status: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// A page of refunds; a payment has only a few.
#[derive(Debug, Deserialize)]
struct Refunds {
    data: Vec<Refund>,
}

impl Refund {
    fn is_dead(&self) -> bool {
        matches!(self.status.as_deref(), Some("failed" | "canceled"))
    }
}

/// Refunds the payment, unless it was already refunded under this key. A refund that failed is
/// repeated, because Stripe has kept the money.
pub(super) async fn refund(
    client: &Client,
    key: &str,
    payment_id: &str,
    amount: Money,
) -> Result<Arc<str>, Failure> {
    let given = [("payment_intent", payment_id), ("limit", "100")];
    let before: Refunds = client.get("refunds", &given).await?;
    let is_ours = |refund: &&Refund| refund.metadata.get("key").is_some_and(|it| it == key);
    let alive = || before.data.iter().filter(|refund| !refund.is_dead());
    if let Some(done) = alive().find(is_ours) {
        return Ok(Arc::clone(&done.id));
    }
    let failed = before.data.iter().filter(is_ours).count();
    if failed > 0 {
        tracing::error!(payment_id, failed, "Stripe reports that a refund failed: trying again");
    }
    // The amount was captured, so it fits Stripe's units.
    let amount = amount::of_stripe(amount).unwrap_or_default().to_string();
    let form = [("payment_intent", payment_id), ("amount", &*amount), ("metadata[key]", key)];
    match client.post::<Refund>("refunds", &format!("{key}/{failed}"), &form).await {
        Ok(refund) => Ok(refund.id),
        // Someone refunded the payment in Stripe's dashboard.
        Err(Failure::Refused(refused)) if refused.is_given_back() => match alive().next() {
            Some(done) => Ok(Arc::clone(&done.id)),
            None => Err(Failure::Refused(refused)),
        },
        Err(failure) => Err(failure),
    }
}
