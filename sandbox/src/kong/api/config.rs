//! `/config` of a node without a database.

use std::rc::Rc;

use http::Method;
use serde_json::{Map, Value, json};

use super::{Answer, body};
use crate::kong::db::{ApiError, Data};
use crate::kong::lua::host::parse_with;
use crate::kong::nginx::Incoming;
use crate::kong::node::Node;

/// Shows or replaces the configuration.
pub fn handle(node: &Rc<Node>, request: &Incoming) -> Answer {
    if node.store().is_shared() {
        return Err(ApiError {
            status: 400,
            body: json!({"message": "this endpoint is only available when Kong is configured to not use a database"}),
        });
    }
    match request.parts.method {
        Method::GET => {
            let data = node.store().read()?;
            let mut root = Map::new();
            root.insert("_format_version".to_owned(), json!("3.0"));
            for kind in data.entities.keys() {
                root.insert(kind.clone(), data.all(kind).cloned().collect());
            }
            let yaml = serde_norway::to_string(&Value::Object(root)).unwrap_or_default();
            Ok((200, json!({"config": yaml})))
        }
        Method::POST => replace(node, request),
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn replace(node: &Rc<Node>, request: &Incoming) -> Answer {
    let kind = request.content_type();
    let raw = String::from_utf8_lossy(&request.body).into_owned();
    let text = if kind.starts_with("application/json") {
        let value: Value = serde_json::from_str(&raw)
            .map_err(|_| ApiError { status: 400, body: json!({"message": "Cannot parse JSON body"}) })?;
        value["config"].as_str().map_or(raw, str::to_owned)
    } else if kind.starts_with("application/x-www-form-urlencoded") {
        body::form(&raw)["config"].as_str().unwrap_or_default().to_owned()
    } else {
        raw
    };
    let parsed = parse_with(node.engine.lua(), &text)
        .map_err(|error| ApiError::invalid_declarative(error.message(), error.fields))?;
    let shown = parsed.clone();
    node.store().write(|data: &mut Data| -> Result<(), ApiError> {
        data.entities = parsed.entities;
        data.hash = parsed.hash;
        Ok(())
    })?;
    node.shared.bump_config();
    node.adopt(&node.store().read()?);
    let entities: Map<String, Value> = shown
        .entities
        .into_iter()
        .map(|(kind, table)| (kind, Value::Object(table.into_iter().collect())))
        .collect();
    Ok((201, Value::Object(entities)))
}
