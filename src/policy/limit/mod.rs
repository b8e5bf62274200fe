//! Limits and budgets of keys, teams, organisations, models, providers, listeners and client addresses.

pub mod plan;
