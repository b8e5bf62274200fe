//! Stored responses (`/v1/responses/ID`): asked for at the provider that made them.
//!
//! With one provider that speaks Responses an id is the provider's own. With several, each id that goes to a
//! client carries its origin in a sealed prefix: `resp_tg` and ten hex digits of a hash over the provider's
//! name and the id, then the id. The hash is checked against every such provider, so a changed or invented id
//! leads nowhere. It marks the origin and is no permission: what one key made at a provider, another may ask for
//! where it has the id and may reach that provider by one of its models. (To bind an id to the key that made it
//! takes a secret that all instances share and no client has, and ids that are never the provider's own.) Sealed
//! are `id` and `previous_response_id` of response objects, whole and in events; a
//! request's `previous_response_id` is opened and leads to its provider alone. Nothing else of a body
//! changes.

use crate::base::error::{Error, Kind};
use crate::codec::json::{self, Value};
use crate::codec::patch::Patches;
use crate::handler::answer::{Expected, Upcoming};
use crate::handler::attempt::{self, Outgoing};
use crate::handler::llm::{Answering, Call, Stop};
use crate::handler::request;
use crate::handler::snapshot::Snapshot;
use crate::handler::watch::ClientWatch;
use crate::llm::dialect::{Closes, Dialect};
use crate::llm::provider::Provider;
use crate::net::downstream::Downstream;
use crate::policy::auth::Key;
use crate::policy::exchange::Served;
use crate::policy::stage::{EventStage, EventVerdict, EventView, Released};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::pin::Pin;

/// Serves a request for a stored response. `action` is what follows the id: nothing, `cancel`, `input_items`.
pub async fn serve(
    call: &mut Call<'_>,
    downstream: &mut Downstream,
    key: &Key,
    id: &str,
    action: &str,
) -> Result<Answering, Stop> {
    let found = origin(call.snapshot, id).filter(|(provider, _)| may_reach(call.snapshot, key, provider));
    let (provider, id) = found.ok_or_else(not_found)?;
    call.exchange.served = Some(Served { route: None, provider: provider.index, model: "".into() });
    let permit = request::collect_body(call, downstream).await?;
    let path = match action {
        "" => format!("/v1/responses/{id}"),
        action => format!("/v1/responses/{id}/{action}"),
    };
    let target = attempt::with_query(provider.path_for(&path), call.head.uri.query());
    let body = call.exchange.body.take().filter(|body| !body.is_empty());
    let outgoing = Outgoing { target, body, patches: Patches::new(), metered: true, costs: false };
    let mut watch = ClientWatch::new(downstream.conn());
    let attempted = attempt::once(call, provider, &outgoing, Pin::new(&mut watch)).await?;
    drop((permit, outgoing));
    // Its usage was counted when it was made.
    let expected = Expected {
        dialect: Some(Dialect::OpenAiResponses),
        seals: are_sealed(call.snapshot),
        is_metered: false,
        ..Expected::default()
    };
    let (head, upcoming) = Upcoming::new(call, attempted, expected, key, watch);
    Ok(Answering::Relay(head, upcoming))
}

/// Ids carry their origin: more than one provider could have made them.
pub fn are_sealed(snapshot: &Snapshot) -> bool {
    makers(snapshot).nth(1).is_some()
}

/// Opens `previous_response_id` of a request: the provider that it leads to, the body patched. None: the
/// request names none, or ids are not sealed.
pub fn open_previous(call: &mut Call<'_>) -> Result<Option<u32>, Error> {
    if !are_sealed(call.snapshot) {
        return Ok(None);
    }
    let body = call.exchange.body.as_deref().unwrap_or_default();
    let [previous] =
        json::root(body).and_then(|root| json::fields(root, ["previous_response_id"])).map_err(|_| {
            let detail = "`previous_response_id` occurs more than once or in another case";
            Error::new(Kind::BodyField, detail).param(PREVIOUS)
        })?;
    let Some(raw) = previous.and_then(|value| Some((value, value.str_raw()?))) else { return Ok(None) };
    let (value, text) = raw;
    let text = std::str::from_utf8(text).unwrap_or_default();
    let (provider, id) = origin(call.snapshot, text).ok_or_else(|| not_found().param(PREVIOUS))?;
    let place = value.start + 1..value.start + 1 + text.len();
    call.exchange.patches.replace(place, id.as_bytes()).map_err(|_| request::overlap())?;
    Ok(Some(provider.index))
}

/// Seals the ids of one answer.
pub struct Seal {
    provider: Box<str>,
}

impl Seal {
    /// For answers of `provider`.
    pub fn new(provider: &Provider) -> Seal {
        Seal { provider: provider.name.clone() }
    }

    fn seal(&self, id: Option<Value<'_>>, patches: &mut Patches) {
        let Some((value, raw)) = id.and_then(|value| Some((value, value.str_raw()?))) else { return };
        let Ok(text) = std::str::from_utf8(raw) else { return };
        let place = value.start + 1..value.start + 1 + raw.len();
        // Twice the same place: the document repeats a key, and the first one counts.
        let _ = patches.replace(place, sealed(&self.provider, text).as_bytes());
    }
}

impl EventStage for Seal {
    fn event(&mut self, event: &mut EventView<'_>) -> EventVerdict {
        let Ok(root) = json::root(event.data) else { return EventVerdict::Pass };
        let response = root.get("response").unwrap_or(root);
        let is_response = response.get("object").and_then(|object| object.str_raw());
        if matches!(is_response, Some(b"response" | b"response.deleted")) {
            self.seal(response.get("id"), &mut event.patches);
            self.seal(response.get(PREVIOUS), &mut event.patches);
        }
        EventVerdict::Pass
    }

    fn release(&mut self, _closes: &Closes, _released: &mut Vec<Released>) {}
}

/// The provider that made a response, and the id there.
fn origin<'a>(snapshot: &'a Snapshot, id: &'a str) -> Option<(&'a Provider, &'a str)> {
    if !are_sealed(snapshot) {
        return Some((makers(snapshot).next()?, id));
    }
    let rest = id.strip_prefix(PREFIX)?;
    let (seal, id) = (rest.get(..SEAL_LEN)?, rest.get(SEAL_LEN..)?.strip_prefix('_')?);
    makers(snapshot).find(|provider| seal_of(&provider.name, id) == seal).map(|provider| (provider, id))
}

/// Whether the key has a model that the provider answers. A `previous_response_id` needs no such question: it goes
/// to targets of the request's model alone.
fn may_reach(snapshot: &Snapshot, key: &Key, provider: &Provider) -> bool {
    key.models.as_ref().is_none_or(|models| snapshot.routes.reach(models, provider.index))
}

fn makers(snapshot: &Snapshot) -> impl Iterator<Item = &Provider> {
    snapshot.providers.iter().filter(|provider| provider.dialects.responses)
}

fn sealed(provider: &str, id: &str) -> String {
    format!("{PREFIX}{}_{id}", seal_of(provider, id))
}

fn seal_of(provider: &str, id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(provider.as_bytes());
    hash.update([0]);
    hash.update(id.as_bytes());
    let mut seal = String::with_capacity(SEAL_LEN);
    for byte in &hash.finalize()[..SEAL_LEN / 2] {
        // Writing to a string cannot fail.
        let _ = write!(seal, "{byte:02x}");
    }
    seal
}

fn not_found() -> Error {
    Error::new(Kind::ResponseUnknown, "no response with this id was made here")
}

const PREFIX: &str = "resp_tg";
const SEAL_LEN: usize = 10;
const PREVIOUS: &str = "previous_response_id";

#[cfg(test)]
mod tests {
    use super::{Seal, origin, sealed};
    use crate::handler::snapshot::Snapshot;
    use crate::handler::stages::StageRunner;
    use crate::llm::dialect::Dialect;
    use crate::llm::provider::{Provider, ProviderKind};

    fn snapshot(names: &[&str]) -> Snapshot {
        let provider = |name: &&str| Provider::new(name, ProviderKind::OpenAi, None);
        Snapshot { providers: names.iter().map(provider).collect(), ..Snapshot::default() }
    }

    #[test]
    fn a_sealed_id_leads_back_to_its_provider_and_a_changed_one_nowhere() {
        let snapshot = snapshot(&["one", "two"]);
        let id = sealed("two", "resp_abc");
        let found = origin(&snapshot, &id).map(|(provider, id)| (&*provider.name, id));
        assert_eq!(found, Some(("two", "resp_abc")));
        for wrong in ["resp_abc", "resp_tg", &id.replace("abc", "abd"), &id.replace("resp_tg", "resp_tg0")] {
            assert!(origin(&snapshot, wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn with_one_provider_ids_stay_as_they_are() {
        let found = snapshot(&["one"]);
        assert_eq!(origin(&found, "resp_abc").map(|(_, id)| id), Some("resp_abc"));
    }

    #[test]
    fn ids_are_sealed_in_events_and_whole_answers_and_nothing_else_changes() {
        let seal = || vec![Box::new(Seal { provider: "two".into() }) as _];
        let id = sealed("two", "resp_abc");
        let whole =
            r#"{"id":"resp_abc", "object":"response","previous_response_id":null,"output":[{"id":"msg_1"}]}"#;
        let mut runner = StageRunner::new(Dialect::OpenAiResponses, seal()).expect("a stage");
        let edited = runner.whole(whole.as_bytes().to_vec());
        assert_eq!(String::from_utf8(edited.body).expect("text"), whole.replace("resp_abc", &id));
        let event = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_abc\",\
                     \"object\":\"response\",\"output\":[]}}\n\n";
        let mut runner = StageRunner::new(Dialect::OpenAiResponses, seal()).expect("a stage");
        let mut out = Vec::new();
        runner.event(event.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).expect("text"), event.replace("resp_abc", &id));
    }
}
