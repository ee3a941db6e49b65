//! The Admin API's errors, numbered and worded as Kong's datastore layer does.

use std::io;

use serde_json::{Value, json};

/// An answer other than success: status and JSON body.
#[derive(Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Response body.
    pub body: Value,
}

impl From<io::Error> for ApiError {
    fn from(_: io::Error) -> Self {
        Self::unexpected()
    }
}

impl ApiError {
    /// 500, as for anything Kong did not foresee.
    pub fn unexpected() -> Self {
        Self { status: 500, body: json!({"message": "An unexpected error occurred"}) }
    }

    /// 404 for an entity or a route.
    pub fn not_found() -> Self {
        Self { status: 404, body: json!({"message": "Not found"}) }
    }

    /// 405 for a verb.
    pub fn method_not_allowed() -> Self {
        Self { status: 405, body: json!({"message": "Method not allowed"}) }
    }

    /// 400 with the errors of a schema by field.
    pub fn schema_violation(fields: Value) -> Self {
        let mut parts = Vec::new();
        flatten("", &fields, &mut parts);
        parts.sort();
        let count = parts.len();
        let head =
            if count == 1 { "schema violation".to_owned() } else { format!("{count} schema violations") };
        let message = format!("{head} ({})", parts.join("; "));
        Self {
            status: 400,
            body: json!({"message": message, "code": 2, "name": "schema violation", "fields": fields}),
        }
    }

    /// An error of Kong's datastore layer with its number.
    pub fn coded(status: u16, code: u8, name: &str, message: String) -> Self {
        Self { status, body: json!({"code": code, "name": name, "message": message}) }
    }

    /// The same with what it is about.
    pub fn with_fields(mut self, fields: Value) -> Self {
        self.body["fields"] = fields;
        self
    }

    /// 405 for a write to a node without a database.
    pub fn no_database(verb: &str, kind: &str) -> Self {
        let message = format!("cannot {verb} '{kind}' entities when not using a database");
        Self::coded(405, 12, "operation unsupported", message)
    }
}

/// `config.limit: value should be …` for every leaf; `@entity` has no name of its own.
fn flatten(path: &str, value: &Value, parts: &mut Vec<String>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(entries) => {
            for (key, item) in entries {
                if key == "@entity" {
                    let items = item.as_array().cloned().unwrap_or_default();
                    let own = |item: &Value| {
                        let text = item.as_str().unwrap_or_default();
                        if path.is_empty() { text.to_owned() } else { format!("{path}: {text}") }
                    };
                    parts.extend(items.iter().map(own));
                } else {
                    flatten(&join(key), item, parts);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.is_null()) {
                flatten(&join(&(index + 1).to_string()), item, parts);
            }
        }
        other => parts.push(format!("{path}: {}", other.as_str().unwrap_or_default())),
    }
}

impl ApiError {
    /// 409 for an id that is taken.
    pub fn duplicate_id(id: &str) -> Self {
        let message = format!("UNIQUE violation detected on '{{id=\"{id}\"}}'");
        Self::coded(409, 5, "unique constraint violation", message).with_fields(json!({"id": id}))
    }

    /// 400 for a declarative configuration.
    pub fn invalid_declarative(message: String, fields: Option<Value>) -> Self {
        let error = Self::coded(400, 14, "invalid declarative configuration", message);
        error.with_fields(fields.unwrap_or_else(|| json!({})))
    }
}
