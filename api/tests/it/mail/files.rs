//! Without a mail server, e-mails are written as files.

use crate::{app::TestApp, on_both_logs};
use std::{fs, path::PathBuf};
use uuid::Uuid;

on_both_logs!(letters_are_files_until_their_customer_is_erased,);

/// The file names of the e-mails to a customer.
fn letters(app: &TestApp, customer: Uuid) -> Vec<String> {
    let folder: PathBuf = app.running().data_dir().join("mails").join(customer.to_string());
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

mod scenario {
    use super::*;
    use crate::client::{order, order_paid_by};
    use serde_json::json;

    pub async fn letters_are_files_until_their_customer_is_erased(app: &TestApp) {
        let product = app.staff.product(2_500, 10).await;
        let (reader, other) = (app.staff.customer().await, app.staff.customer().await);
        let place = async |customer| {
            let placed = app.staff.post("/orders", &order(customer, &[(product, 1)]));
            placed.expect(201).await.id("order_id")
        };
        let (first, kept) = (place(reader).await, place(other).await);
        app.settled().await;
        assert_eq!(letters(app, reader), [format!("{first}.confirmed@localhost.eml")]);

        // An order that continues after the customer's erasure sends no e-mails.
        let slow = order_paid_by(reader, &[(product, 1)], "pm_card_slow");
        let slow = app.staff.post("/orders", &slow).header("prefer", "respond-async");
        let slow = slow.expect(202).await.id("order_id");
        app.staff
            .call(reqwest::Method::DELETE, &format!("/customers/{reader}?confirm=open-orders"))
            .expect(200)
            .await;
        assert!(letters(app, reader).is_empty());
        let ship = json!({"status": "shipped"});
        app.staff.patch(&format!("/orders/{first}/status"), &ship).expect(200).await;
        let books = app.settled().await;
        let refused = |id: &Uuid| books.orders[id].mails_refused.first().map(|(_, why)| &**why);
        assert_eq!(refused(&first), Some("erased"));
        // The order is confirmed only if it was open at its customer before the erasure.
        let confirmed = books.orders[&slow].status == "confirmed";
        assert_eq!(refused(&slow), confirmed.then_some("erased"));
        assert!(letters(app, reader).is_empty());
        assert_eq!(letters(app, other), [format!("{kept}.confirmed@localhost.eml")]);
    }
}
