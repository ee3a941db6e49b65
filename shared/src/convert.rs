//! The agent protocol: domain to protobuf and back.
//!
//! Reading is strict: a message that does not make a valid domain value is a fault of the sender (`BAD_MESSAGE`), never
//! a guess.

use crate::fault::Fault;
use crate::method::Method;
use crate::name::{NodeId, PluginName};
use crate::nginx::NginxSetting;
use crate::proto::agent as pb;
use crate::served::{Answers, Served};
use crate::spec::{
    Entity, EntityReport, EntityTask, Failure, FoundPlugin, Grant, HoldSpec, KongFacts, KongState, NodeSpec,
    NodeStatus, PluginSpec, PluginStatus, ReleaseRef, StepWord,
};

fn bad(what: &str, why: impl std::fmt::Display) -> Fault {
    Fault::new("BAD_MESSAGE", format!("{what}: {why}"))
        .hint("check that agent and control plane are of versions that fit")
}

fn name(s: &str) -> Result<PluginName, Fault> {
    PluginName::parse(s).map_err(|e| bad("plugin name", e))
}

impl From<Grant> for pb::Grant {
    fn from(g: Grant) -> Self {
        Self { index: g.index, offset: g.offset }
    }
}

fn grant(g: Option<pb::Grant>) -> Grant {
    g.map_or_else(Grant::default, |g| Grant { index: g.index, offset: g.offset })
}

impl From<&ReleaseRef> for pb::ReleaseRef {
    fn from(r: &ReleaseRef) -> Self {
        Self {
            version: r.version.clone(),
            digest: r.digest.to_string(),
            method: if r.method.is_store() { String::new() } else { r.method.name().into() },
            place: r.method.place().into(),
            make: r.method.makes(),
            nginx: r
                .nginx
                .iter()
                .map(|s| pb::NginxSetting { key: s.key.clone(), value: s.value.clone() })
                .collect(),
            set_nginx: r.set_nginx,
        }
    }
}

fn release(r: pb::ReleaseRef) -> Result<ReleaseRef, Fault> {
    let method = Method::parse(&r.method, &r.place, r.make).map_err(|e| bad("method", e.message))?;
    let setting = |s: &pb::NginxSetting| NginxSetting::new(&s.key, &s.value);
    let nginx = r.nginx.iter().map(setting).collect::<Result<_, _>>();
    Ok(ReleaseRef {
        digest: r.digest.parse().map_err(|e| bad("digest", e))?,
        version: r.version,
        method,
        nginx: nginx.map_err(|e| bad("nginx setting", e.message))?,
        set_nginx: r.set_nginx,
    })
}

fn releases<C: FromIterator<ReleaseRef>>(r: Vec<pb::ReleaseRef>) -> Result<C, Fault> {
    r.into_iter().map(release).collect()
}

impl From<&Failure> for pb::Failure {
    fn from(f: &Failure) -> Self {
        Self { code: f.code.clone(), message: f.message.clone() }
    }
}

fn failure(f: pb::Failure) -> Failure {
    Failure { code: f.code, message: f.message }
}

impl From<&NodeSpec> for pb::NodeSpec {
    fn from(s: &NodeSpec) -> Self {
        Self {
            node: s.node.to_string(),
            epoch: s.epoch,
            supersedes: s.supersedes,
            generation: s.generation,
            hash: s.hash(),
            plugins: s
                .plugins
                .iter()
                .map(|(plugin, p)| pb::PluginSpec {
                    plugin: plugin.to_string(),
                    grant: Some(p.grant.into()),
                    operation: p.operation.clone(),
                    enabled: p.enabled.as_ref().map(Into::into),
                    staged: p.staged.iter().map(Into::into).collect(),
                    preflight: p.preflight.as_ref().map(Into::into),
                    boot: p.boot,
                    adopt: p.adopt,
                })
                .collect(),
            task: s.task.as_ref().map(|t| pb::EntityTask {
                grant: Some(t.grant.into()),
                operation: t.operation.clone(),
                plugin: t.plugin.to_string(),
                delete: t.delete.iter().cloned().collect(),
                attach: t.attach.iter().cloned().collect(),
                scan_only: t.scan_only,
            }),
            hold: s.hold.map(|h| pb::Hold { drain: h.drain }),
        }
    }
}

impl TryFrom<pb::NodeSpec> for NodeSpec {
    type Error = Fault;

    fn try_from(s: pb::NodeSpec) -> Result<Self, Fault> {
        let mut plugins = std::collections::BTreeMap::new();
        for p in s.plugins {
            let spec = PluginSpec {
                grant: grant(p.grant),
                operation: p.operation,
                enabled: p.enabled.map(release).transpose()?,
                staged: releases(p.staged)?,
                preflight: p.preflight.map(release).transpose()?,
                boot: p.boot,
                adopt: p.adopt,
            };
            if spec.enabled.as_ref().is_some_and(|e| !spec.staged.contains(e)) {
                return Err(bad("spec", format!("{} is to be enabled but not staged", p.plugin)));
            }
            plugins.insert(name(&p.plugin)?, spec);
        }
        let task = match s.task {
            None => None,
            Some(t) => Some(EntityTask {
                grant: grant(t.grant),
                operation: t.operation,
                plugin: name(&t.plugin)?,
                delete: t.delete.into_iter().collect(),
                attach: t.attach.into_iter().collect(),
                scan_only: t.scan_only,
            }),
        };
        let node = NodeId::parse(&s.node).map_err(|e| bad("node id", e))?;
        let (epoch, supersedes) = (s.epoch, s.supersedes);
        let hold = s.hold.map(|h| HoldSpec { drain: h.drain });
        let spec = Self { node, epoch, supersedes, generation: s.generation, plugins, task, hold };
        if spec.hash() != s.hash {
            return Err(bad("spec", "the hash does not fit the content"));
        }
        Ok(spec)
    }
}

impl From<&NodeStatus> for pb::NodeStatus {
    fn from(s: &NodeStatus) -> Self {
        let k = &s.kong;
        Self {
            observed_generation: s.observed_generation,
            spec_hash: s.spec_hash.clone(),
            kong: Some(pb::KongFacts {
                version: k.version.clone(),
                state: k.state.as_str().into(),
                ready: k.ready,
                has_admin_api: k.has_admin_api,
                database: k.database.clone(),
                datastore: k.datastore.clone(),
                old_workers: k.old_workers,
                propagation_ms: k.propagation_ms,
                master_pid: k.master_pid,
                role: k.role.clone(),
            }),
            plugins: s.plugins.iter().map(|(plugin, p)| plugin_status(plugin, p)).collect(),
            task: s.task.as_ref().map(|t| pb::EntityReport {
                grant: Some(t.grant.into()),
                operation: t.operation.clone(),
                plugin: t.plugin.as_ref().map(ToString::to_string).unwrap_or_default(),
                scans: t.scans,
                empty_in_a_row: t.empty_in_a_row,
                entities: t.entities.iter().map(Into::into).collect(),
                waiting: t.waiting.as_ref().map(Into::into),
                saved: t.saved.map(|d| d.to_string()).unwrap_or_default(),
                attached_in_a_row: t.attached_in_a_row,
                refused: t.refused.iter().map(refused).collect(),
            }),
            conditions: s
                .conditions
                .iter()
                .map(|c| pb::Condition { code: c.code.clone(), message: c.message.clone() })
                .collect(),
            found: s.found.iter().map(found).collect(),
            drained: s.drained,
            served: s.served.as_ref().map(served),
        }
    }
}

impl From<&Entity> for pb::Entity {
    fn from(e: &Entity) -> Self {
        Self {
            id: e.id.clone(),
            scope: e.scope.clone(),
            target: e.target.clone(),
            workspace: e.workspace.clone(),
        }
    }
}

fn served(s: &Served) -> pb::Served {
    let answers = |a: Answers| Some(pb::Answers { all: a.all, failed: a.failed });
    pb::Served {
        grants: s.grants.iter().map(|g| (*g).into()).collect(),
        before: answers(s.before),
        before_ms: s.before_ms,
        after: answers(s.since),
    }
}

fn answers(a: Option<pb::Answers>) -> Answers {
    a.map_or_else(Answers::default, |a| Answers { all: a.all, failed: a.failed })
}

fn refused((id, why): (&String, &Failure)) -> pb::RefusedEntity {
    pb::RefusedEntity { id: id.clone(), why: Some(why.into()) }
}

fn found(f: &FoundPlugin) -> pb::FoundPlugin {
    pb::FoundPlugin {
        plugin: f.plugin.to_string(),
        version: f.version.clone(),
        digest: f.digest.map(|d| d.to_string()).unwrap_or_default(),
        dir: f.dir.clone(),
        loaded: f.loaded,
        method: f.placed.as_ref().map(|m| m.name().to_owned()).unwrap_or_default(),
        place: f.placed.as_ref().map(|m| m.place().to_owned()).unwrap_or_default(),
        make: f.placed.as_ref().is_some_and(Method::makes),
    }
}

fn found_plugin(f: pb::FoundPlugin) -> Result<FoundPlugin, Fault> {
    let placed = (!f.method.is_empty()).then(|| Method::parse(&f.method, &f.place, f.make));
    let digest = (!f.digest.is_empty()).then(|| f.digest.parse().map_err(|e| bad("digest", e)));
    Ok(FoundPlugin {
        plugin: name(&f.plugin)?,
        version: f.version,
        digest: digest.transpose()?,
        dir: f.dir,
        loaded: f.loaded,
        placed: placed.transpose().map_err(|e| bad("method", e.message))?,
    })
}

fn plugin_status(plugin: &PluginName, p: &PluginStatus) -> pb::PluginStatus {
    pb::PluginStatus {
        plugin: plugin.to_string(),
        grant: Some(p.grant.into()),
        stage: p.stage.as_str().into(),
        loaded: p.loaded.as_ref().map(Into::into),
        staged: p.staged.iter().map(Into::into).collect(),
        preflighted: p.preflighted.as_ref().map(Into::into),
        word: p.word.as_str().into(),
        failure: p.failure.as_ref().map(Into::into),
        waiting: p.waiting.as_ref().map(Into::into),
        old_workers: p.old_workers,
    }
}

impl TryFrom<pb::NodeStatus> for NodeStatus {
    type Error = Fault;

    fn try_from(s: pb::NodeStatus) -> Result<Self, Fault> {
        let k = s.kong.unwrap_or_default();
        let mut plugins = std::collections::BTreeMap::new();
        for p in s.plugins {
            let status = PluginStatus {
                grant: grant(p.grant),
                stage: p.stage.parse().map_err(|()| bad("stage", &p.stage))?,
                loaded: p.loaded.map(release).transpose()?,
                staged: releases(p.staged)?,
                preflighted: p.preflighted.map(release).transpose()?,
                word: StepWord::parse(&p.word),
                failure: p.failure.map(failure),
                waiting: p.waiting.map(failure),
                old_workers: p.old_workers,
            };
            plugins.insert(name(&p.plugin)?, status);
        }
        Ok(Self {
            observed_generation: s.observed_generation,
            spec_hash: s.spec_hash,
            kong: KongFacts {
                version: k.version,
                state: KongState::parse(&k.state),
                ready: k.ready,
                has_admin_api: k.has_admin_api,
                database: k.database,
                datastore: k.datastore,
                old_workers: k.old_workers,
                propagation_ms: k.propagation_ms,
                master_pid: k.master_pid,
                role: k.role,
            },
            plugins: plugins.into(),
            task: s.task.map(report).transpose()?,
            conditions: s.conditions.into_iter().map(|c| Failure::new(&c.code, c.message)).collect(),
            found: s.found.into_iter().map(found_plugin).collect::<Result<_, _>>()?,
            drained: s.drained,
            served: s.served.map(|s| Served {
                grants: s.grants.into_iter().map(|g| grant(Some(g))).collect(),
                before: answers(s.before),
                before_ms: s.before_ms,
                since: answers(s.after),
            }),
        })
    }
}

fn report(t: pb::EntityReport) -> Result<EntityReport, Fault> {
    let saved = (!t.saved.is_empty()).then(|| t.saved.parse().map_err(|e| bad("digest", e)));
    let why = |r: pb::RefusedEntity| (r.id, failure(r.why.unwrap_or_default()));
    Ok(EntityReport {
        grant: grant(t.grant),
        operation: t.operation,
        plugin: if t.plugin.is_empty() { None } else { Some(name(&t.plugin)?) },
        scans: t.scans,
        empty_in_a_row: t.empty_in_a_row,
        entities: t
            .entities
            .into_iter()
            .map(|e| Entity {
                id: e.id,
                scope: e.scope,
                target: e.target,
                body: String::new(),
                workspace: e.workspace,
            })
            .collect(),
        waiting: t.waiting.map(failure),
        saved: saved.transpose()?,
        attached_in_a_row: t.attached_in_a_row,
        refused: t.refused.into_iter().map(why).collect(),
    })
}
