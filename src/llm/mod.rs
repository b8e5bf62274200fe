//! What is known of models and their providers. Bytes in, values out; no I/O.

pub mod provider;
pub mod dialect;
pub mod price;
pub mod catalogue;
pub mod decimal;
