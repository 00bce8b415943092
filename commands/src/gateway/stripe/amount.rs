//! Converts money to Stripe's units.
//!
//! Stripe's smallest units are those of ISO 4217, except for the currencies below
//! (<https://docs.stripe.com/currencies>, "minor units" and "special cases").

use events::{Currency, Money};

/// ISO 4217 counts hundredths (the ariary has fifths, by its name), Stripe counts whole units.
const WHOLE_AT_STRIPE: [&str; 1] = ["MGA"];
/// ISO 4217 counts whole units, Stripe counts hundredths that must be zero.
const HUNDREDTHS_AT_STRIPE: [&str; 2] = ["ISK", "UGX"];

/// The amount in Stripe's units; `None` if Stripe cannot take the amount.
pub(super) fn of_stripe(money: Money) -> Option<i64> {
    let code = money.currency.code();
    let payable = |amount: &i64| *amount > 0 && amount % money.currency.payable_step() == 0;
    let amount = Some(money.amount).filter(payable)?;
    if WHOLE_AT_STRIPE.contains(&code) {
        return Some(amount / 100);
    }
    if HUNDREDTHS_AT_STRIPE.contains(&code) {
        return amount.checked_mul(100);
    }
    Some(amount)
}

/// The money that an amount in Stripe's units is.
pub(super) fn to_money(amount: i64, currency: Currency) -> Money {
    let code = currency.code();
    let amount = if WHOLE_AT_STRIPE.contains(&code) {
        amount.saturating_mul(100)
    } else if HUNDREDTHS_AT_STRIPE.contains(&code) {
        amount / 100
    } else {
        amount
    };
    Money::new(amount, currency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripe_counts_most_currencies_as_iso_does() {
        let of = |amount, currency: &str| of_stripe(Money::new(amount, currency.parse().unwrap()));
        for (amount, currency, wanted) in [
            (2999, "GBP", Some(2999)),
            (500, "JPY", Some(500)),
            (500, "ISK", Some(50_000)),
            (500, "UGX", Some(50_000)),
            (500, "MGA", Some(5)),
            (510, "MGA", None),
            (5120, "KWD", Some(5120)),
            (5124, "KWD", None),
            (i64::MAX, "ISK", None),
            (0, "GBP", None),
            (-1, "GBP", None),
        ] {
            assert_eq!(of(amount, currency), wanted, "{amount} {currency}");
            if let Some(stripes) = wanted {
                let currency = currency.parse().unwrap();
                assert_eq!(to_money(stripes, currency), Money::new(amount, currency));
            }
        }
    }
}
