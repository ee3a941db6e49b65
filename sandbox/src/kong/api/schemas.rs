//! `/schemas`.

use std::rc::Rc;

use serde_json::json;

use super::{Answer, body, crud};
use crate::kong::db::{ApiError, KINDS};
use crate::kong::nginx::Incoming;
use crate::kong::node::Node;

fn missing(what: &str, name: &str) -> ApiError {
    ApiError { status: 404, body: json!({"message": format!("No {what} named '{name}'")}) }
}

/// The schema of a loaded plugin.
pub fn plugin(node: &Rc<Node>, name: &str) -> Answer {
    if name == "validate" {
        return Err(ApiError::method_not_allowed());
    }
    let schema = node.engine.schema("plugins", name).map_err(|_| ApiError::unexpected())?;
    schema.map(|schema| (200, schema)).ok_or_else(|| missing("plugin", name))
}

/// The schema of one of Kong's own entities.
pub fn entity(node: &Rc<Node>, name: &str) -> Answer {
    let schema = node.engine.schema("entities", name).map_err(|_| ApiError::unexpected())?;
    schema.map(|schema| (200, schema)).ok_or_else(|| missing("entity", name))
}

/// Validates an entity without storing it.
pub fn validate(node: &Rc<Node>, request: &Incoming, kind: &str) -> Answer {
    if !KINDS.contains(&kind) {
        return Err(missing("entity", kind));
    }
    let fields = body::decode(request)?;
    node.engine.insert(kind, &fields.value, fields.textual).map_err(crud::refused)?;
    Ok((200, json!({"message": "schema validation successful"})))
}
