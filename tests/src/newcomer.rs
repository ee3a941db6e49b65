//! Nodes that join a development cluster later.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;

use crate::cluster::{Cluster, kctl_binary};

fn text<'a>(node: &'a Value, key: &str) -> &'a str {
    node[key].as_str().unwrap()
}

/// The agent's configuration of a node of a development cluster.
pub fn agent_config(node: &Value) -> PathBuf {
    Path::new(text(node, "conf")).with_file_name("agent.toml")
}

/// A node that nothing was ever started on, of the same cluster and database: its directory with kong.conf, and its
/// agent's configuration.
pub fn new_node(cluster: &Cluster, id: &str) -> (PathBuf, PathBuf) {
    let old = &cluster.nodes()[0];
    let home = cluster.dir.join("nodes").join(id);
    fs::create_dir_all(&home).unwrap();
    let held: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut ports = held.iter().map(|l| l.local_addr().unwrap().port());
    let mut conf = String::new();
    for line in fs::read_to_string(text(old, "conf")).unwrap().lines() {
        let key = line.split('=').next().unwrap().trim();
        conf += &match key {
            "prefix" => format!("prefix = {}\n", home.join("prefix").display()),
            "proxy_listen" | "admin_listen" | "status_listen" => {
                format!("{key} = 127.0.0.1:{}\n", ports.next().unwrap())
            }
            "plugins" => "plugins = bundled\n".into(),
            "lua_package_path" => String::new(),
            _ => format!("{line}\n"),
        };
    }
    fs::write(home.join("kong.conf"), conf).unwrap();
    let agent = fs::read_to_string(agent_config(old)).unwrap().replace(text(old, "id"), id);
    let config = home.join("agent.toml");
    fs::write(&config, agent).unwrap();
    (home, config)
}

/// An agent that ends with the test.
#[derive(Debug)]
pub struct Agent(Child);

impl Agent {
    pub fn start(config: &Path) -> Self {
        let mut command = Command::new(kctl_binary());
        command
            .args(["node-agent", "--config", config.to_str().unwrap()])
            .stderr(std::process::Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}
