//! Pass-through routes.

use crate::control::config::compile::{Context, model};
use crate::control::config::problem::quoted;
use crate::control::config::raw::Method;
use crate::control::config::sources::{At, List};
use crate::handler::snapshot::Passthrough;
use crate::llm::provider::{Provider, ProviderKind};

/// Paths that surfaces have, or that SDKs of other dialects ask: a pass-through that covered one would take
/// its requests away from key limits, routing and metering.
const SURFACES: [&str; 2] = ["/v1/", "/v1beta/"];

pub fn compile(context: &mut Context<'_>, providers: &[Provider]) -> Vec<Passthrough> {
    let sources = context.sources;
    let mut routes: Vec<Passthrough> = Vec::new();
    for (index, raw) in sources.raw.passthrough.iter().enumerate() {
        let at = sources.entry(List::Passthrough, index);
        path(context, &at.key("path"), &raw.path);
        if routes.iter().any(|other| *other.path == *raw.path) {
            context.error(
                at.key("path"),
                format!("{} is the path of another [[passthrough]]", quoted(&raw.path)),
            );
        }
        let provider = provider(context, &at.key("provider"), &raw.provider, providers);
        for (place, prefix) in raw.prefixes.iter().flatten().enumerate() {
            if !prefix.starts_with('/') || !is_plain(prefix) {
                let message = format!(
                    "{} is not allowed, allowed: a path that starts with / and has no .. ? # %",
                    quoted(prefix)
                );
                context.error(at.key("prefixes").at(place), message);
            }
        }
        let prefixes = raw.prefixes.iter().flatten();
        routes.push(Passthrough {
            path: raw.path.as_str().into(),
            provider: provider.unwrap_or_default(),
            methods: raw.methods.iter().flatten().map(|&method| self::method(method)).collect(),
            prefixes: prefixes.map(|prefix| prefix.trim_end_matches('/').into()).collect(),
        });
    }
    routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    routes
}

fn path(context: &mut Context<'_>, at: &At, path: &str) {
    if path.len() < 3
        || !path.starts_with('/')
        || !path.ends_with('/')
        || path.contains("//")
        || !is_plain(path)
    {
        let allowed = "a path such as \"/openai/\" that starts and ends with / and has no .. ? # %";
        context.error(at.clone(), format!("{} is not allowed, allowed: {allowed}", quoted(path)));
        return;
    }
    if let Some(surface) = SURFACES.iter().find(|surface| path.starts_with(**surface)) {
        let message = format!(
            "{} covers paths of the surface {surface}; use a path of its own such as \"/openai/\" and let \
             clients set it in their base URL",
            quoted(path)
        );
        context.error(at.clone(), message);
    }
}

fn provider(context: &mut Context<'_>, at: &At, name: &str, providers: &[Provider]) -> Option<u32> {
    let Some(provider) = providers.iter().find(|provider| *provider.name == *name) else {
        let names = providers.iter().map(|provider| &*provider.name);
        context.error(at.clone(), model::no_provider(name, names));
        return None;
    };
    if provider.kind == ProviderKind::Mock {
        let message =
            format!("{} is built in and has no paths of its own; name another provider", quoted(name));
        context.error(at.clone(), message);
    }
    Some(provider.index)
}

fn method(raw: Method) -> http::Method {
    match raw {
        Method::Get => http::Method::GET,
        Method::Head => http::Method::HEAD,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Patch => http::Method::PATCH,
        Method::Delete => http::Method::DELETE,
        Method::Options => http::Method::OPTIONS,
    }
}

fn is_plain(path: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%' | b'\\' | b'"');
    path.bytes().all(fits) && path.split('/').all(|part| part != "." && part != "..")
}
