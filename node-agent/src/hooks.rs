//! Commands of the node's owner, run around what takes its Kong away for a moment: out of the load balancer, and back.

use std::process::Stdio;
use std::time::Duration;

use kctl_shared::name::NodeId;
use kctl_shared::spec::Failure;
use serde::Deserialize;
use tokio::process::Command;

const DEFAULT_TIMEOUT_S: u64 = 60;
/// Of what a command said last, this much is told.
const TOLD: usize = 300;

/// The program and its arguments; no shell is between.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Ends once no new request comes to this node.
    pub drain: Vec<String>,
    /// The counterpart; run until it ends well.
    pub undrain: Vec<String>,
    /// Seconds after which a command is killed and counts as failed.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
}

fn default_timeout() -> u64 {
    DEFAULT_TIMEOUT_S
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Drain,
    Undrain,
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Undrain => "undrain",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Drain => "DRAIN_FAILED",
            Self::Undrain => "UNDRAIN_FAILED",
        }
    }
}

impl Hooks {
    /// Why they cannot be used, if so.
    pub fn complaint(&self) -> Option<String> {
        [("drain", &self.drain), ("undrain", &self.undrain)].into_iter().find_map(|(name, argv)| {
            match argv.first() {
                None => Some(format!("hooks.{name} is empty")),
                Some(program) if !program.starts_with('/') => {
                    Some(format!("hooks.{name}: {program} is not an absolute path"))
                }
                Some(_) => None,
            }
        })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// `DRAIN_FAILED`, `UNDRAIN_FAILED`: with what it said last.
    pub async fn run(&self, hook: Hook, node: Option<&NodeId>) -> Result<(), Failure> {
        let failed = |why: String| Failure::new(hook.code(), why);
        let argv = match hook {
            Hook::Drain => &self.drain,
            Hook::Undrain => &self.undrain,
        };
        let Some((program, args)) = argv.split_first() else {
            return Err(failed(format!("hooks.{} is empty", hook.name())));
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .env("KCTL_HOOK", hook.name())
            .env("KCTL_NODE", node.map(ToString::to_string).unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|e| failed(format!("{program} cannot be run: {e}")))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let ended = tokio::time::timeout(Duration::from_secs(self.timeout), child.wait_with_output()).await;
        match ended {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let said = [output.stdout, output.stderr].concat();
                Err(failed(format!("{program} ended with {}{}", output.status, last_words(&said))))
            }
            Ok(Err(e)) => Err(failed(format!("{program}: {e}"))),
            Err(_) => {
                if let Some(group) = group {
                    // What it began goes with it; a group that is gone already is just as well.
                    let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                Err(failed(format!("{program} was still running after {} s", self.timeout)))
            }
        }
    }
}

fn last_words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    match said.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.trim().chars().take(TOLD).collect::<String>()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(drain: &str) -> Hooks {
        let shell = |script: &str| vec!["/bin/sh".to_owned(), "-c".into(), script.into()];
        Hooks { drain: shell(drain), undrain: shell("true"), timeout: 1 }
    }

    #[tokio::test]
    async fn a_command_is_told_which_node_it_is_for_and_says_why_it_failed() {
        let node = NodeId::parse("n1").unwrap();
        let said = hooks("echo \"$KCTL_HOOK of $KCTL_NODE\"; exit 3").run(Hook::Drain, Some(&node)).await;
        let failure = said.unwrap_err();
        assert_eq!(failure.code, "DRAIN_FAILED");
        assert!(failure.message.ends_with(": drain of n1"), "{failure}");
        assert!(hooks("true").run(Hook::Undrain, Some(&node)).await.is_ok());
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_is_ended() {
        let failure = hooks("sleep 60").run(Hook::Drain, None).await.unwrap_err();
        assert!(failure.message.contains("still running after 1 s"), "{failure}");
    }
}
