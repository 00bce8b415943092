use super::*;
use crate::aggregate::{
    Aggregate,
    testing::{Given, at, given, id, pounds, run},
};
use events::product::{
    Added, Changed, Discontinued, Event, StockChanged, StockReason, StockReleased, StockReserved,
    StockShipped,
};
use proptest::prelude::*;

fn add(initial_stock: i64) -> Add {
    Add {
        name: "Walden".into(),
        description: Some("a pond".into()),
        category: None,
        price: pounds(9_99),
        initial_stock,
    }
}

fn added(initial_stock: i64) -> Event {
    let Add { name, description, category, price, .. } = add(0);
    Added { name, description, category, price, initial_stock }.into()
}

fn reserve(order: u128, quantity: i64) -> Reserve {
    Reserve { order_id: id(order), quantity, not_after: at(100) }
}

fn reserved(order: u128, quantity: i64) -> Event {
    StockReserved {
        order_id: id(order),
        quantity,
        name: "Walden".into(),
        unit_price: pounds(9_99),
        not_after: at(100),
    }
    .into()
}

fn close(order: u128) -> Close {
    Close { order_id: id(order), not_after: at(100) }
}

fn release(order: u128) -> Command {
    Command::Release(close(order))
}

fn ship(order: u128) -> Command {
    Command::Ship(close(order))
}

fn released(order: u128, quantity: i64) -> Event {
    StockReleased { order_id: id(order), quantity, not_after: at(100) }.into()
}

fn shipped(order: u128, quantity: i64) -> Event {
    StockShipped { order_id: id(order), quantity, not_after: at(100) }.into()
}

fn stock(quantity: i64) -> ChangeStock {
    ChangeStock { quantity, reason: StockReason::Correction }
}

fn stock_changed(quantity: i64) -> Event {
    StockChanged { quantity, reason: StockReason::Correction }.into()
}

fn product(events: impl IntoIterator<Item = Event>) -> Given<Product> {
    given(events)
}

#[test]
fn a_product_is_added_once() {
    product([]).when(add(5)).then([added(5)]).when(add(5)).then_refused(Refusal::AlreadyExists);
    product([]).when(add(-1)).then_refused(Refusal::InvalidQuantity);
}

#[test]
fn a_product_that_does_not_exist_refuses_everything() {
    product([]).when(Change::default()).then_refused(Refusal::NotFound);
    product([]).when(stock(1)).then_refused(Refusal::NotFound);
    product([]).when(reserve(1, 1)).then_refused(Refusal::NotFound);
}

#[test]
fn an_order_closed_before_the_product_was_added_stays_closed() {
    let product = product([]).when(release(1)).then([released(1, 0)]);
    assert!(!product.state.exists());
    product
        .when(add(5))
        .then([added(5)])
        .when(reserve(1, 1))
        .then_refused(Refusal::ReservationClosed);
}

#[test]
fn a_change_contains_every_field_and_keeps_those_not_named() {
    let change = Change { price: Some(pounds(5_00)), description: Some(None), ..Change::default() };
    let changed =
        Changed { name: "Walden".into(), description: None, category: None, price: pounds(5_00) };
    product([added(5)])
        .when(change.clone())
        .then([changed.into()])
        .when(change)
        .then_nothing()
        .when(Change::default())
        .then_nothing();
}

#[test]
fn stock_goes_up_and_down_but_not_below_the_reservations() {
    product([added(5), reserved(1, 3)])
        .when(stock(4))
        .then([stock_changed(4)])
        .when(stock(-6))
        .then([stock_changed(-6)])
        .when(stock(0))
        .then_nothing()
        .when(stock(-1))
        .then_refused(Refusal::StockBelowReserved { on_hand: 2, reserved: 3 });
    product([added(5)])
        .when(stock(-6))
        .then_refused(Refusal::StockBelowReserved { on_hand: -1, reserved: 0 });
}

#[test]
fn stock_that_would_overflow_is_refused() {
    product([added(1)]).when(stock(i64::MAX)).then_refused(Refusal::StockOverflow);
    product([added(2), reserved(1, 2), shipped(1, 2)])
        .when(stock(i64::MAX))
        .then_refused(Refusal::StockOverflow);
}

#[test]
fn a_discontinued_product_keeps_its_reservations_and_takes_no_new_ones() {
    let discontinued = || Event::from(Discontinued {});
    product([]).when(Command::Discontinue).then_refused(Refusal::NotFound);
    product([added(5), reserved(1, 3), reserved(2, 1)])
        .when(Command::Discontinue)
        .then([discontinued()])
        .when(Command::Discontinue)
        .then_nothing()
        .when(reserve(3, 1))
        .then_refused_and_back(Refusal::Discontinued)
        .when(reserve(1, 3))
        .then_nothing()
        .when(ship(1))
        .then([shipped(1, 3)])
        .when(release(2))
        .then([released(2, 1)])
        .when(stock(-2))
        .then([stock_changed(-2)])
        .when(Change { price: Some(pounds(1)), description: Some(None), ..Change::default() })
        .then([Changed {
            name: "Walden".into(),
            description: None,
            category: None,
            price: pounds(1),
        }
        .into()]);
}

#[test]
fn a_reservation_captures_name_and_price_of_its_moment() {
    let changed =
        Changed { name: "Cities".into(), description: None, category: None, price: pounds(1) };
    let product =
        product([added(5)]).when(reserve(1, 3)).then([reserved(1, 3)]).later(at(9), changed.into());
    let held = product.state.reservation(id(1)).unwrap();
    assert_eq!((held.quantity, &*held.name, held.unit_price), (3, "Walden", pounds(9_99)));
    assert_eq!((product.state.available(), product.state.reserved()), (2, 3));
}

#[test]
fn a_reservation_asked_again_changes_nothing_even_when_late() {
    product([added(5), reserved(1, 5)])
        .at(at(101))
        .when(reserve(1, 5))
        .then_nothing()
        .when(reserve(1, 4))
        .then_refused(Refusal::AlreadyReserved { reserved: 5 });
}

#[test]
fn more_than_is_available_cannot_be_reserved() {
    product([added(5), reserved(1, 3)])
        .when(reserve(2, 3))
        .then_refused(Refusal::InsufficientStock { available: 2, requested: 3 });
    product([added(5)]).when(reserve(1, 0)).then_refused(Refusal::InvalidQuantity);
    product([added(5)]).when(reserve(1, -1)).then_refused(Refusal::InvalidQuantity);
}

#[test]
fn a_release_frees_the_reserved_units_and_closes_the_order() {
    let product = product([added(5), reserved(1, 3)]).when(release(1)).then([released(1, 3)]);
    assert_eq!((product.state.on_hand(), product.state.available()), (5, 5));
    product
        .when(release(1))
        .then_nothing()
        .when(reserve(1, 3))
        .then_refused(Refusal::ReservationClosed);
}

#[test]
fn a_release_without_a_reservation_is_an_event_and_closes_the_order() {
    product([added(5)])
        .when(release(1))
        .then([released(1, 0)])
        .when(reserve(1, 1))
        .then_refused(Refusal::ReservationClosed);
}

#[test]
fn a_shipment_takes_the_reserved_units_off_the_stock() {
    let product = product([added(5), reserved(1, 3)]).when(ship(1)).then([shipped(1, 3)]);
    let state = &product.state;
    assert_eq!((state.on_hand(), state.reserved(), state.shipped()), (2, 0, 3));
    product.when(ship(1)).then_nothing().when(release(1)).then_nothing();
}

#[test]
fn a_shipment_of_a_closed_order_moves_nothing() {
    let product = product([added(5)]).when(ship(1)).then([shipped(1, 0)]);
    assert_eq!((product.state.on_hand(), product.state.shipped()), (5, 0));
}

#[test]
fn a_forgotten_close_still_refuses_a_late_reservation() {
    let product = product([added(5), released(1, 0)]).later(at(100), stock_changed(1));
    assert_eq!(product.state.closed.len(), 1);
    let product = product.later(at(101), stock_changed(1));
    assert_eq!(product.state.closed.len(), 0);
    product.when(reserve(1, 1)).then_refused(Refusal::ReservationClosed);
}

#[test]
fn a_close_of_an_order_long_past_is_done_and_not_remembered() {
    let product =
        product([added(5), reserved(1, 3)]).at(at(500)).when(release(1)).then([released(1, 3)]);
    assert_eq!((product.state.available(), product.state.closed.len()), (5, 0));
    let product = product.when(release(1)).then([released(1, 0)]);
    assert_eq!(product.state.available(), 5);
}

#[test]
fn only_visible_changes_move_the_version_shown() {
    let product = product([released(9, 0), added(5)]);
    assert_eq!((product.state.shown().version, product.state.shown().created_at), (2, at(2)));
    let product = product.later(at(10), reserved(1, 1));
    assert_eq!((product.state.shown().version, product.state.shown().updated_at), (3, at(10)));
    let product = product.later(at(11), released(2, 0)).later(at(12), shipped(3, 0));
    assert_eq!((product.state.shown().version, product.state.shown().updated_at), (3, at(10)));
    let product = product.later(at(13), released(1, 1));
    assert_eq!((product.state.shown().version, product.state.shown().updated_at), (6, at(13)));
    assert_eq!(product.state.shown().created_at, at(2));
}

fn quantity() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -3..12i64, 1 => any::<i64>()]
}

fn command() -> impl Strategy<Value = Command> {
    let order = 1..6u128;
    let close = (order.clone(), 0..200i64)
        .prop_map(|(order, until)| Close { order_id: id(order), not_after: at(until) });
    prop_oneof![
        1 => quantity().prop_map(|stock| add(stock).into()),
        1 => (0..3i64).prop_map(|price| {
            Change { price: Some(pounds(price)), ..Change::default() }.into()
        }),
        1 => quantity().prop_map(|quantity| stock(quantity).into()),
        4 => (order, quantity(), 0..200i64).prop_map(|(order, quantity, until)| {
            Reserve { order_id: id(order), quantity, not_after: at(until) }.into()
        }),
        1 => Just(Command::Discontinue),
        2 => close.clone().prop_map(Command::Release),
        1 => close.prop_map(Command::Ship),
    ]
}

proptest! {
    /// For any sequence of commands: no panic, a replay gives the running state, units balance.
    #[test]
    fn units_balance_after_any_commands(
        commands in proptest::collection::vec((0..20u16, command()), 0..60),
    ) {
        let mut received = 0i128;
        run::<Product>(commands, |product, _, decided, _| {
            for event in decided.iter().flatten() {
                match event {
                    Event::Added(added) => received += i128::from(added.initial_stock),
                    Event::StockChanged(changed) => received += i128::from(changed.quantity),
                    _ => {}
                }
            }
            let held: i64 = product.reservations.values().map(|held| held.quantity).sum();
            assert_eq!(product.reserved(), held);
            assert!(product.available() >= 0);
            assert_eq!(received, i128::from(product.on_hand()) + i128::from(product.shipped()));
        });
    }

    /// After a close no order gets stock, whenever the attempt comes, if open and close have the
    /// same `not_after`.
    #[test]
    fn a_close_is_for_ever(
        moment in 0..60i64,
        steps in proptest::collection::vec((0..20u16, 0..3u8, 1..4u128), 0..40),
    ) {
        let mut commands = vec![(0, add(100).into())];
        commands.extend(steps.into_iter().map(|(seconds, what, order)| {
            let close = Close { order_id: id(order), not_after: at(moment) };
            let command = match what {
                0 => Reserve { order_id: id(order), quantity: 1, not_after: at(moment) }.into(),
                1 => Command::Release(close),
                _ => Command::Ship(close),
            };
            (seconds, command)
        }));
        let mut closed = Vec::new();
        run::<Product>(commands, |product, command, decided, now| {
            if let Command::Release(close) | Command::Ship(close) = command {
                closed.push(close.order_id);
                // Repeated at once, it moves no units.
                let again = product.decide(command, now).unwrap();
                assert!(again.iter().all(Event::is_bookkeeping));
            }
            for event in decided.iter().flatten() {
                if let Event::StockReserved(reserved) = event {
                    assert!(!closed.contains(&reserved.order_id));
                }
            }
        });
    }
}
