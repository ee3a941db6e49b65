//! What idle daemons hold in memory, once a plugin went in and out again.

use std::fs;

use crate::Cluster;

use super::plugin;

/// KiB that an agent may hold.
const TARGET: u64 = 15 << 10;

/// Starts a cluster, works with it and looks at its processes; whether the target is met.
pub fn run() -> bool {
    let cluster = Cluster::start(1, 1);
    let sources = super::directory("kctl-bench-sources-");
    let (member, node) = (cluster.members().remove(0), cluster.nodes().remove(0));
    let pids = [("member", &member["pid"]), ("agent", &node["agent_pid"])];
    println!("\nmemory, KiB                      resident anonymous");
    let show = |when: &str| -> u64 {
        let mut agent = 0;
        for (who, pid) in pids {
            let (resident, anonymous) = (of(pid, "VmRSS"), of(pid, "RssAnon"));
            println!("  {:<30} {resident:9} {anonymous:9}", format!("{who}, {when}"));
            agent = resident;
        }
        agent
    };
    let fresh = show("idle");
    for version in ["1.0.0", "2.0.0"] {
        let ran = cluster.install(&plugin::write(sources.path(), version));
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let ran = cluster.remove(plugin::NAME);
    assert_eq!(ran.code, 0, "{ran:?}");
    let used = show("after three operations");
    let met = fresh.max(used) <= TARGET;
    println!("  agent: at most {TARGET} KiB {}", super::figures::verdict(met));
    met
}

fn of(pid: &serde_json::Value, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
