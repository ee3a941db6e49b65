//! What there is to see without touching anything.

use kctl_shared::spec::{Failure, KongFacts, KongState};

use super::Kong;
use crate::gateway::KongObserved;
use crate::gateway::admin_api::Readiness;
use crate::gateway::dialect::{Dialect, Trials};
use crate::gateway::kong_env::KongEnv;
use crate::gateway::listen::Listener;
use crate::gateway::process::Tree;
use crate::gateway::resolve;

/// What this Kong keeps from being done or shown as well as on a newer one.
fn limits(dialect: &Dialect, restarts: bool) -> Vec<Failure> {
    let version = dialect.version;
    let mut limits = Vec::new();
    if restarts {
        let message = format!(
            "changes of Kong {version}'s plugins are brought in by a restart: its requests are cut off"
        );
        limits.push(Failure::new("APPLIED_BY_RESTART", message));
    }
    if dialect.trials == Trials::None {
        let message = format!(
            "Kong {version} cannot try a list beside what runs: one that does not load is only found by the restart, and put back"
        );
        limits.push(Failure::new("NO_PREFLIGHT", message));
    }
    limits
}

impl Kong {
    pub(super) async fn observed(&self) -> KongObserved {
        let mut seen = KongObserved::default();
        match self.ask_version().await {
            Ok(dialect) => seen.limits = limits(&dialect, self.restarts()),
            // In which grammar the node's file is, nobody knows; what runs can still be looked at.
            Err(failure) => seen.trouble = Some(failure),
        }
        let conf = match &seen.trouble {
            None => self.conf(),
            Some(failure) => Err(failure.clone()),
        };
        let read = conf
            .and_then(|file| Ok((file.conf.plugins()?, file.conf.generation(&self.ours), file.conf.nginx())));
        match read {
            Ok((plugins, generation, nginx)) => {
                seen.conf_plugins = Some(plugins);
                seen.conf_nginx = Some(nginx);
                seen.conf_generation = generation;
            }
            Err(failure) => seen.trouble = Some(failure),
        }
        let tree = Tree::of(self.prefix());
        let memory = self.record.memory();
        seen.stopped_by_us = tree.is_none() && memory.stopped_by_us();
        seen.facts.state = match &tree {
            None => KongState::Down,
            Some(tree) if tree.stopped => KongState::Stopped,
            Some(_) => KongState::Running,
        };
        if let Some(tree) = &tree {
            seen.facts.master_pid = tree.master.pid.unsigned_abs();
            seen.facts.old_workers = u32::try_from(tree.draining().count()).unwrap_or(u32::MAX);
            seen.unproven = memory
                .pending
                .map(|edit| edit.added.into_iter().chain(edit.removed).collect())
                .unwrap_or_default();
            seen.old_generations = self.record.old_generations(tree, self.ours.generations());
        }
        match self.armed() {
            Ok(armed) => self.observe_armed(&armed, &mut seen).await,
            Err(failure) => drop(seen.trouble.get_or_insert(failure)),
        }
        seen
    }

    async fn observe_armed(&self, armed: &KongEnv, seen: &mut KongObserved) {
        seen.armed_plugins = armed.plugins().ok();
        seen.armed_generation = armed.generation(&self.ours);
        seen.armed_nginx = armed.nginx();
        seen.lua_path = Some(resolve::absolute(&armed.users_lua_path(&self.ours), self.prefix()));
        let listener = Listener::parse(armed.get("admin_listen"));
        let facts = &mut seen.facts;
        *facts = KongFacts {
            has_admin_api: listener != Listener::Off,
            database: armed.database().to_owned(),
            datastore: armed.datastore(),
            propagation_ms: armed.propagation_ms(),
            role: armed.role().to_owned(),
            ..std::mem::take(facts)
        };
        // One that is down or held answers nothing, and waiting for it would hold everything else.
        if facts.state != KongState::Running {
            return;
        }
        let root = async {
            match self.admin(armed) {
                Some(api) => Some(api.root().await),
                None => None,
            }
        };
        let (root, readiness) = tokio::join!(root, self.readiness(armed));
        match root {
            Some(Ok(root)) => {
                facts.version = root.version;
                seen.loaded = Some(root.available);
                seen.enabled_in_cluster = Some(root.enabled);
            }
            Some(Err(failure)) => drop(seen.trouble.get_or_insert(failure)),
            None if listener == Listener::Unusable => {
                let message =
                    "no listener of admin_listen speaks plain HTTP over the network; add one on loopback";
                seen.trouble.get_or_insert_with(|| Failure::new("ADMIN_API_UNREACHABLE", message));
            }
            None => {}
        }
        seen.facts.ready = match readiness {
            Some(Readiness::Ready) => true,
            Some(Readiness::NotReady(_)) => false,
            // Nobody to ask but the Admin API.
            Some(Readiness::Unknown) | None => seen.loaded.is_some(),
        };
        let overridden = self.inferred.overridden();
        if !overridden.is_empty() {
            let keys = overridden.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!(
                "kong.conf says otherwise than what runs (environment, or an edit that was never loaded): {keys}"
            );
            seen.trouble.get_or_insert_with(|| Failure::new("CONF_NOT_IN_EFFECT", message));
        }
    }

    /// `None` without a status listener, or when it does not answer.
    pub(super) async fn readiness(&self, armed: &KongEnv) -> Option<Readiness> {
        self.status_api(armed)?.readiness().await.ok()
    }
}
