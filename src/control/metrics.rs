//! `/metrics`: the counters of all workers, summed at the scrape, in Prometheus' text format.
//!
//! Label values come from the config only. Names of OpenTelemetry's GenAI conventions (2026-07) where one
//! exists, `tollgate_` otherwise. Histograms are cumulated here from the workers' plain buckets; times in
//! seconds. Source: Prometheus text exposition format 0.0.4; FIELD section 5.

mod limits;

use crate::base::counter::{BUCKETS_US, Counter, Histogram};
use crate::control::alerts::Alerts;
use crate::control::alerts::webhook::Sent;
use crate::control::ledger::Standing;
use crate::control::limits::Limited;
use crate::handler::facts::Counters;
use crate::handler::series::{Labels, Registry, Set};
use crate::policy::exchange::{Ended, Step};
use std::fmt::Write;
use std::sync::Arc;

/// What a scrape reads.
pub struct Scrape<'a> {
    pub counters: &'a [Arc<Counters>],
    pub registry: &'a Registry,
    pub generation: u64,
    /// The newest config was refused and an older one serves.
    pub config_stale: bool,
    pub driver: &'static str,
    pub draining: bool,
    /// Lines that the access log could not write.
    pub log_lines_lost: u64,
    /// None: no ledger is kept.
    pub ledger: Option<Standing>,
    pub limits: Limited<'a>,
    pub alerts: &'a Alerts,
    pub sent: Sent,
}

/// The whole page.
pub fn page(scrape: &Scrape<'_>) -> String {
    let mut page = Page { out: String::with_capacity(32 * 1024) };
    page.process(scrape);
    page.workers(scrape.counters);
    page.targets(scrape.registry);
    page.limits(scrape.counters, &scrape.limits);
    page.alerts(scrape.alerts, scrape.sent);
    if let Some(ledger) = &scrape.ledger {
        page.ledger(ledger);
    }
    page.out
}

struct Page {
    out: String,
}

type Read = fn(&Counters) -> &Counter;
type ReadSet = fn(&Set) -> &Counter;

const WORKER_COUNTERS: [(&str, &str, &str, Read); 19] = [
    ("tollgate_requests_total", "counter", "Requests that have ended.", |c| &c.requests),
    ("tollgate_requests_active", "gauge", "Requests that run.", |c| &c.requests_active),
    ("tollgate_connections_total", "counter", "Connections accepted.", |c| &c.connections_total),
    ("tollgate_connections_open", "gauge", "Client connections that are open.", |c| &c.connections_open),
    ("tollgate_heads_refused_total", "counter", "Request heads that broke the grammar.", |c| {
        &c.heads_refused
    }),
    ("tollgate_tls_handshakes_failed_total", "counter", "TLS handshakes of clients that failed.", |c| {
        &c.handshakes_failed
    }),
    ("tollgate_accepts_paused_total", "counter", "Times that connections_max was reached.", |c| {
        &c.accepts_paused
    }),
    (
        "tollgate_accepts_failed_total",
        "counter",
        "Accepts that failed, without descriptors for instance.",
        |c| &c.accepts_failed,
    ),
    ("tollgate_panics_total", "counter", "Panics contained to one connection.", |c| &c.panics),
    ("tollgate_exchanges_unfinished_total", "counter", "Exchanges dropped without an end; reads 0.", |c| {
        &c.unfinished
    }),
    ("tollgate_log_records_dropped_total", "counter", "Access-log records that found the ring full.", |c| {
        &c.records_dropped
    }),
    ("tollgate_upstream_opened_total", "counter", "Connections opened to providers.", |c| &c.upstream.opened),
    ("tollgate_upstream_reused_total", "counter", "Calls on a pooled connection.", |c| &c.upstream.reused),
    ("tollgate_upstream_failed_total", "counter", "Connections to providers that failed.", |c| {
        &c.upstream.failed
    }),
    ("tollgate_upstream_stale_total", "counter", "Pooled connections found closed.", |c| &c.upstream.stale),
    ("tollgate_upstream_open", "gauge", "Connections to providers that are open.", |c| &c.upstream.open),
    ("tollgate_upstream_idle", "gauge", "Connections to providers that are idle.", |c| &c.upstream.idle),
    ("tollgate_upstream_waiting", "gauge", "Requests that wait for a connection.", |c| &c.upstream.waiting),
    ("tollgate_upstream_queue_full_total", "counter", "Requests refused since the queue was full.", |c| {
        &c.upstream.queue_full
    }),
];

/// A label's values, and where each is counted.
type ByValue = &'static [(&'static str, ReadSet)];

const SET_COUNTERS: [(&str, &str, ByValue); 5] = [
    (
        "tollgate_answers_total",
        "class",
        &[
            ("2xx", |s| &s.answers_2xx),
            ("4xx", |s| &s.answers_4xx),
            ("5xx", |s| &s.answers_5xx),
            ("none", |s| &s.unanswered),
        ],
    ),
    ("tollgate_answers_broken_total", "by", &[("upstream", |s| &s.cut), ("client", |s| &s.client_left)]),
    ("tollgate_events_total", "", &[("", |s| &s.events)]),
    (
        "tollgate_tokens_total",
        "gen_ai_token_type",
        &[
            ("input", |s| &s.input_tokens),
            ("output", |s| &s.output_tokens),
            ("cache_read", |s| &s.cache_read_tokens),
            ("cache_write", |s| &s.cache_write_tokens),
            ("reasoning", |s| &s.reasoning_tokens),
        ],
    ),
    ("tollgate_usage_estimated_total", "", &[("", |s| &s.usage_estimated)]),
];

type ReadHistogram = fn(&Set) -> &Histogram;

const SET_HISTOGRAMS: [(&str, &str, ReadHistogram); 3] = [
    ("gen_ai_server_request_duration_seconds", "The whole request.", |s| &s.duration),
    ("gen_ai_server_time_to_first_token_seconds", "From the request to the first content.", |s| {
        &s.first_token
    }),
    ("gen_ai_client_operation_time_per_output_chunk_seconds", "Between two lots of events.", |s| &s.gap),
];

impl Page {
    fn process(&mut self, scrape: &Scrape<'_>) {
        self.head("tollgate_build_info", "gauge", "The version that runs.");
        let (version, commit) =
            (env!("CARGO_PKG_VERSION"), option_env!("TOLLGATE_COMMIT").unwrap_or("unknown"));
        let driver = scrape.driver;
        let labels = format!("version=\"{version}\",commit=\"{commit}\",driver=\"{driver}\"");
        self.line("tollgate_build_info", &labels, "1");
        let gauges = [
            ("tollgate_config_generation", "The generation that serves.", scrape.generation),
            ("tollgate_config_stale", "1: the newest config was refused.", u64::from(scrape.config_stale)),
            ("tollgate_draining", "1: the process takes no new requests.", u64::from(scrape.draining)),
            ("tollgate_workers", "Worker threads.", scrape.counters.len() as u64),
            ("tollgate_log_lines_lost", "Access-log lines that could not be written.", scrape.log_lines_lost),
        ];
        for (name, help, value) in gauges {
            self.head(name, "gauge", help);
            self.line(name, "", &value.to_string());
        }
    }

    fn workers(&mut self, workers: &[Arc<Counters>]) {
        for (name, kind, help, read) in WORKER_COUNTERS {
            self.head(name, kind, help);
            let sum: u64 = workers.iter().map(|worker| read(worker).value()).sum();
            self.line(name, "", &sum.to_string());
        }
        self.head(
            "tollgate_responses_total",
            "counter",
            "Answers by class of status; none: no status was given.",
        );
        for (at, class) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().enumerate() {
            let sum: u64 = workers.iter().map(|worker| worker.statuses[at].value()).sum();
            self.line("tollgate_responses_total", &format!("class=\"{class}\""), &sum.to_string());
        }
        self.head("tollgate_requests_ended_total", "counter", "Requests by the way in which they ended.");
        for ended in Ended::ALL {
            let sum: u64 = workers.iter().map(|worker| worker.ended[ended as usize].value()).sum();
            self.line("tollgate_requests_ended_total", &format!("by=\"{}\"", ended.name()), &sum.to_string());
        }
        self.head("tollgate_step_seconds", "histogram", "From the start of a request to the end of a step.");
        for step in Step::ALL {
            let steps = workers.iter().map(|worker| &worker.steps[step as usize]);
            self.histogram("tollgate_step_seconds", &format!("step=\"{}\"", step.name()), steps);
        }
    }

    fn targets(&mut self, registry: &Registry) {
        for (name, label, kinds) in SET_COUNTERS {
            self.head(name, "counter", "By model as configured, and provider.");
            for (labels, sets) in registry.all() {
                for (value, read) in kinds {
                    let sum: u64 = sets.iter().map(|set| read(set).value()).sum();
                    let mut text = target(labels);
                    if !label.is_empty() {
                        let _ = write!(text, ",{label}=\"{value}\"");
                    }
                    self.line(name, &text, &sum.to_string());
                }
            }
        }
        for (name, help, read) in SET_HISTOGRAMS {
            self.head(name, "histogram", help);
            for (labels, sets) in registry.all() {
                self.histogram(name, &target(labels), sets.iter().map(|set| read(set)));
            }
        }
    }

    fn ledger(&mut self, standing: &Standing) {
        let numbers = [
            ("intents_total", "counter", "Requests that the ledger was told of.", standing.intents),
            (
                "records_total",
                "counter",
                "Records of requests and attempts that workers handed on.",
                standing.handed_on,
            ),
            ("records_written_total", "counter", "Records that are durable.", standing.written),
            ("records_waiting", "gauge", "Records that are final and not durable.", standing.waiting),
            ("records_lost_total", "counter", "Records that found no room; reads 0.", standing.lost),
            ("requests_refused_total", "counter", "Requests that could not be recorded.", standing.refused),
            (
                "entries_dropped_total",
                "counter",
                "Requests dropped without a final record; reads 0.",
                standing.dropped,
            ),
            (
                "commits_failed_total",
                "counter",
                "Writes that failed and were tried again.",
                standing.commits_failed,
            ),
            ("failing", "gauge", "1: the last write has failed.", u64::from(standing.failing)),
            ("rollups_failed_total", "counter", "Roll-ups that failed.", standing.rollups_failed),
            ("rollups_waiting", "gauge", "Groups of records that wait to be rolled up.", standing.unrolled),
            (
                "segments_bytes",
                "gauge",
                "Bytes of all segments, looked at every minute.",
                standing.segments_bytes,
            ),
            (
                "crashes_recovered_total",
                "counter",
                "Requests of processes that died.",
                standing.recovered_crashes,
            ),
            (
                "records_recovered_total",
                "counter",
                "Records that dead processes left.",
                standing.recovered_finals,
            ),
        ];
        for (name, kind, help, value) in numbers {
            let name = format!("tollgate_ledger_{name}");
            self.head(&name, kind, help);
            self.line(&name, "", &value.to_string());
        }
        let lag = "tollgate_ledger_lag_seconds";
        self.head(lag, "gauge", "Since when a record waits to be durable.");
        self.line(lag, "", &seconds(standing.lag_ms.saturating_mul(1000)));
    }

    fn histogram<'h>(&mut self, name: &str, labels: &str, parts: impl Iterator<Item = &'h Histogram>) {
        let mut buckets = [0_u64; BUCKETS_US.len() + 1];
        let mut sum_us = 0;
        for part in parts {
            let (counts, sum) = part.read();
            buckets.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
            sum_us += sum;
        }
        let mut cumulated = 0;
        for (at, count) in buckets.iter().enumerate() {
            cumulated += count;
            let bound = BUCKETS_US.get(at).map_or_else(|| "+Inf".to_owned(), |bound| seconds(*bound));
            self.line(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), &cumulated.to_string());
        }
        self.line(&format!("{name}_sum"), labels, &seconds(sum_us));
        self.line(&format!("{name}_count"), labels, &cumulated.to_string());
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: &str) {
        let _ = match labels.is_empty() {
            true => writeln!(self.out, "{name} {value}"),
            false => writeln!(self.out, "{name}{{{labels}}} {value}"),
        };
    }
}

fn target(labels: &Labels) -> String {
    let (model, provider) = (escaped(&labels.model), escaped(&labels.provider));
    format!("gen_ai_request_model=\"{model}\",gen_ai_provider_name=\"{provider}\"")
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Scrape, page, seconds};
    use crate::control::alerts::Alerts;
    use crate::control::alerts::webhook::Sent;
    use crate::control::ledger::Standing;
    use crate::control::limits::Limited;
    use crate::control::limits::tests::{NOW, plan, use_up};
    use crate::handler::facts::Counters;
    use crate::handler::series::Registry;
    use crate::policy::limit::plan::Metric;
    use crate::usage::bank::Bank;
    use std::sync::Arc;

    #[test]
    fn workers_are_summed_and_buckets_cumulated() {
        let workers = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        workers[0].requests.add(2);
        workers[1].requests.add(3);
        workers[0].steps[0].record(10);
        workers[1].steps[0].record(20);
        workers[0].limits.refused[Metric::Tokens as usize].add(4);
        workers[1].limits.refused[Metric::Tokens as usize].add(1);
        workers[1].limits.input_reported.add(9);
        let bank = Arc::new(Bank::in_memory(1).expect("memory"));
        let plan = plan(&bank);
        use_up(&bank, &plan.limits[0], NOW, 6_234_567, 1);
        use_up(&bank, &plan.limits[1], NOW, 1, 1);
        let mut alerts = Alerts::default();
        let limits = Limited { plan: &plan, bank: &bank, time: NOW };
        alerts.look(&limits, 1, |_| {});
        let scrape = Scrape {
            counters: &workers,
            registry: &Registry::default(),
            generation: 7,
            config_stale: false,
            driver: "epoll",
            draining: false,
            log_lines_lost: 0,
            ledger: Some(Standing { lost: 3, lag_ms: 1500, ..Standing::default() }),
            limits,
            alerts: &alerts,
            sent: Sent { failed: 2, ..Sent::default() },
        };
        let page = page(&scrape);
        assert!(page.contains("\ntollgate_requests_total 5\n"), "{page}");
        assert!(page.contains("step=\"body\",le=\"0.00001\"} 1\n"), "{page}");
        assert!(page.contains("step=\"body\",le=\"0.000025\"} 2\n"), "{page}");
        assert!(page.contains("tollgate_step_seconds_count{step=\"body\"} 2\n"), "{page}");
        assert!(page.contains("\ntollgate_ledger_records_lost_total 3\n"), "{page}");
        assert!(page.contains("\ntollgate_ledger_lag_seconds 1.5\n"), "{page}");
        let limits = [
            "tollgate_limit_refused_total{metric=\"tokens\"} 5",
            "tollgate_limit_refused_total{metric=\"usd\"} 0",
            "tollgate_limit_input_tokens_total{by=\"provider\"} 9",
            "tollgate_limit_takes_total{from=\"bank\"} 2",
            "tollgate_limit_takes_total{from=\"lease\"} 2",
            "tollgate_limit_used{limit=\"team:blue/budget_usd_month\"} 0.6234568",
            "tollgate_limit_spent{limit=\"team:blue/budget_usd_month\"} 0.6234567",
            "tollgate_limit_max{limit=\"team:blue/budget_usd_month\"} 1",
            "tollgate_limit_used{limit=\"key:ci/requests_per_minute\"} 2",
            "tollgate_limits_omitted 0",
            "tollgate_limit_alerts_total{limit=\"team:blue/budget_usd_month\",percent=\"50\"} 1",
            "tollgate_alerts_sent_total{result=\"failed\"} 2",
        ];
        for line in limits {
            assert!(page.contains(&format!("\n{line}\n")), "{line}: {page}");
        }
        assert!(!page.contains("key:blue"), "a key's limit that is not in use: {page}");
    }

    #[test]
    fn seconds_are_written_without_an_exponent() {
        for (micros, text) in [(10, "0.00001"), (2_500_000, "2.5"), (1_000_000, "1"), (0, "0")] {
            assert_eq!(seconds(micros), text);
        }
    }
}
