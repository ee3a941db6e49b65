//! Services, routes, consumers, plugins: `/KIND`, `/KIND/{key}`, and both below a parent.

use std::rc::Rc;

use http::Method;
use serde_json::{Value, json};

use super::{Answer, body};
use crate::kong::db::{ApiError, Data, PageQuery, Scope};
use crate::kong::lua::Refusal;
use crate::kong::nginx::Incoming;
use crate::kong::node::Node;

/// The collection a path segment names, with the field by which a child refers to it.
fn kind_of(segment: &str) -> Option<(&'static str, &'static str)> {
    Some(match segment {
        "services" => ("services", "service"),
        "routes" => ("routes", "route"),
        "consumers" => ("consumers", "consumer"),
        "plugins" => ("plugins", "plugin"),
        "key-auth" | "key-auths" => ("keyauth_credentials", "credential"),
        _ => return None,
    })
}

/// A request to one collection, perhaps below a parent.
struct Target<'a> {
    node: &'a Node,
    request: &'a Incoming,
    kind: &'static str,
    /// Field and id of the parent.
    parent: Option<(&'static str, String)>,
    /// Path of the collection, for `next`.
    path: String,
}

/// Serves a path; `None` when it names no collection of Kong's.
pub fn handle(node: &Rc<Node>, request: &Incoming, segments: &[&str]) -> Option<Answer> {
    let key_auth = || node.engine.host().conf.loaded_plugins().iter().any(|name| name == "key-auth");
    let known = |segment: &str| {
        let found = kind_of(segment)?;
        (found.0 != "keyauth_credentials" || key_auth()).then_some(found)
    };
    let (first, field) = known(segments.first()?)?;
    let target = |kind, parent, path| Target { node, request, kind, parent, path };
    Some(match segments {
        [_] => target(first, None, format!("/{}", segments[0])).collection(),
        [_, key] => target(first, None, String::new()).member(key),
        [_, key, child] | [_, key, child, _] => {
            let (kind, _) = known(child)?;
            let nests = matches!(
                (first, kind),
                ("services", "routes" | "plugins")
                    | ("routes", "plugins")
                    | ("consumers", "plugins" | "keyauth_credentials")
            );
            if !nests {
                return Some(foreign(node, first, key, child));
            }
            let parent = match read(node) {
                Ok(data) => data.find(first, key).and_then(|parent| parent["id"].as_str()).map(str::to_owned),
                Err(error) => return Some(Err(error)),
            };
            let Some(parent) = parent else { return Some(Err(ApiError::not_found())) };
            let path = format!("/{}/{key}/{child}", segments[0]);
            let target = target(kind, Some((field, parent)), path);
            match segments.get(3) {
                Some(key) => target.member(key),
                None => target.collection(),
            }
        }
        _ => return None,
    })
}

fn read(node: &Node) -> Result<Rc<Data>, ApiError> {
    Ok(node.store().read()?)
}

/// `/plugins/{id}/service` and its like: the entity another one refers to.
fn foreign(node: &Node, kind: &str, key: &str, field: &str) -> Answer {
    let data = read(node)?;
    let entity = data.find(kind, key).ok_or_else(ApiError::not_found)?;
    let id = entity[field]["id"].as_str().ok_or_else(ApiError::not_found)?;
    let found = data.find(&format!("{field}s"), id).ok_or_else(ApiError::not_found)?;
    Ok((200, found.clone()))
}

impl Target<'_> {
    fn collection(&self) -> Answer {
        match self.request.parts.method {
            Method::GET | Method::HEAD => self.list(),
            Method::POST => self.create(),
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    fn member(&self, key: &str) -> Answer {
        let key = body::unescape(key);
        match self.request.parts.method {
            Method::GET | Method::HEAD => {
                let data = read(self.node)?;
                let stored = self.in_scope(&data, &key).ok_or_else(ApiError::not_found)?;
                let read = self.as_read(vec![stored.clone()])?;
                read.into_iter().next().map(|entity| (200, entity)).ok_or_else(ApiError::not_found)
            }
            Method::PATCH => self.update(&key),
            Method::PUT => self.upsert(&key),
            Method::DELETE => self.delete(&key),
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    /// The entity of that key, if it hangs on the parent of the path.
    fn in_scope<'d>(&self, data: &'d Data, key: &str) -> Option<&'d Value> {
        let entity = data.find(self.kind, key)?;
        let fits = self.parent.as_ref().is_none_or(|(field, id)| entity[field]["id"].as_str() == Some(id));
        fits.then_some(entity)
    }

    fn as_read(&self, stored: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        self.node.engine.read(self.kind, stored).map_err(|error| refused(Refusal::Thrown(error.to_string())))
    }

    fn list(&self) -> Answer {
        let args = body::form(self.request.parts.uri.query().unwrap_or_default());
        let arg = |name: &str| args[name].as_str().map(str::to_owned);
        let query = PageQuery { size: arg("size"), offset: arg("offset"), tags: arg("tags") };
        let scope: Scope<'_> = self.parent.as_ref().map(|(field, id)| (*field, id.as_str()));
        let page = read(self.node)?.page(self.kind, scope, &query)?;
        let mut answer = json!({"data": self.as_read(page.data)?, "next": null});
        if let Some(offset) = page.offset {
            let mut next = format!("{}?offset={offset}", self.path);
            if self.parent.is_none() {
                for (name, value) in [("tags", &query.tags), ("size", &query.size)] {
                    if let Some(value) = value {
                        next.push_str(&format!("&{name}={value}"));
                    }
                }
            }
            answer["next"] = json!(next);
            answer["offset"] = json!(offset);
        }
        Ok((200, answer))
    }

    /// The decoded body, tied to the parent of the path.
    fn fields(&self) -> Result<body::Decoded, ApiError> {
        let mut decoded = body::decode(self.request)?;
        if let Some((field, id)) = &self.parent {
            decoded.value[*field] = json!({"id": id});
        }
        Ok(decoded)
    }

    fn writable(&self, verb: &str) -> Result<(), ApiError> {
        if self.node.store().is_writable() { Ok(()) } else { Err(ApiError::no_database(verb, self.kind)) }
    }

    fn create(&self) -> Answer {
        self.writable("create")?;
        let fields = self.fields()?;
        let entity = self.node.engine.insert(self.kind, &fields.value, fields.textual).map_err(refused)?;
        let entity = self.commit(|data| {
            let id = entity["id"].as_str().unwrap_or_default();
            if data.entities.get(self.kind).is_some_and(|table| table.contains_key(id)) {
                return Err(ApiError::duplicate_id(id));
            }
            data.put(self.kind, entity.clone())
        })?;
        Ok((201, entity))
    }

    fn update(&self, key: &str) -> Answer {
        self.writable("update")?;
        let patch = self.fields()?;
        let entity = self.commit(|data| {
            let stored = self.in_scope(data, key).ok_or_else(ApiError::not_found)?;
            let merged =
                self.node.engine.update(self.kind, stored, &patch.value, patch.textual).map_err(refused)?;
            data.put(self.kind, merged)
        })?;
        Ok((200, entity))
    }

    fn upsert(&self, key: &str) -> Answer {
        self.writable("create or update")?;
        let mut fields = self.fields()?;
        let entity = self.commit(|data| {
            let stored = self.in_scope(data, key);
            let is_id = uuid::Uuid::parse_str(key).is_ok();
            match (stored, is_id) {
                (Some(stored), _) => {
                    fields.value["id"] = stored["id"].clone();
                    if fields.value.get("created_at").is_none() {
                        fields.value["created_at"] = stored["created_at"].clone();
                    }
                }
                (None, true) => fields.value["id"] = json!(key),
                (None, false) => {
                    let name = match self.kind {
                        "consumers" => "username",
                        "plugins" => "instance_name",
                        _ => "name",
                    };
                    fields.value[name] = json!(key);
                }
            }
            let entity =
                self.node.engine.insert(self.kind, &fields.value, fields.textual).map_err(refused)?;
            data.put(self.kind, entity)
        })?;
        Ok((200, entity))
    }

    fn delete(&self, key: &str) -> Answer {
        self.writable("remove")?;
        self.commit(|data| {
            let Some(id) =
                self.in_scope(data, key).and_then(|entity| entity["id"].as_str()).map(str::to_owned)
            else {
                return Ok(());
            };
            data.delete(self.kind, &id)
        })?;
        Ok((204, Value::Null))
    }

    fn commit<T>(&self, change: impl FnOnce(&mut Data) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let result = self.node.store().write(change)?;
        self.node.shared.bump_config();
        Ok(result)
    }
}

/// A schema's refusal as the Admin API words it.
pub fn refused(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Fields(fields) => ApiError::schema_violation(fields),
        Refusal::Thrown(error) => {
            crate::kong::log::write(
                "error",
                &format!("*2 [lua] api_helpers.lua:526: handle_error(): {error}"),
            );
            ApiError::unexpected()
        }
    }
}
