//! Question: what does the ledger cost? Unit: ns per request on a worker; ns of CPU per record on the writer's
//! thread.
//!
//! `worker`: an intent, one progress and a final record, beside a copy of a slot's bytes; with `WARM` slots that come
//! back at once, and with `OPEN` requests between a slot's end and its next use, as when records wait 50 ms to be
//! durable: a slot's lines have left the near caches then. `writer`: a record from its slot to its frame, with the
//! sums; the whole of it with the write to a file in the temporary directory, where a sync may cost anything; and the
//! roll-up of a second's sums.
//!
//! Each row checks that its records come out. Not measured here: the wait for the disk, and what the gateway adds
//! around it (`tollgate-load compare` with and without `[ledger]`).

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tollgate::control::ledger::rollups::Store;
use tollgate::control::ledger::sums::Sums;
use tollgate::usage::Usage;
use tollgate::usage::ledger::segments::Appender;
use tollgate::usage::ledger::slots::SLOT_WORDS;
use tollgate::usage::ledger::{
    Book, Counters, Final, Hold, Intent, Mark, OnFailure, Record, Region, State, Target, Tray, Writer,
    segments,
};

const WARM: usize = 8;
const OPEN: usize = 1_500;
const RECORDS: usize = 1_000;

fn open(slots: usize) -> (Arc<Region>, Book, Tray) {
    let region = Arc::new(Region::anonymous(1, slots).expect("memory"));
    let (state, counters) = (Arc::<State>::default(), Arc::<Counters>::default());
    let (book, tray) = Book::new(Arc::clone(&region), 0, OnFailure::Open, state, counters);
    (region, book, tray)
}

const HOLDS: [Hold; 6] = [Hold { cell: 17, tag: 3, amount: 4_000 }; 6];

fn ask(book: &Book, key: &str) {
    let intent = Intent {
        id: b"req_01kakxq3v5f0q9n8j2m4s6t7w8",
        key,
        team: "platform",
        organisation: "acme",
        model: "gpt-4o-mini",
        surface: "chat",
        dialect: "openai_chat",
        tags: "project=search,env=prod",
        client: Some([192, 0, 2, 17].into()),
        is_stream: true,
        started_unix_ms: 1_795_257_000_000,
        input_estimate: 300,
        target: Target { provider: "openai", model: "gpt-4o-mini-2024-07-18", holds: &HOLDS },
    };
    let usage = Usage { input: Some(312), output: Some(128), cache_read: Some(0), ..Usage::default() };
    let entry = book.begin(black_box(&intent)).expect("a slot");
    book.progress(&entry, black_box(&usage));
    let last = Final {
        usage,
        cost_pico: Some(123_600_000),
        status: 200,
        ended: "whole",
        attempts: 1,
        events: 130,
        bytes_in: 1_200,
        bytes_out: 30_000,
        steps_us: [20, 30, 31, 40, 180_000, 190_000, 2_000_000],
        ..Final::default()
    };
    book.finish(entry, black_box(&last));
}

fn worker(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger/worker");
    let (from, mut to) = (vec![1_u64; SLOT_WORDS], vec![0; SLOT_WORDS]);
    group.bench_function("copy_of_a_slot", |b| {
        b.iter(|| {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
        });
    });
    for open_requests in [WARM, OPEN] {
        let (region, book, mut tray) = open(2 * OPEN);
        (0..open_requests).for_each(|_| ask(&book, "ci"));
        group.bench_function(BenchmarkId::new("request", open_requests), |b| {
            b.iter(|| {
                let at = tray.finished.pop().expect("the oldest one");
                tray.give_back(&region, at);
                ask(&book, "ci");
            });
        });
        assert_eq!(tray.finished.slots(), open_requests);
    }
    group.finish();
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tollgate-bench-ledger-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a directory");
    path
}

fn writer(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger/writer");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let keys: Vec<String> = (0..100).map(|key| format!("key-{key}")).collect();
    let fill = |book: &Book| (0..RECORDS).for_each(|n| ask(book, &keys[n % keys.len()]));

    let (region, book, mut tray) = open(RECORDS);
    let mut read = Record::default();
    fill(&book);
    let slots: Vec<u32> = std::iter::from_fn(|| tray.finished.pop().ok()).collect();
    for with_sums in [false, true] {
        let name = if with_sums { "read_frame_and_sum" } else { "read_and_frame" };
        let (mut frames, mut sums) = (Vec::with_capacity(1 << 20), Sums::default());
        group.bench_function(name, |b| {
            b.iter(|| {
                frames.clear();
                for &at in &slots {
                    assert!(region.slot(0, at).is_some_and(|slot| slot.read(&mut read)));
                    segments::frame(&read, &mut frames);
                    if with_sums {
                        sums.add(&read);
                    }
                }
                assert!(frames.len() > RECORDS * 200);
            });
        });
    }

    let path = directory("commit");
    let (region, book, tray) = open(RECORDS);
    let mut writer =
        Writer::new(region, vec![tray], Appender::new(&path, 0, Mark::default()).expect("a file"));
    group.bench_function("commit", |b| {
        b.iter_batched(
            || fill(&book),
            |()| {
                writer.gather(|_| {});
                assert_eq!(writer.commit().expect("a disk"), RECORDS);
            },
            BatchSize::PerIteration,
        );
    });
    std::fs::remove_dir_all(path).expect("it is ours");
    group.finish();
}

fn rollups(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger/roll_up");
    for combinations in [100_u64, 10_000] {
        let path = directory("rollups");
        let mut store = Store::open(&path, Duration::from_secs(1)).expect("a store");
        let mut sums = Sums::default();
        for n in 0..combinations {
            let record = Record {
                key: format!("key-{n}"),
                status: 200,
                ended: "whole".to_owned(),
                ..Record::default()
            };
            sums.add(&record);
        }
        let mut at = Mark::default();
        group.throughput(Throughput::Elements(combinations));
        group.bench_function(BenchmarkId::new("combinations", combinations), |b| {
            b.iter(|| {
                let next = Mark { segment: 1, offset: at.offset + 1 };
                let rolled = store.roll_up(0, at, next, black_box(&sums)).expect("a store");
                assert_eq!(rolled, tollgate::control::ledger::rollups::Rolled::Up);
                at = next;
            });
        });
        drop(store);
        std::fs::remove_dir_all(path).expect("it is ours");
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500));
    targets = worker, writer, rollups
}
criterion_main!(benches);
