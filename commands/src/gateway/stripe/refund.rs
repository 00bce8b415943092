//! Money back.

use super::{Client, Failure, amount};
use events::Money;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// A refund, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Refund {
    id: Arc<str>,
    /// Absent for some means of payment: then it is as good as done.
    status: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// A page of refunds: a payment has few.
#[derive(Debug, Deserialize)]
struct Refunds {
    data: Vec<Refund>,
}

impl Refund {
    fn is_dead(&self) -> bool {
        matches!(self.status.as_deref(), Some("failed" | "canceled"))
    }
}

/// Gives the money back unless that was done under this key before. One that failed is tried anew: Stripe has the money.
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
        tracing::error!(payment_id, failed, "a refund failed at Stripe: trying anew");
    }
    // What was taken can be expressed: it was asked for so.
    let amount = amount::of_stripe(amount).unwrap_or_default().to_string();
    let form = [("payment_intent", payment_id), ("amount", &*amount), ("metadata[key]", key)];
    match client.post::<Refund>("refunds", &format!("{key}/{failed}"), &form).await {
        Ok(refund) => Ok(refund.id),
        // Somebody gave it back by hand.
        Err(Failure::Refused(refused)) if refused.is_given_back() => match alive().next() {
            Some(done) => Ok(Arc::clone(&done.id)),
            None => Err(Failure::Refused(refused)),
        },
        Err(failure) => Err(failure),
    }
}
