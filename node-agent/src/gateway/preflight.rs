//! Loads a list of plugins in a scratch prefix, with the node's own Kong and settings, touching nothing that runs.
//!
//! `kong config parse` loads every handler and schema in about a second, but errs both ways: it takes what the real init
//! refuses (timers, sockets) and refuses what init takes (`kong.db`, `ngx.sleep`), and for an absent plugin its words are
//! of no use. Where it refuses, a Kong is started for a moment, and what that says counts.

use std::time::Duration;

use kctl_shared::spec::Failure;

use super::admin_api::AdminApi;
use super::cli::Cli;
use super::dialect::{Dialect, Trials};
use super::effective::Environment;
use super::error_log::{ErrorLog, Finding};
use super::process::Tree;
use super::scratch::{Scratch, free_ports};
use super::words;
use crate::config::Preflight;

const POLL: Duration = Duration::from_millis(10);
/// A port that was free may be taken a moment later.
const BOOT_TRIES: usize = 3;

/// What to load, and how.
#[derive(Debug)]
pub struct Trial<'a> {
    pub cli: &'a Cli,
    pub prefix: &'a std::path::Path,
    pub environment: &'a Environment,
    pub how: Preflight,
    pub limit: Duration,
    pub dialect: Dialect,
}

impl Trial<'_> {
    /// Loads the list of `edited`; where that fails, tells whether the list of `present` fails as well.
    ///
    /// # Errors
    /// `NODE_ALREADY_BROKEN`, and those of [`Self::load`].
    pub async fn judge(&self, edited: &[u8], present: &[u8]) -> Result<(), Failure> {
        let Err(refused) = self.load(edited).await else { return Ok(()) };
        if edited != present
            && let Err(before) = self.load(present).await
        {
            let message = format!("the node's present plugins do not load either: {}", before.message);
            return Err(Failure::new("NODE_ALREADY_BROKEN", message));
        }
        Err(refused)
    }

    /// Loads the list of `conf`, the text of a kong.conf.
    ///
    /// # Errors
    /// Kong's words under a code that says who is to blame.
    pub async fn load(&self, conf: &[u8]) -> Result<(), Failure> {
        if self.dialect.trials == Trials::BootOnDatabase {
            return self.boot(conf).await;
        }
        let parsed = self.parse(conf).await?;
        if parsed.is_ok() && self.how == Preflight::Parse {
            return Ok(());
        }
        self.boot(conf).await
    }

    /// The outer error: it could not be tried.
    async fn parse(&self, conf: &[u8]) -> Result<Result<(), String>, Failure> {
        let scratch = Scratch::new(self.prefix, self.cli.user)?;
        let conf = scratch.write("kong.conf", conf)?;
        let empty = format!("_format_version: \"{}\"\n", self.dialect.format_version);
        let empty = scratch.write("empty.yml", empty.as_bytes())?;
        let prefix = scratch.prefix();
        let mut environment = self.environment.clone();
        environment.extend(isolated());
        let args = [
            "config",
            "parse",
            &*empty.to_string_lossy(),
            "-c",
            &*conf.to_string_lossy(),
            "-p",
            &*prefix.to_string_lossy(),
        ];
        let ended = self.cli.run(&args, &environment, self.limit).await?;
        // A plugin that calls `os.exit(0)` ends the command before it can say so.
        let loaded = ended.succeeded() && ended.stdout.contains("parse successful");
        Ok(if loaded { Ok(()) } else { Err(ended.words()) })
    }

    async fn boot(&self, conf: &[u8]) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let scratch = Scratch::new(self.prefix, self.cli.user)?;
            let verdict = self.boot_in(&scratch, conf).await;
            scratch.stop().await;
            match verdict {
                Err(failure) if failure.message.contains("Address already in use") && tries < BOOT_TRIES => {}
                verdict => return verdict,
            }
        }
    }

    async fn boot_in(&self, scratch: &Scratch, conf: &[u8]) -> Result<(), Failure> {
        let conf = scratch.write("kong.conf", conf)?;
        let prefix = scratch.prefix();
        let [admin, status, proxy] = free_ports()?;
        let mut environment = self.environment.clone();
        if self.dialect.trials == Trials::BootOnDatabase {
            environment.extend(beside(proxy));
        } else {
            environment.extend(isolated());
        }
        environment.extend(alone(admin, status, &self.dialect));
        let args = ["start", "-c", &*conf.to_string_lossy(), "-p", &*prefix.to_string_lossy()];
        let ended = self.cli.run(&args, &environment, self.limit).await?;
        if !ended.succeeded() {
            let words = ended.words();
            return Err(Failure::new(words::load_failure_code(&words, "PREFLIGHT_FAILED"), words));
        }
        let api = AdminApi::new(([127, 0, 0, 1], admin).into(), self.limit)?;
        let asked = self.ask(&api, &prefix).await;
        let mut log = ErrorLog::from_start(&[prefix.join("logs/error.log")]);
        let findings = log.poll();
        if let Some(failure) = crippled(&findings) {
            return Err(failure);
        }
        asked.map_err(|failure| match findings.iter().find_map(runtime) {
            Some(words) => Failure::new("ADMIN_API_BROKEN", words),
            None => failure,
        })
    }

    /// Waits for the Admin API's first answer.
    async fn ask(&self, api: &AdminApi, prefix: &std::path::Path) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + self.limit;
        loop {
            match api.root().await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.code == "ADMIN_API_REFUSED" => return Ok(()),
                Err(failure) if failure.code != "ADMIN_API_UNREACHABLE" => return Err(failure),
                Err(_) if Tree::of(prefix).is_none() => {
                    let message = "Kong ended while it loaded this list, without a word, as after an os.exit in a plugin";
                    return Err(Failure::new("PREFLIGHT_FAILED", message));
                }
                Err(failure) if tokio::time::Instant::now() > deadline => return Err(failure),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

/// The first word of a worker that came up crippled, or of a master that could not.
pub fn crippled(findings: &[Finding]) -> Option<Failure> {
    findings.iter().find_map(|finding| match finding {
        Finding::InitFailed(words) => {
            Some(Failure::new(words::load_failure_code(words, "RELOAD_NOT_TAKEN"), words))
        }
        Finding::Emergency(words) => Some(Failure::new("RELOAD_NOT_TAKEN", words)),
        Finding::WorkerInit(words) | Finding::Unsafe(words) => {
            let code = if words.contains("is in use but not enabled") {
                "IN_USE_NOT_ENABLED"
            } else {
                "INIT_WORKER_FAILED"
            };
            Some(Failure::new(code, words))
        }
        Finding::Runtime(_) => None,
    })
}

/// What an Admin API that answers 500 has to say; its later requests only repeat that loading failed before.
pub fn runtime(finding: &Finding) -> Option<String> {
    match finding {
        Finding::Runtime(words) if !words.contains("loop or previous error") => Some(words.clone()),
        _ => None,
    }
}

/// Settings that keep a scratch Kong away from the database and files of the real one.
fn isolated() -> Environment {
    settings(&[
        ("DATABASE", "off"),
        ("ROLE", "traditional"),
        ("DECLARATIVE_CONFIG", ""),
        ("DECLARATIVE_CONFIG_STRING", ""),
        ("LMDB_ENVIRONMENT_PATH", "dbless.lmdb"),
        ("ANONYMOUS_REPORTS", "off"),
    ])
}

/// Settings that keep a started one away from the ports and logs of the real one, and small.
fn alone(admin: u16, status: u16, dialect: &Dialect) -> Environment {
    let mut environment = settings(&[
        ("STREAM_LISTEN", "off"),
        ("ADMIN_GUI_LISTEN", "off"),
        ("NGINX_WORKER_PROCESSES", "1"),
        ("NGINX_MAIN_WORKER_PROCESSES", "1"),
        ("NGINX_DAEMON", "on"),
        ("NGINX_MAIN_DAEMON", "on"),
        ("LOG_LEVEL", "notice"),
        ("PROXY_ACCESS_LOG", "off"),
        ("ADMIN_ACCESS_LOG", "off"),
        ("STATUS_ACCESS_LOG", "off"),
        ("PROXY_ERROR_LOG", "logs/error.log"),
        ("ADMIN_ERROR_LOG", "logs/error.log"),
        ("STATUS_ERROR_LOG", "logs/error.log"),
    ]);
    if dialect.trials != Trials::BootOnDatabase {
        environment.insert("KONG_PROXY_LISTEN".into(), "off".into());
    }
    environment.insert("KONG_ADMIN_LISTEN".into(), format!("127.0.0.1:{admin}"));
    environment.insert("KONG_STATUS_LISTEN".into(), format!("127.0.0.1:{status}"));
    environment
}

/// Settings of a Kong that cannot do without its database, nor without a port for requests.
fn beside(proxy: u16) -> Environment {
    let mut environment = settings(&[("ANONYMOUS_REPORTS", "off"), ("SSL", "off"), ("ADMIN_SSL", "off")]);
    environment.insert("KONG_PROXY_LISTEN".into(), format!("127.0.0.1:{proxy}"));
    environment
}

fn settings(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(key, value)| (format!("KONG_{key}"), (*value).to_owned())).collect()
}
