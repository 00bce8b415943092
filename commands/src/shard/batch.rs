//! One round's decisions: an overlay over the shard's memory, and the batch that makes it durable.

use super::{
    Reply,
    dedupe::{Applied, is_repeatable},
    memory::{Memory, Stream},
    tell,
};
use crate::request::{CommandError, Outcome, Request};
use events::{
    Fingerprint, Metadata, Offset, Partition, StreamId, Timestamp,
    log::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Record},
};
use rustc_hash::FxHashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use uuid::Uuid;

/// Room that a batch must have left for one more command: the most that one command can append.
const RECORDS_RESERVE: usize = 16;
const BYTES_RESERVE: usize = 128 * 1024;

/// An answer that waits for its batch. When the batch is durable, the offset of record `last`
/// becomes the answer's position.
struct Answer {
    result: Result<Outcome, CommandError>,
    /// The stream's last record in this batch at the moment of the answer.
    last: Option<usize>,
}

/// The answers to one message.
pub struct Waiting {
    reply: Reply<Vec<Result<Outcome, CommandError>>>,
    answers: Vec<Answer>,
}

impl Waiting {
    /// Gives the answers. `offsets` are the offsets of the batch's records.
    pub fn answer(self, partition: Partition, offsets: &[Offset]) {
        let results = self.answers.into_iter().map(|Answer { mut result, last }| {
            let offset = last.and_then(|index| offsets.get(index));
            if let (Ok(outcome), Some(&offset)) = (&mut result, offset) {
                outcome.view.position = Some(events::Position { partition, offset });
            }
            result
        });
        tell(self.reply, results.collect());
    }

    /// Gives the same error as every answer.
    pub fn fail(self, error: &CommandError) {
        tell(self.reply, self.answers.iter().map(|_| Err(error.clone())).collect());
    }
}

/// A stream that this round has changed.
struct Changed {
    stream: Stream,
    /// The stream's last record in the batch.
    last: usize,
}

/// The decisions of one round.
pub struct Round {
    /// The id of the batch.
    pub batch_id: Uuid,
    /// The log time of all its events.
    pub time: Timestamp,
    /// The records to append.
    pub records: Vec<Record>,
    /// The answers to give once the batch is durable.
    pub waiting: Vec<Waiting>,
    changed: FxHashMap<StreamId, Changed>,
    applied: FxHashMap<Uuid, Applied>,
    bytes: usize,
}

impl Round {
    /// An empty round whose events get the log time `time`.
    pub fn new(batch_id: Uuid, time: Timestamp) -> Self {
        Self {
            batch_id,
            time,
            records: Vec::new(),
            waiting: Vec::new(),
            changed: FxHashMap::default(),
            applied: FxHashMap::default(),
            bytes: 0,
        }
    }

    /// Whether the batch may have no room for another message.
    pub fn is_full(&self) -> bool {
        self.records.len() + RECORDS_RESERVE > MAX_BATCH_RECORDS
            || self.bytes + BYTES_RESERVE > MAX_BATCH_BYTES
    }

    /// Decides commands in order, and keeps their answers until the batch is durable.
    pub fn decide(
        &mut self,
        memory: &Memory,
        requests: &[Request],
        reply: Reply<Vec<Result<Outcome, CommandError>>>,
    ) {
        let answers = requests.iter().map(|request| self.decide_one(memory, request)).collect();
        self.waiting.push(Waiting { reply, answers });
    }

    fn decide_one(&mut self, memory: &Memory, request: &Request) -> Answer {
        let id = request.stream;
        let (mut stream, last) = match self.changed.get(&id) {
            Some(changed) => (changed.stream.clone(), Some(changed.last)),
            None => match memory.streams.get(&id).cloned().or_else(|| Stream::empty(id)) {
                Some(stream) => (stream, None),
                None => return Answer { result: Err(CommandError::Fault), last: None },
            },
        };
        let result = self.try_decide(memory, &mut stream, request);
        let last = match &result {
            Ok(outcome) if outcome.changed => {
                let last = self.records.len() - 1;
                self.changed.insert(id, Changed { stream, last });
                Some(last)
            }
            _ => last,
        };
        Answer { result, last }
    }

    fn try_decide(
        &mut self,
        memory: &Memory,
        stream: &mut Stream,
        request: &Request,
    ) -> Result<Outcome, CommandError> {
        let (id, partition) = (request.stream, memory.partition);
        if let Some(applied) = self.find_applied(memory, stream, request) {
            if applied.fingerprint != request.fingerprint || applied.stream != id {
                return Err(CommandError::KeyReused);
            }
            let view = stream.view(partition, id);
            return Ok(Outcome { view, changed: false, replayed: Some(applied.version) });
        }
        let shown = stream.state.shown_version();
        if request.expected_version.is_some_and(|expected| expected != shown) {
            return Err(CommandError::VersionMismatch { current: shown });
        }
        let first = self.records.len();
        // A panic fails one command, not the partition. The command's records are removed; the
        // overlay does not contain its changes yet.
        let decided = catch_unwind(AssertUnwindSafe(|| self.apply(stream, request)));
        let changed = match decided {
            Ok(Ok(changed)) => changed,
            Ok(Err(error)) => return Err(error),
            Err(_panic) => {
                self.records.truncate(first);
                return Err(CommandError::Fault);
            }
        };
        Ok(Outcome { view: stream.view(partition, id), changed, replayed: None })
    }

    /// The same command, if it was applied before: in this round, recently, or as the creation of
    /// the stream.
    fn find_applied(&self, memory: &Memory, stream: &Stream, request: &Request) -> Option<Applied> {
        if request.fingerprint == Fingerprint::default() {
            return None;
        }
        stream
            .created(request.stream, request.command_id)
            .or_else(|| self.applied.get(&request.command_id).copied())
            .or_else(|| memory.dedupe.find(request.command_id))
    }

    /// Decides a command and applies its events. Returns whether there are any.
    fn apply(&mut self, stream: &mut Stream, request: &Request) -> Result<bool, CommandError> {
        let Request { stream: id, command_id, fingerprint, correlation_id, causation_id, .. } =
            *request;
        let decided =
            stream.state.decide(&request.command, self.time).ok_or(CommandError::Fault)?;
        let decided = decided.map_err(CommandError::Refused)?;
        let changed = !decided.is_empty();
        let mut last = None;
        for event in decided {
            let metadata = Metadata {
                version: stream.version + 1,
                schema: event.schema(),
                command_id,
                fingerprint,
                correlation_id,
                causation_id,
            };
            stream.evolve(&event, &metadata, self.time);
            let mut record = event.to_record(self.event_id(), id, self.time, metadata);
            record.traceparent.clone_from(&request.traceparent);
            self.bytes += record.size();
            last = Some(metadata);
            self.records.push(record);
        }
        // This comes after everything that may panic.
        if let Some(metadata) = last.filter(is_repeatable) {
            let applied = Applied { stream: id, fingerprint, version: metadata.version };
            self.applied.insert(command_id, applied);
        }
        Ok(changed)
    }

    /// The batch's id plus a counter: unique, and derived from the batch.
    fn event_id(&self) -> Uuid {
        Uuid::from_u128(self.batch_id.as_u128().wrapping_add(self.records.len() as u128 + 1))
    }

    /// Whether no command in the round produced an event.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether it has decided nothing at all.
    pub fn is_untouched(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Breaks the shard as [`Bug::OverlayKept`](events::planted::Bug) describes.
    pub fn keep(&self, memory: &mut Memory) {
        let changed = self.changed.iter().map(|(&id, changed)| (id, changed.stream.clone()));
        memory.streams.extend(changed);
    }

    /// Merges the round's decisions into the memory, after its batch is durable at `offsets`.
    /// Returns the changed streams, each with its state before the round, and the waiting answers.
    pub fn merge(
        self,
        memory: &mut Memory,
        records: &[Record],
        offsets: &[Offset],
    ) -> (Vec<(StreamId, Option<Stream>)>, Vec<Waiting>) {
        for record in records {
            memory.note_command(record.stream, &record.metadata);
        }
        let mut merged = Vec::with_capacity(self.changed.len());
        for (id, Changed { mut stream, last }) in self.changed {
            if let Some(&offset) = offsets.get(last) {
                stream.last = offset;
            }
            stream.state.compact();
            merged.push((id, memory.streams.insert(id, stream)));
        }
        (merged, self.waiting)
    }
}
