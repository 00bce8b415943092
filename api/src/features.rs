//! What the shop can do, in one table. It is made from the OpenAPI document and from the notes on
//! each operation below, and tests keep it true.

mod page;
mod row;

pub use page::{markdown, serve};

/// What the OpenAPI document does not say about an operation.
pub struct Feature {
    /// The id of the operation.
    pub operation: &'static str,
    /// What a user does with it.
    pub name: &'static str,
    /// The streams and events that the operation writes, directly or by its effects.
    pub writes: &'static str,
    /// The tables that it reads.
    pub reads: &'static str,
    /// The name of a problem that it can answer with.
    pub refusal: &'static str,
    /// The test that shows the feature.
    pub test: &'static str,
}

/// Declares the rows. An operation that writes nothing has no `writes`, and so on.
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
    register_customer "Register a customer"
        writes "customer: RegistrationRequested, CustomerRegistered or RegistrationRefused; \
                email: EmailClaimed"
        refuses "email-taken" => of_two_registrations_of_one_address_one_succeeds;
    change_customer "Change a customer's profile"
        writes "customer: CustomerChanged, or EmailChangeRequested, EmailChanged or \
                EmailChangeRefused, EmailSettled; email: EmailClaimed, EmailReleased"
        refuses "email-taken" => an_address_that_was_let_go_can_be_taken;
    erase_customer "Erase a customer's personal data"
        writes "customer: CustomerErased, EmailSettled, CustomerKeyDestroyed; email: \
                EmailReleased; wishlist: WishlistCleared; order: MailRefused if an e-mail is \
                pending"
        refuses "open-orders" => whoever_has_orders_to_be_shipped_is_erased_only_if_that_is_meant;
    get_customer "Get a customer" reads "customers" refuses "not-found"
        => an_address_that_was_let_go_can_be_taken;
    find_customer "Find a customer by e-mail address" reads "customers" refuses "not-found"
        => an_address_that_was_let_go_can_be_taken;
    look_up_customer "Find a customer without the address in a URL" reads "customers"
        refuses "not-found" => an_address_is_one_however_it_is_written_and_is_found_so;
    add_product "Add a product"
        writes "product: ProductAdded"
        refuses "validation-failed" => an_order_is_placed_paid_and_shown;
    change_product "Change a product's description or price"
        writes "product: ProductChanged"
        refuses "version-mismatch" => a_stale_version_is_refused;
    discontinue_product "Discontinue a product"
        writes "product: ProductDiscontinued"
        refuses "not-found" => a_discontinued_product_is_sold_no_more_and_its_orders_go_on;
    change_stock "Receive or correct stock"
        writes "product: StockChanged"
        refuses "stock-below-reserved" => stock_does_not_fall_below_what_is_reserved;
    list_products "List the catalogue" reads "products" refuses "invalid-parameter"
        => every_operation_answers_as_documented;
    get_product "Get a product" reads "products" refuses "not-found"
        => shipping_lowers_stock_and_cancelling_gives_it_back;
    search_products "Search products, typos included" reads "search, products"
        refuses "invalid-parameter"
        => a_search_finds_what_is_meant_and_says_what_it_cannot_look_for;
    add_wishlist_item "Add a product to the wishlist"
        writes "wishlist: WishlistItemAdded"
        refuses "wishlist-full" => a_wishlist_is_the_customers_own_and_shows_products_as_they_are;
    remove_wishlist_item "Remove a product from the wishlist"
        writes "wishlist: WishlistItemRemoved"
        refuses "not-found" => a_wishlist_is_the_customers_own_and_shows_products_as_they_are;
    list_wishlist "List the wishlist" reads "wishlists, products, customers" refuses "forbidden"
        => a_wishlist_is_the_customers_own_and_shows_products_as_they_are;
    place_order "Place an order, with discounts and payment"
        writes "order: OrderPlaced, OrderPriced, PaymentStarted, PaymentCaptured, \
                OrderConfirmed, or OrderRejected after PaymentDeclined or PaymentVoided; \
                MailSent or MailRefused; OrderCustomerSettled, OrderStockSettled; customer: \
                OrderOpened, OrderClosed; product: StockReserved, and StockReleased if rejected"
        refuses "insufficient-stock" => no_more_is_sold_than_there_is;
    change_order_status "Process, ship, deliver or cancel an order"
        writes "order: OrderProcessingStarted, OrderShipped, OrderDelivered, OrderCancelled, \
                OrderStockSettled, MailSent or MailRefused; product: StockShipped"
        refuses "illegal-transition" => shipping_lowers_stock_and_cancelling_gives_it_back;
    cancel_order "Cancel an order and refund it"
        writes "order: OrderCancelled, RefundIssued or RefundFailed, OrderStockSettled, MailSent or \
                MailRefused; product: StockReleased; customer: OrderClosed"
        refuses "illegal-transition" => a_cancelled_order_gives_the_money_back;
    get_order "Get an order" reads "orders" refuses "not-found"
        => every_operation_answers_as_documented;
    list_orders "List orders by status, customer or time" reads "orders" refuses "forbidden"
        => bad_requests_are_told_what_is_wrong_and_change_nothing;
    list_customer_orders "List a customer's orders" reads "orders" refuses "forbidden"
        => every_operation_answers_as_documented;
    get_order_history "Get the history of an order" reads "orders, history" refuses "not-found"
        => every_operation_answers_as_documented;
    listen_to_order "Follow an order live" reads "orders, history" refuses "not-found"
        => history_comes_first_and_then_what_happens;
    create_order_ticket "Create a ticket to follow an order in a browser" reads "orders" refuses "not-found"
        => tickets_open_one_order;
    payment_webhook "Receive notices from the payment gateway"
        writes "order: PaymentCaptured, PaymentDeclined, PaymentVoided, RefundIssued or RefundFailed, as \
                the gateway reports"
        refuses "invalid-signature" => notices_twice_late_and_out_of_order_change_nothing;
    report_sales "Report sales" reads "sales, products" refuses "forbidden"
        => a_report_is_the_sum_over_living_confirmed_orders;
    list_projections "List the read models and their progress" refuses "forbidden"
        => a_rebuild_is_not_noticed_and_gives_the_same_rows;
    rebuild_projection "Rebuild a read model while it serves" refuses "projection-conflict"
        => a_rebuild_is_not_noticed_and_gives_the_same_rows;
    roll_back_projection "Roll a read model back to its previous version" refuses "projection-conflict"
        => going_back_is_instant_and_going_on_too;
    pause_rebuild "Pause a rebuild" refuses "projection-conflict"
        => only_a_rebuild_under_way_can_be_held_up_or_let_go_on;
    resume_rebuild "Resume a rebuild" refuses "projection-conflict"
        => only_a_rebuild_under_way_can_be_held_up_or_let_go_on;
    accept_rebuild "Accept a rebuilt version that differs" refuses "projection-conflict"
        => a_difference_is_accepted_without_sql;
    cancel_rebuild "Cancel a rebuild" refuses "projection-conflict"
        => every_operation_answers_as_documented;
    drop_old_versions "Drop old versions of a read model" refuses "projection-conflict"
        => going_back_is_instant_and_going_on_too;
    list_parked "List parked streams" refuses "forbidden"
        => a_parked_order_says_so_until_it_is_drained;
    retry_parked "Retry a parked stream" refuses "not-found"
        => a_parked_order_says_so_until_it_is_drained;
    get_stream "Read the raw events of a stream" reads "history" refuses "not-found"
        => every_operation_answers_as_documented;
    healthz "Check that the process is alive" => what_axum_refuses_is_a_problem_too;
    readyz "Check that the node accepts commands and queries" refuses "unavailable"
        => read_models_stop_before_another_log_and_go_on_with_their_own;
    metrics "Read the metrics" => every_operation_answers_as_documented;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::operations;
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
    fn every_operation_has_a_row() {
        let document = crate::openapi::document();
        let all: BTreeSet<_> =
            operations(&document).map(|(_, _, it)| it["operationId"].as_str().unwrap()).collect();
        let told: BTreeSet<_> = FEATURES.iter().map(|feature| feature.operation).collect();
        assert_eq!(told, all);
        for feature in FEATURES.iter().filter(|feature| !feature.refusal.is_empty()) {
            let (_, _, operation) = operations(&document)
                .find(|(_, _, it)| it["operationId"] == feature.operation)
                .unwrap();
            let found = row::refusal(&document, operation, feature.refusal).is_some();
            assert!(found, "{} does not answer with {}", feature.name, feature.refusal);
        }
    }

    #[test]
    fn every_event_is_written_by_an_operation() {
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
