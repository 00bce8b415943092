//! Who takes the money: the sandbox, or Stripe.

use commands::gateway::{Secret, stripe::ApiBase};

/// What the environment says of the payment gateway. Values are not parsed by clap: its errors show
/// them.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PaymentSettings {
    /// The secret (or restricted) key of the account at Stripe; unset: the sandbox, which moves no
    /// money.
    #[arg(long, env = "STRIPE_SECRET_KEY", value_name = "KEY", global = true)]
    #[arg(hide_short_help = true, hide_env_values = true)]
    pub stripe_secret_key: Option<Secret>,
    /// The signing secret of the webhook endpoint; unset: Stripe's notices are not taken, and slow
    /// payments are asked for.
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", value_name = "SECRET", global = true)]
    #[arg(hide_short_help = true, hide_env_values = true)]
    pub stripe_webhook_secret: Option<Secret>,
    /// Where Stripe's interface is [default: `https://api.stripe.com`].
    #[arg(long, env = "STRIPE_API_BASE", value_name = "URL", global = true)]
    #[arg(hide_short_help = true)]
    pub stripe_api_base: Option<String>,
}

/// Who takes the money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentChoice {
    /// Nobody.
    Sandbox,
    /// Stripe.
    Stripe {
        /// Of the account.
        secret_key: Secret,
        /// Of the webhook endpoint; `None` takes no notices.
        webhook_secret: Option<Secret>,
        /// Where its interface is.
        api_base: ApiBase,
    },
}

/// Settings of the payment gateway that do not do. No error shows a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaymentError {
    /// One of the others is set without the key.
    #[error("{0} needs STRIPE_SECRET_KEY")]
    NoKey(&'static str),
    /// A publishable key, a webhook's secret, or nothing of Stripe's.
    #[error("STRIPE_SECRET_KEY must be a secret or restricted key: it begins with sk_ or rk_")]
    BadKey,
    /// Not a webhook's secret.
    #[error("STRIPE_WEBHOOK_SECRET must be an endpoint's signing secret: it begins with whsec_")]
    BadWebhookSecret,
    /// Not an address that a key may be sent to.
    #[error("STRIPE_API_BASE must be https://HOST[:PORT], or http on loopback")]
    BadBase,
}

impl TryFrom<&PaymentSettings> for PaymentChoice {
    type Error = PaymentError;

    fn try_from(settings: &PaymentSettings) -> Result<Self, PaymentError> {
        let PaymentSettings { stripe_secret_key, stripe_webhook_secret, stripe_api_base } =
            settings;
        let Some(secret_key) = stripe_secret_key.clone() else {
            let given = [
                ("STRIPE_WEBHOOK_SECRET", stripe_webhook_secret.is_some()),
                ("STRIPE_API_BASE", stripe_api_base.is_some()),
            ];
            let lonely = given.into_iter().find(|(_, given)| *given);
            return lonely.map_or(Ok(Self::Sandbox), |(name, _)| Err(PaymentError::NoKey(name)));
        };
        if !["sk_", "rk_"].iter().any(|start| is_secret(&secret_key, start)) {
            return Err(PaymentError::BadKey);
        }
        let webhook_secret = stripe_webhook_secret.clone();
        if webhook_secret.as_ref().is_some_and(|secret| !is_secret(secret, "whsec_")) {
            return Err(PaymentError::BadWebhookSecret);
        }
        let api_base = stripe_api_base.as_deref().map_or(Ok(ApiBase::default()), str::parse);
        let api_base = api_base.map_err(|_| PaymentError::BadBase)?;
        Ok(Self::Stripe { secret_key, webhook_secret, api_base })
    }
}

/// Whether it begins so, goes on, and can stand in a header.
fn is_secret(secret: &Secret, start: &str) -> bool {
    let rest = secret.reveal().strip_prefix(start).unwrap_or_default();
    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(
        key: Option<&str>,
        webhook: Option<&str>,
        base: Option<&str>,
    ) -> Result<PaymentChoice, PaymentError> {
        PaymentChoice::try_from(&PaymentSettings {
            stripe_secret_key: key.map(Secret::from),
            stripe_webhook_secret: webhook.map(Secret::from),
            stripe_api_base: base.map(str::to_owned),
        })
    }

    #[test]
    fn a_secret_key_is_stripe_and_none_the_sandbox() {
        assert_eq!(choice(None, None, None), Ok(PaymentChoice::Sandbox));
        let stripe = choice(Some("sk_test_1"), Some("whsec_1"), None).unwrap();
        let wanted = PaymentChoice::Stripe {
            secret_key: "sk_test_1".into(),
            webhook_secret: Some("whsec_1".into()),
            api_base: ApiBase::default(),
        };
        assert_eq!(stripe, wanted);
        assert!(choice(Some("rk_live_1"), None, Some("https://127.0.0.1:1")).is_ok());
    }

    #[test]
    fn what_does_not_do_is_refused_without_showing_it() {
        let key = Some("sk_test_hidden");
        for (found, wanted) in [
            (choice(None, Some("whsec_1"), None), PaymentError::NoKey("STRIPE_WEBHOOK_SECRET")),
            (choice(None, None, Some("https://a")), PaymentError::NoKey("STRIPE_API_BASE")),
            (choice(Some(""), None, None), PaymentError::BadKey),
            (choice(Some("sk_"), None, None), PaymentError::BadKey),
            (choice(Some("pk_live_1"), None, None), PaymentError::BadKey),
            (choice(Some("sk_test_1\n"), None, None), PaymentError::BadKey),
            (choice(key, Some("sk_test_1"), None), PaymentError::BadWebhookSecret),
            (choice(key, None, Some("http://api.stripe.com")), PaymentError::BadBase),
        ] {
            assert_eq!(found, Err(wanted));
        }
        let shown = format!("{:?}", choice(key, Some("whsec_hidden"), None).unwrap());
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
