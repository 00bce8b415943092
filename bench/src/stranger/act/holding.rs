//! Acts that hold connections.

use super::{Act, Stranger, http2};
use anyhow::Result;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

/// How long a connection is held of which nothing is read: longer than the program waits for a
/// client that takes nothing.
const HELD: Duration = Duration::from_secs(40);

/// Requests on a connection of HTTP/1.1 of which no answer is read.
const PIPELINED: usize = 50;

/// Streams of a connection of HTTP/2.
const STREAMS: u32 = 100;

/// A large answer that everybody may have.
const LARGE: &str = "/openapi.json";

/// Time between two bytes of a slow body.
const SLOWLY: Duration = Duration::from_secs(1);

impl Stranger {
    /// Makes one connection and holds it until the program ends it or the time is over.
    pub(super) async fn hold(&self, act: Act) -> Result<()> {
        match act {
            Act::SlowBodies => self.send_slowly().await,
            Act::StalledStreams => self.stall().await,
            _ => self.read_nothing().await,
        }
    }

    async fn send_slowly(&self) -> Result<()> {
        let (mut read, mut write) = self.connect().await?.into_split();
        let head = format!(
            "POST /api/v1/orders HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{{",
            self.customer
        );
        write.write_all(head.as_bytes()).await?;
        let sending = async {
            while write.write_all(b" ").await.is_ok() {
                sleep(SLOWLY).await;
            }
        };
        let mut answer = [0; 1024];
        tokio::select! {
            read = read.read(&mut answer) => {
                let answer = String::from_utf8_lossy(&answer[..read?]).into_owned();
                let status = answer.split(' ').nth(1).unwrap_or("closed");
                self.tally.count(Act::SlowBodies, status);
            }
            () = sending => self.tally.count(Act::SlowBodies, "closed"),
        }
        Ok(())
    }

    async fn read_nothing(&self) -> Result<()> {
        let (began, mut stream) = (Instant::now(), self.connect().await?);
        let request = format!("GET {LARGE} HTTP/1.1\r\nHost: shop\r\n\r\n");
        // The program stops reading while its answers are not taken.
        let sent = timeout(HELD, stream.write_all(request.repeat(PIPELINED).as_bytes())).await;
        self.tally.count(Act::DeafReaders, "held");
        if let Ok(sent) = sent {
            sent?;
        }
        sleep(HELD.saturating_sub(began.elapsed())).await;
        Ok(())
    }

    async fn stall(&self) -> Result<()> {
        let mut stream = self.connect().await?;
        stream.write_all(http2::CLOSED_WINDOWS).await?;
        for number in 0..STREAMS {
            let path = if number % 2 == 0 { LARGE } else { "/api/v1/products?limit=100" };
            stream.write_all(&http2::get(number * 2 + 1, path, &self.customer)).await?;
            self.tally.count(Act::StalledStreams, "held");
        }
        sleep(HELD).await;
        Ok(())
    }
}
