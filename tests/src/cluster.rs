//! A development cluster of real processes, driven through `kctl` and looked at through Kong's own interfaces.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::wait::until;

#[derive(Debug)]
pub struct Cluster {
    pub dir: PathBuf,
    _temp: TempDir,
}

/// What `kctl` printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(o: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: o.status.code().unwrap_or(-1), out: text(o.stdout), err: text(o.stderr) }
    }
}

/// The executable built from this workspace.
pub fn kctl_binary() -> PathBuf {
    // Tests lie in a directory below the one of executables.
    let me = std::env::current_exe().unwrap();
    let places = me.ancestors().skip(1).take(2).map(|dir| dir.join("kctl"));
    let path = places.into_iter().find(|path| path.exists());
    path.unwrap_or_else(|| {
        panic!("kctl is not built beside {}: cargo build --workspace --bins", me.display())
    })
}

impl Cluster {
    /// Starts members, nodes and agents and waits until all are healthy.
    ///
    /// The nodes are stand-ins, unless `KCTL_TEST_KONG` and `KCTL_TEST_PG` name a real Kong and a Postgres server.
    pub fn start(members: usize, nodes: usize) -> Self {
        Self::start_with(members, nodes, &[])
    }

    /// As [`Self::start`], with more flags of `kctl dev`.
    pub fn start_with(members: usize, nodes: usize, more: &[&str]) -> Self {
        let temp = tempfile::Builder::new().prefix("kctl-e2e-").tempdir().unwrap();
        // Workers of a real Kong run as another user.
        std::fs::set_permissions(temp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let cluster = Self { dir: temp.path().join("dev"), _temp: temp };
        let dir = cluster.dir.to_str().unwrap().to_owned();
        let (members, nodes) = (members.to_string(), nodes.to_string());
        let mut args = vec!["dev", "--detach", "--dir", &dir, "--members", &members, "--nodes", &nodes];
        args.extend(more);
        let real = ["KCTL_TEST_KONG", "KCTL_TEST_PG"].map(|key| std::env::var(key).ok());
        if let [Some(kong), Some(postgres)] = &real {
            args.extend(["--kong", kong, "--pg", postgres]);
        }
        let ran = cluster.kctl(&args);
        assert_eq!(ran.code, 0, "{ran:?}");
        cluster
    }

    /// A node by its id, as `dev.json` has it now.
    pub fn node(&self, id: &str) -> Value {
        self.nodes().into_iter().find(|n| n["id"] == id).unwrap()
    }

    /// How many HUPs the master of a node has received.
    pub fn hups(&self, node: &Value) -> usize {
        let log = Path::new(node["prefix"].as_str().unwrap()).join("logs/error.log");
        std::fs::read_to_string(log).unwrap().matches("signal 1 (SIGHUP) received").count()
    }

    pub fn temp(&self) -> &Path {
        self._temp.path()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(kctl_binary());
        command.args(args).env("KCTL_CONFIG", self.dir.join("kctl.toml")).env("NO_COLOR", "1");
        command
    }

    pub fn kctl(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// Runs `kctl … -o json` and reads what it printed.
    pub fn json(&self, args: &[&str]) -> Value {
        let ran = self.kctl(&[args, &["-o", "json"]].concat());
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{args:?}: {e}: {ran:?}"))
    }

    pub fn install(&self, path: &Path) -> Ran {
        self.kctl(&["plugin", "install", path.to_str().unwrap(), "--all-nodes"])
    }

    /// Installs what the linter would refuse, to hear what Kong itself says.
    pub fn install_unjudged(&self, path: &Path) -> Ran {
        self.kctl(&["plugin", "install", path.to_str().unwrap(), "--all-nodes", "--no-lint"])
    }

    pub fn remove(&self, name: &str) -> Ran {
        self.kctl(&["plugin", "remove", name, "--all-nodes", "--yes"])
    }

    /// The newest `dev.json`.
    pub fn dev(&self) -> Value {
        let text = std::fs::read_to_string(self.dir.join("dev.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn nodes(&self) -> Vec<Value> {
        self.dev()["nodes"].as_array().unwrap().clone()
    }

    pub fn members(&self) -> Vec<Value> {
        self.dev()["members"].as_array().unwrap().clone()
    }

    /// What node `n` says of `plugin`: its version, or `None` when it is not loaded.
    pub fn loaded(&self, node: &Value, plugin: &str) -> Option<String> {
        let root = get(&format!("{}/", node["admin"].as_str().unwrap())).ok()?.1;
        let entry = &root["plugins"]["available_on_server"][plugin];
        if entry.is_null() || entry == &Value::Bool(false) {
            return None;
        }
        Some(entry["version"].as_str().unwrap_or_default().to_owned())
    }

    pub fn loaded_on(&self, plugin: &str) -> Vec<Option<String>> {
        self.nodes().iter().map(|n| self.loaded(n, plugin)).collect()
    }

    /// Configurations that name `plugin`, as a node's Admin API lists them; `None` when it does not answer.
    pub fn entities(&self, node: &Value, plugin: &str) -> Option<Vec<Value>> {
        let (_, list) = get(&format!("{}/plugins", node["admin"].as_str()?)).ok()?;
        Some(list["data"].as_array()?.iter().filter(|p| p["name"] == plugin).cloned().collect())
    }

    /// The `plugins` values of all nodes' conf files.
    pub fn directive(&self, node: &Value) -> String {
        let text = std::fs::read_to_string(node["conf"].as_str().unwrap()).unwrap();
        let line = text.lines().rev().find(|l| l.trim_start().starts_with("plugins"));
        line.and_then(|l| l.split_once('=')).map_or("bundled".into(), |(_, v)| v.trim().to_owned())
    }

    /// Lua files of `plugin` below a node's directory.
    pub fn files(&self, node: &Value, plugin: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![PathBuf::from(node["lua_dir"].as_str().unwrap())];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    todo.push(path);
                } else if kind.is_file() && path.components().any(|c| c.as_os_str() == plugin) {
                    found.push(path);
                }
            }
        }
        found
    }

    /// Everything of a node that a refused plugin must not change.
    pub fn footprint(&self, node: &Value) -> String {
        let read = |p: PathBuf| std::fs::read_to_string(p).unwrap_or_default();
        let prefix = PathBuf::from(node["prefix"].as_str().unwrap());
        let env = read(prefix.join(".kong_env"));
        let mut env: Vec<_> = env.lines().collect();
        env.sort_unstable();
        let root = get(&format!("{}/", node["admin"].as_str().unwrap())).unwrap().1;
        format!("{}\n{}\n{}", read(node["conf"].as_str().unwrap().into()), env.join("\n"), root["pids"])
    }

    pub fn operation(&self, id: &str) -> Value {
        self.json(&["operation", "status", id])
    }

    /// The newest operation, whatever became of it.
    pub fn newest_operation(&self) -> Value {
        let list = self.json(&["operation", "list"]);
        let list = list.as_array().cloned().or_else(|| list["operations"].as_array().cloned()).unwrap();
        list.into_iter().next().unwrap()
    }

    pub fn wait_ended(&self, id: &str, seconds: u64) -> Value {
        until(&format!("operation {id} to end"), seconds, || {
            let ran = self.kctl(&["operation", "status", id, "-o", "json"]);
            let view: Value = serde_json::from_str(&ran.out).ok()?;
            matches!(view["phase"].as_str()?, "Succeeded" | "Failed" | "Aborted" | "Compensated")
                .then_some(view)
        })
    }

    pub fn leader(&self) -> Value {
        until("a leader", 30, || {
            let ran = self.kctl(&["cluster", "status", "-o", "json"]);
            let view: Value = serde_json::from_str(&ran.out).ok()?;
            let leader = view["leader"].as_u64()?;
            self.members().into_iter().find(|m| m["id"] == leader)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let dir = self.dir.to_str().unwrap_or_default().to_owned();
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.dir.join("log")).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let tail: Vec<_> = text.lines().rev().take(25).collect();
                eprintln!(
                    "--- {}\n{}",
                    entry.path().display(),
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
        }
        let _down = self.command(&["dev", "down", "--dir", &dir]).output();
    }
}

/// `signal` as `kill` names it, e.g. `KILL`, `STOP`.
pub fn signal(pid: &Value, signal: &str) {
    let done = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().unwrap();
    assert!(done.success(), "kill -{signal} {pid}");
}

/// Stops a process and waits until it is: the signal goes to one of its threads, and the others work on until that one
/// was given a processor.
pub fn hold(pid: &Value) {
    signal(pid, "STOP");
    let is_held = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
        // A thread that ended meanwhile holds nothing up.
        stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't'])))
    };
    until(&format!("{pid} to be held"), 30, || {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.all(is_held).then_some(())
    });
}

/// GET on a connection of its own.
pub fn get(url: &str) -> Result<(u16, Value), reqwest::Error> {
    request(reqwest::Method::GET, url, None)
}

pub fn request(
    method: reqwest::Method,
    url: &str,
    body: Option<Value>,
) -> Result<(u16, Value), reqwest::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client =
            reqwest::Client::builder().no_proxy().timeout(std::time::Duration::from_secs(10)).build()?;
        let mut request = client.request(method, url).header("connection", "close");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let code = response.status().as_u16();
        let text = response.text().await?;
        Ok((code, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    })
}
