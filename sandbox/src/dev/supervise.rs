//! Keeps the processes of a development cluster running, as systemd would.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kctl_shared::fault::Fault;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::plan::{Member, Node, Plan};

/// A process that died is started again after this.
const RESTART: Duration = Duration::from_secs(1);
/// How often Kong's master, which is nobody's child, is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// The pids that `dev.json` shows.
#[derive(Debug)]
struct Board {
    plan: Plan,
    pids: Mutex<Pids>,
}

#[derive(Debug, Default)]
struct Pids {
    members: Vec<u32>,
    agents: Vec<u32>,
    kongs: Vec<u32>,
}

impl Board {
    fn set(&self, change: impl FnOnce(&mut Pids)) {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pids);
        if let Err(error) = replace(&self.plan.dir.join("dev.json"), &self.json(&pids)) {
            tracing::warn!(%error, "dev.json is not up to date");
        }
    }

    fn json(&self, pids: &Pids) -> Value {
        let members = self.plan.members.iter().zip(&pids.members).map(|(m, pid)| {
            json!({"id": m.id, "grpc": m.grpc, "http": m.http, "raft": m.raft, "pid": pid, "data_dir": m.data_dir})
        });
        let nodes = self.plan.nodes.iter().zip(pids.kongs.iter().zip(&pids.agents)).map(|(n, (kong, agent))| {
            json!({
                "id": n.id, "kong": n.kong, "conf": n.conf, "prefix": n.prefix, "admin": n.admin, "proxy": n.proxy,
                "status": n.status, "kong_pid": kong, "agent_pid": agent, "agent_dir": n.agent_dir, "lua_dir": n.lua_dir,
            })
        });
        json!({"members": members.collect::<Vec<_>>(), "nodes": nodes.collect::<Vec<_>>()})
    }
}

/// Whole old or whole new, at every instant.
fn replace(path: &Path, value: &Value) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    fs::write(&temporary, serde_json::to_string_pretty(value).unwrap_or_default())?;
    fs::rename(temporary, path)
}

/// Starts everything and keeps it running until `shutdown`, then stops everything.
///
/// # Errors
/// `DEV_START` when something cannot be started at all.
pub async fn run(plan: Plan, executable: PathBuf, shutdown: CancellationToken) -> Result<(), Fault> {
    let pids = Pids {
        members: vec![0; plan.members.len()],
        agents: vec![0; plan.nodes.len()],
        kongs: vec![0; plan.nodes.len()],
    };
    let board = Arc::new(Board { pids: Mutex::new(pids), plan });
    bootstrap(&board.plan).await?;
    let mut tasks = JoinSet::new();
    for index in 0..board.plan.members.len() {
        tasks.spawn(member(board.clone(), index, executable.clone(), shutdown.clone()));
    }
    for index in 0..board.plan.nodes.len() {
        tasks.spawn(kong(board.clone(), index, shutdown.clone()));
        tasks.spawn(agent(board.clone(), index, executable.clone(), shutdown.clone()));
    }
    while tasks.join_next().await.is_some() {}
    if let Some(database) = &board.plan.database {
        database.drop().await?;
    }
    Ok(())
}

/// A real Kong's fresh database gets its tables once.
async fn bootstrap(plan: &Plan) -> Result<(), Fault> {
    let (Some(_), Some(node)) = (&plan.database, plan.nodes.first()) else { return Ok(()) };
    kong_cli(node, &["migrations", "bootstrap"], &plan.dir).await
}

async fn kong_cli(node: &Node, verb: &[&str], dir: &Path) -> Result<(), Fault> {
    let mut command = Command::new(&node.kong);
    command.args(verb);
    // stop knows the prefix only.
    if verb != ["stop"] {
        command.arg("-c").arg(&node.conf);
    }
    command.arg("-p").arg(&node.prefix).env_clear().env("PATH", path()).env("HOME", dir).current_dir("/");
    let failed = |e: &dyn std::fmt::Display| {
        Fault::new("DEV_START", format!("kong {} on {}: {e}", verb.join(" "), node.id))
    };
    let done = command.stdin(Stdio::null()).output().await.map_err(|e| failed(&e))?;
    if done.status.success() {
        return Ok(());
    }
    Err(failed(&String::from_utf8_lossy(&done.stderr).trim())
        .hint(format!("see {}", node.prefix.join("logs/error.log").display())))
}

fn path() -> String {
    std::env::var("PATH")
        .unwrap_or_else(|_| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())
}

fn log_file(dir: &Path, name: &str) -> io::Result<File> {
    File::options().create(true).append(true).open(dir.join("log").join(format!("{name}.log")))
}

fn daemon(executable: &Path, verb: &str, config: &Path, log: File) -> io::Result<Child> {
    let mut command = Command::new(executable);
    command.arg(verb).arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // Its own group: Ctrl-C is for the supervisor, which then ends everything in order.
    command.process_group(0).kill_on_drop(true).current_dir("/").spawn()
}

async fn member(board: Arc<Board>, index: usize, executable: PathBuf, shutdown: CancellationToken) {
    let Member { id, config, .. } = board.plan.members[index].clone();
    let set = |pid| board.set(|p| p.members[index] = pid);
    keep(&board.plan, &format!("member-{id}"), "control-plane", &executable, &config, set, shutdown).await;
}

async fn agent(board: Arc<Board>, index: usize, executable: PathBuf, shutdown: CancellationToken) {
    let Node { id, agent_config, .. } = board.plan.nodes[index].clone();
    let set = |pid| board.set(|p| p.agents[index] = pid);
    keep(&board.plan, &format!("agent-{id}"), "node-agent", &executable, &agent_config, set, shutdown).await;
}

async fn keep(
    plan: &Plan,
    name: &str,
    verb: &str,
    executable: &Path,
    config: &Path,
    set: impl Fn(u32),
    shutdown: CancellationToken,
) {
    loop {
        let started = log_file(&plan.dir, name).and_then(|log| daemon(executable, verb, config, log));
        match started {
            Ok(mut child) => {
                set(child.id().unwrap_or(0));
                tokio::select! {
                    () = shutdown.cancelled() => return end(child).await,
                    ended = child.wait() => tracing::info!(name, ?ended, "ended"),
                }
                set(0);
            }
            Err(error) => tracing::warn!(name, %error, "cannot be started"),
        }
        if !plan.restart {
            return shutdown.cancelled().await;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RESTART) => {}
        }
    }
}

async fn end(mut child: Child) {
    if let Some(pid) = child.id().and_then(|p| rustix::process::Pid::from_raw(p as i32)) {
        // A process that is frozen must be able to hear that it is to end.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _gone = child.kill().await;
    }
}

/// Kong's master by its pid file and its title.
fn master(prefix: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(prefix.join("pids/nginx.pid")).ok()?.trim().parse().ok()?;
    let title = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    String::from_utf8_lossy(&title).starts_with("nginx: master").then_some(pid)
}

async fn kong(board: Arc<Board>, index: usize, shutdown: CancellationToken) {
    let node = board.plan.nodes[index].clone();
    let mut known = 0;
    let mut started = false;
    loop {
        let now = master(&node.prefix).unwrap_or(0);
        if now != known {
            board.set(|p| p.kongs[index] = now);
            known = now;
        }
        if now == 0 && (!started || board.plan.restart) {
            if started {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(RESTART) => {}
                }
            }
            // Somebody else may have started it in the meantime.
            if master(&node.prefix).is_none()
                && let Err(fault) = kong_cli(&node, &["start"], &board.plan.dir).await
            {
                tracing::warn!(%fault, "Kong does not start");
            }
            started = true;
            continue;
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    stop(&node, &board.plan.dir).await;
}

async fn stop(node: &Node, dir: &Path) {
    let Some(pid) = master(&node.prefix).and_then(|p| rustix::process::Pid::from_raw(p as i32)) else {
        return;
    };
    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
    let quit = tokio::time::timeout(GRACE, kong_cli(node, &["stop"], dir)).await;
    if !matches!(quit, Ok(Ok(()))) {
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let gone = async {
        while master(&node.prefix).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(GRACE, gone).await.is_err() {
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
