//! A test server with Stripe's API. It keeps state, remembers idempotency keys, and produces the
//! faults that a test asks for.

mod books;
mod routes;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use books::{Answer, Books, Form};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use uuid::Uuid;

/// A step of a payment, named by the last part of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Create,
    Confirm,
    Cancel,
    Refund,
}

/// A fault of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The step is done, but the answer is lost.
    LosesAnswer,
    /// The step is not done, and the error is remembered under the key, as Stripe does.
    Breaks,
    /// The step is done, but an error is returned and remembered.
    BreaksAfter,
    /// The request is rate-limited.
    Refuses,
}

/// The server.
pub struct Stripe {
    base: String,
    books: Mutex<Books>,
    changed: watch::Sender<u64>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// The URL of Stripe's own mock, which checks each request against Stripe's schema.
    mock: Option<String>,
}

impl Drop for Stripe {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
    }
}

impl Stripe {
    pub async fn start() -> Arc<Self> {
        Self::start_beside(None).await
    }

    /// Each request is also sent to `mock`, which must accept it.
    pub async fn start_beside(mock: Option<String>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stripe = Arc::new(Self {
            base: format!("http://{}", listener.local_addr().unwrap()),
            books: Mutex::default(),
            changed: watch::channel(0).0,
            task: Mutex::default(),
            mock,
        });
        let routes = routes::routes(Arc::downgrade(&stripe));
        let serve = async move { axum::serve(listener, routes).await.unwrap() };
        *stripe.task.lock().unwrap() = Some(tokio::spawn(serve));
        stripe
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Books)) {
        change(&mut self.books());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Sets the faults of the next steps of this kind, one for each.
    pub fn fails(&self, step: Step, faults: &[Fault]) {
        self.change(|books| books.faults.entry(step).or_default().extend(faults));
    }

    /// Makes steps of this kind wait from now on.
    pub fn hold(&self, step: Step) {
        self.change(|books| _ = books.held.insert(step));
    }

    /// Waits until a step of this kind has arrived and is waiting.
    pub async fn holds(&self, step: Step) {
        let mut changed = self.changed.subscribe();
        let held = changed.wait_for(|_| self.books().waiting.contains(&step));
        let held = tokio::time::timeout(crate::app::PATIENCE, held).await;
        assert!(held.is_ok(), "no {step:?} arrived");
    }

    pub fn release(&self, step: Step) {
        self.change(|books| {
            books.held.remove(&step);
            books.waiting.retain(|waiting| *waiting != step);
        });
    }

    pub fn set_down(&self, down: bool) {
        self.change(|books| books.down = down);
    }

    /// Sets whether the secret key is refused.
    pub fn set_locked(&self, locked: bool) {
        self.change(|books| books.locked = locked);
    }

    /// Forgets all keys, as Stripe does after a day.
    pub fn forget_keys(&self) {
        self.change(|books| books.remembered.clear());
    }

    /// Ends all faults, and finishes payments that are still being processed.
    pub fn mend(&self) {
        let open: Vec<String> = {
            let books = self.books();
            let open = books.intents.iter().filter(|(_, intent)| intent.status == "processing");
            open.map(|(id, _)| id.clone()).collect()
        };
        for id in &open {
            self.finish(id, true);
        }
        self.change(|books| {
            books.faults.clear();
            books.held.clear();
            (books.down, books.locked) = (false, false);
        });
    }

    /// Finishes a payment that is being processed. It can also change a payment that is final,
    /// which Stripe promises not to do.
    pub fn finish(&self, id: &str, succeeds: bool) {
        self.change(|books| {
            if succeeds {
                books.succeed(id);
            } else {
                books.decline(id, "card_declined", Some("insufficient_funds"));
            }
        });
    }

    /// Refunds a part of a payment, or all of it, in Stripe's dashboard.
    pub fn refund_by_hand(&self, payment: &str, amount: i64) {
        self.change(|books| {
            let id = format!("re_{}", Uuid::now_v7().simple());
            if amount == books.intents[payment].amount {
                let entry = json!({"did": "refunded", "payment_id": payment, "refund_id": id});
                books.journal.push(entry);
            }
            books.refunds.push((id, payment.to_owned(), amount, String::new()));
        });
    }

    /// The bank sends the last refund of a payment back.
    pub fn fail_refund(&self, payment: &str) {
        self.change(|books| {
            let last = books.refunds.iter().rfind(|refund| refund.1 == payment);
            let id = last.expect("it was refunded").0.clone();
            books.journal.retain(|entry| entry["refund_id"] != id.as_str());
            books.failed_refunds.insert(id);
        });
    }

    /// Refuses refunds with this code, or no longer.
    pub fn refuse_refunds(&self, code: Option<&'static str>) {
        self.change(|books| books.refuses_refunds = code);
    }

    /// Makes so many of the next refunds, which fail at once.
    pub fn fail_refunds(&self, count: u32) {
        self.change(|books| books.fails_refunds = count);
    }

    /// Somebody has made payments so much less, and changed their currency.
    pub fn alter(&self, less: i64, currency: &'static str) {
        self.change(|books| books.altered = Some((less, currency)));
    }

    /// Whether it is another account, which knows no payment.
    pub fn forget(&self, forgets: bool) {
        self.change(|books| books.forgets = forgets);
    }

    /// Takes so much less than it is asked for.
    pub fn take_less(&self, by: i64) {
        self.change(|books| books.takes_less = by);
    }

    /// The amount of a payment, and what of it has gone back.
    pub fn amounts(&self, payment: &str) -> (i64, i64) {
        let books = self.books();
        (books.intents[payment].amount, books.given_back(payment))
    }

    /// The number of requests received.
    pub fn asked(&self) -> u64 {
        self.books().asked
    }

    /// The number of requests sent to Stripe's mock.
    pub fn shown_to_mock(&self) -> u64 {
        self.books().shown_to_mock
    }

    pub fn status(&self, id: &str) -> &'static str {
        self.books().intents[id].status
    }

    /// The first payment of an order.
    pub fn payment_of(&self, order: Uuid) -> Option<String> {
        let (books, order) = (self.books(), order.to_string());
        let found = books.intents.iter().find(|(_, intent)| intent.order == order);
        found.map(|(id, _)| id.clone())
    }

    /// Waits until a payment has a status.
    pub async fn reaches(&self, id: &str, status: &str) {
        let mut changed = self.changed.subscribe();
        let reached = changed.wait_for(|_| self.status(id) == status);
        let reached = tokio::time::timeout(crate::app::PATIENCE, reached).await;
        assert!(reached.is_ok(), "{id} is {}, not {status}", self.status(id));
    }

    /// Waits until there are `count` movements of a kind.
    pub async fn moved(&self, did: &str, count: usize) {
        let mut changed = self.changed.subscribe();
        let moved = changed.wait_for(|_| self.movements(did) == count);
        let moved = tokio::time::timeout(crate::app::PATIENCE, moved).await;
        assert!(moved.is_ok(), "{did}: {}, not {count}", self.movements(did));
    }

    /// The number of movements of a kind, such as captures and refunds.
    pub fn movements(&self, did: &str) -> usize {
        self.books().journal.iter().filter(|entry| entry["did"] == did).count()
    }

    /// Everything that it did, in the format of the sandbox's journal.
    pub fn journal(&self) -> String {
        let lines: Vec<String> = self.books().journal.iter().map(Value::to_string).collect();
        lines.join("\n")
    }

    /// Checks that no request was invalid for Stripe, and that no refund exceeds its payment.
    pub fn check(&self) {
        let books = self.books();
        assert!(books.complaints.is_empty(), "{:#?}", books.complaints);
        for (id, intent) in &books.intents {
            let back = books.given_back(id);
            assert!(back <= intent.amount, "{id}: {back} was refunded of {}", intent.amount);
        }
    }

    /// Sends a request to the mock too.
    async fn validate(&self, headers: &HeaderMap, method: reqwest::Method, path: &str, body: &str) {
        let Some(mock) = &self.mock else { return };
        let bearer = headers.get("authorization").map_or(&b""[..], |value| value.as_bytes());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client
            .request(method.clone(), format!("{mock}{path}"))
            .header("authorization", bearer)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.to_owned());
        let answer = request.send().await.unwrap();
        let status = answer.status();
        self.change(|books| books.shown_to_mock += 1);
        if !status.is_success() {
            let text = answer.text().await.unwrap();
            let complaint = format!("{method} {path} {body}: {status} {text}");
            self.change(|books| books.complaints.push(complaint));
        }
    }

    /// The common part of all steps: access, keys, faults.
    async fn step(
        &self,
        step: Step,
        path: &str,
        headers: &HeaderMap,
        body: &str,
        work: impl FnOnce(&mut Books, &Form, &str) -> Answer,
    ) -> Response {
        self.validate(headers, reqwest::Method::POST, path, body).await;
        self.change(|books| books.asked += 1);
        if let Some(refused) = self.shut(headers) {
            return refused;
        }
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
        let Some(key) = key.map(str::to_owned) else {
            self.change(|books| books.complaints.push(format!("no key: {path} {body}")));
            return answer(400, &json!({"error": {"type": "invalid_request_error"}}));
        };
        let asked = format!("{path} {body}");
        if let Some((before, status, value)) = self.books().remembered.get(&key) {
            if *before == asked {
                return answer(*status, value);
            }
            return answer(400, &json!({"error": {"type": "idempotency_error"}}));
        }
        self.change(|books| books.waiting.extend(books.held.get(&step)));
        let mut changed = self.changed.subscribe();
        // The sender lives until the test is over, so this cannot fail.
        let _ = changed.wait_for(|_| !self.books().held.contains(&step)).await;

        let fault = self.books().faults.get_mut(&step).and_then(VecDeque::pop_front);
        let broken = (500, json!({"error": {"type": "api_error"}}));
        let form: Form = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let mut done = None;
        self.change(|books| {
            let result = match fault {
                Some(Fault::Refuses) => return,
                Some(Fault::Breaks) => broken.clone(),
                Some(Fault::BreaksAfter) => {
                    work(books, &form, &key);
                    broken.clone()
                }
                Some(Fault::LosesAnswer) | None => work(books, &form, &key),
            };
            books.remembered.insert(key.clone(), (asked, result.0, result.1.clone()));
            done = Some(result);
        });
        match (done, fault) {
            (_, Some(Fault::LosesAnswer)) => lost(),
            (Some((status, value)), _) => answer(status, &value),
            (None, _) => answer(429, &json!({"error": {"type": "invalid_request_error"}})),
        }
    }

    fn shut(&self, headers: &HeaderMap) -> Option<Response> {
        let books = self.books();
        let bearer = format!("Bearer {}", super::SECRET_KEY);
        let known = headers.get("authorization").is_some_and(|it| it == bearer.as_str());
        if books.locked || !known {
            let error = json!({"type": "invalid_request_error", "message": bearer});
            return Some(answer(401, &json!({ "error": error })));
        }
        books.down.then(|| answer(503, &json!("try again later")))
    }
}

/// An answer that ends in the middle.
fn lost() -> Response {
    let broken = futures::stream::once(async { Err::<Vec<u8>, _>(std::io::Error::other("lost")) });
    Body::from_stream(broken).into_response()
}

fn answer(status: u16, value: &Value) -> Response {
    let headers = [("content-type", "application/json"), ("request-id", "req_test")];
    (StatusCode::from_u16(status).unwrap(), headers, value.to_string()).into_response()
}
