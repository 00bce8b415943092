//! Chooses and injects the faults.

use super::{
    args::LogKind,
    proxy::{Disturbance, Flow, Proxy},
    world::World,
};
use anyhow::Result;
use fastrand::Rng;
use std::{fmt, time::Duration};
use tokio::time::{Instant, sleep};

/// The broker ends a transaction that is open for longer than this.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// The time-out of a request of the program's Kafka clients.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

/// The least time without a fault between two faults.
const STABLE: Duration = Duration::from_secs(5);

macro_rules! faults {
    ($($variant:ident = $name:literal on $($log:ident)|+;)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $name] $variant,)+
        }

        impl Fault {
            /// All kinds of faults for this log.
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

/// Chooses faults: every kind once in a random order, then again in another order.
pub struct Nemesis {
    rng: Rng,
    kinds: Vec<Fault>,
    deck: Vec<Fault>,
}

impl Nemesis {
    /// Makes one for these kinds of faults.
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

    /// Injects one fault and ends it, then waits until the next fault is due: 10 to 15 s after this
    /// one began, but at least [`STABLE`] after its end. Returns the fault.
    ///
    /// # Errors
    /// When a server or process does not start again.
    pub async fn inject(&mut self, world: &mut World) -> Result<Option<Fault>> {
        let Some(fault) = self.draw() else { return Ok(None) };
        let next = Instant::now() + self.seconds(10, 15);
        self.run(fault, world).await?;
        let rest = (next - Instant::now()).max(STABLE);
        sleep(rest).await;
        Ok(Some(fault))
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from * 1_000..=to * 1_000))
    }

    /// Half of the pauses are longer than the time-out of a transaction.
    fn pause(&mut self) -> Duration {
        if self.rng.bool() { TRANSACTION_TIMEOUT + self.seconds(2, 6) } else { self.seconds(2, 8) }
    }

    async fn run(&mut self, fault: Fault, world: &mut World) -> Result<()> {
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
                let disturbance = self.disturbance(fault);
                self.disturb(&world.broker()?.proxy, disturbance, cut).await;
            }
            Fault::DatabaseDelay
            | Fault::DatabaseDrop
            | Fault::DatabaseCutUp
            | Fault::DatabaseCutDown => {
                let disturbance = self.disturbance(fault);
                self.disturb(&world.database.proxy, disturbance, cut).await;
            }
        }
        Ok(())
    }

    fn disturbance(&mut self, fault: Fault) -> Disturbance {
        let none = Disturbance::default();
        let slow = Flow::Slow(Duration::from_millis(self.rng.u64(50..1_500)));
        let asymmetric = [
            (Flow::Blocked, Flow::Open),
            (Flow::Open, Flow::Blocked),
            (Flow::Blocked, Flow::Blocked),
        ];
        match fault {
            Fault::KafkaDelay | Fault::DatabaseDelay => {
                Disturbance { up: slow, down: slow, ..none }
            }
            Fault::KafkaCutUp | Fault::DatabaseCutUp => Disturbance { up: Flow::Blocked, ..none },
            Fault::KafkaCutDown | Fault::DatabaseCutDown => {
                Disturbance { down: Flow::Blocked, ..none }
            }
            Fault::CoordinatorCut => {
                let (up, down) = asymmetric[self.rng.usize(..asymmetric.len())];
                Disturbance { up, down, coordinator_only: true, ..none }
            }
            // Late by about the time after which the client gives up and retries.
            Fault::LateEnd => {
                let late = self.seconds(0, 4) + SOCKET_TIMEOUT.mul_f64(0.6);
                Disturbance { end_transaction: late, ..none }
            }
            _ => Disturbance { up: Flow::Blocked, down: Flow::Blocked, ..none },
        }
    }

    /// Disturbs the connections through a proxy. At the end, data held back arrives late, or is
    /// lost because its connection is closed.
    async fn disturb(&mut self, proxy: &Proxy, how: Disturbance, lasts: Duration) {
        let lasts = if how.end_transaction.is_zero() { lasts } else { lasts * 2 };
        proxy.set(how);
        sleep(lasts).await;
        if self.rng.u8(..) < 85 {
            proxy.close(how.coordinator_only);
        }
        proxy.set(Disturbance::default());
    }

    /// A second process takes over all partitions while the first one is paused or serving. Then
    /// the first process, to which clients still send requests, must notice that it lost them.
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
