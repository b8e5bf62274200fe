//! The one error of a request: what happened, whose fault it is, what the client is told, whether a retry
//! helps.
//!
//! `Kind` is the closed list; its table gives HTTP status, stable code and fault. The dialect decides the
//! JSON around it (`llm/dialect`), `handler/reply` writes it. `detail` is for the client and never holds a
//! secret or an address of ours.

use std::borrow::Cow;
use std::fmt;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Downstream,
    Upstream,
    Internal,
}

/// Which timer ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    Connect,
    TlsHandshake,
    ResponseHead,
    Idle,
    Write,
    Total,
    RequestBody,
    Queue,
}

impl Timer {
    /// The config key under `[timeout]` without its unit.
    pub fn name(self) -> &'static str {
        match self {
            Timer::Connect => "connect",
            Timer::TlsHandshake => "tls_handshake",
            Timer::ResponseHead => "response_head",
            Timer::Idle => "idle",
            Timer::Write => "write",
            Timer::Total => "total",
            Timer::RequestBody => "request_body",
            Timer::Queue => "queue",
        }
    }
}

/// What happened. `Kind::row` is the table of status, code, type and fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    KeyMissing,
    KeyUnknown,
    KeyExpired,
    KeyDisabled,
    ModelForbidden,
    ModelUnknown,
    PathUnknown,
    MethodNotAllowed,
    BodyNotJson,
    BodyField,
    BodyTooLarge,
    MediaType,
    BadRequest,
    /// The head breaks a rule of HTTP; the status says which.
    Grammar(u16),
    RequestTimeout,
    Overloaded,
    /// A limit has no room now; it will.
    RateLimited,
    /// A budget is used up.
    QuotaExceeded,
    /// The request alone is more than a limit allows.
    LimitTooSmall,
    UpstreamUnreachable,
    UpstreamTimeout(Timer),
    UpstreamBroken,
    ResponseUnknown,
    /// Nothing is known of what a request has used.
    RequestUnknown,
    Refused,
    Internal,
}

/// Status, code and fault of a `Kind`.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub status: u16,
    pub code: &'static str,
    pub fault: Fault,
    /// The same request may succeed later without a change.
    pub retryable: bool,
}

impl Kind {
    /// Status, stable code, fault and whether a retry helps.
    pub fn row(self) -> Row {
        use Fault::{Downstream, Internal, Upstream};
        let (status, code, fault, retryable) = match self {
            Kind::KeyMissing => (401, "missing_api_key", Downstream, false),
            Kind::KeyUnknown => (401, "invalid_api_key", Downstream, false),
            Kind::KeyExpired => (401, "expired_api_key", Downstream, false),
            Kind::KeyDisabled => (401, "disabled_api_key", Downstream, false),
            Kind::ModelForbidden => (403, "model_not_allowed", Downstream, false),
            Kind::ModelUnknown => (404, "model_not_found", Downstream, false),
            Kind::PathUnknown => (404, "unknown_path", Downstream, false),
            Kind::MethodNotAllowed => (405, "method_not_allowed", Downstream, false),
            Kind::BodyNotJson => (400, "invalid_json", Downstream, false),
            Kind::BodyField => (400, "invalid_field", Downstream, false),
            Kind::BodyTooLarge => (413, "body_too_large", Downstream, false),
            Kind::MediaType => (415, "unsupported_media_type", Downstream, false),
            Kind::BadRequest => (400, "bad_request", Downstream, false),
            Kind::Grammar(status) => (status, grammar_code(status), Downstream, status == 408),
            Kind::RequestTimeout => (408, "request_timeout", Downstream, true),
            Kind::RateLimited => (429, "rate_limit_exceeded", Downstream, true),
            Kind::QuotaExceeded => (429, "insufficient_quota", Downstream, false),
            Kind::LimitTooSmall => (429, "request_exceeds_limit", Downstream, false),
            Kind::Overloaded => (503, "gateway_overloaded", Internal, true),
            Kind::UpstreamUnreachable => (502, "upstream_unreachable", Upstream, true),
            Kind::UpstreamTimeout(_) => (504, "upstream_timeout", Upstream, true),
            Kind::UpstreamBroken => (502, "upstream_invalid_response", Upstream, true),
            Kind::ResponseUnknown => (404, "response_not_found", Downstream, false),
            Kind::RequestUnknown => (404, "request_not_found", Downstream, false),
            Kind::Refused => (403, "refused_by_policy", Downstream, false),
            Kind::Internal => (500, "internal_error", Internal, true),
        };
        Row { status, code, fault, retryable }
    }
}

/// The code of a head that is refused with `status`.
fn grammar_code(status: u16) -> &'static str {
    match status {
        408 => "request_timeout",
        414 => "uri_too_long",
        417 => "expectation_failed",
        431 => "headers_too_large",
        501 => "not_implemented",
        505 => "http_version_not_supported",
        _ => "bad_request",
    }
}

/// An error that ends a request, as a value.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    /// For the client: what was found and what is allowed.
    pub detail: Cow<'static, str>,
    /// For the operator: what lies behind it. It may name addresses, never a secret.
    pub cause: Option<Box<str>>,
    /// Seconds after which a retry makes sense.
    pub retry_after_s: Option<u32>,
    /// The field of the request that is at fault, for dialects that name it.
    pub param: Option<&'static str>,
    /// The methods that the path allows, for a 405.
    pub allow: Option<Cow<'static, str>>,
}

impl Error {
    /// An error of `kind`, told to the client as `detail`.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, detail: detail.into(), cause: None, retry_after_s: None, param: None, allow: None }
    }

    /// The same error with what lies behind it.
    pub fn cause(mut self, cause: Option<String>) -> Error {
        self.cause = cause.map(String::into_boxed_str);
        self
    }

    /// The same error with the seconds after which a retry makes sense.
    pub fn retry_after_s(mut self, seconds: u32) -> Error {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same error with the methods that the path allows.
    pub fn allow(mut self, methods: impl Into<Cow<'static, str>>) -> Error {
        self.allow = Some(methods.into());
        self
    }

    /// The same error with the request's field that is at fault.
    pub fn param(mut self, param: &'static str) -> Error {
        self.param = Some(param);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.row().code, self.detail)
    }
}

impl std::error::Error for Error {}
