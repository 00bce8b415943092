//! Stripe's own mock, which checks requests against Stripe's published schema. It keeps no state,
//! so the scripted server sends it a copy of every request.

use super::{SECRET_KEY, stripe::Stripe};
use commands::gateway::{
    Creation, Ending, Gateway, NewPayment,
    stripe::{ApiBase, StripeGateway},
};
use events::Money;
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use uuid::Uuid;

/// A running mock. It ends when dropped.
struct Mock {
    child: Child,
    base: String,
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Mock {
    /// Starts the program at `STRIPE_MOCK`. `None`, with a message, if it is not set.
    async fn start() -> Option<Self> {
        let Some(program) = std::env::var_os("STRIPE_MOCK").map(PathBuf::from) else {
            let required = std::env::var("ORDERLOG_REQUIRE_STRIPE_MOCK").is_ok();
            assert!(!required, "STRIPE_MOCK is not set, and ORDERLOG_REQUIRE_STRIPE_MOCK is");
            println!("skipped: STRIPE_MOCK names no stripe-mock");
            return None;
        };
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .args(["-http-addr", &free.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mock = Self { child, base: format!("http://{free}") };
        crate::app::eventually("the mock serves", async || {
            tokio::net::TcpStream::connect(free).await.ok()
        })
        .await;
        Some(mock)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_one_that_stripe_takes() {
    let Some(mock) = Mock::start().await else { return };
    let stripe = Stripe::start_beside(Some(mock.base.clone())).await;
    let base: ApiBase = stripe.base().parse().unwrap();
    let gateway = StripeGateway::try_new(&base, &SECRET_KEY.into()).unwrap();
    let amount = Money::new(1999, "GBP".parse().unwrap());
    let create = async |method: &str| {
        let key = format!("order-{}/payment/1", Uuid::now_v7());
        let order_id = Uuid::now_v7();
        let method = &method.into();
        let payment = NewPayment { key: &key, order_id, amount, method };
        match gateway.create(&payment).await.unwrap() {
            Creation::Created(id) => (id, order_id),
            Creation::Declined(code) => panic!("{code}"),
        }
    };

    let (paid, order_id) = create("pm_card_visa").await;
    let taken = Some(Ending::Received(amount));
    assert_eq!(gateway.capture(&paid).await.unwrap(), taken);
    let refund = gateway.refund("order/refund/1", &paid, amount).await.unwrap();
    assert_eq!(gateway.refund("order/refund/1", &paid, amount).await.unwrap(), refund);
    let seen = gateway.look(&paid).await.unwrap().unwrap();
    assert_eq!((seen.order_id, seen.ending), (order_id, taken));

    let (unwanted, _) = create("pm_card_visa").await;
    assert_eq!(gateway.settle(&unwanted).await.unwrap(), Some(Ending::Voided));
    assert_eq!(gateway.capture(&unwanted).await.unwrap(), Some(Ending::Voided));
    let (declined, _) = create("pm_card_declined").await;
    let no_money = Some(Ending::Declined("insufficient_funds".into()));
    assert_eq!(gateway.capture(&declined).await.unwrap(), no_money);
    assert_eq!(stripe.shown_to_mock(), 18);
    stripe.check();
}

/// Proves that the mock refuses invalid requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mock_refuses_what_stripe_does_not_know() {
    let Some(mock) = Mock::start().await else { return };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(format!("{}/v1/payment_intents", mock.base))
        .bearer_auth(SECRET_KEY)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("amount=1&currency=gbp&pay_with=pm_card_visa");
    assert_eq!(request.send().await.unwrap().status(), 400);
}
