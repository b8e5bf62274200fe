//! Paths under which clients speak a dialect to us: path and method in, surface out.
//!
//! A surface fixes the dialect of the answer (errors included) and what is done with the request. Paths are
//! compared as sent, without decoding: an encoded slash is no slash (a model's name is decoded by `models`).
//! Errors: an unknown path, or a known one with another method (which are named). Pass-through prefixes of
//! the config are asked after these.

use crate::llm::dialect::Dialect;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface<'p> {
    Chat,
    Completions,
    Embeddings,
    Responses,
    /// One stored response: `action` is what follows the id ("", "cancel", "input_items").
    Response {
        id: &'p str,
        action: &'p str,
    },
    Messages,
    CountTokens,
    Models,
    Model(&'p str),
    /// What the request with this id has used.
    Usage(&'p str),
}

/// The path is known, but not with this method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongMethod<'p> {
    pub surface: Surface<'p>,
    pub allowed: &'static str,
}

impl<'p> Surface<'p> {
    /// What a path (without query) and a method ask for. None: not a path of ours.
    pub fn of(method: &str, path: &'p str) -> Option<Result<Surface<'p>, WrongMethod<'p>>> {
        let (surface, allowed) = Surface::at(path)?;
        Some(if allowed.split(", ").any(|one| one == method) {
            Ok(surface)
        } else {
            Err(WrongMethod { surface, allowed })
        })
    }

    /// The surface of a path, and the methods that it allows.
    pub fn at(path: &'p str) -> Option<(Surface<'p>, &'static str)> {
        Some(match path {
            "/v1/chat/completions" => (Surface::Chat, POST),
            "/v1/completions" => (Surface::Completions, POST),
            "/v1/embeddings" => (Surface::Embeddings, POST),
            "/v1/responses" => (Surface::Responses, POST),
            "/v1/messages" => (Surface::Messages, POST),
            "/v1/messages/count_tokens" => (Surface::CountTokens, POST),
            "/v1/models" => (Surface::Models, GET_HEAD),
            _ => return below(path),
        })
    }

    /// The dialect that is spoken under a path, also where nothing is served there; none: it does not tell.
    pub fn dialect_at(path: &str) -> Option<Dialect> {
        let below_messages = || path.starts_with("/v1/messages").then_some(Dialect::Anthropic);
        Surface::at(path).map(|(surface, _)| surface.dialect()).or_else(below_messages)
    }

    /// The dialect of the request's body and the answer's.
    pub fn dialect(self) -> Dialect {
        match self {
            Surface::Chat | Surface::Models | Surface::Model(_) | Surface::Usage(_) => Dialect::OpenAiChat,
            Surface::Completions => Dialect::OpenAiCompletions,
            Surface::Embeddings => Dialect::OpenAiEmbeddings,
            Surface::Responses | Surface::Response { .. } => Dialect::OpenAiResponses,
            Surface::Messages | Surface::CountTokens => Dialect::Anthropic,
        }
    }

    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Surface::Chat => "chat",
            Surface::Completions => "completions",
            Surface::Embeddings => "embeddings",
            Surface::Responses => "responses",
            Surface::Response { .. } => "response",
            Surface::Messages => "messages",
            Surface::CountTokens => "count_tokens",
            Surface::Models => "models",
            Surface::Model(_) => "model",
            Surface::Usage(_) => "usage",
        }
    }
}

fn below(path: &str) -> Option<(Surface<'_>, &'static str)> {
    if let Some(model) = path.strip_prefix("/v1/models/") {
        return (!model.is_empty()).then_some((Surface::Model(model), GET_HEAD));
    }
    if let Some(id) = path.strip_prefix("/v1/usage/") {
        return (!id.is_empty() && !id.contains('/')).then_some((Surface::Usage(id), GET_HEAD));
    }
    let (id, action) = match path.strip_prefix("/v1/responses/")?.split_once('/') {
        None => (path.strip_prefix("/v1/responses/")?, ""),
        Some((id, action)) => (id, action),
    };
    let methods = match action {
        "" => "GET, DELETE",
        "cancel" => POST,
        "input_items" => GET,
        _ => return None,
    };
    (!id.is_empty()).then_some((Surface::Response { id, action }, methods))
}

const POST: &str = "POST";
const GET: &str = "GET";
/// Answered by the gateway itself; other heads would have to be asked for at the provider.
const GET_HEAD: &str = "GET, HEAD";

#[cfg(test)]
mod tests {
    use super::{Surface, WrongMethod};

    #[test]
    fn paths_and_methods_decide_the_surface() {
        let stored = |id, action| Surface::Response { id, action };
        let response = |id, action| Some(Ok(stored(id, action)));
        let wrong = |surface, allowed| Some(Err(WrongMethod { surface, allowed }));
        let rows = [
            ("POST", "/v1/chat/completions", Some(Ok(Surface::Chat))),
            ("GET", "/v1/chat/completions", wrong(Surface::Chat, "POST")),
            ("POST", "/v1/chat/completions/", None),
            ("POST", "/v1/Chat/completions", None),
            ("GET", "/v1/models", Some(Ok(Surface::Models))),
            ("HEAD", "/v1/models", Some(Ok(Surface::Models))),
            ("HEAD", "/v1/models/a", Some(Ok(Surface::Model("a")))),
            ("POST", "/v1/models", wrong(Surface::Models, "GET, HEAD")),
            ("GET", "/v1/models/a/b", Some(Ok(Surface::Model("a/b")))),
            ("GET", "/v1/models/", None),
            ("GET", "/v1/usage/req_1", Some(Ok(Surface::Usage("req_1")))),
            ("HEAD", "/v1/usage/req_1", Some(Ok(Surface::Usage("req_1")))),
            ("DELETE", "/v1/usage/req_1", wrong(Surface::Usage("req_1"), "GET, HEAD")),
            ("GET", "/v1/usage/", None),
            ("GET", "/v1/usage/a/b", None),
            ("GET", "/v1/usage", None),
            ("GET", "/v1/responses/r1", response("r1", "")),
            ("DELETE", "/v1/responses/r1", response("r1", "")),
            ("PUT", "/v1/responses/r1", wrong(stored("r1", ""), "GET, DELETE")),
            ("POST", "/v1/responses/r1/cancel", response("r1", "cancel")),
            ("GET", "/v1/responses/r1/input_items", response("r1", "input_items")),
            ("GET", "/v1/responses/r1/other", None),
            ("GET", "/v1/responses/", None),
            ("POST", "/v1/messages/count_tokens", Some(Ok(Surface::CountTokens))),
            ("GET", "/", None),
        ];
        for (method, path, surface) in rows {
            assert_eq!(Surface::of(method, path), surface, "{method} {path}");
        }
    }
}
