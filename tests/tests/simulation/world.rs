//! Everything there is in one run, and the ways in which time passes for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kctl_control_plane::desired::node_spec;
use kctl_control_plane::state::{ClusterState, Command, apply};
use kctl_node_agent::ledger::Record;
use kctl_node_agent::sync::plan::plan;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::{NodeSpec, NodeStatus, Placement, ReleaseRef};
use kctl_shared::time::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::agent::{Agent, Fact, Surroundings};
use super::control::{Entry, Member, Proposal, Who, stamped};
use super::laws::{Ghost, Law, Seen};
use super::machine::{Machine, Workers};
use super::network::{Down, Stream};
use super::requests::{self, Ask, PLUGINS, plugin};

#[derive(Debug)]
pub struct Node {
    pub machine: Machine,
    pub agent: Agent,
    pub session: Option<(u64, usize)>,
    /// An image of the machine.
    pub memory: Option<Box<(Record, Machine)>>,
    pub beat_at: Timestamp,
}

impl Node {
    /// What `sync --once` leaves before Kong starts.
    pub fn boot_gate(&mut self, spec: &NodeSpec) {
        let Some(process) = self.agent.process.as_mut().filter(|p| p.is_at_rest()) else { return };
        let mut wanted = plan(spec, &process.record, &self.machine.conf.names()).wanted;
        for (name, release) in &wanted.listed {
            self.machine.stored.entry(name.clone()).or_default().insert(release.placement());
            process.record.managed.insert(name.clone());
        }
        wanted.generation = self.machine.link(process.next_generation(), &wanted);
        self.machine.conf.edit(&wanted);
        self.machine.armed = self.machine.conf.clone();
        self.agent.record = process.record.clone();
    }
}

pub struct World {
    pub rng: SmallRng,
    pub now: Timestamp,
    pub chaos: bool,
    /// People call removals off although all is well.
    pub fickle: bool,
    pub log: Vec<Entry>,
    /// The state after the whole log.
    pub truth: ClusterState,
    pub members: Vec<Member>,
    pub leader: usize,
    pub proposals: Vec<Proposal>,
    pub nodes: BTreeMap<NodeId, Node>,
    /// Machines that are no more.
    pub buried: BTreeSet<NodeId>,
    pub entities: BTreeMap<String, PluginName>,
    /// Entities whose service or route is gone: once deleted Kong does not take them again.
    pub orphans: BTreeSet<String>,
    pub streams: BTreeMap<u64, Stream>,
    pub down: Vec<(NodeId, u64, Down)>,
    pub cut: BTreeSet<(NodeId, usize)>,
    pub ghost: Ghost,
    pub counts: BTreeMap<&'static str, u64>,
    pub events: u64,
    pub serial: u64,
    pub trace: Option<VecDeque<String>>,
}

impl World {
    pub fn new(seed: u64, traced: bool) -> Result<Self, Law> {
        let mut world = Self {
            rng: SmallRng::seed_from_u64(seed),
            now: Timestamp(1_000_000),
            chaos: true,
            fickle: false,
            log: Vec::new(),
            truth: ClusterState::default(),
            members: (0..3).map(|_| Member::new()).collect(),
            leader: 0,
            proposals: Vec::new(),
            nodes: BTreeMap::new(),
            buried: BTreeSet::new(),
            entities: BTreeMap::new(),
            orphans: BTreeSet::new(),
            streams: BTreeMap::new(),
            down: Vec::new(),
            cut: BTreeSet::new(),
            ghost: Ghost::default(),
            counts: BTreeMap::new(),
            events: 0,
            serial: 0,
            trace: traced.then(VecDeque::new),
        };
        world.members[0].lead(world.now);
        for _ in 0..world.rng.random_range(2..=3) {
            world.join();
        }
        world.calm_round()?;
        world.calm_round()?;
        if world.rng.random_bool(0.6) {
            world.chaos = false;
            world.request(0);
            world.converge()?;
            world.chaos = true;
        }
        let nodes: Vec<_> = world.nodes.keys().cloned().collect();
        nodes.iter().for_each(|id| world.remember(id));
        Ok(world)
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
        self.say(|| format!("fault: {what}"));
    }

    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() > 120 {
                trace.pop_front();
            }
            trace.push_back(format!("{:>6} {} {}", self.events, self.now.0 - 1_000_000, what()));
        }
    }

    pub fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub fn join(&mut self) {
        // The first has an Admin API, so that entities can be worked on at all.
        let admin = self.nodes.is_empty() || self.rng.random_bool(0.5);
        self.join_as(admin);
    }

    pub fn join_as(&mut self, admin: bool) {
        let n = self.nodes.len() + self.buried.len();
        let mut id = NodeId::parse(&format!("n{n}")).unwrap();
        if self.rng.random_bool(0.5)
            && let Some(former) = self.buried.pop_first()
        {
            self.count("new machine under a former name");
            id = former;
        }
        let agent = Agent::new(&id, self.serial());
        let mut machine = Machine::new(admin);
        machine.drains = self.rng.random_bool(0.3);
        machine.is_strange = self.truth.nodes.contains_key(&id);
        let node = Node { machine, agent, session: None, memory: None, beat_at: Timestamp(0) };
        self.say(|| format!("{id} joins, Admin API: {admin}"));
        self.nodes.insert(id, node);
    }

    pub fn seen<'a>(
        truth: &'a ClusterState,
        nodes: &'a BTreeMap<NodeId, Node>,
        entities: &'a BTreeMap<String, PluginName>,
    ) -> Seen<'a> {
        Seen { truth, machines: nodes.iter().map(|(id, n)| (id, &n.machine)).collect(), entities }
    }

    pub fn step_agent(&mut self, id: &NodeId) -> Result<bool, Law> {
        let Some(node) = self.nodes.get_mut(id) else { return Ok(false) };
        let mut around = Surroundings {
            now: self.now,
            rng: &mut self.rng,
            entities: &mut self.entities,
            orphans: &self.orphans,
            chaos: self.chaos,
            facts: Vec::new(),
        };
        let busy = node.agent.step(&mut node.machine, &mut around);
        let facts = around.facts;
        let fence = node.agent.record.spec.as_ref().map(|s| (s.epoch, s.generation)).unwrap_or_default();
        let nonce = node.agent.record.nonce.clone();
        self.ghost.fence(id, &nonce, fence)?;
        for fact in facts {
            match &fact {
                Fact::PutBack => self.count("put back"),
                Fact::Refused => self.count("stale spec refused"),
                _ => self.say(|| match &fact {
                    Fact::Reloaded { before, after, .. } => {
                        let names =
                            |w: &Workers| w.keys().map(ToString::to_string).collect::<Vec<_>>().join(",");
                        format!("{id} reloads {} -> {}", names(before), names(after))
                    }
                    other => format!("{id} {other:?}"),
                }),
            }
            let seen = Self::seen(&self.truth, &self.nodes, &self.entities);
            self.ghost.did(id, &nonce, fence.1, &fact, &seen)?;
        }
        self.talk(id);
        Ok(busy)
    }

    pub fn propose(
        &mut self,
        from: usize,
        commands: Vec<Command>,
        then: Option<(Who, bool, NodeStatus)>,
    ) -> u64 {
        let (id, at) = (self.serial(), self.members[from].clock(self.now));
        self.proposals.push(Proposal { id, from, at, commands, then });
        id
    }

    pub fn plan(&mut self, member: usize) -> Result<bool, Law> {
        let commands = self.members[member].plan(self.now)?;
        if commands.is_empty() {
            return Ok(false);
        }
        let id = self.propose(member, commands, None);
        self.members[member].planning = Some(id);
        Ok(true)
    }

    pub fn serve(&mut self, member: usize) {
        if !self.members[member].leads {
            return;
        }
        for (node, session, spec) in self.members[member].specs() {
            match spec {
                Some(spec) => self.down.push((node, session, Down::Spec(spec))),
                None => self.hang_up(session),
            }
        }
    }

    pub fn commit(&mut self, index: usize) -> Result<(), Law> {
        let proposal = self.proposals.remove(index);
        if proposal.from != self.leader {
            self.count("entry of a deposed leader");
        }
        self.log.push(Entry { at: proposal.at, commands: proposal.commands });
        let index = self.log.len() as u64;
        let mut accepted = true;
        let commands: Vec<_> = stamped(&self.log[self.log.len() - 1], index).collect();
        for (stamp, command) in commands {
            let before = (self.chaos && index.is_multiple_of(4)).then(|| self.truth.clone());
            match apply(&mut self.truth, stamp, command.clone()) {
                Ok(_) => {
                    self.say(|| format!("applied {index}: {}", brief(&command)));
                    let seen = Self::seen(&self.truth, &self.nodes, &self.entities);
                    self.ghost.accepted(&command, &seen)?;
                    self.was_said(&command);
                }
                Err(rejection) => {
                    accepted = false;
                    self.count("rejected by apply");
                    self.say(|| format!("rejected {index}: {} {rejection}", brief(&command)));
                    if before.is_some_and(|b| b != self.truth) {
                        return Err(Law::new("I10", format!("a rejection changed the state: {rejection}")));
                    }
                }
            }
        }
        let member = &mut self.members[proposal.from];
        if member.planning == Some(proposal.id) {
            member.planning = None;
        }
        let upto = self.log.len();
        self.members[self.leader].catch_up(&self.log, upto);
        if let Some((who, hello, status)) = proposal.then {
            let session = who.session;
            let (now, member) = (self.now, &mut self.members[proposal.from]);
            let taken = accepted && member.leads && member.take(&who, hello, status, now);
            let strange = self.nodes.get(&who.node).is_some_and(|n| n.machine.is_strange);
            match self.streams.get_mut(&session) {
                Some(stream) if taken && !(strange && proposal.from != self.leader) => {
                    stream.blocked = false;
                    self.heard(&who, proposal.from, true);
                }
                _ => self.hang_up(session),
            }
        }
        self.serve(self.leader);
        Ok(())
    }

    /// Members with the same log have the same state.
    pub fn agree(&mut self) -> Result<(), Law> {
        for (n, member) in self.members.iter_mut().enumerate() {
            member.catch_up(&self.log, self.log.len());
            if member.state != self.truth {
                return Err(Law::new("I10", format!("member {n} has another state")));
            }
        }
        Ok(())
    }

    pub fn ask(&mut self, member: usize) -> Ask {
        let serial = self.serial();
        let waves: &[&str] = match self.rng.random_range(0..3) {
            0 => &["100%"],
            1 => &["1", "100%"],
            _ => &["1", "25%", "100%"],
        };
        Ask {
            id: format!("op-{serial}"),
            now: self.members[member].clock(self.now),
            waves: waves.iter().map(|w| (*w).to_owned()).collect(),
            max_parallel: self.rng.random_range(1..=2),
            node_deadline_ms: [20_000, 60_000, 600_000][self.rng.random_range(0..3)],
        }
    }

    /// Somebody wants something of this member.
    pub fn request(&mut self, member: usize) -> Option<String> {
        let ask = self.ask(member);
        let (plugin, version) =
            (plugin(self.rng.random_range(0..PLUGINS.len())), self.rng.random_range(1..=3));
        let (removes, undoes) = (self.rng.random_bool(0.45), self.rng.random_bool(0.15));
        let together = self.rng.random_bool(0.25);
        let state = &self.members[member].state;
        let (mut commands, mut ids) = (None, vec![ask.id.clone()]);
        if together {
            let parts = self.parts(member, version, removes, &ask);
            if parts.len() == PLUGINS.len() {
                let (begun, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
                ids = begun;
                commands = Some(requests::together(parts, &ask.id));
                self.count("begun together");
            }
        } else if undoes && let Some(undo) = requests::undo(state, &plugin, &ask) {
            commands = Some(undo);
        } else if removes && state.groups.values().any(|g| g.plugins.contains_key(&plugin)) {
            commands = requests::remove(state, &plugin, &ask);
        } else {
            commands = requests::install(state, &plugin, version, &ask);
        }
        let commands = commands?;
        let nodes = self.members[member].state.nodes.iter();
        let admins: BTreeSet<_> =
            nodes.filter(|(_, n)| n.facts.has_admin_api).map(|(id, _)| id.clone()).collect();
        self.ghost.admins.extend(ids.iter().map(|id| (id.clone(), admins.clone())));
        self.propose(member, commands, None);
        ids.pop()
    }

    /// What is asked for of every plugin at once, with the operation's id.
    fn parts(&self, member: usize, version: u32, removes: bool, ask: &Ask) -> Vec<(String, Vec<Command>)> {
        let state = &self.members[member].state;
        let one = |plugin: PluginName| {
            let ask = Ask { id: format!("{}-{plugin}", ask.id), ..ask.clone() };
            let commands = if removes {
                requests::remove(state, &plugin, &ask)
            } else {
                requests::install(state, &plugin, version, &ask)
            };
            Some((ask.id, commands?))
        };
        (0..PLUGINS.len()).map(plugin).filter_map(one).collect()
    }

    /// Somebody has second thoughts about a removal.
    pub fn call_off(&mut self, member: usize) -> bool {
        let serial = self.serial();
        let state = &self.members[member].state;
        let Some(command) = requests::call_off(state, serial) else { return false };
        self.propose(member, vec![command], None);
        self.count("removal called off");
        true
    }

    pub fn remove_by_hand(&mut self, gone: impl Fn(&String, &PluginName) -> bool) {
        let gone: Vec<_> =
            self.entities.iter().filter(|(id, p)| gone(id, p)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.entities.remove(&id);
            self.ghost.by_hand.insert(id);
        }
    }

    /// Whether a node is as its spec says.
    pub fn differs(&self, id: &NodeId) -> Option<String> {
        let (spec, machine) = (node_spec(&self.truth, id), &self.nodes[id].machine);
        for name in (0..PLUGINS.len()).map(plugin) {
            let wanted = spec.plugins.get(&name);
            // At rest a failure is final for its grant: the node says so, and the next operation tries again.
            let record = &self.nodes[id].agent.record;
            if wanted
                .is_some_and(|p| p.operation.is_empty() && record.attempts.failure(&name, p.grant).is_some())
            {
                continue;
            }
            let enabled = wanted.and_then(|p| p.enabled.as_ref()).map(ReleaseRef::placement);
            let loaded = machine.loaded.get(&name).cloned().flatten();
            if loaded != enabled || machine.conf.listed.contains(&name) != enabled.is_some() {
                return Some(format!("{id} runs {loaded:?} of {name}, should {enabled:?}"));
            }
            let staged: BTreeSet<Placement> =
                wanted.iter().flat_map(|p| &p.staged).map(ReleaseRef::placement).collect();
            let stored = machine.stored.get(&name).cloned().unwrap_or_default();
            if stored != staged {
                return Some(format!("{id} stores {stored:?} of {name}, should {staged:?}"));
            }
        }
        None
    }
}

fn brief(command: &Command) -> String {
    let text = match command {
        Command::StartOperation { operation } => {
            format!("start {} {} {}", operation.id, operation.kind.as_str(), operation.plugin)
        }
        Command::RegisterRelease { release } => format!("release {} {}", release.plugin, release.version),
        Command::Reroute { operation, from, phase, .. } => {
            format!("reroute {operation} from {from} {phase:?}")
        }
        other => format!("{other:?}"),
    };
    text.chars().take(220).collect()
}
