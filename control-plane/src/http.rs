//! The HTTP side of a member: the dashboard, its event stream, REST reads, health and metrics.
//!
//! Nothing here asks anyone: every answer is made of the newest [`StatusView`] in [`HttpState::views`], which the leader
//! makes and the other members follow, so that any member shows the same. Only reads; changes go through gRPC.

mod artifacts;
mod assets;
mod events;
mod exposition;
mod guard;
mod page;
mod rest;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::{AuditRequest, AuditResponse, OperationView, RevisionView, StatusView};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub use guard::hosts_for;

use crate::artifacts::Loan;

/// Whether this member can answer reads; the fault says what is missing and ends up in the body of `/readyz`.
pub type Readiness = Result<(), Fault>;

/// Numbers of this member that no view carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    pub term: u64,
    /// Whether this member leads.
    pub leads: bool,
    pub applied_index: u64,
}

/// Looks an operation up by its id.
pub type FindOperation = dyn Fn(&str) -> Option<OperationView> + Send + Sync;

/// Reads an artifact.
pub type FindArtifact =
    dyn Fn(Digest) -> Pin<Box<dyn Future<Output = Result<Loan, Fault>> + Send>> + Send + Sync;

/// Looks up what a plugin was.
pub type FindHistory = dyn Fn(Option<&str>, &str) -> Vec<RevisionView> + Send + Sync;

/// What the router is made of.
#[derive(Clone)]
pub struct HttpState {
    pub views: watch::Receiver<Arc<StatusView>>,
    /// Id of the member that answers.
    pub member: u64,
    pub version: &'static str,
    pub ready: Arc<dyn Fn() -> Readiness + Send + Sync>,
    pub gauges: Arc<dyn Fn() -> Gauges + Send + Sync>,
    /// Operations that have ended, newest first, at most as many as asked for.
    pub ended: Arc<dyn Fn(usize) -> Vec<OperationView> + Send + Sync>,
    /// Any operation the members remember, by id.
    pub operation: Arc<FindOperation>,
    /// Revisions of a plugin, by group (all of them without one) and name, oldest first.
    pub history: Arc<FindHistory>,
    /// Who changed what.
    pub audit: Arc<dyn Fn(&AuditRequest) -> AuditResponse + Send + Sync>,
    /// Artifacts of releases.
    pub artifact: Arc<FindArtifact>,
    /// Host names (without port) a request may be addressed to; `None` accepts all. See [`hosts_for`].
    pub allowed_hosts: Option<Vec<String>>,
    /// Ends the event streams, which would otherwise hold a graceful shutdown for ever.
    pub shutdown: CancellationToken,
}

impl fmt::Debug for HttpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpState").field("member", &self.member).finish_non_exhaustive()
    }
}

/// What the handlers share.
struct Shared {
    state: HttpState,
    assets: assets::Assets,
    /// One permit for each event stream that may still be opened.
    streams: Arc<Semaphore>,
}

type Context = State<Arc<Shared>>;

/// All routes of a member.
pub fn router(state: HttpState) -> Router {
    let shared = Arc::new(Shared {
        state,
        assets: assets::Assets::new(),
        streams: Arc::new(Semaphore::new(events::MAX_STREAMS)),
    });
    Router::new()
        .route("/", get(page::show))
        .route("/events", get(events::stream))
        .route("/assets/{name}", get(assets::serve))
        .route("/artifacts/{digest}", get(artifacts::serve))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(exposition::show))
        .nest("/api/v1", rest::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(shared.clone(), guard::check_host))
        .layer(middleware::map_response(guard::harden))
        .with_state(shared)
}

async fn alive() -> Response {
    Json(serde_json::json!({ "status": "alive" })).into_response()
}

async fn ready(State(shared): Context) -> Response {
    match (shared.state.ready)() {
        Ok(()) => Json(serde_json::json!({ "status": "ready" })).into_response(),
        Err(fault) => refuse(StatusCode::SERVICE_UNAVAILABLE, &fault),
    }
}

async fn no_such_path() -> Response {
    let fault = Fault::new("NOT_FOUND", "there is nothing at this path").hint("GET / or GET /api/v1/status");
    refuse(StatusCode::NOT_FOUND, &fault)
}

async fn no_such_method() -> Response {
    let fault = Fault::new("METHOD_NOT_ALLOWED", "everything here is read with GET or HEAD")
        .hint("changes are made with kctl");
    refuse(StatusCode::METHOD_NOT_ALLOWED, &fault)
}

/// A fault as an answer: `{"code","message","hint"}`.
fn refuse(status: StatusCode, fault: &Fault) -> Response {
    (status, Json(fault)).into_response()
}
