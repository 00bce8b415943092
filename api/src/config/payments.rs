//! The payment gateway: the sandbox or Stripe.

use commands::gateway::{Secret, stripe::ApiBase};

/// Settings of the payment gateway. Clap does not parse the values: its errors would show them.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PaymentSettings {
    /// Secret or restricted key of the Stripe account. Without it, the program uses the sandbox
    /// gateway, which moves no money.
    #[arg(long, env = "STRIPE_SECRET_KEY", value_name = "KEY", global = true)]
    #[arg(hide_short_help = true, hide_env_values = true)]
    pub stripe_secret_key: Option<Secret>,
    /// Signing secret of the Stripe webhook endpoint. Without it, the program accepts no notices from
    /// Stripe, and polls slow payments.
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", value_name = "SECRET", global = true)]
    #[arg(hide_short_help = true, hide_env_values = true)]
    pub stripe_webhook_secret: Option<Secret>,
    /// Base URL of the Stripe API [default: `https://api.stripe.com`].
    #[arg(long, env = "STRIPE_API_BASE", value_name = "URL", global = true)]
    #[arg(hide_short_help = true, hide_env_values = true)]
    pub stripe_api_base: Option<String>,
}

/// The payment gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentChoice {
    /// The sandbox, which moves no money.
    Sandbox,
    /// Stripe.
    Stripe {
        /// The key of the account.
        secret_key: Secret,
        /// The secret of the webhook endpoint; `None` accepts no notices.
        webhook_secret: Option<Secret>,
        /// The base URL of the API.
        api_base: ApiBase,
    },
}

/// Invalid settings of the payment gateway. No error shows a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaymentError {
    /// Another setting of Stripe without the key.
    #[error("{0} needs STRIPE_SECRET_KEY: set both or neither")]
    NoKey(&'static str),
    /// A publishable key, a webhook secret, or no key of Stripe.
    #[error("STRIPE_SECRET_KEY must be a secret or restricted key, which begins with sk_ or rk_")]
    BadKey,
    /// Not the signing secret of a webhook endpoint.
    #[error(
        "STRIPE_WEBHOOK_SECRET must be the signing secret of a webhook endpoint, which begins with \
         whsec_"
    )]
    BadWebhookSecret,
    /// An address to which no key may be sent.
    #[error("STRIPE_API_BASE must be https://HOST[:PORT], or http on a loopback address")]
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
            let alone = given.into_iter().find(|(_, given)| *given);
            return alone.map_or(Ok(Self::Sandbox), |(name, _)| Err(PaymentError::NoKey(name)));
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

/// Whether the secret has this prefix and more, and can be sent in a header.
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
    fn a_secret_key_means_stripe_and_no_key_the_sandbox() {
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
    fn an_invalid_value_is_refused_and_not_shown() {
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
