//! The peek into a request: the few fields that decide what happens to it, and the splices that change them.
//!
//! A [`Peek`] holds ranges and numbers only, so it lives beside the body that it was made of.

use crate::base::error::{Error, Kind as ErrorKind};
use crate::codec::json::{self, Defect, Kind, Value};
use crate::codec::patch::{Overlap, Patches};
use std::ops::Range;

/// Longest name of a model, in bytes between the quotes.
pub const MODEL_LEN_MAX: usize = 512;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The model's name in the body: between the quotes, still escaped.
    model: Range<usize>,
    /// The name itself, where it is written with escapes.
    model_unescaped: Option<Box<str>>,
    /// The answer is asked for as a stream.
    pub stream: bool,
    pub usage_in_stream: UsageInStream,
    /// Most tokens that the request allows for all choices together, if it says.
    pub output_max: Option<u64>,
    /// How many alternative answers are asked for; at least 1.
    pub choices: u64,
    /// Where a bound of the output goes in, as the request has none.
    cap: Option<Cap>,
}

/// Where a bound of the output goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cap {
    range: Range<usize>,
    /// The member's name, where it has to be written, too.
    name: Option<&'static str>,
}

/// Whether the answer's stream will say what it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageInStream {
    /// It does without being asked, or this is no stream.
    Always,
    /// The client asked for it.
    Asked,
    /// The client did not: this splice asks.
    NotAsked(Splice),
}

/// One replacement of the body, ready to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    range: Range<usize>,
    by: &'static str,
}

/// Which fields of a dialect's requests are read.
pub(super) struct RequestFields {
    pub streaming: Streaming,
    /// Names of the output limit, the decisive first.
    pub output_max: [&'static str; 2],
    /// The one of them that every server of the dialect knows; none: nothing is written.
    pub cap: Option<&'static str>,
    /// Name of the number of alternative answers.
    pub choices: Option<&'static str>,
}

/// How a dialect streams.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Streaming {
    Never,
    /// With usage in every stream.
    UsageAlways,
    /// With usage if `stream_options.include_usage` is true.
    UsageOnDemand,
}

impl Peek {
    /// The model's name. `body` is the one that was peeked into.
    pub fn model<'a>(&'a self, body: &'a [u8]) -> &'a str {
        match &self.model_unescaped {
            Some(name) => name,
            None => {
                body.get(self.model.clone()).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
            }
        }
    }

    /// Where the model's name stands: between the quotes, still escaped.
    pub fn model_range(&self) -> Range<usize> {
        self.model.clone()
    }

    /// Puts another model's name in the place of the client's.
    pub fn set_model(&self, patches: &mut Patches, model: &str) -> Result<(), Overlap> {
        let mut escaped = Vec::with_capacity(model.len());
        json::escape(model.as_bytes(), &mut escaped);
        patches.replace(self.model.clone(), &escaped)
    }

    /// Bounds the output to `tokens` for all choices together, where the request does not.
    pub fn cap_output(&self, patches: &mut Patches, tokens: u64) -> Result<(), Overlap> {
        let Some(Cap { range, name }) = &self.cap else { return Ok(()) };
        let each = (tokens / self.choices).max(1);
        let text = match name {
            Some(name) => format!("\"{name}\":{each},"),
            None => each.to_string(),
        };
        patches.replace(range.clone(), text.as_bytes())
    }

    /// Asks for usage in the stream where the client did not; whatever else it put into `stream_options`
    /// stays.
    /// Returns whether that was needed: the usage event is then not the client's.
    pub fn ask_for_usage(&self, patches: &mut Patches) -> Result<bool, Overlap> {
        let UsageInStream::NotAsked(Splice { range, by }) = &self.usage_in_stream else { return Ok(false) };
        patches.replace(range.clone(), by.as_bytes())?;
        Ok(true)
    }
}

pub(super) fn peek(fields: &RequestFields, body: &[u8]) -> Result<Peek, Error> {
    let [first, second] = fields.output_max;
    let names = ["model", "stream", "stream_options", first, second, fields.choices.unwrap_or("model")];
    let found = json::check_fields(body, names).map_err(|defect| refusal(body, &names, defect))?;
    let [model, stream, options, first, second, choices] = found;

    let (model, model_unescaped) = model_name(model)?;
    let stream = fields.streaming != Streaming::Never && flag("stream", stream)?.unwrap_or(false);
    let usage_in_stream = match fields.streaming {
        Streaming::UsageOnDemand if stream => usage_in_stream(body, options)?,
        _ => UsageInStream::Always,
    };
    let number = |value: Option<Value<'_>>| value.and_then(|value| value.as_u64());
    let choices = fields.choices.and(number(choices)).unwrap_or(1).max(1);
    let output_max = number(first).or(number(second)).map(|max| max.saturating_mul(choices));
    let cap = match fields.cap {
        Some(name) if output_max.is_none() => Some(match second.or(first) {
            Some(not_a_number) => Cap { range: not_a_number.range(), name: None },
            None => Cap { range: behind_first_bracket(body), name: Some(name) },
        }),
        _ => None,
    };
    Ok(Peek { model, model_unescaped, stream, usage_in_stream, output_max, choices, cap })
}

/// Where a first member can be put in. The body is an object, and not empty: it holds the model.
fn behind_first_bracket(body: &[u8]) -> Range<usize> {
    let bracket = body.iter().position(|&byte| byte == b'{').unwrap_or_default();
    bracket + 1..bracket + 1
}

/// What is wrong with a body in which `defect` was found: no JSON, no object, or a field that is read twice or
/// in another case.
fn refusal(body: &[u8], names: &[&'static str], defect: Defect) -> Error {
    let (Ok(()), Ok(root)) = (json::check(body), json::root(body)) else {
        return Error::new(ErrorKind::BodyNotJson, format!("the body is not JSON: {defect}"));
    };
    if root.kind != Kind::Object {
        let detail = format!("the body is {}; it must be a JSON object", noun(root.kind));
        return Error::new(ErrorKind::BodyField, detail);
    }
    repeated(root, names, defect)
}

fn repeated(object: Value<'_>, names: &[&'static str], defect: Defect) -> Error {
    let keys = || object.members().flatten().map(|member| member.key);
    if let Some(name) = names.iter().find(|name| keys().any(|key| key.resembles(name) && !key.is(name))) {
        let detail = format!("a key differs from `{name}` in its case only; spell it `{name}`");
        return field(name, detail);
    }
    match names.iter().find(|name| keys().filter(|key| key.is(name)).count() > 1) {
        Some(name) => field(name, format!("`{name}` occurs more than once; it may occur once")),
        None => Error::new(ErrorKind::BodyField, defect.to_string()),
    }
}

fn model_name(value: Option<Value<'_>>) -> Result<(Range<usize>, Option<Box<str>>), Error> {
    let Some(value) = value else {
        return Err(field("model", "`model` is missing; it must be a string".to_string()));
    };
    let Some(raw) = value.str_raw() else {
        return Err(field("model", format!("`model` is {}; it must be a string", noun(value.kind))));
    };
    if raw.len() > MODEL_LEN_MAX {
        let detail = format!("`model` is {} bytes long; at most {MODEL_LEN_MAX} are allowed", raw.len());
        return Err(field("model", detail));
    }
    let escaped = raw.contains(&b'\\');
    let name = json::unescaped(raw);
    let Ok(name) = str::from_utf8(&name) else {
        return Err(field("model", "`model` is not UTF-8".to_string()));
    };
    let start = value.start + 1;
    Ok((start..start + raw.len(), escaped.then(|| name.into())))
}

fn usage_in_stream(body: &[u8], options: Option<Value<'_>>) -> Result<UsageInStream, Error> {
    let insert = |range, by| Ok(UsageInStream::NotAsked(Splice { range, by }));
    let inside = |bracket: usize| bracket + 1..bracket + 1;
    let options = match options {
        None => {
            return insert(behind_first_bracket(body), r#""stream_options":{"include_usage":true},"#);
        }
        Some(options) if options.is_null() => return insert(options.range(), r#"{"include_usage":true}"#),
        Some(options) if options.kind == Kind::Object => options,
        Some(other) => {
            let detail = format!("`stream_options` is {}; it must be an object or null", noun(other.kind));
            return Err(field("stream_options", detail));
        }
    };
    let asked = json::fields(options, ["include_usage"]);
    let [asked] = asked.map_err(|defect| repeated(options, &["include_usage"], defect))?;
    match (flag("stream_options.include_usage", asked)?, asked) {
        (Some(true), _) => Ok(UsageInStream::Asked),
        (_, Some(not)) => insert(not.range(), "true"),
        (_, None) if options.members().next().is_none() => {
            insert(inside(options.start), r#""include_usage":true"#)
        }
        (_, None) => insert(inside(options.start), r#""include_usage":true,"#),
    }
}

fn flag(name: &'static str, value: Option<Value<'_>>) -> Result<Option<bool>, Error> {
    match value {
        Some(value) if !value.is_null() => match value.as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => {
                let found = noun(value.kind);
                Err(field(name, format!("`{name}` is {found}; it must be true, false or null")))
            }
        },
        _ => Ok(None),
    }
}

fn field(name: &'static str, detail: String) -> Error {
    Error::new(ErrorKind::BodyField, detail).param(name)
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Object => "an object",
        Kind::Array => "an array",
        Kind::String => "a string",
        Kind::Number => "a number",
        Kind::True => "true",
        Kind::False => "false",
        Kind::Null => "null",
    }
}
