//! The steps of a request before any upstream is asked: who asks, what, in which dialect, for which model.
//!
//! Each function is one step of `llm::ask` and gives a value or the error that the client is told. The body
//! is read once: `Dialect::peek` checks the whole of it strictly and finds the few fields on the way.

use crate::base::clock;
use crate::base::error::{Error, Kind};
use crate::codec::http1::RequestHead;
use crate::handler::llm::{Call, Stop};
use crate::handler::reply::quoted;
use crate::handler::surface::Surface;
use crate::llm::dialect::{Dialect, Peek};
use crate::net::allowance::Permit;
use crate::net::downstream::{BodyError, Downstream};
use crate::policy::auth::Key;
use crate::policy::exchange::Step;
use crate::policy::route::Route;
use http::HeaderMap;
use std::rc::Rc;

/// What a request with a body asks for.
pub struct Asked {
    /// The model's name as the client said it.
    pub model: Rc<str>,
    pub peek: Peek,
    /// The usage chunk was asked for by us: it is hidden from the client.
    pub hide_usage: bool,
}

/// The dialect of errors and lists on `surface`. Some paths are the same in both families.
pub fn dialect(surface: Surface<'_>, head: &RequestHead) -> Dialect {
    let is_of_both = matches!(surface, Surface::Models | Surface::Model(_) | Surface::Usage(_));
    if is_of_both && head.headers.contains_key(ANTHROPIC_VERSION) {
        return Dialect::Anthropic;
    }
    surface.dialect()
}

/// The dialect of an error: the exchange's, or, where no surface has given it one, what path and headers tell.
pub fn error_dialect(call: &Call<'_>) -> Dialect {
    let told = || Surface::dialect_at(call.head.uri.path());
    let by_header = || call.head.headers.contains_key(ANTHROPIC_VERSION).then_some(Dialect::Anthropic);
    call.exchange.dialect.or_else(told).or_else(by_header).unwrap_or(Dialect::OpenAiChat)
}

/// The caller's key, however its SDK sends it.
pub fn authenticate<'a>(call: &mut Call<'a>) -> Result<&'a Key, Error> {
    let snapshot = call.snapshot;
    let presented = presented_key(&call.head.headers);
    let key = snapshot.keys.authenticate(presented, clock::unix_ms()).map_err(|refused| {
        call.exchange.key = refused.key.map(|key| key.index);
        let detail = match refused.kind {
            Kind::KeyMissing => "no API key: send it as \"authorization: Bearer KEY\" or \"x-api-key: KEY\"",
            Kind::KeyExpired => "this API key has expired",
            Kind::KeyDisabled => "this API key has been revoked",
            _ => "this API key is not known here",
        };
        Error::new(refused.kind, detail)
    })?;
    call.exchange.key = Some(key.index);
    Ok(key)
}

/// A JSON surface takes plain UTF-8 JSON and nothing else: what cannot be read cannot be checked.
pub fn check_media(head: &RequestHead) -> Result<(), Error> {
    if let Some(coding) = head.headers.get("content-encoding")
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let detail =
            format!("content-encoding {} is not taken here, only plain JSON", shown(coding.as_bytes()));
        return Err(Error::new(Kind::MediaType, detail));
    }
    let Some(media) = head.headers.get("content-type") else { return Ok(()) };
    if is_utf8_json(media.as_bytes()) {
        return Ok(());
    }
    let detail =
        format!("content-type {} is not taken here, only application/json in UTF-8", shown(media.as_bytes()));
    Err(Error::new(Kind::MediaType, detail))
}

/// Reads the body into the exchange. The permit counts it while it is held.
pub async fn collect_body(call: &mut Call<'_>, downstream: &mut Downstream) -> Result<Permit, Stop> {
    if call.head.expect_continue {
        downstream.send_continue().await.map_err(|error| body_error(error, 0))?;
    }
    let bytes_max = call.snapshot.limits.body_bytes_max as u64;
    let mut permit = call.worker.bodies.permit();
    let body = downstream
        .collect_body(bytes_max, &mut permit)
        .await
        .map_err(|error| body_error(error, bytes_max))?;
    call.exchange.bytes_in = body.len() as u64;
    call.exchange.body = Some(body);
    call.exchange.clock.mark_at(Step::Body, clock::lately());
    Ok(permit)
}

/// Checks the body and reads what is needed of it.
pub fn read(call: &mut Call<'_>, surface: Surface<'_>) -> Result<Asked, Error> {
    let body: &[u8] = call.exchange.body.as_deref().unwrap_or_default();
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(Error::new(Kind::MediaType, "the body begins with a byte-order mark; JSON has none"));
    }
    let peek = surface.dialect().peek(body)?;
    call.exchange.stream = peek.stream;
    let model: Rc<str> = peek.model(body).into();
    call.exchange.model = Some(Rc::clone(&model));
    let hide_usage = peek.ask_for_usage(&mut call.exchange.patches).map_err(|_| overlap())?;
    Ok(Asked { model, peek, hide_usage })
}

/// The route of the model that was asked for, where the key may use it.
pub fn route<'a>(call: &Call<'a>, key: &Key, asked: &Asked) -> Result<&'a Route, Error> {
    let model = &*asked.model;
    // Asked before whether it exists: a key must not learn the names of models that are not for it.
    if !key.may_use(model) {
        let detail = format!("this API key may not use the model \"{}\"", quoted(model));
        return Err(Error::new(Kind::ModelForbidden, detail).param("model"));
    }
    call.snapshot.routes.resolve(model).ok_or_else(|| {
        let detail = format!("no model \"{}\" is configured here; GET /v1/models lists them", quoted(model));
        Error::new(Kind::ModelUnknown, detail).param("model")
    })
}

/// Two edits of one place of the body: stages that contradict each other.
pub fn overlap() -> Error {
    Error::new(Kind::Internal, "two policies changed the same part of the request")
}

/// What the client is told of a body that could not be read.
pub fn body_error(error: BodyError, bytes_max: u64) -> Stop {
    let told = match error {
        BodyError::Gone => return Stop::ClientLeft,
        BodyError::TooLarge => {
            Error::new(Kind::BodyTooLarge, format!("the body is larger than {bytes_max} bytes"))
        }
        BodyError::Overloaded => {
            Error::new(Kind::Overloaded, "too many large bodies at once; try again").retry_after_s(1)
        }
        BodyError::TooSlow => Error::new(Kind::RequestTimeout, "the body came too slowly"),
        BodyError::Broken(what) => {
            Error::new(Kind::BadRequest, format!("the body's framing is broken: {what}"))
        }
    };
    told.into()
}

fn presented_key(headers: &HeaderMap) -> &[u8] {
    if let Some(value) = headers.get("authorization") {
        let value = value.as_bytes();
        if value.len() > 7 && value[..7].eq_ignore_ascii_case(b"bearer ") {
            return value[7..].trim_ascii();
        }
    }
    let named = ["x-api-key", "x-goog-api-key", "api-key"].iter().find_map(|name| headers.get(*name));
    named.map_or(&[], |value| value.as_bytes())
}

fn is_utf8_json(media: &[u8]) -> bool {
    let mut parts = media.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json =
        kind == b"application/json" || (kind.starts_with(b"application/") && kind.ends_with(b"+json"));
    is_json
        && parts.all(|parameter| match parameter.iter().position(|byte| *byte == b'=') {
            Some(at) if parameter[..at].eq_ignore_ascii_case(b"charset") => {
                let charset = parameter[at + 1..].trim_ascii();
                let bare =
                    charset.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(charset);
                bare.eq_ignore_ascii_case(b"utf-8") || bare.eq_ignore_ascii_case(b"utf8")
            }
            _ => true,
        })
}

fn shown(value: &[u8]) -> String {
    format!("\"{}\"", quoted(&String::from_utf8_lossy(value)))
}

/// Every SDK of Anthropic sends it.
const ANTHROPIC_VERSION: &str = "anthropic-version";

#[cfg(test)]
mod tests {
    use super::{is_utf8_json, presented_key};
    use http::{HeaderMap, HeaderName, HeaderValue};

    #[test]
    fn only_json_in_utf8_is_taken() {
        let rows = [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json; charset=\"utf-8\"", true),
            ("application/problem+json", true),
            ("application/json; charset=utf-16", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("", false),
        ];
        for (media, taken) in rows {
            assert_eq!(is_utf8_json(media.as_bytes()), taken, "{media}");
        }
    }

    #[test]
    fn a_key_is_found_where_each_sdk_puts_it() {
        let rows = [
            ("authorization", "Bearer k1", "k1"),
            ("authorization", "bearer   k1 ", "k1"),
            ("authorization", "Basic abc", ""),
            ("x-api-key", "k2", "k2"),
            ("x-goog-api-key", "k3", "k3"),
            ("api-key", "k4", "k4"),
            ("x-other", "k5", ""),
        ];
        for (name, value, key) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(presented_key(&headers), key.as_bytes(), "{name}: {value}");
        }
    }
}
