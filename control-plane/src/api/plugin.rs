//! Install, remove and read plugins.

use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::method::Method;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::package::refuse_shadows;
use kctl_shared::proto::v1::{self, plugin_service_server::PluginService};
use kctl_shared::time::Timestamp;
use tonic::{Request, Response, Status};

use super::undo::{decide_undo, is_lower};
use super::{Api, policy, request};
use crate::rollout::runbook;
use crate::state::command::{Command, Event};
use crate::state::model::{ClusterState, RequestRecord, Target};
use crate::state::operation::{Operation, OperationKind, Phase, Policy, Step, StepKind};
use crate::state::{LogStamp, apply, no_conflict, not_pinned, same_content};

/// What to do about a request, decided on the leader's state.
pub(super) enum Decision {
    Start(Box<Operation>),
    /// The request was made before; this is its operation.
    Known(String),
    /// Nothing to do.
    Satisfied,
}

struct Wish {
    kind: OperationKind,
    id: String,
    body: String,
    plugin: PluginName,
    group: GroupName,
    target: Target,
    policy: Option<v1::RolloutPolicy>,
    reason: String,
    /// Of what is installed or removed, and of what was there before.
    methods: [Method; 2],
    set_nginx: [bool; 2],
    adopt: bool,
    allow_downgrade: bool,
    stop_after: Option<StepKind>,
}

impl Wish {
    fn operation(
        self,
        state: &ClusterState,
        release: Digest,
        version: String,
        previous: Option<Digest>,
        plan: impl FnOnce(&[NodeId], &[String]) -> Result<Vec<Step>, Fault>,
    ) -> Result<Decision, Fault> {
        let nodes = request::resolve(state, &self.group, &self.target)?;
        let policy = policy::policy(self.kind, self.policy, nodes.len())?;
        let policy = Policy { stop_after: self.stop_after, ..policy };
        let steps = plan(&nodes, &policy.waves)?;
        let [method, previous_method] = self.methods;
        let [set_nginx, previous_set_nginx] = self.set_nginx;
        let version_of = |d: &Digest| state.releases.get(d).map(|r| r.version.clone()).unwrap_or_default();
        Ok(Decision::Start(Box::new(Operation {
            id: self.id.clone(),
            kind: self.kind,
            plugin: self.plugin,
            group: self.group,
            target: self.target,
            release,
            version,
            previous_version: previous.as_ref().map(version_of).unwrap_or_default(),
            previous,
            policy,
            request_id: self.id,
            request_body: self.body,
            reason: self.reason,
            created_at: Timestamp::now(),
            finished_at: None,
            phase: Phase::Pending,
            error: None,
            steps,
            cursor: 0,
            applier: None,
            entities: Default::default(),
            rerecorded: 0,
            method,
            previous_method,
            adopt: self.adopt,
            set_nginx,
            previous_set_nginx,
            interventions: Default::default(),
            saved: Vec::new(),
            refused: Default::default(),
            undo_to: None,
            batch: None,
            allow_downgrade: self.allow_downgrade,
        })))
    }

    /// A retry of a request is answered with what the first try began.
    fn known(&self, state: &ClusterState) -> Result<Option<Decision>, Fault> {
        state.requests.get(&self.id).map(|record| repeated(record, &self.body, &self.id)).transpose()
    }

    fn busy(&self, state: &ClusterState) -> Result<(), Fault> {
        match state.operation_on(&self.group, &self.plugin) {
            None => Ok(()),
            Some(live) => Err(Fault::new(
                "PLUGIN_BUSY",
                format!(
                    "operation {} ({}) holds {} in group {}",
                    live.id,
                    live.kind.as_str(),
                    self.plugin,
                    self.group
                ),
            )
            .hint(format!("kctl operation status {} -w", live.id))),
        }
    }
}

/// A request id that was seen before.
pub(super) fn repeated(record: &RequestRecord, body: &str, id: &str) -> Result<Decision, Fault> {
    if record.body == body {
        return Ok(Decision::Known(record.operation.clone()));
    }
    Err(Fault::new("REQUEST_ID_REUSED", format!("request id {id} was used for another request"))
        .hint("use a new --request-id for a new request"))
}

/// What every request for a change says, checked; messages share fields, not a type.
macro_rules! wish {
    ($kind:expr, $request:ident) => {
        Wish {
            kind: $kind,
            id: request::request_id(&$request.request_id)?,
            body: request::body_hash($request),
            plugin: request::plugin(&$request.plugin)?,
            group: request::group(&$request.group)?,
            target: request::target($request.target.clone())?,
            policy: $request.policy.clone(),
            reason: request::reason(&$request.reason)?,
            methods: Default::default(),
            set_nginx: Default::default(),
            adopt: false,
            allow_downgrade: false,
            stop_after: None,
        }
    };
}

pub(super) fn decide_install(state: &ClusterState, r: &v1::InstallRequest) -> Result<Decision, Fault> {
    let mut wish = wish!(OperationKind::Install, r);
    if let Some(known) = wish.known(state)? {
        return Ok(known);
    }
    let digest: Digest = r.digest.parse().map_err(|e| Fault::new("INVALID_DIGEST", format!("{e}")))?;
    let version = match state.releases.get(&digest).filter(|l| l.plugin == wish.plugin) {
        Some(release) => release.version.clone(),
        // Nothing is uploaded for a plan.
        None if r.dry_run => {
            same_content(state, &wish.plugin, &r.version, &digest)?;
            r.version.clone()
        }
        None => {
            let message = format!("no release {digest} of {} is registered", wish.plugin);
            return Err(
                Fault::new("ARTIFACT_NOT_FOUND", message).hint("upload it again: kctl plugin install PATH")
            );
        }
    };
    wish.busy(state)?;
    no_conflict(state, &wish.group, &wish.plugin, &digest)?;
    not_pinned(state, &wish.group, &wish.plugin, &version)?;
    if let Some(release) = state.releases.get(&digest).filter(|_| !r.allow_shadow) {
        refuse_shadows(release.extras.iter().map(|e| e.path.as_str()))?;
    }
    let present = state.plugin(&wish.group, &wish.plugin);
    let previous = present.and_then(|p| p.release);
    let present_method = present.map(|p| p.method.clone()).unwrap_or_default();
    // What was chosen once stays chosen.
    let method = match (r.method.as_str(), r.place.as_str(), r.make) {
        ("", "", false) => present_method.clone(),
        (name, place, make) => Method::parse(name, place, make)?,
    };
    wish.methods = [method, present_method];
    let before = present.is_some_and(|p| p.set_nginx);
    wish.set_nginx = [r.set_nginx.unwrap_or(before), before];
    wish.adopt = r.adopt;
    wish.allow_downgrade = r.allow_downgrade;
    if previous == Some(digest)
        && wish.methods[0] == wish.methods[1]
        && wish.set_nginx[0] == wish.set_nginx[1]
        && present.is_some_and(|p| p.target == wish.target)
    {
        request::resolve(state, &wish.group, &wish.target)?;
        return Ok(Decision::Satisfied);
    }
    if let Some(before) = previous.and_then(|d| state.releases.get(&d)) {
        wish.kind = OperationKind::Upgrade;
        if !r.allow_downgrade && is_lower(&version, &before.version) {
            let message =
                format!("{} is lower than the installed {} of {}", version, before.version, wish.plugin);
            return Err(Fault::new("DOWNGRADE", message).hint("add --allow-downgrade if it is meant"));
        }
        // Nodes that have the plugin and are not named would be left between two releases.
        if let (Some(present), Target::Nodes(named)) = (present, &wish.target) {
            let left = state
                .staying_in(&wish.group)
                .find(|(id, _)| present.target.includes(id) && !named.contains(*id));
            if let Some((node, _)) = left {
                let message = format!("{node} has {} too and would keep another release", wish.plugin);
                return Err(Fault::new("PARTIAL_UPGRADE", message)
                    .hint("name all nodes that have it, or --all-nodes"));
            }
        }
    }
    wish.operation(state, digest, version, previous, |nodes, waves| runbook::install(state, nodes, waves))
}

pub(super) fn decide_remove(state: &ClusterState, r: &v1::RemoveRequest) -> Result<Decision, Fault> {
    let mut wish = wish!(OperationKind::Remove, r);
    if let Some(known) = wish.known(state)? {
        return Ok(known);
    }
    wish.busy(state)?;
    let missing = || {
        Fault::new(
            "PLUGIN_NOT_INSTALLED",
            format!("{} is not installed in group {}", wish.plugin, wish.group),
        )
        .hint("kctl plugin list")
    };
    let present = state.plugin(&wish.group, &wish.plugin).ok_or_else(missing)?;
    let release = present.release.ok_or_else(missing)?;
    let asked = request::resolve(state, &wish.group, &wish.target)?;
    let having = state.staying_in(&wish.group).filter(|(id, _)| present.target.includes(id));
    if let Some((left, _)) = having.into_iter().find(|(id, _)| !asked.contains(id)) {
        let message = format!(
            "{left} has {} too; a plugin is removed from all nodes that share a database",
            wish.plugin
        );
        return Err(Fault::new("PARTIAL_REMOVE", message).hint("name all nodes that have it, or --all-nodes"));
    }
    if !state.nodes_of(&wish.group).any(|(_, n)| n.facts.has_admin_api) {
        let message = format!(
            "no node of group {} has an Admin API to take plugin configurations out with",
            wish.group
        );
        return Err(Fault::new("NO_ADMIN_API", message).hint("give one node of the group an admin_listen"));
    }
    wish.stop_after = policy::stop_after(&r.step)?;
    wish.target = present.target.clone();
    wish.methods[0] = present.method.clone();
    wish.set_nginx[0] = present.set_nginx;
    let version = state.releases.get(&release).map(|r| r.version.clone()).unwrap_or_default();
    wish.operation(state, release, version, None, |nodes, waves| runbook::remove(state, nodes, waves))
}

impl Api {
    async fn act(
        &self,
        decision: Decision,
        dry_run: bool,
    ) -> Result<Response<v1::OperationAccepted>, Status> {
        let (id, started) = match decision {
            Decision::Satisfied => {
                return Ok(Response::new(v1::OperationAccepted::default()));
            }
            Decision::Known(id) => (id, true),
            Decision::Start(operation) if dry_run => {
                let mut view = self.hub.view(|s| s.operation(&operation));
                view.id.clear();
                return Ok(Response::new(v1::OperationAccepted {
                    operation: Some(view),
                    ..v1::OperationAccepted::default()
                }));
            }
            Decision::Start(operation) => {
                let wanted = operation.id.clone();
                let events = self.propose(Command::StartOperation { operation }).await?;
                let started = events.into_iter().find_map(|e| match e {
                    Event::OperationStarted { operation } => Some(operation),
                    _ => None,
                });
                (started.unwrap_or(wanted), true)
            }
        };
        let view = self.hub.view(|s| s.state.operation(&id).map(|o| s.operation(o)));
        let view = view.map_err(|f| self.fail(&f))?;
        Ok(Response::new(v1::OperationAccepted { operation: Some(view), started, preview: None }))
    }
}

impl Api {
    /// What somebody put on a node by hand is not replaced by accident.
    pub(super) fn nobody_elses(&self, operation: &Operation) -> Result<(), Fault> {
        let theirs = self.hub.inventory.with(|fleet| {
            let found = |node: &NodeId| {
                fleet.status(node).is_some_and(|s| {
                    s.found.iter().any(|f| f.plugin == operation.plugin && f.placed.is_none())
                })
            };
            operation.nodes().into_iter().find(|node| !operation.adopt && found(node))
        });
        let Some(node) = theirs else { return Ok(()) };
        let message = format!("{} was put on {node} by hand and is not kctl's", operation.plugin);
        Err(Fault::new("PLUGIN_NOT_OURS", message)
            .hint(format!("take it over as it is first: kctl node adopt {node} {}", operation.plugin)))
    }
}

#[tonic::async_trait]
impl PluginService for Api {
    async fn install(
        &self,
        r: Request<v1::InstallRequest>,
    ) -> Result<Response<v1::OperationAccepted>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let decision = self.hub.consensus.with_state(|s| decide_install(s, &r)).map_err(|f| self.fail(&f))?;
        if let Decision::Start(operation) = &decision {
            self.nobody_elses(operation).map_err(|f| self.fail(&f))?;
        }
        self.act(decision, r.dry_run).await
    }

    async fn install_batch(
        &self,
        r: Request<v1::InstallBatchRequest>,
    ) -> Result<Response<v1::BatchAccepted>, Status> {
        self.begin_installs(r.into_inner()).await
    }

    async fn remove_batch(
        &self,
        r: Request<v1::RemoveBatchRequest>,
    ) -> Result<Response<v1::BatchAccepted>, Status> {
        self.begin_removals(r.into_inner()).await
    }

    async fn undo(&self, r: Request<v1::UndoRequest>) -> Result<Response<v1::OperationAccepted>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let decision = self.hub.consensus.with_state(|s| decide_undo(s, &r)).map_err(|f| self.fail(&f))?;
        if let Decision::Start(operation) = &decision {
            self.nobody_elses(operation).map_err(|f| self.fail(&f))?;
        }
        self.act(decision, r.dry_run).await
    }

    async fn history(&self, r: Request<v1::HistoryRequest>) -> Result<Response<v1::HistoryResponse>, Status> {
        self.as_leader().await?;
        self.history_of(&r.into_inner()).map(Response::new).map_err(|f| self.fail(&f))
    }

    async fn pin(&self, r: Request<v1::PinRequest>) -> Result<Response<v1::PluginView>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let command = self.decide_pin(&r).map_err(|f| self.fail(&f))?;
        let wanted = v1::GetPluginRequest { name: r.name, group: r.group };
        if !r.dry_run {
            self.propose(command).await?;
            return PluginService::get(self, Request::new(wanted)).await;
        }
        let mut state = self.hub.consensus.with_state(Clone::clone);
        let at = LogStamp { index: state.generation + 1, offset: 0, proposed_at: Timestamp::now() };
        let Command::Pin { version, .. } = &command else { return Err(self.not_leader()) };
        let pinned = version.clone().unwrap_or_default();
        apply(&mut state, at, command).map_err(|f| self.fail(&f))?;
        let mut view = PluginService::get(self, Request::new(wanted)).await?;
        view.get_mut().pinned = pinned;
        Ok(view)
    }

    async fn remove(&self, r: Request<v1::RemoveRequest>) -> Result<Response<v1::OperationAccepted>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let decision = self.hub.consensus.with_state(|s| decide_remove(s, &r)).map_err(|f| self.fail(&f))?;
        let preview = match &decision {
            Decision::Start(operation) if r.dry_run => Some(self.preview(operation).await),
            _ => None,
        };
        let mut accepted = self.act(decision, r.dry_run).await?;
        accepted.get_mut().preview = preview;
        Ok(accepted)
    }

    async fn preview_remove(
        &self,
        r: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemovePreview>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let operation = self.hub.consensus.with_state(|s| match decide_remove(s, &r)? {
            Decision::Start(operation) => Ok(*operation),
            Decision::Known(id) => s.operation(&id).cloned(),
            Decision::Satisfied => Err(Fault::new("INTERNAL", "a removal cannot be satisfied")),
        });
        let operation = operation.map_err(|f: Fault| self.fail(&f))?;
        Ok(Response::new(self.preview(&operation).await))
    }

    async fn list(
        &self,
        r: Request<v1::ListPluginsRequest>,
    ) -> Result<Response<v1::ListPluginsResponse>, Status> {
        self.as_leader().await?;
        let group = r.into_inner().group;
        let mut plugins = self.hub.view(|s| s.plugins());
        plugins.retain(|p| group.is_empty() || p.group == group);
        Ok(Response::new(v1::ListPluginsResponse { plugins }))
    }

    async fn get(&self, r: Request<v1::GetPluginRequest>) -> Result<Response<v1::PluginView>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let view = request::plugin(&r.name).and_then(|name| {
            let group = request::group(&r.group)?;
            self.hub.view(|s| s.state.plugin(&group, &name).map(|p| s.plugin(&group, &name, p))).ok_or_else(
                || {
                    Fault::new("PLUGIN_NOT_INSTALLED", format!("{name} is not installed in group {group}"))
                        .hint("kctl plugin list")
                },
            )
        });
        view.map(Response::new).map_err(|f| self.fail(&f))
    }
}
