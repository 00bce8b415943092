//! E-mails to customers: exactly one for each event that owes one, in spite of faults of the mail
//! server and the program.

mod files;
mod server;

use crate::{
    app::{Ground, TestApp, eventually, fresh_topic, ground, settled},
    books::Books,
    client::{Api, order},
    program::{self, Program},
};
use commands::mail::SmtpMailer;
use events::order::Mail;
use orderlog::config::{LogChoice, MailConfig};
use serde_json::json;
use server::{Mood, Server, Tls, self_made};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

const SENDER: &str = "The Book Shop <orders@shop.example>";

/// Runs a scenario with a mail server, on the embedded log and, if there is one, on Kafka.
macro_rules! with_a_server {
    ($($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                host(LogChoice::Embedded, async |app, server| scenario::$name(app, server).await).await;
            }
        )+
        /// The same scenarios on Apache Kafka.
        mod on_kafka {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let Some(log) = super::fresh_topic() else { return };
                    super::host(log, async |app, server| super::scenario::$name(app, server).await).await;
                }
            )+
        }
    };
}

with_a_server!(
    each_event_sends_one_letter_and_a_rebuild_none,
    a_refusal_of_the_moment_is_tried_again_and_one_for_good_is_recorded,
    a_letter_that_can_never_be_taken_is_settled_and_holds_up_no_other,
    an_answer_that_is_not_about_the_letter_settles_none,
    only_the_code_of_an_answer_counts_and_what_has_none_settles_the_letter,
    a_server_that_stalls_holds_no_order_up,
);

async fn host(log: LogChoice, scenario: impl AsyncFnOnce(&TestApp, &Server)) {
    host_for(SmtpMailer::GIVE_UP, log, scenario).await;
}

/// Runs a scenario with a mail server. An e-mail that is deferred for longer than `give_up` is
/// refused.
async fn host_for(
    give_up: Duration,
    log: LogChoice,
    scenario: impl AsyncFnOnce(&TestApp, &Server),
) {
    let server = Server::start(Mood::Takes);
    let mut ground = ground(log).await;
    let url = format!("smtp://127.0.0.1:{}", server.port);
    ground.config.mail =
        MailConfig { server: Some(url.parse().unwrap()), sender: SENDER.parse().unwrap(), give_up };
    let app = TestApp::start(ground).await;
    scenario(&app, &server).await;
    app.finish().await;
}

/// Places two orders of a new customer: one is shipped, the other cancelled.
async fn shop(api: &Api) -> [Uuid; 2] {
    let product = api.product(2_500, 100).await;
    let reader = api.customer().await;
    let place = async || {
        let placed = api.post("/orders", &order(reader, &[(product, 2)])).expect(201).await;
        placed.id("order_id")
    };
    let (shipped, cancelled) = (place().await, place().await);
    api.patch(&format!("/orders/{shipped}/status"), &json!({"status": "shipped"}))
        .expect(200)
        .await;
    let cancel = format!("/orders/{cancelled}/cancel");
    api.post(&cancel, &json!({"reason": "second thoughts"})).expect(200).await;
    [shipped, cancelled]
}

/// The e-mails that the log records as sent, with their counts.
fn recorded(books: &Books) -> BTreeMap<String, usize> {
    let sent = books.orders.values().flat_map(|order| &order.mails_sent);
    sent.map(|(_, id)| (id.clone(), 1)).collect()
}

mod scenario {
    use super::*;

    pub async fn each_event_sends_one_letter_and_a_rebuild_none(app: &TestApp, server: &Server) {
        let [shipped, cancelled] = shop(&app.staff).await;
        let books = app.settled().await;
        let expected = [(shipped, "confirmed"), (shipped, "shipped"), (cancelled, "confirmed")];
        let expected = expected.into_iter().chain([(cancelled, "cancelled")]);
        let expected: BTreeMap<String, usize> =
            expected.map(|(id, mail)| (format!("{id}.{mail}@shop.example"), 1)).collect();
        assert_eq!(server.message_ids(), expected);
        assert_eq!(recorded(&books), expected);
        let letters = server.letters();
        let told = letters.iter().find(|letter| letter.contains(".cancelled@")).unwrap();
        for part in ["The Book Shop", "A Reader", "second thoughts", "2 x A book", "50.00 GBP"] {
            assert!(told.contains(part), "{part}\n{told}");
        }

        app.caught_up().await;
        let admin = app.caller(orderlog::auth::Role::Admin, "root");
        admin.post("/admin/projections/orders/rebuild", &json!({})).send().await;
        eventually("the rebuilt version serves", async || {
            let shown = admin.get("/admin/projections").expect(200).await.body;
            let items = shown["items"].as_array().unwrap();
            let is_there = |item: &&serde_json::Value| {
                item["name"] == "orders" && item["serving"] == true && item["version"] != 1
            };
            items.iter().find(is_there).map(|_| ())
        })
        .await;
        app.settled().await;
        assert_eq!(server.message_ids(), expected);
    }

    pub async fn a_refusal_of_the_moment_is_tried_again_and_one_for_good_is_recorded(
        app: &TestApp,
        server: &Server,
    ) {
        let product = app.staff.product(2_500, 100).await;
        let reader = app.staff.customer().await;
        let place = async || {
            let placed = app.staff.post("/orders", &order(reader, &[(product, 1)]));
            placed.expect(201).await.id("order_id")
        };
        server.set(Mood::Answers("450 4.2.0 come again"));
        let patient = place().await;
        eventually("it was tried", async || server.heard("RCPT").then_some(())).await;
        let before = Books::read(&*app.log()).await;
        assert!(recorded(&before).is_empty() && !before.is_settled());
        server.set(Mood::Takes);
        assert_eq!(app.settled().await.orders[&patient].mails_sent.len(), 1);

        // The server's answer contains the address, which must not get into the log.
        server.set(Mood::Answers("550 5.1.1 <reader@example.org> is nobody"));
        let refused = place().await;
        let books = app.settled().await;
        let letters = &books.orders[&refused].mails_refused;
        assert_eq!(letters, &[(Mail::Confirmed, "smtp-550".to_owned())]);
        assert_eq!(server.letters().len(), 1);

        // Errors such as bad credentials are not final: the operator can fix them.
        server.set(Mood::Answers("535 5.7.8 no"));
        let waits = place().await;
        server.set(Mood::Takes);
        assert_eq!(app.settled().await.orders[&waits].mails_sent.len(), 1);
    }

    /// Registers somebody with this address. Returns how to place an order in their name.
    async fn buyer(app: &TestApp, email: &str) -> impl AsyncFn() -> Uuid {
        let product = app.staff.product(2_500, 100).await;
        let person = json!({"email": email, "first_name": "A", "last_name": "Reader"});
        let reader = app.staff.post("/customers", &person).expect(201).await.id("customer_id");
        let staff = app.staff.clone();
        async move || {
            let placed = staff.post("/orders", &order(reader, &[(product, 1)]));
            placed.expect(201).await.id("order_id")
        }
    }

    pub async fn a_letter_that_can_never_be_taken_is_settled_and_holds_up_no_other(
        app: &TestApp,
        server: &Server,
    ) {
        let refused = async |order: Uuid, code: &str| {
            let books = app.settled().await;
            let letters = &books.orders[&order].mails_refused;
            assert_eq!(letters, &[(Mail::Confirmed, code.to_owned())]);
        };
        let place = buyer(app, "ann@b").await;
        for (answer, code) in [
            ("504 5.5.2 need a whole domain", "smtp-504"),
            ("501 5.1.3 what is that", "smtp-501"),
            ("521 5.3.2 no mail here", "smtp-521"),
        ] {
            server.set(Mood::Answers(answer));
            refused(place().await, code).await;
            server.set(Mood::AnswersText(answer));
            refused(place().await, code).await;
        }
        // Far more of them in a row than trip the breaker.
        server.set(Mood::Answers("504 5.5.2 need a whole domain"));
        for _ in 0..30 {
            place().await;
        }
        assert_eq!(
            app.settled().await.orders.values().map(|it| it.mails_refused.len()).sum::<usize>(),
            36
        );
        server.set(Mood::TakesAscii);
        let abroad = buyer(app, "zoë@bücher.example").await;
        refused(abroad().await, "no-smtputf8").await;
        let domain_only = buyer(app, "zoe@bücher.example").await;
        let sent = domain_only().await;
        assert_eq!(app.settled().await.orders[&sent].mails_sent.len(), 1);
        assert!(server.heard("RCPT TO:<zoe@xn--bcher-kva.example>"));
        // A failure ends the connection that knows the server as one without SMTPUTF8.
        server.set(Mood::Answers("550 5.1.1 nobody"));
        place().await;
        app.settled().await;
        server.set(Mood::Takes);
        let sent = abroad().await;
        assert_eq!(app.settled().await.orders[&sent].mails_sent.len(), 1);
        assert!(server.heard("RCPT TO:<zoë@xn--bcher-kva.example>"));
    }

    pub async fn an_answer_that_is_not_about_the_letter_settles_none(
        app: &TestApp,
        server: &Server,
    ) {
        let place = buyer(app, "bob@x.example").await;
        for mood in [
            Mood::AnswersSender("550 5.7.1 nobody may send as you"),
            Mood::AnswersSender("501 5.1.7 what a sender"),
            Mood::Answers("530 5.7.0 who are you"),
            Mood::Answers("421 4.3.2 closing"),
        ] {
            server.set(mood);
            let before = (server.times("MAIL"), server.times("RCPT"));
            let waits = place().await;
            eventually("it was tried", async || {
                let now = (server.times("MAIL"), server.times("RCPT"));
                (now.0 > before.0 + 1 || now.1 > before.1 + 1).then_some(())
            })
            .await;
            assert!(Books::read(&*app.log()).await.orders[&waits].mails_refused.is_empty());
            server.set(Mood::Takes);
            assert_eq!(app.settled().await.orders[&waits].mails_sent.len(), 1, "{mood:?}");
        }
    }

    pub async fn only_the_code_of_an_answer_counts_and_what_has_none_settles_the_letter(
        app: &TestApp,
        server: &Server,
    ) {
        let place = buyer(app, "carl@x.example").await;
        for answer in ["250", "250\tok", "250-one\r\n251 two", "250 2.0.0 für Sie"] {
            server.set(Mood::TakesWith(answer));
            let sent = place().await;
            assert_eq!(app.settled().await.orders[&sent].mails_sent.len(), 1, "{answer}");
        }
        // Two answers to one letter: the second is not taken for the answer to the next one.
        server.set(Mood::TakesWith("250 ok\r\n250 queued"));
        let twice = place().await;
        assert_eq!(app.settled().await.orders[&twice].mails_sent.len(), 1);
        server.set(Mood::AnswersText("552 5.3.4 too big"));
        let refused = place().await;
        let too_big = vec![(Mail::Confirmed, "smtp-552".to_owned())];
        assert_eq!(app.settled().await.orders[&refused].mails_refused, too_big);
        // It may have taken the letter, which must not come again and again.
        server.set(Mood::TakesWith("HTTP/1.1 200 OK"));
        let unclear = place().await;
        let refused = vec![(Mail::Confirmed, "smtp-unreadable".to_owned())];
        assert_eq!(app.settled().await.orders[&unclear].mails_refused, refused);
        assert!(server.message_ids().values().all(|times| *times == 1));
        for (answer, code) in [("550", "smtp-550"), ("571 5.7.1 nein", "smtp-571")] {
            server.set(Mood::Answers(answer));
            let refused = place().await;
            let books = app.settled().await;
            let letters = &books.orders[&refused].mails_refused;
            assert_eq!(letters, &[(Mail::Confirmed, code.to_owned())]);
        }
    }

    pub async fn a_server_that_stalls_holds_no_order_up(app: &TestApp, server: &Server) {
        server.set(Mood::Stalls);
        let product = app.staff.product(2_500, 1_000).await;
        let reader = app.staff.customer().await;
        // More orders than e-mails are sent concurrently.
        let mut orders = Vec::new();
        for _ in 0..40 {
            let placed = app.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201);
            orders.push(placed.await.id("order_id"));
        }
        let path = format!("/orders/{}", orders[0]);
        app.staff.patch(&format!("{path}/status"), &json!({"status": "shipped"})).expect(200).await;
        app.staff
            .post(&format!("/orders/{}/cancel", orders[1]), &json!({}))
            .header("prefer", "wait=30")
            .expect(200)
            .await;
        eventually("stock and money are where they belong", async || {
            let books = Books::read(&*app.log()).await;
            books.is_settled_but_for_letters().then_some(())
        })
        .await;
        assert!(recorded(&Books::read(&*app.log()).await).is_empty());
        server.set(Mood::Takes);
        let books = app.settled().await;
        assert_eq!(books.orders.values().map(|order| order.mails_sent.len()).sum::<usize>(), 42);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_is_put_off_for_too_long_is_given_up() {
    host_for(Duration::from_secs(3), LogChoice::Embedded, async |app, server| {
        server.set(Mood::Answers("452 4.2.2 <reader@example.org> has no room"));
        let product = app.staff.product(2_500, 100).await;
        let reader = app.staff.customer().await;
        let placed = app.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
        let books = app.settled().await;
        let letters = &books.orders[&placed.id("order_id")].mails_refused;
        assert_eq!(letters, &[(Mail::Confirmed, "smtp-452".to_owned())]);
        assert!(server.letters().is_empty());
        assert!(server.times("RCPT") > 1);
    })
    .await;
}

fn command(ground: &Ground, server: &str) -> std::process::Command {
    let mut command = program::command(ground, &[]);
    command.env("SMTP_URL", server).env("MAIL_FROM", SENDER);
    command
}

async fn a_letter_is_sent_once_over_restarts_and_again_only_when_cut_off(ground: Ground) {
    let server = Server::start(Mood::Takes);
    let url = format!("smtp://127.0.0.1:{}", server.port);
    let mut program = Program::start_as(command(&ground, &url));
    shop(&program.staff).await;
    let log = program::open_log(&ground).await;
    settled(&*log).await;
    for hard in [false, true] {
        if hard {
            program.kill();
        } else {
            assert!(program.stop().success());
        }
        program = Program::start_as(command(&ground, &url));
    }
    assert_eq!(server.message_ids(), recorded(&settled(&*log).await));
    eventually("the metrics say that nothing is owed", async || {
        let told = program.staff.get("//metrics").expect(200).await.body.to_string();
        let nothing = |gauge: &str| told.contains(&format!("\\n{gauge} 0\\n"));
        (nothing("orderlog_owed_letters") && nothing("orderlog_owing_streams")).then_some(())
    })
    .await;

    // The server accepts the e-mail, and the program dies before it gets the answer.
    server.set(Mood::Holds);
    let product = program.staff.product(2_500, 10).await;
    let reader = program.staff.customer().await;
    let placed = program.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
    eventually("the letter is taken", async || (server.letters().len() == 5).then_some(())).await;
    program.kill();
    server.set(Mood::Takes);
    program = Program::start_as(command(&ground, &url));
    let books = settled(&*log).await;
    let id = format!("{}.confirmed@shop.example", placed.id("order_id"));
    assert_eq!(server.message_ids().remove(&id), Some(2), "the same Message-ID twice");
    let all = server.message_ids();
    assert_eq!(all.keys().collect::<Vec<_>>(), recorded(&books).keys().collect::<Vec<_>>());

    // The mail server is down for a while.
    let port = server.port;
    drop(server);
    program.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
    let server = Server::start_at(port, Mood::Takes, Tls::None);
    settled(&*log).await.check();
    assert_eq!(server.letters().len(), 1);
    assert!(program.stop().success());
    program::delete_topic(&ground.config.log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_is_sent_once_over_restarts() {
    let ground = ground(LogChoice::Embedded).await;
    a_letter_is_sent_once_over_restarts_and_again_only_when_cut_off(ground).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_is_sent_once_over_restarts_on_kafka() {
    let Some(log) = fresh_topic() else { return };
    a_letter_is_sent_once_over_restarts_and_again_only_when_cut_off(ground(log).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_go_through_tls_or_not_at_all() {
    let ground = ground(LogChoice::Embedded).await;
    let certificate = ground.dir.path().join("server.pem");
    let acceptor = self_made(&certificate);
    let start_tls = Server::start_at(0, Mood::Takes, Tls::OnDemand(acceptor.clone()));
    let wrapped = Server::start_at(0, Mood::Takes, Tls::Wrapped(acceptor));
    let plain = Server::start(Mood::Takes);
    let urls = [
        format!("smtp://me:secret@localhost:{}?tls=required", plain.port),
        format!("smtp://localhost:{}?tls=required", start_tls.port),
        format!("smtps://localhost:{}", wrapped.port),
    ];
    let start = |url: &str| {
        let mut command = command(&ground, url);
        Program::start_as({
            command.env("SSL_CERT_FILE", &certificate);
            command
        })
    };
    // A server that offers no TLS gets no e-mail.
    let program = start(&urls[0]);
    shop(&program.staff).await;
    eventually("it was asked", async || plain.heard("EHLO").then_some(())).await;
    assert!(program.stop().success());
    assert!(!plain.heard("MAIL") && !plain.heard("AUTH"));

    let log = program::open_log(&ground).await;
    let program = start(&urls[1]);
    settled(&*log).await;
    assert_eq!(start_tls.letters().len(), 4);
    assert!(start_tls.heard("STARTTLS") && program.stop().success());

    let program = start(&urls[2]);
    shop(&program.staff).await;
    settled(&*log).await.check();
    assert_eq!((wrapped.letters().len(), start_tls.letters().len()), (4, 4));
    assert!(program.stop().success());
}

/// The error line of a refused setting must not contain its secret parts.
#[tokio::test]
async fn a_bad_mail_server_is_64_and_its_password_is_not_shown() {
    let ground = ground(LogChoice::Embedded).await;
    for url in ["smtp://me:secret@localhost?tls=maybe", "secret", "https://me:secret@host"] {
        let output = command(&ground, url).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(told.contains("SMTP_URL") && !told.contains("secret"), "{told}");
    }
}
