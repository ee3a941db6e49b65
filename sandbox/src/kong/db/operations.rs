//! What the Admin API does to the datastore, with Kong's errors.

use serde_json::{Map, Value, json};

use super::{ApiError, Data, KINDS, Store};
use crate::kong::encoding;

/// Limits a list to the entities of one parent: `("service", id)`.
pub type Scope<'a> = Option<(&'a str, &'a str)>;

/// The query of a list request.
#[derive(Debug, Default)]
pub struct PageQuery {
    /// `size`, as written.
    pub size: Option<String>,
    /// `offset`, as written.
    pub offset: Option<String>,
    /// `tags`, as written: `a,b` asks for both, `a/b` for one of them.
    pub tags: Option<String>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// The entities.
    pub data: Vec<Value>,
    /// Where the next page starts, if there is one.
    pub offset: Option<String>,
}

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: i64 = 1000;

impl Data {
    /// One entity by id or by its own name field.
    pub fn find(&self, kind: &str, key: &str) -> Option<&Value> {
        let table = self.entities.get(kind)?;
        if let Some(entity) = table.get(key) {
            return Some(entity);
        }
        let field = name_field(kind)?;
        table.values().find(|entity| entity[field].as_str() == Some(key))
    }

    /// A page of entities in id order.
    pub fn page(&self, kind: &str, scope: Scope<'_>, query: &PageQuery) -> Result<Page, ApiError> {
        let size = match &query.size {
            None => DEFAULT_PAGE,
            Some(text) => {
                let invalid = |message: &str| ApiError::coded(400, 9, "invalid size", message.to_owned());
                let number: f64 = text.parse().map_err(|_| invalid("size must be a number"))?;
                // The range check makes the conversion exact.
                #[allow(clippy::cast_possible_truncation)]
                let number = if number.fract() == 0.0 { number as i64 } else { 0 };
                if !(1..=MAX_PAGE).contains(&number) {
                    return Err(invalid("size must be an integer between 1 and 1000"));
                }
                usize::try_from(number).unwrap_or(DEFAULT_PAGE)
            }
        };
        let after = match &query.offset {
            None => None,
            Some(text) => Some(decode_offset(text)?),
        };
        let wanted = |entity: &&Value| {
            scope.is_none_or(|(field, id)| entity[field]["id"].as_str() == Some(id))
                && query.tags.as_deref().is_none_or(|tags| has_tags(entity, tags))
                && after.as_deref().is_none_or(|after| entity["id"].as_str().is_some_and(|id| id > after))
        };
        let mut data: Vec<Value> = self.all(kind).filter(wanted).take(size + 1).cloned().collect();
        let more = data.len() > size;
        data.truncate(size);
        let last = data.last().and_then(|entity| entity["id"].as_str()).unwrap_or_default().to_owned();
        let offset = more.then(|| {
            encoding::base64(json!([last]).to_string().as_bytes())
                .trim_end_matches('=')
                .replace('+', "-")
                .replace('/', "_")
        });
        Ok(Page { data, offset })
    }

    /// Puts an entity in place of whatever has its id, after the checks a database makes.
    pub fn put(&mut self, kind: &str, mut entity: Value) -> Result<Value, ApiError> {
        for field in ["service", "route", "consumer"] {
            self.resolve_foreign(&mut entity, field)?;
        }
        self.check_unique(kind, &entity)?;
        let id = entity["id"].as_str().unwrap_or_default().to_owned();
        self.entities.entry(kind.to_owned()).or_default().insert(id, entity.clone());
        Ok(entity)
    }

    /// Removes an entity and what hangs on it; a service that has routes stays.
    pub fn delete(&mut self, kind: &str, id: &str) -> Result<(), ApiError> {
        let field = kind.trim_end_matches('s');
        let refers = |entity: &Value| entity[field]["id"].as_str() == Some(id);
        if kind == "services" && self.all("routes").any(refers) {
            let message = "an existing 'routes' entity references this 'services' entity".to_owned();
            let error = ApiError::coded(400, 4, "foreign key violation", message);
            return Err(error.with_fields(json!({"@referenced_by": "routes"})));
        }
        for dependent in ["plugins", "keyauth_credentials"] {
            if let Some(table) = self.entities.get_mut(dependent) {
                table.retain(|_, entity| !refers(entity));
            }
        }
        if let Some(table) = self.entities.get_mut(kind) {
            table.remove(id);
        }
        Ok(())
    }

    /// `{"name": "s1"}` becomes `{"id": …}`; what refers to nothing is refused.
    fn resolve_foreign(&self, entity: &mut Value, field: &str) -> Result<(), ApiError> {
        let kind = format!("{field}s");
        let Some(reference) = entity.get(field).filter(|reference| !reference.is_null()).cloned() else {
            return Ok(());
        };
        if !KINDS.contains(&kind.as_str()) {
            return Ok(());
        }
        let key =
            reference["id"].as_str().or_else(|| name_field(&kind).and_then(|name| reference[name].as_str()));
        match key.and_then(|key| self.find(&kind, key)) {
            Some(target) => {
                entity[field] = json!({"id": target["id"]});
                Ok(())
            }
            None => {
                let message = format!(
                    "the foreign key '{}' does not reference an existing '{kind}' entity.",
                    lua_text(&reference)
                );
                let error = ApiError::coded(400, 4, "foreign key violation", message);
                Err(error.with_fields(json!({field: reference})))
            }
        }
    }

    fn check_unique(&self, kind: &str, entity: &Value) -> Result<(), ApiError> {
        let keys: &[&[&str]] = match kind {
            "plugins" => &[&["consumer", "name", "route", "service"], &["instance_name"]],
            "services" | "routes" => &[&["name"]],
            "consumers" => &[&["username"], &["custom_id"]],
            _ => &[&["key"]],
        };
        for key in keys {
            if key.len() == 1 && entity[key[0]].is_null() {
                continue;
            }
            let same = |other: &&Value| {
                other["id"] != entity["id"] && key.iter().all(|field| other[*field] == entity[*field])
            };
            if self.all(kind).any(|other| same(&other)) {
                let fields: Map<String, Value> =
                    key.iter().map(|field| ((*field).to_owned(), entity[*field].clone())).collect();
                let fields = Value::Object(fields);
                let message = format!("UNIQUE violation detected on '{}'", lua_text(&fields));
                return Err(
                    ApiError::coded(409, 5, "unique constraint violation", message).with_fields(fields)
                );
            }
        }
        Ok(())
    }
}

impl Store {
    /// Whether the Admin API may write here.
    pub fn is_writable(&self) -> bool {
        self.shared
    }
}

/// The field by which an entity can be named in a path.
fn name_field(kind: &str) -> Option<&'static str> {
    match kind {
        "services" | "routes" => Some("name"),
        "consumers" => Some("username"),
        "plugins" => Some("instance_name"),
        _ => None,
    }
}

fn has_tags(entity: &Value, wanted: &str) -> bool {
    let tags: Vec<&str> = entity["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if wanted.contains('/') {
        wanted.split('/').any(|tag| tags.contains(&tag))
    } else {
        wanted.split(',').all(|tag| tags.contains(&tag))
    }
}

fn decode_offset(text: &str) -> Result<String, ApiError> {
    let invalid = |why: &str| {
        ApiError::coded(400, 7, "invalid offset", format!("'{text}' is not a valid offset: {why}"))
    };
    let bytes = encoding::base64_decode(text).ok_or_else(|| invalid("bad base64 encoding"))?;
    let ids: Vec<String> = serde_json::from_slice(&bytes).map_err(|_| invalid("bad base64 encoding"))?;
    ids.into_iter().next().ok_or_else(|| invalid("bad base64 encoding"))
}

/// A value as Kong's messages print Lua tables: `{consumer=null,name="golden"}`.
pub fn lua_text(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let mut keys: Vec<_> = entries.keys().collect();
            keys.sort();
            let parts: Vec<String> =
                keys.iter().map(|key| format!("{key}={}", lua_text(&entries[*key]))).collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(lua_text).collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}
