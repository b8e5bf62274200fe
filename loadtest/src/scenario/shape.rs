//! Request templates: bytes of whole requests, ready but for the eight letters that name their stream.
//!
//! A template is built once before the run; a send copies it and writes its stream's name. So a request costs
//! the generator one copy of its bytes.

use serde::{Deserialize, Serialize};

use crate::dialect::{Dialect, Mode};
use crate::record::CORPUS;
use crate::scenario::{Answer, Body, Load, Prefix};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    Chat,
    ChatStream,
    Responses,
    ResponsesStream,
    Messages,
    MessagesStream,
    Embeddings,
    Gemini,
    GeminiStream,
}

impl Shape {
    /// As scenario files call it.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    }

    pub fn parts(self) -> (Dialect, Mode) {
        match self {
            Self::Chat => (Dialect::Chat, Mode::Whole),
            Self::ChatStream => (Dialect::Chat, Mode::Stream),
            Self::Responses => (Dialect::Responses, Mode::Whole),
            Self::ResponsesStream => (Dialect::Responses, Mode::Stream),
            Self::Messages => (Dialect::Messages, Mode::Whole),
            Self::MessagesStream => (Dialect::Messages, Mode::Stream),
            Self::Embeddings => (Dialect::Embeddings, Mode::Whole),
            Self::Gemini => (Dialect::Gemini, Mode::Whole),
            Self::GeminiStream => (Dialect::Gemini, Mode::Stream),
        }
    }
}

/// A request without its connection: fields and body apart, because HTTP/2 frames them otherwise.
#[derive(Clone, Debug)]
pub struct Template {
    pub dialect: Dialect,
    pub mode: Mode,
    pub method: String,
    pub path: String,
    /// Besides host, content-length and the connection's own.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Where the stream's name stands in `body`; `None`: the body was given from outside and cannot be
    /// checked.
    pub name_at: Option<usize>,
    /// Records of a full answer; `None` where unknown.
    pub records: Option<u32>,
}

/// Prompts that start at so many places of the corpus, so that a cache in the target does not see one text
/// only.
const PROMPTS: usize = 16;
const NAME_MARK: &str = "zzzzzzzz";

/// Templates in the proportions of the load's sizes; a send takes one at random.
pub fn templates(load: &Load, keys: &[String]) -> Vec<Template> {
    let mut all = Vec::new();
    for body in &load.body {
        for _ in 0..body.weight {
            for number in 0..PROMPTS {
                let key = &keys[number % load.keys.min(keys.len()).max(1)];
                all.push(template(load, load.shape, body, number, key));
            }
        }
    }
    all
}

/// One template; `number` chooses its prompt.
pub fn template(load: &Load, shape: Shape, body: &Body, number: usize, key: &str) -> Template {
    let (dialect, mode) = shape.parts();
    let script = load.answer.script(NAME_MARK);
    let empty = dialect.request(&load.model, mode, load.usage, &script, body.image.then_some(""));
    let room = body.bytes.saturating_sub(empty.len() + 1);
    let (words, image) = if body.image { (room.min(512), room.saturating_sub(512)) } else { (room, 0) };
    // The name stands at the end, so that a shared prefix is shared.
    let prompt = format!("{} {script}", prompt(words, number, load.prefix));
    let image = body.image.then(|| base64_noise(image));
    let body = dialect.request(&load.model, mode, load.usage, &prompt, image.as_deref());
    let mut fields = vec![("content-type".to_owned(), "application/json".to_owned())];
    fields.extend(dialect.key_fields(key).into_iter().map(|(name, value)| (name.to_owned(), value)));
    Template {
        dialect,
        mode,
        method: "POST".to_owned(),
        path: dialect.path(&load.model, mode),
        fields,
        name_at: body.rfind(NAME_MARK),
        body: body.into_bytes(),
        records: Some(records(dialect, &load.answer)),
    }
}

fn records(dialect: Dialect, answer: &Answer) -> u32 {
    if dialect == Dialect::Embeddings { 0 } else { answer.events }
}

/// `bytes` of text. Shared: the same start for all, the last fifth is the prompt's own.
fn prompt(bytes: usize, number: usize, prefix: Prefix) -> String {
    let own_at = number * CORPUS.len() / PROMPTS;
    match prefix {
        Prefix::Unique => cycle(own_at, bytes),
        Prefix::Shared => {
            let shared = bytes * 4 / 5;
            format!("{}{}", cycle(0, shared), cycle(own_at, bytes - shared))
        }
    }
}

fn cycle(start: usize, bytes: usize) -> String {
    CORPUS.chars().cycle().skip(start % CORPUS.len()).take(bytes).collect()
}

/// What an image part looks like to a gateway: base64 without structure.
fn base64_noise(bytes: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = fastrand::Rng::with_seed(7);
    (0..bytes / 4 * 4).map(|_| char::from(LETTERS[random.usize(..LETTERS.len())])).collect()
}

impl Template {
    /// The whole request as HTTP/1.1 bytes, and where the stream's name stands in them.
    pub fn http1(&self, host: &str) -> (Vec<u8>, Option<usize>) {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.path);
        head.push_str("user-agent: tollgate-load/0.1\r\naccept: */*\r\n");
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        let name_at = self.name_at.map(|at| at + head.len());
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        (bytes, name_at)
    }
}

impl Template {
    /// The head of the request for HTTP/2.
    pub fn http2(&self, host: &str, is_tls: bool) -> Result<http::Request<()>, String> {
        let scheme = if is_tls { "https" } else { "http" };
        let mut made = http::Request::builder()
            .version(http::Version::HTTP_2)
            .method(self.method.as_str())
            .uri(format!("{scheme}://{host}{}", self.path))
            .header("user-agent", "tollgate-load/0.1")
            .header("accept", "*/*")
            .header("content-length", self.body.len());
        for (name, value) in &self.fields {
            made = made.header(name, value);
        }
        made.body(()).map_err(|error| format!("a request that HTTP/2 cannot carry: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{NAME_MARK, Prefix, Shape, templates};
    use crate::scenario::{Body, Load, Scenario};

    fn load(shape: Shape, body: Body, prefix: Prefix) -> Load {
        let text = "question = 'q'\npasses_when = 'p'\n[[load]]\nname = 'a'\nshape = 'chat'\n\
                    rate = { kind = 'constant', per_s = 10 }\n";
        let mut load = Scenario::parse(text).expect("valid").load.remove(0);
        (load.shape, load.body, load.prefix) = (shape, vec![body], prefix);
        load
    }

    #[test]
    fn bodies_have_the_stated_size_and_carry_their_name_at_the_stated_place() {
        let keys = ["k1".to_owned(), "k2".to_owned()];
        for shape in [Shape::Chat, Shape::ChatStream, Shape::MessagesStream, Shape::Responses, Shape::Gemini]
        {
            for (bytes, image) in [(1024, false), (16 * 1024, false), (128 * 1024, true)] {
                let load = load(shape, Body { bytes, weight: 1, image }, Prefix::Unique);
                for template in templates(&load, &keys) {
                    let off = bytes.abs_diff(template.body.len());
                    assert!(off <= 4, "{shape:?} {bytes} is {}", template.body.len());
                    serde_json::from_slice::<serde_json::Value>(&template.body).expect("valid JSON");
                    let (request, at) = template.http1("h");
                    let at = at.expect("a name");
                    assert_eq!(&request[at..at + 8], NAME_MARK.as_bytes());
                }
            }
        }
    }

    #[test]
    fn shared_prompts_start_alike_and_unique_ones_do_not() {
        let keys = ["k".to_owned()];
        let body = Body { bytes: 4096, weight: 1, image: false };
        for (prefix, is_alike) in [(Prefix::Shared, true), (Prefix::Unique, false)] {
            let all = templates(&load(Shape::Chat, body, prefix), &keys);
            assert_eq!(all[0].body[..2000] == all[1].body[..2000], is_alike);
            assert_ne!(all[0].body, all[1].body);
        }
    }
}
