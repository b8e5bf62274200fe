//! Question: what do admission and settlement cost a worker? Unit: ns per request, all its limits together.
//!
//! A request is admitted and settled under three nested levels: its key's limit, its team's and its
//! organisation's. On one hot key, and with keys drawn at random from 100,000, which shows what the cache
//! misses cost. `places` rows limit requests alone (one cell a level), `tokens` rows requests and tokens (two).
//! The reference is one compare-and-swap on a word that nobody else has. Goals: 150 ns hot, 700 ns at random.
//! Absent: the clock, which is read once a request (`stage_clock`), and leases that have to be called back.

#[path = "limiting.rs"]
mod limiting;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use limiting::{Node, TEAMS};
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::Duration;

const KEYS: u32 = 100_000;

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limits");
    group.throughput(Throughput::Elements(1));
    let word = AtomicU64::new(0);
    group.bench_function("one compare-and-swap", |bench| {
        bench.iter(|| {
            let now = word.load(Acquire);
            black_box(word.compare_exchange(now, now + 1, AcqRel, Acquire).is_ok())
        });
    });
    for (what, tokens) in [("places", false), ("tokens", true)] {
        let node = Node::new(KEYS, tokens);
        group.bench_function(format!("{what}: a hot key"), |bench| {
            bench.iter(|| node.request(black_box(7), tokens));
        });
        let mut random = fastrand::Rng::with_seed(1);
        group.bench_function(format!("{what}: a key of {KEYS} at random"), |bench| {
            bench.iter(|| node.request(random.u32(..KEYS), tokens));
        });
        assert_eq!(node.in_use(), 0, "tokens that nobody used are given back in {TEAMS} teams");
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = requests
}
criterion_main!(benches);
