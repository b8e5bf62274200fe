//! All integration tests, as one binary: a module a folder.

mod sim;
