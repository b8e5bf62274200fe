//! Dialects and meter: against recorded traffic, goldens and damaged answers.

mod hostile;
mod lanes;
mod usage;
mod writers;
