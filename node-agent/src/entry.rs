//! Command line of the daemon, and how its parts are put together.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use kctl_shared::daemon::Daemon;
use kctl_shared::fault::Fault;
use kctl_shared::network::{Network, Tcp, dialer};
use kctl_shared::spec::NodeStatus;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Balancer};
use crate::answers::meter::Meter;
use crate::bodies::Leader;
use crate::claim::Claim;
use crate::config::Config;
use crate::entities;
use crate::gateway::{Gateway, kong};
use crate::ledger::Ledger;
use crate::packages::Packages;
use crate::references::References;
use crate::session::members::Members;
use crate::session::{Downloads, Home, Identity, Session};
use crate::sync;

/// Specs on their way from the stream to the loop; only the newest matters.
const SPECS: usize = 16;

const DAEMON: Daemon = Daemon {
    name: "kctl-node-agent",
    about: "The agent beside one Kong; `sync --once` makes its node ready before Kong starts, and ends",
    config_env: "KCTL_AGENT_CONFIG",
    log: "info,h2=warn,tower=warn,hyper=warn",
    threads: 0,
};

/// Runs the daemon; exit codes as [`Daemon::main`].
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|verb| verb == "sync") {
        args.remove(1);
        return sync::main(DAEMON, args);
    }
    DAEMON.main(args, |config, shutdown| async move {
        let config = Config::load(&config)?;
        let kong = config.kong()?;
        let old_generations = config.kong.max_old_generations;
        let limits = kong::Limits { old_generations, ..kong::Limits::default() };
        tracing::info!(bin = %kong.bin.display(), conf = %kong.conf.display(), prefix = %kong.prefix.display(), "the Kong of this node");
        // One that was never started has no prefix, and nobody works on it.
        let _ours = Claim::on(&[&kong.prefix])?;
        let gateway = Arc::new(kong::Kong::with_limits(kong, limits));
        run(config, Ports { gateway, network: Arc::new(Tcp) }, shutdown).await
    })
}

/// What an agent is given of the world; a simulation gives it another one.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "gateways have none")]
pub struct Ports {
    pub gateway: Arc<dyn Gateway>,
    pub network: Arc<dyn Network>,
}

/// Runs an agent until `shutdown`.
///
/// # Errors
/// What kept it from starting: `AGENT_RUNNING`, `LEDGER_CORRUPT`, `STATE_DIR`, `LUA_DIR`.
pub async fn run(config: Config, ports: Ports, shutdown: CancellationToken) -> Result<(), Fault> {
    let Ports { gateway, network } = ports;
    let dialer = dialer(network, config.insecure);
    let ledger = Ledger::open(&config.state_dir, &config.node)?;
    let packages = Packages::open(&config.lua_dir, config.kong.luarocks.clone())?;
    let _ours = Claim::on(&[&config.lua_dir])?;
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
    let (current, source) = watch::channel(Home::configured(&config.control_plane[0]));

    let session = Session {
        identity,
        members: Members::open(config.control_plane.clone(), &config.state_dir, dialer.clone()),
        dialer: dialer.clone(),
        specs,
        accepted: current_spec.clone(),
        status: reported,
        lease,
        current,
        packages: packages.clone(),
        references: Some(References::new(gateway.clone())),
    };
    let session = tokio::spawn(session.run(shutdown.clone()));
    let bodies = Leader { node: config.node.clone(), current: source.clone(), dialer: dialer.clone() };
    let bodies = Arc::new(bodies);
    let worker = entities::run(gateway.clone(), bodies, current_spec, leased, report, shutdown.clone());
    let worker = tokio::spawn(worker);
    let artifacts = Arc::new(Downloads { current: source, dialer });
    let agent = Agent {
        gateway,
        artifacts,
        packages,
        ledger,
        specs: incoming,
        status,
        entities,
        accepted,
        policy: config.policy(),
        balancer: Balancer::new(config.hooks.clone()),
        meter: Meter::default(),
    };
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
