use super::*;
use crate::aggregate::testing::{Given, given, id, run};
use events::email::{Claimed, Event, Released};
use proptest::prelude::*;
use std::collections::BTreeSet;

const ANN: u128 = 1;
const BOB: u128 = 2;

fn take(customer: u128, attempt: u32) -> Command {
    Command::Take(TakeEmail { customer_id: id(customer), attempt })
}

fn release(customer: u128, attempt: u32) -> Command {
    let request = TakeEmail { customer_id: id(customer), attempt };
    Command::Release(ReleaseEmail { request, ordered: false })
}

fn claimed(customer: u128, attempt: u32) -> Event {
    Claimed { customer_id: id(customer), attempt }.into()
}

fn released(customer: u128, attempt: u32) -> Event {
    Released { customer_id: id(customer), attempt, ordered: false }.into()
}

fn email(events: impl IntoIterator<Item = Event>) -> Given<Email> {
    given(events)
}

#[test]
fn an_address_has_one_holder() {
    email([])
        .when(take(ANN, 1))
        .then([claimed(ANN, 1)])
        .when(take(ANN, 1))
        .then_nothing()
        .when(take(BOB, 1))
        .then_refused(Refusal::Taken);
}

#[test]
fn a_released_address_is_free_for_others_and_closed_for_that_request() {
    email([claimed(ANN, 1)])
        .when(release(ANN, 1))
        .then([released(ANN, 1)])
        .when(release(ANN, 1))
        .then_nothing()
        .when(take(ANN, 1))
        .then_refused_and_back(Refusal::Closed)
        .when(take(BOB, 1))
        .then([claimed(BOB, 1)]);
}

#[test]
fn a_release_counts_only_from_the_holder() {
    let email = email([claimed(ANN, 1)]).when(release(BOB, 1)).then([released(BOB, 1)]);
    assert_eq!(email.state.holder(), Some(TakeEmail { customer_id: id(ANN), attempt: 1 }));
    email
        .when(take(BOB, 1))
        .then_refused_and_back(Refusal::Closed)
        .when(take(BOB, 2))
        .then_refused(Refusal::Taken);
}

#[test]
fn a_release_that_comes_first_refuses_the_request() {
    email([])
        .when(release(ANN, 2))
        .then([released(ANN, 2)])
        .when(take(ANN, 2))
        .then_refused_and_back(Refusal::Closed)
        .when(take(ANN, 1))
        .then_refused_and_back(Refusal::Closed)
        .when(release(ANN, 1))
        .then_nothing()
        .when(take(ANN, 3))
        .then([claimed(ANN, 3)]);
}

#[test]
fn a_customer_who_comes_back_before_having_left_keeps_the_address() {
    let email = email([claimed(ANN, 1)])
        .when(take(ANN, 3))
        .then([claimed(ANN, 3)])
        .when(take(ANN, 2))
        .then_refused_and_back(Refusal::Closed)
        .when(release(ANN, 1))
        .then([released(ANN, 1)]);
    assert_eq!(email.state.holder(), Some(TakeEmail { customer_id: id(ANN), attempt: 3 }));
}

#[test]
fn a_later_request_released_first_does_not_keep_the_earlier_one_for_ever() {
    let email =
        email([claimed(ANN, 1), released(ANN, 2)]).when(release(ANN, 1)).then([released(ANN, 1)]);
    assert_eq!(email.state.holder(), None);
}

#[test]
fn only_the_last_who_released_the_address_are_remembered() {
    let most = u128::try_from(state::REMEMBERED).unwrap();
    let email = email((1..=most + 1).map(|customer| released(customer, 1)));
    assert_eq!((email.state.released.len(), email.state.releasers.len()), (1_000, 1_000));
    email.when(take(2, 1)).then_refused(Refusal::Closed);
}

#[test]
fn an_address_is_known_once_somebody_who_had_it_and_ordered_left() {
    let left = |customer, ordered| Released { customer_id: id(customer), attempt: 1, ordered };
    let is_known = |events: Vec<Event>| email(events).state.is_known();
    assert!(!is_known(vec![claimed(ANN, 1), left(ANN, false).into()]));
    assert!(!is_known(vec![claimed(ANN, 1), left(BOB, true).into()]), "who never had it");
    let known = vec![claimed(ANN, 1), left(ANN, true).into(), claimed(BOB, 1)];
    assert!(is_known(known.clone()));
    let again = known.into_iter().chain([left(BOB, false).into()]);
    assert!(is_known(again.collect()), "for ever");
    let request = TakeEmail { customer_id: id(ANN), attempt: 1 };
    email([claimed(ANN, 1)])
        .when(Command::Release(ReleaseEmail { request, ordered: true }))
        .then([left(ANN, true).into()]);
}

proptest! {
    /// For any sequence of commands: no panic, a replay gives the running state, a released request
    /// never has the address, and the address passes from one customer to another only through a
    /// release.
    #[test]
    fn an_address_is_never_taken_from_its_holder(
        commands in proptest::collection::vec((any::<bool>(), 1..4u128, 0..4u32), 0..40),
    ) {
        let commands = commands.into_iter().map(|(takes, customer, attempt)| {
            (1, if takes { take(customer, attempt) } else { release(customer, attempt) })
        });
        let mut over = BTreeSet::new();
        let mut holder: Option<TakeEmail> = None;
        run::<Email>(commands, |email, command, decided, _| {
            if let Command::Release(ReleaseEmail { request, .. }) = command {
                over.insert((request.customer_id, request.attempt));
            }
            if let Some(now) = email.holder() {
                assert!(!over.contains(&(now.customer_id, now.attempt)));
                let passed_on = holder.is_none_or(|before| {
                    before.customer_id == now.customer_id && before.attempt <= now.attempt
                });
                assert!(passed_on, "{command:?} on {holder:?} {decided:?}");
            }
            holder = email.holder();
        });
    }
}
