//! The laws of the reconciler: whatever happened to a node, no action is ever dangerous, and when nothing is in the way
//! any more the node becomes what its spec says.
//!
//! One seed is one history; a failure prints it. `KCTL_SEED=N` runs that one alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};

use kctl_node_agent::action::Action;
use kctl_node_agent::attempts::Attempts;
use kctl_node_agent::gateway::Wanted;
use kctl_node_agent::ledger::Traffic;
use kctl_node_agent::reconcile::{Observed, Policy, reconcile};
use kctl_shared::digest::Digest;
use kctl_shared::method::Method;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::{Failure, Grant, HoldSpec, KongState, NodeSpec, Placement, PluginSpec, ReleaseRef};
use kctl_shared::time::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const SEEDS: u64 = 2_000;
const INTERVAL_MS: u64 = 700;
const OURS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Listed by hand; the spec names it too.
const FOREIGN: &str = "foreign";

fn plugin(name: &str) -> PluginName {
    PluginName::parse(name).unwrap()
}

fn release(name: &str, version: u8) -> ReleaseRef {
    let digest = Digest::of(format!("{name} {version}").as_bytes());
    ReleaseRef::new(format!("{version}.0.0"), digest)
}

fn methods() -> [Method; 4] {
    [
        Method::Store,
        Method::Luarocks { tree: None, make: false },
        Method::Luarocks { tree: Some("/usr/local".into()), make: true },
        Method::Path { dir: None },
    ]
}

fn trouble() -> Failure {
    Failure::new("MADE_UP", "for the test")
}

struct Node {
    rng: StdRng,
    now: Timestamp,
    grants: u64,
    spec: NodeSpec,
    seen: Observed,
    attempts: Attempts,
    reloads: usize,
}

impl Node {
    fn new(seed: u64) -> Self {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let policy = Policy { reload_interval_ms: INTERVAL_MS, heal: true, drains: seed % 2 == 1 };
        let mut seen = Observed { policy, ..Observed::default() };
        seen.kong.facts.state = KongState::Running;
        seen.kong.conf_plugins = Some(names(&["bundled", FOREIGN]));
        seen.kong.armed_plugins = seen.kong.conf_plugins.clone();
        seen.kong.loaded = Some(BTreeMap::from([(FOREIGN.to_owned(), None)]));
        let spec = NodeSpec {
            node: NodeId::parse("n1").unwrap(),
            epoch: 1,
            supersedes: None,
            generation: 0,
            plugins: BTreeMap::new(),
            task: None,
            hold: None,
        };
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, now: Timestamp(0), grants: 0, spec, seen, attempts: Attempts::default(), reloads: 0 }
    }

    fn grant(&mut self) -> Grant {
        self.grants += 1;
        Grant { index: self.grants, offset: 0 }
    }

    /// The control plane wants something else of one plugin.
    fn wish(&mut self) {
        let name =
            if self.rng.random_bool(0.1) { FOREIGN } else { OURS[self.rng.random_range(0..OURS.len())] };
        let method = methods()[self.rng.random_range(0..4)].clone();
        let wanted = release(name, self.rng.random_range(1..=2)).by(method);
        let mut spec = PluginSpec { grant: self.grant(), ..PluginSpec::default() };
        match self.rng.random_range(0..4) {
            0 => {
                spec.preflight = Some(wanted.clone());
                spec.boot = self.rng.random_bool(0.5);
            }
            1 => spec.enabled = Some(wanted.clone()),
            2 => {}
            _ => {
                self.spec.plugins.insert(plugin(name), spec);
                return;
            }
        }
        spec.staged.insert(wanted);
        // An upgrade keeps the former release.
        spec.staged.extend(self.seen.proven.listed.get(&plugin(name)).cloned());
        self.spec.plugins.insert(plugin(name), spec);
    }

    /// Something that nobody asked for.
    fn accident(&mut self) {
        match self.rng.random_range(0..9) {
            8 => {
                // Entities come and go.
                let used = OURS.iter().filter(|_| self.rng.random_bool(0.5)).map(|n| (*n).to_owned());
                self.seen.kong.enabled_in_cluster = Some(used.collect());
            }
            0 => self.seen.kong.facts.state = KongState::Down,
            1 => self.seen.kong.facts.state = KongState::Running,
            2 => self.seen.kong.facts.old_workers = 1,
            3 => self.seen.kong.facts.old_workers = 0,
            4 => self.seen.proof_holds = false,
            5 => {
                // Somebody edits kong.conf.
                let ours = |name: &String| OURS.contains(&name.as_str());
                self.seen.kong.conf_plugins.iter_mut().for_each(|names| names.retain(|n| !ours(n)));
            }
            6 => {
                // Somebody edits files.
                let all = self.seen.stored.iter().flat_map(|(p, s)| s.iter().map(move |d| (p, d)));
                let mut ours = all.filter(|(_, d)| !matches!(d.method, Method::Path { .. }));
                if let Some((plugin, placement)) = ours.next_back() {
                    let (plugin, placement) = (plugin.clone(), placement.clone());
                    self.seen.damaged.entry(plugin).or_default().insert(placement);
                }
            }
            _ if self.rng.random_bool(0.3) => {
                self.spec.hold = match self.spec.hold {
                    Some(_) => None,
                    None => Some(HoldSpec { drain: self.rng.random_bool(0.5) }),
                };
            }
            _ => self.now = self.now.plus_ms(1_000),
        }
        // It does not rest for long.
        if self.rng.random_bool(0.5) {
            self.seen.hook_failure = None;
        }
    }

    fn next(&self) -> Option<Action> {
        let actions = reconcile(&self.spec, &self.seen, &self.attempts, self.now);
        assert_eq!(actions, reconcile(&self.spec, &self.seen, &self.attempts, self.now), "not a function");
        actions.iter().for_each(|action| self.judge(action));
        actions.into_iter().next()
    }

    fn mended(&mut self, plugin: &PluginName, placement: &Placement) -> bool {
        let Some(damaged) = self.seen.damaged.get_mut(plugin) else { return false };
        let mended = damaged.remove(placement);
        self.seen.damaged.retain(|_, all| !all.is_empty());
        mended
    }

    /// What entities refer to, as far as it is known.
    fn in_use(&self) -> BTreeSet<String> {
        self.seen.kong.enabled_in_cluster.clone().unwrap_or_default()
    }

    fn written(&self, name: &PluginName) -> bool {
        self.seen.kong.conf_plugins.iter().flatten().any(|n| n == name.as_str())
    }

    fn names(&self, name: &PluginName) -> bool {
        let listed = |list: &Option<Vec<String>>| list.iter().flatten().any(|n| n == name.as_str());
        listed(&self.seen.kong.conf_plugins) || listed(&self.seen.kong.armed_plugins)
    }

    /// What must hold of every action in every state.
    fn judge(&self, action: &Action) {
        let running = self.seen.kong.facts.state == KongState::Running;
        match action {
            Action::Delete { plugin, placement } => {
                let spec = &self.spec.plugins[plugin];
                let loaded = self.seen.kong.loaded.iter().flatten().any(|(name, _)| name == plugin.as_str());
                let proven = self.seen.proven.listed.get(plugin).map(ReleaseRef::placement);
                let there = self.seen.stored.get(plugin).is_some_and(|s| s.contains(placement));
                assert!(there, "undoes what was never placed in that way");
                assert!(!spec.staged.iter().any(|r| r.placement() == *placement), "deletes what must stay");
                assert_ne!(proven.as_ref(), Some(placement), "deletes what is proven to run");
                assert_eq!(self.seen.kong.facts.old_workers, 0, "deletes under old workers");
                if spec.enabled.is_none() && plugin.as_str() != FOREIGN {
                    assert!(!self.names(plugin), "deletes what the directive names");
                    assert!(!running || !loaded, "deletes what is loaded");
                }
            }
            Action::Enact { wanted, plugins } => {
                let since = self.seen.last_reload.map(|at| self.now.since(at));
                assert!(since.is_none_or(|ms| ms >= INTERVAL_MS), "a reload {since:?} ms after another");
                let apart = plugins.iter().any(|(p, grant)| self.attempts.must_go_alone(p, *grant));
                let missed = plugins.keys().all(|p| self.in_use().contains(p.as_str()) && !self.written(p));
                assert!(plugins.len() == 1 || !apart || missed, "together again what failed together");
                assert!(running, "reloads a Kong that does not run");
                for (name, release) in &wanted.listed {
                    let stored = self.seen.stored.get(name).is_some_and(|s| s.contains(&release.placement()));
                    assert!(stored, "lists {name} without its files");
                }
                let foreign = plugin(FOREIGN);
                assert!(!wanted.listed.contains_key(&foreign) && !wanted.unlisted.contains(&foreign));
            }
            Action::Preflight { wanted, .. } => {
                for (name, release) in &wanted.listed {
                    let stored = self.seen.stored.get(name).is_some_and(|s| s.contains(&release.placement()));
                    assert!(stored, "tries {name} without its files");
                }
            }
            Action::PutBack => assert!(self.seen.put_back_due),
            Action::Drain { .. } => assert_ne!(self.seen.traffic, Traffic::Out, "drains twice"),
            Action::Undrain => {
                assert_ne!(self.seen.traffic, Traffic::In, "undrains what is in");
                assert!(running, "brings a Kong in that does not run");
            }
            Action::Fetch { .. } | Action::CollectGenerations => {}
        }
        let hooks = matches!(action, Action::Drain { .. } | Action::Undrain);
        assert!(
            !hooks || (self.seen.policy.drains && self.seen.hook_failure.is_none()),
            "a hook that must rest"
        );
        let holds = self.spec.hold.is_some();
        assert!(
            !holds || matches!(action, Action::PutBack | Action::Drain { .. } | Action::Undrain),
            "acts on a held node"
        );
        let out = self.seen.traffic == Traffic::Out || !self.seen.policy.drains;
        assert!(
            out || !matches!(action, Action::Enact { .. }),
            "reloads a Kong that is in its load balancer"
        );
        assert!(!self.seen.put_back_due || *action == Action::PutBack, "goes on before all is put back");
    }

    fn list(&mut self, wanted: &Wanted, and_load: bool) {
        let edit = |list: &mut Vec<String>| {
            list.retain(|n| !wanted.unlisted.iter().any(|p| p.as_str() == n));
            for name in wanted.listed.keys() {
                if !list.iter().any(|n| n == name.as_str()) {
                    list.push(name.to_string());
                }
            }
        };
        self.seen.kong.conf_plugins.iter_mut().for_each(edit);
        if and_load {
            self.seen.kong.armed_plugins = self.seen.kong.conf_plugins.clone();
            let names = self.seen.kong.conf_plugins.iter().flatten();
            self.seen.kong.loaded = Some(names.map(|n| (n.clone(), None)).collect());
        }
    }

    /// Executes an action; `luck` false: in one of the ways in which it can go wrong.
    fn execute(&mut self, action: Action, luck: bool) {
        match action {
            Action::Fetch { plugin, grant, .. } if !luck => {
                self.attempts.wait(&plugin, grant, trouble(), self.now)
            }
            Action::Fetch { plugin, grant, release } => {
                self.seen.stored.entry(plugin.clone()).or_default().insert(release.placement());
                if self.mended(&plugin, &release.placement()) {
                    self.seen.tainted.insert(plugin.clone());
                }
                self.attempts.succeed(&plugin, grant);
            }
            Action::Preflight { plugin, grant, .. } if !luck => self.attempts.fail(&plugin, grant, trouble()),
            Action::Preflight { plugin, grant, release, how, .. } => {
                self.attempts.pass(&plugin, grant, release, how)
            }
            Action::Enact { plugins, wanted } => {
                self.seen.managed.extend(plugins.keys().cloned());
                self.seen.last_reload = Some(self.now);
                self.reloads += 1;
                let stays = |name: &String| {
                    let plugin = plugin(name);
                    let keeps = self.written(&plugin) && !wanted.unlisted.contains(&plugin);
                    keeps || wanted.listed.contains_key(&plugin)
                };
                let refused = !self.in_use().iter().all(stays);
                let ways = if refused { 3..4 } else { 0..4 };
                match self.rng.random_range(ways) {
                    _ if luck && !refused => {
                        self.list(&wanted, true);
                        self.seen.proven = wanted;
                        self.seen.proof_holds = true;
                        self.seen.tainted.retain(|p| !plugins.contains_key(p));
                        plugins.iter().for_each(|(plugin, grant)| self.attempts.succeed(plugin, *grant));
                    }
                    // Killed after the edit.
                    0 => self.list(&wanted, false),
                    1 => drop(self.attempts.give_up(&plugins, &trouble())),
                    2 => {
                        self.list(&wanted, true);
                        self.seen.proof_holds = false;
                        self.seen.put_back_due = true;
                        self.attempts.give_up(&plugins, &trouble());
                    }
                    _ => {
                        let now = self.now;
                        plugins.iter().for_each(|(p, grant)| self.attempts.wait(p, *grant, trouble(), now));
                    }
                }
            }
            Action::PutBack if !luck => {}
            Action::PutBack => {
                let mut before = self.seen.proven.clone();
                let ours =
                    self.seen.managed.iter().filter(|name| !before.listed.contains_key(*name)).cloned();
                before.unlisted = ours.collect();
                self.list(&before, true);
                self.seen.proof_holds = true;
                self.seen.put_back_due = false;
            }
            Action::Delete { plugin, placement } => {
                self.seen.stored.get_mut(&plugin).unwrap().remove(&placement);
                self.mended(&plugin, &placement);
            }
            Action::CollectGenerations => self.seen.idle_generations = false,
            Action::Drain { .. } | Action::Undrain if !luck => {
                self.seen.traffic = Traffic::Unsure;
                self.seen.hook_failure = Some(trouble());
                if let Action::Drain { plugins } = action {
                    let now = self.now;
                    plugins.iter().for_each(|(p, grant)| self.attempts.wait(p, *grant, trouble(), now));
                }
            }
            Action::Drain { .. } => self.seen.traffic = Traffic::Out,
            Action::Undrain => self.seen.traffic = Traffic::In,
        }
    }

    /// Nothing is in the way any more: soon there is nothing left to do, and all is as it should be.
    fn settle(&mut self) {
        self.seen.kong.facts.state = KongState::Running;
        self.seen.kong.facts.old_workers = 0;
        self.seen.hook_failure = None;
        self.spec.hold = None;
        // Nothing is in use that the node is not to have.
        let wanted =
            |name: &String| self.spec.plugins.get(&plugin(name)).is_some_and(|spec| spec.enabled.is_some());
        let used: Option<BTreeSet<String>> =
            self.seen.kong.enabled_in_cluster.take().map(|used| used.into_iter().filter(wanted).collect());
        self.seen.kong.enabled_in_cluster = used;
        for name in OURS {
            let grant = self.grant();
            self.spec.plugins.entry(plugin(name)).or_default().grant = grant;
        }
        self.reloads = 0;
        for _ in 0..100 {
            self.now = self.now.plus_ms(10_000);
            match self.next() {
                Some(action) => self.execute(action, true),
                None => {
                    assert!(self.reloads <= 1, "{} reloads for one spec", self.reloads);
                    return self.is_as_specified();
                }
            }
        }
        panic!("never comes to rest: {:?}", self.next());
    }

    fn is_as_specified(&self) {
        for (name, spec) in self.spec.plugins.iter().filter(|(name, _)| name.as_str() != FOREIGN) {
            let stored = self.seen.stored.get(name).cloned().unwrap_or_default();
            let staged: BTreeSet<Placement> = spec.staged.iter().map(ReleaseRef::placement).collect();
            assert_eq!(stored, staged, "files of {name}");
            assert_eq!(self.seen.proven.listed.get(name), spec.enabled.as_ref(), "proof of {name}");
            assert_eq!(self.names(name), spec.enabled.is_some(), "directive of {name}");
        }
        assert_eq!(self.seen.traffic, Traffic::In, "left out of its load balancer");
        assert!(self.names(&plugin(FOREIGN)), "what was listed by hand is gone");
    }

    fn live(&mut self) {
        for _ in 0..self.rng.random_range(1..60) {
            match self.rng.random_range(0..10) {
                0 => self.wish(),
                1 => self.accident(),
                _ => {
                    if let Some(action) = self.next() {
                        let luck = self.rng.random_bool(0.7);
                        self.execute(action, luck);
                    }
                }
            }
        }
        self.settle();
    }
}

#[test]
fn no_history_makes_an_action_dangerous_and_every_node_settles() {
    let one = std::env::var("KCTL_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    for seed in one.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let history = std::panic::catch_unwind(|| Node::new(seed).live());
        if let Err(cause) = history {
            eprintln!(
                "KCTL_SEED={seed} cargo test -p kctl-node-agent --test reconcile shows this history alone"
            );
            std::panic::resume_unwind(cause);
        }
    }
}

/// Kong takes no list that lacks what is in use: of two that are missing, neither can go by itself.
#[test]
fn what_is_in_use_and_missing_is_listed_together_even_after_it_failed_together() {
    let mut node = Node::new(0);
    let names = [plugin("alpha"), plugin("beta")];
    for name in &names {
        let wanted = release(name.as_str(), 1);
        let staged = BTreeSet::from([wanted.clone()]);
        let grant = node.grant();
        let spec = PluginSpec { grant, staged, enabled: Some(wanted), ..PluginSpec::default() };
        node.spec.plugins.insert(name.clone(), spec);
    }
    node.seen.kong.enabled_in_cluster = Some(names.iter().map(ToString::to_string).collect());
    let reload = |node: &mut Node| loop {
        node.now = node.now.plus_ms(INTERVAL_MS);
        match node.next() {
            Some(Action::Enact { plugins, wanted }) => {
                assert!(plugins.keys().eq(&names), "{plugins:?} without the other");
                break (plugins, wanted);
            }
            Some(action) => node.execute(action, true),
            None => panic!("nothing is done for what is missing"),
        }
    };
    let (plugins, _) = reload(&mut node);
    assert!(!node.attempts.give_up(&plugins, &trouble()), "each is to be tried by itself");
    // One that was refused by itself meanwhile does not make the other wait for it, nor go without it.
    let (alpha, grant) = plugins.iter().next().unwrap();
    node.attempts.wait(alpha, *grant, trouble(), node.now.plus_ms(10 * INTERVAL_MS));
    let (again, _) = reload(&mut node);
    assert!(node.attempts.give_up(&again, &trouble()), "they cannot be parted any further");
    for (name, grant) in &again {
        assert_eq!(node.attempts.failure(name, *grant), Some(&trouble()));
    }
    assert_eq!(node.next(), None);
}
