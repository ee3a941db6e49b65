//! Command line of the daemon.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kctl_shared::fault::Fault;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::server;

/// One member of kctl's control plane.
#[derive(Debug, Parser)]
#[command(name = "kctl-control-plane", version)]
struct Args {
    /// TOML file with the member's id, addresses and data directory.
    #[arg(long, env = "KCTL_MEMBER_CONFIG")]
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
    let filter = tracing_subscriber::EnvFilter::try_from_env("KCTL_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,openraft=warn,sled=warn,h2=warn,tower=warn")
    });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    if args.log_json {
        log.json().init()
    } else {
        log.init()
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("kctl-control-plane: {fault}\n  {}", fault.hint);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Fault> {
    let config = Config::load(&args.config)?;
    let internal = |what: &str, e: std::io::Error| Fault::new("INTERNAL", format!("{what}: {e}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| internal("cannot start the runtime", e))?;
    let shutdown = CancellationToken::new();
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(|e| internal("signal handler", e))?;
        let mut int = signal(SignalKind::interrupt()).map_err(|e| internal("signal handler", e))?;
        let token = shutdown.clone();
        tokio::spawn(async move {
            // Whichever comes first; the other is not needed any more.
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            token.cancel();
        });
        server::run(config, shutdown).await
    })
}
