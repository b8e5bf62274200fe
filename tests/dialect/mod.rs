//! Dialects and meter against recorded traffic.

mod usage;
mod lanes;
mod writers;
