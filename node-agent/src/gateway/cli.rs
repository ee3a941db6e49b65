//! Runs Kong's command line: a known environment, a neutral directory, a time limit, bounded output, nothing left behind.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use kctl_shared::spec::Failure;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::words;

/// Kept of each stream, in bytes; the rest is read and dropped.
const MAX_OUTPUT: usize = 256 << 10;

/// How long a finished command's streams may stay open: a daemon that kept them must not hold the agent.
const STREAM_GRACE: Duration = Duration::from_secs(1);

/// Kong's executable and as whom to run it.
#[derive(Clone, Debug)]
pub struct Cli {
    pub bin: PathBuf,
    /// Whoever owns the prefix, when the agent may choose: the master must be able to read what is rendered.
    pub user: Option<(u32, u32)>,
    /// Soft limit on open files; Kong renders its worker connections from it.
    pub open_files: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Ended {
    /// `None` when it was ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Kong's own words about what went wrong.
    pub fn words(&self) -> String {
        let words = words::sentence(&self.stderr);
        if !words.is_empty() {
            return words;
        }
        let words = words::sentence(&self.stdout);
        match (words.is_empty(), self.code) {
            (false, _) => words,
            (true, Some(code)) => format!("exit code {code}, without a word"),
            (true, None) => "ended by a signal, without a word".into(),
        }
    }
}

/// Ends a whole process group when the command is given up.
struct Group(Option<Pid>);

impl Group {
    fn end(&mut self) {
        if let Some(group) = self.0.take() {
            // Nobody may be left in it, which is what is wanted.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

impl Cli {
    /// Runs `kong ARGS…` with PATH, HOME and `environment`, and nothing else.
    ///
    /// # Errors
    /// `KONG_NOT_FOUND`, `KONG_NOT_RUNNABLE`, `KONG_HANGS`. An exit code other than 0 is no error here.
    pub async fn run(
        &self,
        args: &[&str],
        environment: &BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<Ended, Failure> {
        self.raise_open_files()?;
        let mut command = Command::new(&self.bin);
        command
            .args(args)
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH")
                    .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
            )
            .env("HOME", std::env::var_os("HOME").unwrap_or_else(|| "/".into()))
            .envs(environment)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        let child = command.spawn().map_err(|error| self.not_started(&error))?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        match tokio::time::timeout(limit, wait(child)).await {
            Ok(Ok(ended)) => {
                // Its daemon, if it started one, is in a session of its own.
                group.0 = None;
                Ok(ended)
            }
            Ok(Err(error)) => Err(self.not_started(&error)),
            Err(_) => {
                group.end();
                let message = format!(
                    "`kong {}` did not end within {limit:?} and was stopped",
                    args.first().unwrap_or(&"")
                );
                Err(Failure::new("KONG_HANGS", message))
            }
        }
    }

    /// The limit is inherited by commands; raising the agent's own soft limit up to its hard one is harmless.
    fn raise_open_files(&self) -> Result<(), Failure> {
        let Some(wanted) = self.open_files else { return Ok(()) };
        let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
        if current == Some(wanted) {
            return Ok(());
        }
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).map_err(|_| {
            let message = format!(
                "Kong was started with {wanted} open files allowed and the agent may only use {}; raise the agent's limit (LimitNOFILE)",
                maximum.unwrap_or_default()
            );
            Failure::new("EFFECTIVE_CONFIG_DIFFERS", message)
        })
    }

    fn not_started(&self, error: &io::Error) -> Failure {
        let bin = self.bin.display();
        match error.kind() {
            io::ErrorKind::NotFound => Failure::new(
                "KONG_NOT_FOUND",
                format!("{bin} was not found; name Kong's executable in the agent's configuration"),
            ),
            _ => Failure::new("KONG_NOT_RUNNABLE", format!("{bin} could not be run ({error})")),
        }
    }
}

async fn wait(mut child: Child) -> io::Result<Ended> {
    let stdout = tokio::spawn(read(child.stdout.take()));
    let stderr = tokio::spawn(read(child.stderr.take()));
    let status = child.wait().await?;
    Ok(Ended { code: status.code(), stdout: settle(stdout).await, stderr: settle(stderr).await })
}

async fn settle(reader: tokio::task::JoinHandle<String>) -> String {
    let abort = reader.abort_handle();
    match tokio::time::timeout(STREAM_GRACE, reader).await {
        Ok(text) => text.unwrap_or_default(),
        Err(_) => {
            abort.abort();
            String::new()
        }
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = vec![0; 8192];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let room = MAX_OUTPUT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
