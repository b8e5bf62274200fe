//! All integration tests, as one binary: a module a folder.

mod corpus;
mod dialect;
mod sim;
