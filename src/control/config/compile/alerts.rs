//! Who is told of alerts.

use crate::base::secret::Secret;
use crate::control::config::compile::Context;
use crate::control::config::compile::provider::{client_tls, header_value, is_near};
use crate::control::config::problem::quoted;
use crate::control::config::raw;
use crate::control::config::sources::At;
use crate::handler::snapshot::{Baseline, Webhook};
use crate::net::tls::ClientSide;
use http::Uri;
use http::uri::Scheme;
use rustls_pki_types::ServerName;

pub fn baseline(raw: &raw::Baseline) -> Baseline {
    match raw.mode {
        raw::BaselineMode::Off => Baseline::Off,
        raw::BaselineMode::Shadow => Baseline::Shadow,
        raw::BaselineMode::Alert => Baseline::Alert,
    }
}

pub fn webhook(context: &mut Context<'_>) -> Option<Webhook> {
    let sources = context.sources;
    let raw = &sources.raw.alerts;
    let at = sources.main("alerts");
    let token = raw.token.as_ref().and_then(|token| context.credential(&at.key("token"), token));
    let at_url = at.key("webhook");
    let Some(url) = &raw.webhook else {
        if raw.token.is_some() || raw.tls.is_some() {
            context.error(at, "there is no webhook; add webhook = \"https://...\" or remove the other keys");
        }
        return None;
    };
    let url = header_value(context, &at_url, url)?;
    let parsed = std::str::from_utf8(url.expose_secret()).ok().and_then(|text| text.parse::<Uri>().ok());
    let Some((host, is_tls, uri)) = parsed.as_ref().and_then(address) else {
        // Not said back: the path may be what protects it.
        context.error(at_url, "this is no URL, allowed: one such as \"https://alerts.example/hook\"");
        return None;
    };
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    if !is_tls && !is_near(host) {
        let message = format!("alerts go to {} without TLS: who listens on the way reads them", quoted(host));
        context.warn(at_url.clone(), message);
    }
    let tls = if is_tls { Some(tls(context, &at, &at_url, host)?) } else { None };
    if !is_tls && raw.tls.is_some() {
        let message = "webhook starts with http://, so there is no TLS; use https:// or remove tls";
        context.error(at.key("tls"), message);
    }
    Some(Webhook {
        host: host.into(),
        authority: uri.authority().map_or(host, |authority| authority.as_str()).into(),
        target: Secret::new(uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes()),
        addresses: context.surroundings.addresses(host, port),
        token,
        tls,
    })
}

/// The host, whether TLS is spoken with it, and the rest; none: it is no URL that can be called.
fn address(uri: &Uri) -> Option<(&str, bool, &Uri)> {
    let is_tls = match uri.scheme()? {
        scheme if *scheme == Scheme::HTTPS => true,
        scheme if *scheme == Scheme::HTTP => false,
        _ => return None,
    };
    let authority = uri.authority()?;
    let is_plain = !authority.as_str().contains('@') && !authority.host().is_empty();
    is_plain.then(|| (authority.host(), is_tls, uri))
}

fn tls(
    context: &mut Context<'_>,
    at: &At,
    at_url: &At,
    host: &str,
) -> Option<(ClientSide, ServerName<'static>)> {
    let ca = context.sources.raw.alerts.tls.as_ref().and_then(|tls| tls.ca.as_deref());
    let tls = client_tls(context, at, at_url, ca, host)?;
    Some((tls.side, tls.name))
}
