//! Install, remove and read plugins.

use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::method::Method;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::package::refuse_shadows;
use kctl_shared::proto::v1::{self, plugin_service_server::PluginService};
use kctl_shared::time::Timestamp;
use tonic::{Request, Response, Status};

use super::{Api, policy, request};
use crate::rollout::runbook;
use crate::state::command::{Command, Event};
use crate::state::model::{ClusterState, Target};
use crate::state::operation::{Operation, OperationKind, Phase, Step};
use crate::state::{no_conflict, same_content};

/// What to do about a request, decided on the leader's state.
enum Decision {
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
        })))
    }

    /// A retry of a request is answered with what the first try began.
    fn known(&self, state: &ClusterState) -> Result<Option<Decision>, Fault> {
        match state.requests.get(&self.id) {
            None => Ok(None),
            Some(record) if record.body == self.body => Ok(Some(Decision::Known(record.operation.clone()))),
            Some(_) => Err(Fault::new(
                "REQUEST_ID_REUSED",
                format!("request id {} was used for another request", self.id),
            )
            .hint("use a new --request-id for a new request")),
        }
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
        }
    };
}

fn decide_install(state: &ClusterState, r: &v1::InstallRequest) -> Result<Decision, Fault> {
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
                .nodes_of(&wish.group)
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

fn decide_remove(state: &ClusterState, r: &v1::RemoveRequest) -> Result<Decision, Fault> {
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
    let having = state.nodes_of(&wish.group).filter(|(id, _)| present.target.includes(id));
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
    wish.target = present.target.clone();
    wish.methods[0] = present.method.clone();
    wish.set_nginx[0] = present.set_nginx;
    let version = state.releases.get(&release).map(|r| r.version.clone()).unwrap_or_default();
    wish.operation(state, release, version, None, |nodes, waves| runbook::remove(state, nodes, waves))
}

/// Whether `new` is lower than `old`, comparing their numeric parts; false when either has none.
fn is_lower(new: &str, old: &str) -> bool {
    let parts = |v: &str| -> Option<Vec<u64>> {
        let v = v.strip_prefix('v').unwrap_or(v);
        let core = v.split(['-', '+']).next()?;
        // A made-up version of a plugin that names none compares with nothing.
        if v.starts_with("0.0.0-") {
            return None;
        }
        core.split('.').map(|p| p.parse().ok()).collect()
    };
    matches!((parts(new), parts(old)), (Some(new), Some(old)) if new < old)
}

impl Api {
    async fn act(
        &self,
        decision: Decision,
        dry_run: bool,
    ) -> Result<Response<v1::OperationAccepted>, Status> {
        let (id, started) = match decision {
            Decision::Satisfied => {
                return Ok(Response::new(v1::OperationAccepted { operation: None, started: false }));
            }
            Decision::Known(id) => (id, true),
            Decision::Start(operation) if dry_run => {
                let mut view = self.hub.view(|s| s.operation(&operation));
                view.id.clear();
                return Ok(Response::new(v1::OperationAccepted { operation: Some(view), started: false }));
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
        Ok(Response::new(v1::OperationAccepted { operation: Some(view), started }))
    }
}

impl Api {
    /// What somebody put on a node by hand is not replaced by accident.
    fn nobody_elses(&self, operation: &Operation) -> Result<(), Fault> {
        let theirs = self.hub.inventory.with(|fleet| {
            let found = |node: &NodeId| {
                fleet.status(node).is_some_and(|s| s.found.iter().any(|f| f.plugin == operation.plugin))
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

    async fn remove(&self, r: Request<v1::RemoveRequest>) -> Result<Response<v1::OperationAccepted>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let decision = self.hub.consensus.with_state(|s| decide_remove(s, &r)).map_err(|f| self.fail(&f))?;
        self.act(decision, r.dry_run).await
    }

    async fn preview_remove(
        &self,
        r: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemovePreview>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let preview = self.hub.consensus.with_state(|s| {
            let operation = match decide_remove(s, &r)? {
                Decision::Start(operation) => *operation,
                Decision::Known(id) => s.operation(&id)?.clone(),
                Decision::Satisfied => return Err(Fault::new("INTERNAL", "a removal cannot be satisfied")),
            };
            Ok(v1::RemovePreview {
                plugin: operation.plugin.to_string(),
                version: operation.version.clone(),
                group: operation.group.to_string(),
                entities: Vec::new(),
                files: match operation.method {
                    Method::Path { .. } => 0,
                    Method::Store | Method::Luarocks { .. } => s
                        .releases
                        .get(&operation.release)
                        .map_or(0, |l| (l.files.len() + l.extras.len()) as u32),
                },
                nodes: operation.nodes().len() as u32,
                waves: operation.policy.waves.clone(),
            })
        });
        preview.map(Response::new).map_err(|f: Fault| self.fail(&f))
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

#[cfg(test)]
mod tests {
    use super::is_lower;

    #[test]
    fn versions_compare_by_numbers() {
        assert!(is_lower("1.9.0", "1.10.0"));
        assert!(is_lower("1.0.0-1", "1.0.1"));
        assert!(!is_lower("2.0.0", "1.9.9"));
        assert!(!is_lower("0.0.0-ab12cd34", "1.0.0"));
        assert!(!is_lower("scm", "1.0.0"));
    }
}
