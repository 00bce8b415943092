//! Decides from the checkpoints which tasks a projector should run, and which new versions may
//! serve.

use super::{Coordinator, SLACK};
use crate::{
    ReadModel,
    checkpoint::Checkpoint,
    feeds::FeedKey,
    lease::Share,
    rebuild::{indexes::Indexes, switch},
    version::{Verified, Version, VersionId},
    worker::Shares,
};
use events::Partition;
use std::{collections::BTreeMap, sync::Arc};

type Checkpoints = BTreeMap<Share, Checkpoint>;

impl Coordinator {
    pub(super) fn desired(&self, checkpoints: &Checkpoints) -> BTreeMap<FeedKey, Shares> {
        let leaders = leaders(checkpoints);
        let running = self.versions.iter().filter(|(_, version)| !version.paused);
        let exclusive: BTreeMap<VersionId, FeedKey> = running
            .clone()
            .filter_map(|(&id, version)| {
                Some((id, self.exclusive_task(version, &leaders, checkpoints)?))
            })
            .collect();
        let fed: Vec<_> = running.filter(|(id, _)| !exclusive.contains_key(id)).collect();
        let mut desired: BTreeMap<FeedKey, Shares> = BTreeMap::new();
        for (index, group) in self.groups.iter().enumerate() {
            for &partition in group {
                let most = leaders.get(&partition).copied().unwrap_or_default();
                let mut waiting = Vec::new();
                for &(&id, version) in &fed {
                    let share = (id, partition);
                    let Some(checkpoint) = checkpoints.get(&share) else { continue };
                    if !self.held.contains(&share) {
                        continue;
                    }
                    if version.indexes == Indexes::All {
                        let key = self.feeding_task(index, share, most - checkpoint.events);
                        let of_feed = desired.entry(key).or_default();
                        of_feed.entry(partition).or_default().push(Arc::clone(version));
                    } else {
                        let near = self.is_near(most, checkpoint);
                        let wanted = checkpoint.stopped.is_none() && !near;
                        waiting.push((version, wanted));
                    }
                }
                desired.extend(self.fillings(partition, &waiting));
            }
        }
        desired.extend(exclusive.into_values().map(|key| (key, Shares::new())));
        desired
    }

    /// The tasks that fill one partition of versions which lack indexes. `versions` says for each
    /// of them whether it still needs to be filled.
    ///
    /// Versions that wait for the partition share one reader. A task that has begun runs to its
    /// end, because it would lose what it has gathered if it were started again. It ends early only
    /// for a version that may no longer be filled.
    fn fillings(
        &self,
        partition: Partition,
        versions: &[(&Arc<Version>, bool)],
    ) -> impl Iterator<Item = (FeedKey, Shares)> {
        let begun = self.feeds.iter().filter(|(key, running)| running.fills(key));
        let begun = begun.filter_map(|(_, running)| running.shares.get(&partition));
        let may = |begun: &Arc<Version>| versions.iter().any(|(version, _)| version.id == begun.id);
        let mut fillings: Vec<Vec<Arc<Version>>> =
            begun.map(|begun| begun.iter().filter(|it| may(it)).cloned().collect()).collect();
        for gentle in [false, true] {
            let filled = |id| fillings.iter().flatten().any(|begun| begun.id == id);
            let wait = versions.iter().filter(|(version, wanted)| {
                *wanted && version.manner.gentle == gentle && !filled(version.id)
            });
            let wait = wait.map(|(version, _)| Arc::clone(version)).collect();
            fillings.push(wait);
        }
        fillings.into_iter().filter_map(move |versions| {
            let first = versions.first()?.id;
            Some((FeedKey::Bulk(first, partition), Shares::from([(partition, versions)])))
        })
    }

    /// The task that feeds a share which is `lag` events behind.
    fn feeding_task(&self, index: usize, (id, partition): Share, lag: i64) -> FeedKey {
        let shared = self.feeds.get(&FeedKey::Together(index)).is_some_and(|running| {
            let fed = running.shares.get(&partition);
            fed.is_some_and(|fed| fed.iter().any(|version| version.id == id))
        });
        let close = self.settings.close * if shared { SLACK } else { 1 };
        if lag <= close { FeedKey::Together(index) } else { FeedKey::Apart(id, index) }
    }

    /// Whether the partition is too close to the end for a bulk fill to pay off: few events have
    /// come since the fill began, compared with all events.
    fn is_near(&self, most: i64, at: &Checkpoint) -> bool {
        if at.bulk_over {
            return true;
        }
        let close = self.settings.close;
        let near = if at.events == 0 { close } else { (close * SLACK).max(most / 16) };
        most - at.events <= near
    }

    /// The task that works on a new version while nothing feeds it. Once begun, it runs to its end
    /// even if events arrive meanwhile.
    fn exclusive_task(
        &self,
        version: &Version,
        leaders: &BTreeMap<Partition, i64>,
        checkpoints: &Checkpoints,
    ) -> Option<FeedKey> {
        let id = version.id;
        if !version.building {
            return None;
        }
        let held = |partition: &Partition| self.held.contains(&(id, *partition));
        let under_way =
            |key| self.feeds.get(&key).is_some_and(|running| !running.task.is_finished());
        let all = |near: &dyn Fn(i64, &Checkpoint) -> bool| {
            leaders.iter().all(|(partition, most)| {
                checkpoints.get(&(id, *partition)).is_some_and(|at| near(*most, at))
            })
        };
        if version.indexes != Indexes::All {
            let filling = self.feeds.iter().any(|(key, running)| {
                running.fills(key) && running.shares.values().flatten().any(|it| it.id == id)
            });
            let filled = !filling && all(&|most, at| self.is_near(most, at));
            let key = FeedKey::Indexes(id);
            return (leaders.keys().any(held) && (under_way(key) || filled)).then_some(key);
        }
        let (key, close) = (FeedKey::Verify(id), all(&|most, at| self.is_close(most, at)));
        let compared = version.verified.is_some();
        (leaders.keys().all(held) && !compared && (under_way(key) || close)).then_some(key)
    }

    fn is_close(&self, most: i64, at: &Checkpoint) -> bool {
        most - at.events <= self.settings.close
    }

    /// Lets rebuilt versions serve, once they have been compared and are close to the end.
    pub(super) async fn switch(&self, checkpoints: &Checkpoints) -> Result<(), sqlx::Error> {
        let leaders = leaders(checkpoints);
        let may_serve = |version: &&Arc<Version>| {
            let compared = version.verified.is_some_and(Verified::lets_serve);
            version.building && compared && !version.paused && !version.manner.verify_only
        };
        for version in self.versions.values().filter(may_serve) {
            let id = version.id;
            let near = |(partition, most): (&Partition, &i64)| {
                checkpoints.get(&(id, *partition)).is_some_and(|at| self.is_close(*most, at))
            };
            if leaders.iter().all(near) && switch::attempt(&self.context.pool, id).await? {
                tracing::info!(version = %id, "the rebuilt version serves now");
            }
        }
        Ok(())
    }

    /// Sets the gauges of the rebuilds, which show the same as `orderlog rebuild`.
    pub(super) fn measure(&mut self, checkpoints: &Checkpoints) {
        let leaders = leaders(checkpoints);
        let now = self.context.environment.monotonic();
        for model in ReadModel::ALL {
            let building = self.versions.values().find(|it| it.building && it.id.model == model);
            let Some(id) = building.map(|version| version.id) else {
                if self.rebuilds.keys().any(|id| id.model == model) {
                    self.rebuilds.retain(|id, _| id.model != model);
                    show(model, (0, 0), 0.0);
                }
                continue;
            };
            let of = |(partition, most): (&Partition, &i64)| {
                let done = checkpoints.get(&(id, *partition)).map_or(0, |at| at.events);
                (done, most - done)
            };
            let sum = |(a, b), (c, d)| (a + c, b + d);
            let (done, left): (i64, i64) = leaders.iter().map(of).fold((0, 0), sum);
            let (since, before) = *self.rebuilds.entry(id).or_insert((now, done));
            let took = now.saturating_sub(since).as_secs_f64();
            #[allow(clippy::cast_precision_loss, reason = "a gauge")]
            let rate = if took > 0.0 { (done - before).max(0) as f64 / took } else { 0.0 };
            show(model, (done, left), rate);
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "gauges")]
fn show(model: ReadModel, (done, left): (i64, i64), rate: f64) {
    let name = model.as_str();
    metrics::gauge!("projection_rebuild_events_done", "projection" => name).set(done as f64);
    metrics::gauge!("projection_rebuild_events_left", "projection" => name).set(left as f64);
    metrics::gauge!("projection_rebuild_events_per_second", "projection" => name).set(rate);
    let eta = if rate > 0.0 { left as f64 / rate } else { 0.0 };
    metrics::gauge!("projection_rebuild_seconds_left", "projection" => name).set(eta);
}

/// The largest number of events that any version has applied, by partition. All versions count the
/// same events.
fn leaders(checkpoints: &Checkpoints) -> BTreeMap<Partition, i64> {
    let mut leaders = BTreeMap::new();
    for ((_, partition), checkpoint) in checkpoints {
        let most = leaders.entry(*partition).or_insert(0);
        *most = checkpoint.events.max(*most);
    }
    leaders
}
