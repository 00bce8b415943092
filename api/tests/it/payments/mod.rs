//! The shop with Stripe as its gateway. A test server implements Stripe's API and produces the
//! faults that a test asks for.

mod life_cycle;
mod money;
mod outages;
mod refunds;
mod settings;
mod stripe;
mod stripe_mock;
mod webhook;

use crate::{
    app::{Ground, PATIENCE, TestApp, eventually, fresh_topic, ground},
    client::{Answer, Call, order_paid_by},
};
use commands::gateway::stripe::webhook::sign;
use events::{Environment, environment::System};
use orderlog::config::{LogChoice, PaymentChoice};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use stripe::Stripe;
use uuid::Uuid;

const SECRET_KEY: &str = "sk_test_orderlog";
const WEBHOOK_SECRET: &str = "whsec_orderlog";

/// A shop and the Stripe server that it uses.
pub struct Paid {
    pub app: TestApp,
    pub stripe: Arc<Stripe>,
    /// A customer.
    pub reader: Uuid,
    /// A product: a hundred units at 10.00 each.
    pub book: Uuid,
}

/// Payment settings for a Stripe server.
fn choice(stripe: &Stripe) -> PaymentChoice {
    PaymentChoice::Stripe {
        secret_key: SECRET_KEY.into(),
        webhook_secret: Some(WEBHOOK_SECRET.into()),
        api_base: stripe.base().parse().unwrap(),
    }
}

/// Runs a scenario on the embedded log.
async fn on_embedded(deadline: Duration, scenario: impl AsyncFnOnce(&Paid)) {
    run(LogChoice::Embedded, deadline, scenario).await;
}

/// Runs a scenario on Kafka. Prints a message if there is no Kafka.
async fn on_kafka(deadline: Duration, scenario: impl AsyncFnOnce(&Paid)) {
    let Some(log) = fresh_topic() else { return };
    run(log, deadline, scenario).await;
}

async fn run(log: LogChoice, deadline: Duration, scenario: impl AsyncFnOnce(&Paid)) {
    let stripe = Stripe::start().await;
    let Ground { mut config, dir } = ground(log).await;
    config.payments = choice(&stripe);
    config.order_deadline = deadline;
    let app = TestApp::start(Ground { config, dir }).await;
    let (book, reader) = (app.staff.product(1000, 100).await, app.staff.customer().await);
    let paid = Paid { app, stripe, reader, book };
    scenario(&paid).await;
    let Paid { app, stripe, .. } = paid;
    stripe.mend();
    app.finish_with(|_| stripe.journal()).await;
    stripe.check();
}

impl Paid {
    /// An order of one book with this payment method.
    fn order(&self, method: &str) -> Call {
        let body = order_paid_by(self.reader, &[(self.book, 1)], method);
        self.app.staff.post("/orders", &body)
    }

    /// Places an order without waiting for its outcome.
    async fn order_pending(&self, method: &str) -> Uuid {
        let answer = self.order(method).header("prefer", "respond-async").expect(202).await;
        answer.id("order_id")
    }

    /// Waits until an order shows the wanted value.
    async fn shows(&self, order: Uuid, name: &str, wanted: &str) -> Answer {
        eventually(&format!("order {order} shows {name} {wanted}"), async || {
            let answer = self.app.staff.get(&format!("/orders/{order}")).send().await;
            (answer.body[name] == wanted).then_some(answer)
        })
        .await
    }

    async fn cancel(&self, order: Uuid) -> Answer {
        let path = format!("/orders/{order}/cancel");
        self.app.staff.post(&path, &json!({})).expect(200).await
    }

    /// Waits for the payment of an order.
    async fn payment(&self, order: Uuid) -> String {
        eventually("the payment is created", async || self.stripe.payment_of(order)).await
    }

    /// The same, but waits until the log has the payment too, so that it can be captured.
    async fn payment_logged(&self, order: Uuid) -> String {
        let payment = self.payment(order).await;
        self.shows(order, "payment_id", &payment).await;
        payment
    }

    /// Sends a notification of Stripe with a valid signature.
    async fn notify(&self, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = sign(&WEBHOOK_SECRET.into(), body.as_bytes(), System::new().now());
        self.notice(&body).header("stripe-signature", signature).send().await
    }

    fn notice(&self, body: &str) -> Call {
        let post = self.app.staff.anonymous().call(reqwest::Method::POST, "/payments/webhook");
        post.raw("application/json", body)
    }
}

/// An event about a payment.
fn event(kind: &str, payment: &str) -> Value {
    json!({
        "id": format!("evt_{}", Uuid::now_v7().simple()),
        "object": "event",
        "type": kind,
        "data": {"object": {"object": "payment_intent", "id": payment}},
    })
}

/// A deadline that no scenario reaches.
const FAR: Duration = PATIENCE.saturating_mul(10);

/// Runs a scenario on both logs: `on_both_logs!(deadline: name, ...)`.
macro_rules! on_both_logs {
    ($deadline:expr; $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::payments::on_embedded($deadline, async |shop| scenario::$name(shop).await).await;
            }
        )+
        /// The same scenarios on Apache Kafka.
        mod on_kafka {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let run = async |shop: &Paid| scenario::$name(shop).await;
                    crate::payments::on_kafka($deadline, run).await;
                }
            )+
        }
    };
}
use on_both_logs;
