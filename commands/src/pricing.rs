//! The shop's discount rules, in integer minor units.

use events::{Currency, order::DiscountKind};

/// The largest subtotal, in minor units: 2^53 - 1, the largest integer that every JSON reader
/// represents exactly.
pub const MAX_SUBTOTAL: i64 = (1 << 53) - 1;

const VIP_PERCENT: i64 = 10;
const VOLUME_PERCENT: i64 = 5;
const CAP_PERCENT: i64 = 30;

/// The amounts of the discounts, in minor units of the shop's currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscountRules {
    /// Subtotals above this amount get the volume discount; not negative.
    pub volume_beyond: i64,
    /// The discount on a first order; not negative.
    pub first_order: i64,
    /// Discounts are multiples of this; positive. Otherwise a discount could turn an amount that can
    /// be paid into one that cannot.
    pub step: i64,
}

impl DiscountRules {
    /// The defaults: the volume discount beyond 100 of the currency's units (pounds, not pence), and
    /// 10 of them off a first order.
    pub fn of(currency: Currency) -> Self {
        let unit = 10_i64.saturating_pow(currency.decimals());
        let step = currency.payable_step();
        Self { volume_beyond: 100 * unit, first_order: 10 * unit, step }
    }
}

/// What discounts depend on, apart from the subtotal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the customer is VIP.
    pub vip: bool,
    /// Whether it is their first order.
    pub first: bool,
}

/// The discounts of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discounts {
    /// The contribution of each rule in minor units, in the order of the rules, without zeros. The
    /// cap's contribution is negative. Together they add up to `discount`.
    pub parts: Vec<(DiscountKind, i64)>,
    /// The whole discount, in minor units: 0 to 30 % of the subtotal.
    pub discount: i64,
}

/// The sum of `unit_price * quantity`, in minor units; `None` if it is above [`MAX_SUBTOTAL`] or
/// any line is negative.
pub fn subtotal(lines: impl IntoIterator<Item = (i64, i64)>) -> Option<i64> {
    lines.into_iter().try_fold(0, |sum: i64, (unit_price, quantity)| {
        let line = i128::from(unit_price) * i128::from(quantity);
        let sum = i64::try_from(i128::from(sum) + line).ok()?;
        (line >= 0 && sum <= MAX_SUBTOTAL).then_some(sum)
    })
}

/// The discounts of an order with this subtotal (0 to [`MAX_SUBTOTAL`]).
///
/// The rules are summed in hundredths of a minor unit. Each rule contributes the growth of the
/// running sum, rounded half to even to a multiple of the step, so the contributions add up to the sum
/// rounded once.
pub fn discounts(subtotal: i64, standing: Standing, rules: DiscountRules) -> Discounts {
    let percent = |applies: bool, percent: i64| {
        if applies { i128::from(subtotal) * i128::from(percent) } else { 0 }
    };
    let step = i128::from(rules.step);
    let first_order = if standing.first { i128::from(rules.first_order) * 100 } else { 0 };
    let rules = [
        (DiscountKind::Vip, percent(standing.vip, VIP_PERCENT)),
        (DiscountKind::Volume, percent(subtotal > rules.volume_beyond, VOLUME_PERCENT)),
        (DiscountKind::FirstOrder, first_order),
    ];
    let (mut exact, mut rounded, mut parts) = (0, 0, Vec::new());
    for (kind, hundredths) in rules {
        exact += hundredths;
        let before = std::mem::replace(&mut rounded, round_half_to_even(exact, 100 * step) * step);
        parts.push((kind, rounded - before));
    }
    let discount = rounded.min(percent(true, CAP_PERCENT) / (100 * step) * step);
    parts.push((DiscountKind::Cap, discount - rounded));
    Discounts {
        parts: parts
            .into_iter()
            .filter(|(_, part)| *part != 0)
            .map(|(kind, part)| (kind, minor_units(part)))
            .collect(),
        discount: minor_units(discount),
    }
}

/// How many times `unit` goes into a sum that is not negative, rounded.
fn round_half_to_even(sum: i128, unit: i128) -> i128 {
    let (whole, rest) = (sum / unit, sum % unit);
    whole + i128::from(2 * rest > unit || (2 * rest == unit && whole % 2 == 1))
}

/// A contribution is at most a third of an `i64` subtotal or the fixed discount, so it fits.
fn minor_units(part: i128) -> i64 {
    i64::try_from(part).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::inconsistent_digit_grouping, reason = "pence are set apart from pounds")]
mod tests {
    use super::*;
    use DiscountKind::{Cap, FirstOrder, Vip, Volume};
    use proptest::prelude::*;

    const NONE: Standing = Standing { vip: false, first: false };
    const VIP: Standing = Standing { vip: true, first: false };
    const FIRST: Standing = Standing { vip: false, first: true };
    const BOTH: Standing = Standing { vip: true, first: true };

    fn rules(currency: &str) -> DiscountRules {
        DiscountRules::of(currency.parse().unwrap())
    }

    #[test]
    fn the_amounts_are_of_the_currency() {
        let amounts = |currency| (rules(currency).volume_beyond, rules(currency).first_order);
        assert_eq!(amounts("GBP"), (100_00, 10_00));
        assert_eq!(amounts("JPY"), (100, 10));
        assert_eq!(amounts("KWD"), (100_000, 10_000));
        let own = DiscountRules { volume_beyond: 5, first_order: 0, step: 1 };
        let Discounts { parts, discount } = discounts(20, BOTH, own);
        assert_eq!((parts, discount), (vec![(Vip, 2), (Volume, 1)], 3));
    }

    #[test]
    fn a_discount_leaves_an_amount_that_can_be_paid() {
        for (currency, step) in [("KWD", 10), ("MGA", 100), ("GBP", 1)] {
            for subtotal in (1..2_000).map(|n| n * 370 * step) {
                let Discounts { parts, discount } = discounts(subtotal, BOTH, rules(currency));
                assert!(discount % step == 0 && parts.iter().all(|(_, part)| part % step == 0));
                assert!(10 * discount <= 3 * subtotal, "{subtotal}");
            }
        }
        assert_eq!(discounts(36_020, NONE, rules("KWD")).discount, 0);
        assert_eq!(discounts(360_200, NONE, rules("KWD")).discount, 18_010);
        assert_eq!(discounts(360_300, NONE, rules("KWD")).discount, 18_020, "not 18.015");
    }

    #[track_caller]
    fn priced(subtotal: i64, standing: Standing, parts: &[(DiscountKind, i64)], discount: i64) {
        assert_eq!(
            discounts(subtotal, standing, rules("GBP")),
            Discounts { parts: parts.to_vec(), discount }
        );
    }

    #[test]
    fn each_rule_alone() {
        priced(99_99, NONE, &[], 0);
        priced(50_00, VIP, &[(Vip, 5_00)], 5_00);
        priced(200_00, NONE, &[(Volume, 10_00)], 10_00);
        priced(50_00, FIRST, &[(FirstOrder, 10_00)], 10_00);
    }

    #[test]
    fn the_volume_discount_begins_beyond_a_hundred() {
        priced(100_00, NONE, &[], 0);
        // 5 % of 100.01 is 5.0005.
        priced(100_01, NONE, &[(Volume, 5_00)], 5_00);
    }

    #[test]
    fn all_rules_together_stay_below_the_cap() {
        priced(200_00, BOTH, &[(Vip, 20_00), (Volume, 10_00), (FirstOrder, 10_00)], 40_00);
    }

    #[test]
    fn the_cap_takes_back_what_is_beyond_thirty_percent() {
        // 10.00 off 29.99; 30 % is 8.997, rounded down to 8.99.
        priced(29_99, FIRST, &[(FirstOrder, 10_00), (Cap, -1_01)], 8_99);
        // 4.00 + 10.00 off 40.00; 30 % is 12.00.
        priced(40_00, BOTH, &[(Vip, 4_00), (FirstOrder, 10_00), (Cap, -2_00)], 12_00);
        // 30 % of 2 is 0.6, which rounds down to 0.
        priced(2, FIRST, &[(FirstOrder, 10_00), (Cap, -10_00)], 0);
        priced(0, BOTH, &[(FirstOrder, 10_00), (Cap, -10_00)], 0);
    }

    #[test]
    fn exactly_thirty_percent_is_not_capped() {
        // 10 % of 50.00 plus 10.00 is 15.00, which is 30 % of 50.00.
        priced(50_00, BOTH, &[(Vip, 5_00), (FirstOrder, 10_00)], 15_00);
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        // 10 % of 0.05, 0.15, 0.25 and 0.35 is 0.5, 1.5, 2.5 and 3.5 pence.
        priced(5, VIP, &[], 0);
        priced(15, VIP, &[(Vip, 2)], 2);
        priced(25, VIP, &[(Vip, 2)], 2);
        priced(35, VIP, &[(Vip, 4)], 4);
        // 5 % of 100.10 is 500.5, of 100.30 is 501.5.
        priced(100_10, NONE, &[(Volume, 5_00)], 5_00);
        priced(100_30, NONE, &[(Volume, 5_02)], 5_02);
    }

    #[test]
    fn the_sum_is_rounded_once_and_the_list_is_its_growth() {
        // 1000.5 rounds to 1000; with 500.25 it is 1500.75 and rounds to 1501.
        priced(100_05, VIP, &[(Vip, 10_00), (Volume, 5_01)], 15_01);
        // 1001.5 rounds to 1002; with 500.75 it is 1502.25 and rounds to 1502.
        priced(100_15, VIP, &[(Vip, 10_02), (Volume, 5_00)], 15_02);
        // 1001.0 stays; with 500.5 it is 1501.5 and rounds to 1502.
        priced(100_10, VIP, &[(Vip, 10_01), (Volume, 5_01)], 15_02);
        // 1003.0 stays; with 501.5 it is 1504.5 and rounds to 1504.
        priced(100_30, VIP, &[(Vip, 10_03), (Volume, 5_01)], 15_04);
    }

    #[test]
    fn a_subtotal_has_an_upper_bound() {
        assert_eq!(subtotal([(2_99, 3), (10_00, 1)]), Some(18_97));
        assert_eq!(subtotal([(MAX_SUBTOTAL, 1)]), Some(MAX_SUBTOTAL));
        assert_eq!(subtotal([(MAX_SUBTOTAL, 1), (1, 1)]), None);
        assert_eq!(subtotal(vec![(1_000_000_000_000, 1_000_000); 100]), None);
        assert_eq!(subtotal([(i64::MAX, i64::MAX)]), None);
        assert_eq!(subtotal([(-1, 1)]), None);
    }

    proptest! {
        #[test]
        fn the_list_adds_up_within_the_bounds(
            subtotal in prop_oneof![0..20_000i64, 0..=MAX_SUBTOTAL],
            vip: bool,
            first: bool,
        ) {
            let Discounts { parts, discount } = discounts(subtotal, Standing { vip, first }, rules("GBP"));
            prop_assert_eq!(parts.iter().map(|(_, part)| part).sum::<i64>(), discount);
            prop_assert!(discount >= 0);
            prop_assert!(i128::from(discount) * 100 <= i128::from(subtotal) * 30);
            let fits = |&(kind, part): &(_, i64)| part != 0 && (part < 0) == (kind == Cap);
            prop_assert!(parts.iter().all(fits));
            let order = [Vip, Volume, FirstOrder, Cap];
            let places: Vec<_> =
                parts.iter().map(|(kind, _)| order.iter().position(|k| k == kind)).collect();
            prop_assert!(places.is_sorted());
        }

        #[test]
        fn a_sum_of_any_lines_does_not_panic(
            lines in proptest::collection::vec((any::<i64>(), any::<i64>()), 0..5),
        ) {
            if let Some(sum) = subtotal(lines) {
                prop_assert!((0..=MAX_SUBTOTAL).contains(&sum));
            }
        }
    }
}
