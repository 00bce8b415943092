//! Listening to the events of orders over HTTP.

use crate::{
    app::{Ground, PATIENCE, TestApp, eventually, fresh_topic, ground},
    client::{Api, order},
    on_both_logs,
    program::{Program, command},
};
use events::Environment;
use futures::future::join_all;
use orderlog::{
    auth::{AuthKeys, Role, TOKEN_LIFETIME},
    config::LogChoice,
    startup::auth_key_path,
};
use reqwest::Response;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

on_both_logs!(
    history_comes_first_and_then_what_happens,
    under_load_nothing_is_missing_and_nothing_comes_twice,
    others_do_not_hear,
    tickets_open_one_order,
);

/// A listening client.
struct Ear {
    response: Response,
    heard: String,
}

/// A server-sent event.
#[derive(Debug, PartialEq)]
struct Heard {
    id: u64,
    event: String,
    data: Value,
}

impl Ear {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, heard: String::new() }
    }

    async fn to(api: &Api, id: Uuid) -> Self {
        Self::of(api.get(&format!("/orders/{id}/events")).open().await)
    }

    async fn from(api: &Api, id: Uuid, last: u64) -> Self {
        let call = api.get(&format!("/orders/{id}/events")).header("last-event-id", last);
        Self::of(call.open().await)
    }

    /// The next lines up to an empty line; `None` at the end.
    async fn lines(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.heard.find("\n\n") {
                let lines: String = self.heard.drain(..end + 2).collect();
                return Some(lines.trim_end().to_owned());
            }
            let piece = timeout(PATIENCE, self.response.chunk()).await.expect("something comes");
            self.heard += std::str::from_utf8(&piece.ok()??).unwrap();
        }
    }

    /// The next event; `None` at the end.
    async fn event(&mut self) -> Option<Heard> {
        loop {
            let lines = self.lines().await?;
            let of = |name: &str| {
                let line =
                    lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                line.map(str::to_owned)
            };
            let Some(data) = of("data") else { continue };
            let data: Value = serde_json::from_str(&data).unwrap();
            let (id, event) = (of("id").unwrap().parse().unwrap(), of("event").unwrap());
            assert_eq!((&data["version"], &data["type"]), (&json!(id), &json!(event)));
            return Some(Heard { id, event, data });
        }
    }

    /// All events up to the first of this type.
    async fn until(&mut self, event: &str) -> Vec<Heard> {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &Heard| last.event != event) {
            heard.push(self.event().await.expect("it goes on"));
        }
        heard
    }
}

/// The history, once it includes an event that was received.
async fn history(api: &Api, id: Uuid, with: &Heard) -> Vec<Value> {
    let position = with.data["position"].as_str().unwrap();
    let call = api.get(&format!("/orders/{id}/history?limit=200"));
    let answer = call.header("min-log-position", position).expect(200).await;
    answer.body["items"].as_array().unwrap().clone()
}

/// Changes the status of an order.
async fn go_on(api: &Api, id: Uuid, status: &str) {
    let (path, body) = (format!("/orders/{id}/status"), json!({ "status": status }));
    api.patch(&path, &body).expect(200).await;
}

/// Places a new order. Returns its id and the customer's.
async fn placed(api: &Api) -> (Uuid, Uuid) {
    let (product, reader) = (api.product(1_000, 100).await, api.customer().await);
    let answer = api.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
    (answer.id("order_id"), reader)
}

mod scenario {
    use super::*;

    pub async fn history_comes_first_and_then_what_happens(app: &TestApp) {
        let (id, _) = placed(&app.staff).await;
        let mut ear = Ear::to(&app.staff, id).await;
        assert!(ear.lines().await.unwrap().starts_with("retry: "));
        let mut heard = ear.until("OrderConfirmed").await;
        for status in ["processing", "shipped", "delivered"] {
            go_on(&app.staff, id, status).await;
        }
        heard.extend(ear.until("OrderDelivered").await);
        // A later listener gets the same events, and can start after any of them.
        let shown = history(&app.staff, id, heard.last().unwrap()).await;
        let position = shown.iter().position(|item| item["type"] == "OrderDelivered").unwrap();
        let data: Vec<_> = heard.iter().map(|one| one.data.clone()).collect();
        assert_eq!(data, shown[..=position]);
        assert_eq!(Ear::to(&app.staff, id).await.until("OrderDelivered").await, heard);
        for (seen, one) in heard.iter().enumerate().take(heard.len() - 1) {
            let mut again = Ear::from(&app.staff, id, one.id).await;
            assert_eq!(again.event().await.unwrap(), heard[seen + 1]);
        }
        // A browser that reconnects by itself sends a header; with a new ticket it uses the query
        // parameter.
        let last = heard[2].id;
        let path = format!("/orders/{id}/events?last_event_id={last}");
        let mut again = Ear::of(app.staff.get(&path).open().await);
        assert_eq!(again.event().await.unwrap(), heard[3]);
    }

    pub async fn under_load_nothing_is_missing_and_nothing_comes_twice(app: &TestApp) {
        const ORDERS: usize = 24;
        let product = app.staff.product(1_000, 10_000).await;
        let one = async |number: usize| {
            let reader = app.staff.customer().await;
            let mut body = order(reader, &[(product, 1)]);
            if number.is_multiple_of(3) {
                body["payment_method"] = json!("pm_card_error");
            }
            let call = app.staff.post("/orders", &body).header("prefer", "respond-async");
            let answer = call.send().await;
            assert!([201, 202].contains(&answer.status), "{answer:?}");
            let id = answer.id("order_id");
            let moving = async {
                eventually("it is confirmed", async || {
                    let order = app.staff.get(&format!("/orders/{id}")).send().await;
                    (order.body["status"] == "confirmed").then_some(())
                })
                .await;
                for status in ["processing", "shipped", "delivered"] {
                    go_on(&app.staff, id, status).await;
                }
            };
            // The listener disconnects after a few events and reconnects.
            let listening = async {
                let (mut heard, mut last) = (Vec::<Heard>::new(), 0);
                while heard.last().is_none_or(|last| last.event != "OrderDelivered") {
                    let mut ear = match last {
                        0 => Ear::to(&app.staff, id).await,
                        last => Ear::from(&app.staff, id, last).await,
                    };
                    for _ in 0..=number % 5 {
                        let one = ear.event().await.unwrap();
                        last = one.id;
                        heard.push(one);
                        if heard.last().is_some_and(|last| last.event == "OrderDelivered") {
                            break;
                        }
                    }
                }
                heard
            };
            let staying = async { Ear::to(&app.staff, id).await.until("OrderDelivered").await };
            let ((), heard, stayed) = tokio::join!(moving, listening, staying);
            let versions: Vec<_> = heard.iter().map(|one| one.id).collect();
            assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>(), "order {id}");
            assert_eq!(heard, stayed);
            let shown = history(&app.staff, id, heard.last().unwrap()).await;
            assert!(shown.len() >= heard.len());
            assert!(heard.iter().zip(&shown).all(|(heard, shown)| heard.data == *shown));
        };
        join_all((0..ORDERS).map(one)).await;
    }

    pub async fn others_do_not_hear(app: &TestApp) {
        let (id, reader) = placed(&app.staff).await;
        let path = format!("/orders/{id}/events");
        let reader = app.caller(Role::Customer, &reader.to_string());
        let other = app.caller(Role::Customer, &Uuid::now_v7().to_string());
        assert_eq!(Ear::to(&reader, id).await.until("OrderConfirmed").await[0].id, 1);
        other.get(&path).expect(404).await;
        other.post(&format!("{path}/ticket"), &json!({})).expect(404).await;
        app.staff.anonymous().get(&path).expect(401).await;
        app.staff.anonymous().post(&format!("{path}/ticket"), &json!({})).expect(401).await;
        app.staff.get(&format!("/orders/{}/events", Uuid::now_v7())).expect(404).await;
        // An empty id is none.
        let call = reader.get(&path).header("last-event-id", "");
        assert_eq!(Ear::of(call.open().await).until("OrderConfirmed").await[0].id, 1);
        for last in ["first", "-1", "1.0", "1000000"] {
            let answer = reader.get(&path).header("last-event-id", last).expect(400).await;
            assert_eq!(answer.problem(), "invalid-parameter");
        }
        reader.get(&format!("{path}?colour=red")).expect(400).await;
        // The number of streams per customer is limited.
        let mut ears = Vec::new();
        for _ in 0..20 {
            ears.push(Ear::to(&reader, id).await);
        }
        assert_eq!(reader.get(&path).expect(429).await.problem(), "rate-limited");
        Ear::to(&app.staff, id).await;
        drop(ears);
        eventually("a place is free again", async || {
            let response = reader.get(&path).open().await;
            (response.status() == 200).then_some(())
        })
        .await;
    }

    pub async fn tickets_open_one_order(app: &TestApp) {
        let (id, reader) = placed(&app.staff).await;
        let (other, _) = placed(&app.staff).await;
        let reader = app.caller(Role::Customer, &reader.to_string());
        let path = format!("/orders/{id}/events");
        let given = reader.post(&format!("{path}/ticket"), &json!({})).expect(200).await;
        assert_eq!(given.header("cache-control"), Some("no-store"));
        let ticket = given.body["ticket"].as_str().unwrap();
        assert!(given.body["expires_at"].as_str().unwrap().ends_with('Z'));
        let browser = app.staff.anonymous();
        // A ticket works more than once, because a browser reconnects by itself.
        for _ in 0..2 {
            let mut ear = Ear::of(browser.get(&format!("{path}?ticket={ticket}")).open().await);
            assert_eq!(ear.event().await.unwrap().id, 1);
        }
        let forged = format!("{}x", &ticket[..ticket.len() - 1]);
        browser.get(&format!("{path}?ticket={forged}")).expect(401).await;
        browser.get(&format!("{path}?ticket=")).expect(401).await;
        browser.get(&format!("/orders/{other}/events?ticket={ticket}")).expect(401).await;
        // A ticket is for event streams only, and not for callers with a token.
        reader.get(&format!("{path}?ticket={ticket}")).expect(400).await;
        browser.get(&format!("/orders/{id}?ticket={ticket}")).expect(401).await;
        browser.with_token(ticket).get(&path).expect(401).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_heartbeats_and_ends_with_its_token() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.live_heartbeat = Duration::from_millis(20);
    let app = TestApp::start(ground).await;
    let (id, _) = placed(&app.staff).await;
    let keys = AuthKeys::load_or_create(&auth_key_path(app.running().data_dir())).unwrap();
    // The token was signed a day ago; the leeway makes it valid for some more seconds.
    let now = events::environment::System::new().now();
    let token = keys.sign(Role::Staff, "sam", now - TOKEN_LIFETIME - Duration::from_secs(25));
    let mut ear = Ear::to(&app.staff.with_token(token.unwrap()), id).await;
    let (mut heartbeats, mut last) = (0, String::new());
    while let Some(lines) = ear.lines().await {
        heartbeats += usize::from(lines == ":");
        last = lines;
    }
    assert!(heartbeats > 3 && last == ":", "{heartbeats}, {last}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_goes_on_after_a_restart() {
    resumes_after_a_restart(LogChoice::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_goes_on_after_a_restart_on_kafka() {
    let Some(log) = fresh_topic() else { return };
    resumes_after_a_restart(log).await;
}

async fn resumes_after_a_restart(log: LogChoice) {
    let ground = ground(log).await;
    let first = Program::start(&ground);
    let (id, _) = placed(&first.staff).await;
    let mut ear = Ear::to(&first.staff, id).await;
    let seen = ear.until("OrderConfirmed").await;
    first.kill();
    let broken = async { while ear.event().await.is_some() {} };
    timeout(PATIENCE, broken).await.expect("it ends with the program");
    let second = Program::start(&ground);
    let mut ear = Ear::from(&second.staff, id, seen.last().unwrap().id).await;
    for status in ["processing", "shipped"] {
        go_on(&second.staff, id, status).await;
    }
    let mut heard = seen;
    heard.extend(ear.until("OrderShipped").await);
    let versions: Vec<_> = heard.iter().map(|one| one.id).collect();
    assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());
    // A graceful stop does not wait for listeners.
    assert!(second.stop().success());
    let ended = async { while ear.event().await.is_some() {} };
    timeout(PATIENCE, ended).await.expect("it ends with the program");
    crate::program::delete_topic(&ground.config.log).await;
}

/// A query-only node streams the events that another node appends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_node_hears_what_a_command_node_does_on_kafka() {
    let Some(log) = fresh_topic() else { return };
    let first_ground = ground(log).await;
    let second_ground = first_ground.beside();
    let start = |ground: &Ground, roles: &str| {
        let mut program = command(ground, &[]);
        program.env("ROLES", roles);
        Program::start_as(program)
    };
    let commands = start(&first_ground, "command,projector");
    let queries = start(&second_ground, "query");
    let (id, _) = placed(&commands.staff).await;
    let mut ear = Ear::to(&queries.staff, id).await;
    ear.until("OrderConfirmed").await;
    for status in ["processing", "shipped", "delivered"] {
        go_on(&commands.staff, id, status).await;
    }
    ear.until("OrderDelivered").await;
    assert!(queries.stop().success() && commands.stop().success());
    crate::program::delete_topic(&first_ground.config.log).await;
}
