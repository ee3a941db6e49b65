//! What people see, made of the replicated state, the leader's inventory and the plan's report.

mod audit;
mod duty;
mod hand;
mod history;

use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::package::FileEntry;
use kctl_shared::proto::v1;
use kctl_shared::spec::{FoundPlugin, PluginStatus, Stage, StepWord};
use kctl_shared::time::Timestamp;

use crate::orchestrator::Report;
use crate::rollout::WaitingOn;
use crate::rollout::fleet::{Fleet, LOST_MS, Liveness, Refused};
use crate::state::model::{ClusterState, Plugin};
use crate::state::operation::{NodeStep, Operation, Step, StepKind, StepPhase, Verdict};

/// Everything a view is made of.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    pub state: &'a ClusterState,
    pub fleet: &'a Fleet,
    pub report: &'a Report,
    pub now: Timestamp,
}

impl Sources<'_> {
    pub fn status(&self, cluster: v1::ClusterView) -> v1::StatusView {
        let mut operations: Vec<_> = self.state.live_operations().map(|o| self.operation(o)).collect();
        operations.sort_by_key(|o| o.created_at.map(|t| (t.seconds, t.nanos)));
        v1::StatusView {
            cluster: Some(cluster),
            nodes: self.node_ids().iter().map(|n| self.node(n)).collect(),
            plugins: self.plugins(),
            operations,
        }
    }

    /// Nodes that are known, and those that ask and are refused.
    pub fn node_ids(&self) -> std::collections::BTreeSet<NodeId> {
        let asking = self.fleet.refused.iter().filter(|(_, r)| self.asks(r)).map(|(id, _)| id);
        self.state.nodes.keys().chain(asking).cloned().collect()
    }

    /// An agent that is refused asks again every few seconds.
    fn asks(&self, refused: &Refused) -> bool {
        self.now.since(refused.since) < LOST_MS
    }

    pub fn plugins(&self) -> Vec<v1::PluginView> {
        let groups = self.state.groups.iter();
        groups.flat_map(|(g, r)| r.plugins.iter().map(move |(n, p)| self.plugin(g, n, p))).collect()
    }

    pub fn plugin(
        &self,
        group: &kctl_shared::name::GroupName,
        name: &PluginName,
        plugin: &Plugin,
    ) -> v1::PluginView {
        let operation = plugin.operation.as_ref().and_then(|id| self.state.operations.get(id));
        let digest = plugin.release.or(operation.map(|o| o.release));
        let release = digest.and_then(|d| self.state.releases.get(&d));
        let (method, set_nginx) = match operation {
            Some(first) if plugin.release.is_none() => (&first.method, first.set_nginx),
            _ => (&plugin.method, plugin.set_nginx),
        };
        let targets = self.state.staying_in(group).filter(|(id, _)| plugin.target.includes(id));
        let (mut enabled, mut total) = (0, 0);
        for (node, _) in targets {
            total += 1;
            let status = self.fleet.status(node).and_then(|s| s.plugins.get(name));
            if status
                .is_some_and(|s| s.stage == Stage::Enabled && s.loaded.as_ref().map(|l| l.digest) == digest)
            {
                enabled += 1;
            }
        }
        let references = operation.map_or(0, |o| o.entities.len() as u32);
        v1::PluginView {
            name: name.to_string(),
            version: release.map(|r| r.version.clone()).unwrap_or_default(),
            digest: digest.map(|d| d.to_string()).unwrap_or_default(),
            group: group.to_string(),
            stage: if total > 0 && enabled == total { Stage::Enabled } else { Stage::Installed }
                .as_str()
                .into(),
            nodes_enabled: enabled,
            nodes_total: total,
            operation: plugin.operation.clone().unwrap_or_default(),
            files: release.map_or_else(Vec::new, |r| r.files.iter().map(file).collect()),
            modules: release.map_or_else(Vec::new, |r| r.extras.iter().map(file).collect()),
            installed_at: plugin.release.map(|_| plugin.installed_at.to_proto()),
            references,
            method: method.name().into(),
            place: method.place().into(),
            nginx: release.map_or_else(Vec::new, |r| r.nginx.iter().map(ToString::to_string).collect()),
            set_nginx,
            pinned: plugin.pinned.clone().unwrap_or_default(),
        }
    }

    pub fn node(&self, id: &NodeId) -> v1::NodeView {
        let liveness = self.fleet.liveness(id, self.now);
        let group = self.state.nodes.get(id).map(|n| n.group.to_string()).unwrap_or_default();
        let mut view =
            v1::NodeView { id: id.to_string(), group, state: liveness.as_str().into(), ..Default::default() };
        if let Some(refused) = self.fleet.refused.get(id).filter(|r| self.asks(r)) {
            view.state = duty::refused(refused.why).into();
            view.group = refused.group.to_string();
            view.conditions = vec![duty::why_refused(id, refused)];
            return view;
        }
        // A live node's last sign of life changes all the time and says nothing.
        if !matches!(liveness, Liveness::Live | Liveness::Unknown) {
            view.last_seen = Some(self.fleet.seen(id).to_proto());
        }
        if let Some(node) = self.state.nodes.get(id) {
            duty::of(id, node, self.fleet, liveness, &mut view);
            view.conditions.extend(duty::left_over(self.state, id, self.fleet));
        }
        let Some(status) = self.fleet.status(id) else { return view };
        view.kong_version = status.kong.version.clone();
        view.kong_state = status.kong.state.as_str().into();
        view.ready = status.kong.ready;
        view.has_admin_api = status.kong.has_admin_api;
        view.observed_generation = status.observed_generation;
        view.old_workers = status.kong.old_workers;
        let told = status.conditions.iter();
        let told = told.map(|c| v1::Condition { code: c.code.clone(), message: c.message.clone() });
        view.conditions.extend(told);
        view.found = status.found.iter().map(found).collect();
        view.plugins = status.plugins.iter().map(|(n, p)| node_plugin(n, p, liveness)).collect();
        view
    }

    pub fn operation(&self, operation: &Operation) -> v1::OperationView {
        let waiting = self.report.get(&operation.id);
        v1::OperationView {
            id: operation.id.clone(),
            kind: operation.kind.as_str().into(),
            plugins: vec![operation.plugin.to_string()],
            group: operation.group.to_string(),
            phase: operation.phase.as_str().into(),
            created_at: Some(operation.created_at.to_proto()),
            finished_at: operation.finished_at.map(Timestamp::to_proto),
            error: operation
                .error
                .as_ref()
                .map(|e| v1::ErrorView { code: e.code.clone(), message: e.message.clone() }),
            waiting_on: waiting.into_iter().flatten().map(waiting_on).collect(),
            steps: operation.steps.iter().map(|s| self.step(operation, s)).collect(),
            version: operation.version.clone(),
            previous_version: operation.previous_version.clone(),
            reason: operation.reason.clone(),
            digest: operation.release.to_string(),
            method: operation.method.name().into(),
            place: operation.method.place().into(),
            set_nginx: operation.set_nginx,
            partial: operation.is_partial(),
            excused: hand::excused(operation),
            notes: hand::notes(operation),
            policy: Some(hand::policy(&operation.policy)),
            refused: hand::refused(operation),
            undo_to: operation.undo_to.unwrap_or_default(),
            batch: operation.batch.clone().unwrap_or_default(),
        }
    }

    fn step(&self, operation: &Operation, step: &Step) -> v1::StepView {
        v1::StepView {
            name: step.kind.as_str().into(),
            wave: step.wave,
            phase: step.phase.as_str().into(),
            started_at: step.started_at.map(Timestamp::to_proto),
            finished_at: step.finished_at.map(Timestamp::to_proto),
            nodes: step.nodes.iter().map(|(id, n)| self.node_step(operation, step, id, n)).collect(),
            summary: step.summary.clone(),
            forgotten: u32::try_from(step.forgotten).unwrap_or(u32::MAX),
        }
    }

    fn node_step(
        &self,
        operation: &Operation,
        step: &Step,
        id: &NodeId,
        node: &NodeStep,
    ) -> v1::NodeStepView {
        let mut view = v1::NodeStepView {
            node: id.to_string(),
            started_at: node.started_at.map(Timestamp::to_proto),
            finished_at: node.finished_at.map(Timestamp::to_proto),
            ..Default::default()
        };
        view.status = match (&node.verdict, node.grant) {
            (Some(Verdict::Verified), _) => "verified".into(),
            (Some(Verdict::Failed(f)), _) => {
                view.code = f.code.clone();
                view.message = f.message.clone();
                StepWord::Failed.as_str().into()
            }
            (Some(Verdict::Excused), _) => StepWord::Excused.as_str().into(),
            (None, Some(grant)) if step.phase == StepPhase::Running => {
                match self.fleet.liveness(id, self.now) {
                    Liveness::Live => {}
                    _ => {
                        view.status = StepWord::Unreachable.as_str().into();
                        return view;
                    }
                }
                let answer = self.fleet.answer(id, &operation.plugin, grant);
                if let Some(f) = answer.and_then(|a| a.failure.as_ref().or(a.waiting.as_ref())) {
                    view.code = f.code.clone();
                    view.message = f.message.clone();
                }
                word(step.kind, answer).as_str().into()
            }
            _ => StepWord::Pending.as_str().into(),
        };
        view
    }
}

fn word(kind: StepKind, answer: Option<&PluginStatus>) -> StepWord {
    match (kind, answer.map(|a| a.word)) {
        (StepKind::Restore | StepKind::Unstage, _) => StepWord::RollingBack,
        (_, Some(word)) => word,
        (_, None) => StepWord::Pending,
    }
}

fn found(f: &FoundPlugin) -> v1::FoundPluginView {
    v1::FoundPluginView {
        name: f.plugin.to_string(),
        version: f.version.clone(),
        digest: f.digest.map(|d| d.to_string()).unwrap_or_default(),
        dir: f.dir.clone(),
        loaded: f.loaded,
        method: f.placed.as_ref().map(|m| m.name().to_owned()).unwrap_or_default(),
    }
}

fn node_plugin(name: &PluginName, status: &PluginStatus, liveness: Liveness) -> v1::NodePluginView {
    let release = status.loaded.as_ref().or(status.staged.iter().next_back());
    let state = if matches!(liveness, Liveness::Lost | Liveness::Suspect) {
        StepWord::Unreachable
    } else {
        status.word
    };
    let trouble = status.failure.as_ref().or(status.waiting.as_ref());
    v1::NodePluginView {
        name: name.to_string(),
        version: release.map(|r| r.version.clone()).unwrap_or_default(),
        digest: release.map(|r| r.digest.to_string()).unwrap_or_default(),
        stage: status.stage.as_str().into(),
        state: state.as_str().into(),
        code: trouble.map(|t| t.code.clone()).unwrap_or_default(),
        message: trouble.map(|t| t.message.clone()).unwrap_or_default(),
        method: release.map(|r| r.method.name().to_owned()).unwrap_or_default(),
        place: release.map(|r| r.method.place().to_owned()).unwrap_or_default(),
    }
}

fn file(f: &FileEntry) -> v1::FileView {
    v1::FileView { path: f.path.clone(), sha256: f.sha256.to_string(), size: f.size }
}

fn waiting_on(w: &WaitingOn) -> v1::WaitingOn {
    v1::WaitingOn {
        node: w.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: w.reason.to_string(),
        since: Some(w.since.to_proto()),
        message: w.message.clone(),
    }
}
