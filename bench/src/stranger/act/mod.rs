//! What the stranger does.

mod asking;
mod holding;
mod http2;

use super::tally::Tally;
use anyhow::Result;
use clap::ValueEnum;
use fastrand::Rng;
use reqwest::Client;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

/// The address of the stranger.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// How long the stranger waits for an answer.
const PATIENCE: Duration = Duration::from_secs(80);

/// Pause after a connection that could not be made.
const AGAIN: Duration = Duration::from_millis(200);

/// One kind of harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Act {
    /// Lists with cursors that are forged, altered, too long, or of another list.
    Cursors,
    /// Registrations: of new addresses and of taken ones, with and without a token.
    Registrations,
    /// Sales reports over years, as an employee.
    Reports,
    /// Searches for mistyped words.
    Searches,
    /// Orders, customers and products that do not exist.
    Missing,
    /// Tokens that are made up, altered, or signed by nobody.
    Tokens,
    /// Notices of payments with bad signatures. The sandbox receives none, so they are 404.
    Webhooks,
    /// Bodies that arrive one byte a second.
    SlowBodies,
    /// HTTP/1.1 connections on which many answers are requested and none is read.
    DeafReaders,
    /// HTTP/2 connections whose streams never get a window.
    StalledStreams,
}

impl Act {
    /// How often the act is repeated each second, if it consists of single requests. With what they
    /// cost, the sum stays below the limits of an address (5,000 tokens a second), of a principal
    /// (1,000) and of requests without a token (1,000), and below 10 registrations a minute.
    fn per_second(self) -> Option<f64> {
        match self {
            Self::Cursors | Self::Tokens => Some(100.0),
            Self::Registrations => Some(8.0 / 60.0),
            // A report takes 10 tokens.
            Self::Reports => Some(50.0),
            // A search takes 20 tokens.
            Self::Searches | Self::Webhooks => Some(20.0),
            Self::Missing => Some(200.0),
            Self::SlowBodies | Self::DeafReaders | Self::StalledStreams => None,
        }
    }

    /// The number of tasks that share the requests, or that hold a connection each. The sum stays
    /// below 256 connections and 1,000 requests at once.
    fn tasks(self) -> u32 {
        match self {
            // Searches and reports have two places together.
            Self::Registrations | Self::Reports | Self::Searches | Self::Webhooks => 1,
            Self::Cursors | Self::Tokens => 2,
            Self::Missing | Self::StalledStreams => 4,
            Self::SlowBodies | Self::DeafReaders => 40,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::args::name(*self))
    }
}

/// What the stranger knows.
pub struct Stranger {
    http: Client,
    address: SocketAddr,
    /// A token of a customer of the shop.
    customer: String,
    /// A token of a careless or malicious employee.
    employee: String,
    /// Cursors that lists have given out, of products and of orders.
    cursors: [String; 2],
    tally: Tally,
}

impl Stranger {
    /// Makes the stranger, who calls from [`ADDRESS`].
    ///
    /// # Errors
    /// When the client cannot be created.
    pub fn new(
        address: SocketAddr,
        [customer, employee]: [String; 2],
        cursors: [String; 2],
        tally: Tally,
    ) -> Result<Self> {
        let http = Client::builder().no_proxy().local_address(ADDRESS).timeout(PATIENCE);
        Ok(Self { http: http.build()?, address, customer, employee, cursors, tally })
    }

    /// Does these acts at once until `ending`, then gives up all connections.
    pub async fn act(self: &Arc<Self>, acts: &[Act], ending: &CancellationToken) {
        let mut tasks = JoinSet::new();
        for &act in acts {
            for task in 0..act.tasks() {
                let (stranger, rng) = (Arc::clone(self), Rng::with_seed(u64::from(task)));
                tasks.spawn(async move { stranger.repeat(act, rng).await });
            }
        }
        ending.cancelled().await;
        tasks.shutdown().await;
    }

    async fn repeat(&self, act: Act, mut rng: Rng) {
        let Some(per_second) = act.per_second() else {
            loop {
                if let Err(error) = self.hold(act).await {
                    self.tally.count(act, &brief(&error));
                }
                sleep(AGAIN).await;
            }
        };
        let mut ticks = interval(Duration::from_secs_f64(f64::from(act.tasks()) / per_second));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.ask(act, &mut rng).await {
                Ok(status) => self.tally.count(act, status.as_str()),
                Err(error) => self.tally.count(act, &brief(&error)),
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(ADDRESS, 0))?;
        Ok(socket.connect(self.address).await?)
    }
}

/// An error in a word or two.
fn brief(error: &anyhow::Error) -> String {
    match error.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_timeout() => "no answer".to_owned(),
        Some(_) => "broken".to_owned(),
        None => "closed".to_owned(),
    }
}
