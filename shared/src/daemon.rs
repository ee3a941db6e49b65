//! What every daemon's command line and life have in common: one TOML file, a log on stderr, an end by signal.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;

/// One daemon.
#[derive(Clone, Copy, Debug)]
pub struct Daemon {
    /// Name of its executable.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Environment variable that may name its configuration.
    pub config_env: &'static str,
    /// What is logged unless `KCTL_LOG` says otherwise.
    pub log: &'static str,
    /// Threads of its runtime; 0: everything on one.
    pub threads: usize,
}

impl Daemon {
    /// Runs until `life` ends or a signal cancels its token; the exit code is 0 after a signal, 1 after an error, 64
    /// for wrong usage.
    pub fn main<F>(
        self,
        args: impl IntoIterator<Item = OsString>,
        life: impl FnOnce(PathBuf, CancellationToken) -> F,
    ) -> ExitCode
    where
        F: Future<Output = Result<(), Fault>>,
    {
        self.main_of(self.command(), args, |_, config, shutdown| life(config, shutdown))
    }

    /// As [`Self::main`], for a job of the daemon's with a command line of its own, made from [`Self::command`].
    pub fn main_of<F>(
        self,
        command: Command,
        args: impl IntoIterator<Item = OsString>,
        life: impl FnOnce(&ArgMatches, PathBuf, CancellationToken) -> F,
    ) -> ExitCode
    where
        F: Future<Output = Result<(), Fault>>,
    {
        let args = match command.try_get_matches_from(args) {
            Ok(args) => args,
            Err(e) => {
                let _closed = e.print();
                return ExitCode::from(if e.use_stderr() { 64 } else { 0 });
            }
        };
        self.log_to_stderr(args.get_flag("log-json"));
        let config = args.get_one::<PathBuf>("config").map(PathBuf::as_path).unwrap_or(Path::new(""));
        match self.run(|config, shutdown| life(&args, config, shutdown), config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("{}: {fault}\n  {}", self.name, fault.hint);
                ExitCode::FAILURE
            }
        }
    }

    /// Its command line: `--config` and `--log-json`.
    pub fn command(self) -> Command {
        let config = Arg::new("config").long("config").env(self.config_env).required(true);
        let json = Arg::new("log-json").long("log-json").action(ArgAction::SetTrue);
        Command::new(self.name)
            .about(self.about)
            .version(env!("CARGO_PKG_VERSION"))
            .arg(config.value_parser(value_parser!(PathBuf)).help("Its configuration, a TOML file"))
            .arg(json.help("Log lines as JSON"))
    }

    fn log_to_stderr(self, json: bool) {
        let filter = tracing_subscriber::EnvFilter::try_from_env("KCTL_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(self.log));
        let log =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
        if json { log.json().init() } else { log.init() }
    }

    fn run<F>(self, life: impl FnOnce(PathBuf, CancellationToken) -> F, config: &Path) -> Result<(), Fault>
    where
        F: Future<Output = Result<(), Fault>>,
    {
        let internal = |what: &str, e: std::io::Error| Fault::new("INTERNAL", format!("{what}: {e}"));
        let mut runtime = match self.threads {
            0 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        if self.threads > 0 {
            runtime.worker_threads(self.threads);
        }
        let runtime = runtime.enable_all().build().map_err(|e| internal("cannot start the runtime", e))?;
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
            life(config.to_owned(), shutdown).await
        })
    }
}
