//! Makes a row of every event.

use super::{CopyRows, Fold, file::Stored};
use anyhow::Result;
use events::Event;

/// The rows, in the order of the events.
#[derive(Default)]
pub struct History {
    row: CopyRows,
    rows: u64,
}

impl Fold for History {
    fn take(&mut self, stored: &Stored<'_>, event: Event) -> Result<Option<Event>> {
        let row = &mut self.row;
        row.begin(13);
        row.int(stored.version);
        row.int(stored.offset);
        row.time(stored.time);
        row.put(&stored.partition.to_be_bytes());
        row.put(&i16::from(stored.stream.kind as u8).to_be_bytes());
        row.put(&stored.schema.to_be_bytes());
        row.put(stored.stream.id.as_bytes());
        for id in stored.ids {
            row.put(id.as_bytes());
        }
        row.put(stored.event_type.as_bytes());
        row.put(stored.body);
        self.rows += 1;
        Ok(Some(event))
    }

    fn rows(&mut self, row: &mut CopyRows) -> Result<u64> {
        row.0.append(&mut self.row.0);
        Ok(self.rows)
    }
}
