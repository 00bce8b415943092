//! The rows are the fold of the log for all sizes of chunks, all interleavings and all adapters.

use crate::{
    scenario::{Scenario, settings},
    shop::{Scribe, story},
};
use events::{
    Event, Partition, Sealed, StreamId, StreamKind, customer,
    environment::System,
    log::{EventLog, Record, embedded::EmbeddedLog},
    order, product,
};
use projections::{
    Progress, ProjectorSettings, ReadModels, customers, history::Range, orders, orders::Status,
};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// The decoded events of each stream, in order.
fn by_stream(scribe: &Scribe) -> BTreeMap<StreamId, Vec<(Record, Event)>> {
    let mut streams: BTreeMap<StreamId, Vec<(Record, Event)>> = BTreeMap::new();
    for (position, record) in &scribe.written {
        let event = record.decode(*position).unwrap().event;
        streams.entry(record.stream).or_default().push((record.clone(), event));
    }
    streams
}

/// The last event for which `counts` is true. It decides the version and time that are shown.
fn last_shown(events: &[(Record, Event)], counts: impl Fn(&Event) -> bool) -> &Record {
    &events.iter().rev().find(|(_, event)| counts(event)).unwrap().0
}

async fn check_orders(models: &ReadModels, id: Uuid, events: &[(Record, Event)]) {
    let order = models.order(id, None).await.unwrap().unwrap();
    let types: Vec<&str> = events.iter().map(|(record, _)| &*record.event_type).collect();
    let has = |name| types.contains(&name);
    let status = match () {
        () if has("OrderCancelled") => Status::Cancelled,
        () if has("OrderRejected") => Status::Rejected,
        () if has("OrderDelivered") => Status::Delivered,
        () if has("OrderConfirmed") => Status::Confirmed,
        () => Status::Pending,
    };
    assert_eq!(order.status, status, "{types:?}");
    let shown = last_shown(events, |event| {
        !matches!(
            event,
            Event::Order(
                order::Event::CustomerSettled(_)
                    | order::Event::StockSettled(_)
                    | order::Event::MailSent(_)
                    | order::Event::MailRefused(_)
            )
        )
    });
    assert_eq!(order.version, shown.metadata.version);
    assert_eq!(order.updated_at, shown.time);
    assert_eq!(order.placed_at, events[0].0.time);
    let refund = match (status, has("RefundIssued"), has("PaymentCaptured")) {
        (Status::Cancelled, ..) if has("RefundFailed") => orders::Refund::Failed,
        (Status::Cancelled, true, _) => orders::Refund::Done,
        (Status::Cancelled, false, true) => orders::Refund::Pending,
        _ => orders::Refund::None,
    };
    assert_eq!(order.refund, refund);
    let Event::Order(order::Event::Placed(placed)) = &events[0].1 else { panic!() };
    assert_eq!(order.customer_id, placed.customer_id);
    assert_eq!(order.shipping_address, placed.shipping_address);
    assert_eq!(order.payment_method, placed.payment_method);
    assert_eq!(order.items[0].quantity, 2);
    assert_eq!(order.total.map(|total| total.amount), has("OrderPriced").then_some(900));
    assert_eq!(order.items[0].name.is_some(), has("OrderPriced"));
    assert_eq!(order.discounts.len(), usize::from(has("OrderPriced")));
    let was_confirmed = has("OrderConfirmed");
    let reason = match status {
        Status::Cancelled if !was_confirmed => Some("second thoughts"),
        Status::Rejected => Some("insufficient-stock"),
        _ => None,
    };
    assert_eq!(order.reason.as_deref(), reason);
    let sealed = status == Status::Cancelled && was_confirmed;
    assert_eq!(order.sealed_reason.is_some(), sealed);
}

async fn check_products(models: &ReadModels, id: Uuid, events: &[(Record, Event)]) {
    let found = models.product(id).await.unwrap();
    let Some(product) = found else {
        assert!(
            events
                .iter()
                .all(|(_, event)| !matches!(event, Event::Product(product::Event::Added(_))))
        );
        return;
    };
    let (mut on_hand, mut reserved, mut shipped, mut name) = (0, 0, 0, String::new());
    let mut discontinued = false;
    for (_, event) in events {
        let Event::Product(event) = event else { panic!() };
        match event {
            product::Event::Added(added) => {
                on_hand += added.initial_stock;
                name = added.name.to_string();
            }
            product::Event::Changed(changed) => name = changed.name.to_string(),
            product::Event::StockChanged(changed) => on_hand += changed.quantity,
            product::Event::StockReserved(held) => reserved += held.quantity,
            product::Event::StockReleased(released) => reserved -= released.quantity,
            product::Event::StockShipped(gone) => {
                on_hand -= gone.quantity;
                reserved -= gone.quantity;
                shipped += gone.quantity;
            }
            product::Event::Discontinued(_) => discontinued = true,
        }
    }
    assert_eq!((product.on_hand, product.reserved, product.shipped), (on_hand, reserved, shipped));
    assert_eq!(product.name, name);
    assert_eq!(product.discontinued, discontinued);
    let shown = last_shown(events, |event| match event {
        Event::Product(product::Event::StockReleased(released)) => released.quantity != 0,
        Event::Product(product::Event::StockShipped(gone)) => gone.quantity != 0,
        _ => true,
    });
    assert_eq!((product.version, product.updated_at), (shown.metadata.version, shown.time));
}

async fn check_customers(models: &ReadModels, id: Uuid, events: &[(Record, Event)]) {
    let registered = events
        .iter()
        .any(|(_, event)| matches!(event, Event::Customer(customer::Event::Registered(_))));
    let Some(customer) = models.customer(id).await.unwrap() else {
        assert!(!registered);
        return;
    };
    assert!(registered);
    let confirmed = events.iter().filter(|(_, event)| {
        matches!(event, Event::Customer(customer::Event::OrderClosed(closed)) if closed.confirmed)
    });
    assert_eq!(customer.order_count, confirmed.count() as i64);
    let profile = events.iter().rev().find_map(|(_, event)| match event {
        Event::Customer(customer::Event::Changed(to)) => Some((to.first_name.clone(), to.vip)),
        Event::Customer(customer::Event::EmailChanged(to)) => Some((to.first_name.clone(), to.vip)),
        Event::Customer(customer::Event::RegistrationRequested(to)) => {
            Some((to.first_name.clone(), false))
        }
        _ => None,
    });
    let erased = |event: &Event| matches!(event, Event::Customer(customer::Event::Erased(_)));
    let is_erased = events.iter().any(|(_, event)| erased(event));
    assert_eq!(customer.is_erased(), is_erased);
    let nothing = (Sealed::from(String::new()), false);
    let told = Some((customer.first_name.clone(), customer.vip));
    assert_eq!(told, if is_erased { Some(nothing) } else { profile });
    let shown = last_shown(events, |event| {
        let Event::Customer(event) = event else { panic!() };
        !event.is_bookkeeping()
    });
    assert_eq!((customer.version, customer.updated_at), (shown.metadata.version, shown.time));
    if is_erased {
        assert!(customer.email_id.is_nil() && customer.last_name.as_str().is_empty());
        return;
    }
    let found: Option<customers::Customer> =
        models.customer_by_email(&[customer.email_id]).await.unwrap();
    assert_eq!(found, Some(customer));
}

async fn check_history(models: &ReadModels, stream: StreamId, events: &[(Record, Event)]) {
    let all = Range { after: 0, up_to: u64::MAX, limit: 1_000_000 };
    let history = models.history(stream, all).await.unwrap();
    assert_eq!(history.len(), events.len());
    for (entry, (record, _)) in history.iter().zip(events) {
        assert_eq!(entry.version, record.metadata.version);
        assert_eq!(entry.event_id, record.event_id);
        assert_eq!(entry.event_type, record.event_type);
        assert_eq!(entry.occurred_at, record.time);
        assert_eq!(entry.command_id, record.metadata.command_id);
        assert_eq!(entry.correlation_id, record.metadata.correlation_id);
        assert_eq!(entry.causation_id, record.metadata.causation_id);
        assert_eq!(entry.data.get().as_bytes(), &record.body[..]);
    }
    let some = models.history(stream, Range { after: 1, up_to: 2, limit: 10 }).await.unwrap();
    assert_eq!(some.len(), usize::from(events.len() > 1));
}

async fn check(models: &ReadModels, scribe: &Scribe) {
    for (stream, events) in &by_stream(scribe) {
        match stream.kind {
            StreamKind::Order => check_orders(models, stream.id, events).await,
            StreamKind::Product => check_products(models, stream.id, events).await,
            StreamKind::Customer => check_customers(models, stream.id, events).await,
            // Wishlists and sales are checked in `catalogue`.
            StreamKind::Email | StreamKind::Writer | StreamKind::Wishlist => {}
        }
        check_history(models, *stream, events).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_the_fold_of_the_log() {
    let mut scenario = Scenario::new(3).await;
    let (story, cast) = story(1, 120);
    // Half of the history is written before the projector starts, half while it runs.
    let (before, while_running) = story.split_at(story.len() / 2);
    scenario.scribe.write(before, 7).await;
    let projector = scenario.projector(settings()).await;
    scenario.scribe.write(while_running, 3).await;
    scenario.settle().await;
    let models = scenario.models();
    check(&models, &scenario.scribe).await;
    assert_eq!(cast.orders.len(), 120);
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_the_fold_of_the_embedded_log() {
    let scenario = Scenario::new(4).await;
    let folder = tempfile::tempdir().unwrap();
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(folder.path(), Some(4)).unwrap());
    let mut scribe = Scribe::new(Arc::clone(&log));
    scribe.write(&story(2, 60).0, 5).await;
    let progress = Progress::new(4);
    let projector = projections::Projector::start(
        Arc::clone(&log),
        scenario.options.clone(),
        Arc::new(System::new()),
        progress.clone(),
        settings(),
    )
    .await
    .unwrap();
    let models = ReadModels::new(scenario.pool.clone(), progress, log);
    for model in projections::ReadModel::ALL {
        for partition in (0..4).map(Partition) {
            models.wait_for_end(model, partition, crate::scenario::PATIENCE).await.unwrap();
        }
    }
    check(&models, &scribe).await;
    projector.stop().await;
}

/// The same log gives the same tables with other chunks, groups and transactions, and with restarts
/// in between.
#[tokio::test(flavor = "multi_thread")]
async fn no_table_depends_on_how_partitions_interleave() {
    let mut dumps = Vec::new();
    for (groups, max_events, batch, restarts) in
        [(1, 1, 1, 0), (1, 5_000, 50, 0), (3, 7, 3, 3), (12, 100, 9, 1), (2, 13, 2, 5)]
    {
        let mut scenario = Scenario::new(6).await;
        let (story, _) = story(3, 50);
        let settings = || ProjectorSettings { groups, max_events, ..settings() };
        let part = story.len() / (restarts + 1) + 1;
        for chunk in story.chunks(part) {
            let projector = scenario.projector(settings()).await;
            scenario.scribe.write(chunk, batch).await;
            if chunk.len() == part {
                projector.stop().await;
            } else {
                scenario.settle().await;
                projector.stop().await;
            }
        }
        let projector = scenario.projector(settings()).await;
        scenario.settle().await;
        projector.stop().await;
        // Offsets depend on the batches, so the history is compared without them.
        let mut dump = scenario.dump_all().await;
        dump[3] = sqlx::query_scalar(
            "select (version, stream_kind, stream_id, event_id, event_type, body)::text \
             from history_v1.history order by 1",
        )
        .fetch_all(&scenario.pool)
        .await
        .unwrap();
        assert!(dump.iter().all(|table| !table.is_empty()));
        dumps.push(dump);
    }
    for dump in &dumps[1..] {
        assert_eq!(dump, &dumps[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_paged_without_gap_or_repeat() {
    let mut scenario = Scenario::new(3).await;
    let (story, cast) = story(4, 90);
    scenario.scribe.write(&story, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let models = scenario.models();
    let all = models.orders(&orders::Filter::default(), None, 200).await.unwrap();
    assert_eq!((all.items.len(), all.next), (90, None));
    assert!(all.items.windows(2).all(|pair| pair[0].placed_at >= pair[1].placed_at));
    let filters = [
        orders::Filter::default(),
        orders::Filter {
            statuses: vec![Status::Confirmed, Status::Rejected],
            ..Default::default()
        },
        orders::Filter { customer_id: Some(cast.customers[0]), ..Default::default() },
        orders::Filter {
            placed_from: Some(all.items[60].placed_at),
            placed_to: Some(all.items[20].placed_at),
            ..Default::default()
        },
    ];
    for filter in filters {
        let expected: Vec<Uuid> = all
            .items
            .iter()
            .filter(|order| {
                (filter.statuses.is_empty() || filter.statuses.contains(&order.status))
                    && filter.customer_id.is_none_or(|id| id == order.customer_id)
                    && filter.placed_from.is_none_or(|from| order.placed_at >= from)
                    && filter.placed_to.is_none_or(|to| order.placed_at < to)
            })
            .map(|order| order.order_id)
            .collect();
        assert!(!expected.is_empty(), "{filter:?}");
        let (mut walked, mut cursor) = (Vec::new(), None);
        loop {
            let page = models.orders(&filter, cursor, 7).await.unwrap();
            walked.extend(page.items.iter().map(|order| order.order_id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(walked, expected, "{filter:?}");
    }
    let books = projections::products::Filter { category: Some("books".into()) };
    let page = models.products(&books, None, 2).await.unwrap();
    let rest = models.products(&books, page.next, 200).await.unwrap();
    let every =
        models.products(&projections::products::Filter::default(), None, 200).await.unwrap();
    let expected = every.items.iter().filter(|it| it.category.as_deref() == Some("books")).count();
    assert!(every.items.iter().all(|it| !it.discontinued));
    assert_eq!(page.items.len() + rest.items.len(), expected);
    projector.stop().await;
}
