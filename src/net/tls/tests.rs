//! Tests of TLS. Peers that are not ours: rustls' buffered connection without a socket, OpenSSL and Python's
//! ssl with one.

pub(in crate::net) mod authority;
mod config;
mod control;
mod handshake;
mod interop;
mod network;
mod peer;
mod session;
mod stream;
