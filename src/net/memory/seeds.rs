//! Runs a test for many seeds and says which one failed.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Calls `test` with every seed of `seeds`; a panic is reported with its seed and goes on to the caller.
///
/// `TOLLGATE_SEED=n` runs seed n alone. `TOLLGATE_SEEDS=n` runs n seeds from the start of the range, for long
/// searches.
///
/// # Panics
/// As `test` does, and where one of the two variables is not a number.
pub fn each_seed(seeds: Range<u64>, mut test: impl FnMut(u64)) {
    let seeds = match (number("TOLLGATE_SEED"), number("TOLLGATE_SEEDS")) {
        (Some(seed), _) => seed..seed.saturating_add(1),
        (None, Some(count)) => seeds.start..seeds.start.saturating_add(count),
        (None, None) => seeds,
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("THIS_TEST");
            eprintln!("seed {seed} fails; run it alone: TOLLGATE_SEED={seed} cargo test {name}");
            resume_unwind(panic);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a number is allowed")))
}
