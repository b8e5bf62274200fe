//! Server-sent events: splits a byte stream into events without copying.
