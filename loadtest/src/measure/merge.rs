//! Merges the results of several load machines that ran the same scenario at the same time.
//!
//! Counts, rates and histograms add up; the timeline's percentiles are those of the worse machine; the
//! generator's figures are those of the busiest. The measured process is taken from the one result that has
//! it.

use crate::measure::result::{LoadResult, RunResult, Summary};

pub fn merge(mut results: Vec<RunResult>) -> Result<RunResult, String> {
    if results.len() < 2 {
        return Err("merge: need at least two results".to_owned());
    }
    let mut sum = results.remove(0);
    for other in results {
        if sum.scenario != other.scenario || sum.loads.len() != other.loads.len() {
            return Err(format!(
                "merge: scenario {:?} and {:?}: need the same",
                sum.scenario, other.scenario
            ));
        }
        if sum.process.is_some() && other.process.is_some() {
            return Err(
                "merge: two results measured a process; only one machine can be the target's".to_owned()
            );
        }
        for (mine, theirs) in sum.loads.iter_mut().zip(&other.loads) {
            add_load(mine, theirs)?;
        }
        sum.process = sum.process.or(other.process);
        sum.generator.threads += other.generator.threads;
        sum.generator.cpu_share = sum.generator.cpu_share.max(other.generator.cpu_share);
        sum.generator.wait_share = sum.generator.wait_share.max(other.generator.wait_share);
        sum.generator.lag_p99_us = sum.generator.lag_p99_us.max(other.generator.lag_p99_us);
        sum.generator.is_saturated |= other.generator.is_saturated;
        // Per-request figures of one generator say nothing about the sum.
        (sum.generator.cpu_us_per_request, sum.generator.cpu_us_per_event) = (None, None);
        sum.failures.extend(other.failures);
    }
    if let Some(process) = &mut sum.process {
        let all = |of: fn(&LoadResult) -> u64| sum.loads.iter().map(of).sum::<u64>();
        let per = |count: u64| (count > 0).then(|| process.spent.cpu_ns as f64 / 1000.0 / count as f64);
        let (requests, events) = (all(|load| load.counts.completed), all(|load| load.counts.events));
        (process.cpu_us_per_request, process.cpu_us_per_event) = (per(requests), per(events));
        process.events_per_cpu_s = per(events).map(|us| 1e6 / us);
    }
    Ok(sum)
}

fn add_load(mine: &mut LoadResult, theirs: &LoadResult) -> Result<(), String> {
    if mine.name != theirs.name {
        return Err(format!("merge: load {:?} and {:?}: need the same", mine.name, theirs.name));
    }
    mine.counts.add(&theirs.counts);
    mine.faults.add(&theirs.faults);
    for (class, error) in &theirs.errors {
        mine.errors.entry(class.clone()).and_modify(|one| one.count += error.count).or_insert(error.clone());
    }
    mine.requests_per_s += theirs.requests_per_s;
    mine.events_per_s += theirs.events_per_s;
    mine.tokens_per_s += theirs.tokens_per_s;
    mine.good_per_s += theirs.good_per_s;
    let pairs = [
        (&mut mine.total, &theirs.total),
        (&mut mine.ttft, &theirs.ttft),
        (&mut mine.gap, &theirs.gap),
        (&mut mine.one_way, &theirs.one_way),
        (&mut mine.lag, &theirs.lag),
    ];
    for (mine, theirs) in pairs {
        let mut sum = mine.times()?;
        sum.add(theirs.times()?).map_err(|error| format!("merge: histograms of unequal bounds: {error}"))?;
        *mine = Summary::of(&sum);
    }
    if mine.seconds.len() < theirs.seconds.len() {
        mine.seconds.resize(theirs.seconds.len(), Default::default());
    }
    for (mine, theirs) in mine.seconds.iter_mut().zip(&theirs.seconds) {
        mine.add(theirs);
    }
    Ok(())
}
