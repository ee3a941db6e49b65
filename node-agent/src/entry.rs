//! Command line of the daemon, and how its parts are put together.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use kctl_shared::daemon::Daemon;
use kctl_shared::fault::Fault;
use kctl_shared::spec::NodeStatus;
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

const DAEMON: Daemon = Daemon {
    name: "kctl-node-agent",
    about: "The agent beside one Kong",
    config_env: "KCTL_AGENT_CONFIG",
    log: "info,h2=warn,tower=warn,hyper=warn",
    threads: 0,
};

/// Runs the daemon; exit codes as [`Daemon::main`].
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    DAEMON.main(args, |config, shutdown| async move {
        let config = Config::load(&config)?;
        let gateway = Arc::new(kong::Kong::new(kong::KongConfig {
            bin: config.kong.bin.clone(),
            conf: config.kong.conf.clone(),
            prefix: config.kong.prefix.clone(),
            state_dir: config.state_dir.clone(),
            lua_dir: config.lua_dir.clone(),
            preflight: config.kong.preflight,
            apply: config.kong.apply,
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
