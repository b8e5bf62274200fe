//! What requests of dead processes have cost, and what becomes of what they held: the bank's part of recovery.
//!
//! Prices are those of the newest generation. What a request held is settled in the bank's file, whether this
//! process has the bank open or is about to make it anew: what it used is booked, the rest goes back.

use crate::control::tell::tell;
use crate::handler::snapshot::Snapshot;
use crate::llm::catalogue::{Catalogue, Unpriced};
use crate::llm::price::units;
use crate::llm::provider::ProviderKind;
use crate::policy::limit::plan::Metric;
use crate::usage::bank::Estate;
use crate::usage::ledger::{Record, Settle};
use crate::usage::seat::Directory;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// What a generation says of prices.
pub struct Prices {
    providers: Vec<(Box<str>, ProviderKind)>,
    catalogue: Arc<Catalogue>,
    unpriced: Unpriced,
}

/// The prices of the newest generation.
pub type Newest = Arc<ArcSwap<Prices>>;

impl Prices {
    /// Those of `snapshot`.
    pub fn of(snapshot: &Snapshot) -> Prices {
        let providers = snapshot.providers.iter().map(|provider| (provider.name.clone(), provider.kind));
        Prices {
            providers: providers.collect(),
            catalogue: Arc::clone(&snapshot.catalogue),
            unpriced: snapshot.unpriced,
        }
    }
}

/// See the module's text.
pub struct Settlement {
    pub prices: Newest,
}

impl Settle for Settlement {
    fn price(&mut self, record: &mut Record) {
        let prices = self.prices.load();
        let provider = prices.providers.iter().find(|(name, _)| **name == *record.provider);
        let price = provider.and_then(|(_, kind)| prices.catalogue.model(*kind, &record.model_sent).price);
        record.is_unpriced = price.is_none();
        let price = price.or(match &prices.unpriced {
            Unpriced::Ceiling(price) => Some(*price),
            Unpriced::Allow | Unpriced::Refuse => None,
        });
        record.cost_pico = price.map(|price| price.cost(&record.usage));
    }

    fn release(&mut self, directory: &Directory, record: &Record) {
        if record.holds.is_empty() {
            return;
        }
        match Estate::open(directory) {
            Ok(Some(estate)) => estate.settle(&record.holds, &|unit| used(unit, record)),
            Ok(None) => {}
            Err(error) => {
                tell(format_args!("tollgate: what {} held is not given back: {error}", record.id));
            }
        }
    }
}

/// What a request used of what a limit counts.
fn used(unit: u8, record: &Record) -> u64 {
    let usage = &record.usage;
    let is = |metric: Metric| unit == metric as u8;
    match () {
        // The request itself: all that is held of it.
        () if is(Metric::Requests) => u64::MAX,
        () if is(Metric::InputTokens) => usage.input_total().unwrap_or(0),
        () if is(Metric::OutputTokens) => usage.output_total().unwrap_or(0),
        () if is(Metric::Tokens) => usage.total().unwrap_or(0),
        () if is(Metric::Money) => units(record.cost_pico.unwrap_or(0)),
        () => 0,
    }
}
