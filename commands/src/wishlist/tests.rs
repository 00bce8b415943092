use super::*;
use crate::aggregate::testing::{Given, at, given, id, run};
use events::wishlist::{Cleared, Event, ItemAdded, ItemRemoved};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn added(product: u128) -> Event {
    ItemAdded { product_id: id(product) }.into()
}

fn removed(product: u128) -> Event {
    ItemRemoved { product_id: id(product) }.into()
}

fn add(product: u128) -> Command {
    Command::Add(id(product))
}

fn remove(product: u128) -> Command {
    Command::Remove(id(product))
}

fn wishlist(events: impl IntoIterator<Item = Event>) -> Given<Wishlist> {
    given(events)
}

#[test]
fn a_product_is_on_the_list_once() {
    wishlist([]).when(add(1)).then([added(1)]).when(add(1)).then_nothing();
    wishlist([]).when(remove(1)).then_nothing();
    wishlist([added(1)]).when(remove(1)).then([removed(1)]).when(remove(1)).then_nothing();
}

#[test]
fn a_product_added_again_is_the_newest() {
    let list = wishlist([added(1), added(2), removed(1), added(1)]).state;
    assert_eq!(list.item(id(1)), Some(Item { version: 4, added_at: at(4) }));
    assert_eq!(list.item(id(2)), Some(Item { version: 2, added_at: at(2) }));
    assert_eq!((list.item(id(3)), list.shown_version()), (None, 4));
}

#[test]
fn a_full_list_accepts_only_products_that_it_has() {
    let most = MAX_ITEMS as u128;
    wishlist((0..most).map(added))
        .when(add(most))
        .then_refused_and_back(Refusal::Full { most: MAX_ITEMS })
        .when(add(0))
        .then_nothing()
        .when(remove(7))
        .then([removed(7)])
        .when(add(most))
        .then([added(most)]);
}

#[test]
fn a_list_that_is_cleared_stays_empty() {
    let cleared = || Event::from(Cleared {});
    wishlist([added(1), added(2)])
        .when(Command::Clear)
        .then([cleared()])
        .when(Command::Clear)
        .then_nothing()
        .when(add(1))
        .then_refused_and_back(Refusal::Cleared)
        .when(remove(1))
        .then_refused(Refusal::Cleared);
    // An empty one, too: an addition may be under way.
    wishlist([]).when(Command::Clear).then([cleared()]).when(add(1)).then_refused(Refusal::Cleared);
    assert_eq!(wishlist([added(1), cleared()]).state.item(id(1)), None);
}

proptest! {
    /// For any sequence of commands: no panic, a replay gives the running state, a repeated command
    /// changes nothing.
    #[test]
    fn the_list_is_as_the_last_commands_asked(
        commands in proptest::collection::vec((0..2u16, 0..6u128, any::<bool>()), 0..60),
    ) {
        let commands = commands.into_iter().map(|(seconds, product, adds)| {
            (seconds, if adds { add(product) } else { remove(product) })
        });
        let mut wanted = BTreeSet::new();
        run::<Wishlist>(commands, |list, command, _, now| {
            match *command {
                Command::Add(product) => wanted.insert(product),
                Command::Remove(product) => wanted.remove(&product),
                Command::Clear => false,
            };
            assert!(list.items.keys().eq(wanted.iter()));
            assert_eq!(crate::aggregate::Aggregate::decide(list, command, now), Ok(vec![]));
        });
    }
}
