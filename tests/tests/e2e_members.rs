//! Members of the control plane come and go, and a cluster is made anew from a backup, while Kong runs on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kctl_tests::cluster::{Cluster, kctl_binary, signal};
use kctl_tests::plugins;
use kctl_tests::until;
use serde_json::Value;

/// A member that this test started itself.
struct Member {
    child: Child,
    log: PathBuf,
}

impl Member {
    fn start(config: &Path) -> Self {
        let log = config.with_extension("log");
        let mut command = Command::new(kctl_binary());
        command.arg("control-plane").arg("--config").arg(config).stdin(Stdio::null());
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { child, log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.said());
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The configuration of a member that waits to be let in, and its gRPC URL.
fn waiting(root: &Path, id: u64, asks: &str) -> (PathBuf, String) {
    let held: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [grpc, http, raft] = [0, 1, 2].map(|n| held[n].local_addr().unwrap());
    let config = root.join(format!("member-{id}.toml"));
    let data = root.join(format!("data-{id}"));
    let text = format!(
        "id = {id}\ndata_dir = {data:?}\njoin = [{asks}]\nlisten = {{ grpc = \"{grpc}\", http = \"{http}\", raft = \"{raft}\" }}\n\
         [members.{id}]\ngrpc = \"http://{grpc}\"\nhttp = \"http://{http}\"\nraft = \"http://{raft}\"\n"
    );
    std::fs::write(&config, text).unwrap();
    (config, format!("http://{grpc}"))
}

fn member(cluster: &Cluster, id: u64) -> Option<Value> {
    let members = cluster.json(&["cluster", "members"]);
    members.as_array().unwrap().iter().find(|m| m["id"] == id).cloned()
}

#[test]
fn a_member_is_replaced_while_a_plugin_is_installed() {
    let cluster = Cluster::start_with(3, 2, &["--no-restart"]);
    let root = cluster.temp().to_owned();
    let (first, second) = (plugins::good(&root, "first", "1.0.0"), plugins::good(&root, "second", "1.0.0"));
    assert_eq!(cluster.install(&first).code, 0);
    let path = second.to_str().unwrap();
    let ran = cluster.kctl(&[
        "plugin",
        "install",
        path,
        "--all-nodes",
        "--canary",
        "1",
        "--bake",
        "4s",
        "--detach",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let operation = ran.out.trim().to_owned();

    let (config, url) = waiting(&root, 4, "");
    let _fourth = Member::start(&config);
    let ran = until("the fourth to be let in", 60, || {
        let ran = cluster.kctl(&["cluster", "join", &url, "-m", "a new machine"]);
        // It may not listen yet.
        (!ran.err.contains("MEMBER_UNREACHABLE")).then_some(ran)
    });
    assert_eq!(ran.code, 0, "{ran:?}");
    let fourth = member(&cluster, 4).unwrap();
    assert_eq!(
        (fourth["role"].as_str(), fourth["artifacts_missing"].as_u64()),
        (Some("voter"), Some(0)),
        "{fourth}"
    );
    let held = std::fs::read_dir(root.join("data-4/artifacts")).unwrap().count();
    assert!(held >= 2, "it voted with {held} artifacts");

    let leader = cluster.leader();
    let id = leader["id"].to_string();
    let refused = cluster.kctl(&["cluster", "remove", &id]);
    assert_eq!(refused.code, 64, "{refused:?}");
    let ran = cluster.kctl(&["cluster", "remove", &id, "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_ne!(cluster.leader()["id"], leader["id"]);
    let view = cluster.wait_ended(&operation, 120);
    assert_eq!(view["phase"], "Succeeded", "{view:#}");

    // Its process ends by itself and says what to do; nor does it start again.
    until("the removed member to end", 60, || {
        let pid = cluster.members().into_iter().find(|m| m["id"] == leader["id"]).unwrap()["pid"].clone();
        (pid == 0).then_some(())
    });
    let log = std::fs::read_to_string(cluster.dir.join(format!("log/member-{id}.log"))).unwrap();
    assert!(log.contains("MEMBER_REMOVED") && log.contains("a new id"), "{log}");
    let old = cluster.dir.join(format!("members/{id}/member.toml"));
    let mut again = Member::start(&old);
    assert!(!again.child.wait().unwrap().success());
    assert!(again.said().contains("MEMBER_REMOVED"), "{}", again.said());

    // Ids are used once, by whoever asks.
    let (config, url) = waiting(&root, leader["id"].as_u64().unwrap(), "");
    let _impostor = Member::start(&config);
    let ran = until("the impostor to listen", 60, || {
        let ran = cluster.kctl(&["cluster", "join", &url]);
        (!ran.err.contains("MEMBER_UNREACHABLE")).then_some(ran)
    });
    assert!(ran.code == 6 && ran.err.contains("MEMBER_ID_REUSED"), "{ran:?}");

    // Agents know the new one, and work with whoever leads.
    for node in cluster.nodes() {
        let path = Path::new(node["agent_dir"].as_str().unwrap()).join("members");
        until("the agent to have learned", 30, || {
            let fourth = fourth["address"].as_str().unwrap();
            std::fs::read_to_string(&path).ok().filter(|t| t.contains(fourth))
        });
    }
    let ran = cluster.kctl(&["cluster", "transfer-leader", "4"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(cluster.json(&["cluster", "status"])["leader"], 4);
    let ran = cluster.remove("first");
    assert_eq!(ran.code, 0, "{ran:?}");

    let records = cluster.json(&["audit"]);
    let has = |verb: &str, id: &str| {
        records.as_array().unwrap().iter().any(|r| r["verb"] == verb && r["member"] == id)
    };
    assert!(has("member.admit", "4") && has("member.dismiss", &id), "{records:#}");

    // Two of three must be there: with one down nobody can be spared.
    let other = member_beside(&cluster, &[4]);
    signal(&cluster.members().into_iter().find(|m| m["id"] == other).unwrap()["pid"], "KILL");
    let third = member_beside(&cluster, &[4, other]);
    until("the dead one to be missed", 60, || {
        (member(&cluster, other)?["state"] == "unreachable").then_some(())
    });
    let ran = cluster.kctl(&["cluster", "remove", &third.to_string(), "--yes"]);
    assert!(ran.code == 6 && ran.err.contains("MEMBER_QUORUM"), "{ran:?}");
    let (config, _) = waiting(&root, 5, &format!("{:?}", fourth["address"].as_str().unwrap()));
    let _fifth = Member::start(&config);
    until("the fifth, which asks by itself, to vote", 60, || {
        (member(&cluster, 5)?["role"] == "voter").then_some(())
    });
    let ran = cluster.kctl(&["cluster", "remove", &other.to_string(), "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn member_beside(cluster: &Cluster, known: &[u64]) -> u64 {
    let members = cluster.json(&["cluster", "members"]);
    let ids = members.as_array().unwrap().iter().map(|m| m["id"].as_u64().unwrap());
    ids.into_iter().find(|id| !known.contains(id)).unwrap()
}

#[test]
fn a_cluster_restored_from_an_older_backup_leaves_the_nodes_as_they_are() {
    let cluster = Cluster::start_with(1, 2, &["--no-restart"]);
    let root = cluster.temp().to_owned();
    let good = |name: &str, version: &str| plugins::good(&root, name, version);
    assert_eq!(cluster.install(&good("kept", "1.0.0")).code, 0);
    assert_eq!(cluster.install(&good("moved", "1.0.0")).code, 0);
    let file = root.join("backup.tar");
    let path = file.to_str().unwrap();
    let ran = cluster.kctl(&["cluster", "backup", path]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(cluster.kctl(&["cluster", "backup", path]).code, 6, "a backup does not replace another");
    let told = cluster.json(&["cluster", "inspect", path]);
    assert_eq!(told["manifest"]["plugins"].as_array().unwrap().len(), 2, "{told:#}");

    assert_eq!(cluster.install(&good("later", "1.0.0")).code, 0);
    assert_eq!(cluster.install(&good("moved", "2.0.0")).code, 0);
    assert_eq!(cluster.remove("kept").code, 0);
    let nodes = cluster.nodes();
    let look = || {
        let names = ["kept", "moved", "later"];
        let files = |n: &Value| names.map(|name| cluster.files(n, name));
        nodes.iter().map(|n| (cluster.footprint(n), files(n), cluster.hups(n))).collect::<Vec<_>>()
    };
    let before = look();

    let old = cluster.members()[0].clone();
    signal(&old["pid"], "KILL");
    let config = root.join("restored.toml");
    let text = std::fs::read_to_string(cluster.dir.join("members/1/member.toml")).unwrap();
    let data = root.join("restored");
    std::fs::write(&config, text.replace(old["data_dir"].as_str().unwrap(), data.to_str().unwrap())).unwrap();
    let restore = ["cluster", "restore", path, "--config", config.to_str().unwrap()];
    let cut = root.join("cut.tar");
    std::fs::write(&cut, &std::fs::read(&file).unwrap()[..3_000]).unwrap();
    let ran = cluster.kctl(&["cluster", "restore", cut.to_str().unwrap(), restore[3], restore[4]]);
    assert!(ran.code == 1 && ran.err.contains("BACKUP_DAMAGED") && !data.exists(), "{ran:?}");
    let done = cluster.json(&restore);
    assert!(done["epoch"].as_u64() > done["former_epoch"].as_u64(), "{done}");
    let ran = cluster.kctl(&restore);
    assert!(ran.code == 6 && ran.err.contains("RESTORE_NOT_EMPTY"), "{ran:?}");

    let _restored = Member::start(&config);
    let state = |id: &str| {
        let ran = cluster.kctl(&["node", "get", id, "-o", "json"]);
        serde_json::from_str::<Value>(&ran.out).ok()
    };
    for node in &nodes {
        let id = node["id"].as_str().unwrap();
        until("the node to be refused", 60, || {
            let view = state(id)?;
            let told = view["conditions"].to_string();
            (view["state"] == "Refused" && told.contains("EPOCH_CHANGED")).then_some(())
        });
        until("its agent to say so too", 30, || {
            let log = std::fs::read_to_string(cluster.dir.join(format!("log/agent-{id}.log"))).ok()?;
            let told = log.contains("EPOCH_CHANGED") && log.contains(&format!("kctl node approve {id}"));
            told.then_some(())
        });
    }
    assert_eq!(look(), before);
    assert_eq!(cluster.kctl(&["node", "approve"]).code, 64);
    let ran = cluster.kctl(&["node", "approve", "--all-nodes", "-m", "the machine was lost"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let plugin = |view: &Value, name: &str| {
        view["plugins"].as_array().unwrap().iter().find(|p| p["name"] == name).cloned().unwrap_or_default()
    };
    for node in &nodes {
        let view = until("the node to go over", 60, || {
            let view = state(node["id"].as_str().unwrap())?;
            (view["state"] == "Live" && plugin(&view, "moved")["state"] == "held").then_some(view)
        });
        assert_eq!(plugin(&view, "kept")["code"], "HELD_AFTER_RESTORE", "{view:#}");
        let found = view["found"].as_array().unwrap();
        assert!(found.iter().any(|f| f["name"] == "later" && f["method"] == "store"), "{view:#}");
    }
    assert_eq!(look(), before, "nothing on the nodes is deleted or changed");

    let records = cluster.json(&["audit"]);
    let verbs: Vec<_> = records.as_array().unwrap().iter().map(|r| r["verb"].as_str().unwrap()).collect();
    assert!(verbs.contains(&"cluster.restore") && verbs.contains(&"node.approve"), "{verbs:?}");
    assert_eq!(cluster.kctl(&["audit", "verify"]).code, 0, "the chain goes on over the restore");

    // What the restored cluster does not know is taken over as it is; what it has otherwise, a person decides.
    let ran = cluster.kctl(&["node", "adopt", "kong-1", "later"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = cluster.install(&root.join("moved-2.0.0"));
    assert_eq!(ran.code, 0, "{ran:?}");
    // All of it was there: what is fetched of the older release meanwhile goes again, and no Kong is reloaded.
    until("the nodes to be as they were", 30, || (look() == before).then_some(()));
    let ran = cluster.remove("kept");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(cluster.loaded_on("later"), vec![Some("1.0.0".to_owned()); 2]);
    assert_eq!(cluster.loaded_on("moved"), vec![Some("2.0.0".to_owned()); 2]);
    assert_eq!(cluster.loaded_on("kept"), vec![None; 2]);
}
