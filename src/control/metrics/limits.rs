//! The part of `/metrics` that tells of limits: what workers decided, and how full each limit is.
//!
//! Limits of keys are told only while something of them is in use, and `KEYS_MAX` of them: the others are
//! counted.

use super::{Page, escaped};
use crate::base::counter::Counter;
use crate::control::alerts::Alerts;
use crate::control::alerts::webhook::Sent;
use crate::control::limits::{Limited, shown};
use crate::handler::facts::Counters;
use crate::policy::limit;
use crate::policy::limit::counters::METRICS;
use crate::policy::limit::plan::{Level, Metric, Window};
use std::sync::Arc;

/// Limits of keys on one page.
pub const KEYS_MAX: usize = 1_000;

type Read = fn(&limit::counters::Counters) -> &Counter;

const COUNTERS: [(&str, &str, Read); 7] = [
    ("admitted_total", "Admissions and reservations that every limit had room for.", |c| &c.admitted),
    ("passed_total", "Amounts taken without room, of limits in shadow or that only warn.", |c| &c.passed),
    ("overrun_total", "Used beyond a limit where an estimate was too low, in the limit's units.", |c| {
        &c.overrun
    }),
    ("streams_ended_total", "Streams that were ended at their budget.", |c| &c.ended),
    ("downgraded_total", "Requests that were sent to a cheaper model.", |c| &c.downgraded),
    ("absurd_usage_total", "Answers whose provider gave numbers that were not believed.", |c| &c.absurd),
    ("unpriced_total", "Calls of models without a price.", |c| &c.unpriced),
];

impl Page {
    pub(super) fn limits(&mut self, workers: &[Arc<Counters>], limited: &Limited<'_>) {
        let sum =
            |read: &dyn Fn(&limit::counters::Counters) -> u64| workers.iter().map(|w| read(&w.limits)).sum();
        for (name, help, read) in COUNTERS {
            let value: u64 = sum(&|counters| read(counters).value());
            self.count(&format!("tollgate_limit_{name}"), help, value);
        }
        let refused: [u64; METRICS] =
            std::array::from_fn(|metric| sum(&|counters| counters.refused[metric].value()));
        let refused = Metric::ALL.map(|metric| (metric.word(), refused[metric as usize]));
        self.count_by("tollgate_limit_refused_total", "metric", "Requests that a limit refused.", &refused);
        let (estimated, reported) = (sum(&|c| c.input_estimated.value()), sum(&|c| c.input_reported.value()));
        let tokens = [("estimate", estimated), ("provider", reported)];
        let help = "Input tokens of the same requests, as estimated and as the provider counted them.";
        self.count_by("tollgate_limit_input_tokens_total", "by", help, &tokens);
        let taken = limited.bank.taken_from();
        let takes = [("lease", taken.lease), ("bank", taken.bank), ("shared", taken.shared)];
        let help = "Amounts taken: of the worker's lease, of the bank for want of it, of limits too small for \
                    leases.";
        self.count_by("tollgate_limit_takes_total", "from", help, &takes);
        self.each_limit(limited);
    }

    fn each_limit(&mut self, limited: &Limited<'_>) {
        let (mut used, mut spent, mut max) = (Vec::new(), Vec::new(), Vec::new());
        let (mut of_keys, mut omitted) = (0, 0_u64);
        for limit in &limited.plan.limits {
            if limit.level == Level::Key {
                if limited.is_idle(limit) {
                    continue;
                }
                if of_keys == KEYS_MAX {
                    omitted += 1;
                    continue;
                }
                of_keys += 1;
            }
            let labels = format!("limit=\"{}\"", escaped(&limit.name()));
            let standing = limited.standing(limit);
            used.push((labels.clone(), shown(limit, standing.in_use)));
            if !matches!(limit.window, Window::None) {
                spent.push((labels.clone(), shown(limit, standing.spent)));
            }
            max.push((labels, shown(limit, limit.amount)));
        }
        let gauges = [
            ("tollgate_limit_used", "What requests hold or have spent; money in dollars.", used),
            ("tollgate_limit_spent", "What requests have spent for good; money in dollars.", spent),
            ("tollgate_limit_max", "How much is allowed; money in dollars.", max),
        ];
        for (name, help, lines) in gauges {
            self.head(name, "gauge", help);
            for (labels, value) in lines {
                self.line(name, &labels, &value);
            }
        }
        let name = "tollgate_limits_omitted";
        self.head(name, "gauge", "Limits of keys that are in use and have no line above.");
        self.line(name, "", &omitted.to_string());
    }

    pub(super) fn alerts(&mut self, alerts: &Alerts, sent: Sent) {
        let name = "tollgate_limit_alerts_total";
        self.head(name, "counter", "Times that so much of a budget was spent; percent 0: all other budgets.");
        for (limit, percent, count) in alerts.counts() {
            let labels = format!("limit=\"{}\",percent=\"{percent}\"", escaped(limit));
            self.line(name, &labels, &count.to_string());
        }
        let help = "Hours in which a key was unlike itself, by the kind of it.";
        self.count_by("tollgate_baseline_deviations_total", "kind", help, &alerts.deviations());
        let sent = [("delivered", sent.delivered), ("failed", sent.failed), ("dropped", sent.dropped)];
        let help = "Alerts to the webhook, by what became of them; dropped: too many waited.";
        self.count_by("tollgate_alerts_sent_total", "result", help, &sent);
    }

    /// A counter by the values of a label.
    fn count_by(&mut self, name: &str, label: &str, help: &str, values: &[(&str, u64)]) {
        self.head(name, "counter", help);
        for (value, count) in values {
            self.line(name, &format!("{label}=\"{value}\""), &count.to_string());
        }
    }

    fn count(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(name, "", &value.to_string());
    }
}
