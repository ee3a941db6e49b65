//! What goes wrong in a run, and how it ends: the network, the hosts, and the Kongs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use turmoil::Sim;

use crate::world::{Shared, lock};

pub const MEMBERS: [&str; 3] = ["m1", "m2", "m3"];
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
pub const PEOPLE: [&str; 2] = ["ann", "bob"];

/// Milliseconds between two faults.
const PAUSE_MS: Range<u64> = 200..1_600;
/// Slowest message while the network is slow, and otherwise.
const SLOW: Duration = Duration::from_millis(600);
pub const BRISK: Duration = Duration::from_millis(20);

/// Faults that have to happen somewhere in a number of runs.
pub const WANTED: [&str; 8] = [
    "two hosts cut off from each other",
    "messages lost in one direction",
    "a host cut off from all others",
    "messages held back",
    "connections break at random",
    "a slow network",
    "a host crashes",
    "Kong stops",
];

#[derive(Clone, Copy, Debug)]
enum Undo {
    Repair(&'static str, &'static str),
    Release(&'static str, &'static str),
    Rejoin(&'static str),
    Reliable,
    Brisk,
    Bounce(&'static str),
    StartKong(&'static str),
}

#[derive(Debug)]
pub struct Chaos {
    rng: SmallRng,
    next_ms: u64,
    /// What is made good when, in the order in which it was broken.
    undo: BTreeMap<(u64, u64), Undo>,
    serial: u64,
    world: Shared,
}

fn hosts() -> impl Iterator<Item = &'static str> {
    MEMBERS.into_iter().chain(NODES).chain(PEOPLE)
}

impl Chaos {
    pub fn new(rng: SmallRng, world: Shared) -> Self {
        Self { rng, next_ms: 0, undo: BTreeMap::new(), serial: 0, world }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.rng.random_range(0..from.len())]
    }

    fn later(&mut self, now: u64, after: Range<u64>, undo: Undo) {
        self.serial += 1;
        self.undo.insert((now + self.rng.random_range(after), self.serial), undo);
    }

    fn tell(&self, what: &'static str, whom: &str) {
        let mut world = lock(&self.world);
        world.count(what);
        world.say(format!("{what} {whom}"));
    }

    /// What is due at `now`, in milliseconds of the run.
    pub fn step(&mut self, sim: &mut Sim<'_>, now: u64) {
        while let Some(due) = self.undo.first_entry().filter(|e| e.key().0 <= now) {
            let undo = due.remove();
            self.mend(sim, undo);
        }
        if now >= self.next_ms {
            self.next_ms = now + self.rng.random_range(PAUSE_MS);
            self.fault(sim, now);
        }
    }

    /// Everything works again.
    pub fn stop(&mut self, sim: &mut Sim<'_>) {
        for undo in std::mem::take(&mut self.undo).into_values() {
            self.mend(sim, undo);
        }
        let all: Vec<_> = hosts().collect();
        for (n, a) in all.iter().enumerate() {
            for b in &all[n + 1..] {
                sim.release(*a, *b);
                sim.repair(*a, *b);
            }
        }
        let mut world = lock(&self.world);
        world.calm = true;
        world.say("the faults stop");
    }

    fn fault(&mut self, sim: &mut Sim<'_>, now: u64) {
        let all: Vec<_> = hosts().collect();
        let (a, b) = (self.pick(&all), self.pick(&all));
        let pair = format!("{a} {b}");
        match self.rng.random_range(0..100) {
            0..22 if a != b => {
                sim.partition(a, b);
                self.tell(WANTED[0], &pair);
                self.later(now, 300..6_000, Undo::Repair(a, b));
            }
            22..32 if a != b => {
                sim.partition_oneway(a, b);
                self.tell(WANTED[1], &pair);
                self.later(now, 300..6_000, Undo::Repair(a, b));
            }
            32..42 => {
                hosts().filter(|other| *other != a).for_each(|other| sim.partition(a, other));
                self.tell(WANTED[2], a);
                self.later(now, 300..6_000, Undo::Rejoin(a));
            }
            42..56 if a != b => {
                sim.hold(a, b);
                self.tell(WANTED[3], &pair);
                self.later(now, 200..4_000, Undo::Release(a, b));
            }
            56..62 => {
                sim.set_fail_rate(0.02);
                self.tell(WANTED[4], "");
                self.later(now, 300..3_000, Undo::Reliable);
            }
            62..70 => {
                sim.set_max_message_latency(SLOW);
                self.tell(WANTED[5], "");
                self.later(now, 500..4_000, Undo::Brisk);
            }
            70..90 => {
                let software: Vec<_> = MEMBERS.into_iter().chain(NODES).collect();
                let host = self.pick(&software);
                if sim.is_host_running(host) {
                    sim.crash(host);
                    self.tell(WANTED[6], host);
                    self.later(now, 50..7_000, Undo::Bounce(host));
                }
            }
            90..100 => {
                let node = self.pick(&NODES);
                let mut world = lock(&self.world);
                if world.node(node).up {
                    world.node(node).stop();
                    drop(world);
                    self.tell(WANTED[7], node);
                    self.later(now, 100..6_000, Undo::StartKong(node));
                }
            }
            _ => {}
        }
    }

    fn mend(&mut self, sim: &mut Sim<'_>, undo: Undo) {
        match undo {
            Undo::Repair(a, b) => sim.repair(a, b),
            Undo::Release(a, b) => sim.release(a, b),
            Undo::Rejoin(a) => hosts().filter(|b| *b != a).for_each(|b| sim.repair(a, b)),
            Undo::Reliable => sim.set_fail_rate(0.0),
            Undo::Brisk => sim.set_max_message_latency(BRISK),
            Undo::Bounce(host) => {
                sim.bounce(host);
                lock(&self.world).say(format!("{host} starts again"));
            }
            Undo::StartKong(name) => self.start(name),
        }
    }

    fn start(&self, name: &str) {
        let mut world = lock(&self.world);
        world.judge_load(name);
        let in_use = world.in_use();
        let runs = world.node(name).start(&in_use);
        world.judge_loaded(name);
        world.say(format!("Kong of {name} {}", if runs { "starts" } else { "does not start" }));
    }
}
