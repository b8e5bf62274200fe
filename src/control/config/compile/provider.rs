//! Providers and the origins under which they are reached.

use crate::base::secret::Secret;
use crate::control::config::compile::Context;
use crate::control::config::problem::quoted;
use crate::control::config::raw;
use crate::control::config::sources::{At, List};
use crate::handler::snapshot::Snapshot;
use crate::llm::provider::{
    AuthStyle, BaseUrl, DialectSet, Provider, ProviderKind, Scheme, StaticHeader, UpstreamTimeouts,
};
use crate::net::tls::{ClientSide, MinVersion, Pem, Roots, server_name};
use crate::net::upstream::{Limits, Origin, Proxy, Settings, Timeouts, Tls};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub fn compile(context: &mut Context<'_>) -> (Vec<Provider>, Vec<Arc<Origin>>) {
    let sources = context.sources;
    let (mut providers, mut origins): (Vec<Provider>, Vec<Arc<Origin>>) = (Vec::new(), Vec::new());
    let mut named: HashMap<&str, usize> = HashMap::new();
    for (index, raw) in sources.raw.provider.iter().enumerate() {
        let at = sources.entry(List::Provider, index);
        context.name(&at, &raw.name);
        if let Some(first) = named.insert(&raw.name, index) {
            let first = sources.refer(&sources.entry(List::Provider, first).key("name"));
            context.error(
                at.key("name"),
                format!("{} is the name of the provider at {first}", quoted(&raw.name)),
            );
        }
        let base = base(context, &at, raw);
        let mut provider = Provider::new(&raw.name, kind(raw.kind), base);
        provider.index = index as u32;
        provider.dialects = raw.dialects.as_deref().map_or(provider.kind.dialects(), dialects);
        provider.credential = credential(context, &at, raw, &provider);
        provider.headers = headers(context, &at, raw, &provider);
        provider.timeouts = timeouts(raw, &sources.raw.timeout);
        if let Some(base) = &provider.base {
            provider.origin = Some(origins.len() as u32);
            origins.push(Arc::new(origin(context, &at, raw, base)));
        }
        providers.push(provider);
    }
    (providers, origins)
}

/// Warns of providers that nothing leads to.
pub fn unused(context: &mut Context<'_>, snapshot: &Snapshot) {
    // Routes with an error compile to none at all, and what is at fault may be what was to lead here.
    if context.has_errors() {
        return;
    }
    let targets = snapshot.routes.all().iter().flat_map(|route| &route.targets).map(|target| target.provider);
    let passed = snapshot.passthroughs.iter().map(|route| route.provider);
    let used: HashSet<u32> = targets.chain(passed).collect();
    for provider in snapshot.providers.iter().filter(|provider| !used.contains(&provider.index)) {
        let at = context.sources.entry(List::Provider, provider.index as usize);
        context.warn(at, "no [[model]] and no [[passthrough]] leads to this provider");
    }
}

fn kind(raw: raw::Kind) -> ProviderKind {
    match raw {
        raw::Kind::OpenAi => ProviderKind::OpenAi,
        raw::Kind::Anthropic => ProviderKind::Anthropic,
        raw::Kind::Mock => ProviderKind::Mock,
    }
}

fn dialects(raw: &[raw::Dialect]) -> DialectSet {
    DialectSet {
        chat: raw.contains(&raw::Dialect::Chat),
        responses: raw.contains(&raw::Dialect::Responses),
        messages: raw.contains(&raw::Dialect::Messages),
    }
}

fn base(context: &mut Context<'_>, at: &At, raw: &raw::Provider) -> Option<BaseUrl> {
    let is_mock = matches!(raw.kind, raw::Kind::Mock);
    match &raw.base_url {
        Some(_) if is_mock => {
            let message =
                "kind \"mock\" is built in and is called nowhere; remove base_url, or use another kind";
            context.error(at.key("base_url"), message);
            None
        }
        None if is_mock => None,
        None => {
            let example = match raw.kind {
                raw::Kind::Anthropic => "https://api.anthropic.com",
                _ => "https://api.openai.com/v1",
            };
            context.error(at.key("base_url"), format!("missing; allowed: a URL such as \"{example}\""));
            None
        }
        Some(text) => match BaseUrl::new(text) {
            Ok(base) => Some(base),
            Err(error) => {
                context.error(at.key("base_url"), error.to_string());
                None
            }
        },
    }
}

fn credential(
    context: &mut Context<'_>,
    at: &At,
    raw: &raw::Provider,
    provider: &Provider,
) -> Option<StaticHeader> {
    let style = match raw.auth {
        None => provider.kind.auth(),
        Some(raw::Auth::Bearer) => AuthStyle::Bearer,
        Some(raw::Auth::XApiKey) => AuthStyle::XApiKey,
        Some(raw::Auth::ApiKey) => AuthStyle::ApiKey,
        Some(raw::Auth::XGoogApiKey) => AuthStyle::XGoogApiKey,
    };
    let Some(api_key) = &raw.api_key else {
        if raw.auth.is_some() {
            context.error(
                at.key("auth"),
                "auth says how api_key is sent, but there is none; add api_key or remove auth",
            );
        }
        return None;
    };
    if provider.kind == ProviderKind::Mock {
        context.error(at.key("api_key"), "kind \"mock\" is built in and takes no credential; remove api_key");
        return None;
    }
    if let Some(base) =
        provider.base.as_ref().filter(|base| base.scheme == Scheme::Http && !is_near(&base.host))
    {
        let message =
            format!("the credential goes to {} without TLS: who listens on the way can use it", base.host);
        context.warn(at.key("base_url"), message);
    }
    let secret = context.credential(&at.key("api_key"), api_key)?;
    Some(StaticHeader { name: style.header().into(), value: style.value(&secret) })
}

/// Loopback, private and link-local addresses, and names without a dot: not across the internet.
pub(super) fn is_near(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => !host.contains('.') || host.ends_with(".local") || host.ends_with(".internal"),
    }
}

/// Headers that we write ourselves or that belong to one connection.
const HEADERS_OWN: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn headers(
    context: &mut Context<'_>,
    at: &At,
    raw: &raw::Provider,
    provider: &Provider,
) -> Box<[StaticHeader]> {
    let mut headers: Vec<StaticHeader> = Vec::new();
    for (written, value) in &raw.headers {
        let at = at.key("headers").key(written);
        let name = written.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            context.error(at, "this is not a header's name, allowed: letters, digits and - _ . !");
            continue;
        }
        if HEADERS_OWN.contains(&&*name) {
            context.error(at, "the gateway writes this header itself; remove it");
            continue;
        }
        let credential = raw.api_key.as_ref().and(provider.credential.as_ref());
        if credential.is_some_and(|credential| *credential.name == *name) {
            context.error(at, "this header carries api_key; remove one of them");
            continue;
        }
        if headers.iter().any(|other| *other.name == *name) {
            context.error(at, "this header stands here twice; names are compared without case");
            continue;
        }
        if let Some(value) = header_value(context, &at, value) {
            headers.push(StaticHeader { name: name.into(), value });
        }
    }
    headers.into_boxed_slice()
}

pub(super) fn header_value(context: &mut Context<'_>, at: &At, raw: &raw::HeaderValue) -> Option<Secret> {
    match raw {
        raw::HeaderValue::From(credential) => context.credential(at, credential),
        raw::HeaderValue::Literal(text) => {
            let fits = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text;
            if !fits {
                let allowed = "visible ASCII in one line, without spaces at its ends";
                context.error(at.clone(), format!("a header cannot carry this value, allowed: {allowed}"));
                return None;
            }
            Some(Secret::new(text.as_bytes()))
        }
    }
}

fn timeouts(raw: &raw::Provider, shared: &raw::Timeout) -> UpstreamTimeouts {
    let own = raw.timeout.as_ref();
    let ms = |own: Option<u64>, shared: u64| Duration::from_millis(own.unwrap_or(shared));
    UpstreamTimeouts {
        response_head: ms(own.and_then(|own| own.response_head_ms), shared.response_head_ms),
        idle: ms(own.and_then(|own| own.idle_ms), shared.idle_ms),
        write: ms(own.and_then(|own| own.write_ms), shared.write_ms),
        total: ms(own.and_then(|own| own.total_ms), shared.total_ms),
    }
}

fn origin(context: &mut Context<'_>, at: &At, raw: &raw::Provider, base: &BaseUrl) -> Origin {
    let shared = &context.sources.raw.timeout;
    let own = raw.timeout.as_ref();
    let ms = |own: Option<u64>, shared: u64| Duration::from_millis(own.unwrap_or(shared));
    let limits = Limits {
        connections_max: raw.connections_max,
        idle_max: raw.idle_connections_max,
        idle_timeout: Duration::from_millis(raw.idle_timeout_ms),
        queue_max: raw.queue_max,
        queue_timeout: ms(own.and_then(|own| own.queue_ms), shared.queue_ms),
    };
    let timeouts = Timeouts {
        connect: ms(own.and_then(|own| own.connect_ms), shared.connect_ms),
        tls_handshake: ms(own.and_then(|own| own.tls_handshake_ms), shared.tls_handshake_ms),
    };
    let proxy = raw.proxy.as_ref().and_then(|text| proxy(context, &at.key("proxy"), text));
    let ca = raw.tls.as_ref().and_then(|tls| tls.ca.as_deref());
    let tls = match base.scheme {
        Scheme::Https => client_tls(context, at, &at.key("base_url"), ca, &base.host),
        Scheme::Http => {
            if ca.is_some() {
                let message = "base_url starts with http://, so there is no TLS; use https:// or remove tls";
                context.error(at.key("tls").key("ca"), message);
                // All that is wrong is told at once: the file too.
                client_tls(context, at, &at.key("base_url"), ca, &base.host);
            }
            None
        }
    };
    let addresses = context.surroundings.addresses(&base.host, base.port);
    let (name, host) = (raw.name.clone(), base.host.to_string());
    Origin::new(Settings { name, host, port: base.port, addresses, proxy, tls, limits, timeouts })
}

fn proxy(context: &mut Context<'_>, at: &At, text: &str) -> Option<Proxy> {
    let base = match BaseUrl::new(text) {
        Ok(base) => base,
        Err(error) => {
            context.error(at.clone(), error.to_string());
            return None;
        }
    };
    if base.scheme == Scheme::Https || !base.path.is_empty() {
        context.error(at.clone(), format!("{} is not allowed, allowed: \"http://HOST:PORT\"", quoted(text)));
        return None;
    }
    let addresses = context.surroundings.addresses(&base.host, base.port);
    Some(Proxy { host: base.host.to_string(), port: base.port, addresses, credential: None })
}

/// How TLS is spoken with `host`: its certificate comes from an authority in the file `ca`, or else from one
/// that the system trusts. None: told, and such a snapshot never runs.
pub(super) fn client_tls(
    context: &mut Context<'_>,
    at: &At,
    at_url: &At,
    ca: Option<&str>,
    host: &str,
) -> Option<Tls> {
    let name = server_name(host);
    let name = name.map_err(|error| context.error(at_url.clone(), error.to_string())).ok()?;
    let Some(ca) = ca else {
        let side = ClientSide::new(Roots::System, MinVersion::default(), &[]);
        let side = side.map_err(|error| context.lacking(at_url.clone(), error.to_string())).ok()?;
        return Some(Tls { side, name, settings_digest: [0; 32] });
    };
    let at = at.key("tls").key("ca");
    let text = context.file(&at, ca)?;
    let path = context.path(&at, ca);
    let side = ClientSide::new(Roots::Pem(Pem { path: &path, text: &text }), MinVersion::default(), &[]);
    let side = side.map_err(|error| context.error(at, error.to_string())).ok()?;
    Some(Tls { side, name, settings_digest: Sha256::digest(&text).into() })
}
