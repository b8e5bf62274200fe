//! Pure byte formats: bytes in, values out. No I/O, no clock, no knowledge of any provider.

pub mod http1;
pub mod json;
pub mod patch;
pub mod sse;

#[cfg(test)]
mod recordings;
