//! Command line of the daemon, and how its parts are put together.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use kctl_shared::fault::Fault;
use kctl_shared::spec::NodeStatus;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::config::Config;
use crate::entities;
use crate::gateway::{Gateway, kong};
use crate::ledger::Ledger;
use crate::packages::Packages;
use crate::session::{Downloads, Identity, Session};

/// Specs on their way from the stream to the loop; only the newest matters.
const SPECS: usize = 16;

/// The agent beside one Kong.
#[derive(Debug, Parser)]
#[command(name = "kctl-node-agent", version)]
struct Args {
    /// TOML file with the node's id, the control plane's addresses and where Kong is.
    #[arg(long, env = "KCTL_AGENT_CONFIG")]
    config: PathBuf,
    /// Log lines as JSON.
    #[arg(long)]
    log_json: bool,
}

/// Runs the daemon; the exit code is 0 after a signal, 1 after an error, 64 for wrong usage.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => {
            let _closed = e.print();
            return ExitCode::from(if e.use_stderr() { 64 } else { 0 });
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("KCTL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,h2=warn,tower=warn,hyper=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    if args.log_json {
        log.json().init()
    } else {
        log.init()
    }
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("kctl-node-agent: {fault}\n  {}", fault.hint);
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<(), Fault> {
    let config = Config::load(&args.config)?;
    let internal = |what: &str, e: std::io::Error| Fault::new("INTERNAL", format!("{what}: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| internal("cannot start the runtime", e))?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut term = signal(SignalKind::terminate()).map_err(|e| internal("signal handler", e))?;
        let mut int = signal(SignalKind::interrupt()).map_err(|e| internal("signal handler", e))?;
        let token = shutdown.clone();
        tokio::spawn(async move {
            // Whichever comes first; the other is not needed any more.
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            token.cancel();
        });
        let gateway = Arc::new(kong::Kong::new(kong::KongConfig {
            bin: config.kong.bin.clone(),
            conf: config.kong.conf.clone(),
            prefix: config.kong.prefix.clone(),
            state_dir: config.state_dir.clone(),
            lua_dir: config.lua_dir.clone(),
            preflight: config.kong.preflight,
        }));
        run(config, gateway, shutdown).await
    })
}

/// Runs an agent on any gateway until `shutdown`.
///
/// # Errors
/// What kept it from starting: `AGENT_RUNNING`, `LEDGER_CORRUPT`, `STATE_DIR`, `LUA_DIR`.
pub async fn run(
    config: Config,
    gateway: Arc<dyn Gateway>,
    shutdown: CancellationToken,
) -> Result<(), Fault> {
    let ledger = Ledger::open(&config.state_dir, &config.node)?;
    let packages = Packages::open(&config.lua_dir)?;
    let identity = Identity {
        node: config.node.to_string(),
        group: config.group.to_string(),
        nonce: ledger.record().nonce.clone(),
        boot: ledger.record().boot,
    };
    // Seen once before the first word to the control plane, so that its first picture of the node is a true one.
    let first = NodeStatus { kong: gateway.observe().await.facts, ..NodeStatus::default() };
    let (specs, incoming) = mpsc::channel(SPECS);
    let (status, reported) = watch::channel(first);
    let (lease, leased) = watch::channel(None);
    let (accepted, current_spec) = watch::channel(ledger.record().spec.clone());
    let (report, entities) = watch::channel(None);
    let (current, source) = watch::channel(config.control_plane[0].clone());

    let session = Session {
        identity,
        members: config.control_plane.clone(),
        insecure: config.insecure,
        specs,
        accepted: current_spec.clone(),
        status: reported,
        lease,
        current,
    };
    let session = tokio::spawn(session.run(shutdown.clone()));
    let worker = tokio::spawn(entities::run(gateway.clone(), current_spec, leased, report, shutdown.clone()));
    let artifacts = Arc::new(Downloads { current: source, insecure: config.insecure });
    let agent = Agent { gateway, artifacts, packages, ledger, specs: incoming, status, entities, accepted };
    tokio::select! {
        // An action under way may be dropped: every durable step can be repeated.
        () = shutdown.cancelled() => {}
        () = agent.run(shutdown.clone()) => {}
    }
    shutdown.cancel();
    drop(session.await);
    drop(worker.await);
    Ok(())
}
