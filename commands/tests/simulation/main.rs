//! Runs the simulator on many seeds, and proves that it finds every planted bug.

#![allow(clippy::unwrap_used)]

mod simulator;

use events::{Event, StreamKind, planted::Bug};
use simulator::{Plan, run, search, shrink::explain};

/// The number of runs in `cargo test`. `cargo bench --bench simulate` runs until it is stopped.
const SEEDS: u64 = 1000;

#[test]
fn whatever_happens_the_promises_hold() {
    let (tally, found) = search(0..SEEDS, |_| {});
    if let Some(found) = found {
        panic!("{}", explain(found.seed, &found.report));
    }
    // Every event type must occur, else it is not simulated.
    for kind in [StreamKind::Order, StreamKind::Product, StreamKind::Customer, StreamKind::Email] {
        for (event_type, _) in Event::types(kind) {
            assert!(tally.events.contains_key(*event_type), "no {event_type} in {SEEDS} runs");
        }
    }
}

#[test]
fn a_seed_is_one_run() {
    for seed in 0..20 {
        let (first, second) = (run(&Plan::of(seed), true), run(&Plan::of(seed), true));
        assert_eq!(first.story, second.story, "seed {seed}");
        assert!(!first.story.is_empty());
    }
}

/// Checks that the simulator finds a planted bug within `seeds` seeds.
fn found_within(seeds: u64, bug: Bug) {
    let _planted = bug.plant();
    let found = (0..seeds).find_map(|seed| Some(seed).zip(run(&Plan::of(seed), false).broken));
    let (seed, broken) =
        found.unwrap_or_else(|| panic!("{bug:?} was not found within {seeds} seeds"));
    println!("{bug:?} is found by seed {seed}: {broken}");
}

macro_rules! bites {
    ($($name:ident: $bug:ident;)+) => {
        $(#[test]
        fn $name() {
            found_within(1000, Bug::$bug);
        })+

        #[test]
        fn it_bites_on_every_known_bug() {
            assert_eq!([$(Bug::$bug),+], Bug::ALL);
        }
    };
}

bites! {
    it_bites_on_an_answer_before_the_batch_is_durable: AnswerBeforeDurable;
    it_bites_on_serving_before_the_own_claim_is_read: ServeBeforeClaimIsRead;
    it_bites_on_fences_without_a_claim: FenceWithoutClaim;
    it_bites_on_a_partition_taken_back: PartitionTakenBack;
    it_bites_on_a_slow_commit_taken_for_a_clean_one: SlowCommitTrusted;
    it_bites_on_deduplication_forgotten_on_restart: DedupeForgotten;
    it_bites_on_a_snapshot_that_forgets_commands: SnapshotForgetsCommands;
    it_bites_on_an_overlay_kept_after_a_failed_batch: OverlayKept;
    it_bites_on_a_close_that_appends_nothing: CloseAppendsNothing;
    it_bites_on_an_effect_named_by_a_moving_version: EffectNamedByVersion;
    it_bites_on_a_payment_never_settled: PaymentNotSettled;
    it_bites_on_a_letter_sent_again: MailSentTwice;
    it_bites_on_a_key_kept_at_the_erasure: KeyKept;
}
