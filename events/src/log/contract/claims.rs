//! Cases about claims.

use super::{Harness, P, append, commit_raw, ids, open, open_from, read_to};
use crate::log::{Batch, Claim, Cursor, LANES, assembler::Void, opening::writer_record};
use crate::{Environment, Partition};

/// The claim that a writer of `term` commits.
pub(super) fn claim_of_term(
    environment: &dyn Environment,
    partition: Partition,
    term: u64,
) -> Batch {
    let id = environment.uuid();
    let claim = Claim { node: environment.uuid(), lanes: LANES };
    let body = serde_json::to_vec(&claim).expect("a claim serialises");
    let record = writer_record(environment, partition, term, id, Claim::TYPE, body);
    Batch { id, term, records: vec![record] }
}

/// If two claims have the same term, the first one counts. The second is void, and so is every
/// claim of a lower term.
pub async fn a_claim_needs_a_higher_term(harness: &dyn Harness) {
    let environment = crate::environment::System::new();
    let log = harness.log().await;
    let mut writer = open(&*log, P).await;
    let first = append(&mut writer, 1).await;
    let twin = claim_of_term(&environment, P, writer.term());
    commit_raw(&*log, 0, &twin).await;
    let (mut next, history) = open_from(&*log, P, Cursor::START).await;
    assert_eq!(ids(&history), [first.id]);
    assert!(next.term() > writer.term(), "the new claim must have a higher term");
    let last = append(&mut next, 1).await;

    let (read, void) = read_to(&*log, P, Cursor::START, last.id).await;
    assert_eq!(read.iter().filter(|batch| Claim::of(batch).is_some()).count(), 2);
    assert!(
        matches!(*void, [Void::Overtaken { batch_id, .. }] if batch_id == twin.id),
        "an audit reports the void claim: {void:?}"
    );
}
