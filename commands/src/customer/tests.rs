use super::*;
use crate::OrderLimits;
use crate::aggregate::{
    Aggregate, At,
    testing::{Given, at, given, id, run},
};
use events::{
    Sealed,
    customer::{
        Changed, EmailChangeRefused, EmailChangeRequested, EmailChanged, EmailSettled, Erased,
        Event, KeyDestroyed, OrderClosed, OrderOpened, Registered, RegistrationRefused,
        RegistrationRequested,
    },
};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn sealed(text: &str) -> Sealed {
    Sealed::from(text.to_owned())
}

fn register() -> Register {
    Register {
        email_id: id(1),
        email: sealed("ann@old"),
        first_name: sealed("Ann"),
        last_name: sealed("Lee"),
    }
}

fn requested() -> Event {
    let Register { email_id, email, first_name, last_name } = register();
    RegistrationRequested { email_id, email, first_name, last_name }.into()
}

fn registered() -> Event {
    Registered { returning: false }.into()
}

fn changed(first_name: &str, vip: bool) -> Event {
    Changed { first_name: sealed(first_name), last_name: sealed("Lee"), vip }.into()
}

fn address(email_id: u128) -> (uuid::Uuid, Sealed) {
    (id(email_id), sealed(&format!("ann@{email_id}")))
}

fn to_address(email_id: u128) -> Change {
    Change { email: Some(address(email_id)), ..Change::default() }
}

fn wants(attempt: u32, email_id: u128) -> Event {
    let (email_id, email) = address(email_id);
    EmailChangeRequested {
        attempt,
        email_id,
        email,
        first_name: sealed("Ann"),
        last_name: sealed("Lee"),
        vip: false,
    }
    .into()
}

fn has(attempt: u32, email_id: u128) -> Event {
    let (email_id, email) = address(email_id);
    EmailChanged {
        attempt,
        email_id,
        email,
        first_name: sealed("Ann"),
        last_name: sealed("Lee"),
        vip: false,
        returning: false,
    }
    .into()
}

fn refused(attempt: u32) -> Event {
    EmailChangeRefused { attempt }.into()
}

fn email_released(attempt: u32) -> Event {
    EmailSettled { attempt }.into()
}

fn confirm(attempt: u32) -> Command {
    Command::ConfirmEmail { attempt, returning: false }
}

fn refuse(attempt: u32) -> Command {
    Command::RefuseEmail { attempt }
}

fn record_released(attempt: u32) -> Command {
    Command::RecordEmailReleased { attempt }
}

fn open(order: u128) -> OpenOrder {
    OpenOrder { order_id: id(order), not_after: at(100), limits: OrderLimits::default() }
}

fn opened(order: u128, vip: bool, first: bool) -> Event {
    OrderOpened { order_id: id(order), vip, first, not_after: at(100) }.into()
}

fn close(order: u128, confirmed: bool) -> CloseOrder {
    CloseOrder { order_id: id(order), confirmed, declined: false, not_after: at(100) }
}

fn closed(order: u128, confirmed: bool) -> Event {
    OrderClosed { order_id: id(order), confirmed, declined: false, not_after: at(100) }.into()
}

fn customer(events: impl IntoIterator<Item = Event>) -> Given<Customer> {
    given(events)
}

/// A registered customer with these further events.
fn ann(then: impl IntoIterator<Item = Event>) -> Given<Customer> {
    customer([requested(), registered()].into_iter().chain(then))
}

#[track_caller]
fn owes(customer: &Given<Customer>, effects: &[Effect]) {
    assert_eq!(customer.state.owed(), effects);
}

fn takes(attempt: u32, email_id: u128) -> Effect {
    Effect::TakeEmail { attempt, email_id: id(email_id) }
}

fn release_of(attempt: u32, email_id: u128) -> Effect {
    Effect::ReleaseEmail { attempt, email_id: id(email_id), ordered: false }
}

mod registering {
    use super::*;

    #[test]
    fn a_registration_waits_for_its_address() {
        let customer = customer([]).when(register()).then([requested()]);
        assert!(customer.state.is_change_pending());
        owes(&customer, &[takes(1, 1)]);
        let customer = customer
            .when(register())
            .then_refused_and_back(Refusal::AlreadyExists)
            .when(Command::ConfirmRegistration { returning: false })
            .then([registered()])
            .when(Command::ConfirmRegistration { returning: false })
            .then_nothing();
        assert!(!customer.state.is_change_pending());
        owes(&customer, &[]);
        customer.when(Command::RefuseRegistration).then_refused(Refusal::RegistrationAnswered);
    }

    #[test]
    fn a_refused_registration_owes_the_release_of_its_address() {
        let customer = customer([requested()])
            .when(Command::RefuseRegistration)
            .then([RegistrationRefused {}.into()])
            .when(Command::RefuseRegistration)
            .then_nothing();
        assert_eq!(customer.state.status(), Some(Status::Refused));
        owes(&customer, &[release_of(1, 1)]);
        let customer = customer
            .when(record_released(1))
            .then([email_released(1)])
            .when(record_released(1))
            .then_nothing();
        owes(&customer, &[]);
        customer
            .when(Command::ConfirmRegistration { returning: false })
            .then_refused_and_back(Refusal::RegistrationAnswered)
            .when(open(1))
            .then_refused_and_back(Refusal::NotFound)
            .when(Change::default())
            .then_refused(Refusal::NotFound);
    }

    #[test]
    fn an_answer_without_a_request_is_refused() {
        for command in
            [Command::ConfirmRegistration { returning: false }, Command::RefuseRegistration]
        {
            customer([]).when(command).then_refused(Refusal::NotFound);
        }
        for command in [confirm(1), refuse(1), record_released(1)] {
            customer([]).when(command).then_refused(Refusal::UnknownAttempt { attempt: 1 });
        }
    }
}

mod changing {
    use super::*;

    #[test]
    fn a_change_contains_every_field_and_keeps_those_not_named() {
        let vip = Change { vip: Some(true), ..Change::default() };
        let name = Change { first_name: Some(sealed("Anna")), ..Change::default() };
        ann([])
            .when(vip.clone())
            .then([changed("Ann", true)])
            .when(vip)
            .then_nothing()
            .when(name)
            .then([changed("Anna", true)])
            .when(Change::default())
            .then_nothing();
    }

    #[test]
    fn no_change_before_the_last_one_is_answered() {
        let vip = Change { vip: Some(true), ..Change::default() };
        customer([requested()]).when(vip.clone()).then_refused(Refusal::ChangeInProgress);
        ann([wants(2, 2)]).when(vip.clone()).then_refused(Refusal::ChangeInProgress);
        ann([wants(2, 2)]).when(to_address(2)).then_refused(Refusal::ChangeInProgress);
        customer([]).when(vip).then_refused(Refusal::NotFound);
    }

    #[test]
    fn a_confirmed_address_brings_the_whole_change() {
        let all = Change { first_name: Some(sealed("Anna")), vip: Some(true), ..to_address(2) };
        let (email_id, email) = address(2);
        let profile = Profile {
            email_id,
            email: email.clone(),
            first_name: sealed("Anna"),
            last_name: sealed("Lee"),
            vip: true,
        };
        let Profile { first_name, last_name, .. } = profile.clone();
        let wants = EmailChangeRequested {
            attempt: 2,
            email_id,
            email,
            first_name: first_name.clone(),
            last_name: last_name.clone(),
            vip: true,
        };
        let customer = ann([]).when(all).then([wants.into()]);
        assert_eq!(customer.state.profile().unwrap().email_id, id(1));
        owes(&customer, &[takes(2, 2)]);
        let has = EmailChanged {
            returning: false,
            attempt: 2,
            email_id,
            email: profile.email.clone(),
            first_name,
            last_name,
            vip: true,
        };
        let customer = customer.when(confirm(2)).then([has.into()]).when(confirm(2)).then_nothing();
        assert_eq!(customer.state.profile(), Some(&profile));
        assert_eq!((customer.state.current_attempt(), customer.state.attempts()), (Some(2), 2));
        owes(&customer, &[release_of(1, 1)]);
        owes(&customer.when(record_released(1)).then([email_released(1)]), &[]);
    }

    #[test]
    fn a_refused_address_changes_nothing() {
        let before = ann([]).state.profile().cloned();
        let customer =
            ann([wants(2, 2)]).when(refuse(2)).then([refused(2)]).when(refuse(2)).then_nothing();
        assert_eq!(customer.state.profile().cloned(), before);
        assert_eq!((customer.state.current_attempt(), customer.state.attempts()), (Some(1), 2));
        owes(&customer, &[release_of(2, 2)]);
        customer.when(confirm(2)).then_refused(Refusal::UnknownAttempt { attempt: 2 });
    }

    #[test]
    fn the_current_address_cannot_be_refused_or_released() {
        let unknown = |attempt| Refusal::UnknownAttempt { attempt };
        ann([]).when(refuse(1)).then_refused(unknown(1));
        ann([]).when(record_released(1)).then_refused(unknown(1));
        ann([wants(2, 2)]).when(record_released(2)).then_refused(unknown(2));
        ann([wants(2, 2)]).when(confirm(3)).then_refused(unknown(3));
    }

    #[test]
    fn changes_follow_each_other_while_old_addresses_are_still_being_left() {
        let customer = ann([wants(2, 2), has(2, 2), wants(3, 1), has(3, 1)]);
        owes(&customer, &[release_of(1, 1), release_of(2, 2)]);
        let customer = customer.when(to_address(3)).then([wants(4, 3)]);
        owes(&customer, &[takes(4, 3), release_of(1, 1), release_of(2, 2)]);
    }

    #[test]
    fn another_spelling_of_the_same_address_is_taken_again() {
        let spelled = Change { email: Some((id(1), sealed("Ann@old"))), ..Change::default() };
        let customer = ann([]);
        let Ok(events) = customer.state.decide(&spelled.into(), at(5)) else { panic!() };
        let [Event::EmailChangeRequested(wanted)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((wanted.attempt, wanted.email_id), (2, id(1)));
    }
}

mod orders {
    use super::*;

    #[test]
    fn only_the_first_open_order_is_the_first() {
        ann([])
            .when(open(1))
            .then([opened(1, false, true)])
            .when(open(2))
            .then([opened(2, false, false)]);
    }

    #[test]
    fn a_rejected_first_order_gives_the_discount_back_and_a_confirmed_one_does_not() {
        ann([opened(1, false, true)])
            .when(close(1, false))
            .then([closed(1, false)])
            .when(open(2))
            .then([opened(2, false, true)])
            .when(close(2, true))
            .then([closed(2, true)])
            .when(open(3))
            .then([opened(3, false, false)]);
    }

    #[test]
    fn an_order_opened_again_keeps_its_first_answer() {
        let customer = ann([opened(1, false, true), changed("Ann", true)]);
        let customer = customer.at(at(101)).when(open(1)).then_nothing();
        let first = OpenedOrder { vip: false, first: true };
        assert_eq!(customer.state.opened(id(1)), Some(first));
        customer.at(at(99)).when(open(2)).then([opened(2, true, false)]);
    }

    #[test]
    fn an_order_closed_before_its_open_or_the_registration_stays_closed() {
        ann([])
            .when(close(1, false))
            .then([closed(1, false)])
            .when(open(1))
            .then_refused(Refusal::OrderClosed);
        let customer = customer([])
            .when(close(1, false))
            .then([closed(1, false)])
            .when(close(1, false))
            .then_nothing();
        assert!(!customer.state.exists());
        customer
            .when(open(1))
            .then_refused_and_back(Refusal::NotFound)
            .when(register())
            .then([requested()])
            .when(open(1))
            .then_refused_and_back(Refusal::NotFound)
            .when(Command::ConfirmRegistration { returning: false })
            .then([registered()])
            .when(open(1))
            .then_refused(Refusal::OrderClosed);
    }

    #[test]
    fn a_confirmed_order_counts_once_even_when_its_close_is_forgotten() {
        let customer = ann([opened(1, false, true)])
            .when(close(1, true))
            .then([closed(1, true)])
            .when(close(1, true))
            .then_nothing()
            .later(at(101), changed("Anna", false));
        assert_eq!((customer.state.order_count(), customer.state.closed.len()), (1, 0));
        let customer = customer.when(close(1, true)).then([closed(1, false)]);
        assert_eq!(customer.state.order_count(), 1);
        customer.when(open(1)).then_refused(Refusal::OrderClosed);
    }

    #[test]
    fn only_visible_changes_move_the_version_shown() {
        let customer = ann([])
            .later(at(5), opened(1, false, true))
            .later(at(6), wants(2, 2))
            .later(at(7), refused(2))
            .later(at(8), email_released(2))
            .later(at(9), closed(2, false));
        assert_eq!((customer.state.shown().version, customer.state.shown().updated_at), (2, at(2)));
        let customer = customer.later(at(10), closed(1, true));
        assert_eq!(
            (customer.state.shown().version, customer.state.shown().updated_at),
            (8, at(10))
        );
        assert_eq!(customer.state.shown().created_at, at(1));
    }
}

mod erasing {
    use super::*;

    fn erased() -> Event {
        Erased {}.into()
    }

    fn destroyed() -> Event {
        KeyDestroyed {}.into()
    }

    #[test]
    fn an_erased_customer_owes_key_and_address_until_both_are_gone() {
        let customer = ann([]).when(Command::Erase).then([erased()]);
        assert!(customer.state.is_change_pending() && customer.state.profile().is_none());
        owes(&customer, &[release_of(1, 1), Effect::DestroyKey]);
        let customer = customer
            .when(Command::Erase)
            .then_nothing()
            .when(Command::RecordKeyDestroyed)
            .then([destroyed()])
            .when(Command::RecordKeyDestroyed)
            .then_nothing();
        assert!(customer.state.is_change_pending(), "the address is not free yet");
        owes(&customer, &[release_of(1, 1)]);
        let customer = customer.when(record_released(1)).then([email_released(1)]);
        owes(&customer, &[]);
        assert!(customer.state.is_erased() && !customer.state.is_change_pending());
        customer.when(Command::Erase).then_nothing();
    }

    #[test]
    fn an_erased_customer_cannot_change_register_or_order() {
        ann([erased()])
            .when(Change { vip: Some(true), ..Change::default() })
            .then_refused_and_back(Refusal::Erased)
            .when(Change::default())
            .then_refused_and_back(Refusal::Erased)
            .when(register())
            .then_refused_and_back(Refusal::AlreadyExists)
            .when(open(1))
            .then_refused(Refusal::NotFound);
    }

    #[test]
    fn an_erasure_during_the_registration_ignores_its_answer() {
        let customer = customer([requested()]).when(Command::Erase).then([erased()]);
        owes(&customer, &[release_of(1, 1), Effect::DestroyKey]);
        customer
            .when(Command::ConfirmRegistration { returning: false })
            .then_refused_and_back(Refusal::Erased)
            .when(Command::RefuseRegistration)
            .then_refused_and_back(Refusal::Erased)
            .when(record_released(1))
            .then([email_released(1)]);
    }

    #[test]
    fn an_erasure_during_a_change_of_address_releases_both() {
        let customer = ann([wants(2, 2)]).when(Command::Erase).then([erased()]);
        owes(&customer, &[release_of(1, 1), release_of(2, 2), Effect::DestroyKey]);
        customer
            .when(confirm(2))
            .then_refused_and_back(Refusal::UnknownAttempt { attempt: 2 })
            .when(refuse(2))
            .then_nothing();
    }

    #[test]
    fn an_order_that_is_open_goes_on_and_counts() {
        let customer = ann([opened(1, false, true), erased()])
            .when(open(1))
            .then_nothing()
            .when(close(1, true))
            .then([closed(1, true)]);
        assert_eq!(customer.state.order_count(), 1);
    }

    #[test]
    fn what_a_refused_registration_said_can_be_erased() {
        let refused = || customer([requested(), RegistrationRefused {}.into()]);
        let erased_at_once = refused().when(Command::Erase).then([erased()]);
        owes(&erased_at_once, &[release_of(1, 1), Effect::DestroyKey]);
        let settled = refused().when(record_released(1)).then([email_released(1)]);
        owes(&settled.when(Command::Erase).then([erased()]), &[Effect::DestroyKey]);
    }

    #[test]
    fn only_a_customer_is_erased_and_no_key_is_destroyed_without_erasure() {
        customer([]).when(Command::Erase).then_refused(Refusal::NotFound);
        ann([]).when(Command::RecordKeyDestroyed).then_refused(Refusal::NotErased);
    }
}

fn command() -> impl Strategy<Value = Command> {
    let attempt = || 0..6u32;
    prop_oneof![
        2 => Just(register().into()),
        4 => Just(Command::ConfirmRegistration { returning: false }),
        1 => Just(Command::RefuseRegistration),
        4 => (1..4u128).prop_map(|email_id| to_address(email_id).into()),
        1 => any::<bool>().prop_map(|vip| Change { vip: Some(vip), ..Change::default() }.into()),
        3 => attempt().prop_map(confirm),
        3 => attempt().prop_map(refuse),
        3 => attempt().prop_map(record_released),
        1 => Just(Command::Erase),
        1 => Just(Command::RecordKeyDestroyed),
        4 => (1..5u128).prop_map(|order| open(order).into()),
        4 => (1..5u128, any::<bool>())
            .prop_map(|(order, confirmed)| close(order, confirmed).into()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// For any sequence of commands: no panic, a replay gives the running state, at most one open
    /// order is a first one, every confirmed order counts once, and every change is
    /// accounted for once: it is the current one, it owes an effect, or it was released.
    #[test]
    fn any_commands_keep_the_invariants_of_a_customer(
        commands in proptest::collection::vec((0..10u16, command()), 0..60),
    ) {
        let mut confirmed = BTreeSet::new();
        let mut released = BTreeSet::new();
        run::<Customer>(commands, |customer, command, decided, now| {
            for event in decided.iter().flatten() {
                match event {
                    Event::OrderClosed(closed) if closed.confirmed => {
                        assert!(confirmed.insert(closed.order_id), "counted once");
                    }
                    Event::EmailSettled(settled) => {
                        released.insert(settled.attempt);
                    }
                    _ => {}
                }
            }
            assert_eq!(customer.order_count(), confirmed.len() as u64);
            assert!(customer.open.values().filter(|order| order.first).count() <= 1);
            let mut accounted = released.clone();
            for effect in customer.owed() {
                match effect {
                    Effect::TakeEmail { attempt, .. } | Effect::ReleaseEmail { attempt, .. } => {
                        assert!(accounted.insert(attempt), "owed once: {effect:?}");
                    }
                    Effect::DestroyKey => assert!(customer.is_erased()),
                }
            }
            accounted.extend(customer.current_attempt());
            assert_eq!(accounted, (1..=customer.attempts()).collect());
            let is_outcome = !matches!(command, Command::Register(_) | Command::CloseOrder(_));
            if decided.is_ok() && is_outcome {
                let again = customer.decide(command, now);
                let waits = matches!(command, Command::Change(_)) && customer.is_change_pending();
                assert_eq!(again, if waits { Err(Refusal::ChangeInProgress) } else { Ok(vec![]) });
            }
        });
    }
}

mod limits {
    use super::*;

    const LIMITS: OrderLimits = OrderLimits { open_orders: 2, declined_payments: 2 };

    fn open_within(order: u128, not_after: i64) -> OpenOrder {
        OpenOrder { order_id: id(order), not_after: at(not_after), limits: LIMITS }
    }

    fn declined(order: u128) -> CloseOrder {
        CloseOrder { declined: true, ..close(order, false) }
    }

    #[test]
    fn only_so_many_orders_are_open_at_the_same_time() {
        ann([])
            .when(open_within(1, 100))
            .then([opened(1, false, true)])
            .when(open_within(2, 100))
            .then([opened(2, false, false)])
            .when(open_within(3, 100))
            .then_refused_and_back(Refusal::TooManyOpenOrders { open: 2 })
            .when(open_within(2, 100))
            .then_nothing()
            .when(open(3))
            .then([opened(3, false, false)])
            .when(close(1, true))
            .then([closed(1, true)])
            .when(close(2, false))
            .then([closed(2, false)])
            .when(open_within(4, 100))
            .then([opened(4, false, false)]);
    }

    #[test]
    fn declined_payments_count_for_an_hour() {
        const LATE: i64 = 9_000;
        let decline = |order| {
            let not_after = at(100);
            OrderClosed { order_id: id(order), confirmed: false, declined: true, not_after }
        };
        let third = OrderOpened { order_id: id(3), vip: false, first: true, not_after: at(LATE) };
        ann([])
            .at(at(10))
            .when(declined(1))
            .then([decline(1).into()])
            .at(at(20))
            .when(declined(2))
            .then([decline(2).into()])
            .at(at(10 + 3_599))
            .when(open_within(3, LATE))
            .then_refused_and_back(Refusal::TooManyDeclinedPayments { declined: 2 })
            .at(at(10 + 3_600))
            .when(open_within(3, LATE))
            .then([third.into()]);
    }

    #[test]
    fn a_customer_remembers_only_the_declines_that_may_count() {
        let mut customer = Customer::default();
        for order in 0..200 {
            let decline = Event::from(OrderClosed {
                order_id: id(order),
                confirmed: false,
                declined: true,
                not_after: at(1),
            });
            customer.evolve(&decline, At { version: 1, time: at(2) });
        }
        assert_eq!(customer.declined_since(at(0)), REMEMBERED_DECLINES);
        let confirmed =
            OrderClosed { order_id: id(300), confirmed: false, declined: false, not_after: at(1) };
        customer.evolve(&confirmed.into(), At { version: 2, time: at(2 + 3_600) });
        assert_eq!(customer.declined_since(at(0)), 0);
    }
}

mod returning {
    use super::*;

    #[test]
    fn an_address_under_which_somebody_ordered_has_had_its_first_order() {
        customer([requested()])
            .when(Command::ConfirmRegistration { returning: true })
            .then([Registered { returning: true }.into()])
            .when(open(1))
            .then([opened(1, false, false)]);
        let Event::EmailChanged(changed) = has(2, 5) else { panic!() };
        ann([wants(2, 5)])
            .when(Command::ConfirmEmail { attempt: 2, returning: true })
            .then([EmailChanged { returning: true, ..changed }.into()])
            .when(open(1))
            .then([opened(1, false, false)]);
    }

    #[test]
    fn the_address_is_told_whether_the_customer_has_ordered() {
        let releases = |customer: &Given<Customer>| {
            customer.state.owed().into_iter().find_map(|effect| match effect {
                Effect::ReleaseEmail { ordered, .. } => Some(ordered),
                _ => None,
            })
        };
        let erased = || Event::from(Erased {});
        assert_eq!(releases(&ann([erased()])), Some(false));
        assert_eq!(releases(&ann([opened(1, false, true), erased()])), Some(true));
        let ordered = [opened(1, false, true), closed(1, true), erased()];
        assert_eq!(releases(&ann(ordered)), Some(true));
        let rejected = [opened(1, false, true), closed(1, false), erased()];
        assert_eq!(releases(&ann(rejected)), Some(false));
    }
}
