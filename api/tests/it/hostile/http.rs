//! Clients that keep connections open, are slow, are too many, or disappear.

use crate::{
    app::{PATIENCE, TestApp, eventually, ground},
    books::Books,
    client::order,
    on_both_logs,
    program::Program,
};
use futures::{StreamExt, future::join_all, stream};
use orderlog::{auth::Role, config::LogChoice};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use uuid::Uuid;

on_both_logs!(clients_that_vanish_leave_nothing_half_done);

/// The number of idle connections, if this machine allows so many.
const IDLE: usize = 10_000;

/// The number of open files that this process needs otherwise.
const OTHER_FILES: usize = 1_000;

/// The limit of open files of this process.
fn files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(1024)
}

async fn say(address: SocketAddr, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    stream
}

/// Everything received until the server closes the connection.
async fn hear(mut stream: TcpStream) -> String {
    let mut heard = Vec::new();
    // A reset counts as closing.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut heard))
        .await
        .expect("the server closes the connection");
    String::from_utf8_lossy(&heard).into_owned()
}

/// With more idle connections than the server accepts, clients with requests are still served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_keep_nobody_out() {
    let ground = ground(LogChoice::Embedded).await;
    let program = Program::start(&ground);
    let address: SocketAddr = program.greeting[0]
        .split("http://")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let many = IDLE.min(files().saturating_sub(OTHER_FILES));
    if many < IDLE {
        println!("{many} instead of {IDLE} connections: the limit of open files is {}", files());
    }
    let connect = |_| async move { TcpStream::connect(address).await.unwrap() };
    let mut idle: Vec<TcpStream> =
        stream::iter(0..many).map(connect).buffer_unordered(64).collect().await;
    // Some connections send one request and stay open. They may be idle for longer, see the tests of
    // the server.
    let mut spoken = idle.split_off(many.saturating_sub(100));
    for held in &mut spoken {
        let _ = held.write_all(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n").await;
    }
    let (product, reader) =
        (program.staff.product(100, 1_000).await, program.staff.customer().await);
    for _ in 0..20 {
        program.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
        let fresh = say(address, "GET /readyz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        assert!(hear(fresh.await).await.starts_with("HTTP/1.1 200"));
    }
    // The server closes each connection, because it is idle or to make room.
    stream::iter(idle).for_each_concurrent(None, async |held| drop(hear(held).await)).await;
    drop(spoken);
    program.staff.get(&format!("/products/{product}")).expect(200).await;
    assert!(program.stop().success());
}

/// Sends a small piece repeatedly until the server closes the connection.
async fn dribble(address: SocketAddr, start: &str, piece: &str) -> String {
    let (mut read, mut write) = say(address, start).await.into_split();
    let sending = async {
        while write.write_all(piece.as_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let hearing = async {
        let mut heard = Vec::new();
        let _ = read.read_to_end(&mut heard).await;
        String::from_utf8_lossy(&heard).into_owned()
    };
    tokio::select! {
        heard = timeout(PATIENCE, hearing) => heard.expect("the server closes the connection"),
        () = sending => "reset".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_slow_bodies_are_cut_off_while_others_are_served() {
    let app = TestApp::start(ground(LogChoice::Embedded).await).await;
    let address = app.running().address();
    let token = app.running().sign(Role::Staff, None).unwrap().unwrap();
    let open_end = "GET /api/v1/products HTTP/1.1\r\nHost: here\r\n";
    let body = format!(
        "POST /api/v1/products HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{{"
    );
    let chunked = body
        .replace("Content-Length: 60000", "Transfer-Encoding: chunked")
        .replace("\r\n\r\n{", "\r\n\r\n");
    let slow = join_all((0..60).map(|number| match number % 3 {
        0 => dribble(address, open_end, "X-A: b\r\n"),
        1 => dribble(address, &body, " "),
        _ => dribble(address, &chunked, "1\r\n \r\n"),
    }));
    let busy = async {
        let product = app.staff.product(100, 10).await;
        for _ in 0..50 {
            app.staff.get(&format!("/products/{product}")).expect(200).await;
        }
    };
    let (heard, ()) = tokio::join!(slow, busy);
    for (number, heard) in heard.iter().enumerate() {
        let timed_out = heard.starts_with("HTTP/1.1 408");
        // A head that never ends is not a request and needs no answer.
        let silent = number % 3 == 0 && (heard.is_empty() || heard == "reset");
        assert!(timed_out || silent || heard == "reset", "{number}: {heard}");
    }
    assert!(heard.iter().any(|heard| heard.contains("/problems/request-timeout")));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_over_their_limit_are_told_when_and_others_are_served() {
    const EACH: usize = 8;
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.rate_limit_per_second = 1;
    let app = TestApp::start(ground).await;
    let product = app.staff.product(100, 10).await;
    let path = format!("/products/{product}");
    let greedy = async |number: usize| {
        let api = app.caller(Role::Customer, &Uuid::from_u128(number as u128).to_string());
        let answers = join_all((0..EACH).map(|_| api.get(&path).send())).await;
        let over: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
        assert!(!over.is_empty() && over.len() < EACH, "client {number}: {} refused", over.len());
        for answer in over {
            assert_eq!(answer.problem(), "rate-limited");
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=10).contains(&wait), "{wait}");
        }
        let modest = app.caller(Role::Customer, &Uuid::now_v7().to_string());
        modest.get(&path).expect(200).await;
    };
    stream::iter(0..1_000).map(greedy).buffer_unordered(20).collect::<Vec<()>>().await;
    app.abandon().await;
}

/// The frame of HTTP/2 with a `GET` request.
fn get_frame(stream: u32, path: &str, token: &str) -> Vec<u8> {
    // Literals of HPACK: their length in seven bits, and what is above that in further bytes.
    let text = |block: &mut Vec<u8>, text: &str| {
        let mut length = text.len();
        if length < 127 {
            block.push(u8::try_from(length).unwrap());
        } else {
            block.push(127);
            length -= 127;
            while length >= 128 {
                block.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            block.push(u8::try_from(length).unwrap());
        }
        block.extend_from_slice(text.as_bytes());
    };
    // `:method: GET`, `:scheme: http`, then `:authority`, `:path` and `authorization`.
    let mut block = vec![0x82, 0x86, 0x01];
    text(&mut block, "here");
    block.push(0x04);
    text(&mut block, path);
    block.extend([0x0f, 0x08]);
    text(&mut block, &format!("Bearer {token}"));
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([1, 5]);
    frame.extend(stream.to_be_bytes());
    frame.extend(block);
    frame
}

/// A client of HTTP/2 that opens streams and never a window looks well, and takes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_end_and_give_back_what_they_hold() {
    const STREAMS: u32 = 20;
    let app = TestApp::start(ground(LogChoice::Embedded).await).await;
    let (product, reader) = (app.staff.product(100, 10).await, app.staff.customer().await);
    let placed = app.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
    let token = app.running().sign(Role::Customer, Some(&reader.to_string())).unwrap().unwrap();
    let events = format!("/api/v1/orders/{}/events", placed.id("order_id"));
    let mut deaf = say(app.running().address(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // SETTINGS: the window of each stream is closed.
    deaf.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await.unwrap();
    for number in 0..STREAMS {
        deaf.write_all(&get_frame(number * 4 + 1, &events, &token)).await.unwrap();
        deaf.write_all(&get_frame(number * 4 + 3, "/openapi.json", &token)).await.unwrap();
    }
    let listener = app.staff.with_token(&token);
    let listen = async || {
        let call = listener.get(events.strip_prefix("/api/v1").unwrap()).open().await;
        call.status().as_u16()
    };
    // A seat that a look takes is kept: given back, the deaf client's next stream might miss it.
    let mut looks = Vec::new();
    eventually("the customer has all seats", async || {
        let look = listener.get(events.strip_prefix("/api/v1").unwrap()).open().await;
        let is_full = look.status().as_u16() == 429;
        looks.push(look);
        is_full.then_some(())
    })
    .await;
    drop(looks);
    let resets = async {
        let mut resets = 0;
        while resets < STREAMS * 2 {
            let mut head = [0; 9];
            deaf.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            deaf.read_exact(&mut vec![0; length as usize]).await.unwrap();
            // RST_STREAM.
            resets += u32::from(head[3] == 3);
        }
    };
    timeout(PATIENCE, resets).await.expect("every stream is reset");
    assert_eq!(listen().await, 200, "the seats are free again");
    drop(deaf);
    app.finish().await;
}

mod scenario {
    use super::*;

    pub async fn clients_that_vanish_leave_nothing_half_done(app: &TestApp) {
        let (product, reader) = (app.staff.product(100, 1_000).await, app.staff.customer().await);
        app.caught_up().await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let address = app.running().address();
        let token = app.running().sign(Role::Staff, None).unwrap().unwrap();
        let body = order(reader, &[(product, 1)]).to_string();
        let request = |key: &str| {
            format!(
                "POST /api/v1/orders HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        // The connection closes before the request is complete, in its head and in its body.
        for number in 0..20 {
            let whole = request(&format!("cut-{number}"));
            let keep = if number % 2 == 0 { 60 + number } else { whole.len() - 1 - number };
            drop(say(address, &whole[..keep]).await);
        }
        // The connection closes while the client waits for the answer.
        for number in 0..20 {
            let gone = say(address, &request(&format!("gone-{number}"))).await;
            tokio::time::sleep(Duration::from_millis(number)).await;
            drop(gone);
        }
        eventually("no task is left of them", async || (tasks() <= before).then_some(())).await;
        let books = app.settled().await;
        assert!(books.orders.len() <= 20, "half a request was taken for one");
        let landed = books.orders.len();
        let customer = serde_json::from_str(&body).unwrap();
        for number in 0..20 {
            app.staff.post("/orders", &customer).key(format!("gone-{number}")).expect(201).await;
        }
        let books = Books::read(&*app.log()).await;
        assert_eq!(books.orders.len(), 20, "each key is one order");
        println!("{landed} of 20 had been taken when their clients were gone");
        assert!(landed > 0, "none was waiting");
    }
}
