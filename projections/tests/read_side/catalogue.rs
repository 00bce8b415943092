//! Queries of wishlists, search and sales.

use crate::{
    scenario::{Scenario, settings},
    shop::{Chance, Scribe, moment, pounds, story},
};
use events::{Event, StreamId, StreamKind, Timestamp, order, product, wishlist};
use futures::future::join_all;
use projections::{ReadModels, orders, products, sales::Bucket, search, search::Question};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::timeout;
use uuid::Uuid;

/// The name, category and description of a product.
type Described = (&'static str, Option<&'static str>, Option<&'static str>);

const BOOKS: [Described; 8] = [
    ("The Art of War", Some("philosophy"), Some("Advice to generals.")),
    ("War and Peace", Some("novels"), Some("Families in a war, at length.")),
    ("The War of the Worlds", Some("science fiction"), None),
    ("Warriors", Some("novels"), Some("Peace comes late.")),
    ("Peace", Some("essays"), Some("After a war.")),
    ("Café Society", Some("essays"), Some("Philosophy over coffee, in Zürich.")),
    ("Gulliver's Travels", Some("novels"), None),
    ("Walden", Some("philosophy"), Some("A pond, and a hut beside it.")),
];

fn added((name, category, description): Described) -> Event {
    product::Event::from(product::Added {
        name: name.into(),
        description: description.map(Into::into),
        category: category.map(Into::into),
        price: pounds(500),
        initial_stock: 1,
    })
    .into()
}

async fn add(scribe: &mut Scribe, id: Uuid, described: Described) {
    scribe.write(&[(StreamId::product(id), added(described))], 1).await;
}

/// The names of all products that a query finds, in pages of `limit`.
async fn find(models: &ReadModels, question: &str, limit: u32) -> Vec<String> {
    let question = Question::of(question).unwrap();
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = models.search(&question, after, limit).await.unwrap();
        names.extend(page.items.into_iter().map(|product| product.name));
        after = page.next;
        if after.is_none() {
            return names;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn products_are_found_by_words_prefixes_and_typos_in_order_of_rank() {
    let mut scenario = Scenario::new(3).await;
    let mut chance = Chance(7);
    let ids: Vec<Uuid> = BOOKS.iter().map(|_| chance.id()).collect();
    for (&id, book) in ids.iter().zip(BOOKS) {
        add(&mut scenario.scribe, id, book).await;
    }
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let models = scenario.models();
    for limit in [1, 2, 50] {
        let find = async |question: &str| find(&models, question, limit).await;
        // A match in the name ranks before one elsewhere, a whole word before a prefix, a shorter
        // name before a longer one.
        let war = find("war").await;
        assert_eq!(war[3..], ["Warriors", "Peace"], "{war:?}");
        let names: BTreeSet<&str> = war[..3].iter().map(String::as_str).collect();
        let exact = ["The Art of War", "War and Peace", "The War of the Worlds"];
        assert_eq!(names, exact.into(), "{war:?}");
        assert_eq!(war[2], "The War of the Worlds", "the longest name comes last");
        assert_eq!(find("WAR peace").await, ["War and Peace", "Peace", "Warriors"]);
        assert_eq!(find("warr").await, ["Warriors"]);
        // A category weighs more than a description.
        let philosophy = find("philosophy").await;
        assert_eq!(philosophy.len(), 3);
        assert_eq!(philosophy[2], "Café Society");
        for slip in ["philosphy", "phliosophy", "philosopyh", "filosophy"] {
            assert_eq!(find(slip).await, philosophy, "{slip}");
        }
        assert_eq!(find("cafe zurich").await, ["Café Society"]);
        assert_eq!(find("gullivers trav").await, ["Gulliver's Travels"]);
        assert_eq!(find("wladen").await, ["Walden"]);
        for nothing in ["xylophone", "war xylophone", "walden peace", "東京"] {
            assert!(find(nothing).await.is_empty(), "{nothing}");
        }
    }

    let renamed = product::Changed {
        name: "A Hut".into(),
        description: None,
        category: None,
        price: pounds(500),
    };
    let renamed: Event = product::Event::from(renamed).into();
    let gone = || Event::from(product::Event::from(product::Discontinued {}));
    let story = [
        (StreamId::product(ids[7]), renamed.clone()),
        (StreamId::product(ids[6]), gone()),
        (StreamId::product(ids[6]), renamed),
    ];
    scenario.scribe.write(&story, 1).await;
    scenario.settle().await;
    assert!(
        find(&models, "walden", 5).await.is_empty() && find(&models, "pond", 5).await.is_empty()
    );
    assert_eq!(find(&models, "hut", 5).await, ["A Hut"]);
    assert!(find(&models, "gullivers", 5).await.is_empty());
    let discontinued = models.product(ids[6]).await.unwrap().unwrap();
    assert_eq!((discontinued.name.as_str(), discontinued.discontinued), ("A Hut", true));
    projector.stop().await;
}

/// Each word is in too many names to rank all of them, and the newest of these names do not have
/// both words.
#[tokio::test(flavor = "multi_thread")]
async fn words_that_are_common_and_seldom_meet_are_found_at_once() {
    let mut scenario = Scenario::new(2).await;
    let mut chance = Chance(9);
    let story: Vec<_> = (0..6_000)
        .map(|n| {
            let name = match n {
                17 | 18 => "left right",
                _ if n % 2 == 0 => "left",
                _ => "right",
            };
            (StreamId::product(chance.id()), added((name, None, None)))
        })
        .collect();
    scenario.scribe.write(&story, 500).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let question = Question::of("left right").unwrap();
    let page = scenario.models().search(&question, None, 5).await.unwrap();
    assert_eq!((page.items.len(), page.next), (2, None));
    let question = Question::of("left").unwrap();
    let page = scenario.models().search(&question, None, 5).await.unwrap();
    assert_eq!(page.items.len(), 5);
    assert!(page.next.is_some());
    projector.stop().await;
}

/// Searches that take long, however many, are given up, and nothing else waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn searches_that_take_long_keep_no_other_question_waiting() {
    let mut scenario = Scenario::new(1).await;
    let id = Chance(3).id();
    add(&mut scenario.scribe, id, BOOKS[0]).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    let mut slow = scenario.pool.begin().await.unwrap();
    let lock = "lock table search_v1.search, search_v1.search_word in access exclusive mode";
    sqlx::raw_sql(lock).execute(&mut *slow).await.unwrap();
    let models = scenario.models();
    let question = Question::of("war").unwrap();
    let searches = join_all((0..40).map(|_| models.search(&question, None, 5)));
    let others = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for _ in 0..20 {
            let product = timeout(Duration::from_secs(1), models.product(id)).await;
            assert!(product.expect("a read of one thing does not wait").unwrap().is_some());
            let stopped = timeout(Duration::from_secs(1), models.stopped()).await;
            assert!(stopped.expect("nor does readiness").unwrap().is_empty());
        }
    };
    let (searches, ()) = tokio::join!(searches, others);
    for search in searches {
        let error = search.unwrap_err();
        assert!(error.is_busy(), "{error:?}");
    }
    slow.rollback().await.unwrap();
    assert_eq!(find(&models, "war", 5).await, ["The Art of War"]);
}

/// For all kinds of queries, and for tiers that are ranked and tiers that are too large for it.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_search_neither_repeat_nor_skip_while_products_come() {
    let mut scenario = Scenario::new(3).await;
    let mut chance = Chance(8);
    let many = usize::try_from(search::RANKED).unwrap() + 50;
    let story: Vec<_> = (0..many)
        .map(|n| {
            let name = if n % 40 == 0 { "common scarce" } else { "common" };
            (StreamId::product(chance.id()), added((name, None, Some("all of it"))))
        })
        .collect();
    scenario.scribe.write(&story, 100).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let models = scenario.models();
    for (text, limit, expected) in [
        ("common", 200, many),
        ("scarce", 7, many.div_ceil(40)),
        ("scarec", 7, many.div_ceil(40)),
        ("of", 200, many),
    ] {
        let question = Question::of(text).unwrap();
        let (mut seen, mut after) = (BTreeSet::new(), None);
        let before: BTreeSet<Uuid> = story.iter().map(|(stream, _)| stream.id).collect();
        loop {
            let page = models.search(&question, after, limit).await.unwrap();
            for product in page.items {
                assert!(seen.insert(product.product_id), "{question:?} repeats");
            }
            after = page.next;
            if after.is_none() {
                break;
            }
            for name in ["common scarce", "scarce scarce scarce", "of", text] {
                add(&mut scenario.scribe, chance.id(), (name, None, Some("of it"))).await;
            }
            scenario.settle().await;
        }
        let found = seen.intersection(&before).count();
        assert_eq!(found, expected, "{question:?} skips");
    }
    projector.stop().await;
}

/// The same for the other lists.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_lists_neither_repeat_nor_skip_while_more_comes() {
    let mut scenario = Scenario::new(3).await;
    let (story, cast) = story(31, 60);
    scenario.scribe.write(&story, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let models = scenario.models();
    let customer = cast.customers[0];
    let everything = orders::Filter::default();
    let of_customer = orders::Filter { customer_id: Some(customer), ..everything.clone() };
    let mut chance = Chance(32);
    for filter in [everything, of_customer] {
        let all = models.orders(&filter, None, 200).await.unwrap().items;
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let page = models.orders(&filter, after, 3).await.unwrap();
            walked.extend(page.items.into_iter().map(|order| order.order_id));
            after = page.next;
            if after.is_none() {
                break;
            }
            let (more, _) = crate::shop::story(chance.next(), 2);
            scenario.scribe.write(&more, 3).await;
            let placed = order::Placed {
                customer_id: customer,
                lines: [order::Line { product_id: cast.products[0], quantity: 1 }].into(),
                payment_method: "pm_card_visa".into(),
                shipping_address: None,
                deadline: moment(0),
                not_after: moment(0),
            };
            let placed = order::Event::from(placed).into();
            scenario.scribe.write(&[(StreamId::order(chance.id()), placed)], 1).await;
            scenario.settle().await;
        }
        assert!(walked.iter().eq(all.iter().map(|order| &order.order_id)), "{filter:?}");
    }
    for category in [None, Some("books".to_owned())] {
        let filter = products::Filter { category };
        let all = models.products(&filter, None, 200).await.unwrap().items;
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let page = models.products(&filter, after, 2).await.unwrap();
            walked.extend(page.items.into_iter().map(|product| product.product_id));
            after = page.next;
            if after.is_none() {
                break;
            }
            add(&mut scenario.scribe, chance.id(), ("new", Some("books"), None)).await;
            scenario.settle().await;
        }
        assert!(walked.iter().eq(all.iter().map(|product| &product.product_id)), "{filter:?}");
    }
    let wished = StreamId::wishlist(chance.id());
    let add_item = |product_id| {
        (wished, Event::from(wishlist::Event::from(wishlist::ItemAdded { product_id })))
    };
    let sold = cast.products.iter().take(7).copied().collect::<Vec<_>>();
    let list: Vec<_> = sold[..6].iter().copied().map(add_item).collect();
    scenario.scribe.write(&list, 1).await;
    scenario.settle().await;
    let first = models.wishlist(wished.id, None, 2).await.unwrap();
    scenario.scribe.write(&[add_item(sold[6])], 1).await;
    scenario.settle().await;
    let rest = models.wishlist(wished.id, first.next, 200).await.unwrap();
    let walked: Vec<Uuid> =
        first.items.iter().chain(&rest.items).map(|item| item.product.product_id).collect();
    assert!(walked.iter().eq(sold[..6].iter().rev()), "{walked:?} of {sold:?}");
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wishlist_shows_its_products_as_they_are() {
    let mut scenario = Scenario::new(3).await;
    let (story, cast) = story(33, 80);
    scenario.scribe.write(&story, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let models = scenario.models();
    let mut items = 0;
    for &customer in &cast.customers {
        let mut expected: Vec<Uuid> = Vec::new();
        for (stream, event) in &story {
            match event {
                Event::Wishlist(wishlist::Event::ItemAdded(added)) if stream.id == customer => {
                    expected.insert(0, added.product_id);
                }
                Event::Wishlist(wishlist::Event::ItemRemoved(removed)) if stream.id == customer => {
                    expected.retain(|id| *id != removed.product_id);
                }
                Event::Wishlist(wishlist::Event::Cleared(_)) if stream.id == customer => {
                    expected.clear();
                }
                _ => {}
            }
        }
        // The last product was never added, so nothing can be shown for it.
        expected.retain(|id| Some(id) != cast.products.last());
        let shown = models.wishlist(customer, None, 200).await.unwrap().items;
        assert!(shown.iter().map(|item| item.product.product_id).eq(expected));
        for item in shown {
            let product = models.product(item.product.product_id).await.unwrap();
            assert_eq!(Some(item.product), product);
            items += 1;
        }
    }
    assert!(items > 10);
    projector.stop().await;
}

/// The sale of an order, according to the log.
#[derive(Default)]
struct Sale {
    confirmed: Option<Timestamp>,
    cancelled: bool,
    revenue: i64,
    discounts: i64,
    lines: Vec<(Uuid, i64)>,
}

fn sales(scribe: &Scribe) -> Vec<Sale> {
    let mut sales: BTreeMap<Uuid, Sale> = BTreeMap::new();
    for (position, record) in &scribe.written {
        if record.stream.kind != StreamKind::Order {
            continue;
        }
        let sale = sales.entry(record.stream.id).or_default();
        match record.decode(*position).unwrap().event {
            Event::Order(order::Event::Priced(priced)) => {
                sale.revenue = priced.total.amount;
                sale.discounts = priced.discount.amount;
                let lines = priced.lines.iter().map(|line| (line.product_id, line.quantity));
                sale.lines = lines.collect();
            }
            Event::Order(order::Event::Confirmed(_)) => sale.confirmed = Some(record.time),
            Event::Order(order::Event::Cancelled(_)) => sale.cancelled = true,
            _ => {}
        }
    }
    sales.into_values().collect()
}

/// The report for any period is the sum of the orders that were confirmed in it and not cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn sales_are_the_sums_over_the_orders() {
    for seed in 40..44 {
        let mut scenario = Scenario::new(4).await;
        let (story, _) = story(seed, 80);
        let projector = scenario.projector(settings()).await;
        let mut chance = Chance(seed);
        for part in story.chunks(1 + chance.below(400) as usize) {
            scenario.scribe.write(part, 1 + chance.below(9) as usize).await;
            scenario.settle().await;
        }
        let (models, sales) = (scenario.models(), sales(&scenario.scribe));
        assert!(sales.iter().any(|sale| sale.confirmed.is_some() && sale.cancelled));
        let times: Vec<Timestamp> = sales.iter().filter_map(|sale| sale.confirmed).collect();
        let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
        for bucket in [Bucket::Hour, Bucket::Day] {
            for part in 0..3 {
                let cut = |time| bucket.begin(time).unwrap();
                let from = cut(first + (last - first) / 4 * part);
                let to = cut(last - (last - first) / 5 * part) + bucket.width();
                check_sales(&models, &sales, bucket, (from, to)).await;
            }
        }
        projector.stop().await;
    }
}

async fn check_sales(
    models: &ReadModels,
    sales: &[Sale],
    bucket: Bucket,
    (from, to): (Timestamp, Timestamp),
) {
    let mut money: BTreeMap<Timestamp, [i64; 3]> = BTreeMap::new();
    let mut units: BTreeMap<Uuid, i64> = BTreeMap::new();
    for sale in sales.iter().filter(|sale| !sale.cancelled) {
        let Some(at) = sale.confirmed.filter(|at| (from..to).contains(at)) else { continue };
        let sums = money.entry(bucket.begin(at).unwrap()).or_default();
        for (sum, one) in sums.iter_mut().zip([1, sale.revenue, sale.discounts]) {
            *sum += one;
        }
        for (product, quantity) in &sale.lines {
            *units.entry(*product).or_default() += quantity;
        }
    }
    let shown = models.sales((from, to), bucket, "GBP".parse().unwrap()).await.unwrap();
    let shown = shown.into_iter().map(|it| (it.bucket, [it.orders, it.revenue, it.discounts]));
    assert_eq!(shown.collect::<BTreeMap<_, _>>(), money, "{bucket:?} from {from} to {to}");
    let mut units: Vec<(Uuid, i64)> = units.into_iter().collect();
    units.sort_by_key(|&(product, units)| (-units, product));
    units.truncate(5);
    let best = models.best_sellers((from, to), 5).await.unwrap();
    assert!(best.iter().map(|it| (it.product_id, it.units)).eq(units), "{best:?}");
    let euros = models.sales((from, to), bucket, "EUR".parse().unwrap()).await.unwrap();
    assert!(euros.is_empty());
}
