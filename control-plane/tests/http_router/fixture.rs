//! A member's HTTP side on a free port, and views for it to show.

use std::sync::Arc;

use kctl_control_plane::http::{self, Gauges, HttpState, Readiness};
use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::{
    ClusterView, Condition, ErrorView, MemberView, NodePluginView, NodeStepView, NodeView, OperationView,
    PluginView, RevisionView, StatusView, StepView, WaitingOn,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct Server {
    pub url: String,
    pub views: watch::Sender<Arc<StatusView>>,
    pub shutdown: CancellationToken,
    _end: DropGuard,
}

impl Server {
    pub async fn start(view: StatusView) -> Self {
        Self::start_with(view, Ok(())).await
    }

    pub async fn start_with(view: StatusView, readiness: Readiness) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (views, viewed) = watch::channel(Arc::new(view));
        let shutdown = CancellationToken::new();
        let state = HttpState {
            views: viewed,
            member: 2,
            version: "0.1.0",
            ready: Arc::new(move || readiness.clone()),
            gauges: Arc::new(|| Gauges { term: 7, leads: true, applied_index: 41 }),
            ended: Arc::new(|limit| vec![ended()].into_iter().take(limit).collect()),
            history: Arc::new(|group, name| {
                let revision = RevisionView { revision: 1, plugin: name.into(), ..RevisionView::default() };
                (group.is_none_or(|g| g == "default") && name == "rate-guard")
                    .then_some(revision)
                    .into_iter()
                    .collect()
            }),
            operation: Arc::new(|id| Some(ended()).filter(|o| o.id == id)),
            artifact: Arc::new(|digest| {
                let lost = Fault::new("ARTIFACT_NOT_FOUND", format!("{digest} is not here"));
                Box::pin(async { Err(lost) })
            }),
            audit: Arc::new(|_| Default::default()),
            allowed_hosts: http::hosts_for(address),
            shutdown: shutdown.clone(),
        };
        let token = shutdown.clone();
        let serving =
            axum::serve(listener, http::router(state)).with_graceful_shutdown(token.cancelled_owned());
        tokio::spawn(async move { serving.await });
        Self { url: format!("http://{address}"), views, _end: shutdown.clone().drop_guard(), shutdown }
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("{}{path}", self.url)).await.unwrap()
    }

    pub async fn text(&self, path: &str) -> String {
        self.get(path).await.text().await.unwrap()
    }

    pub async fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }
}

pub fn not_ready() -> Readiness {
    Err(Fault::new("NO_QUORUM", "no leader is known"))
}

pub fn node(id: &str, state: &str, word: &str) -> NodeView {
    let plugin = NodePluginView {
        name: "rate-guard".into(),
        version: "1.2.0".into(),
        stage: if word == "healthy" { "Enabled" } else { "Installed" }.into(),
        state: word.into(),
        ..Default::default()
    };
    NodeView {
        id: id.into(),
        group: "default".into(),
        state: state.into(),
        kong_version: "3.9.1".into(),
        kong_state: "running".into(),
        ready: true,
        plugins: vec![plugin],
        ..Default::default()
    }
}

fn step(name: &str, wave: u32, phase: &str, nodes: &[(&str, &str)]) -> StepView {
    let nodes = nodes.iter().map(|(node, status)| NodeStepView {
        node: (*node).into(),
        status: (*status).into(),
        ..Default::default()
    });
    StepView { name: name.into(), wave, phase: phase.into(), nodes: nodes.collect(), ..Default::default() }
}

fn ended() -> OperationView {
    let error =
        ErrorView { code: "MISSING_DEPENDENCY".into(), message: "module 'resty.foo' not found".into() };
    OperationView {
        id: "op-ended".into(),
        kind: "install".into(),
        plugins: vec!["broken".into()],
        version: "0.0.1".into(),
        group: "default".into(),
        phase: "Failed".into(),
        error: Some(error),
        finished_at: kctl_shared::time::Timestamp(1_700_000_000_000).to_proto().into(),
        ..Default::default()
    }
}

/// Three members, three nodes in different states, an install in its second wave that waits for one of them.
pub fn view() -> StatusView {
    let member = |id: u64, state: &str| MemberView {
        id,
        role: "voter".into(),
        state: state.into(),
        applied_index: 41,
        http: format!("http://127.0.0.1:{}", 7000 + id),
        ..Default::default()
    };
    let members = vec![member(1, "leader"), member(2, "follower"), member(3, "unreachable")];
    let mut lost = node("kong-c3", "Lost", "unreachable");
    lost.conditions.push(Condition { code: "DRIFT".into(), message: "kong.conf cannot be parsed".into() });
    StatusView {
        cluster: Some(ClusterView { leader: Some(1), term: 7, members, epoch: 1 }),
        nodes: vec![node("kong-a1", "Live", "healthy"), node("kong-b2", "Suspect", "proving"), lost],
        plugins: vec![PluginView {
            name: "rate-guard".into(),
            version: "1.2.0".into(),
            group: "default".into(),
            stage: "Installed".into(),
            nodes_enabled: 1,
            nodes_total: 3,
            operation: "op-1".into(),
            ..Default::default()
        }],
        operations: vec![OperationView {
            id: "op-1".into(),
            kind: "install".into(),
            plugins: vec!["rate-guard".into()],
            version: "1.2.0".into(),
            group: "default".into(),
            phase: "Progressing".into(),
            waiting_on: vec![WaitingOn {
                node: "kong-c3".into(),
                reason: "AGENT_UNREACHABLE".into(),
                message: "nothing heard from kong-c3".into(),
                ..Default::default()
            }],
            steps: vec![
                step(
                    "stage",
                    0,
                    "Done",
                    &[("kong-a1", "verified"), ("kong-b2", "verified"), ("kong-c3", "verified")],
                ),
                step("enable", 1, "Done", &[("kong-a1", "verified")]),
                step("enable", 2, "Running", &[("kong-b2", "proving"), ("kong-c3", "unreachable")]),
            ],
            ..Default::default()
        }],
    }
}
