use super::*;
use crate::{
    aggregate::{
        Aggregate,
        testing::{Given, at, given, id, pounds, run},
    },
    pricing::{DiscountRules, MAX_SUBTOTAL},
};
use events::{
    Money, Sealed, StreamId,
    order::{
        Cancelled, Confirmed, CustomerSettled, Delivered, Discount, DiscountKind, Event, Line,
        Mail, MailRefused, MailSent, PaymentCaptured, PaymentDeclined, PaymentStarted,
        PaymentVoided, Placed, Priced, PricedLine, ProcessingStarted, RefundFailed, RefundIssued,
        Rejected, RejectionReason, Shipped, StockSettled,
    },
};
use proptest::prelude::*;
use serde::Deserialize;
use std::{collections::BTreeSet, sync::Arc};

const CUSTOMER: u128 = 7;

fn lines() -> Arc<[Line]> {
    [Line { product_id: id(1), quantity: 2 }, Line { product_id: id(2), quantity: 1 }].into()
}

fn place() -> Place {
    Place {
        customer_id: id(CUSTOMER),
        lines: lines(),
        payment_method: "pm_card_visa".into(),
        shipping_address: None,
        deadline: at(900),
    }
}

fn placed() -> Event {
    Placed {
        customer_id: id(CUSTOMER),
        lines: lines(),
        payment_method: "pm_card_visa".into(),
        shipping_address: None,
        deadline: at(900),
        not_after: at(900 + 3600),
    }
    .into()
}

fn reserved(product: u128, quantity: i64, unit_price: i64) -> ReservedLine {
    let unit_price = pounds(unit_price);
    ReservedLine { product_id: id(product), quantity, name: "Walden".into(), unit_price }
}

fn price_of(lines: impl Into<Arc<[ReservedLine]>>) -> Price {
    Price {
        vip: false,
        first: false,
        discounts: DiscountRules::of("GBP".parse().unwrap()),
        lines: lines.into(),
        rests_on: Arc::default(),
    }
}

/// Two of product 1 at 5.00 and one of product 2 at 10.00, in another sequence than ordered.
fn price() -> Price {
    price_of([reserved(2, 1, 10_00), reserved(1, 2, 5_00)])
}

fn priced_line(product: u128, quantity: i64, unit_price: i64) -> PricedLine {
    PricedLine {
        product_id: id(product),
        name: "Walden".into(),
        quantity,
        unit_price: pounds(unit_price),
        line_total: pounds(quantity * unit_price),
    }
}

fn priced_with(discounts: &[(DiscountKind, i64)], total: i64) -> Event {
    Priced {
        lines: [priced_line(1, 2, 5_00), priced_line(2, 1, 10_00)].into(),
        subtotal: pounds(20_00),
        discounts: discounts
            .iter()
            .map(|&(kind, amount)| Discount { kind, amount: pounds(amount) })
            .collect(),
        discount: pounds(20_00 - total),
        total: pounds(total),
        rests_on: Arc::default(),
    }
    .into()
}

fn priced() -> Event {
    priced_with(&[], 20_00)
}

fn start(payment_id: &str) -> StartPayment {
    StartPayment { ordinal: 1, payment_id: payment_id.into() }
}

fn started() -> Event {
    PaymentStarted { ordinal: 1, payment_id: "pi_1".into(), amount: pounds(20_00) }.into()
}

fn capture() -> RecordCaptured {
    RecordCaptured { ordinal: 1, amount: pounds(20_00) }
}

fn captured() -> Event {
    PaymentCaptured { ordinal: 1, amount: pounds(20_00) }.into()
}

fn decline() -> RecordDeclined {
    RecordDeclined { ordinal: 1, code: "no-funds".into() }
}

fn declined() -> Event {
    PaymentDeclined { ordinal: 1, code: "no-funds".into() }.into()
}

fn void() -> RecordVoided {
    RecordVoided { ordinal: 1 }
}

fn voided() -> Event {
    PaymentVoided { ordinal: 1 }.into()
}

fn refund() -> RecordRefund {
    RecordRefund { ordinal: 1, refund_id: "re_1".into(), amount: pounds(20_00) }
}

fn refunded() -> Event {
    RefundIssued { ordinal: 1, refund_id: "re_1".into(), amount: pounds(20_00) }.into()
}

fn confirmed() -> Event {
    Confirmed { mail: true }.into()
}

fn shipped() -> Event {
    Shipped { mail: true }.into()
}

fn delivered() -> Event {
    Delivered {}.into()
}

fn customer_settled() -> Event {
    CustomerSettled {}.into()
}

fn stock_settled() -> Event {
    StockSettled {}.into()
}

fn rejection(reason: RejectionReason) -> Rejected {
    rejected(reason)
}

fn expired() -> Event {
    rejection(RejectionReason::Expired).into()
}

fn short() -> Rejected {
    Rejected {
        product_id: Some(id(2)),
        available: Some(0),
        requested: Some(1),
        ..rejection(RejectionReason::InsufficientStock)
    }
}

fn cancel(reason: &str) -> Cancel {
    Cancel { by: None, reason: Some(Sealed::from(reason.to_owned())) }
}

/// The cancellation of an order that was not confirmed.
fn cancelled(reason: &str) -> Event {
    let reason = Some(Sealed::from(reason.to_owned()));
    Cancelled { reason, plain_reason: None, mail: false }.into()
}

/// The cancellation of a confirmed order.
fn called_off(reason: Option<&str>) -> Event {
    let reason = reason.map(|it| Sealed::from(it.to_owned()));
    Cancelled { reason, plain_reason: None, mail: true }.into()
}

/// The close at the customer's stream that an order owes.
fn closes_customer(confirmed: bool) -> Effect {
    Effect::CloseCustomer {
        customer_id: id(CUSTOMER),
        confirmed,
        declined: false,
        not_after: at(900 + 3600),
    }
}

fn sent(mail: Mail) -> RecordMailSent {
    RecordMailSent { mail, message_id: "1.confirmed@shop.example".into() }
}

fn mail_sent(mail: Mail) -> Event {
    let RecordMailSent { mail, message_id } = sent(mail);
    MailSent { mail, message_id }.into()
}

fn refused(mail: Mail) -> RecordMailRefused {
    RecordMailRefused { mail, code: "smtp-550".into() }
}

fn mail_refused(mail: Mail) -> Event {
    let RecordMailRefused { mail, code } = refused(mail);
    MailRefused { mail, code }.into()
}

fn illegal(from: Status, to: Status) -> Refusal {
    Refusal::IllegalTransition { from, to }
}

fn order(events: impl IntoIterator<Item = Event>) -> Given<Order> {
    given(events)
}

/// An order whose payment was captured, with these further events.
fn paid(then: impl IntoIterator<Item = Event>) -> Given<Order> {
    order([placed(), priced(), started(), captured(), confirmed()].into_iter().chain(then))
}

#[track_caller]
fn owes(order: &Given<Order>, names: &[&str]) {
    let mut owed: Vec<_> =
        order.state.owed().iter().map(|effect| effect.id().to_string()).collect();
    // Letters are owed beside everything else and have tests of their own.
    owed.retain(|name| !name.starts_with("mail-"));
    assert_eq!(owed, names);
}

mod placing {
    use super::*;

    #[test]
    fn an_order_is_placed_once() {
        order([]).when(place()).then([placed()]).when(place()).then_refused(Refusal::AlreadyExists);
    }

    #[test]
    fn lines_must_be_there_be_positive_and_name_a_product_once() {
        let one = |quantity| Line { product_id: id(1), quantity };
        for lines in [vec![], vec![one(0)], vec![one(-1)], vec![one(1), one(2)]] {
            order([])
                .when(Place { lines: lines.into(), ..place() })
                .then_refused(Refusal::InvalidLines);
        }
    }

    #[test]
    fn nothing_can_be_asked_of_an_order_never_placed() {
        let commands: [Command; 13] = [
            price().into(),
            short().into(),
            start("pi_1").into(),
            capture().into(),
            decline().into(),
            void().into(),
            Command::Expire,
            cancel("late").into(),
            Status::Shipped.into(),
            Status::Pending.into(),
            refund().into(),
            Command::RecordCustomerClosed,
            Command::RecordStockClosed,
        ];
        for command in commands {
            order([]).when(command).then_refused(Refusal::NotFound);
        }
    }
}

mod pricing {
    use super::*;

    #[test]
    fn a_price_is_fixed_once_in_the_order_of_the_lines() {
        order([placed()]).when(price()).then([priced()]).when(price()).then_nothing();
    }

    #[test]
    fn discounts_follow_the_standing_at_the_customer() {
        use DiscountKind::{Cap, FirstOrder, Vip};
        let parts = [(Vip, 2_00), (FirstOrder, 10_00), (Cap, -6_00)];
        order([placed()])
            .when(Price { vip: true, first: true, ..price() })
            .then([priced_with(&parts, 14_00)]);
    }

    #[test]
    fn an_order_that_costs_nothing_is_confirmed_without_the_gateway() {
        let lines = [reserved(1, 2, 0), reserved(2, 1, 0)];
        let free = Priced {
            lines: [priced_line(1, 2, 0), priced_line(2, 1, 0)].into(),
            subtotal: pounds(0),
            discounts: Arc::default(),
            discount: pounds(0),
            total: pounds(0),
            rests_on: Arc::default(),
        };
        let order = order([placed()]).when(price_of(lines)).then([free.into(), confirmed()]);
        owes(&order, &["close-customer"]);
    }

    #[test]
    fn a_subtotal_that_is_too_large_rejects_the_order() {
        order([placed()])
            .when(price_of([reserved(1, 2, MAX_SUBTOTAL), reserved(2, 1, 1)]))
            .then([rejection(RejectionReason::ValidationFailed).into()]);
    }

    #[test]
    fn prices_in_two_currencies_reject_the_order() {
        let euros = Money::new(1, "EUR".parse().unwrap());
        let lines = [reserved(1, 2, 1), ReservedLine { unit_price: euros, ..reserved(2, 1, 1) }];
        order([placed()])
            .when(price_of(lines))
            .then([rejection(RejectionReason::ValidationFailed).into()]);
    }

    #[test]
    fn other_lines_than_asked_for_are_refused() {
        for lines in [
            vec![],
            vec![reserved(1, 2, 1)],
            vec![reserved(1, 2, 1), reserved(2, 2, 1)],
            vec![reserved(1, 2, 1), reserved(3, 1, 1)],
            vec![reserved(1, 2, 1), reserved(1, 2, 1)],
        ] {
            order([placed()]).when(price_of(lines)).then_refused(Refusal::InvalidLines);
        }
    }

    #[test]
    fn a_dead_order_gets_no_price() {
        order([placed(), cancelled("late")])
            .when(price())
            .then_refused(Refusal::TooLate { status: Status::Cancelled });
    }

    #[test]
    fn a_rejection_contains_the_whole_problem_and_comes_only_before_the_price() {
        let order = order([placed()]).when(short()).then([short().into()]);
        assert_eq!(order.state.detail().unwrap().rejected, Some(short()));
        assert_eq!(order.state.reason(), Some("insufficient-stock"));
        order.when(short()).then_nothing();
        super::order([placed(), priced()])
            .when(short())
            .then_refused(Refusal::TooLate { status: Status::Pending });
        super::order([placed(), cancelled("late")])
            .when(short())
            .then_refused(Refusal::TooLate { status: Status::Cancelled });
    }
}

mod money {
    use super::*;

    fn declined_order(code: &str) -> Event {
        Rejected { decline_code: Some(code.into()), ..rejection(RejectionReason::PaymentDeclined) }
            .into()
    }

    #[test]
    fn a_payment_is_started_captured_and_confirms_the_order() {
        let order = order([placed(), priced()])
            .when(start("pi_1"))
            .then([started()])
            .when(start("pi_1"))
            .then_nothing()
            .when(capture())
            .then([captured(), confirmed()])
            .when(capture())
            .then_nothing();
        owes(&order, &["close-customer"]);
    }

    #[test]
    fn of_two_payments_created_the_logged_one_counts() {
        let order = order([placed(), priced(), started()]).when(start("pi_2")).then_nothing();
        assert_eq!(&*order.state.payment().unwrap().payment_id, "pi_1");
    }

    #[test]
    fn a_payment_needs_a_price_and_the_next_ordinal() {
        order([placed()]).when(start("pi_1")).then_refused(Refusal::NotPriced);
        order([placed(), priced()])
            .when(StartPayment { ordinal: 2, payment_id: "pi_2".into() })
            .then_refused(Refusal::UnknownPayment { ordinal: 2 });
        order([placed(), priced()])
            .when(capture())
            .then_refused(Refusal::UnknownPayment { ordinal: 1 });
        order([placed(), priced(), started()])
            .when(RecordCaptured { ordinal: 2, amount: pounds(20_00) })
            .then_refused(Refusal::UnknownPayment { ordinal: 2 });
    }

    #[test]
    fn no_payment_starts_for_a_dead_order() {
        let order = order([placed(), priced(), cancelled("late")]);
        owes(&order, &["close-customer", "release-stock"]);
        order.when(start("pi_1")).then_refused(Refusal::TooLate { status: Status::Cancelled });
    }

    #[test]
    fn a_decline_rejects_the_order() {
        let order = order([placed(), priced(), started()])
            .when(decline())
            .then([declined(), declined_order("no-funds")])
            .when(decline())
            .then_nothing();
        owes(&order, &["close-customer", "release-stock"]);
        assert_eq!(order.state.refund_state(), RefundState::None);
    }

    #[test]
    fn a_payment_that_the_gateway_refuses_to_create_is_declined() {
        let order = order([placed(), priced()])
            .when(decline())
            .then([declined(), declined_order("no-funds")])
            .when(decline())
            .then_nothing();
        owes(&order, &["close-customer", "release-stock"]);
        super::order([placed()])
            .when(decline())
            .then_refused(Refusal::UnknownPayment { ordinal: 1 });
    }

    #[test]
    fn a_payment_voided_at_the_gateway_rejects_a_pending_order() {
        order([placed(), priced(), started()])
            .when(void())
            .then([voided(), declined_order("voided")])
            .when(void())
            .then_nothing();
    }

    #[test]
    fn a_deadline_during_payment_turns_capture_into_settle() {
        let order = order([placed(), priced(), started()]);
        owes(&order, &["capture/1"]);
        let order = order.at(at(900)).when(Command::Expire).then([expired()]);
        owes(&order, &["settle/1", "close-customer", "release-stock"]);
        assert_eq!(order.state.refund_state(), RefundState::Pending);
    }

    #[test]
    fn a_cancel_that_prevents_the_payment_owes_no_refund() {
        let order = order([placed(), priced(), started(), cancelled("late")])
            .when(void())
            .then([voided()])
            .when(void())
            .then_nothing();
        owes(&order, &["close-customer", "release-stock"]);
        assert_eq!(order.state.refund_state(), RefundState::None);
    }

    #[test]
    fn a_decline_after_the_end_is_recorded_only() {
        let order = order([placed(), priced(), started(), cancelled("late")])
            .when(decline())
            .then([declined()]);
        assert_eq!(order.state.sealed_reason().map(Sealed::as_str), Some("late"));
        owes(&order, &["close-customer", "release-stock"]);
    }

    #[test]
    fn a_late_capture_is_recorded_and_refunded() {
        let order = order([placed(), priced(), started(), expired()])
            .when(capture())
            .then([captured()])
            .when(capture())
            .then_nothing();
        assert_eq!(order.state.status(), Some(Status::Rejected));
        assert_eq!(order.state.refund_state(), RefundState::Pending);
        owes(&order, &["refund/1", "close-customer", "release-stock"]);
        let order = order.when(refund()).then([refunded()]).when(refund()).then_nothing();
        assert_eq!(order.state.refund_state(), RefundState::Done);
        owes(&order, &["close-customer", "release-stock"]);
        order.when(capture()).then_nothing();
    }

    #[test]
    fn a_refund_gives_back_what_was_taken() {
        let less = PaymentCaptured { ordinal: 1, amount: pounds(19_00) };
        let order = order([placed(), priced(), started(), expired(), less.into()]);
        let refund = Effect::Refund {
            ordinal: 1,
            refund: 1,
            payment_id: "pi_1".into(),
            amount: pounds(19_00),
        };
        assert_eq!(order.state.owed()[0], refund);
    }

    #[test]
    fn money_taken_after_a_decline_is_refunded_even_for_a_finished_order() {
        for outcome in [declined(), voided()] {
            let mut order = order([
                placed(),
                priced(),
                started(),
                cancelled("late"),
                outcome,
                customer_settled(),
                stock_settled(),
            ]);
            owes(&order, &[]);
            order.state.compact();
            let order = order.when(capture()).then([captured()]);
            owes(&order, &["refund/1"]);
            let mut order = order.when(refund()).then([refunded()]);
            owes(&order, &[]);
            order.state.compact();
            assert_eq!(order.state.detail(), None);
            assert_eq!(order.state.refund_state(), RefundState::Done);
        }
    }

    fn refund_failed(refund: u32, refund_id: Option<&str>) -> RecordRefundFailed {
        let (refund_id, code) = (refund_id.map(Into::into), "expired_card".into());
        RecordRefundFailed { ordinal: 1, refund, refund_id, code }
    }

    fn refund_has_failed(refund: u32, refund_id: Option<&str>, again: bool) -> Event {
        let RecordRefundFailed { ordinal, refund, refund_id, code } =
            refund_failed(refund, refund_id);
        RefundFailed { ordinal, refund, refund_id, code, again }.into()
    }

    #[test]
    fn a_refund_that_fails_later_is_owed_again_three_times() {
        let mut order = order([placed(), priced(), started(), expired(), captured(), refunded()]);
        for (number, again) in [(1, true), (2, true), (3, false)] {
            let failed = || refund_failed(number, Some("re_1"));
            let has_failed = refund_has_failed(number, Some("re_1"), again);
            order = order.when(failed()).then([has_failed]).when(failed()).then_nothing();
            assert_eq!(order.state.refund_state(), RefundState::Failed);
            let next = format!("refund/{}", number + 1);
            if again {
                owes(&order, &[&next, "close-customer", "release-stock"]);
                order = order.when(refund()).then([refunded()]);
                assert_eq!(order.state.refund_state(), RefundState::Done);
            } else {
                owes(&order, &["close-customer", "release-stock"]);
            }
        }
        // A person returned the money.
        order.when(refund()).then([refunded()]);
    }

    #[test]
    fn a_refund_that_is_refused_is_owed_no_longer() {
        let order = order([placed(), priced(), started(), expired(), captured()])
            .when(refund_failed(1, None))
            .then([refund_has_failed(1, None, false)])
            .when(refund_failed(1, None))
            .then_nothing();
        owes(&order, &["close-customer", "release-stock"]);
        assert_eq!(order.state.refund_state(), RefundState::Failed);
        order.when(refund()).then([refunded()]);
    }

    #[test]
    fn a_payment_of_which_only_a_part_was_taken_confirms_nothing() {
        let part = || RecordCaptured { ordinal: 1, amount: pounds(19_00) };
        let order = order([placed(), priced(), started()]).when(part()).then([
            PaymentCaptured { ordinal: 1, amount: pounds(19_00) }.into(),
            Rejected {
                decline_code: Some("amount_received".into()),
                ..rejected(RejectionReason::PaymentDeclined)
            }
            .into(),
        ]);
        owes(&order, &["refund/1", "close-customer", "release-stock"]);
    }

    #[test]
    fn an_order_cancelled_after_payment_owes_a_refund() {
        let order =
            paid([]).when(cancel("changed my mind")).then([called_off(Some("changed my mind"))]);
        owes(&order, &["refund/1", "close-customer", "release-stock"]);
        assert_eq!(order.state.refund_state(), RefundState::Pending);
    }

    #[test]
    fn no_refund_is_recorded_for_an_order_that_goes_on() {
        paid([]).when(refund()).then_refused(Refusal::NotOwed { status: Status::Confirmed });
        order([placed(), priced(), started(), expired()])
            .when(refund())
            .then_refused(Refusal::NotOwed { status: Status::Rejected });
    }
}

mod deadline {
    use super::*;

    #[test]
    fn a_pending_order_expires_when_it_is_told_to_whatever_log_time_says() {
        let order = order([placed()]).at(at(2)).when(Command::Expire).then([expired()]);
        assert_eq!(order.state.reason(), Some("expired"));
        assert_eq!(order.state.deadline(), None);
        order.when(Command::Expire).then_nothing();
    }

    #[test]
    fn a_decided_order_does_not_expire() {
        paid([]).at(at(10_000)).when(Command::Expire).then_nothing();
        assert_eq!(paid([]).state.deadline(), None);
        assert_eq!(order([placed()]).state.deadline(), Some(at(900)));
    }
}

mod moving {
    use super::*;
    use Status::{Confirmed, Delivered, Pending, Processing, Rejected, Shipped};

    const ALL: [Status; 7] =
        [Pending, Confirmed, Processing, Shipped, Delivered, Status::Cancelled, Rejected];

    fn order_that_is(status: Status) -> Given<Order> {
        match status {
            Pending => order([placed()]),
            Confirmed => paid([]),
            Processing => paid([ProcessingStarted {}.into()]),
            Shipped => paid([shipped()]),
            Delivered => paid([shipped(), delivered()]),
            Status::Cancelled => order([placed(), Cancelled::default().into()]),
            Rejected => order([placed(), expired()]),
        }
    }

    #[test]
    fn the_moves_of_an_order_are_these_and_no_others() {
        let moves: [(Status, Status, Event); 8] = [
            (Pending, Status::Cancelled, Cancelled::default().into()),
            (Confirmed, Processing, ProcessingStarted {}.into()),
            (Confirmed, Shipped, shipped()),
            (Confirmed, Status::Cancelled, called_off(None)),
            (Processing, Shipped, shipped()),
            (Processing, Status::Cancelled, called_off(None)),
            (Shipped, Delivered, delivered()),
            (Delivered, Delivered, delivered()),
        ];
        for from in ALL {
            for to in ALL {
                let given = order_that_is(from);
                assert_eq!(given.state.status(), Some(from));
                let event = moves.iter().find(|(f, t, _)| (*f, *t) == (from, to));
                match event {
                    _ if from == to => drop(given.when(to).then_nothing()),
                    Some((_, _, event)) => {
                        let after = given.when(to).then([event.clone()]);
                        assert_eq!(after.state.status(), Some(to));
                    }
                    None => given.when(to).then_refused(illegal(from, to)),
                }
            }
        }
    }

    #[test]
    fn a_cancel_with_a_reason_follows_the_same_moves() {
        for from in ALL {
            let given = order_that_is(from);
            match from {
                Pending | Confirmed | Processing => {
                    let event =
                        if from == Pending { cancelled("late") } else { called_off(Some("late")) };
                    let order = given.when(cancel("late")).then([event]);
                    assert_eq!(order.state.sealed_reason().map(Sealed::as_str), Some("late"));
                }
                Status::Cancelled => drop(given.when(cancel("late")).then_nothing()),
                Shipped | Delivered | Rejected => {
                    given.when(cancel("late")).then_refused(illegal(from, Status::Cancelled));
                }
            }
        }
    }

    #[test]
    fn a_customer_cancels_only_their_own_order() {
        let by = |customer| Cancel { by: Some(id(customer)), reason: None };
        order([placed()]).when(by(8)).then_refused(Refusal::NotFound);
        order([placed()]).when(by(CUSTOMER)).then([Cancelled::default().into()]);
    }
}

mod owing {
    use super::*;
    use crate::aggregate::At;

    #[test]
    fn effects_carry_all_that_is_needed_to_carry_them_out() {
        let not_after = at(900 + 3600);
        assert_eq!(
            order([placed()]).state.owed(),
            [Effect::Open { customer_id: id(CUSTOMER), lines: lines(), not_after }]
        );
        assert_eq!(
            order([placed(), priced()]).state.owed(),
            [Effect::StartPayment {
                ordinal: 1,
                amount: pounds(20_00),
                method: "pm_card_visa".into()
            }]
        );
        assert_eq!(
            order([placed(), priced(), started()]).state.owed(),
            [Effect::Capture { ordinal: 1, payment_id: "pi_1".into(), amount: pounds(20_00) }]
        );
        assert_eq!(
            order([placed(), priced(), started(), expired()]).state.owed(),
            [
                Effect::Settle { ordinal: 1, payment_id: "pi_1".into(), amount: pounds(20_00) },
                closes_customer(false),
                Effect::ReleaseStock { lines: lines(), not_after },
            ]
        );
        assert_eq!(
            paid([shipped()]).state.owed(),
            [
                closes_customer(true),
                Effect::ShipStock { lines: lines(), not_after },
                Effect::Mail { mail: Mail::Confirmed, customer_id: id(CUSTOMER) },
            ]
        );
    }

    #[test]
    fn an_order_cancelled_after_it_was_confirmed_stays_confirmed_for_the_customer() {
        let confirmed = |order: &Given<Order>| {
            order.state.owed().into_iter().find_map(|effect| match effect {
                Effect::CloseCustomer { confirmed, .. } => Some(confirmed),
                _ => None,
            })
        };
        assert_eq!(confirmed(&paid([called_off(None)])), Some(true));
        assert_eq!(confirmed(&paid([customer_settled(), called_off(None)])), None);
        assert_eq!(confirmed(&order([placed(), cancelled("late")])), Some(false));
    }

    #[test]
    fn a_close_is_recorded_once_and_then_no_longer_owed() {
        let order = paid([shipped()])
            .when(Command::RecordCustomerClosed)
            .then([customer_settled()])
            .when(Command::RecordCustomerClosed)
            .then_nothing()
            .when(Command::RecordStockClosed)
            .then([stock_settled()])
            .when(Command::RecordStockClosed)
            .then_nothing();
        owes(&order, &[]);
    }

    #[test]
    fn a_close_that_is_not_owed_yet_cannot_be_recorded() {
        order([placed()])
            .when(Command::RecordCustomerClosed)
            .then_refused(Refusal::NotOwed { status: Status::Pending });
        paid([])
            .when(Command::RecordStockClosed)
            .then_refused(Refusal::NotOwed { status: Status::Confirmed });
    }

    #[test]
    fn a_finished_order_shrinks_and_still_answers() {
        let letters = [mail_sent(Mail::Confirmed), mail_refused(Mail::Shipped)];
        let [confirmed, shipped_too] = letters;
        let mut order = paid([confirmed, shipped(), delivered(), shipped_too, customer_settled()]);
        order.state.compact();
        assert!(order.state.detail().is_some(), "it still owes the shipment of its stock");
        let mut order = order.when(Command::RecordStockClosed).then([stock_settled()]);
        order.state.compact();
        assert_eq!((order.state.detail(), order.state.payment()), (None, None));
        assert!(size_of::<Order>() <= 104, "{}", size_of::<Order>());
        owes(&order, &[]);
        order
            .when(capture())
            .then_nothing()
            .when(Status::Delivered)
            .then_nothing()
            .when(Command::RecordStockClosed)
            .then_nothing()
            .when(cancel("late"))
            .then_refused(illegal(Status::Delivered, Status::Cancelled));
    }

    #[test]
    fn an_order_that_can_go_on_keeps_what_it_holds() {
        let mut order = paid([customer_settled()]);
        order.state.compact();
        owes(&order, &[]);
        assert!(order.state.detail().is_some());
        owes(&order.when(Status::Shipped).then([shipped()]), &["ship-stock"]);
    }

    #[test]
    fn bookkeeping_does_not_move_the_version_shown() {
        let order = order([placed()]).later(at(5), expired()).later(at(6), customer_settled());
        assert_eq!(order.state.shown().version, 2);
        assert_eq!(
            (order.state.shown().created_at, order.state.shown().updated_at),
            (at(1), at(5))
        );
    }

    #[derive(Deserialize)]
    struct History {
        name: String,
        events: Vec<Written>,
    }

    #[derive(Deserialize)]
    struct Written {
        r#type: String,
        schema: u16,
        body: Box<serde_json::value::RawValue>,
        owes: Vec<String>,
    }

    /// New code must owe nothing because of old history, so entries are only ever added to
    /// `golden.json`.
    #[test]
    fn old_histories_owe_what_is_written_down() {
        let histories: Vec<History> = serde_json::from_str(include_str!("golden.json")).unwrap();
        let mut seen = BTreeSet::new();
        for History { name, events } in &histories {
            let mut order = Order::default();
            for (version, written) in (1..).zip(events) {
                let body = written.body.get().as_bytes();
                let stream = StreamId::order(id(1));
                let event = events::Event::from_json(stream, &written.r#type, written.schema, body);
                let events::Event::Order(event) = event.unwrap() else { panic!("of an order") };
                order.evolve(&event, At { version, time: at(0) });
                let owed: Vec<_> =
                    order.owed().iter().map(|effect| effect.id().to_string()).collect();
                assert_eq!(owed, written.owes, "{name}, after event {version}");
                seen.insert(event.type_name());
            }
        }
        let known: BTreeSet<_> = Event::TYPES.iter().map(|(name, _)| *name).collect();
        assert_eq!(seen, known, "every event stands in a history");
    }
}

mod mailing {
    use super::*;

    #[track_caller]
    fn owes_mail(order: &Given<Order>, mail: Option<Mail>) {
        let owed = order.state.owed().into_iter().filter_map(|effect| match effect {
            Effect::Mail { mail, customer_id } => Some((mail, customer_id)),
            _ => None,
        });
        let owed: Vec<_> = owed.collect();
        assert_eq!(owed, mail.map(|mail| (mail, id(CUSTOMER))).into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_letter_is_owed_until_it_is_sent_and_recorded_once() {
        let order = paid([]);
        owes_mail(&order, Some(Mail::Confirmed));
        let order = order
            .when(sent(Mail::Confirmed))
            .then([mail_sent(Mail::Confirmed)])
            .when(sent(Mail::Confirmed))
            .then_nothing()
            .when(refused(Mail::Confirmed))
            .then_nothing();
        owes_mail(&order, None);
    }

    #[test]
    fn a_letter_that_was_refused_is_no_longer_owed() {
        let order = paid([mail_sent(Mail::Confirmed), shipped()])
            .when(refused(Mail::Shipped))
            .then([mail_refused(Mail::Shipped)])
            .when(sent(Mail::Shipped))
            .then_nothing();
        owes_mail(&order, None);
    }

    #[test]
    fn letters_go_out_in_the_order_of_the_events() {
        let order = paid([shipped(), delivered()]);
        owes_mail(&order, Some(Mail::Confirmed));
        let order = order.when(sent(Mail::Confirmed)).then([mail_sent(Mail::Confirmed)]);
        owes_mail(&order, Some(Mail::Shipped));
        let order = paid([called_off(None)]);
        let order = order.when(sent(Mail::Confirmed)).then([mail_sent(Mail::Confirmed)]);
        owes_mail(&order, Some(Mail::Cancelled));
    }

    #[test]
    fn an_unconfirmed_order_owes_no_letter_when_cancelled() {
        for ended in [cancelled("late"), expired(), short().into()] {
            owes_mail(&order([placed(), ended]), None);
        }
        order([placed()]).when(sent(Mail::Confirmed)).then_nothing();
    }

    #[test]
    fn an_order_keeps_what_its_letter_shows_until_it_is_sent() {
        let end = [shipped(), delivered(), customer_settled(), stock_settled()];
        let mut order = paid(end);
        order.state.compact();
        assert!(order.state.detail().is_some());
        let mut order = order
            .when(sent(Mail::Confirmed))
            .then([mail_sent(Mail::Confirmed)])
            .when(sent(Mail::Shipped))
            .then([mail_sent(Mail::Shipped)]);
        order.state.compact();
        assert_eq!(order.state.detail(), None);
    }
}

fn status() -> impl Strategy<Value = Status> {
    use Status::{Cancelled, Confirmed, Delivered, Pending, Processing, Rejected, Shipped};
    proptest::sample::select(vec![
        Pending, Confirmed, Processing, Shipped, Delivered, Cancelled, Rejected,
    ])
}

fn unit_price() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..10_000i64, 1 => any::<i64>()]
}

fn then(order: Given<Order>, events: Vec<Event>) -> Given<Order> {
    events.into_iter().fold(order, |order, event| order.later(at(1_000), event))
}

/// Commands that fit each other often enough to reach late states.
fn command() -> impl Strategy<Value = Command> {
    let ordinal = || prop_oneof![9 => Just(1u32), 1 => 0..3u32];
    let payment_id = proptest::sample::select(vec!["pi_1", "pi_2"]);
    let by = prop_oneof![Just(None), Just(Some(id(CUSTOMER))), Just(Some(id(8)))];
    prop_oneof![
        2 => Just(place().into()),
        4 => (any::<bool>(), any::<bool>(), unit_price(), unit_price()).prop_map(
            |(vip, first, one, two)| {
                Price { vip, first, ..price_of([reserved(1, 2, one), reserved(2, 1, two)]) }.into()
            }
        ),
        1 => Just(short().into()),
        4 => (ordinal(), payment_id).prop_map(|(ordinal, payment_id)| {
            StartPayment { ordinal, payment_id: payment_id.into() }.into()
        }),
        4 => (ordinal(), 0..3000i64).prop_map(|(ordinal, amount)| {
            RecordCaptured { ordinal, amount: pounds(amount) }.into()
        }),
        1 => ordinal().prop_map(|ordinal| RecordDeclined { ordinal, ..decline() }.into()),
        1 => ordinal().prop_map(|ordinal| RecordVoided { ordinal }.into()),
        1 => Just(Command::Expire),
        1 => by.prop_map(|by| Cancel { by, reason: None }.into()),
        4 => status().prop_map(Command::ChangeStatus),
        2 => ordinal().prop_map(|ordinal| RecordRefund { ordinal, ..refund() }.into()),
        2 => proptest::sample::select(Mail::ALL.to_vec()).prop_map(|mail| sent(mail).into()),
        1 => proptest::sample::select(Mail::ALL.to_vec()).prop_map(|mail| refused(mail).into()),
        2 => Just(Command::RecordCustomerClosed),
        2 => Just(Command::RecordStockClosed),
    ]
}

fn is_outcome(command: &Command) -> bool {
    matches!(
        command,
        Command::RecordCaptured(_)
            | Command::RecordDeclined(_)
            | Command::RecordVoided(_)
            | Command::RecordRefund(_)
            | Command::RecordCustomerClosed
            | Command::RecordStockClosed
            | Command::Expire
            | Command::RecordMailSent(_)
            | Command::RecordMailRefused(_)
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// For any sequence of commands: no panic, a replay gives the running state, compacting changes
    /// no answer, and the rules about payments hold.
    #[test]
    fn money_is_never_taken_twice_nor_kept_for_a_dead_order(
        commands in proptest::collection::vec((0..200u16, command()), 0..40),
    ) {
        let (mut captures, mut refunds) = (0, 0);
        run::<Order>(commands, |order, command, decided, now| {
            for event in decided.iter().flatten() {
                captures += u32::from(matches!(event, Event::PaymentCaptured(_)));
                refunds += u32::from(matches!(event, Event::RefundIssued(_)));
            }
            assert!(captures <= 1 && refunds <= captures);
            let owed: Vec<_> = order.owed().iter().map(|effect| effect.id().to_string()).collect();
            let dead = order.status().is_some_and(Status::is_dead);
            assert_eq!(owed.contains(&"refund/1".to_owned()), dead && captures > refunds);
            if order.was_confirmed {
                let detail = order.detail().unwrap();
                assert!(captures == 1 || detail.priced.as_ref().unwrap().total.amount == 0);
            }
            // A pending order always has a next step. A final order that owes nothing needs none.
            if order.is_pending() {
                assert_eq!(owed.len(), 1, "{owed:?}");
            }
            if order.status().is_some_and(Status::is_done) && owed.is_empty() {
                let mut finished = order.clone();
                finished.compact();
                assert_eq!(finished.detail(), None);
            }
            if decided.is_ok() && is_outcome(command) {
                assert_eq!(order.decide(command, now), Ok(vec![]), "asked again");
            }
        });
    }

    /// Carrying out the owed effects brings an order to its end, even if a cancellation or the
    /// deadline comes between.
    #[test]
    fn owed_effects_lead_to_an_end(
        interruption in proptest::option::of((0..6usize, any::<bool>())),
        outcomes in proptest::collection::vec(0..3u8, 6),
    ) {
        let mut order = order([placed()]);
        for step in 0..12 {
            if let Some((when, expire)) = interruption
                && when == step
            {
                let end = if expire { Command::Expire } else { cancel("late").into() };
                let events = order.state.decide(&end, at(1_000)).unwrap_or_default();
                order = then(order, events);
            }
            let Some(effect) = order.state.owed().into_iter().next() else { break };
            let command: Command = match (effect, outcomes.get(step)) {
                (Effect::Open { .. }, Some(0)) => short().into(),
                (Effect::Open { .. }, _) => price().into(),
                (Effect::StartPayment { .. }, _) => start("pi_1").into(),
                (Effect::Capture { .. }, Some(0)) => decline().into(),
                (Effect::Capture { .. } | Effect::Settle { .. }, Some(1)) => void().into(),
                (Effect::Capture { .. } | Effect::Settle { .. }, _) => capture().into(),
                (Effect::Refund { .. }, _) => refund().into(),
                (Effect::CloseCustomer { .. }, _) => Command::RecordCustomerClosed,
                (Effect::ReleaseStock { .. } | Effect::ShipStock { .. }, _) => Command::RecordStockClosed,
                (Effect::Mail { mail, .. }, Some(0)) => refused(mail).into(),
                (Effect::Mail { mail, .. }, _) => sent(mail).into(),
            };
            let events = order.state.decide(&command, at(1_000)).unwrap();
            prop_assert!(!events.is_empty(), "every effect ends in an event");
            order = then(order, events);
        }
        prop_assert!(order.state.owed().is_empty());
        prop_assert!(!order.state.is_pending());
    }
}
