//! Versions that this program must not feed.

use super::Coordinator;
use crate::{golden::Why, version::VersionId};
use std::collections::BTreeMap;

impl Coordinator {
    /// Logs which versions this program does not feed, and why, each time that this changes.
    pub(super) fn tell_foreign(&mut self, foreign: BTreeMap<VersionId, (Why, bool)>) {
        for model in &self.settings.models {
            let serves =
                |(id, (_, serving)): (&VersionId, &(Why, bool))| *serving && id.model == *model;
            let stale = f64::from(u8::from(foreign.iter().any(serves)));
            metrics::gauge!("projection_stale", "projection" => model.as_str()).set(stale);
        }
        for (id, now) in &foreign {
            if self.foreign.get(id) == Some(now) {
                continue;
            }
            let (why, serving) = *now;
            let reason = why.told(id.model);
            if why.is_declared() {
                tracing::info!(
                    version = %id, serving, reason,
                    "this program does not feed a version"
                );
            } else {
                tracing::error!(
                    version = %id, serving, reason,
                    "this program does not feed a version"
                );
            }
        }
        self.foreign = foreign;
    }
}
