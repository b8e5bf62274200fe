//! Integration tests of the load-test suite, in one binary: generator against mock, over real sockets on
//! loopback.

mod broken;
mod http2;
mod loopback;
mod results;
