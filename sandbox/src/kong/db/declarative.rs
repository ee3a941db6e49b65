//! Declarative configuration: YAML or JSON with all entities of a node.

use serde_json::{Map, Value, json};

use super::operations::lua_text;
use super::{Data, KINDS};
use crate::kong::encoding;

/// Why a declarative configuration was refused.
#[derive(Debug)]
pub struct ParseError {
    /// Kong's text for a person, nested by indentation.
    pub text: String,
    /// Errors by entity and field, for the Admin API; absent when the text is no YAML.
    pub fields: Option<Value>,
}

impl ParseError {
    fn plain(text: String) -> Self {
        Self { text, fields: None }
    }

    /// The `message` of the Admin API's answer.
    pub fn message(&self) -> String {
        match &self.fields {
            Some(fields) => format!("declarative config is invalid: {}", lua_text(fields)),
            None => self.text.clone(),
        }
    }
}

/// Completes one entity: kind and fields in, the whole entity or errors by field out.
pub type Validate<'a> = dyn FnMut(&str, Value) -> Result<Value, Value> + 'a;

/// Reads a configuration; `validate` applies the schemas.
pub fn parse(text: &str, validate: &mut Validate<'_>) -> Result<Data, ParseError> {
    let root: Value = serde_norway::from_str(text)
        .map_err(|error| ParseError::plain(format!("failed parsing declarative configuration: {error}")))?;
    let Value::Object(mut root) = root else {
        return Err(ParseError::plain("expected an object".to_owned()));
    };
    let version = root.remove("_format_version");
    let version = version
        .as_ref()
        .and_then(|v| v.as_str().map(str::to_owned).or_else(|| v.as_f64().map(|n| format!("{n:.1}"))));
    let mut errors = Map::new();
    match version.as_deref() {
        Some("1.1" | "2.1" | "3.0") => {}
        Some(_) => {
            errors.insert("_format_version".to_owned(), json!("expected one of: 1.1, 2.1, 3.0"));
        }
        None => {
            errors.insert("_format_version".to_owned(), json!("required field missing"));
        }
    }
    root.remove("_transform");
    root.remove("_comment");
    root.remove("_info");
    let mut data = Data { hash: encoding::md5(text.as_bytes()), ..Data::default() };
    for kind in KINDS {
        if let Some(Value::Array(entries)) = root.remove(kind) {
            let found = load_list(&mut data, kind, entries, None, validate);
            if !found.is_empty() {
                errors.insert(kind.to_owned(), Value::Array(found));
            }
        }
    }
    for (key, _) in root.iter().filter(|(key, _)| !OTHER_KINDS.contains(&key.as_str())) {
        errors.insert(key.clone(), json!("unknown field"));
    }
    if errors.is_empty() {
        if data.entities.values().all(std::collections::BTreeMap::is_empty) {
            super::EMPTY_HASH.clone_into(&mut data.hash);
        }
        return Ok(data);
    }
    let fields = Value::Object(errors);
    Err(ParseError { text: explain(&fields, 0), fields: Some(fields) })
}

/// Top-level lists that Kong knows and the stand-in has no use for.
const OTHER_KINDS: [&str; 10] = [
    "upstreams",
    "targets",
    "certificates",
    "snis",
    "ca_certificates",
    "vaults",
    "keys",
    "key_sets",
    "filter_chains",
    "acls",
];

/// Loads one list; the result has an entry per bad entity, `null` for good ones before it.
fn load_list(
    data: &mut Data,
    kind: &str,
    entries: Vec<Value>,
    parent: Option<(&str, &str)>,
    validate: &mut Validate<'_>,
) -> Vec<Value> {
    let mut errors = Vec::new();
    for (index, mut entry) in entries.into_iter().enumerate() {
        let mut nested = Vec::new();
        if let Some(fields) = entry.as_object_mut() {
            for inner in ["routes", "plugins", "keyauth_credentials"] {
                let applies = !matches!((kind, inner), ("plugins", _) | ("routes" | "consumers", "routes"));
                if applies && let Some(Value::Array(list)) = fields.remove(inner) {
                    nested.push((inner, list));
                }
            }
            if let Some((field, id)) = parent {
                fields.insert(field.to_owned(), json!({"id": id}));
            }
            for field in ["service", "route", "consumer"] {
                if let Some(Value::String(name)) = fields.get(field) {
                    let target = data.find(&format!("{field}s"), name).map(|target| target["id"].clone());
                    let reference = json!({"id": target.unwrap_or(json!(name))});
                    fields.insert(field.to_owned(), reference);
                }
            }
            if !fields.contains_key("id") {
                fields.insert("id".to_owned(), json!(stable_id(kind, fields)));
            }
        }
        let mut problems = Map::new();
        match validate(kind, entry) {
            Ok(entity) => {
                let id = entity["id"].as_str().unwrap_or_default().to_owned();
                match data.put(kind, entity) {
                    Ok(_) => {
                        let field = kind.trim_end_matches('s');
                        for (inner, list) in nested {
                            let found = load_list(data, inner, list, Some((field, &id)), validate);
                            if !found.is_empty() {
                                problems.insert(inner.to_owned(), Value::Array(found));
                            }
                        }
                    }
                    Err(error) => {
                        let message = error.body["message"].clone();
                        problems.insert("@entity".to_owned(), json!([message]));
                    }
                }
            }
            Err(Value::Object(found)) => problems.extend(found),
            Err(other) => {
                problems.insert("@entity".to_owned(), json!([other]));
            }
        }
        if !problems.is_empty() {
            errors.resize(index, Value::Null);
            errors.push(Value::Object(problems));
        }
    }
    errors
}

/// The same entity in the same file has the same id on every node.
fn stable_id(kind: &str, fields: &Map<String, Value>) -> String {
    let hash = encoding::md5(format!("{kind}:{}", Value::Object(fields.clone())).as_bytes());
    format!("{}-{}-5{}-a{}-{}", &hash[..8], &hash[8..12], &hash[13..16], &hash[17..20], &hash[20..32])
}

/// Kong's indented rendering of the errors of a file.
fn explain(value: &Value, depth: usize) -> String {
    let pad = "  ".repeat(depth);
    let Value::Object(entries) = value else { return String::new() };
    let mut lines = Vec::new();
    for (key, item) in entries {
        match item {
            Value::String(text) => lines.push(format!("{pad}in '{key}': {text}")),
            Value::Array(items) if key == "@entity" => {
                lines.extend(items.iter().map(|text| format!("{pad}{}", text.as_str().unwrap_or_default())));
            }
            Value::Array(items) => {
                lines.push(format!("{pad}in '{key}':"));
                for (index, inner) in items.iter().enumerate().filter(|(_, inner)| !inner.is_null()) {
                    match inner {
                        Value::String(text) => {
                            lines.push(format!("{pad}  - in entry {} of '{key}': {text}", index + 1))
                        }
                        _ => {
                            lines.push(format!("{pad}  - in entry {} of '{key}':", index + 1));
                            lines.push(explain(inner, depth + 2));
                        }
                    }
                }
            }
            Value::Object(_) => {
                lines.push(format!("{pad}in '{key}':"));
                lines.push(explain(item, depth + 1));
            }
            _ => {}
        }
    }
    lines.join("\n")
}
