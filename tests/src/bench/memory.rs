//! What idle daemons hold in memory, before and after a plugin went in and out again.

use std::process::{Child, Command, Stdio};

use procfs::process::Process;
use serde_json::Value;

use crate::cluster::signal;
use crate::{Cluster, until};

use super::plugin;
use super::process::field;

/// KiB that an agent may hold.
const TARGET: u64 = 15 << 10;

/// The executable of nodes in place of the agent that `kctl dev` runs, whose executable has everything else in it too.
struct Agent {
    child: Child,
    supervisor: Value,
}

impl Agent {
    fn in_place_of(node: &Value) -> Self {
        let former = Process::new(i32::try_from(node["agent_pid"].as_i64().unwrap()).unwrap()).unwrap();
        let supervisor = Value::from(former.stat().unwrap().ppid);
        // Held, it does not start another one.
        signal(&supervisor, "STOP");
        signal(&Value::from(former.pid()), "KILL");
        until("the agent to end", 10, || former.stat().map_or(true, |stat| stat.state == 'Z').then_some(()));
        let mut command = Command::new(super::sibling("kctl-node-agent"));
        command.arg("--config").arg(format!("{}.toml", node["agent_dir"].as_str().unwrap()));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, supervisor }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
        signal(&self.supervisor, "CONT");
    }
}

/// Starts a cluster, works with it and looks at its processes; whether the target is met.
pub fn run() -> bool {
    let cluster = Cluster::start(1, 1);
    let sources = super::directory("kctl-bench-sources-");
    let member = cluster.members().remove(0)["pid"].clone();
    let agent = Agent::in_place_of(&cluster.nodes().remove(0));
    println!("\nmemory, KiB                         resident anonymous");
    let install = |version: &str| {
        let ran = cluster.install(&plugin::write(sources.path(), version));
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    let show = |when: &str| -> u64 {
        let pids = [("member (kctl)", member.clone()), ("agent", Value::from(agent.child.id()))];
        for (who, pid) in &pids {
            println!(
                "  {:<33} {:8} {:9}",
                format!("{who}, {when}"),
                field(&pid.to_string(), "VmRSS"),
                field(&pid.to_string(), "RssAnon")
            );
        }
        field(&pids[1].1.to_string(), "VmRSS")
    };
    install("1.0.0");
    let one = show("after an install");
    install("2.0.0");
    let ran = cluster.remove(plugin::NAME);
    assert_eq!(ran.code, 0, "{ran:?}");
    let met = one.max(show("after upgrade and removal")) <= TARGET;
    println!("  agent: at most {TARGET} KiB {}", super::figures::verdict(met));
    met
}
