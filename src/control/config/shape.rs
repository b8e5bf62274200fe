//! Checks a parsed file against the schema of `raw`: every fault at its place, not only the first.
//!
//! Input: the tree that the TOML parser made, with spans. Output: faults, and the tree repaired so that serde
//! takes it: an unknown key or a bad value of an optional key is taken out, a bad or missing value of a
//! required key is replaced by a placeholder. So the checks of meaning (`compile`) run on the rest in the
//! same turn; they stay silent at the paths that are at fault here. Understands the part of JSON schema that
//! `schema` writes: type, properties, required, additionalProperties, items, enum, anyOf, oneOf, minimum,
//! maximum, minLength, minItems, maxItems, format date-time, and our x-secret and x-hint. A value below
//! x-secret is never shown. A value of type number is handed on as the text that was written: what is read as
//! a float is no longer what the operator wrote.

use crate::control::config::problem::{KeyPath, did_you_mean, nearest, one_of, quoted};
use serde_json::Value;
use std::borrow::Cow;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something that the schema does not allow.
#[derive(Debug)]
pub struct Fault {
    pub path: KeyPath,
    pub span: Range<usize>,
    pub message: String,
    /// The key that was probably meant: nothing is to be said of its absence.
    pub meant: Option<KeyPath>,
}

/// Checks `table` against `schema` and repairs it.
pub fn check(table: &mut Spanned<DeTable<'_>>, schema: &Value) -> Vec<Fault> {
    let mut walk = Walk { faults: Vec::new(), secret: false };
    let span = table.span();
    walk.table(table.get_mut(), &span, schema, &KeyPath::default());
    walk.faults
}

/// Whether a value stays as it is or must be replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fits,
    Broken,
}

struct Walk {
    faults: Vec<Fault>,
    /// Below a key whose value must not be shown.
    secret: bool,
}

impl Walk {
    fn table(&mut self, table: &mut DeTable<'_>, span: &Range<usize>, schema: &Value, path: &KeyPath) {
        let known = schema["properties"].as_object();
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let mut broken: Vec<(String, &Value)> = Vec::new();
        for (key, value) in table.iter_mut() {
            let name = key.get_ref();
            let Some(schema) = known.and_then(|known| known.get(&**name)).or(others) else {
                self.unknown_key(name, key.span(), schema, path);
                broken.push((name.to_string(), &Value::Null));
                continue;
            };
            if self.value(value, schema, &path.key(name)) == Verdict::Broken {
                broken.push((name.to_string(), schema));
            }
        }
        let required: Vec<&str> = strings(&schema["required"]).collect();
        for (name, schema) in broken {
            table.remove(&*name);
            if required.contains(&&*name) {
                insert(table, &name, placeholder(schema));
            }
        }
        for name in required {
            if table.contains_key(name) {
                continue;
            }
            let wanted = &schema["properties"][name];
            let here = path.key(name);
            // Where a slip of the name stands, that was told, and this would be the same fault again.
            if !self.faults.iter().any(|fault| fault.meant.as_ref() == Some(&here)) {
                let message = format!("missing; allowed: {}{}", allowed(wanted), hint(wanted));
                self.fault(here, span.clone(), message);
            }
            insert(table, name, placeholder(wanted));
        }
    }

    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, schema: &Value, path: &KeyPath) -> Verdict {
        let outside = self.secret;
        self.secret |= schema["x-secret"] == true;
        let verdict = match branches(schema) {
            Some(branches) => self.choice(value, branches, schema, path),
            None => self.single(value, schema, path),
        };
        self.secret = outside;
        verdict
    }

    fn single(&mut self, value: &mut Spanned<DeValue<'_>>, schema: &Value, path: &KeyPath) -> Verdict {
        let span = value.span();
        if !type_fits(value.get_ref(), schema) {
            return self.not_allowed(value.get_ref(), span, schema, path);
        }
        match value.get_mut() {
            DeValue::Table(table) => {
                self.table(table, &span, schema, path);
                Verdict::Fits
            }
            DeValue::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    if self.value(item, &schema["items"], &path.at(at)) == Verdict::Broken {
                        *item.get_mut() = placeholder(&schema["items"]);
                    }
                }
                let count = items.len() as u64;
                let bounds = (schema["minItems"].as_u64(), schema["maxItems"].as_u64());
                self.count(count, bounds, span, path)
            }
            scalar => match scalar_fits(scalar, schema) {
                true => {
                    keep_decimal(scalar, schema);
                    Verdict::Fits
                }
                false => self.not_allowed(scalar, span, schema, path),
            },
        }
    }

    /// A value that may have several forms: the one whose type fits, or, for tables, the one that shares a
    /// key.
    fn choice(
        &mut self,
        value: &mut Spanned<DeValue<'_>>,
        branches: &[Value],
        schema: &Value,
        path: &KeyPath,
    ) -> Verdict {
        let flat = flatten(branches);
        let fitting: Vec<&Value> =
            flat.iter().copied().filter(|branch| type_fits(value.get_ref(), branch)).collect();
        let chosen = match (value.get_ref(), &fitting[..]) {
            (_, []) => None,
            (DeValue::Table(table), tables) => {
                let shares =
                    |branch: &&&Value| strings(&branch["required"]).any(|key| table.contains_key(key));
                tables.iter().find(shares).or_else(|| tables.first().filter(|_| tables.len() == 1)).copied()
            }
            (DeValue::Array(_), lists) => lists.first().copied(),
            (scalar, scalars) => scalars.iter().find(|branch| scalar_fits(scalar, branch)).copied(),
        };
        match chosen {
            Some(branch) => self.value(value, branch, path),
            None => {
                let span = value.span();
                self.not_allowed(value.get_ref(), span, schema, path)
            }
        }
    }

    fn count(
        &mut self,
        count: u64,
        (min, max): (Option<u64>, Option<u64>),
        span: Range<usize>,
        path: &KeyPath,
    ) -> Verdict {
        if let Some(min) = min.filter(|&min| count < min) {
            self.fault(path.clone(), span, format!("{} entries, allowed: at least {min}", count));
            return Verdict::Broken;
        }
        if let Some(max) = max.filter(|&max| count > max) {
            self.fault(path.clone(), span, format!("{} entries, allowed: at most {max}", count));
            return Verdict::Broken;
        }
        Verdict::Fits
    }

    fn unknown_key(&mut self, name: &str, span: Range<usize>, schema: &Value, path: &KeyPath) {
        let known: Vec<&str> = keys(schema).collect();
        let near = nearest(name, known.iter().copied());
        let message = match near {
            Some(_) => format!("unknown key{}", did_you_mean(name, known)),
            None => format!("unknown key, allowed: {}{}", one_of(&known), hint(schema)),
        };
        let meant = near.map(|near| path.key(near));
        self.faults.push(Fault { path: path.key(name), span, message, meant });
    }

    fn not_allowed(
        &mut self,
        found: &DeValue<'_>,
        span: Range<usize>,
        schema: &Value,
        path: &KeyPath,
    ) -> Verdict {
        let near = match found {
            DeValue::String(text) if !self.secret => did_you_mean(text, words(schema)),
            _ => String::new(),
        };
        let shown = if self.secret { kind(found).to_string() } else { shown(found) };
        let allowed = allowed(schema);
        let message = format!("{shown} is not allowed{near}, allowed: {allowed}{}", hint(schema));
        self.fault(path.clone(), span, message);
        Verdict::Broken
    }

    fn fault(&mut self, path: KeyPath, span: Range<usize>, message: String) {
        self.faults.push(Fault { path, span, message, meant: None });
    }
}

fn branches(schema: &Value) -> Option<&[Value]> {
    let branches = schema.get("anyOf").or_else(|| schema.get("oneOf"))?;
    branches.as_array().map(Vec::as_slice)
}

/// The forms below `branches`, those of nested choices included.
fn flatten(branches_here: &[Value]) -> Vec<&Value> {
    branches_here
        .iter()
        .flat_map(|branch| match branches(branch) {
            Some(nested) => flatten(nested),
            None => vec![branch],
        })
        .collect()
}

fn type_fits(value: &DeValue<'_>, schema: &Value) -> bool {
    let wanted = schema["type"].as_str().unwrap_or("string");
    match value {
        DeValue::String(_) => wanted == "string" && schema.get("format").is_none(),
        DeValue::Integer(_) => wanted == "integer" || wanted == "number",
        DeValue::Boolean(_) => wanted == "boolean",
        DeValue::Datetime(at) => schema["format"] == "date-time" && at.date.is_some() && at.offset.is_some(),
        DeValue::Array(_) => wanted == "array",
        DeValue::Table(_) => wanted == "object",
        DeValue::Float(_) => wanted == "number",
    }
}

/// Makes text of a value whose type is number.
fn keep_decimal(value: &mut DeValue<'_>, schema: &Value) {
    let text = match &*value {
        _ if schema["type"] != "number" => return,
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_string(),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(String::new(), |it| it.to_string())
        }
        DeValue::Float(number) => number.as_str().to_string(),
        _ => return,
    };
    *value = DeValue::String(Cow::Owned(text));
}

fn scalar_fits(value: &DeValue<'_>, schema: &Value) -> bool {
    match value {
        DeValue::String(text) => {
            let long_enough = text.chars().count() as u64 >= schema["minLength"].as_u64().unwrap_or(0);
            let is_word = schema.get("enum").is_none() || words(schema).any(|word| *word == **text);
            long_enough && is_word && schema.get("const").is_none_or(|only| *only == **text)
        }
        DeValue::Integer(number) => {
            let Ok(number) = i64::from_str_radix(number.as_str(), number.radix()) else { return false };
            schema["minimum"].as_i64().is_none_or(|min| number >= min)
                && schema["maximum"].as_i64().is_none_or(|max| number <= max)
        }
        _ => true,
    }
}

/// Words that a string may be.
fn words(schema: &Value) -> impl Iterator<Item = &str> {
    let flat = branches(schema).map_or(vec![schema], flatten);
    flat.into_iter().flat_map(|branch| strings(&branch["enum"]).chain(branch["const"].as_str()))
}

fn keys(schema: &Value) -> impl Iterator<Item = &str> {
    schema["properties"].as_object().into_iter().flat_map(|known| known.keys().map(String::as_str))
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What `schema` allows, as the end of a sentence.
pub fn allowed(schema: &Value) -> String {
    if let Some(branches) = branches(schema) {
        let one_form = |branch: &Value| match words(branch).next() {
            Some(_) => words(branch).map(quoted).collect(),
            None => vec![allowed(branch)],
        };
        let forms: Vec<String> = flatten(branches).into_iter().flat_map(one_form).collect();
        return one_of(&forms);
    }
    let words: Vec<String> = words(schema).map(quoted).collect();
    if !words.is_empty() {
        return one_of(&words);
    }
    match schema["type"].as_str() {
        Some("integer") => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
            (Some(min), Some(max)) => format!("a number from {min} to {max}"),
            (Some(min), None) => format!("a number, at least {min}"),
            (None, Some(max)) => format!("a number, at most {max}"),
            (None, None) => "a number".to_string(),
        },
        Some("number") => "a number above 0, such as 12.50".to_string(),
        Some("boolean") => "true or false".to_string(),
        Some("array") => format!("a list of {}", plural(&schema["items"])),
        Some("object") => {
            let required: Vec<String> = strings(&schema["required"]).map(|key| form(key, schema)).collect();
            match required.is_empty() {
                true => "a table".to_string(),
                false => format!("{{ {} }}", required.join(", ")),
            }
        }
        _ if schema["format"] == "date-time" => {
            "a date and time with its offset, such as 2027-01-31T00:00:00Z".to_string()
        }
        _ if schema["minLength"].as_u64() > Some(0) => "a string that is not empty".to_string(),
        _ => "a string".to_string(),
    }
}

/// `key = "..."` in the form that its type is written in.
fn form(key: &str, table: &Value) -> String {
    match table["properties"][key]["type"].as_str() {
        Some("object") => format!("{key} = {{ ... }}"),
        Some("array") => format!("{key} = [ ... ]"),
        Some("number") => format!("{key} = 12.50"),
        _ => format!("{key} = \"...\""),
    }
}

fn plural(items: &Value) -> String {
    let words: Vec<String> = words(items).map(quoted).collect();
    match items["type"].as_str() {
        _ if !words.is_empty() => one_of(&words),
        Some("string") => "strings".to_string(),
        Some("object") => "tables".to_string(),
        _ => allowed(items),
    }
}

/// The remedy of a key, and the default that removing it gives.
fn hint(schema: &Value) -> String {
    let hinted = std::iter::once(schema).chain(branches(schema).into_iter().flatten());
    let hint = hinted.filter_map(|schema| schema["x-hint"].as_str()).next();
    match (hint, &schema["default"]) {
        (Some(hint), _) => format!("; {hint}"),
        (None, Value::Number(_) | Value::Bool(_) | Value::String(_)) => {
            format!("; default: {}", schema["default"])
        }
        _ => String::new(),
    }
}

/// The value as a message shows it.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => cut(&number.to_string()),
        DeValue::Float(number) => cut(&number.to_string()),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(at) => at.to_string(),
        DeValue::Array(_) | DeValue::Table(_) => kind(value).to_string(),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "this table",
    }
}

fn cut(text: &str) -> String {
    // A number as the parser hands it over may hold anything.
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

fn insert(table: &mut DeTable<'_>, name: &str, value: DeValue<'static>) {
    table.insert(Spanned::new(0..0, Cow::Owned(name.to_string())), Spanned::new(0..0, value));
}

/// A value that deserializes; what it says is not looked at.
fn placeholder(schema: &Value) -> DeValue<'static> {
    if let Some(first) = branches(schema).and_then(|branches| branches.first()) {
        return placeholder(first);
    }
    match schema["type"].as_str() {
        Some("integer") => DeValue::parse("1").map_or_else(|_| DeValue::Boolean(false), Spanned::into_inner),
        Some("boolean") => DeValue::Boolean(false),
        Some("array") => DeValue::Array(Default::default()),
        Some("object") => {
            let mut table = DeTable::new();
            for name in strings(&schema["required"]) {
                insert(&mut table, name, placeholder(&schema["properties"][name]));
            }
            DeValue::Table(table)
        }
        _ => DeValue::String(Cow::Owned(words(schema).next().unwrap_or_default().to_string())),
    }
}
