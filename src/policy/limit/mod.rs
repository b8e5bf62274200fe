//! Limits and budgets of keys, teams, organisations, models, providers, listeners and client addresses.

pub mod address;
pub mod counters;
pub mod plan;
pub mod reservation;
