//! The load-test suite.
fn main() {}
