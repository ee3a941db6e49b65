//! Request bodies: JSON and forms, as one JSON value.

use serde_json::{Map, Value, json};

use crate::kong::db::ApiError;
use crate::kong::nginx::Incoming;

/// A decoded body.
#[derive(Debug)]
pub struct Decoded {
    /// The fields.
    pub value: Value,
    /// Whether every value is text that the schema has to interpret.
    pub textual: bool,
}

/// Decodes a body by its content type.
pub fn decode(request: &Incoming) -> Result<Decoded, ApiError> {
    let kind = request.content_type();
    if request.body.is_empty() {
        return Ok(Decoded { value: json!({}), textual: false });
    }
    if kind.starts_with("application/json") || kind.is_empty() {
        let value: Value = serde_json::from_slice(&request.body)
            .map_err(|_| ApiError { status: 400, body: json!({"message": "Cannot parse JSON body"}) })?;
        // Lua has one kind of table, so an array is an object without named fields.
        let value = if value.is_object() { value } else { json!({}) };
        return Ok(Decoded { value, textual: false });
    }
    if kind.starts_with("application/x-www-form-urlencoded") {
        return Ok(Decoded { value: form(&String::from_utf8_lossy(&request.body)), textual: true });
    }
    Err(ApiError { status: 415, body: json!({"message": "Unsupported Media Type"}) })
}

/// `a.b=1&c[]=2&c[]=3` as nested fields.
pub fn form(text: &str) -> Value {
    let mut root = Value::Object(Map::new());
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        insert(&mut root, &unescape(key), unescape(value));
    }
    root
}

fn insert(root: &mut Value, key: &str, value: String) {
    let mut at = root;
    let parts: Vec<&str> = key.split('.').collect();
    for (depth, part) in parts.iter().enumerate() {
        let (name, list) = match part.split_once('[') {
            Some((name, _)) => (name, true),
            None => (*part, false),
        };
        let Some(fields) = at.as_object_mut() else { return };
        if depth + 1 == parts.len() {
            let slot = fields.entry(name).or_insert(if list { json!([]) } else { Value::Null });
            match slot {
                Value::Array(items) => items.push(Value::String(value)),
                earlier @ Value::Null => *earlier = Value::String(value),
                earlier => {
                    let first = earlier.take();
                    *earlier = json!([first, value]);
                }
            }
            return;
        }
        at = fields.entry(name).or_insert_with(|| json!({}));
    }
}

/// Undoes `%41` and `+`.
pub fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (other, _) => {
                out.push(other);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
