//! Answers that the gateway gives itself: errors and lists, in the caller's dialect, with the request's id.
//!
//! Every answer has `x-request-id`; one with an error says whether and when a retry helps. Nothing of a
//! request is repeated in them but what `Error::detail` quotes, which is cleaned and cut here.

use crate::base::clock;
use crate::base::error::Error;
use crate::base::id::RequestId;
use crate::handler::date::{self, DATE};
use crate::handler::ratelimit::Fields;
use crate::handler::sink::{BodyLen, Gone, Sink};
use crate::llm::dialect::Dialect;

/// The header that carries our id on every answer.
pub const REQUEST_ID: &[u8] = b"x-request-id";

/// Answers with an error. `limits`: what the caller is told of its own.
pub async fn error(
    sink: &mut Sink<'_>,
    dialect: Dialect,
    error: &Error,
    id: &RequestId,
    limits: &Fields,
) -> Result<(), Gone> {
    let mut body = Vec::with_capacity(256);
    dialect.error_body(error, id, &mut body);
    let row = error.kind.row();
    let retry_after = error.retry_after_s.map(|seconds| seconds.to_string());
    let mut fields: Vec<(&[u8], &[u8])> = Vec::with_capacity(6);
    if let Some(seconds) = &retry_after {
        fields.push((b"retry-after", seconds.as_bytes()));
    }
    if let Some(methods) = &error.allow {
        fields.push((b"allow", methods.as_bytes()));
    }
    if row.status == 401 {
        fields.push((b"www-authenticate", b"Bearer"));
    }
    // The SDKs retry by status alone otherwise: a 408 that will never fit, a 409.
    fields.push((b"x-should-retry", if row.retryable { b"true" } else { b"false" }));
    fields.extend(limits.iter());
    whole(sink, row.status, JSON, &fields, id, &body).await
}

/// Answers with a whole body.
pub async fn whole(
    sink: &mut Sink<'_>,
    status: u16,
    content_type: &[u8],
    fields: &[(&[u8], &[u8])],
    id: &RequestId,
    body: &[u8],
) -> Result<(), Gone> {
    let date = date::at(clock::now());
    let own: [(&[u8], &[u8]); 3] =
        [(DATE, &date), (b"content-type", content_type), (REQUEST_ID, id.as_bytes())];
    let reason = crate::codec::http1::reason_phrase(status).as_bytes();
    sink.head(
        status,
        reason,
        own.into_iter().chain(fields.iter().copied()),
        BodyLen::Known(body.len() as u64),
    );
    sink.copy(body);
    sink.end().await
}

/// What a client sent, for a message to it: printable, at most 64 characters.
pub fn quoted(text: &str) -> String {
    let mut clean: String = text.chars().filter(|c| !c.is_control()).take(QUOTED_CHARS_MAX + 1).collect();
    if clean.chars().count() > QUOTED_CHARS_MAX {
        clean.pop();
        clean.push('…');
    }
    clean
}

pub const JSON: &[u8] = b"application/json";
const QUOTED_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quoted_text_is_clean_and_short() {
        assert_eq!(quoted("gpt-4o"), "gpt-4o");
        assert_eq!(quoted("a\r\nb"), "ab");
        assert_eq!(quoted(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(quoted(&"x".repeat(65)), "x".repeat(64) + "…");
    }
}
