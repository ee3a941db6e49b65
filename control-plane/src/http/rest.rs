//! `/api/v1`: the same messages as the gRPC API, as JSON.
//!
//! Lists are objects with one field, as the gRPC answers are. What is not there is a 404 with code and message.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::{
    AuditRequest, HistoryResponse, ListNodesResponse, ListOperationsResponse, ListPluginsResponse,
};
use serde::Deserialize;

use super::{Context, Shared, refuse};

/// Ended operations in a list; older ones are found by their id.
const LISTED: usize = 50;

/// Narrows an answer to one group; needed for a plugin that stands in several.
#[derive(Debug, Deserialize)]
struct InGroup {
    group: Option<String>,
}

impl InGroup {
    fn covers(&self, group: &str) -> bool {
        self.group.as_deref().is_none_or(|g| g == group)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Audited {
    plugin: String,
    operation: String,
    since_ms: u64,
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/status", get(status))
        .route("/cluster", get(cluster))
        .route("/nodes", get(nodes))
        .route("/nodes/{id}", get(node))
        .route("/plugins", get(plugins))
        .route("/plugins/{name}", get(plugin))
        .route("/plugins/{name}/history", get(history))
        .route("/operations", get(operations))
        .route("/operations/{id}", get(operation))
        .route("/audit", get(audit))
}

async fn status(State(shared): Context) -> Response {
    let view = shared.state.views.borrow().clone();
    Json(&*view).into_response()
}

async fn cluster(State(shared): Context) -> Response {
    let view = shared.state.views.borrow().clone();
    Json(view.cluster.clone().unwrap_or_default()).into_response()
}

async fn nodes(State(shared): Context, Query(within): Query<InGroup>) -> Response {
    let view = shared.state.views.borrow().clone();
    let nodes = view.nodes.iter().filter(|n| within.covers(&n.group)).cloned().collect();
    Json(ListNodesResponse { nodes }).into_response()
}

async fn node(State(shared): Context, Path(id): Path<String>) -> Response {
    let view = shared.state.views.borrow().clone();
    match view.nodes.iter().find(|n| n.id == id) {
        Some(node) => Json(node).into_response(),
        None => missing("NODE_NOT_FOUND", format!("no node is called {id}"), "kctl node list"),
    }
}

async fn plugins(State(shared): Context, Query(within): Query<InGroup>) -> Response {
    let view = shared.state.views.borrow().clone();
    let plugins = view.plugins.iter().filter(|p| within.covers(&p.group)).cloned().collect();
    Json(ListPluginsResponse { plugins }).into_response()
}

async fn plugin(State(shared): Context, Path(name): Path<String>, Query(within): Query<InGroup>) -> Response {
    let view = shared.state.views.borrow().clone();
    let mut found = view.plugins.iter().filter(|p| p.name == name && within.covers(&p.group));
    match (found.next(), found.next()) {
        (Some(plugin), None) => Json(plugin).into_response(),
        (None, _) => missing("PLUGIN_NOT_INSTALLED", format!("{name} is not installed"), "kctl plugin list"),
        (Some(one), Some(other)) => {
            let message = format!("{name} is installed in group {} and in group {}", one.group, other.group);
            let fault = Fault::new("GROUP_AMBIGUOUS", message).hint(format!("add ?group={}", one.group));
            refuse(StatusCode::BAD_REQUEST, &fault)
        }
    }
}

async fn history(
    State(shared): Context,
    Path(name): Path<String>,
    Query(within): Query<InGroup>,
) -> Response {
    let revisions = (shared.state.history)(within.group.as_deref(), &name);
    if revisions.is_empty() {
        return missing("PLUGIN_NOT_INSTALLED", format!("{name} has no history"), "kctl plugin list");
    }
    Json(HistoryResponse { revisions }).into_response()
}

async fn operations(State(shared): Context, Query(within): Query<InGroup>) -> Response {
    let view = shared.state.views.borrow().clone();
    let mut operations = view.operations.clone();
    // The two are not read in one instant: an operation may have ended in between and be in both.
    let ended = (shared.state.ended)(LISTED);
    operations.retain(|running| ended.iter().all(|o| o.id != running.id));
    operations.extend(ended);
    operations.retain(|o| within.covers(&o.group));
    Json(ListOperationsResponse { operations }).into_response()
}

/// `?plugin=` and `?operation=` narrow it, `?since_ms=` to records of at most that age. As this member has it.
async fn audit(State(shared): Context, Query(asked): Query<Audited>) -> Response {
    let Audited { plugin, operation, since_ms } = asked;
    Json((shared.state.audit)(&AuditRequest { plugin, operation, since_ms })).into_response()
}

async fn operation(State(shared): Context, Path(id): Path<String>) -> Response {
    let view = shared.state.views.borrow().clone();
    // The view knows what a running operation waits for on every member; the record only on the leader.
    let running = view.operations.iter().find(|o| o.id == id && o.finished_at.is_none());
    match running.cloned().or_else(|| (shared.state.operation)(&id)) {
        Some(operation) => Json(operation).into_response(),
        None => {
            missing("OPERATION_NOT_FOUND", format!("no operation has the id {id}"), "kctl operation list")
        }
    }
}

fn missing(code: &str, message: String, hint: &str) -> Response {
    refuse(StatusCode::NOT_FOUND, &Fault::new(code, message).hint(hint))
}
