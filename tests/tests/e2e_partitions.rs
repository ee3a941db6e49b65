//! Members and agents on hosts of their own, with cables that can be pulled.
//!
//! Where this machine permits no network namespaces the tests say so and pass, unless `KCTL_TESTS_STRICT` is 1.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use kctl_tests::cluster::{Ran, kctl_binary};
use kctl_tests::hosts::{Daemon, Hosts};
use kctl_tests::{plugins, until};
use serde_json::Value;
use tempfile::TempDir;

const MEMBERS: [u8; 3] = [1, 2, 3];
const NODES: [u8; 3] = [4, 5, 6];
/// Where a person sits.
const DESK: u8 = 7;

struct Net {
    _daemons: Vec<Daemon>,
    hosts: Hosts,
    dir: TempDir,
}

impl Net {
    /// Members and nodes on their hosts, all healthy; `None` where that is not possible.
    fn start() -> Option<Self> {
        let hosts = match Hosts::new(DESK) {
            Ok(hosts) => hosts,
            Err(why) if std::env::var("KCTL_TESTS_STRICT").is_ok_and(|v| v == "1") => panic!("{why}"),
            Err(why) => {
                eprintln!("skipped: {why}");
                return None;
            }
        };
        let dir = tempfile::Builder::new().prefix("kctl-net-").tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut net = Self { _daemons: Vec::new(), hosts, dir };
        std::os::unix::fs::symlink(kctl_binary(), net.path("kong")).unwrap();
        fs::create_dir(net.path("datastore")).unwrap();
        for member in MEMBERS {
            net.member(member);
        }
        for node in NODES {
            net.node(node);
        }
        until("all nodes to be ready", 60, || {
            let view: Value = serde_json::from_str(&net.kctl(&["status", "-o", "json"]).out).ok()?;
            let nodes = view["nodes"].as_array()?;
            let ready = nodes.iter().filter(|n| n["state"] == "Live" && n["ready"] == true).count();
            (ready == NODES.len()).then_some(())
        });
        Some(net)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self, host: u8, port: u16) -> String {
        format!("http://{}:{port}", self.hosts.address(host))
    }

    fn daemon(&mut self, host: u8, verb: &str, config: &str) {
        let path = self.path(&format!("{verb}-{host}.toml"));
        fs::write(&path, config).unwrap();
        let log = fs::File::create(path.with_extension("log")).unwrap();
        let mut command = self.hosts.command(host, &kctl_binary());
        command.arg(verb).arg("--config").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self._daemons.push(Daemon(command.spawn().unwrap()));
    }

    fn member(&mut self, id: u8) {
        let at = self.hosts.address(id);
        let mut config = format!(
            "id = {id}\ndata_dir = {:?}\ninsecure = true\n[listen]\ngrpc = \"{at}:7101\"\nhttp = \"{at}:7102\"\nraft = \"{at}:7103\"\n",
            self.path(&format!("data-{id}"))
        );
        for m in MEMBERS {
            let [grpc, http, raft] = [7101, 7102, 7103].map(|port| self.url(m, port));
            config += &format!("[members.{m}]\ngrpc = {grpc:?}\nhttp = {http:?}\nraft = {raft:?}\n");
        }
        self.daemon(id, "control-plane", &config);
    }

    fn node(&mut self, n: u8) {
        let [conf, prefix, state, lua] =
            ["conf", "prefix", "state", "lua"].map(|part| self.path(&format!("{part}-{n}")));
        for dir in [&prefix, &lua] {
            fs::create_dir(dir).unwrap();
        }
        let text = format!(
            "prefix = {}\ndatabase = postgres\npg_host = {}\npg_database = kong\nproxy_listen = 127.0.0.1:8000\n\
             admin_listen = 127.0.0.1:8001\nstatus_listen = 127.0.0.1:8007\nadmin_gui_listen = off\n\
             nginx_main_worker_processes = 1\nplugins = bundled\n",
            prefix.display(),
            self.path("datastore").display()
        );
        fs::write(&conf, text).unwrap();
        let kong = self.path("kong");
        let mut start = self.hosts.command(n, &kong);
        let started = start.arg("start").arg("-c").arg(&conf).arg("-p").arg(&prefix).status().unwrap();
        assert!(started.success());
        let endpoints = MEMBERS.map(|m| self.url(m, 7101));
        let config = format!(
            "node = \"n{n}\"\ncontrol_plane = {endpoints:?}\ninsecure = true\nstate_dir = {state:?}\nlua_dir = {lua:?}\n\
             [kong]\nbin = {kong:?}\nconf = {conf:?}\nprefix = {prefix:?}\n"
        );
        self.daemon(n, "node-agent", &config);
    }

    /// Runs `kctl` on host `host`.
    fn kctl_on(&self, host: u8, members: &[u8], args: &[&str]) -> Ran {
        let mut command = self.hosts.command(host, &kctl_binary());
        command.arg("--insecure").env("NO_COLOR", "1");
        members.iter().for_each(|m| {
            command.args(["--server", &self.url(*m, 7101)]);
        });
        command.args(args).output().unwrap().into()
    }

    fn kctl(&self, args: &[&str]) -> Ran {
        self.kctl_on(DESK, &MEMBERS, args)
    }

    fn operation(&self, id: &str) -> Option<Value> {
        serde_json::from_str(&self.kctl(&["operation", "status", id, "-o", "json"]).out).ok()
    }

    /// Who leads, as one that can be reached says.
    fn leader(&self, not: Option<u8>) -> u8 {
        until("a leader", 30, || {
            let view: Value =
                serde_json::from_str(&self.kctl(&["cluster", "status", "-o", "json"]).out).ok()?;
            let leader = u8::try_from(view["leader"].as_u64()?).ok()?;
            (Some(leader) != not).then_some(leader)
        })
    }

    fn begin(&self, args: &[&str]) -> String {
        let ran = self.kctl(&[args, &["--all-nodes", "--detach"]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.trim().to_owned()
    }

    fn succeeds(&self, id: &str) -> Value {
        until(&format!("operation {id} to succeed"), 120, || {
            let view = self.operation(id)?;
            assert!(view["finished_at"].is_null() || view["phase"] == "Succeeded", "{view:#}");
            (view["phase"] == "Succeeded").then_some(view)
        })
    }

    fn hups(&self, n: u8) -> usize {
        let log = self.path(&format!("prefix-{n}")).join("logs/error.log");
        fs::read_to_string(log).unwrap().matches("signal 1 (SIGHUP) received").count()
    }

    fn waits_for(&self, id: &str, node: &str) -> Option<()> {
        let view = self.operation(id)?;
        let mut waiting = view["waiting_on"].as_array()?.iter();
        waiting.any(|w| w["node"] == node && w["reason"] == "AGENT_UNREACHABLE").then_some(())
    }
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_commits_nothing() {
    let Some(net) = Net::start() else { return };
    let source = plugins::good(net.dir.path(), "remote", "1.0.0");
    let id = net.begin(&["plugin", "install", source.to_str().unwrap(), "--waves", "1,100%", "--bake", "5s"]);
    until("the first wave to bake", 60, || {
        net.operation(&id)?["waiting_on"].as_array()?.iter().any(|w| w["reason"] == "BAKING").then_some(())
    });
    let old = net.leader(None);
    net.hosts.cut(old);
    let begun = Instant::now();
    let new = net.leader(Some(old));
    println!("member {new} led {:.1} s after member {old} was cut off", begun.elapsed().as_secs_f64());
    // Whoever still sits with the old one is told that it cannot decide anything.
    let ran = net.kctl_on(old, &[old], &["plugin", "remove", "remote", "--all-nodes", "--yes", "--detach"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.err.contains("NO_QUORUM") || ran.err.contains("UNREACHABLE"), "{ran:?}");
    net.succeeds(&id);
    net.hosts.mend(old);
    until("the old leader to follow", 30, || {
        let ran = net.kctl_on(old, &[old], &["operation", "status", &id, "-o", "json"]);
        ran.out.contains("\"Succeeded\"").then_some(())
    });
    for n in NODES {
        assert_eq!(net.hups(n), 1, "n{n}");
    }
    let id = net.begin(&["plugin", "remove", "remote", "--yes"]);
    net.succeeds(&id);
}

#[test]
fn a_leader_that_is_heard_but_hears_nobody_gives_way() {
    let Some(net) = Net::start() else { return };
    let old = net.leader(None);
    let others: Vec<_> = MEMBERS.into_iter().filter(|m| *m != old).collect();
    others.iter().for_each(|other| net.hosts.deafen(old, *other));
    let source = plugins::good(net.dir.path(), "remote", "1.0.0");
    net.leader(Some(old));
    let id = net.begin(&["plugin", "install", source.to_str().unwrap()]);
    net.succeeds(&id);
    others.iter().for_each(|other| net.hosts.undeafen(old, *other));
    until("all members to say the same", 30, || {
        let says = |m: u8| net.kctl_on(DESK, &[m], &["operation", "status", &id, "-o", "json"]).out;
        MEMBERS.iter().all(|m| says(*m).contains("\"Succeeded\"")).then_some(())
    });
}

#[test]
fn an_agent_that_is_cut_off_is_named_and_catches_up() {
    let Some(net) = Net::start() else { return };
    let source = plugins::good(net.dir.path(), "remote", "1.0.0");
    net.hosts.cut(NODES[1]);
    let cut = Instant::now();
    let id = net.begin(&["plugin", "install", source.to_str().unwrap()]);
    until("the missing node to be named", 30, || net.waits_for(&id, "n5"));
    println!("named {:.1} s after its cable was pulled", cut.elapsed().as_secs_f64());
    assert_eq!(NODES.map(|n| net.hups(n)), [0; 3], "enabled while a node could not be asked");
    net.hosts.mend(NODES[1]);
    let mended = Instant::now();
    until("the healed node to report", 30, || match net.waits_for(&id, "n5") {
        Some(()) => None,
        None => Some(()),
    });
    println!("heard {:.1} s after it was put back", mended.elapsed().as_secs_f64());
    net.succeeds(&id);
    assert_eq!(NODES.map(|n| net.hups(n)), [1; 3]);

    // Members apart from each other: nothing is decided, and Kong stays as it is.
    let before = NODES.map(|n| fs::read(net.path(&format!("conf-{n}"))).unwrap());
    MEMBERS.iter().for_each(|m| net.hosts.cut(*m));
    let ran = net.kctl(&["plugin", "remove", "remote", "--all-nodes", "--yes", "--detach"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    MEMBERS.iter().for_each(|m| net.hosts.mend(*m));
    let id = until("the members to find each other", 60, || {
        let ran = net.kctl(&["plugin", "remove", "remote", "--all-nodes", "--yes", "--detach"]);
        assert_eq!(NODES.map(|n| fs::read(net.path(&format!("conf-{n}"))).unwrap()), before);
        (ran.code == 0).then(|| ran.out.trim().to_owned())
    });
    net.succeeds(&id);
}
