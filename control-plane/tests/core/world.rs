//! A small world of model agents for the decisions to be tried on. Not a test of its own.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use kctl_control_plane::desired::node_spec;
use kctl_control_plane::rollout::fleet::Fleet;
use kctl_control_plane::rollout::{self, WaitingOn, runbook};
use kctl_control_plane::state::duty::{GroupChange, NodeChange};
use kctl_control_plane::state::history::Revision;
use kctl_control_plane::state::model::{NodeFacts, Release, Target};
use kctl_control_plane::state::operation::{
    Operation, OperationKind, Phase, Policy, Step, StepKind, StepPhase,
};
use kctl_control_plane::state::{ClusterState, Command, LogStamp, apply, invariants, no_conflict};
use kctl_control_plane::views::Sources;
use kctl_shared::audit::verify;
use kctl_shared::digest::Digest;
use kctl_shared::method::Method;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::package::FileEntry;
use kctl_shared::served::{Answers, Served};
use kctl_shared::spec::{
    Entity, EntityReport, Failure, Grant, KongFacts, KongState, NodeSpec, NodeStatus, PluginStatus,
    ReleaseRef, Stage,
};
use kctl_shared::time::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

#[derive(Default)]
struct Agent {
    spec: Option<NodeSpec>,
    staged: BTreeSet<ReleaseRef>,
    /// It had files once.
    supplied: bool,
    loaded: Option<ReleaseRef>,
    old_workers: u32,
    preflighted: BTreeMap<Grant, ReleaseRef>,
    failures: BTreeMap<Grant, Failure>,
    task: Option<EntityReport>,
    broken: bool,
    unready: bool,
    /// What its Kong was reloaded for last, and what it answered before and since.
    reloaded: Option<Grant>,
    answers: Option<(Answers, Answers)>,
    /// Does not heal what it lost until it gets another grant.
    lost: bool,
    lost_at: Option<Grant>,
    frozen: bool,
}

/// Entities that were handed over, and those whose route is gone, which Kong takes no more.
#[derive(Default)]
struct Vault {
    saved: BTreeSet<String>,
    orphans: BTreeSet<String>,
}

pub struct World {
    pub(crate) state: ClusterState,
    pub(crate) fleet: Fleet,
    agents: BTreeMap<NodeId, Agent>,
    entities: BTreeSet<String>,
    vault: Vault,
    /// Entities that people deleted with their own hands.
    by_hand: BTreeSet<String>,
    created: u32,
    pub(crate) now: Timestamp,
    index: u64,
    pub(crate) rng: SmallRng,
    pub(crate) seed: u64,
    pub(crate) current: String,
    waiting: Vec<WaitingOn>,
    installations: u32,
    joined: usize,
    faults: [usize; 5],
    /// Steps in which a node fails at its first try, how often yet.
    pub(crate) stumbles: Vec<(StepKind, u32)>,
    /// Everything is proposed and done twice.
    pub(crate) twice: bool,
    /// What the next install brings back.
    attach: Option<Revision>,
    /// Of the next install.
    pub method: Method,
    /// Of the next operation; waves, parallelism and the node deadline are the world's own.
    pub policy: Policy,
}

fn plugin() -> PluginName {
    PluginName::parse("golden").unwrap()
}

pub fn group() -> GroupName {
    GroupName::parse("default").unwrap()
}

fn extra(path: &str, content: &str) -> FileEntry {
    FileEntry { path: path.into(), sha256: Digest::of(content.as_bytes()), size: content.len() as u64 }
}

impl World {
    pub fn new(seed: u64, nodes: usize) -> Self {
        let mut world = Self {
            state: ClusterState::default(),
            fleet: Fleet::default(),
            agents: BTreeMap::new(),
            entities: BTreeSet::new(),
            vault: Vault::default(),
            by_hand: BTreeSet::new(),
            created: 0,
            now: Timestamp(1_000_000),
            index: 0,
            rng: SmallRng::seed_from_u64(seed),
            seed,
            current: String::new(),
            waiting: Vec::new(),
            installations: 0,
            joined: 0,
            faults: [0; 5],
            stumbles: Vec::new(),
            twice: false,
            attach: None,
            method: Method::Store,
            policy: Policy::default(),
        };
        for _ in 0..nodes {
            world.join();
        }
        world
    }

    pub fn join(&mut self) {
        let id = NodeId::parse(&format!("n{}", self.joined)).unwrap();
        let facts =
            NodeFacts { has_admin_api: self.joined % 3 != 2, datastore: "d".into(), propagation_ms: 3_000 };
        self.joined += 1;
        self.agents.insert(id.clone(), Agent::default());
        self.propose(Command::RegisterNode { node: id, group: group(), nonce: "n".into(), boot: 1, facts });
    }

    /// A node of another group that uses the same database.
    pub fn join_another_group(&mut self) {
        let facts = NodeFacts { has_admin_api: true, datastore: "d".into(), propagation_ms: 0 };
        let (node, group) = (NodeId::parse("stranger").unwrap(), GroupName::parse("other").unwrap());
        assert!(self.propose(Command::RegisterNode { node, group, nonce: "n".into(), boot: 1, facts }));
    }

    /// Its Kong runs at last, or runs with another configuration.
    pub fn turns_out(&mut self, node: &NodeId, has_admin_api: bool) {
        let record = self.state.nodes[node].clone();
        let facts = NodeFacts { has_admin_api, ..record.facts };
        let (node, group, nonce, boot) = (node.clone(), record.group, record.nonce, record.boot);
        assert!(self.propose(Command::RegisterNode { node, group, nonce, boot, facts }));
    }

    /// Configuration is in files of the nodes' own.
    pub fn without_datastore(&mut self) {
        for (node, record) in self.state.nodes.clone() {
            let facts = NodeFacts { datastore: String::new(), ..record.facts };
            let (group, nonce, boot) = (record.group, record.nonce, record.boot);
            assert!(self.propose(Command::RegisterNode { node, group, nonce, boot, facts }));
        }
    }

    /// A removal goes back to detaching by steps that were expanded before another node joined.
    pub fn reroute_overtaken_by_a_join(&mut self) {
        let (operation, from) = (self.current.clone(), self.operation().cursor);
        let steps = runbook::detach_again(&self.state, self.operation());
        self.join();
        let phase = Phase::Progressing;
        assert!(self.propose(Command::Reroute { operation, from, phase, error: None, steps }));
        let newest = NodeId::parse(&format!("n{}", self.joined - 1)).unwrap();
        let open: Vec<_> = self.operation().steps.iter().filter(|s| !s.is_over()).collect();
        for kind in [StepKind::Disable, StepKind::Purge] {
            let mut named = open.iter().filter(|s| s.kind == kind);
            assert!(named.any(|s| s.nodes.contains_key(&newest)), "{newest} has no {kind:?}");
        }
    }

    fn propose(&mut self, command: Command) -> bool {
        self.try_propose(command).is_ok()
    }

    /// The code with which it was refused.
    pub(crate) fn try_propose(&mut self, command: Command) -> Result<(), String> {
        self.index += 1;
        let at = LogStamp { index: self.index, offset: 0, proposed_at: self.now };
        let before = self.state.clone();
        let outcome = apply(&mut self.state, at, command.clone());
        match &outcome {
            Err(rejection) => {
                assert_eq!(before, self.state, "seed {}: {rejection} changed the state", self.seed)
            }
            Ok(_) => {
                let (old, new) = (&before.audit, &self.state.audit);
                let mut plain = self.state.clone();
                (plain.clock, plain.audit) = (before.clock, old.clone());
                let changed = u64::from(plain != before);
                assert_eq!(new.count, old.count + changed, "seed {}: one record for each change", self.seed);
                if let Some(last) = new.recent.back().filter(|_| changed == 1) {
                    assert_eq!((last.seq, last.index, last.previous), (new.count, at.index, old.head));
                }
                if new.count.is_multiple_of(64) {
                    let kept: Vec<_> = new.recent.iter().map(|r| (**r).clone()).collect();
                    assert_eq!(verify(&kept).unwrap(), Some(new.head), "seed {}", self.seed);
                }
                // Replay of the same command on the same state gives the same state.
                let mut again = before;
                apply(&mut again, at, command).unwrap();
                assert_eq!(again, self.state, "seed {}", self.seed);
            }
        }
        let violations = invariants::check(&self.state);
        assert!(violations.is_empty(), "seed {}: {violations:?}", self.seed);
        outcome.map(drop).map_err(|rejection| rejection.code)
    }

    pub fn install(&mut self, version: &str) {
        let digest = Digest::of(version.as_bytes());
        let release = Release {
            plugin: plugin(),
            version: version.into(),
            digest,
            files: Vec::new(),
            registered_at: self.now,
            retained: false,
            extras: Vec::new(),
            nginx: Vec::new(),
        };
        assert!(self.propose(Command::RegisterRelease { release }));
        let previous = self.state.plugin(&group(), &plugin()).and_then(|p| p.release);
        let nodes: Vec<_> = self.agents.keys().cloned().collect();
        let waves = self.waves();
        let steps = runbook::install(&self.state, &nodes, &waves).unwrap();
        let kind = if previous.is_some() { OperationKind::Upgrade } else { OperationKind::Install };
        self.start(kind, digest, previous, steps, waves);
    }

    pub fn history(&self) -> &[Revision] {
        self.state.groups[&group()].history.get(&plugin()).map(Vec::as_slice).unwrap_or_default()
    }

    /// Installs what the newest removal removed, and re-creates what it took away.
    pub fn undo(&mut self) {
        let removal = self.history().last().unwrap().clone();
        let nodes: Vec<_> = self.agents.keys().cloned().collect();
        let waves = self.waves();
        let mut steps = runbook::install(&self.state, &nodes, &waves).unwrap();
        if !removal.entities.is_empty() {
            steps.push(Step::new(StepKind::Attach, 0, []));
        }
        self.method = removal.method.clone();
        let release = removal.release;
        self.attach = Some(removal);
        self.start(OperationKind::Install, release, None, steps, waves);
    }

    /// The code with which an undo of other entities than were taken away is refused.
    pub fn undo_of_others(&mut self) -> String {
        let mut operation = self.operation().clone();
        (operation.id, operation.request_id) = ("other".into(), "other".into());
        operation.kind = OperationKind::Install;
        operation.steps = vec![Step::new(StepKind::Attach, 0, [])];
        operation.entities = BTreeMap::from([("mine".to_owned(), String::new())]);
        self.try_propose(Command::StartOperation { operation: Box::new(operation) }).unwrap_err()
    }

    pub fn pin(&mut self, version: Option<&str>) -> Result<(), String> {
        let version = version.map(str::to_owned);
        self.try_propose(Command::Pin { group: group(), plugin: plugin(), version })
    }

    /// Whether an install of `version` is refused, by which code.
    pub fn refused_install(&mut self, version: &str, allow_downgrade: bool) -> Option<String> {
        let digest = Digest::of(version.as_bytes());
        let mut operation = self.operation().clone();
        (operation.id, operation.request_id) = (format!("try {version}"), format!("try {version}"));
        operation.kind = OperationKind::Upgrade;
        operation.previous = self.state.plugin(&group(), &plugin()).and_then(|p| p.release);
        (operation.release, operation.allow_downgrade) = (digest, allow_downgrade);
        operation.steps = vec![Step::new(StepKind::Stage, 0, self.agents.keys().cloned())];
        let mut state = self.state.clone();
        let mut release = state.releases.values().next().unwrap().clone();
        (release.version, release.digest) = (version.to_owned(), digest);
        state.releases.insert(digest, release);
        let at = LogStamp { index: self.index + 1, offset: 0, proposed_at: self.now };
        let command = Command::StartOperation { operation: Box::new(operation) };
        apply(&mut state, at, command).err().map(|rejection| rejection.code)
    }

    /// A removal by steps that were expanded before it was known what these nodes have.
    pub fn remove_overtaken(&mut self, turned: &[(NodeId, bool)]) {
        let release = self.state.plugin(&group(), &plugin()).and_then(|p| p.release).unwrap();
        let nodes: Vec<_> = self.agents.keys().cloned().collect();
        let waves = self.waves();
        let steps = runbook::remove(&self.state, &nodes, &waves).unwrap();
        turned.iter().for_each(|(node, has_admin_api)| self.turns_out(node, *has_admin_api));
        self.start(OperationKind::Remove, release, None, steps, waves);
    }

    pub fn remove(&mut self) {
        self.remove_overtaken(&[]);
    }

    /// The state with a module beside the plugin of each release named: (plugin, version, module, its content).
    pub fn state_with_modules(&self, list: &[(&str, &str, &str, &str)]) -> ClusterState {
        let mut state = self.state.clone();
        for (name, version, module, content) in list {
            let release = state
                .releases
                .values_mut()
                .find(|r| r.plugin.as_str() == *name && r.version == *version)
                .unwrap();
            release.extras = vec![extra(module, content)];
        }
        state
    }

    /// The code with which a release of `name` with one module beside it is refused.
    pub fn conflict(state: &ClusterState, name: &str, module: &str, content: &str) -> Option<String> {
        let mut state = state.clone();
        let name = PluginName::parse(name).unwrap();
        let digest = Digest::of(format!("{name} {module} {content}").as_bytes());
        let release = Release {
            plugin: name.clone(),
            version: "9.0.0".into(),
            digest,
            files: Vec::new(),
            registered_at: Timestamp(0),
            retained: false,
            extras: vec![extra(module, content)],
            nginx: Vec::new(),
        };
        state.releases.insert(digest, release);
        no_conflict(&state, &group(), &name, &digest).err().map(|fault| fault.code)
    }

    fn present_method(&self) -> Method {
        self.state.plugin(&group(), &plugin()).map(|p| p.method.clone()).unwrap_or_default()
    }

    fn waves(&self) -> Vec<String> {
        ["1", "25%", "100%"].map(str::to_owned).to_vec()
    }

    fn start(
        &mut self,
        kind: OperationKind,
        release: Digest,
        previous: Option<Digest>,
        steps: Vec<kctl_control_plane::state::operation::Step>,
        waves: Vec<String>,
    ) {
        let id = format!("op-{}", self.index);
        let previous_method = self.present_method();
        if kind == OperationKind::Remove {
            self.method = previous_method.clone();
        }
        let undone = self.attach.take();
        let operation = Operation {
            id: id.clone(),
            kind,
            plugin: plugin(),
            group: group(),
            target: Target::AllNodes,
            release,
            version: String::new(),
            previous_version: String::new(),
            previous,
            policy: Policy {
                waves,
                max_parallel: 2,
                max_failures: 0,
                node_deadline_ms: 600_000,
                ..self.policy.clone()
            },
            request_id: id.clone(),
            request_body: "b".into(),
            reason: String::new(),
            created_at: self.now,
            finished_at: None,
            phase: Phase::Pending,
            error: None,
            steps,
            cursor: 0,
            applier: None,
            entities: undone.as_ref().map(|r| r.entities.clone()).unwrap_or_default(),
            rerecorded: 0,
            method: self.method.clone(),
            previous_method,
            adopt: false,
            set_nginx: false,
            previous_set_nginx: false,
            interventions: Default::default(),
            saved: undone.as_ref().map(|r| r.saved.clone()).unwrap_or_default(),
            refused: BTreeMap::new(),
            undo_to: undone.map(|r| r.number),
            batch: None,
            allow_downgrade: true,
        };
        let command = Command::StartOperation { operation: Box::new(operation) };
        assert!(self.propose(command.clone()));
        // A retry is recognised and changes nothing.
        let before = self.state.clone();
        assert!(self.propose(command));
        assert_eq!(ClusterState { clock: before.clock, ..self.state.clone() }, before);
        self.current = id;
    }

    pub fn operation(&self) -> &Operation {
        &self.state.operations[&self.current]
    }

    pub fn phase(&self) -> Phase {
        self.operation().phase
    }

    pub fn waiting(&self) -> &[WaitingOn] {
        &self.waiting
    }

    /// Whether an operation says that it waits for this.
    pub fn waits_for(&self, reason: &str) -> bool {
        self.waiting.iter().any(|w| w.reason == reason)
    }

    #[track_caller]
    pub fn run_until(&mut self, what: &str, mut is_there: impl FnMut(&Self) -> bool) {
        for _ in 0..2_000 {
            if is_there(self) {
                return;
            }
            self.run(1);
        }
        panic!("never {what}: {:?} {:#?}", self.waiting, self.operation());
    }

    /// What is said of any node: node and code.
    pub fn conditions(&self) -> BTreeSet<(String, String)> {
        let report = Default::default();
        let sources = Sources { state: &self.state, fleet: &self.fleet, report: &report, now: self.now };
        let views = sources.node_ids().into_iter().map(|id| sources.node(&id));
        views.flat_map(|view| view.conditions.into_iter().map(move |c| (view.id.clone(), c.code))).collect()
    }

    /// Somebody takes all plugin configurations away, with their own hands.
    pub fn unconfigure(&mut self) {
        self.by_hand.extend(std::mem::take(&mut self.entities));
    }

    pub fn faults(&self) -> [usize; 5] {
        self.faults
    }

    fn delete_by_hand(&mut self) {
        self.by_hand.append(&mut self.entities);
    }

    /// The routes of all entities are gone: once deleted, those cannot be re-created.
    pub fn orphan(&mut self) {
        self.vault.orphans.extend((1..=self.created).map(|n| format!("e{n}")));
    }

    /// Every entity that may have been deleted is there under its id.
    pub fn assert_attached(&self) {
        let operation = self.operation();
        for id in operation.entities.keys() {
            let told = operation.refused.contains_key(id) || self.by_hand.contains(id);
            assert!(self.entities.contains(id) || told, "seed {}: {id} is not back", self.seed);
        }
    }

    pub fn configure(&mut self) {
        self.created += 1;
        self.entities.insert(format!("e{}", self.created));
    }

    /// The number of an agent that is there.
    fn any_agent(&mut self) -> usize {
        let nth = self.rng.random_range(0..self.agents.len());
        let id = self.agents.keys().nth(nth).unwrap();
        id.as_str().trim_start_matches('n').parse().unwrap()
    }

    fn agent(&mut self, n: usize) -> &mut Agent {
        self.agents.get_mut(&NodeId::parse(&format!("n{n}")).unwrap()).unwrap()
    }

    /// Machines whose nodes were decommissioned are switched off.
    fn let_leave(&mut self) {
        self.agents.retain(|node, _| self.state.nodes.contains_key(node));
        self.fleet.reports.retain(|node, _| self.state.nodes.contains_key(node));
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        self.agents.keys().cloned().collect()
    }

    /// Its machine burns down, and whoever saw it says so.
    pub fn burn(&mut self, node: &NodeId) -> Result<(), String> {
        let change = NodeChange::Decommission { attested: true };
        self.change_node(node, change)?;
        self.let_leave();
        Ok(())
    }

    pub fn change_node(&mut self, node: &NodeId, change: NodeChange) -> Result<(), String> {
        self.try_propose(Command::ChangeNode { node: node.clone(), change, reason: "because".into() })
    }

    pub fn change_group(&mut self, change: GroupChange) -> Result<(), String> {
        self.try_propose(Command::ChangeGroup { group: group(), change, reason: "because".into() })
    }

    /// Its machine is set up again from nothing, under the same name.
    pub fn reinstall(&mut self, node: &NodeId) {
        self.installations += 1;
        let nonce = format!("n{}", self.installations);
        let facts = self.state.nodes[node].facts.clone();
        let register = Command::RegisterNode {
            node: node.clone(),
            group: group(),
            nonce: nonce.clone(),
            boot: 1,
            facts,
        };
        assert_eq!(self.try_propose(register.clone()).unwrap_err(), "NODE_ID_IN_USE");
        self.agents.insert(node.clone(), Agent::default());
        self.fleet.reports.remove(node);
        self.change_node(node, NodeChange::Readmit { nonce, boot: 1, since: None }).unwrap();
        assert!(self.propose(register));
    }

    pub fn mend_node(&mut self, n: usize) {
        self.agent(n).broken = false;
    }

    pub fn unready(&mut self, n: usize, unready: bool) {
        self.agent(n).unready = unready;
    }

    /// Its Kong counted so many answers and 5xx before and since its last reload.
    pub fn answers(&mut self, n: usize, before: (u64, u64), since: (u64, u64)) {
        let [before, since] = [before, since].map(|(all, failed)| Answers { all, failed });
        self.agent(n).answers = Some((before, since));
    }

    /// Its Kong loses the plugin as if somebody had gone about it by hand.
    pub fn lose(&mut self, n: usize) {
        let agent = self.agent(n);
        (agent.loaded, agent.lost) = (None, true);
    }

    pub fn has(&self, n: usize) -> bool {
        self.agents[&NodeId::parse(&format!("n{n}")).unwrap()].loaded.is_some()
    }

    pub fn break_node(&mut self, n: usize) {
        self.agent(n).broken = true;
    }

    pub fn freeze(&mut self, n: usize) {
        self.agent(n).frozen = true;
    }

    pub fn thaw(&mut self, n: usize) {
        self.agent(n).frozen = false;
    }

    /// Random faults: lost and late reports, frozen and restarted agents, a new leader, broken plugins, entities that
    /// come back.
    pub fn chaos(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let n = self.any_agent();
            match self.rng.random_range(0..60) {
                0 => {
                    let agent = self.agent(n);
                    agent.frozen = !agent.frozen;
                    self.faults[0] += 1;
                }
                1 => {
                    let agent = self.agent(n);
                    (agent.spec, agent.task) = (None, None);
                    self.faults[1] += 1;
                }
                2 => {
                    self.fleet = Fleet { leader_since: self.now, ..Fleet::default() };
                    self.faults[2] += 1;
                }
                3 if self.rng.random_bool(0.2) => {
                    self.agent(n).broken = true;
                    self.faults[3] += 1;
                }
                4 if self.operation().kind == OperationKind::Remove
                    && self.rng.random_bool(0.3)
                    && self.agents.values().any(|a| a.loaded.is_some()) =>
                {
                    self.configure();
                    self.faults[4] += 1;
                }
                _ => {}
            }
            self.round(true);
        }
    }

    pub fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.round(false);
        }
    }

    pub fn run_until_disabling(&mut self) {
        for _ in 0..2_000 {
            if self
                .operation()
                .steps
                .iter()
                .any(|s| s.kind == StepKind::Disable && s.phase == StepPhase::Done)
            {
                return;
            }
            self.round(false);
        }
        panic!("seed {}: never got to disabling: {:#?}", self.seed, self.operation());
    }

    /// Faults stop: it must converge, and then `plan` must have nothing left to say.
    pub fn heal(&mut self) {
        for agent in self.agents.values_mut() {
            (agent.frozen, agent.broken, agent.unready, agent.lost) = (false, false, false, false);
        }
        self.heal_but_broken();
    }

    pub fn heal_but_broken(&mut self) {
        for _ in 0..6_000 {
            if self.phase().has_ended() {
                break;
            }
            // A removal that holds because somebody re-creates entities goes on once they are deleted by hand.
            if self.waiting.iter().any(|w| w.reason == "ENTITY_RECREATED") {
                self.delete_by_hand();
            }
            self.let_go();
            self.round(false);
        }
        // What was created after the end, where the plugin was left over, is deleted by hand: the node holds until then.
        if self.state.groups.values().any(|g| !g.leftovers.is_empty()) {
            self.delete_by_hand();
        }
        self.run(100);
        let plan = rollout::plan(&self.state, &self.fleet, self.now);
        assert!(!self.phase().has_ended() || plan.commands.is_empty(), "seed {}: {plan:?}", self.seed);
    }

    pub(crate) fn round(&mut self, lossy: bool) {
        self.now = self.now.plus_ms(250);
        let nodes: Vec<_> = self.agents.keys().cloned().collect();
        for node in nodes {
            if self.agents[&node].frozen || (lossy && self.rng.random_bool(0.2)) {
                continue;
            }
            let spec = node_spec(&self.state, &node);
            let deaf = lossy && self.rng.random_bool(0.3);
            let listed: BTreeSet<_> = self.entities.clone();
            let mut agent = self.agents.remove(&node).unwrap();
            let asks = |s: &NodeSpec| (s.plugins.clone(), s.task.clone(), s.hold);
            // What asks for the same is not sent again.
            if !deaf && agent.spec.as_ref().map(asks) != Some(asks(&spec)) {
                agent.spec = Some(spec);
            }
            if let Some(grant) = self.stumbles_at(&node, &agent.spec) {
                agent.failures.insert(grant, Failure::new("STUMBLED", "once"));
            }
            let held = agent.spec.as_ref().is_some_and(|s| s.hold.is_some());
            for _ in 0..if held { 0 } else { 1 + u32::from(self.twice) } {
                agent.step(&mut self.entities, &mut self.vault, &listed);
            }
            self.check_safety(&node, &agent);
            if self.entities.len() > listed.len() {
                self.check_attached(&node, &agent);
            }
            if !(lossy && self.rng.random_bool(0.3)) {
                self.report(&node, &agent);
            }
            self.agents.insert(node, agent);
        }
        for _ in 0..8 {
            let plan = rollout::plan(&self.state, &self.fleet, self.now);
            self.waiting = plan.report.get(&self.current).cloned().unwrap_or_default();
            if plan.commands.is_empty() {
                return;
            }
            for command in plan.commands {
                let step = format!("{command:?}");
                let again = self.twice.then(|| command.clone());
                let refused = self.try_propose(command).err();
                assert!(
                    refused.is_none(),
                    "seed {}: the leader's own plan was refused: {step}: {refused:?}, {:?}",
                    self.seed,
                    self.operation()
                );
                // Refused, or without harm.
                again.map(|command| self.propose(command));
            }
            self.let_leave();
        }
    }

    /// No node that dropped the plugin lacks it any more when an entity is there again.
    fn check_attached(&self, node: &NodeId, agent: &Agent) {
        let excused = &self.operation().interventions.excused;
        let dropped = self.operation().touched(&[StepKind::Disable, StepKind::Enable]);
        let agents = self.agents.iter().chain([(node, agent)]);
        // What somebody takes out of a Kong by hand at the same moment is nobody's to know.
        let lacks = |a: &Agent| a.loaded.is_none() && !a.lost;
        let stays = |n: &NodeId| self.state.stays(n);
        let bound = |n: &NodeId| dropped.contains(n) && !excused.contains_key(n) && stays(n);
        let lacking = agents.filter(|(n, a)| bound(n) && lacks(a));
        let lacking: Vec<_> = lacking.map(|(n, _)| n).collect();
        assert!(lacking.is_empty(), "seed {}: {node} re-created an entity, {lacking:?} lack it", self.seed);
    }

    /// Files are never gone while something may still need them; nothing is loaded that is not on disk.
    fn check_safety(&self, node: &NodeId, agent: &Agent) {
        if let Some(loaded) = &agent.loaded {
            assert!(
                agent.staged.contains(loaded),
                "seed {}: {node} lost the files of what it runs",
                self.seed
            );
        }
        // What leaves takes away what is its own; nobody will want it back there.
        let leaves = |n: &NodeId| self.state.nodes.get(n).is_none_or(|n| n.leaving.is_some());
        let removes = self.operation().kind == OperationKind::Remove && !leaves(node);
        if removes && agent.supplied && agent.staged.is_empty() {
            let excused = &self.operation().interventions.excused;
            let others = self.agents.iter().filter(|(n, _)| !excused.contains_key(*n) && !leaves(n));
            let running: Vec<_> = others.filter(|(_, a)| a.loaded.is_some()).map(|(n, _)| n).collect();
            assert!(running.is_empty(), "seed {}: {node} deleted files while {running:?} run it", self.seed);
        }
    }

    fn report(&mut self, node: &NodeId, agent: &Agent) {
        let now = self.now;
        let report = self.fleet.reports.entry(node.clone()).or_default();
        let status = agent.status();
        let before = report.status.task.clone();
        if let Some(task) = &status.task {
            let same = before.as_ref().is_some_and(|b| b.grant == task.grant);
            let empty = task.entities.is_empty() && task.empty_in_a_row >= 2;
            report.empty_since = empty.then(|| report.empty_since.filter(|_| same).unwrap_or(now));
        }
        report.watch_health(&status, now);
        report.status = status;
        report.boot = 1;
        report.last_seen = now;
        report.lease_until = now.plus_ms(10_000);
    }

    pub fn assert_gone(&self) {
        for (node, agent) in &self.agents {
            assert!(
                agent.loaded.is_none() && agent.staged.is_empty(),
                "seed {}: {node} still has it",
                self.seed
            );
        }
        assert!(self.state.plugin(&group(), &plugin()).is_none(), "seed {}", self.seed);
        assert!(
            self.operation().kind != OperationKind::Remove || self.entities.is_empty(),
            "seed {}",
            self.seed
        );
    }

    pub fn assert_everywhere(&self, version: &str) {
        let digest = Digest::of(version.as_bytes());
        for (node, agent) in &self.agents {
            assert_eq!(agent.loaded.as_ref().map(|l| l.digest), Some(digest), "seed {}: {node}", self.seed);
            assert_eq!(agent.staged.len(), 1, "seed {}: {node}", self.seed);
        }
    }

    /// As [`Self::assert_everywhere`], except where it was tried at rest and failed: that waits for the next operation.
    pub fn assert_converged(&self, version: &str) {
        let digest = Digest::of(version.as_bytes());
        for (node, agent) in &self.agents {
            let grant = agent.spec.as_ref().and_then(|s| s.plugins.get(&plugin())).map(|p| p.grant);
            let failed = grant.is_some_and(|grant| agent.failures.contains_key(&grant));
            let loaded = agent.loaded.as_ref().map(|l| l.digest);
            assert!(loaded == Some(digest) || failed, "seed {}: {node}", self.seed);
        }
    }

    /// Every node has it by `method` and by no other.
    pub fn assert_method_everywhere(&self, method: &Method) {
        assert_eq!(&self.present_method(), method, "seed {}", self.seed);
        for (node, agent) in &self.agents {
            let loaded = agent.loaded.as_ref().map(|l| &l.method);
            assert_eq!(loaded, Some(method), "seed {}: {node}", self.seed);
            assert!(agent.staged.iter().all(|s| &s.method == method), "seed {}: {node}", self.seed);
        }
    }

    pub fn assert_files_everywhere(&self) {
        assert!(self.agents.values().all(|a| !a.staged.is_empty()), "seed {}", self.seed);
    }
}

impl Agent {
    /// One micro-step towards the spec, as a real agent would take it.
    fn step(&mut self, entities: &mut BTreeSet<String>, vault: &mut Vault, listed: &BTreeSet<String>) {
        let Some(spec) = self.spec.clone() else { return };
        self.old_workers = self.old_workers.saturating_sub(1);
        match &spec.task {
            Some(task) => {
                let begun = EntityReport::of(task);
                let report = self.task.get_or_insert_with(|| begun.clone());
                if !report.is_of_same(&begun) {
                    *report = begun;
                }
                for id in &task.delete {
                    assert!(!entities.remove(id) || vault.saved.contains(id), "{id} was deleted unsaved");
                }
                let unknown: Vec<_> =
                    entities.iter().filter(|_| !task.scan_only && task.attach.is_empty()).cloned().collect();
                report.saved = (!unknown.is_empty()).then(|| Digest::of(unknown.join(" ").as_bytes()));
                vault.saved.extend(unknown);
                let missing: Vec<_> = task.attach.difference(entities).cloned().collect();
                report.refused.clear();
                for id in &missing {
                    assert!(vault.saved.contains(id), "{id} was not saved");
                    if vault.orphans.contains(id) {
                        report.refused.insert(id.clone(), Failure::new("ENTITY_REFUSED", "no route"));
                    }
                }
                let over = missing.iter().all(|id| report.refused.contains_key(id));
                report.attached_in_a_row = if over { report.attached_in_a_row + 1 } else { 0 };
                report.scans += 1;
                report.empty_in_a_row = if entities.is_empty() { report.empty_in_a_row + 1 } else { 0 };
                let entity = |id: &String| Entity {
                    id: id.clone(),
                    scope: "route".into(),
                    target: String::new(),
                    body: String::new(),
                    workspace: String::new(),
                };
                report.entities = entities.iter().map(entity).collect();
                entities.extend(missing.into_iter().filter(|id| !report.refused.contains_key(id)));
            }
            None => self.task = None,
        }
        let Some(p) = spec.plugins.get(&plugin()) else { return };
        if self.failures.contains_key(&p.grant) {
            return;
        }
        if self.lost {
            self.lost_at.get_or_insert(p.grant);
            if self.lost_at == Some(p.grant) {
                return;
            }
            (self.lost, self.lost_at) = (false, None);
        }
        if let Some(missing) = p.staged.iter().find(|r| !self.staged.contains(r)) {
            self.staged.insert(missing.clone());
            self.supplied = true;
        } else if let Some(wanted) = p.preflight.as_ref().filter(|_| !self.preflighted.contains_key(&p.grant))
        {
            self.preflighted.insert(p.grant, wanted.clone());
        } else if self.loaded != p.enabled {
            // In use but not listed: Kong would refuse, so the agent does not try.
            if p.enabled.is_none() && !listed.is_empty() {
                return;
            }
            if self.broken && p.enabled.is_some() {
                self.failures.insert(p.grant, Failure::new("BROKEN", "it does not load"));
                return;
            }
            self.loaded = p.enabled.clone();
            (self.reloaded, self.answers) = (Some(p.grant), None);
            self.old_workers = 3;
        } else if self.old_workers == 0 {
            self.staged.retain(|r| p.staged.contains(r));
        }
    }

    fn status(&self) -> NodeStatus {
        let mut status = NodeStatus {
            kong: KongFacts {
                state: KongState::Running,
                ready: !self.unready,
                has_admin_api: true,
                ..KongFacts::default()
            },
            task: self.task.clone(),
            served: self.answers.map(|(before, since)| Served {
                grants: self.reloaded.into_iter().collect(),
                before,
                before_ms: 60_000,
                since,
            }),
            observed_generation: self.spec.as_ref().map_or(0, |s| s.generation),
            spec_hash: self.spec.as_ref().map(NodeSpec::hash).unwrap_or_default(),
            ..NodeStatus::default()
        };
        if let Some(p) = self.spec.as_ref().and_then(|s| s.plugins.get(&plugin())) {
            let stage = match (&self.loaded, self.staged.is_empty()) {
                (Some(_), _) => Stage::Enabled,
                (None, false) => Stage::Installed,
                (None, true) => Stage::Absent,
            };
            std::sync::Arc::make_mut(&mut status.plugins).insert(
                plugin(),
                PluginStatus {
                    grant: p.grant,
                    stage,
                    loaded: self.loaded.clone(),
                    staged: self.staged.clone(),
                    preflighted: self.preflighted.get(&p.grant).cloned(),
                    failure: self.failures.get(&p.grant).cloned(),
                    old_workers: self.old_workers,
                    ..PluginStatus::default()
                },
            );
        }
        status
    }
}
