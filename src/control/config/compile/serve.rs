//! Where clients and operators connect, and the plain sections: server, limit, timeout, relay, log,
//! ledger.

use crate::control::config::compile::Context;
use crate::control::config::problem::quoted;
use crate::control::config::raw;
use crate::control::config::sources::At;
use crate::handler::snapshot::{
    AccessLog, Admin, AdminAddress, AdminTls, DownstreamTimeouts, Limits, Listener, Log, Relay, Server,
    Workers,
};
use crate::net::runtime::Wish;
use crate::net::tls::{MinVersion, Pem, ServerSide};
use crate::usage::ledger;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Bytes that an admin token has at least: 16 random characters cannot be guessed over a network.
const TOKEN_BYTES_MIN: usize = 16;

/// What a client is offered after its TLS handshake.
const ALPN: [&str; 1] = ["http/1.1"];

pub fn server(raw: &raw::Server) -> Server {
    Server {
        workers: match raw.workers {
            raw::Workers::Auto(_) => Workers::Auto,
            raw::Workers::Count(count) => Workers::Count(count),
        },
        driver: match raw.driver {
            raw::Driver::Auto => Wish::Any,
            raw::Driver::Ring => Wish::Ring,
            raw::Driver::Epoll => Wish::Epoll,
        },
        drain_timeout: Duration::from_millis(raw.drain_timeout_ms),
    }
}

pub fn listeners(context: &mut Context<'_>) -> Vec<Listener> {
    let sources = context.sources;
    let mut listeners: Vec<Listener> = Vec::new();
    for (index, raw) in sources.raw.listener.iter().enumerate() {
        let at = sources.main("listener").at(index);
        let tls =
            raw.tls.as_ref().and_then(|tls| server_tls(context, &at.key("tls"), &tls.cert, &tls.key, None));
        let Some(address) = address(context, &at.key("address"), &raw.address) else { continue };
        let earlier = &sources.raw.listener[..index];
        let same = |other: &raw::Listener| address.port() != 0 && other.address.parse() == Ok(address);
        if let Some(first) = earlier.iter().position(same) {
            let message = format!("{address} is the address of listener[{first}] already");
            context.error(at.key("address"), message);
        }
        listeners.push(Listener { address, tls });
    }
    if sources.raw.listener.is_empty() && sources.is_whole() {
        let message = "no [[listener]], at least one is needed: address = \"127.0.0.1:8080\"";
        context.error(sources.main("listener"), message);
    }
    listeners
}

pub fn admin(context: &mut Context<'_>) -> Option<Admin> {
    let sources = context.sources;
    let raw = sources.raw.admin.as_ref()?;
    let at = sources.main("admin");
    let token = raw.token.as_ref().and_then(|token| context.credential(&at.key("token"), token));
    let length = token.as_ref().map(|token| token.expose_secret().len());
    if let Some(length) = length.filter(|&length| length < TOKEN_BYTES_MIN) {
        let message = format!("the token has {length} bytes, allowed: at least {TOKEN_BYTES_MIN}");
        context.error(at.key("token"), message);
    }
    let client_ca = raw.tls.as_ref().and_then(|tls| tls.client_ca.as_deref());
    let side =
        raw.tls.as_ref().and_then(|tls| server_tls(context, &at.key("tls"), &tls.cert, &tls.key, client_ca));
    let tls = side.map(|side| AdminTls { side, wants_certificate: client_ca.is_some() });
    if let Some(path) = raw.address.strip_prefix("unix:") {
        if path.is_empty() {
            context.error(at.key("address"), "\"unix:\" names no socket, allowed: \"unix:PATH\"");
        }
        if raw.tls.is_some() {
            context.error(
                at.key("tls"),
                "a socket file takes no TLS: only this user may open it; remove the key",
            );
        }
        let path = context.path(&at, path);
        return Some(Admin { address: AdminAddress::Unix(path), token, tls: None });
    }
    let address = address(context, &at.key("address"), &raw.address)?;
    let is_open = !address.ip().is_loopback();
    if is_open && raw.token.is_none() && client_ca.is_none() {
        let message = format!(
            "{address} can be reached by others and nothing protects it; use a loopback address or \
             \"unix:PATH\", or set token or tls.client_ca"
        );
        context.error(at.key("address"), message);
    }
    if is_open && raw.token.is_some() && raw.tls.is_none() {
        let message = format!("{address} takes the token without TLS: who listens on the way can use it");
        context.warn(at.key("address"), message);
    }
    if address.port() != 0
        && sources.raw.listener.iter().any(|listener| listener.address.parse() == Ok(address))
    {
        context.error(at.key("address"), format!("{address} is the address of a [[listener]] already"));
    }
    Some(Admin { address: AdminAddress::Tcp(address), token, tls })
}

pub fn limits(context: &mut Context<'_>) -> Limits {
    let raw = &context.sources.raw.limit;
    if raw.bodies_bytes_max < raw.body_bytes_max {
        let message = format!(
            "{} is less than limit.body_bytes_max ({}): no body of that size could be taken",
            raw.bodies_bytes_max, raw.body_bytes_max
        );
        context.error(context.sources.main("limit").key("bodies_bytes_max"), message);
    }
    Limits {
        head_bytes_max: raw.head_bytes_max,
        head_fields_max: raw.head_fields_max,
        body_bytes_max: raw.body_bytes_max,
        bodies_bytes_max: raw.bodies_bytes_max,
        upload_bytes_max: raw.upload_bytes_max,
        event_bytes_max: raw.event_bytes_max,
        connections_max: raw.connections_max,
        requests_per_connection_max: raw.requests_per_connection_max,
    }
}

pub fn timeouts(raw: &raw::File) -> DownstreamTimeouts {
    let ms = Duration::from_millis;
    DownstreamTimeouts {
        tls_handshake: ms(raw.timeout.tls_handshake_ms),
        request_head: ms(raw.timeout.request_head_ms),
        request_body: ms(raw.timeout.request_body_ms),
        keep_alive: ms(raw.timeout.keep_alive_ms),
        write: ms(raw.timeout.write_ms),
        total: ms(raw.timeout.total_ms),
        upload_bytes_per_s_min: raw.limit.upload_bytes_per_s_min,
    }
}

pub fn relay(raw: &raw::Relay) -> Relay {
    Relay { heartbeat: Duration::from_millis(raw.heartbeat_ms) }
}

pub fn log(context: &mut Context<'_>) -> Log {
    let at = context.sources.main("log").key("access");
    let access = match &context.sources.raw.log.access {
        raw::Access::Stdout => AccessLog::Stdout,
        raw::Access::Off => AccessLog::Off,
        raw::Access::File(written) => AccessLog::File(context.path(&at, written)),
    };
    Log { access }
}

pub fn ledger(context: &mut Context<'_>) -> Option<ledger::Settings> {
    let raw = context.sources.raw.ledger.as_ref()?;
    let directory = context.path(&context.sources.main("ledger").key("directory"), &raw.directory);
    let days = |days: u32| Duration::from_secs(u64::from(days) * 24 * 3600);
    Some(ledger::Settings {
        directory,
        commit_interval: Duration::from_millis(raw.commit_interval_ms),
        on_failure: match raw.on_failure {
            raw::OnFailure::Open => ledger::OnFailure::Open,
            raw::OnFailure::Closed => ledger::OnFailure::Closed,
        },
        slots: raw.records_waiting,
        segments_keep: days(raw.segments.keep_days),
        segments_bytes_max: raw.segments.bytes_max,
        rollups_keep: days(raw.rollups.keep_days),
    })
}

fn address(context: &mut Context<'_>, at: &At, text: &str) -> Option<SocketAddr> {
    let hint = match text.parse::<SocketAddr>() {
        Ok(address) => return Some(address),
        Err(_) if text.parse::<IpAddr>().is_ok() => format!("{} has no port", quoted(text)),
        Err(_) if text.starts_with(':') => format!("{} has no address", quoted(text)),
        Err(_) => format!("{} is not an IP address and port", quoted(text)),
    };
    context
        .error(at.clone(), format!("{hint}, allowed: \"127.0.0.1:8080\", \"0.0.0.0:8080\", \"[::]:8080\""));
    None
}

/// `client_ca`: the file of the authorities whose certificates callers may present.
fn server_tls(
    context: &mut Context<'_>,
    at: &At,
    cert: &str,
    key: &str,
    client_ca: Option<&str>,
) -> Option<ServerSide> {
    let (cert_at, key_at, ca_at) = (at.key("cert"), at.key("key"), at.key("client_ca"));
    let read =
        |context: &mut Context<'_>, at: &At, written| (context.path(at, written), context.file(at, written));
    let (cert_path, cert) = read(context, &cert_at, cert);
    let (key_path, key) = read(context, &key_at, key);
    let client_ca = client_ca.map(|written| read(context, &ca_at, written));
    let (cert, key) = (cert?, key?);
    let chain = Pem { path: &cert_path, text: &cert };
    let key = Pem { path: &key_path, text: &key };
    let side = match &client_ca {
        None => ServerSide::from_pem(chain, key, MinVersion::default(), &ALPN),
        Some((path, text)) => {
            let client_ca = Pem { path, text: text.as_ref()? };
            ServerSide::with_clients_of(client_ca, chain, key, MinVersion::default(), &ALPN)
        }
    };
    side.map_err(|error| {
        let at = match error.file.as_deref() {
            Some(file) if file == key_path => key_at,
            Some(file) if client_ca.as_ref().is_some_and(|(path, _)| file == path) => ca_at,
            _ => cert_at,
        };
        context.error(at, error.to_string());
    })
    .ok()
}
