//! A stand-in node of a test: a prefix, a Lua tree, a kong.conf, and the eyes to look at it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A good plugin, as the scenarios use it.
pub const GOLDEN_HANDLER: &str = r#"local H = { PRIORITY = 1000, VERSION = "1.0.0" }
function H:header_filter(conf)
  kong.response.set_header("X-Golden", "golden " .. H.VERSION .. " " .. tostring(conf.value))
end
return H
"#;

/// Its schema.
pub const GOLDEN_SCHEMA: &str = r#"local typedefs = require "kong.db.schema.typedefs"
return {
  name = "golden",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = {
        type = "record",
        fields = {
          { value = { type = "string", required = true, default = "hi" } },
          { limit = { type = "integer", between = { 1, 10 } } },
          { mode = { type = "string", one_of = { "a", "b" } } },
        },
    } },
  },
}
"#;

/// A service with this host is answered by the stand-in itself.
pub const DECLARATIVE: &str = "_format_version: \"3.0\"\nservices:\n- name: s1\n  url: http://standin-delay\n  routes:\n  \
    - name: r1\n    paths: [\"/a\"]\n";

/// Deadline of everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// An HTTP answer; header names are lower case.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// What a node keeps its entities in.
pub enum Datastore<'a> {
    Declarative(&'a str),
    Database(&'a Path),
}

pub struct Node {
    pub root: tempfile::TempDir,
    pub ip: String,
    /// Lines of kong.conf by key.
    conf: Mutex<BTreeMap<String, String>>,
}

impl Node {
    /// A node that was not started yet, with the golden plugin on disk and enabled.
    pub fn new(datastore: &Datastore<'_>) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let root = tempfile::tempdir().unwrap();
        // Every node has a loopback address of its own, so ports never clash, whatever runs beside this test.
        let pid = std::process::id();
        let last = COUNT.fetch_add(1, Ordering::Relaxed);
        let ip = format!("127.{}.{}.{last}", 1 + (pid >> 8) % 254, pid & 0xff);
        let node = Self { root, ip, conf: Mutex::new(BTreeMap::new()) };
        let lua_path = format!("{}/?.lua;;", node.lua().display());
        for (key, value) in [
            ("prefix", node.prefix().display().to_string()),
            ("proxy_listen", format!("{}:8000", node.ip)),
            ("admin_listen", format!("{}:8001", node.ip)),
            ("status_listen", format!("{}:8007", node.ip)),
            ("admin_gui_listen", "off".to_owned()),
            ("anonymous_reports", "off".to_owned()),
            ("nginx_worker_processes", "2".to_owned()),
            ("lua_package_path", lua_path),
            ("plugins", "bundled,golden".to_owned()),
            ("db_update_frequency", "0.2".to_owned()),
            ("worker_state_update_frequency", "0.2".to_owned()),
        ] {
            node.conf.lock().unwrap().insert(key.to_owned(), value);
        }
        match datastore {
            Datastore::Declarative(text) => {
                let file = node.path("config.yml");
                fs::write(&file, text).unwrap();
                node.set("database", "off");
                node.set("declarative_config", &file.display().to_string());
            }
            Datastore::Database(directory) => {
                node.set("database", "postgres");
                node.set("pg_host", &directory.display().to_string());
            }
        }
        node.plugin("golden", &[("handler", GOLDEN_HANDLER), ("schema", GOLDEN_SCHEMA)]);
        node
    }

    /// A running node without a database, with a route `/a`.
    pub fn dbless() -> Self {
        let node = Self::new(&Datastore::Declarative(DECLARATIVE));
        node.start();
        node
    }

    /// A running node on a database, with a route `/a`.
    pub fn database(directory: &Path) -> Self {
        let node = Self::new(&Datastore::Database(directory));
        node.start();
        assert_eq!(node.post("/services", r#"{"name":"s1","url":"http://standin-delay"}"#).status, 201);
        assert_eq!(node.post("/services/s1/routes", r#"{"name":"r1","paths":["/a"]}"#).status, 201);
        node.reload_through();
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn prefix(&self) -> PathBuf {
        self.path("kong")
    }

    pub fn lua(&self) -> PathBuf {
        self.path("lua")
    }

    pub fn conf_file(&self) -> PathBuf {
        self.path("kong.conf")
    }

    /// Sets a line of kong.conf.
    pub fn set(&self, key: &str, value: &str) {
        self.conf.lock().unwrap().insert(key.to_owned(), value.to_owned());
        self.write_conf();
    }

    /// Deletes a line of kong.conf.
    pub fn unset(&self, key: &str) {
        self.conf.lock().unwrap().remove(key);
        self.write_conf();
    }

    fn write_conf(&self) {
        let text: String =
            self.conf.lock().unwrap().iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        fs::write(self.conf_file(), text).unwrap();
    }

    /// Writes a plugin's modules over whatever it had before.
    pub fn plugin(&self, name: &str, modules: &[(&str, &str)]) {
        let directory = self.lua().join("kong/plugins").join(name);
        // It may not have been there.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        for (module, text) in modules {
            fs::write(directory.join(format!("{module}.lua")), text).unwrap();
        }
    }

    /// Runs `kong` with the words of `line`; `-c` and `-p` without a value get this node's.
    pub fn kong(&self, line: &str) -> Ran {
        self.kong_env(line, &[])
    }

    pub fn kong_env(&self, line: &str, env: &[(&str, &str)]) -> Ran {
        let (conf, prefix) = (self.conf_file(), self.prefix());
        let mut command = Command::new(env!("CARGO_BIN_EXE_kong"));
        for word in line.split_whitespace() {
            command.arg(
                word.replace("<CONF>", &conf.display().to_string())
                    .replace("<PREFIX>", &prefix.display().to_string()),
            );
        }
        command.env_clear().env("PATH", "/usr/bin:/bin").envs(env.iter().copied()).current_dir("/");
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: self.placeholders(&String::from_utf8_lossy(&output.stdout)),
            err: self.placeholders(&String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// The text with this node's paths replaced as recordings name them.
    pub fn placeholders(&self, text: &str) -> String {
        text.replace(&self.conf_file().display().to_string(), "<CONF>")
            .replace(&self.prefix().display().to_string(), "<PREFIX>")
            .replace(&self.lua().display().to_string(), "<LUA_PATH>")
            .replace(&self.root.path().display().to_string(), "<TMP>")
            .replace("/usr/local/share/lua/5.1", "<KONG_LUA>")
            .replace("/usr/local/openresty", "<OPENRESTY>")
    }

    pub fn start(&self) {
        let ran = self.kong("start -c <CONF>");
        assert_eq!(ran.code, 0, "{ran:?}");
        self.until("the Admin API answers", || self.get("/status").status == 200);
    }

    /// `kong reload` as an operator calls it; it exits 0 whatever comes of it.
    pub fn reload(&self) {
        let ran = self.kong("reload -c <CONF> -p <PREFIX>");
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "Kong reloaded\n", ""), "{ran:?}");
    }

    /// Reloads and waits until a complete new generation of workers is alone.
    pub fn reload_through(&self) {
        let old = self.workers();
        self.reload();
        self.until("new workers replaced the old", || {
            let now = self.workers();
            now.len() == 2 && now.keys().all(|pid| !old.contains_key(pid))
        });
        self.until("the node is ready", || self.ready().0 == 200);
    }

    /// Reloads, creates a plugin entity and reloads again, after which every worker has it: without the second reload
    /// each worker takes it up on a timer of its own.
    pub fn apply(&self, body: &str) -> Value {
        self.reload_through();
        let created = self.post("/plugins", body);
        assert_eq!(created.status, 201, "{created:?}");
        self.reload_through();
        created.json()
    }

    /// Reloads and waits for the refusal in the log; returns the log's new text.
    pub fn reload_refused(&self) -> String {
        let (old, from) = (self.workers(), self.log().len());
        self.reload();
        self.until("the refusal is logged", || {
            let log = self.log();
            log[from..].contains("init_by_lua error") && log.ends_with('\n')
        });
        assert_eq!(self.workers(), old, "a refused reload keeps the workers");
        self.log()[from..].to_owned()
    }

    pub fn master(&self) -> Option<i32> {
        fs::read_to_string(self.prefix().join("pids/nginx.pid")).ok()?.trim().parse().ok()
    }

    /// Children of the master with their titles.
    pub fn workers(&self) -> BTreeMap<i32, String> {
        let Some(master) = self.master() else { return BTreeMap::new() };
        children(master)
    }

    pub fn log(&self) -> String {
        let raw = fs::read_to_string(self.prefix().join("logs/error.log")).unwrap_or_default();
        self.placeholders(&raw)
    }

    /// A line of `.kong_env`.
    pub fn kong_env_line(&self, key: &str) -> Option<String> {
        let text = fs::read_to_string(self.prefix().join(".kong_env")).ok()?;
        let start = format!("{key} = ");
        text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.http("GET", 8001, path, None)
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.http("POST", 8001, path, Some(body))
    }

    pub fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.http(method, 8001, path, Some(body))
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.http("DELETE", 8001, path, None)
    }

    pub fn proxy(&self, path: &str) -> Answer {
        self.http("GET", 8000, path, None)
    }

    /// Value of the golden plugin's header on the proxy.
    pub fn golden(&self) -> Option<String> {
        self.proxy("/a").headers.remove("x-golden")
    }

    /// Status and message of `/status/ready`.
    pub fn ready(&self) -> (u16, String) {
        let answer = self.http("GET", 8007, "/status/ready", None);
        let message = serde_json::from_str::<Value>(&answer.body).unwrap_or_default();
        (answer.status, message["message"].as_str().unwrap_or_default().to_owned())
    }

    /// Whether the answering worker has loaded a plugin.
    pub fn enabled(&self, plugin: &str) -> bool {
        self.get("/plugins/enabled").json()["enabled_plugins"]
            .as_array()
            .unwrap()
            .iter()
            .any(|name| name == plugin)
    }

    /// One request on a connection of its own; status 0 when there is no answer.
    pub fn http(&self, method: &str, port: u16, path: &str, body: Option<&str>) -> Answer {
        let kind = if body.is_some_and(|body| body.starts_with(['{', '['])) {
            "application/json"
        } else {
            "application/x-www-form-urlencoded"
        };
        self.try_http(method, port, path, body, kind).unwrap_or(Answer {
            status: 0,
            headers: BTreeMap::new(),
            body: String::new(),
        })
    }

    fn try_http(
        &self,
        method: &str,
        port: u16,
        path: &str,
        body: Option<&str>,
        kind: &str,
    ) -> std::io::Result<Answer> {
        let address: SocketAddr = format!("{}:{port}", self.ip).parse().unwrap();
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.unwrap_or_default();
        // HTTP/1.0, so that the answer is neither chunked nor kept alive.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Ok(Answer { status, headers, body: body.to_owned() })
    }

    /// Polls until `done`, or fails naming what was waited for.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "waited in vain until {what}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(master) = self.master() else { return };
        let signal = |pid: i32, signal: rustix::process::Signal| {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // Gone already is what is wanted.
                let _ = rustix::process::kill_process(pid, signal);
            }
        };
        // Stopped first, so that it forks nothing while its children are killed.
        signal(master, rustix::process::Signal::STOP);
        for pid in children(master).into_keys().chain([master]) {
            signal(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Pids and titles of a process's children.
pub fn children(parent: i32) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap_or_default().1.split_whitespace().collect();
        if fields.get(1).and_then(|ppid| ppid.parse().ok()) == Some(parent) && fields.first() != Some(&"Z") {
            let title = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let title = String::from_utf8_lossy(&title).trim_end_matches('\0').to_owned();
            found.insert(pid, title);
        }
    }
    found
}

/// The hint at the end of every `Error:`.
pub fn error(message: &str) -> String {
    format!("Error: {message}\n\n  Run with --v (verbose) or --vv (debug) for more details\n")
}
