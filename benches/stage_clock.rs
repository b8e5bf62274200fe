//! Question: what does it cost to time every step of a request? Unit: time per request of seven marks, beside
//! seven readings of the system's clock (what no stage clock can be below) and seven marks with a reading
//! that is handed down.
//!
//! Each row checks that the marks stand in their order.
//!
//! Not measured here: what becomes of the marks (log, metrics).

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use tollgate::base::clock;
use tollgate::policy::exchange::{StageClock, Step};

fn marks(c: &mut Criterion) {
    let mut group = c.benchmark_group("stage_clock/7_marks");
    group.bench_function(BenchmarkId::from_parameter("std_instant_now"), |b| {
        b.iter(|| {
            let first = std::time::Instant::now();
            let mut last = first;
            for _ in 1..StageClock::STEPS {
                last = black_box(std::time::Instant::now());
            }
            assert!(last >= first);
        });
    });
    group.bench_function(BenchmarkId::from_parameter("mark"), |b| {
        b.iter(|| {
            let mut stages = StageClock::starting(clock::now());
            for step in Step::ALL {
                black_box(&mut stages).mark(step);
            }
            assert!(stages.at(Step::Body) <= stages.at(Step::Done));
        });
    });
    group.bench_function(BenchmarkId::from_parameter("mark_at_one_reading"), |b| {
        b.iter(|| {
            let now = clock::now();
            let mut stages = StageClock::starting(now);
            for step in Step::ALL {
                black_box(&mut stages).mark_at(step, now);
            }
            assert_eq!(stages.at(Step::Body), stages.at(Step::Done));
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = marks
}
criterion_main!(benches);
