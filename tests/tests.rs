//! All integration tests, as one binary: a module a folder.

mod cli;
mod config;
mod corpus;
mod dialect;
mod process;
mod relay;
mod sim;
mod supply;
mod tidy;
