//! What requests of dead processes have cost, by the prices of the newest generation.
//!
//! Absent: giving back what they had reserved. The bank is in memory and has ended with its process.

use crate::handler::worker::Published;
use crate::llm::catalogue::Unpriced;
use crate::usage::ledger::{Record, Settle};
use std::sync::Arc;

/// See the module's text.
pub struct Prices {
    pub published: Arc<Published>,
}

impl Settle for Prices {
    fn price(&mut self, record: &mut Record) {
        let snapshot = self.published.newest();
        let provider = snapshot.providers.iter().find(|provider| *provider.name == *record.provider);
        let price = provider.and_then(|found| snapshot.catalogue.model(found.kind, &record.model_sent).price);
        record.is_unpriced = price.is_none();
        let price = price.or(match &snapshot.unpriced {
            Unpriced::Ceiling(price) => Some(*price),
            Unpriced::Allow | Unpriced::Refuse => None,
        });
        record.cost_pico = price.map(|price| price.cost(&record.usage));
    }

    fn release(&mut self, _: &Record) {}
}
