//! Load-test suite for AI gateways: a generator, a mock provider, and what turns their counts into figures.
//!
//! It judges any gateway from outside and shares no code with Tollgate: a shared codec would hide bugs.
//! The modules stand in order, top to bottom: a module uses only modules below it.

#![forbid(unsafe_code)]

pub mod cli;
pub mod report;
pub mod verify;
pub mod compare;
pub mod run;
pub mod measure;
pub mod mock;
pub mod scenario;
pub mod dialect;
pub mod record;
pub mod wire;
pub mod net;
