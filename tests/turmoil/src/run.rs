//! One run: a cluster of three members and three nodes, chaos, then calm in which everything has to converge.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use kctl_control_plane::config::{Config as MemberConfig, Listen};
use kctl_control_plane::ports::Ports as MemberPorts;
use kctl_control_plane::raft::MemberAddress;
use kctl_control_plane::server;
use kctl_node_agent::config::{Config as AgentConfig, Drift, KongSection};
use kctl_node_agent::entry::{self, Ports as AgentPorts};
use kctl_shared::simulated;
use kctl_shared::time::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

use crate::chaos::{BRISK, Chaos, MEMBERS, NODES, PEOPLE};
use crate::disks::Memory;
use crate::entropy;
use crate::kong::Kong;
use crate::laws::Ghost;
use crate::network::Simulated;
use crate::node::Node;
use crate::people::Person;
use crate::world::{EPOCH_MS, Shared, World, lock, now_ms};

const GRPC: u16 = 7101;
const HTTP: u16 = 7102;
const RAFT: u16 = 7103;
/// One step of the network and of every host.
const TICK: Duration = Duration::from_millis(10);
/// Milliseconds in which things go wrong.
const CHAOS_MS: std::ops::Range<u64> = 12_000..30_000;
/// Milliseconds in which all has to have converged afterwards.
const CALM_MS: u64 = 400_000;
/// Every so many steps the ledgers are looked at too.
const FENCES: u64 = 20;
/// Futures of a debug build are large.
const STACK: usize = 64 << 20;

thread_local! {
    /// The time between two steps, when no host runs.
    static BETWEEN: Cell<u64> = const { Cell::new(EPOCH_MS) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// How a run went.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub violated: Option<String>,
    pub trace: Vec<String>,
    pub counts: BTreeMap<String, u64>,
    /// Milliseconds of the run.
    pub lasted_ms: u64,
}

/// Where a host answers.
pub fn url(host: &str) -> String {
    format!("http://{host}:{GRPC}")
}

fn clock() -> Timestamp {
    let now = turmoil::since_epoch().map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    Timestamp(now.unwrap_or_else(|| BETWEEN.get()))
}

/// Plays one seed on a thread of its own. The same seed is the same run in a process that played none before.
///
/// # Panics
/// When the thread cannot be started.
pub fn run(seed: u64) -> Outcome {
    remember_panics();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK);
    let played = thread.spawn(move || play(seed)).expect("a thread").join();
    played.unwrap_or_else(|_| Outcome {
        violated: Some("the simulation itself panicked".into()),
        trace: Vec::new(),
        counts: BTreeMap::new(),
        lasted_ms: 0,
    })
}

/// A task that panics takes nobody with it, and must not go unseen.
fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
}

fn play(seed: u64) -> Outcome {
    entropy::seed_thread(seed);
    simulated::enter(clock);
    let mut rng = SmallRng::seed_from_u64(seed);
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let root = tempfile::Builder::new()
        .prefix(&format!("kctl-turmoil-{}-", std::process::id()))
        .tempdir_in(root)
        .expect("a directory");
    let nodes = NODES.into_iter().enumerate();
    let nodes = nodes.map(|(n, name)| (name.to_owned(), Node::new(name, n < 2, root.path()))).collect();
    let mut fork = || SmallRng::seed_from_u64(rng.random());
    let world: Shared = Arc::new(Mutex::new(World::new(fork(), nodes)));
    let mut chaos = Chaos::new(fork(), world.clone());
    let people = PEOPLE.map(|name| (name, fork()));
    let mut sim = build(seed);
    for (n, name) in MEMBERS.into_iter().enumerate() {
        member(&mut sim, n as u64 + 1, name, root.path(), Duration::from_millis(fork().random_range(1..30)));
    }
    NODES.into_iter().for_each(|name| agent(&mut sim, name, root.path(), &world));
    for ((name, rng), plugin) in people.into_iter().zip(["rate-guard", "audit-trail"]) {
        let (person, world) = (Person::new(plugin, world.clone(), rng), world.clone());
        sim.client(name, async move {
            if let Err(broken) = person.live().await {
                lock(&world).broken("", broken);
            }
            Ok(())
        });
    }
    let chaos_ms = fork().random_range(CHAOS_MS);
    let violated = events(&mut sim, &world, &mut chaos, chaos_ms).err();
    drop(sim);
    let mut world = lock(&world);
    Outcome {
        violated: world.violated.take().or(violated),
        trace: std::mem::take(&mut world.trace),
        counts: world.counts.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect(),
        lasted_ms: now_ms(),
    }
}

fn build<'a>(seed: u64) -> Sim<'a> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
        .simulation_duration(Duration::from_secs(24 * 3_600))
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(BRISK)
        .repair_rate(0.1)
        .tcp_capacity(4_096)
        .enable_random_order()
        .build()
}

/// Until the people are done.
fn events(sim: &mut Sim<'_>, world: &Shared, chaos: &mut Chaos, chaos_ms: u64) -> Result<(), String> {
    let mut ghost = Ghost::default();
    for step in 0_u64.. {
        let done = sim.step().map_err(|e| format!("a host ended: {e}"))?;
        BETWEEN.set(u64::try_from(sim.since_epoch().as_millis()).unwrap_or(u64::MAX));
        let now = now_ms();
        let calm = lock(world).calm;
        if now < chaos_ms {
            chaos.step(sim, now);
        } else if !calm {
            chaos.stop(sim);
        }
        ghost.look(&mut lock(world), step.is_multiple_of(FENCES));
        if let Some(first) = PANICS.with_borrow_mut(|panics| panics.drain(..).next()) {
            return Err(format!("panic: {first}"));
        }
        if lock(world).violated.is_some() || done {
            return Ok(());
        }
        if now > chaos_ms + CALM_MS {
            return Err("liveness: people still wait".into());
        }
    }
    Ok(())
}

fn member(sim: &mut Sim<'_>, id: u64, name: &str, root: &Path, latency: Duration) {
    let disks = Arc::new(Memory::new(latency));
    let data_dir = root.join(name);
    sim.host(name, move || {
        let config = member_config(id, data_dir.clone());
        let ports = MemberPorts { network: Arc::new(Simulated), disks: disks.clone() };
        async move { Ok(server::run(config, ports, CancellationToken::new()).await?) }
    });
}

fn member_config(id: u64, data_dir: PathBuf) -> MemberConfig {
    let address = |name: &str| MemberAddress {
        raft: format!("http://{name}:{RAFT}"),
        grpc: url(name),
        http: format!("http://{name}:{HTTP}"),
    };
    let any = |port| ([0, 0, 0, 0], port).into();
    MemberConfig {
        id,
        data_dir,
        insecure: true,
        listen: Listen { grpc: any(GRPC), http: any(HTTP), raft: any(RAFT) },
        members: (1..).zip(MEMBERS).map(|(id, name): (u64, _)| (id.to_string(), address(name))).collect(),
        sealing_key_file: None,
        join: None,
    }
}

fn agent(sim: &mut Sim<'_>, name: &str, root: &Path, world: &Shared) {
    let (node, world, root) = (name.to_owned(), world.clone(), root.join(name));
    sim.host(name, move || {
        let config = AgentConfig {
            node: node.parse().expect("a valid name"),
            group: "default".parse().expect("a valid name"),
            control_plane: MEMBERS.map(url).to_vec(),
            insecure: true,
            state_dir: root.join("state"),
            lua_dir: root.join("lua"),
            drift: Drift::Heal,
            kong: KongSection { reload_interval_ms: 300, ..KongSection::default() },
            hooks: None,
        };
        let gateway = Arc::new(Kong { node: node.clone(), world: world.clone() });
        let ports = AgentPorts { gateway, network: Arc::new(Simulated) };
        async move { Ok(entry::run(config, ports, CancellationToken::new()).await?) }
    });
}
