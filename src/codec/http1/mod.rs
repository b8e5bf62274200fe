//! HTTP/1.1 message framing: where a message ends, decided once and strictly, for both directions.
//!
//! Input: bytes as they arrived. Output: heads, body framing, ranges of body data, and bytes to send.
//! Nothing here reads, writes or waits; a caller hands in what it has and is told what that is.
//!
//! | file | holds |
//! |---|---|
//! | `request` | request heads (from a client that may be hostile): every doubt is refused |
//! | `response` | response heads (from an upstream that may lie): no header map, ranges only |
//! | `chunked` | the chunked coding, decoded piece by piece; extensions and trailers are dropped |
//! | `write` | heads and chunk framing as bytes; CR, LF and NUL never get out |
//! | `hop` | `Connection` options and which fields end at this hop |
//! | `fields`, `lines`, `syntax`, `simd` | field lines, line ends, characters, byte searches: for both |
//!
//! Limits: `HeadLimits` for heads, the constants of `chunked` for chunk lines and trailers.
//! Errors: `Refusal` is the client's fault and carries the status to answer with; `BadResponse` and a
//! `ChunkError` in a response are the upstream's. After any of them the connection's framing is lost: nothing
//! else on it may be read as a message (RFC 9112 section 9.6), so the caller answers, if it still can, and
//! closes.
//! Absent: HTTP/0.9, obs-fold, other transfer codings than chunked, forward-proxy requests (CONNECT),
//! deadlines.
//! Source: RFC 9110 (semantics), RFC 9112 (HTTP/1.1); sections are named where they decide something.

mod chunked;
mod fields;
mod hop;
mod lines;
mod request;
mod response;
mod simd;
mod syntax;
mod write;

pub use chunked::{
    CHUNK_LINE_BYTES_MAX, Chunk, ChunkDecoder, ChunkError, EXTENSION_BYTES_MAX, TRAILER_BYTES_MAX,
    TRAILERS_MAX,
};
pub use hop::{CONNECTION_OPTIONS_MAX, ConnectionOptions, is_hop_by_hop};
pub use request::{
    BodyFraming, EMPTY_LINES_MAX, METHOD_BYTES_MAX, Refusal, RequestHead, RequestScan, decode_request,
    path_of_refused,
};
pub use response::{
    Asked, BadResponse, Field, INTERIM_HEADS_MAX, ResponseFraming, ResponseHead, ResponseScan,
};
pub use write::{
    CHUNK_END, CONTINUE, ChunkHead, HeadWriter, LAST_CHUNK, Unwritable, chunk_head, reason_phrase,
    write_chunk_head,
};

/// Bounds of one head. The defaults suit an untrusted edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head with its blank line and the empty lines before it. Default 32 KiB, at most 1 MiB.
    pub head_bytes_max: usize,
    /// Field lines. Default 96, which is also the most that the head decoder behind `RequestScan` takes.
    pub fields_max: usize,
    /// One field name. Default 256, at most 4 KiB.
    pub name_bytes_max: usize,
    /// The request-target; unused for responses. Default 8 KiB, at most 32 KiB.
    pub target_bytes_max: usize,
}

impl HeadLimits {
    pub const DEFAULT: Self =
        Self { head_bytes_max: 32 * 1024, fields_max: 96, name_bytes_max: 256, target_bytes_max: 8 * 1024 };

    /// The limits with each value brought under the ceiling that the code behind it can hold: ranges are
    /// `u32`, a `HeaderName` of 64 KiB panics in monoio-http's decoder, an `http::Uri` ends at 64 KiB.
    fn capped(&self) -> Self {
        Self {
            head_bytes_max: self.head_bytes_max.min(1024 * 1024),
            fields_max: self.fields_max.min(96),
            name_bytes_max: self.name_bytes_max.min(4 * 1024),
            target_bytes_max: self.target_bytes_max.min(32 * 1024),
        }
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests;
