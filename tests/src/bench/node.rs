//! One Kong without a database, and how its workers are doing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use procfs::process::Process;
use serde_json::Value;
use tempfile::TempDir;

use super::commands::Recorded;
use super::plugin;

const WORKERS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Node {
    pub temp: TempDir,
    pub kong: Recorded,
    admin: String,
    status: String,
    client: reqwest::Client,
}

/// Children of a master.
#[derive(Debug, Default)]
pub struct Workers {
    pub serving: BTreeSet<i32>,
    pub draining: usize,
    starting: usize,
}

impl Node {
    /// A started node on the Kong at `bin`, with its commands written down.
    pub async fn start(bin: &Path) -> Self {
        let temp = super::directory("kctl-bench-");
        let kong = Recorded::new(bin, temp.path().join("bin"), temp.path().join("p"));
        let held = [0; 3].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [proxy, admin, status] = held.map(|listener| listener.local_addr().unwrap());
        let text = format!(
            "prefix = {}\ndatabase = off\nproxy_listen = {proxy}\nadmin_listen = {admin}\nstatus_listen = {status}\nadmin_gui_listen = off\n\
             anonymous_reports = off\nnginx_worker_processes = {WORKERS}\nplugins = bundled\n",
            temp.path().join("p").display()
        );
        fs::write(temp.path().join("kong.conf"), text).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let (admin, status) = (format!("http://{admin}/"), format!("http://{status}/status/ready"));
        let node = Self { temp, kong, admin, status, client };
        node.run(&["start", "-c", &node.conf().to_string_lossy()], &[]);
        node.turnover(&BTreeSet::new(), None, node.ready().await).await;
        node
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

    /// Runs one of Kong's commands, in the environment that the agent gives it.
    pub fn run(&self, args: &[&str], environment: &[(&str, &str)]) {
        let mut command = Command::new(self.kong.bin());
        command.args(args).current_dir("/").env_clear().envs(environment.iter().copied());
        for key in ["PATH", "HOME"] {
            command.env(key, std::env::var_os(key).unwrap_or_default());
        }
        let ended = command.output().unwrap();
        assert!(ended.status.success(), "kong {args:?}: {ended:?}");
    }

    pub fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.prefix().join("pids/nginx.pid")).ok()?.trim().parse().ok()
    }

    pub fn workers(&self) -> Workers {
        let mut workers = Workers::default();
        let Some(master) = self.pid().and_then(|pid| Process::new(pid).ok()) else { return workers };
        for child in children(&master) {
            let title = child.cmdline().unwrap_or_default().join(" ");
            if title.starts_with("nginx: worker process is shutting down") {
                workers.draining += 1;
            } else if title.starts_with("nginx: worker process") {
                workers.serving.insert(child.pid());
            } else if title.starts_with("nginx: master") {
                workers.starting += 1;
            }
        }
        workers
    }

    /// Waits until other workers than `old` serve, all of them, the Admin API has `version` of the plugin, and Kong is as
    /// ready as it was.
    pub async fn turnover(&self, old: &BTreeSet<i32>, version: Option<&str>, ready: Option<u16>) {
        let start = Instant::now();
        loop {
            let workers = self.workers();
            if workers.serving.is_disjoint(old)
                && workers.serving.len() == WORKERS
                && workers.starting == 0
                && self.version().await == Some(version.map(str::to_owned))
                && (ready.is_none() || self.ready().await == ready)
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{workers:?}: no turnover, see {}", self.prefix().display());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until all workers of former configurations are gone.
    pub async fn drained(&self) {
        let start = Instant::now();
        while self.workers().draining > 0 {
            assert!(start.elapsed() < PATIENCE, "old workers stay, see {}", self.prefix().display());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Version of the plugin, in the Admin API's words; the outer `None`: no answer.
    async fn version(&self) -> Option<Option<String>> {
        let root: Value = self.client.get(&self.admin).send().await.ok()?.json().await.ok()?;
        let plugin = root["plugins"]["available_on_server"].get(plugin::NAME);
        Some(plugin.and_then(|p| p["version"].as_str()).map(str::to_owned))
    }

    /// What Kong says when it is asked whether it is ready.
    pub async fn ready(&self) -> Option<u16> {
        Some(self.client.get(&self.status).send().await.ok()?.status().as_u16())
    }
}

fn children(master: &Process) -> Vec<Process> {
    let listed = master.task_main_thread().and_then(|task| task.children());
    if let Ok(pids) = listed {
        return pids.into_iter().filter_map(|pid| Process::new(i32::try_from(pid).ok()?).ok()).collect();
    }
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    all.filter(|p| p.stat().is_ok_and(|stat| stat.ppid == master.pid())).collect()
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(pid) = self.pid() else { return };
        let _ended = Command::new("kill").arg(pid.to_string()).status();
        let start = Instant::now();
        while Path::new("/proc").join(pid.to_string()).exists() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
