//! `kctl dev`: a cluster on this machine, used through kctl itself as anybody would.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kctl_sandbox::dev::{Plan, Request, health, postgres::Database, supervise};
use kctl_shared::fault::Fault;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::cli::{DevArgs, DevCommand};
use crate::fail::{Fail, Outcome};

const SAMPLE: &str = "hello-kctl";
const SAMPLE_FILES: [(&str, &str); 2] = [
    ("handler.lua", include_str!("../../../sandbox/sample/kong/plugins/hello-kctl/handler.lua")),
    ("schema.lua", include_str!("../../../sandbox/sample/kong/plugins/hello-kctl/schema.lua")),
];
/// Until everything is up.
const PATIENCE: Duration = Duration::from_secs(90);
/// Until a new plugin configuration takes effect: Kong's own propagation bound and some more.
const EFFECT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

pub async fn run(args: DevArgs) -> Outcome {
    match &args.command {
        Some(DevCommand::Down { dir }) => down(dir).await,
        Some(DevCommand::Supervise { dir }) => supervise_here(dir).await,
        None if args.detach => detach(&args).await,
        None => foreground(&args).await,
    }
}

fn executable() -> Outcome<PathBuf> {
    Ok(std::env::current_exe()?)
}

async fn plan(args: &DevArgs, dir: PathBuf) -> Outcome<Plan> {
    let kong = match (&args.kong, &args.pg) {
        (Some(bin), Some(server)) => Some((std::fs::canonicalize(bin)?, Database::create(server).await?)),
        _ => None,
    };
    std::fs::create_dir_all(&dir)?;
    let dir = std::fs::canonicalize(dir)?;
    let request = Request {
        dir,
        members: args.members,
        nodes: args.nodes,
        port: args.port,
        restart: !args.no_restart,
        kong_version: args.kong_version.clone(),
        kong,
    };
    Ok(Plan::make(&request, &executable()?)?)
}

/// Runs the supervisor until it is told to end; its pid stands in the directory.
async fn supervise_here(dir: &Path) -> Outcome {
    let plan = Plan::load(dir)?;
    std::fs::write(dir.join("dev.pid"), std::process::id().to_string())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        term.recv().await;
        token.cancel();
    });
    let ended = supervise::run(plan, executable()?, shutdown).await;
    std::fs::remove_file(dir.join("dev.pid"))?;
    Ok(ended?)
}

async fn detach(args: &DevArgs) -> Outcome {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => tempfile::Builder::new().prefix("kctl-dev-").tempdir()?.keep(),
    };
    let plan = plan(args, dir).await?;
    let log = std::fs::File::options().create(true).append(true).open(plan.dir.join("log/supervisor.log"))?;
    let mut command = Command::new(executable()?);
    command.args(["dev", "supervise", "--dir"]).arg(&plan.dir).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
    if let Err(fault) = health::wait(&plan, PATIENCE).await {
        drop(down(&plan.dir).await);
        return Err(fault.into());
    }
    eprintln!("✔ up: {} members, {} nodes", plan.members.len(), plan.nodes.len());
    hints(&plan);
    eprintln!("  stop it:    kctl dev down --dir {}", plan.dir.display());
    println!("{}", plan.dir.display());
    Ok(())
}

async fn down(dir: &Path) -> Outcome {
    Plan::load(dir)?;
    let pid = std::fs::read_to_string(dir.join("dev.pid")).ok().and_then(|t| t.trim().parse().ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
        && rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
    {
        // It takes the file away when everything has ended.
        let ended = tokio::time::timeout(Duration::from_secs(60), async {
            while dir.join("dev.pid").exists() && rustix::process::test_kill_process(pid).is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        });
        if ended.await.is_err() {
            return Err(Fault::new("DEV_STUCK", "the supervisor does not end")
                .hint(format!("see {}", dir.join("log").display()))
                .into());
        }
    }
    std::fs::remove_dir_all(dir)?;
    eprintln!("✔ down");
    Ok(())
}

async fn foreground(args: &DevArgs) -> Outcome {
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("kctl-dev-").tempdir()?),
    };
    let dir =
        args.dir.clone().or_else(|| temporary.as_ref().map(|t| t.path().to_owned())).unwrap_or_default();
    let plan = plan(args, dir).await?;
    eprintln!(
        "starting {} members, {} Kong nodes and their agents in {}",
        plan.members.len(),
        plan.nodes.len(),
        plan.dir.display()
    );
    let shutdown = CancellationToken::new();
    let supervisor = tokio::spawn(supervise::run(plan.clone(), executable()?, shutdown.clone()));
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let once = args.once;
    let outcome = tokio::select! {
        outcome = use_it(&plan, once) => outcome,
        _ = term.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => if once { Err(Fail::Interrupted) } else { Ok(()) },
    };
    eprintln!("stopping");
    shutdown.cancel();
    let ended = supervisor.await.map_err(|e| Fault::new("INTERNAL", e.to_string()))?;
    if args.dir.is_some() {
        std::fs::remove_dir_all(&plan.dir)?;
    }
    outcome?;
    Ok(ended?)
}

fn hints(plan: &Plan) {
    let kctl = format!("KCTL_CONFIG={}/kctl.toml kctl", plan.dir.display());
    eprintln!("  dashboard:  {}", plan.members.first().map(|m| m.http.as_str()).unwrap_or_default());
    eprintln!("  status:     {kctl} status");
    eprintln!("  install:    {kctl} plugin install ./my-plugin --all-nodes");
    eprintln!("  remove:     {kctl} plugin remove my-plugin --all-nodes");
}

async fn use_it(plan: &Plan, once: bool) -> Outcome {
    health::wait(plan, PATIENCE).await?;
    eprintln!("✔ up: {} members, {} nodes", plan.members.len(), plan.nodes.len());
    let sample = plan.dir.join("sample");
    let lua = sample.join("kong/plugins").join(SAMPLE);
    std::fs::create_dir_all(&lua)?;
    for (name, text) in SAMPLE_FILES {
        std::fs::write(lua.join(name), text)?;
    }
    let path = sample.display().to_string();
    kctl(plan, &["plugin", "install", &path, "--all-nodes"]).await?;
    let http = health::http()?;
    for node in &plan.nodes {
        match health::loaded(&http, &node.admin, SAMPLE).await? {
            Some(version) => eprintln!("✔ {} says it runs {SAMPLE} {version}", node.id),
            None => return Err(unproven(format!("{} does not run {SAMPLE}", node.id))),
        }
    }
    kctl(plan, &["status"]).await?;
    if !once {
        eprintln!("\nready; Ctrl-C stops it.");
        hints(plan);
        std::future::pending::<()>().await;
    }
    configure(plan, &http).await?;
    kctl(plan, &["plugin", "remove", SAMPLE, "--all-nodes", "--yes"]).await?;
    for node in &plan.nodes {
        if health::loaded(&http, &node.admin, SAMPLE).await?.is_some() {
            return Err(unproven(format!("{} still runs {SAMPLE}", node.id)));
        }
    }
    eprintln!("✔ {SAMPLE} is gone from {} nodes", plan.nodes.len());
    Ok(())
}

fn unproven(what: String) -> Fail {
    Fault::new("NOT_PROVEN", what).hint("see the log directory").into()
}

/// Uses the sample on a route and waits until every node's proxy answers with its header.
async fn configure(plan: &Plan, http: &reqwest::Client) -> Outcome {
    let Some(first) = plan.nodes.first() else { return Ok(()) };
    let post = async |path: &str, body: Value| -> Outcome {
        let url = format!("{}{path}", first.admin);
        let answer = http.post(&url).json(&body).send().await.map_err(|e| unproven(format!("{url}: {e}")))?;
        if answer.status().as_u16() == 201 {
            return Ok(());
        }
        Err(unproven(format!("{url}: {}", answer.text().await.unwrap_or_default())))
    };
    let upstream = format!("{}/status", first.status);
    post("/services", json!({"name": "sample", "url": upstream})).await?;
    post("/services/sample/routes", json!({"name": "sample", "paths": ["/sample"]})).await?;
    post("/routes/sample/plugins", json!({"name": SAMPLE})).await?;
    for node in &plan.nodes {
        let url = format!("{}/sample", node.proxy);
        let effect = tokio::time::timeout(EFFECT, async {
            loop {
                let answer = http.get(&url).send().await;
                if answer.is_ok_and(|a| a.headers().contains_key("x-hello")) {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        if effect.await.is_err() {
            return Err(unproven(format!("{} does not show the plugin's header on {url}", node.id)));
        }
        eprintln!("✔ {} answers with the plugin's header", node.id);
    }
    Ok(())
}

async fn kctl(plan: &Plan, args: &[&str]) -> Outcome {
    eprintln!("\n$ kctl {}", args.join(" "));
    let mut command = Command::new(executable()?);
    command.args(args).env("KCTL_CONFIG", plan.dir.join("kctl.toml")).stdin(Stdio::null());
    match command.kill_on_drop(true).status().await?.code() {
        Some(0) => Ok(()),
        _ => Err(Fail::Operation),
    }
}
