//! HTTP/1.1 heads, chunked framing and writers.
