//! Bulk filling for a read model that does not fold events in memory: the events that matter to it
//! are kept, and applied in the same way as in a live feed.

use super::gather::{Gather, Needs};
use crate::{
    facts::{Fact, Facts},
    projection::{ApplyError, Projection},
};
use async_trait::async_trait;
use events::{Event, Position, StreamKind, log::Record};
use sqlx::PgConnection;

/// About how many events are applied by one statement, so that no statement takes long.
const PIECE: usize = 5_000;

/// What an event takes in memory besides its fixed size, as a multiple of its JSON.
const SPREAD: usize = 2;

/// Events gathered for a bulk write.
pub(crate) struct Applied<P> {
    writer: P,
    /// Whether an event changes rows.
    counts: fn(&Event) -> bool,
    facts: Vec<Fact>,
    bodies: usize,
}

impl<P: Projection> Applied<P> {
    pub fn new(writer: P, counts: fn(&Event) -> bool) -> Self {
        Self { writer, counts, facts: Vec::new(), bodies: 0 }
    }
}

#[async_trait]
impl<P: Projection> Gather for Applied<P> {
    fn needs(&self, kind: StreamKind) -> Needs {
        if self.writer.takes(kind) { Needs::Event } else { Needs::Nothing }
    }

    fn take(
        &mut self,
        position: Position,
        record: &Record,
        event: Option<&Event>,
    ) -> Result<(), ApplyError> {
        if let Some(event) = event.filter(|event| (self.counts)(event)) {
            self.bodies += record.body.len();
            let (mut record, event) = (record.clone(), event.clone());
            // The body shares its memory with everything that was read in the same message, and
            // would keep it alive.
            record.body.clear();
            self.facts.push(Fact { position, record, event });
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.facts.capacity() * size_of::<Fact>() + self.bodies * SPREAD
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        for piece in self.facts.chunks(PIECE) {
            self.writer.apply(connection, &Facts::from(piece)).await?;
        }
        Ok(())
    }

    fn clear(&mut self) {
        (self.facts, self.bodies) = (Vec::new(), 0);
    }

    fn finds_rows(&self) -> bool {
        true
    }
}
