//! The whole write side on the in-memory log, with shards, dispatcher and sandbox gateway.

#![allow(clippy::unwrap_used)]

mod shop;

use commands::{
    CommandError, Outcome, Refusal, ShardState,
    order::{self, RefundState, Status},
    product,
};
use events::{
    Fingerprint, Partition, StreamId,
    log::memory::Fault,
    order::{DiscountKind, RejectionReason},
};
use futures::future::join_all;
use shop::{Shop, id, keyed};
use std::{collections::BTreeSet, time::Duration};

#[tokio::test]
async fn an_order_goes_all_the_way() {
    let shop = Shop::open(4).await;
    let (customer, tea, mug) =
        (shop.customer().await, shop.product(250, 10).await, shop.product(900, 5).await);
    let order = shop.order(customer, &[(tea, 4), (mug, 1)], "pm_card_visa").await;
    assert_eq!(order.status(), Some(Status::Confirmed));
    let priced = order.detail().unwrap().priced.as_ref().unwrap();
    assert_eq!(
        (priced.subtotal.amount, priced.discount.amount, priced.total.amount),
        (1900, 570, 1330)
    );
    assert_eq!(priced.discounts[0].kind, DiscountKind::FirstOrder);
    let tea = shop.stock(tea).await;
    assert_eq!((tea.on_hand(), tea.reserved(), tea.available()), (10, 4, 6));
    shop.at_rest().await;
    assert_eq!(shop.captured(), 1330);
}

#[tokio::test]
async fn more_orders_than_stock_sell_the_stock_and_not_one_more() {
    let shop = Shop::open(4).await;
    let customer = shop.customer().await;
    let book = shop.product(1000, 100).await;
    let orders = join_all((0..300).map(|_| shop.one(customer, book))).await;
    let confirmed = orders.iter().filter(|order| order.status() == Some(Status::Confirmed)).count();
    let refused =
        orders.iter().filter(|order| order.reason() == Some("insufficient-stock")).count();
    assert_eq!((confirmed, refused), (100, 200));
    shop.at_rest().await;
    let book = shop.stock(book).await;
    assert_eq!((book.on_hand(), book.reserved(), book.available()), (100, 100, 0));
}

#[tokio::test]
async fn orders_for_two_products_in_opposite_order_do_not_fail_each_other() {
    let shop = Shop::open(4).await;
    let customer = shop.customer().await;
    let (left, right) = (shop.product(100, 60).await, shop.product(100, 50).await);
    let orders = join_all((0..120).map(|number| {
        let lines = if number % 2 == 0 { [(left, 1), (right, 1)] } else { [(right, 1), (left, 1)] };
        let shop = &shop;
        async move { shop.order(customer, &lines, "pm_card_visa").await }
    }))
    .await;
    let confirmed = orders.iter().filter(|order| order.status() == Some(Status::Confirmed)).count();
    assert_eq!(confirmed, 50);
    shop.at_rest().await;
    let (left, right) = (shop.stock(left).await, shop.stock(right).await);
    assert_eq!((left.reserved(), right.reserved()), (50, 50));
}

#[tokio::test]
async fn one_of_many_first_orders_is_the_first_and_a_rejected_one_gives_it_back() {
    let shop = Shop::open(4).await;
    let customer = shop.customer().await;
    let book = shop.product(5000, 1000).await;
    let declined = shop.order(customer, &[(book, 1)], "pm_card_declined").await;
    assert_eq!(declined.reason(), Some("payment-declined"));
    shop.at_rest().await;
    let orders = join_all((0..20).map(|_| shop.one(customer, book))).await;
    let first = orders.iter().filter(|order| {
        let priced = order.detail().unwrap().priced.clone().unwrap();
        priced.discounts.iter().any(|discount| discount.kind == DiscountKind::FirstOrder)
    });
    assert_eq!(first.count(), 1);
}

#[tokio::test]
async fn one_address_is_one_customer() {
    let shop = Shop::open(4).await;
    let email = id();
    let both = join_all([shop.register(email), shop.register(email)]).await;
    let registered = both
        .iter()
        .filter(|customer| customer.status() == Some(commands::customer::Status::Registered));
    assert_eq!(registered.count(), 1);
    shop.at_rest().await;
}

#[tokio::test]
async fn a_cancelled_order_gives_stock_and_money_back() {
    let shop = Shop::open(4).await;
    let (customer, book) = (shop.customer().await, shop.product(2000, 3).await);
    let order_id = shop.place(customer, &[(book, 2)], "pm_card_visa").await;
    shop.final_order(order_id).await;
    let cancel = order::Command::Cancel(order::Cancel { by: Some(customer), reason: None });
    shop.send(StreamId::order(order_id), cancel).await.unwrap();
    shop.at_rest().await;
    let order = shop.look_order(order_id).await;
    assert_eq!(
        (order.status(), order.refund_state()),
        (Some(Status::Cancelled), RefundState::Done)
    );
    assert_eq!(shop.stock(book).await.available(), 3);
    assert_eq!(shop.captured(), 0);
}

#[tokio::test]
async fn the_same_key_is_the_same_command_for_ever_and_across_restarts() {
    let mut shop = Shop::open(2).await;
    let book = shop.product(100, 5).await;
    let add = product::Command::ChangeStock(product::ChangeStock {
        quantity: 7,
        reason: events::product::StockReason::Received,
    });
    let request = keyed(StreamId::product(book), add, "a");
    let twins = join_all((0..5).map(|_| shop.router().send(request.clone()))).await;
    let changed =
        twins.iter().filter(|twin| matches!(twin, Ok(Outcome { changed: true, .. }))).count();
    let replayed =
        twins.iter().filter(|twin| matches!(twin, Ok(Outcome { replayed: Some(2), .. })));
    assert_eq!((changed, replayed.count()), (1, 4));
    shop.restart().await;
    let again = shop.router().send(request.clone()).await.unwrap();
    assert_eq!((again.changed, again.replayed), (false, Some(2)));
    assert_eq!(shop.stock(book).await.on_hand(), 12);
    let mut other = request;
    other.fingerprint = Fingerprint([9; 16]);
    assert_eq!(shop.router().send(other).await.unwrap_err(), CommandError::KeyReused);
}

#[tokio::test]
async fn a_stale_version_is_refused_and_changes_nothing() {
    let shop = Shop::open(1).await;
    let book = shop.product(100, 5).await;
    let mut request = keyed(
        StreamId::product(book),
        product::Command::Change(product::Change {
            name: Some("New".into()),
            ..Default::default()
        }),
        "b",
    );
    request.expected_version = Some(7);
    let refused = shop.router().send(request.clone()).await.unwrap_err();
    assert_eq!(refused, CommandError::VersionMismatch { current: 1 });
    request.expected_version = Some(1);
    assert_eq!(shop.router().send(request.clone()).await.unwrap().view.version, 2);
    // The shard answers a retry of an applied command before it checks the expected version.
    assert_eq!(shop.router().send(request).await.unwrap().replayed, Some(2));
}

/// After any failure of an append, every answered command is in the log once, and an unanswered
/// command can be sent again.
#[tokio::test]
async fn an_append_that_fails_or_is_unknown_loses_and_doubles_nothing() {
    for fault in [Fault::NotApplied, Fault::UnknownLanded, Fault::UnknownLost, Fault::Suspect] {
        let shop = Shop::open(1).await;
        let book = shop.product(100, 0).await;
        let receive = |key| {
            let change = product::ChangeStock {
                quantity: 1,
                reason: events::product::StockReason::Received,
            };
            keyed(StreamId::product(book), product::Command::ChangeStock(change), key)
        };
        shop.log.inject(Partition(0), [fault]);
        let answers = join_all(["x", "y", "z"].map(|key| shop.router().send(receive(key)))).await;
        assert!(answers.iter().all(Result::is_ok), "{fault:?}: {answers:?}");
        let again = join_all(["x", "y", "z"].map(|key| shop.router().send(receive(key)))).await;
        assert!(
            again.iter().all(|answer| answer.as_ref().unwrap().replayed.is_some()),
            "{fault:?}"
        );
        assert_eq!(shop.stock(book).await.on_hand(), 3, "{fault:?}");
        assert!(
            shop.router().status()[0].term > 1,
            "{fault:?}: the partition must have been reopened"
        );
    }
}

#[tokio::test]
async fn a_second_process_takes_over_and_the_first_steps_down() {
    let first = Shop::open(1).await;
    let book = first.product(100, 5).await;
    let second = first.beside().await;
    let change =
        product::ChangeStock { quantity: 1, reason: events::product::StockReason::Received };
    let request = keyed(StreamId::product(book), product::Command::ChangeStock(change), "k");
    let refused = first.router().try_send(request.clone()).await.unwrap_err();
    assert!(matches!(refused, CommandError::NotApplied(_)), "{refused:?}");
    let refused = first.router().send(request.clone()).await.unwrap_err();
    assert!(matches!(refused, CommandError::NotApplied(_)), "{refused:?}");
    assert!(matches!(first.router().status()[0].state, ShardState::Foreign { .. }));
    assert!(second.router().send(request).await.unwrap().changed);
    assert_eq!(second.stock(book).await.on_hand(), 6);
}

/// After a kill at any point, orders become final by themselves, and no customer pays twice.
#[tokio::test]
async fn orders_reach_an_end_after_a_kill_without_further_requests() {
    let mut shop = Shop::open(3).await;
    let customer = shop.customer().await;
    let book = shop.product(1000, 40).await;
    let mut placed = BTreeSet::new();
    for round in 0..25_u64 {
        for _ in 0..2 {
            placed.insert(shop.place(customer, &[(book, 1)], "pm_card_visa").await);
        }
        // Kill somewhere between the reservation and the payment, or between the payment and its
        // record.
        for _ in 0..round * 3 {
            tokio::task::yield_now().await;
        }
        shop.kill();
        shop.start().await;
    }
    shop.at_rest().await;
    let mut confirmed = 0;
    for order in &placed {
        let order = shop.look_order(*order).await;
        assert!(!order.is_pending());
        confirmed += i64::from(order.status() == Some(Status::Confirmed));
    }
    assert_eq!(confirmed, 40);
    let book = shop.stock(book).await;
    assert_eq!((book.on_hand(), book.reserved()), (40, 40));
    // 10.00 for each order; the first one has a discount of 10.00, capped at 30 %.
    assert_eq!(shop.captured(), 40 * 1000 - 300);
}

#[tokio::test]
async fn an_order_pending_at_its_deadline_expires_and_releases_its_stock() {
    let shop = Shop::open(2).await;
    let (customer, book) = (shop.customer().await, shop.product(100, 5).await);
    // The gateway takes 3 s, and the deadline passes before that.
    let order_id =
        shop.place_until(customer, &[(book, 2)], "pm_card_slow", Duration::from_millis(300)).await;
    let order = shop.final_order(order_id).await;
    assert_eq!(order.status(), Some(Status::Rejected));
    assert_eq!(order.reason(), Some(RejectionReason::Expired.as_str()));
    shop.at_rest().await;
    assert_eq!(shop.stock(book).await.available(), 5);
    assert_eq!(shop.captured(), 0);
}

#[tokio::test]
async fn nothing_is_appended_for_a_refusal() {
    let shop = Shop::open(1).await;
    let before = shop.end().await;
    let refused = shop
        .send(StreamId::product(id()), product::Command::Change(product::Change::default()))
        .await;
    assert_eq!(
        refused.unwrap_err(),
        CommandError::Refused(Refusal::Product(product::Refusal::NotFound))
    );
    let refused =
        shop.send(StreamId::order(id()), order::Command::ChangeStatus(Status::Shipped)).await;
    assert_eq!(
        refused.unwrap_err(),
        CommandError::Refused(Refusal::Order(order::Refusal::NotFound))
    );
    assert_eq!(shop.end().await, before);
}
