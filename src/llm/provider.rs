//! Providers: who is called, where, with which credential, and which dialects it speaks.
//!
//! A provider joins a client's path to its base URL by these rules (`Provider::path_for`,
//! `Provider::passthrough_path`). A surface's path starts with `/v1`; that part is replaced by the base URL's
//! own path:
//!
//! | base URL | `/v1/chat/completions` becomes |
//! | --- | --- |
//! | `https://api.openai.com/v1` | `/v1/chat/completions` |
//! | `https://host/openai/v1` | `/openai/v1/chat/completions` |
//! | `https://host/api/v4` | `/api/v4/chat/completions` |
//!
//! A base URL without a path means `/v1`. Kind `anthropic` names its base without `/v1`, as its SDKs do: it
//! is added where the base does not end in it. A slash at the end of the base URL changes nothing.
//!
//! The built-in provider (kind `mock`) is not called over the network: it has no base URL and no origin.
//! Absent: quirks and error maps of vendors; request signing. They come with the catalogue.

use crate::base::secret::Secret;
use std::fmt;
use std::time::Duration;

/// Which provider this is: decides dialects, auth header and path rule unless the config says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    OpenAi,
    Anthropic,
    /// The provider that is built in: answers by itself, deterministically.
    Mock,
}

impl ProviderKind {
    /// The value of `kind` in the config.
    pub fn name(self) -> &'static str {
        match self {
            ProviderKind::OpenAi => "openai",
            ProviderKind::Anthropic => "anthropic",
            ProviderKind::Mock => "mock",
        }
    }

    /// The dialects that it speaks unless the config says otherwise.
    pub fn dialects(self) -> DialectSet {
        match self {
            ProviderKind::OpenAi => DialectSet { chat: true, responses: true, messages: false },
            ProviderKind::Anthropic => DialectSet { chat: false, responses: false, messages: true },
            ProviderKind::Mock => DialectSet { chat: true, responses: true, messages: true },
        }
    }

    /// How it takes its credential unless the config says otherwise.
    pub fn auth(self) -> AuthStyle {
        match self {
            ProviderKind::OpenAi | ProviderKind::Mock => AuthStyle::Bearer,
            ProviderKind::Anthropic => AuthStyle::XApiKey,
        }
    }
}

/// Which dialects a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DialectSet {
    /// OpenAI chat completions, and with them completions and embeddings.
    pub chat: bool,
    /// OpenAI Responses.
    pub responses: bool,
    /// Anthropic Messages.
    pub messages: bool,
}

impl DialectSet {
    /// The words of the config for those in the set.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.chat, "chat"), (self.responses, "responses"), (self.messages, "messages")];
        all.into_iter().filter(|(spoken, _)| *spoken).map(|(_, name)| name).collect()
    }
}

/// The header that carries a provider's credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStyle {
    /// `authorization: Bearer CREDENTIAL`.
    Bearer,
    /// `x-api-key: CREDENTIAL`.
    XApiKey,
    /// `api-key: CREDENTIAL`.
    ApiKey,
    /// `x-goog-api-key: CREDENTIAL`.
    XGoogApiKey,
}

impl AuthStyle {
    /// The header's name in lower case.
    pub fn header(self) -> &'static str {
        match self {
            AuthStyle::Bearer => "authorization",
            AuthStyle::XApiKey => "x-api-key",
            AuthStyle::ApiKey => "api-key",
            AuthStyle::XGoogApiKey => "x-goog-api-key",
        }
    }

    /// The header's value for `credential`.
    pub fn value(self, credential: &Secret) -> Secret {
        match self {
            AuthStyle::Bearer => Secret::new([b"Bearer ", credential.expose_secret()].concat()),
            AuthStyle::XApiKey | AuthStyle::ApiKey | AuthStyle::XGoogApiKey => credential.clone(),
        }
    }
}

/// A header that goes with every call. Its value is never printed: it may be a credential.
#[derive(Clone, Debug)]
pub struct StaticHeader {
    /// In lower case.
    pub name: Box<str>,
    pub value: Secret,
}

/// How long one call may take once it has a connection, step by step. Zero: no limit. Getting the connection
/// has its own (`net::upstream`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// From the last byte of the request to the end of the answer's head. Default 600 s: a model that does
    /// not stream answers when it has finished.
    pub response_head: Duration,
    /// Between two reads of the answer's body. Default 300 s.
    pub idle: Duration,
    /// While the provider takes no byte of the request. Default 60 s.
    pub write: Duration,
    /// The whole exchange. Default: none, since a stream may run for hours.
    pub total: Duration,
}

impl Default for UpstreamTimeouts {
    fn default() -> UpstreamTimeouts {
        UpstreamTimeouts {
            response_head: Duration::from_secs(600),
            idle: Duration::from_secs(300),
            write: Duration::from_secs(60),
            total: Duration::ZERO,
        }
    }
}

/// Plain or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

/// A base URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    pub scheme: Scheme,
    /// Name or address, in lower case; IPv6 without its brackets.
    pub host: Box<str>,
    pub port: u16,
    /// Empty, or starts with `/` and does not end with it.
    pub path: Box<str>,
}

/// Why a base URL is refused: what was found and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlError(pub String);

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BaseUrl {
    /// Reads `http[s]://host[:port][/path]`. Errors: any other form, user info, query, fragment, a port out
    /// of range.
    pub fn new(text: &str) -> Result<BaseUrl, UrlError> {
        // A text with an @ or a query may hold a credential, so it is not shown.
        let shown = if text.contains(['@', '?']) { "this URL" } else { text };
        let refuse = |why: &str| Err(UrlError(format!("{} is not allowed: {why}", shown.escape_debug())));
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            _ => return refuse("a URL must start with http:// or https://"),
        };
        if text.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'\\') {
            return refuse("a URL has only visible ASCII characters");
        }
        if rest.contains(['?', '#']) {
            return refuse("a base URL has no query and no fragment");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return refuse("credentials do not belong in a URL; use api_key");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, port),
                _ => return refuse("what stands in [ ] must be an IPv6 address"),
            },
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match (port.strip_prefix(':'), scheme) {
            (None, _) if !port.is_empty() => return refuse("after ] comes :port or nothing"),
            (None, Scheme::Http) => 80,
            (None, Scheme::Https) => 443,
            (Some(port), _) => match port.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return refuse("a port is a number from 1 to 65535"),
            },
        };
        let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(host_byte) {
            return refuse("a host is a name or an address");
        }
        let path = path.trim_end_matches('/').into();
        Ok(BaseUrl { scheme, host: host.to_ascii_lowercase().into(), port, path })
    }

    /// The value of the `host` header: the port is left out where it is the scheme's own.
    pub fn host_header(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// One provider, ready to be called.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Place in `Snapshot::providers`.
    pub index: u32,
    /// Unique; stands in logs and metrics.
    pub name: Box<str>,
    pub kind: ProviderKind,
    /// Where it is; none for kind `mock`.
    pub base: Option<BaseUrl>,
    /// Index into `Snapshot::origins`; none for kind `mock`.
    pub origin: Option<u32>,
    /// Header and value that carry the credential, ready to write; none: the provider wants none.
    pub credential: Option<StaticHeader>,
    pub dialects: DialectSet,
    /// Go with every call and replace a client's header of the same name.
    pub headers: Box<[StaticHeader]>,
    /// Value of the `host` header; empty for kind `mock`.
    pub host_header: Box<str>,
    pub timeouts: UpstreamTimeouts,
    /// What stands for `/v1` of a surface's path.
    versioned_prefix: Box<str>,
}

impl Provider {
    /// A provider with the defaults of its kind, without credential and origin.
    pub fn new(name: &str, kind: ProviderKind, base: Option<BaseUrl>) -> Provider {
        let path = base.as_ref().map_or("", |base| &base.path);
        let versioned_prefix = match kind {
            ProviderKind::Anthropic if !path.ends_with("/v1") => format!("{path}/v1"),
            _ if path.is_empty() => "/v1".to_string(),
            _ => path.to_string(),
        };
        Provider {
            index: 0,
            name: name.into(),
            kind,
            origin: None,
            credential: None,
            dialects: kind.dialects(),
            headers: Box::default(),
            host_header: base.as_ref().map(BaseUrl::host_header).unwrap_or_default().into(),
            timeouts: UpstreamTimeouts::default(),
            versioned_prefix: versioned_prefix.into(),
            base,
        }
    }

    /// The path to ask for where the client asked the surface at `surface_path` (it starts with `/v1/`; no
    /// query).
    pub fn path_for(&self, surface_path: &str) -> String {
        let rest = surface_path.strip_prefix("/v1").unwrap_or(surface_path);
        [&*self.versioned_prefix, rest].concat()
    }

    /// The path to ask for where `rest` (it starts with `/`; no query) came after the prefix of a
    /// pass-through route. A version that stands at the end of the base URL and at the start of `rest` is not
    /// doubled.
    pub fn passthrough_path(&self, rest: &str) -> String {
        let path = self.base.as_ref().map_or("", |base| &base.path);
        let version = path.rfind('/').map_or("", |at| &path[at..]);
        match rest.strip_prefix(version) {
            Some(after) if is_version(version) && (after.is_empty() || after.starts_with('/')) => {
                [path, after].concat()
            }
            _ => [path, rest].concat(),
        }
    }
}

/// `/v1`, `/v1beta`, `/v4`: a slash, a `v` and a digit.
fn is_version(segment: &str) -> bool {
    matches!(segment.as_bytes(), [b'/', b'v', digit, ..] if digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{AuthStyle, BaseUrl, Provider, ProviderKind, Scheme};
    use crate::base::secret::Secret;

    fn provider(kind: ProviderKind, base: &str) -> Provider {
        Provider::new("p", kind, Some(BaseUrl::new(base).unwrap()))
    }

    #[test]
    fn a_surface_path_is_joined_to_the_base_url() {
        use ProviderKind::{Anthropic, OpenAi};
        // kind, base URL, path that the client asked, path that the provider is asked
        let rows = [
            (OpenAi, "https://api.openai.com/v1", "/v1/chat/completions", "/v1/chat/completions"),
            (OpenAi, "https://api.openai.com/v1/", "/v1/embeddings", "/v1/embeddings"),
            (OpenAi, "https://host/openai/v1", "/v1/chat/completions", "/openai/v1/chat/completions"),
            (OpenAi, "https://host/api/paas/v4", "/v1/chat/completions", "/api/paas/v4/chat/completions"),
            (OpenAi, "http://127.0.0.1:8000", "/v1/completions", "/v1/completions"),
            (OpenAi, "http://127.0.0.1:8000/", "/v1/responses/resp_1/cancel", "/v1/responses/resp_1/cancel"),
            (Anthropic, "https://api.anthropic.com", "/v1/messages", "/v1/messages"),
            (
                Anthropic,
                "https://api.anthropic.com/v1",
                "/v1/messages/count_tokens",
                "/v1/messages/count_tokens",
            ),
            (Anthropic, "https://host/anthropic/", "/v1/messages", "/anthropic/v1/messages"),
        ];
        for (kind, base, asked, path) in rows {
            assert_eq!(provider(kind, base).path_for(asked), path, "{base} {asked}");
        }
    }

    #[test]
    fn a_passthrough_path_does_not_double_the_version() {
        // base URL, what came after the route's prefix, path that the provider is asked
        let rows = [
            ("https://api.openai.com/v1", "/v1/files", "/v1/files"),
            ("https://api.openai.com/v1", "/files", "/v1/files"),
            ("https://api.openai.com/v1", "/v1", "/v1"),
            ("https://api.openai.com/v1", "/v1beta/x", "/v1/v1beta/x"),
            ("https://host", "/v1/files", "/v1/files"),
            ("https://host/openai", "/openai/x", "/openai/openai/x"),
        ];
        for (base, rest, path) in rows {
            assert_eq!(provider(ProviderKind::OpenAi, base).passthrough_path(rest), path, "{base} {rest}");
        }
    }

    #[test]
    fn a_base_url_is_split() {
        // text, scheme, host, port, path, host header
        let rows = [
            ("https://API.openai.com/v1", Scheme::Https, "api.openai.com", 443, "/v1", "api.openai.com"),
            ("http://[::1]:8000/x/", Scheme::Http, "::1", 8000, "/x", "[::1]:8000"),
            ("HTTP://10.0.0.1", Scheme::Http, "10.0.0.1", 80, "", "10.0.0.1"),
            ("https://h:80", Scheme::Https, "h", 80, "", "h:80"),
        ];
        for (text, scheme, host, port, path, header) in rows {
            let url = BaseUrl::new(text).unwrap();
            assert_eq!((url.scheme, &*url.host, url.port, &*url.path), (scheme, host, port, path), "{text}");
            assert_eq!(url.host_header(), header);
        }
    }

    #[test]
    fn a_base_url_of_another_form_is_refused() {
        let texts = [
            "api.openai.com/v1",
            "ftp://host",
            "https://",
            "https:///v1",
            "https://user:pass@host",
            "https://host?key=1",
            "https://host/#x",
            "https://host:0",
            "https://host:65536",
            "https://host:",
            "https://[::1",
            "https://[host]",
            "https://[::1]8000",
            "https://ho st",
            "https://host/a b",
            "https://h\u{f6}st",
            "https://host\r\nx",
        ];
        for text in texts {
            let error = BaseUrl::new(text).unwrap_err();
            assert!(error.0.contains("is not allowed") && !error.0.contains("pass"), "{text}: {error}");
        }
    }

    #[test]
    fn each_auth_style_writes_its_header() {
        let secret = Secret::new("sk-1");
        let written = |style: AuthStyle| (style.header(), style.value(&secret).expose_secret().to_vec());
        assert_eq!(written(AuthStyle::Bearer), ("authorization", b"Bearer sk-1".to_vec()));
        assert_eq!(written(AuthStyle::XApiKey), ("x-api-key", b"sk-1".to_vec()));
    }
}
