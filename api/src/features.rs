//! What the shop can do, in one table: made from the OpenAPI document and from what is said here of
//! each operation, and kept true by tests.

use crate::openapi::{operations, resolve};
use axum::{http::header, response::IntoResponse};
use serde_json::Value;
use std::fmt::Write;

/// What the OpenAPI document does not tell of an operation.
pub struct Feature {
    /// The operation's id.
    pub operation: &'static str,
    /// What it is for.
    pub name: &'static str,
    /// The streams and events that it writes, now or by what it sets going.
    pub writes: &'static str,
    /// The tables that it reads.
    pub reads: &'static str,
    /// A problem that it answers with.
    pub refusal: &'static str,
    /// The test that shows it.
    pub test: &'static str,
}

/// A row says what there is to say: an operation that writes nothing has no `writes`.
macro_rules! features {
    ($(
        $operation:ident $name:literal
        $(writes $writes:literal)? $(reads $reads:literal)? $(refuses $refusal:literal)?
        => $test:ident;
    )+) => {
        /// All operations, in the order in which a shop needs them.
        pub const FEATURES: &[Feature] = &[$(Feature {
            operation: stringify!($operation),
            name: $name,
            writes: concat!($($writes)?),
            reads: concat!($($reads)?),
            refusal: concat!($($refusal)?),
            test: stringify!($test),
        }),+];
    };
}

features! {
    register_customer "Register"
        writes "customer: RegistrationRequested, CustomerRegistered or RegistrationRefused; \
                email: EmailClaimed"
        refuses "email-taken" => of_two_registrations_of_one_address_one_succeeds;
    change_customer "Change a profile, the address, the standing"
        writes "customer: CustomerChanged, or EmailChangeRequested, EmailChanged or \
                EmailChangeRefused, EmailSettled; email: EmailClaimed, EmailReleased"
        refuses "email-taken" => an_address_that_was_let_go_can_be_taken;
    erase_customer "Forget a customer"
        writes "customer: CustomerErased, EmailSettled, CustomerKeyDestroyed; email: \
                EmailReleased; order: MailRefused where a letter is owed"
        refuses "not-found" => nothing_personal_can_be_read_any_more;
    get_customer "Look at a customer" reads "customers" refuses "not-found"
        => an_address_that_was_let_go_can_be_taken;
    find_customer "Find a customer by address" reads "customers" refuses "not-found"
        => an_address_that_was_let_go_can_be_taken;
    add_product "Add a product"
        writes "product: ProductAdded"
        refuses "validation-failed" => an_order_is_placed_paid_and_shown;
    change_product "Describe or price a product"
        writes "product: ProductChanged"
        refuses "version-mismatch" => a_stale_version_is_refused;
    discontinue_product "Take a product off the shelf"
        writes "product: ProductDiscontinued"
        refuses "not-found" => a_discontinued_product_is_sold_no_more_and_its_orders_go_on;
    change_stock "Receive stock, correct it"
        writes "product: StockChanged"
        refuses "stock-below-reserved" => stock_does_not_fall_below_what_is_reserved;
    list_products "Browse the catalogue" reads "products" refuses "invalid-parameter"
        => every_operation_answers_as_documented;
    get_product "Look at a product" reads "products" refuses "not-found"
        => shipping_lowers_stock_and_cancelling_gives_it_back;
    search_products "Search, with slips of the finger" reads "search, products"
        refuses "invalid-parameter"
        => a_search_finds_what_is_meant_and_says_what_it_cannot_look_for;
    add_wishlist_item "Note a product for later"
        writes "wishlist: WishlistItemAdded"
        refuses "wishlist-full" => a_wishlist_is_the_customers_own_and_shows_products_as_they_are;
    remove_wishlist_item "Think better of it"
        writes "wishlist: WishlistItemRemoved"
        refuses "not-found" => a_wishlist_is_the_customers_own_and_shows_products_as_they_are;
    list_wishlist "Look at the wishlist" reads "wishlists, products" refuses "forbidden"
        => a_wishlist_is_the_customers_own_and_shows_products_as_they_are;
    place_order "Order, with discounts and payment"
        writes "order: OrderPlaced, OrderPriced, PaymentStarted, PaymentCaptured, \
                OrderConfirmed, or OrderRejected after PaymentDeclined or PaymentVoided; \
                MailSent or MailRefused; OrderCustomerSettled, OrderStockSettled; customer: \
                OrderOpened, OrderClosed; product: StockReserved, StockReleased when rejected"
        refuses "insufficient-stock" => no_more_is_sold_than_there_is;
    change_order_status "Pack, ship, deliver"
        writes "order: OrderProcessingStarted, OrderShipped, OrderDelivered, OrderCancelled, \
                OrderStockSettled, MailSent or MailRefused; product: StockShipped"
        refuses "illegal-transition" => shipping_lowers_stock_and_cancelling_gives_it_back;
    cancel_order "Cancel, and get the money back"
        writes "order: OrderCancelled, RefundIssued, OrderStockSettled, MailSent or MailRefused; \
                product: StockReleased; customer: OrderClosed"
        refuses "illegal-transition" => a_cancelled_order_gives_the_money_back;
    get_order "Look at an order" reads "orders" refuses "not-found"
        => every_operation_answers_as_documented;
    list_orders "List orders, filtered" reads "orders" refuses "forbidden"
        => bad_requests_are_told_what_is_wrong_and_change_nothing;
    list_customer_orders "List a customer's orders" reads "orders" refuses "forbidden"
        => every_operation_answers_as_documented;
    get_order_history "See what happened to an order" reads "orders, history" refuses "not-found"
        => every_operation_answers_as_documented;
    listen_to_order "Hear what happens to an order" reads "orders, history" refuses "not-found"
        => history_comes_first_and_then_what_happens;
    create_order_ticket "Let a browser listen" reads "orders" refuses "not-found"
        => tickets_open_one_order;
    payment_webhook "Hear from the payment gateway"
        writes "order: PaymentCaptured, PaymentDeclined or PaymentVoided, as the gateway has it"
        refuses "invalid-signature" => notices_twice_late_and_out_of_order_change_nothing;
    report_sales "See what was sold" reads "sales, products" refuses "forbidden"
        => a_report_is_the_sum_over_living_confirmed_orders;
    list_projections "Watch the read models" refuses "forbidden"
        => a_rebuild_is_not_noticed_and_gives_the_same_rows;
    rebuild_projection "Rebuild a read model while it serves" refuses "projection-conflict"
        => a_rebuild_is_not_noticed_and_gives_the_same_rows;
    roll_back_projection "Go back to the version before" refuses "projection-conflict"
        => going_back_is_instant_and_going_on_too;
    pause_rebuild "Hold a rebuild up" refuses "projection-conflict"
        => only_a_rebuild_under_way_can_be_held_up_or_let_go_on;
    resume_rebuild "Let it go on" refuses "projection-conflict"
        => only_a_rebuild_under_way_can_be_held_up_or_let_go_on;
    accept_rebuild "Let a rebuilt version serve that differs" refuses "projection-conflict"
        => a_difference_is_accepted_without_sql;
    cancel_rebuild "Give up a rebuild" refuses "projection-conflict"
        => every_operation_answers_as_documented;
    drop_old_versions "Drop old versions" refuses "projection-conflict"
        => going_back_is_instant_and_going_on_too;
    list_parked "See what read models keep back" refuses "forbidden"
        => a_parked_order_says_so_until_it_is_drained;
    retry_parked "Try it again after a fix" refuses "not-found"
        => a_parked_order_says_so_until_it_is_drained;
    get_stream "Read any stream's raw events" reads "history" refuses "not-found"
        => every_operation_answers_as_documented;
    healthz "Is the process alive?" => what_axum_refuses_is_a_problem_too;
    readyz "Can it route commands and serve reads?" refuses "unavailable"
        => read_models_stop_before_another_log_and_go_on_with_their_own;
    metrics "Metrics" => every_operation_answers_as_documented;
}

/// `GET /docs/features`: the table.
pub async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], markdown())
}

const HEAD: &str = "\
# Features

Each operation of the shop, with an example of it and one way in which it is refused. Written by `orderlog features`;
tests see to it that every operation, every event, every table and every test named here exists.

| feature | operation | example request | example answer | one refusal | writes: stream, events | reads | shown by |
|---|---|---|---|---|---|---|---|
";

/// The table, as Markdown.
pub fn markdown() -> String {
    let document = crate::openapi::document();
    let mut text = HEAD.to_owned();
    for feature in FEATURES {
        let found = operations(&document).find(|(_, _, it)| it["operationId"] == feature.operation);
        let Some((path, method, operation)) = found else { continue };
        let cells = [
            feature.name.to_owned(),
            format!("`{} {path}`", method.to_uppercase()),
            request(&document, operation),
            answer(operation),
            refusal(&document, operation, feature.refusal),
            feature.writes.to_owned(),
            feature.reads.to_owned(),
            format!("`{}`", feature.test),
        ];
        let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text
}

fn code(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => format!("`{text}`"),
        value => format!("`{value}`"),
    }
}

fn request(document: &Value, operation: &Value) -> String {
    let content = operation["requestBody"]["content"].as_object();
    if let Some(content) = content.and_then(|content| content.values().next()) {
        return code(&content["example"]);
    }
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let own = parameters.map(|it| resolve(document, it)).filter(|it| it["in"] == "query");
    let shown: Vec<String> = own
        .filter_map(|it| {
            let example = it.get("example").or_else(|| it["schema"].get("default"))?;
            let example = example.get(0).unwrap_or(example);
            let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            Some(format!("{}={text}", it["name"].as_str()?))
        })
        .filter(|pair| !pair.starts_with("cursor="))
        .collect();
    if shown.is_empty() { String::new() } else { format!("`?{}`", shown.join("&")) }
}

fn answer(operation: &Value) -> String {
    let mut answers = operation["responses"].as_object().into_iter().flatten();
    let success = answers.find(|(status, _)| status.starts_with('2'));
    let Some((status, answer)) = success else { return String::new() };
    let content = answer["content"].as_object().and_then(|content| content.values().next());
    let example = content.map_or(&Value::Null, |content| &content["example"]);
    format!("{status} {}", code(example))
}

fn refusal(document: &Value, operation: &Value, name: &str) -> String {
    let answers = operation["responses"].as_object().into_iter().flatten();
    let mut examples = answers.filter_map(|(_, answer)| {
        let example = &answer["content"]["application/problem+json"]["examples"][name];
        Some(resolve(document, example)).filter(|example| !example.is_null())
    });
    let Some(example) = examples.next() else { return String::new() };
    let mut problem = example["value"].clone();
    if let Some(members) = problem.as_object_mut() {
        // The same in every problem of the kind.
        members.retain(|name, _| name != "instance" && name != "title" && name != "status");
    }
    format!("{} {}", example["value"]["status"], code(&problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// The text of all files below a folder.
    fn texts(folder: PathBuf, extension: &str) -> String {
        let (mut text, mut folders) = (String::new(), vec![folder]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|it| it == extension) {
                    text.push_str(&fs::read_to_string(path).unwrap());
                }
            }
        }
        text
    }

    #[test]
    fn the_table_is_the_one_checked_in() {
        crate::checked_in::assert_is("FEATURES.md", "features", &markdown());
    }

    #[test]
    fn every_operation_has_its_row() {
        let document = crate::openapi::document();
        let all: BTreeSet<_> =
            operations(&document).map(|(_, _, it)| it["operationId"].as_str().unwrap()).collect();
        let told: BTreeSet<_> = FEATURES.iter().map(|feature| feature.operation).collect();
        assert_eq!(told, all);
        for feature in FEATURES.iter().filter(|feature| !feature.refusal.is_empty()) {
            let (_, _, operation) = operations(&document)
                .find(|(_, _, it)| it["operationId"] == feature.operation)
                .unwrap();
            let refusal = refusal(&document, operation, feature.refusal);
            assert!(
                !refusal.is_empty(),
                "{} does not answer with {}",
                feature.name,
                feature.refusal
            );
        }
    }

    #[test]
    fn every_event_is_written_by_something() {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        let told = FEATURES.iter().flat_map(|it| it.writes.split(|c| !is_word(c)));
        let told: BTreeSet<&str> =
            told.filter(|word| word.starts_with(char::is_uppercase)).collect();
        let known = events::json_schema::current();
        assert_eq!(told, known.iter().map(|event| event.event_type).collect());
    }

    #[test]
    fn every_table_and_every_test_named_exists() {
        let tables = texts(root().join("migrations"), "sql").to_lowercase();
        let sources = ["api", "projections/tests"].map(|it| texts(root().join(it), "rs")).concat();
        for feature in FEATURES {
            for table in feature.reads.split(", ").filter(|table| !table.is_empty()) {
                assert!(tables.contains(&format!("create table {table} (")), "{table}");
            }
            assert!(sources.contains(&format!("fn {}(", feature.test)), "{}", feature.test);
        }
    }
}
