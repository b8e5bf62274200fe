//! The life of a request. `llm` is read first: it is the list of stages; the others are its steps.

pub mod llm;
pub mod account;
pub mod ratelimit;
pub mod surface;
pub mod request;
pub mod attempt;
pub mod answer;
pub mod relay;
pub mod tap;
pub mod stages;
pub mod passthrough;
pub mod responses;
pub mod models;
pub mod usage;
pub mod reply;
pub mod mock;
pub mod source;
pub mod sink;
pub mod watch;
pub mod date;
mod fields;
pub mod worker;
pub mod facts;
pub mod record;
pub mod snapshot;
pub mod series;
