//! The JSON schema of the config and its reference page, both derived from the types of `raw`.
//!
//! The schema is what `shape` enforces, what an editor can use (`conf/tollgate.schema.json`) and what
//! `conf/REFERENCE.md` is written from; a test checks that the committed files are current. TOML has no null,
//! so an optional key is a key that is not required, and its schema is that of its value.

use crate::control::config::raw;
use crate::control::config::shape;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::OnceLock;

/// The schema of the main file.
pub fn of_file() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(of::<raw::File>)
}

/// The schema of a file named by `include`.
pub fn of_included_file() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(of::<raw::IncludedFile>)
}

/// The schema of the main file as text: `conf/tollgate.schema.json`.
pub fn json() -> String {
    let mut text = serde_json::to_string_pretty(of_file()).unwrap_or_default();
    text.push('\n');
    text
}

/// The reference of all keys in Markdown: `conf/REFERENCE.md`.
pub fn reference() -> String {
    let mut page = String::from(REFERENCE_HEAD);
    let sections = of_file()["properties"].as_object().into_iter().flatten();
    for (name, schema) in sections {
        let (title, table) = match (schema["type"].as_str(), &schema["items"]) {
            (Some("array"), items) if items["type"] == "object" => (format!("`[[{name}]]`"), items),
            (Some("object"), _) => (format!("`[{name}]`"), schema),
            _ => (format!("`{name}`"), &Value::Null),
        };
        let _ = write!(page, "\n## {title}\n\n{}\n", text(&schema["description"]));
        if table.is_null() {
            let _ = write!(page, "\nAllowed: {}.\n", shape::allowed(schema));
            continue;
        }
        let _ = write!(page, "\n| key | allowed | default | meaning |\n| --- | --- | --- | --- |\n");
        rows(&mut page, "", table);
    }
    let mut shared = BTreeMap::new();
    shared_tables(of_file(), &mut shared);
    for (name, table) in shared {
        let _ = write!(page, "\n## Table `{name}`\n\n{}\n", text(&table["x-about"]));
        let _ = write!(page, "\n| key | allowed | default | meaning |\n| --- | --- | --- | --- |\n");
        rows(&mut page, "", table);
    }
    page
}

/// Tables that stand in several sections (`x-table` is their name, `x-about` what they are for): the
/// page has them once, at its end.
fn shared_tables<'s>(schema: &'s Value, found: &mut BTreeMap<&'s str, &'s Value>) {
    if let Some(name) = schema["x-table"].as_str() {
        found.insert(name, schema);
    }
    let below = schema.as_object().into_iter().flat_map(|map| map.values());
    let items = schema.as_array().into_iter().flatten();
    below.chain(items).for_each(|below| shared_tables(below, found));
}

const REFERENCE_HEAD: &str = "\
# Configuration reference

Written from the types in `src/control/config/raw.rs`; do not edit it by hand. `conf/tollgate.toml`
shows every key in its place, `conf/examples/` whole configurations, `conf/tollgate.schema.json` is
the schema for an editor.

Paths of files are relative to the file that names them. Times are milliseconds, sizes are bytes. An
unknown key is an error. Credentials are never written into the file: `{ env = \"NAME\" }` names an
environment variable and `{ file = \"PATH\" }` a file; both are read again on every reload.
`tollgate check` judges the file and only warns of what this machine lacks (variables, files);
`tollgate run` refuses to start without them.
";

/// One line for each key of `table`, and those of the tables below it.
fn rows(page: &mut String, before: &str, table: &Value) {
    let required: Vec<&Value> = table["required"].as_array().into_iter().flatten().collect();
    for (name, schema) in table["properties"].as_object().into_iter().flatten() {
        let default = match &schema["default"] {
            _ if required.iter().any(|key| *key == name) => "required".to_string(),
            Value::Null | Value::Object(_) => String::new(),
            Value::Array(items) if items.is_empty() => String::new(),
            default => format!("`{default}`"),
        };
        let allowed = cell(&shape::allowed(schema));
        let meaning = cell(&text(&schema["description"]));
        let _ = writeln!(page, "| `{before}{name}` | {allowed} | {default} | {meaning} |");
        let forms = schema["oneOf"].as_array().into_iter().flatten();
        if schema["x-table"].is_string() {
            continue;
        }
        let nested = forms.filter(|form| form["properties"].as_object().is_some_and(holds_a_table));
        for table in nested.chain(Some(schema).filter(|schema| schema["type"] == "object")) {
            rows(page, &format!("{before}{name}."), table);
        }
        if schema["items"]["type"] == "object" {
            rows(page, &format!("{before}{name}[]."), &schema["items"]);
        }
    }
}

fn holds_a_table(properties: &Map<String, Value>) -> bool {
    properties.values().any(|schema| schema["type"] == "object")
}

fn text(description: &Value) -> String {
    description.as_str().unwrap_or_default().to_string()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    without_null(&mut schema);
    schema
}

/// Takes null out of every choice, joins the lines of descriptions, drops defaults that say nothing.
fn without_null(schema: &mut Value) {
    let Value::Object(map) = schema else {
        if let Value::Array(items) = schema {
            items.iter_mut().for_each(without_null);
        }
        return;
    };
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|name| name != "null");
        if let Some(only) = types.first().filter(|_| types.len() == 1).cloned() {
            map.insert("type".to_string(), only);
        }
    }
    if let Some(Value::Array(words)) = map.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if let Some(Value::Array(branches)) = map.get_mut("anyOf") {
        branches.retain(|branch| branch["type"] != "null");
        if let [Value::Object(only)] = &mut branches[..] {
            let only = std::mem::take(only);
            map.remove("anyOf");
            for (key, value) in only {
                map.entry(key).or_insert(value);
            }
        }
    }
    map.values_mut().for_each(without_null);
}
