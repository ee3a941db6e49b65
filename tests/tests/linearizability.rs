//! Concurrent clients, members that come and go, and one question afterwards: does some order explain what everybody was
//! told? `KCTL_TEST_SEED` decides who asks what, `KCTL_TEST_ROUNDS` how often (5 without it).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "linearizability/broken.rs"]
mod broken;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use kctl_control_plane::raft::{Consensus, ProposeError};
use kctl_tests::dice::{Dice, number};
use kctl_tests::history::{Call, Event, Kind, Told, Verdict, check, told};
use kctl_tests::members::{Members, until};
use serde_json::json;
use tempfile::TempDir;

const CLIENTS: u64 = 6;
/// Tries of a client at the least, with or without a member to ask.
const TRIES: u64 = 100;
/// Calls of a client that were answered at the least: on a busy machine most tries find nobody who leads.
const ANSWERS: u64 = 20;
const PLUGINS: u64 = 3;
const NODES: u64 = 3;

/// What clients see of the members, whoever runs at the moment.
type Doors = Arc<RwLock<Vec<Consensus>>>;

#[derive(Default)]
struct Record {
    events: Mutex<Vec<Event>>,
    /// Processes that may have a call under way for ever are not used again.
    processes: AtomicU64,
}

impl Record {
    fn push(&self, process: u64, kind: Kind) {
        self.events.lock().unwrap().push(Event { process, kind });
    }
}

fn some_call(dice: &mut Dice, unique: &str) -> Call {
    let node = |dice: &mut Dice| format!("n{}", dice.below(NODES)).parse().unwrap();
    let plugin = |dice: &mut Dice| format!("p{}", dice.below(PLUGINS)).parse().unwrap();
    match dice.below(10) {
        0..=3 => Call::Register { node: node(dice), boot: dice.below(30) },
        4..=6 => Call::Read { node: node(dice) },
        7 => Call::Start { operation: unique.into(), plugin: plugin(dice), request: unique.into() },
        8 => Call::Release { plugin: plugin(dice) },
        _ => Call::Holder { plugin: plugin(dice) },
    }
}

/// What became of a call: known, nothing, or unknown.
async fn ask(door: &Consensus, call: &Call) -> Kind {
    let Some(command) = call.command() else {
        return match door.linearizable().await {
            Ok(()) => Kind::Ok { told: door.with_state(|s| call.find(s)) },
            Err(_) => Kind::Fail,
        };
    };
    match door.propose(vec![command]).await {
        Ok(outcomes) => Kind::Ok { told: told(&outcomes[0]) },
        Err(ProposeError::NotLeader { .. }) => Kind::Fail,
        Err(_) => Kind::Info,
    }
}

async fn client(doors: Doors, record: Arc<Record>, mut dice: Dice, name: u64) {
    let mut process = record.processes.fetch_add(1, Ordering::Relaxed);
    let (mut tries, mut answers) = (0, 0);
    while tries < TRIES || answers < ANSWERS {
        let call = some_call(&mut dice, &format!("o-{name}-{tries}"));
        tries += 1;
        // Mostly whoever leads; now and then somebody who may believe so.
        let door = {
            let doors = doors.read().unwrap();
            match dice.below(8) {
                0 => doors.get(dice.below(3) as usize).cloned(),
                _ => doors.iter().find(|d| d.watch_leadership().borrow().is_leader).cloned(),
            }
        };
        let Some(door) = door else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        record.push(process, Kind::Invoke { call: call.clone() });
        // A member that ended may never answer.
        let told = tokio::time::timeout(Duration::from_secs(2), ask(&door, &call)).await;
        let kind = told.unwrap_or(if call.command().is_some() { Kind::Info } else { Kind::Fail });
        let lost = kind == Kind::Info;
        answers += u64::from(matches!(kind, Kind::Ok { .. }));
        record.push(process, kind);
        if lost {
            process = record.processes.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(dice.below(25))).await;
    }
}

async fn history(seed: u64) -> Vec<Event> {
    let (dir, mut dice) = (TempDir::new().unwrap(), Dice(seed));
    let mut members = Members::at(dir.path(), &Members::free_addresses(3), 50);
    members.start_all().await.unwrap();
    members.leader().await;
    let open = |members: &Members| members.ids().iter().filter_map(|id| members.get(*id).cloned()).collect();
    let (doors, record) = (Doors::new(RwLock::new(open(&members))), Arc::new(Record::default()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(client(doors.clone(), record.clone(), Dice(dice.below(u64::MAX)), n)))
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let all = tokio::spawn({
        let done = done.clone();
        async move {
            for client in clients {
                client.await.unwrap();
            }
            done.store(true, Ordering::Relaxed);
        }
    });
    while !done.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(200 + dice.below(400))).await;
        // One member ends, mostly the one that leads, and now and then all at once; then all are back.
        let leader = members.leading().map(|(id, _)| id);
        let victims = match (dice.below(4), leader) {
            (0, _) => members.ids(),
            (1, _) | (_, None) => vec![1 + dice.below(3)],
            (_, Some(leader)) => vec![leader],
        };
        for id in &victims {
            members.stop(*id).await;
        }
        *doors.write().unwrap() = open(&members);
        tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
        for id in victims {
            members.start(id).await.unwrap();
        }
        *doors.write().unwrap() = open(&members);
        // Mostly somebody leads before the next one ends; for long nobody would on a busy machine.
        if dice.below(4) > 0 {
            members.leader().await;
        }
    }
    all.await.unwrap();
    // What everybody was told must be there in the end too.
    let leader = members.leader().await;
    until("a confirmed read", || async { leader.linearizable().await.ok() }).await;
    for n in 0..NODES {
        let call = Call::Read { node: format!("n{n}").parse().unwrap() };
        let told: Told = leader.with_state(|s| call.find(s));
        record.push(u64::MAX, Kind::Invoke { call });
        record.push(u64::MAX, Kind::Ok { told });
    }
    drop(members);
    std::mem::take(&mut record.events.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_are_told_has_an_order() {
    let (mut dice, seed) = Dice::seeded();
    let rounds = number("KCTL_TEST_ROUNDS", 5);
    let again = format!(
        "KCTL_TEST_ROUNDS={rounds} KCTL_TEST_SEED={seed} cargo nextest run -p kctl-tests --test linearizability"
    );
    let (mut ok, mut fail, mut info) = (0, 0, 0);
    for _ in 0..rounds {
        let history = history(dice.below(u64::MAX)).await;
        for event in &history {
            match event.kind {
                Kind::Ok { .. } => ok += 1,
                Kind::Fail => fail += 1,
                Kind::Info => info += 1,
                Kind::Invoke { .. } => {}
            }
        }
        if let Verdict::NotLinearizable { stuck, .. } = check(&history).unwrap() {
            let path = std::env::temp_dir().join(format!("kctl-history-{seed}.jsonl"));
            let lines: Vec<_> = history.iter().map(|e| json!(e).to_string()).collect();
            std::fs::write(&path, lines.join("\n")).unwrap();
            panic!(
                "no order explains line {stuck:?} of {0}\nsee: cargo run -p kctl-tests --bin history -- {0}\nagain: {again}",
                path.display()
            );
        }
    }
    println!("{ok} calls with a result, {fail} that did not happen, {info} unknown; {again}");
    assert!(ok > 100 && fail + info > 0, "nothing happened to the members; {again}");
}
