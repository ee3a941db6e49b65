//! One Kong with its files, and the adapter beside it. `KCTL_TEST_KONG` names another Kong executable than the stand-in.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kctl_node_agent::config::{Apply, Preflight};
use kctl_node_agent::gateway::kong::{Kong, KongConfig, Limits};
use kctl_node_agent::gateway::{EnactError, Gateway as _, Wanted};
use kctl_shared::name::PluginName;
use kctl_shared::package::hash_tree;
use kctl_shared::spec::{Failure, ReleaseRef};
use serde_json::Value;
use tempfile::TempDir;

use crate::database::Database;

pub const SCHEMA: &str = r#"local typedefs = require "kong.db.schema.typedefs"
return { name = "NAME", fields = {
  { protocols = typedefs.protocols_http },
  { config = { type = "record", fields = { { value = { type = "string", default = "hi" } } } } },
} }
"#;

/// Name, version, and files with their content.
pub type Plugin<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A handler with `more` before it is returned.
pub fn handler(version: &str, more: &str) -> String {
    format!(
        "local H = {{ PRIORITY = 1000, VERSION = \"{version}\" }}\n{more}\nfunction H:access() end\nreturn H\n"
    )
}

#[derive(Debug)]
pub struct Node {
    pub temp: TempDir,
    pub bin: PathBuf,
    pub ports: [u16; 3],
    /// Environment of `kong start`.
    pub environment: BTreeMap<String, String>,
    /// As whom Kong's commands are run; everybody's is the test's own.
    pub user: Option<u32>,
    /// Major and minor number of the Kong that is played.
    pub version: (u16, u16),
    next: std::sync::atomic::AtomicU64,
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("KCTL_TEST_KONG") {
        return path.into();
    }
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(Path::parent).unwrap().join("kong");
    assert!(path.exists(), "{} is not built: cargo build -p kctl-sandbox", path.display());
    path
}

fn free_ports() -> [u16; 3] {
    let held: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    [0, 1, 2].map(|i: usize| held[i].local_addr().unwrap().port())
}

impl Node {
    /// A node without a database, not started.
    pub fn new(more: &str) -> Self {
        let temp = tempfile::Builder::new().prefix("kctl-gw-").tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let node = Self {
            temp,
            bin: binary(),
            ports: free_ports(),
            environment: BTreeMap::new(),
            user: None,
            version: (3, 9),
            next: 1.into(),
        };
        fs::create_dir_all(node.lua_dir().join("gen")).unwrap();
        let database = if more.contains("database =") { "" } else { "database = off\n" };
        let [proxy, admin, status] = node.ports;
        let text = format!(
            "# a node\nprefix = {}\n{database}proxy_listen = 127.0.0.1:{proxy}\nadmin_listen = 127.0.0.1:{admin}\nstatus_listen = \
             127.0.0.1:{status}\nadmin_gui_listen = off\nanonymous_reports = off\nnginx_worker_processes = 2\n{more}",
            node.prefix().display()
        );
        node.write_conf(&text);
        node
    }

    /// A started node of the stand-in under another name; `None` when the tests run on a real Kong.
    pub fn of_version(version: &str) -> Option<Self> {
        if std::env::var_os("KCTL_TEST_KONG").is_some() {
            return None;
        }
        let mut node = Self::new("");
        let mut parts = version.split('.').map(|part| part.parse().unwrap());
        node.version = (parts.next().unwrap(), parts.next().unwrap());
        let bin = node.path(&format!("kong-{version}"));
        std::os::unix::fs::symlink(&node.bin, &bin).unwrap();
        node.bin = bin;
        let store = node.path("datastore");
        fs::create_dir(&store).unwrap();
        let [proxy, admin, _] = node.ports;
        let store = store.display();
        if !node.since(0, 9) {
            let prefix = node.prefix();
            let (list, listens, database) = if node.since(0, 6) {
                (
                    "custom_plugins:\n  - # none yet\n",
                    format!("proxy_listen: \"127.0.0.1:{proxy}\"\nadmin_api_listen: \"127.0.0.1:{admin}\"\n"),
                    format!("database: postgres\npostgres:\n  host: \"{store}\"\n  database: kong\n"),
                )
            } else {
                (
                    "plugins_available:\n  - jwt\n  - acl\n",
                    format!("proxy_port: {proxy}\nadmin_api_port: {admin}\n"),
                    format!(
                        "databases_available:\n  cassandra:\n    properties:\n      contact_points:\n        - \"{store}\"\n"
                    ),
                )
            };
            let list = list.replace("  - # none yet\n", "");
            node.write_conf(&format!(
                "## A node\n{list}\nnginx_working_dir: {}\n{listens}{database}nginx: |\n  worker_processes 2;\n  http {{\n    lua_package_path \
                 ';;';\n  }}\n",
                prefix.display()
            ));
        } else if !node.since(1, 1) {
            let database = format!("database = postgres\npg_host = {store}\npg_database = kong\n");
            node.write_conf(&node.read_conf().replace("database = off\n", &database));
        }
        node.start();
        Some(node)
    }

    pub fn since(&self, major: u16, minor: u16) -> bool {
        self.version >= (major, minor)
    }

    /// Whether the running Kong says it has loaded the plugin.
    pub fn has(&self, plugin: &str) -> bool {
        let root = self.get("/").unwrap().1;
        let available = &root["plugins"]["available_on_server"];
        let listed = available.as_array().is_some_and(|names| names.contains(&plugin.into()));
        listed || !available[plugin].is_null()
    }

    /// A started node on a database of its own.
    pub fn on_database() -> Option<(Self, Database)> {
        let node = Self::new("database = off\n");
        let database = Database::create(node.temp.path())?;
        let text = node.read_conf().replace("database = off\n", &database.conf());
        node.write_conf(&(text + "db_update_frequency = 1\nworker_state_update_frequency = 1\n"));
        if database.needs_bootstrap() {
            let ended = node.kong(&["migrations", "bootstrap", "-c", node.conf().to_str().unwrap()]);
            assert!(ended.status.success(), "{ended:?}");
        }
        node.start();
        Some((node, database))
    }

    pub fn started(more: &str) -> Self {
        let node = Self::new(more);
        node.start();
        node
    }

    pub fn with_environment(mut self, pairs: &[(&str, &str)]) -> Self {
        self.environment = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self
    }

    /// Another user owns the prefix and runs Kong.
    pub fn run_by(mut self, user: u32) -> Self {
        fs::create_dir(self.prefix()).unwrap();
        std::os::unix::fs::chown(self.prefix(), Some(user), Some(user)).unwrap();
        if std::env::var_os("KCTL_TEST_KONG").is_none() {
            // The checkout may be closed to others. Copied by another process: one that is forked meanwhile would hold a
            // file open for writing that is to be run.
            let own = self.path("kong");
            assert!(Command::new("cp").arg(&self.bin).arg(&own).status().unwrap().success());
            self.bin = own;
        }
        self.user = Some(user);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub fn conf(&self) -> PathBuf {
        self.path("kong.conf")
    }

    pub fn prefix(&self) -> PathBuf {
        self.path("p")
    }

    pub fn lua_dir(&self) -> PathBuf {
        self.path("kctl")
    }

    pub fn read_conf(&self) -> String {
        fs::read_to_string(self.conf()).unwrap()
    }

    pub fn write_conf(&self, text: &str) {
        fs::write(self.conf(), text).unwrap();
    }

    pub fn kong(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.bin);
        command.args(args).current_dir("/").env_clear().envs(&self.environment);
        for key in ["PATH", "HOME"] {
            command.env(key, std::env::var_os(key).unwrap_or_default());
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.output().unwrap()
    }

    pub fn start(&self) {
        let conf = self.conf();
        let ended = self.kong(&["start", "-c", conf.to_str().unwrap()]);
        assert!(ended.status.success(), "{ended:?}");
        kctl_tests::until("the Admin API", 30, || self.get("/").ok());
    }

    /// `kong start` that becomes the master.
    pub fn in_foreground(&self) -> std::process::Child {
        let mut command = Command::new(&self.bin);
        command.args(["start", "-c"]).arg(self.conf()).current_dir("/").env_clear();
        for key in ["PATH", "HOME"] {
            command.env(key, std::env::var_os(key).unwrap_or_default());
        }
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    }

    pub fn stop(&self) {
        // nginx takes its pid file away a moment before it is gone.
        let pid = self.pid();
        let _ended = self.ask_to_stop();
        kctl_tests::until("the master to end", 30, || (!pid.is_some_and(is_alive)).then_some(()));
    }

    fn ask_to_stop(&self) -> Output {
        let (conf, prefix) = (self.conf(), self.prefix());
        if self.since(0, 9) {
            self.kong(&["stop", "-p", prefix.to_str().unwrap()])
        } else {
            self.kong(&["stop", "-c", conf.to_str().unwrap()])
        }
    }

    pub fn pid(&self) -> Option<i32> {
        let name = if self.since(0, 9) { "pids/nginx.pid" } else { "nginx.pid" };
        fs::read_to_string(self.prefix().join(name)).ok()?.trim().parse().ok()
    }

    pub fn is_up(&self) -> bool {
        self.pid().is_some_and(is_alive)
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().unwrap();
        assert!(
            Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().unwrap().success()
        );
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[1])
    }

    pub fn get(&self, path: &str) -> Result<(u16, Value), String> {
        get(&self.url(path))
    }

    pub fn ready(&self) -> (u16, Value) {
        get(&format!("http://127.0.0.1:{}/status/ready", self.ports[2])).unwrap()
    }

    pub fn send(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        request(method, &self.url(path), Some(body)).unwrap()
    }

    /// Version in Kong's own words.
    pub fn loaded(&self, plugin: &str) -> Option<String> {
        let root = self.get("/").unwrap().1;
        root["plugins"]["available_on_server"][plugin]["version"].as_str().map(str::to_owned)
    }

    pub fn workers(&self) -> Vec<i64> {
        let root = self.get("/").unwrap().1;
        let mut pids: Vec<i64> =
            root["pids"]["workers"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
        pids.sort_unstable();
        pids
    }

    /// What a refusal must leave as it was.
    pub fn footprint(&self) -> (String, Vec<String>, Vec<i64>) {
        let armed = fs::read_to_string(self.prefix().join(".kong_env")).unwrap();
        let mut armed: Vec<String> = armed.lines().map(str::to_owned).collect();
        armed.sort();
        (self.read_conf(), armed, self.workers())
    }

    pub fn gateway(&self) -> Kong {
        self.gateway_with(Preflight::Parse)
    }

    pub fn gateway_with(&self, preflight: Preflight) -> Kong {
        Kong::new(KongConfig { preflight, ..self.config() })
    }

    /// An adapter that brings changes in by restarts.
    pub fn restarting(&self) -> Kong {
        Kong::new(KongConfig { apply: Apply::Restart, ..self.config() })
    }

    pub fn restarting_with(&self, bin: PathBuf) -> Kong {
        Kong::new(KongConfig { apply: Apply::Restart, bin, ..self.config() })
    }

    pub fn gateway_on(&self, bin: PathBuf, limits: Limits) -> Kong {
        Kong::with_limits(KongConfig { bin, ..self.config() }, limits)
    }

    fn config(&self) -> KongConfig {
        KongConfig {
            bin: self.bin.clone(),
            conf: self.conf(),
            prefix: self.prefix(),
            state_dir: self.path("state"),
            lua_dir: self.lua_dir(),
            preflight: Preflight::Parse,
            apply: Apply::Reload,
        }
    }

    /// Workers that outlived their master.
    pub fn kill_orphans(&self) {
        for process in procfs::process::all_processes().unwrap().flatten() {
            let Ok(stat) = process.stat() else { continue };
            let title = process.cmdline().unwrap_or_default().join(" ");
            let log = self.prefix().join("logs/error.log");
            let ours = || {
                process.fd().is_ok_and(|mut fds| {
                    fds.any(|fd| matches!(fd.map(|f| f.target), Ok(procfs::process::FDTarget::Path(p)) if p == log))
                })
            };
            if title.starts_with("nginx: worker") && stat.ppid == 1 && ours() {
                let _ended = Command::new("kill").arg("-KILL").arg(process.pid().to_string()).status();
            }
        }
    }

    /// A new generation with these plugins.
    pub fn generation(&self, plugins: &[Plugin<'_>]) -> Wanted {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let generation = self.lua_dir().join("gen").join(number.to_string());
        fs::create_dir_all(&generation).unwrap();
        let mut wanted = Wanted { generation: Some(generation.clone()), ..Wanted::default() };
        for (name, version, files) in plugins {
            let directory = generation.join("kong/plugins").join(name);
            fs::create_dir_all(&directory).unwrap();
            for (file, text) in *files {
                fs::write(directory.join(file), text.replace("NAME", name)).unwrap();
            }
            let name = PluginName::parse(name).unwrap();
            let (digest, _) = hash_tree(&directory, &name).unwrap();
            wanted.listed.insert(name, ReleaseRef::new(*version, digest));
        }
        wanted
    }

    /// A generation with one plugin whose handler has `more` in it.
    pub fn plugin(&self, name: &str, version: &str, more: &str) -> Wanted {
        self.generation(&[(
            name,
            version,
            &[("handler.lua", &handler(version, more)), ("schema.lua", SCHEMA)],
        )])
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- kong.conf\n{}", fs::read_to_string(self.conf()).unwrap_or_default());
            let log = fs::read_to_string(self.prefix().join("logs/error.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- error.log\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        if self.is_up() {
            self.signal("CONT");
            let _ended = self.ask_to_stop();
            let start = std::time::Instant::now();
            while self.is_up() && start.elapsed().as_secs() < 10 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

fn is_alive(pid: i32) -> bool {
    procfs::process::Process::new(pid).and_then(|p| p.stat()).is_ok_and(|stat| stat.state != 'Z')
}

pub fn get(url: &str) -> Result<(u16, Value), String> {
    request("GET", url, None)
}

/// On a thread of its own, so that it can be called from inside a runtime.
fn request(method: &str, url: &str, body: Option<Value>) -> Result<(u16, Value), String> {
    let (method, url) = (method.parse::<reqwest::Method>().unwrap(), url.to_owned());
    std::thread::spawn(move || kctl_tests::cluster::request(method, &url, body).map_err(|e| e.to_string()))
        .join()
        .unwrap()
}

pub fn without(name: &str, generation: Option<PathBuf>) -> Wanted {
    let unlisted = [PluginName::parse(name).unwrap()].into();
    Wanted { unlisted, generation, ..Wanted::default() }
}

pub async fn enact(kong: &Kong, wanted: &Wanted, before: &Wanted) -> Result<(), EnactError> {
    kong.enact(wanted, before, &|_| {}).await
}

pub fn put_back(result: Result<(), EnactError>) -> Failure {
    match result {
        Err(EnactError::PutBack(failure)) => failure,
        other => panic!("not put back: {other:?}"),
    }
}

pub fn waiting(result: Result<(), EnactError>) -> Failure {
    match result {
        Err(EnactError::Waiting(failure)) => failure,
        other => panic!("not waiting: {other:?}"),
    }
}

pub fn refused(result: Result<(), EnactError>) -> Failure {
    match result {
        Err(EnactError::Refused(failure)) => failure,
        other => panic!("not refused: {other:?}"),
    }
}
