//! An e-mail address belongs to one customer at most.

use crate::{client::Answer, on_both_logs};
use futures::future::join;
use serde_json::{Value, json};

on_both_logs!(
    of_two_registrations_of_one_address_one_succeeds,
    an_address_that_was_let_go_can_be_taken,
);

fn reader(email: &str) -> Value {
    json!({"email": email, "first_name": "A", "last_name": "Reader"})
}

fn is_taken(answer: &Answer) -> bool {
    answer.status == 409 && answer.problem() == "email-taken"
}

mod scenario {
    use super::*;
    use crate::app::TestApp;

    pub async fn of_two_registrations_of_one_address_one_succeeds(app: &TestApp) {
        let anyone = app.staff.anonymous();
        for round in 0..10 {
            let (one, other) = (
                reader(&format!("twin-{round}@example.org")),
                reader(&format!("TWIN-{round}@Example.org")),
            );
            let (one, other) = join(
                anyone.post("/customers", &one).send(),
                anyone.post("/customers", &other).send(),
            )
            .await;
            let (winner, loser) = if one.status == 201 { (one, other) } else { (other, one) };
            assert_eq!(winner.status, 201, "{:?}", winner.body);
            assert!(is_taken(&loser), "{:?}", loser.body);
        }
    }

    pub async fn an_address_that_was_let_go_can_be_taken(app: &TestApp) {
        let first = app.staff.post("/customers", &reader("old@example.org")).expect(201).await;
        let path = format!("/customers/{}", first.id("customer_id"));
        let second = app.staff.post("/customers", &reader("second@example.org")).expect(201).await;

        // Another's address is refused, and nothing of the request comes true.
        let wanted = json!({"email": "Second@example.org", "first_name": "B"});
        assert!(is_taken(&app.staff.patch(&path, &wanted).send().await));
        app.caught_up().await;
        let shown = app.staff.get(&path).expect(200).await;
        assert_eq!(
            (&shown.body["email"], &shown.body["first_name"]),
            (&json!("old@example.org"), &json!("A"))
        );

        app.staff.patch(&path, &json!({"email": "new@example.org"})).expect(200).await;
        app.settled().await;
        app.staff.post("/customers", &reader("OLD@example.org")).expect(201).await;
        app.caught_up().await;
        let found = app.staff.get("/customers?email=second@example.org").expect(200).await;
        assert_eq!(found.body["customer_id"], second.body["customer_id"]);
    }
}
