//! Bytes of the protocols that the suite speaks: pure, without sockets.

pub mod http1;
pub mod body;
pub mod sse;
