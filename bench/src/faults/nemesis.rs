//! What goes wrong, and when.

use super::{
    args::LogKind,
    proxy::{Proxy, Way, Weather},
    world::World,
};
use anyhow::Result;
use fastrand::Rng;
use std::{fmt, time::Duration};
use tokio::time::{Instant, sleep};

/// The broker ends a transaction that is open for longer.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// The program's clients of Kafka give a request up after this.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

/// Nothing goes wrong for so long between two faults.
const STABLE: Duration = Duration::from_secs(5);

macro_rules! faults {
    ($($variant:ident = $name:literal on $($log:ident)|+;)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $name] $variant,)+
        }

        impl Fault {
            /// All kinds that there are with this log.
            pub fn all(log: LogKind) -> Vec<Self> {
                let kinds = [$((Self::$variant, [$(LogKind::$log),+].contains(&log))),+];
                kinds.into_iter().filter_map(|(kind, there)| there.then_some(kind)).collect()
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

faults! {
    ServiceKill = "service-kill" on Kafka | Embedded;
    ServicePause = "service-pause" on Kafka | Embedded;
    ServiceRestart = "service-restart" on Kafka | Embedded;
    Takeover = "takeover" on Kafka;
    ReaderKill = "reader-kill" on Kafka;
    ReaderPause = "reader-pause" on Kafka;
    BrokerKill = "broker-kill" on Kafka;
    BrokerPause = "broker-pause" on Kafka;
    BrokerRestart = "broker-restart" on Kafka;
    BothKill = "service-and-broker-kill" on Kafka;
    KafkaDelay = "kafka-delay" on Kafka;
    KafkaDrop = "kafka-drop" on Kafka;
    KafkaCutUp = "kafka-cut-requests" on Kafka;
    KafkaCutDown = "kafka-cut-answers" on Kafka;
    KafkaClose = "kafka-close" on Kafka;
    CoordinatorCut = "coordinator-cut" on Kafka;
    CoordinatorClose = "coordinator-close" on Kafka;
    LateEnd = "late-end-of-transaction" on Kafka;
    DatabaseKill = "database-kill" on Kafka | Embedded;
    DatabasePause = "database-pause" on Kafka | Embedded;
    DatabaseRestart = "database-restart" on Kafka | Embedded;
    DatabaseDelay = "database-delay" on Kafka | Embedded;
    DatabaseDrop = "database-drop" on Kafka | Embedded;
    DatabaseCutUp = "database-cut-requests" on Kafka | Embedded;
    DatabaseCutDown = "database-cut-answers" on Kafka | Embedded;
    DatabaseClose = "database-close" on Kafka | Embedded;
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Chooses faults: all kinds once, in an order that the seed decides, then again in another.
pub struct Nemesis {
    rng: Rng,
    kinds: Vec<Fault>,
    deck: Vec<Fault>,
}

impl Nemesis {
    /// Of these kinds.
    pub fn new(seed: u64, kinds: Vec<Fault>) -> Self {
        Self { rng: Rng::with_seed(seed ^ 0xfa17), kinds, deck: Vec::new() }
    }

    fn draw(&mut self) -> Option<Fault> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.deck);
        }
        self.deck.pop()
    }

    /// Hurts the world once, heals it, and leaves it alone until the next fault is due: 10 to 15 s after this one began,
    /// or [`STABLE`] after its end. What it did.
    ///
    /// # Errors
    /// When the world does not come up again.
    pub async fn strike(&mut self, world: &mut World) -> Result<Option<Fault>> {
        let Some(fault) = self.draw() else { return Ok(None) };
        let next = Instant::now() + self.seconds(10, 15);
        self.hurt(fault, world).await?;
        let rest = (next - Instant::now()).max(STABLE);
        sleep(rest).await;
        Ok(Some(fault))
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from * 1_000..=to * 1_000))
    }

    /// Half of the pauses are longer than a transaction may take.
    fn pause(&mut self) -> Duration {
        if self.rng.bool() { TRANSACTION_TIMEOUT + self.seconds(2, 6) } else { self.seconds(2, 8) }
    }

    async fn hurt(&mut self, fault: Fault, world: &mut World) -> Result<()> {
        let (down, cut, pause) = (self.seconds(0, 3), self.seconds(3, 9), self.pause());
        world.say(&format!("{fault}"));
        match fault {
            Fault::ServiceKill => {
                world.service().kill().await?;
                sleep(down).await;
                world.service().start().await?;
            }
            Fault::ServicePause => {
                world.service().signal("STOP")?;
                sleep(pause).await;
                world.service().signal("CONT")?;
            }
            Fault::ServiceRestart => {
                let complaint = world.service().stop().await?;
                world.complaints.extend(complaint);
                world.service().start().await?;
            }
            Fault::Takeover => self.take_over(world).await?,
            Fault::ReaderKill => {
                world.reader().kill().await?;
                sleep(down).await;
                world.reader().start().await?;
            }
            Fault::ReaderPause => {
                world.reader().signal("STOP")?;
                sleep(pause).await;
                world.reader().signal("CONT")?;
            }
            Fault::BrokerKill => {
                world.broker()?.tell("kill").await?;
                sleep(down).await;
                world.broker()?.tell("restart").await?;
            }
            Fault::BrokerPause => {
                world.broker()?.tell("pause").await?;
                sleep(pause).await;
                world.broker()?.tell("resume").await?;
            }
            Fault::BrokerRestart => world.broker()?.tell("restart").await?,
            Fault::BothKill => {
                world.service().kill().await?;
                world.broker()?.tell("kill").await?;
                sleep(down).await;
                world.broker()?.tell("restart").await?;
                world.service().start().await?;
            }
            Fault::DatabaseKill => {
                world.database.kill().await?;
                sleep(down).await;
                world.database.restart().await?;
            }
            Fault::DatabasePause => {
                world.database.pause()?;
                sleep(pause).await;
                world.database.resume()?;
            }
            Fault::DatabaseRestart => {
                world.database.stop().await?;
                world.database.restart().await?;
            }
            Fault::KafkaClose | Fault::CoordinatorClose => {
                for _ in 0..5 {
                    world.broker()?.proxy.close(fault == Fault::CoordinatorClose);
                    sleep(cut / 5).await;
                }
            }
            Fault::DatabaseClose => {
                for _ in 0..5 {
                    world.database.proxy.close(false);
                    sleep(cut / 5).await;
                }
            }
            Fault::KafkaDelay
            | Fault::KafkaDrop
            | Fault::KafkaCutUp
            | Fault::KafkaCutDown
            | Fault::CoordinatorCut
            | Fault::LateEnd => {
                let weather = self.weather(fault);
                self.storm(&world.broker()?.proxy, weather, cut).await;
            }
            Fault::DatabaseDelay
            | Fault::DatabaseDrop
            | Fault::DatabaseCutUp
            | Fault::DatabaseCutDown => {
                let weather = self.weather(fault);
                self.storm(&world.database.proxy, weather, cut).await;
            }
        }
        Ok(())
    }

    fn weather(&mut self, fault: Fault) -> Weather {
        let calm = Weather::default();
        let slow = Way::Slow(Duration::from_millis(self.rng.u64(50..1_500)));
        let asymmetric = [(Way::Held, Way::Open), (Way::Open, Way::Held), (Way::Held, Way::Held)];
        match fault {
            Fault::KafkaDelay | Fault::DatabaseDelay => Weather { up: slow, down: slow, ..calm },
            Fault::KafkaCutUp | Fault::DatabaseCutUp => Weather { up: Way::Held, ..calm },
            Fault::KafkaCutDown | Fault::DatabaseCutDown => Weather { down: Way::Held, ..calm },
            Fault::CoordinatorCut => {
                let (up, down) = asymmetric[self.rng.usize(..asymmetric.len())];
                Weather { up, down, coordinator_only: true, ..calm }
            }
            // Around the moment when the client gives up and asks again.
            Fault::LateEnd => {
                let late = self.seconds(0, 4) + SOCKET_TIMEOUT.mul_f64(0.6);
                Weather { end_transaction: late, ..calm }
            }
            _ => Weather { up: Way::Held, down: Way::Held, ..calm },
        }
    }

    /// In the end what was held back arrives late, or is lost with its connection.
    async fn storm(&mut self, proxy: &Proxy, weather: Weather, lasts: Duration) {
        let lasts = if weather.end_transaction.is_zero() { lasts } else { lasts * 2 };
        proxy.set(weather);
        sleep(lasts).await;
        if self.rng.u8(..) < 85 {
            proxy.close(weather.coordinator_only);
        }
        proxy.set(Weather::default());
    }

    /// A second process takes all partitions while the first is paused, or while it serves; then the first finds that it
    /// has been overtaken, with clients that still ask it.
    async fn take_over(&mut self, world: &mut World) -> Result<()> {
        let paused = self.rng.u8(..) < 180;
        if paused {
            world.service().signal("STOP")?;
        }
        world.start_other().await?;
        sleep(self.seconds(1, 5)).await;
        if paused {
            world.service().signal("CONT")?;
        }
        sleep(self.seconds(2, 6)).await;
        world.other_serves_alone(self.rng.bool()).await
    }
}
