//! Every state of a slot, a kill after every store, and names of any length.

use super::{Mark, Region, SLOT_WORDS, Slot, Stage};
use crate::llm::dialect::Caching;
use crate::usage::ledger::record::{
    AttemptOutcome, Final, HOLDS_MAX, Hold, Intent, Kind, Record, Target, cut,
};
use crate::usage::{Provenance, Usage};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

fn region() -> Region {
    Region::anonymous(1, 2).expect("a region")
}

fn read(slot: Slot<'_>) -> Record {
    let mut record = Record::default();
    slot.read(&mut record);
    record
}

fn intent<'a>(holds: &'a [Hold]) -> Intent<'a> {
    Intent {
        id: b"req_01234567890123456789abcdef",
        key: "ci",
        team: "blue",
        organisation: "acme",
        model: "fast",
        surface: "chat",
        dialect: "openai_chat",
        tags: "project=x",
        client: Some([192, 0, 2, 1].into()),
        is_stream: true,
        started_unix_ms: 1_700_000_000_123,
        input_estimate: 77,
        target: Target { provider: "openai", model: "gpt-4o-mini", holds },
    }
}

const HOLDS: [Hold; 2] =
    [Hold { cell: 7, tag: 65535, amount: u64::MAX }, Hold { cell: u32::MAX, tag: 0, amount: 1 }];

fn usage(output: u64) -> Usage {
    Usage {
        input: Some(11),
        output: Some(output),
        cache_read: Some(0),
        caching: Caching::Beside,
        provenance: Provenance::Estimated,
        flawed: true,
        ..Usage::default()
    }
}

fn last<'a>() -> Final<'a> {
    Final {
        usage: Usage { output: Some(500), ..Usage::default() },
        cost_pico: Some(37_500),
        is_unpriced: true,
        status: 200,
        ended: "client_left",
        error: "upstream_invalid_response",
        attempts: 2,
        events: 9,
        bytes_in: 10,
        bytes_out: 11,
        steps_us: [1, 2, 3, 4, 5, 6, u32::MAX],
    }
}

#[test]
fn each_state_reads_back_as_what_was_written() {
    let region = region();
    let slot = region.slot(0, 0).expect("a slot");
    assert_eq!(slot.stage(), Stage::Free);
    assert!(!slot.read(&mut Record::default()));
    slot.begin(&intent(&HOLDS));
    let begun = read(slot);
    assert_eq!(
        (slot.stage(), begun.kind, begun.number, &*begun.ended),
        (Stage::Intent, Kind::Crash, 0, "crash")
    );
    assert_eq!(begun.id, "req_01234567890123456789abcdef");
    let names =
        [&begun.key, &begun.team, &begun.organisation, &begun.model, &begun.provider, &begun.model_sent];
    assert_eq!(names, ["ci", "blue", "acme", "fast", "openai", "gpt-4o-mini"]);
    assert_eq!((&*begun.surface, &*begun.dialect, &*begun.tags), ("chat", "openai_chat", "project=x"));
    assert_eq!((begun.started_unix_ms, begun.input_estimate, begun.is_stream), (1_700_000_000_123, 77, true));
    assert_eq!(begun.client, Some([192, 0, 2, 1].into()));
    assert_eq!(begun.holds, HOLDS);
    assert!(begun.usage.is_unknown() && begun.is_estimated());

    slot.progress(&usage(1));
    slot.progress(&usage(2));
    assert_eq!(read(slot).usage, usage(2));

    slot.retarget(&Target { provider: "azure", model: "mini", holds: &HOLDS[1..] });
    let moved = read(slot);
    assert_eq!((&*moved.provider, &*moved.model_sent, &*moved.holds), ("azure", "mini", &HOLDS[1..]));
    assert_eq!((moved.usage, &*moved.key), (usage(2), "ci"));

    slot.finish(&last());
    let ended = read(slot);
    let Final {
        usage, cost_pico, is_unpriced, status, attempts, events, bytes_in, bytes_out, steps_us, ..
    } = last();
    assert_eq!((slot.stage(), ended.kind), (Stage::Final, Kind::Request));
    assert_eq!((ended.usage, ended.cost_pico, ended.is_unpriced), (usage, cost_pico, is_unpriced));
    assert_eq!((ended.status, ended.attempts, ended.steps_us), (status, attempts, steps_us));
    assert_eq!((ended.events, ended.bytes_in, ended.bytes_out), (events, bytes_in, bytes_out));
    assert_eq!((&*ended.ended, &*ended.error), ("client_left", "upstream_invalid_response"));
    assert_eq!((&*ended.provider, &*ended.model_sent, &*ended.key), ("azure", "mini", "ci"));
    assert!(ended.holds.is_empty() && !ended.is_estimated());

    slot.free();
    assert_eq!(slot.stage(), Stage::Free);
}

#[test]
fn a_slot_that_is_used_again_says_nothing_of_the_request_before() {
    let region = region();
    let slot = region.slot(0, 0).expect("a slot");
    slot.begin(&intent(&HOLDS));
    slot.retarget(&Target { provider: "azure", model: "mini", holds: &HOLDS });
    slot.finish(&last());
    slot.free();
    slot.begin(&Intent { id: b"req_2", ..Intent::default() });
    let unfinished =
        Record { kind: Kind::Crash, id: "req_2".to_owned(), ended: "crash".to_owned(), ..Record::default() };
    assert_eq!(read(slot), unfinished);
    slot.finish(&Final::default());
    assert_eq!(read(slot), Record { kind: Kind::Request, ended: String::new(), ..unfinished });
}

/// A change as a kill could leave it: only the first `stores` words that differ were written. The state's word
/// is the last one that a change stores.
fn killed_after(stores: usize, before: &[u64], after: &[u64]) -> Vec<u64> {
    let mut words = before.to_vec();
    let order = (1..SLOT_WORDS).chain([0]);
    order.filter(|&at| before[at] != after[at]).take(stores).for_each(|at| words[at] = after[at]);
    words
}

#[test]
fn a_kill_within_a_change_leaves_what_was_before() {
    type Change = fn(Slot<'_>);
    let changes: [(&str, Change); 4] = [
        ("begin", |slot| slot.begin(&intent(&HOLDS))),
        ("progress", |slot| slot.progress(&usage(9))),
        ("retarget", |slot| slot.retarget(&Target { provider: "azure", model: "mini", holds: &HOLDS[1..] })),
        ("finish", |slot| slot.finish(&last())),
    ];
    let region = region();
    let slot = region.slot(0, 0).expect("a slot");
    let words = || -> Vec<u64> { slot.words.iter().map(|word| word.load(Relaxed)).collect() };
    for (name, change) in changes {
        let (before, read_before) = (words(), read(slot));
        change(slot);
        let (after, read_after) = (words(), read(slot));
        assert_ne!(before[0], after[0], "{name}: the state's word says that it is valid");
        let stores = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        for done in 0..=stores {
            let torn: [AtomicU64; SLOT_WORDS] = killed_after(done, &before, &after)
                .into_iter()
                .map(AtomicU64::new)
                .collect::<Vec<_>>()
                .try_into()
                .expect("a slot's words");
            let expected = if done == stores { &read_after } else { &read_before };
            assert_eq!(&read(Slot { words: &torn }), expected, "{name}: {done} of {stores} stores");
        }
    }
}

#[test]
fn an_attempt_has_the_requests_names_and_its_own_target() {
    let region = region();
    let (of, slot) = (region.slot(0, 0).expect("a slot"), region.slot(0, 1).expect("another"));
    of.begin(&intent(&HOLDS));
    let outcome = AttemptOutcome {
        number: 3,
        provider: "azure",
        model: "mini",
        status: 429,
        error: "",
        usage: usage(4),
        cost_pico: None,
        is_unpriced: false,
        micros: 1234,
    };
    slot.attempt(of, &outcome);
    let record = read(slot);
    assert_eq!((record.kind, record.number, record.status), (Kind::Attempt, 3, 429));
    assert_eq!((&*record.provider, &*record.model_sent, record.steps_us[6]), ("azure", "mini", 1234));
    assert_eq!((record.usage, record.cost_pico), (usage(4), None));
    let begun = read(of);
    assert_eq!((record.id, record.key, record.tags), (begun.id, begun.key, begun.tags));
    assert_eq!((record.client, record.is_stream), (begun.client, true));
    assert!(record.holds.is_empty());
}

#[test]
fn the_names_of_the_config_are_whole_at_their_longest_and_the_clients_get_the_rest() {
    let (name, long) = ("n".repeat(128), "m".repeat(512));
    let holds = [HOLDS[0]; HOLDS_MAX];
    let region = region();
    let slot = region.slot(0, 0).expect("a slot");
    let all = Intent {
        key: &name,
        team: &name,
        organisation: &name,
        model: &long,
        surface: "chat_completions",
        dialect: "openai_completions_longer",
        tags: "cut off",
        target: Target { provider: &name, model: &long, holds: &holds },
        ..intent(&[])
    };
    slot.begin(&all);
    let record = read(slot);
    assert_eq!([&record.key, &record.team, &record.organisation, &record.provider], [&name; 4]);
    assert_eq!((record.model.len(), record.model_sent.len(), &*record.tags), (24, 24, ""));
    assert_eq!((&*record.surface, record.dialect.len()), ("chat_completions", 24));
    assert_eq!(record.holds, holds);
    // One hold too many is not kept; a name that is too long is cut.
    let (holds, name) = ([HOLDS[1]; HOLDS_MAX + 1], "n".repeat(129));
    slot.begin(&Intent { key: &name, target: Target { holds: &holds, ..Target::default() }, ..intent(&[]) });
    assert_eq!((read(slot).holds.len(), read(slot).key.len()), (HOLDS_MAX, 128));
}

#[test]
fn a_count_above_what_is_kept_is_the_largest_that_is() {
    let region = region();
    let slot = region.slot(0, 0).expect("a slot");
    slot.begin(&Intent::default());
    for (count, kept) in
        [(4_294_967_294, 4_294_967_294), (4_294_967_295, 4_294_967_294), (u64::MAX, 4_294_967_294)]
    {
        slot.progress(&Usage { input: Some(count), total_reported: Some(0), ..Usage::default() });
        let usage = read(slot).usage;
        assert_eq!((usage.input, usage.output, usage.total_reported), (Some(kept), None, Some(0)));
    }
}

#[test]
fn a_region_is_found_again_as_it_was_made_and_nothing_else_is_taken_for_one() {
    let directory = std::env::temp_dir().join(format!("tollgate-region-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("slots");
    assert!(Region::open(&path).expect("no file").is_none());
    let made = Region::create(&path, 2, 3).expect("a region");
    assert!(Region::create(&path, 2, 3).is_err(), "what is there may hold records");
    made.slot(1, 2).expect("the last slot").begin(&intent(&HOLDS));
    let mark = Mark { segment: (1 << 24) - 1, offset: (1 << 40) - 1 };
    made.set_mark(mark);
    drop(made);
    let found = Region::open(&path).expect("a file").expect("a region");
    assert_eq!((found.workers(), found.slots(), found.mark()), (2, 3, mark));
    assert!(found.is_of_this_boot());
    assert_eq!(read(found.slot(1, 2).expect("the last slot")).key, "ci");
    assert!(found.slot(1, 3).is_none() && found.slot(2, 0).is_none());
    drop(found);
    // The process died while it made it; then others' content.
    let head = std::fs::read(&path).expect("its bytes");
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = head.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, changed).expect("written");
        Region::open(&path)
    };
    assert!(with(0, &[0; 8]).expect("unfinished").is_none());
    assert!(with(0, b"other").is_err());
    assert!(with(8, &[0; 8]).is_err(), "no workers");
    assert!(with(8, &[255; 8]).is_err(), "too many workers");
    assert!(with(16, &[4]).is_err(), "more slots than the file holds");
    std::fs::remove_dir_all(&directory).expect("it is ours");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_of_any_length_read_back_whole_or_cut_where_a_character_ends(
        texts in vec(".{0,300}", 9),
        id in vec(1_u8..128, 0..40),
        count in 0..20_usize,
    ) {
        let region = region();
        let slot = region.slot(0, 0).expect("a slot");
        let holds = vec![HOLDS[0]; count];
        let written = Intent {
            id: &id,
            key: &texts[0],
            team: &texts[1],
            organisation: &texts[2],
            surface: &texts[3],
            dialect: &texts[4],
            model: &texts[5],
            tags: &texts[6],
            target: Target { provider: &texts[7], model: &texts[8], holds: &holds },
            ..intent(&[])
        };
        slot.begin(&written);
        let record = read(slot);
        prop_assert_eq!(&record.key, cut(&texts[0], 128));
        prop_assert_eq!(&record.team, cut(&texts[1], 128));
        prop_assert_eq!(&record.organisation, cut(&texts[2], 128));
        prop_assert_eq!(&record.surface, cut(&texts[3], 16));
        prop_assert_eq!(&record.dialect, cut(&texts[4], 24));
        prop_assert_eq!(&record.model, cut(&texts[5], record.model.len()));
        prop_assert_eq!(&record.tags, cut(&texts[6], record.tags.len()));
        prop_assert_eq!(&record.provider, cut(&texts[7], 128));
        prop_assert_eq!(&record.model_sent, cut(&texts[8], record.model_sent.len()));
        assert!(record.model.len() + 4 > texts[5].len().min(24), "the model keeps 24 bytes");
        prop_assert_eq!(record.id.as_bytes(), &id[..id.len().min(32)]);
        prop_assert_eq!(record.holds.len(), count.min(HOLDS_MAX));
    }

    #[test]
    fn whatever_words_a_slot_holds_it_is_read(words in vec(any::<u64>(), SLOT_WORDS), kind in 0..5_u64) {
        let words: Vec<AtomicU64> = words.into_iter().map(AtomicU64::new).collect();
        let words: [AtomicU64; SLOT_WORDS] = words.try_into().expect("a slot's words");
        words[0].store(kind | (words[0].load(Relaxed) & !0xff), Relaxed);
        let slot = Slot { words: &words };
        prop_assert_eq!(slot.read(&mut Record::default()), (1..4).contains(&kind));
    }
}
