//! Which tool the built-in provider calls, and with what: the first one, its required arguments filled in by
//! type.

use serde_json::{Map, Value, json};

/// Name and arguments; none where no tool is offered, tools are forbidden, or a result has come already.
pub fn to_call(request: &Value) -> Option<(String, Value)> {
    let choice = &request["tool_choice"];
    if choice.as_str() == Some("none") || choice["type"].as_str() == Some("none") || has_result(request) {
        return None;
    }
    let tool = request["tools"].as_array()?.iter().find(|tool| name(tool).is_some())?;
    let schema = [&tool["function"]["parameters"], &tool["parameters"], &tool["input_schema"]];
    let schema = schema.into_iter().find(|schema| schema.is_object()).unwrap_or(&Value::Null);
    Some((name(tool)?.to_owned(), example(schema, 0)))
}

fn name(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str().or(tool["name"].as_str())
}

fn has_result(request: &Value) -> bool {
    let items = [&request["messages"], &request["input"]];
    let last = items.into_iter().filter_map(|list| list.as_array()?.last()).next();
    let Some(last) = last else { return false };
    let is_block = |block: &Value| block["type"] == "tool_result";
    last["role"] == "tool"
        || last["type"] == "function_call_output"
        || last["content"].as_array().is_some_and(|blocks| blocks.iter().any(is_block))
}

/// A value that a schema allows, for the kinds of schema that tools have.
fn example(schema: &Value, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("string") => json!("example"),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([example(&schema["items"], depth + 1)]),
        Some("null") => Value::Null,
        _ => {
            let wanted = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fill = |name: &str| (name.to_owned(), example(&schema["properties"][name], depth + 1));
            Value::Object(wanted.map(fill).collect::<Map<_, _>>())
        }
    }
}

const DEPTH_MAX: usize = 8;
