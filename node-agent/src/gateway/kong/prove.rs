//! Proof that the running Kong is as wanted. `kong reload` exits 0 when the signal was delivered and says nothing about
//! what came of it, so nothing of what it says is believed: processes, answers on fresh connections, files and the log
//! are.

use std::collections::BTreeSet;
use std::time::Duration;

use kctl_shared::name::PluginName;
use kctl_shared::spec::{Failure, ReleaseRef};
use tokio::time::Instant;

use super::Kong;
use crate::gateway::Wanted;
use crate::gateway::admin_api::{AdminApi, Readiness, Root};
use crate::gateway::error_log::{ErrorLog, Finding};
use crate::gateway::kong_env::{self, KongEnv};
use crate::gateway::preflight::{crippled, runtime};
use crate::gateway::process::{self, ProcessId, Tree};
use crate::gateway::resolve::{self, Reader};

/// Between two looks at processes; a look takes less than one millisecond.
const POLL: Duration = Duration::from_millis(5);
/// An Admin API that fails for so long, on workers that are all new, is broken and not just starting.
const BROKEN_AFTER: Duration = Duration::from_secs(1);
/// Answers asked for, on a connection each: enough that every one of a few workers is likely to be among them.
const FEWEST_ANSWERS: usize = 3;
const MOST_ANSWERS: usize = 8;
/// A good reload shows not-ready for a moment.
const READY_GRACE: Duration = Duration::from_secs(10);

/// The running Kong just before a HUP.
#[derive(Debug)]
pub(super) struct Before {
    pub tree: Tree,
    /// Ticks since boot.
    pub at: u64,
    pub readiness: Option<Readiness>,
    pub log: ErrorLog,
    /// Another master is to be expected.
    pub restarts: bool,
}

impl Before {
    /// Nothing runs; what comes is all new.
    pub fn down(log: ErrorLog) -> Self {
        let nobody = ProcessId { pid: 0, started: 0 };
        let tree = Tree { master: nobody, stopped: false, workers: Vec::new(), starting: 0 };
        Self { tree, at: process::ticks_now(), readiness: None, log, restarts: true }
    }
}

impl Kong {
    /// Whether everything is as wanted already, without a HUP.
    pub(super) async fn proven_now(&self, wanted: &Wanted) -> Result<(), Failure> {
        let conf = self.conf()?;
        self.says(
            wanted,
            &conf.conf.plugins()?,
            conf.conf.generation(&self.ours),
            "NOT_CONFIGURED",
            "kong.conf",
        )?;
        let (nginx, own) = (wanted.nginx(), conf.conf.own_nginx_keys());
        let (written, users) = (conf.conf.nginx(), conf.conf.users_nginx());
        let stray = (&written - &users).into_iter().find(|s| own.contains(&s.key) && !nginx.contains(s));
        if let Some(setting) = nginx.difference(&written).next().or(stray.as_ref()) {
            let message = format!("kong.conf does not say what is wanted of `{setting}`");
            return Err(Failure::new("NOT_CONFIGURED", message));
        }
        let armed = self.armed()?;
        if let Some(setting) = nginx.difference(&armed.nginx()).next() {
            return Err(Failure::new("NOT_ARMED", format!("the prepared configuration lacks `{setting}`")));
        }
        self.says(
            wanted,
            &armed.plugins()?,
            armed.generation(&self.ours),
            "NOT_ARMED",
            "the prepared configuration",
        )?;
        let tree = running(self.prefix())?;
        let memory = self.record.memory();
        let remembered = memory.covers(wanted, &tree);
        let armed_at = process::ticks_of(armed.modified);
        // The clock ticks between the two moments may be rounded apart by one each.
        whole(&tree, armed.worker_processes().unwrap_or(1), |worker| {
            remembered || worker.started + 2 >= armed_at
        })?;
        if !remembered {
            let findings = ErrorLog::from_marks(memory.log_of(&tree)).poll();
            if let Some(failure) = crippled(&findings) {
                return Err(failure);
            }
        }
        self.answers(wanted, &armed, &tree).await?;
        self.files(wanted, &armed, &tree)?;
        if let Some(Readiness::NotReady(reason)) = self.readiness(&armed).await
            && is_unfinished(&reason)
        {
            return Err(not_ready(&reason));
        }
        self.record.proven(&tree, wanted)
    }

    /// As [`Self::proven_now`], with patience for workers that are just coming up.
    pub(super) async fn proven_soon(&self, wanted: &Wanted) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_GRACE;
        loop {
            match self.proven_now(wanted).await {
                Err(failure) if failure.code == "NOT_READY" && Instant::now() < deadline => {
                    tokio::time::sleep(POLL * 4).await
                }
                verdict => return verdict,
            }
        }
    }

    fn says(
        &self,
        wanted: &Wanted,
        names: &[String],
        generation: Option<std::path::PathBuf>,
        code: &str,
        what: &str,
    ) -> Result<(), Failure> {
        let has = |plugin: &&PluginName| names.iter().any(|name| name == plugin.as_str());
        if let Some(plugin) = wanted.listed.keys().find(|plugin| !has(plugin)) {
            return Err(Failure::new(code, format!("{what} does not list {plugin}")));
        }
        if let Some(plugin) = wanted.unlisted.iter().find(has) {
            return Err(Failure::new(code, format!("{what} still lists {plugin}")));
        }
        if generation != wanted.generation {
            return Err(Failure::new(code, format!("{what} names another directory of plugins than wanted")));
        }
        Ok(())
    }

    /// Proves that the HUP sent after `before` was taken and gave what is wanted.
    ///
    /// # Errors
    /// `RELOAD_NOT_TAKEN` and the codes of a list that does not load, `WORKER_GENERATION_INCOMPLETE`, `INIT_WORKER_FAILED`,
    /// `ADMIN_API_BROKEN`, `IN_USE_NOT_ENABLED`, `NOT_READY`, `KONG_DOWN`, `FILES_…`.
    pub(super) async fn prove(&self, wanted: &Wanted, before: &mut Before) -> Result<(), Failure> {
        let deadline = Instant::now() + self.limits.proof;
        let old: BTreeSet<ProcessId> = before.tree.workers.iter().map(|w| w.id).collect();
        let expected_if_auto = before.tree.serving().count().max(1);
        let mut broken_since: Option<Instant> = None;
        let mut runtime_words = None;
        loop {
            let findings = before.log.poll();
            if let Some(failure) = crippled(&findings) {
                return Err(failure);
            }
            runtime_words = runtime_words.or_else(|| findings.iter().find_map(runtime));
            let (why, new_workers) = match self.stage(wanted, before, &old, expected_if_auto).await {
                Ok(tree) => {
                    // What the requests just made had to say.
                    return match crippled(&before.log.poll()) {
                        Some(failure) => Err(failure),
                        None => self.record.proven(&tree, wanted),
                    };
                }
                Err(stage) => stage,
            };
            let broken = why.code == "ADMIN_API_BROKEN" && new_workers;
            broken_since = broken.then(|| broken_since.unwrap_or_else(Instant::now));
            let last =
                matches!(why.code.as_str(), "KONG_DOWN" | "KONG_RESTARTED") || why.code.starts_with("FILES_");
            if last
                || broken_since.is_some_and(|since| since.elapsed() > BROKEN_AFTER)
                || Instant::now() > deadline
            {
                let late: Vec<Finding> = before.log.poll();
                let words = runtime_words.or_else(|| late.iter().find_map(runtime));
                return Err(match (crippled(&late), words) {
                    (Some(failure), _) => failure,
                    (None, Some(words)) if why.code == "ADMIN_API_BROKEN" => {
                        Failure::new("ADMIN_API_BROKEN", words)
                    }
                    (None, _) => why,
                });
            }
            // Questions to the Admin API cost it more than looks at processes.
            tokio::time::sleep(if new_workers { POLL * 2 } else { POLL }).await;
        }
    }

    /// One look; the error says what is not there yet, and whether all workers are new already.
    async fn stage(
        &self,
        wanted: &Wanted,
        before: &Before,
        old: &BTreeSet<ProcessId>,
        expected_if_auto: usize,
    ) -> Result<Tree, (Failure, bool)> {
        let early = |failure| (failure, false);
        let tree = running(self.prefix()).map_err(early)?;
        if tree.master == before.tree.master && before.restarts {
            let message = "the master that was to be restarted still runs";
            return Err(early(Failure::new("RESTART_FAILED", message)));
        }
        if tree.master != before.tree.master && !before.restarts {
            let message = "the master process ended during the reload, and another one runs now";
            return Err(early(Failure::new("KONG_RESTARTED", message)));
        }
        let armed = self.armed().map_err(early)?;
        let expected = armed.worker_processes().unwrap_or(expected_if_auto);
        let is_new = |worker: ProcessId| !old.contains(&worker) && worker.started + 1 >= before.at;
        whole(&tree, expected, is_new).map_err(early)?;
        let late = |failure| (failure, true);
        let (answers, readiness) = tokio::join!(self.answers(wanted, &armed, &tree), self.readiness(&armed));
        answers.map_err(late)?;
        self.files(wanted, &armed, &tree).map_err(late)?;
        match readiness {
            Some(Readiness::NotReady(reason)) => {
                let as_before =
                    !is_unfinished(&reason) && before.readiness == Some(Readiness::NotReady(reason.clone()));
                if !as_before && !is_accepted(&reason) {
                    return Err(late(not_ready(&reason)));
                }
            }
            None if self.status_api(&armed).is_some() => {
                return Err(late(Failure::new("NOT_READY", "the Status API does not answer")));
            }
            Some(Readiness::Ready | Readiness::Unknown) | None => {}
        }
        Ok(tree)
    }

    /// The running Kong's own words, from several workers.
    async fn answers(&self, wanted: &Wanted, armed: &KongEnv, tree: &Tree) -> Result<(), Failure> {
        let Some(api) = self.admin(armed) else { return Ok(()) };
        let count = (tree.serving().count() * 2).clamp(FEWEST_ANSWERS, MOST_ANSWERS);
        // Asked at the same time they reach several workers all the more likely.
        let asked = std::iter::repeat_with(|| self.answer(wanted, &api)).take(count);
        futures_util::future::try_join_all(asked).await.map(drop)
    }

    async fn answer(&self, wanted: &Wanted, api: &AdminApi) -> Result<(), Failure> {
        let root = match api.root().await {
            // Kong answers 500 as well when it cannot ask its database.
            Err(failure)
                if failure.code == "ADMIN_API_BROKEN"
                    && api.database_reachable().await == Ok(Some(false)) =>
            {
                return Err(Failure::new("DATABASE_UNREACHABLE", "Kong cannot reach its database"));
            }
            answer => answer?,
        };
        for (plugin, release) in &wanted.listed {
            let loaded = root.available.get(plugin.as_str());
            let loaded = loaded.ok_or_else(|| {
                Failure::new("RELOAD_NOT_TAKEN", format!("the running Kong does not have {plugin}"))
            })?;
            if let Some(other) = loaded.as_deref().filter(|version| !same_version(release, version)) {
                let message = format!("the running Kong has {plugin} {other}, not {}", release.version);
                return Err(Failure::new("RELOAD_NOT_TAKEN", message));
            }
        }
        if let Some(plugin) =
            wanted.unlisted.iter().find(|plugin| root.available.contains_key(plugin.as_str()))
        {
            return Err(Failure::new("RELOAD_NOT_TAKEN", format!("the running Kong still has {plugin}")));
        }
        self.same_generation(wanted, &root)
    }

    /// A worker that was started with another directory runs another release, whatever its version says.
    fn same_generation(&self, wanted: &Wanted, root: &Root) -> Result<(), Failure> {
        let Some(path) = &root.lua_package_path else { return Ok(()) };
        if self.ours.generation_in(path) == wanted.generation {
            return Ok(());
        }
        let message = format!("the running Kong was loaded with lua_package_path {path}");
        Err(Failure::new("RELOAD_NOT_TAKEN", message))
    }

    /// What Lua would find is what was agreed on, and the workers can read it.
    fn files(&self, wanted: &Wanted, armed: &KongEnv, tree: &Tree) -> Result<(), Failure> {
        let rendered = kong_env::rendered_lua_path(self.prefix());
        let path = rendered.as_deref().unwrap_or_else(|| armed.lua_path());
        let reader: Option<Reader> =
            tree.serving().next().and_then(|worker| process::credentials(worker.pid));
        wanted.listed.iter().try_for_each(|(plugin, release)| {
            resolve::check(
                path,
                self.prefix(),
                wanted.generation.as_deref().filter(|_| !release.method.is_in_place()),
                plugin,
                release,
                reader.as_ref(),
            )
        })
    }
}

fn running(prefix: &std::path::Path) -> Result<Tree, Failure> {
    match Tree::of(prefix) {
        None => Err(Failure::new("KONG_DOWN", format!("no Kong runs in {}", prefix.display()))),
        Some(tree) if tree.stopped => {
            Err(Failure::new("KONG_STOPPED", "Kong's master process is held (SIGSTOP or a debugger)"))
        }
        Some(tree) => Ok(tree),
    }
}

/// Everybody who takes connections is new, nobody is missing or still coming up.
fn whole(tree: &Tree, expected: usize, is_new: impl Fn(ProcessId) -> bool) -> Result<(), Failure> {
    let (new, old): (Vec<_>, Vec<_>) = tree.serving().partition(|worker| is_new(*worker));
    if new.is_empty() && tree.starting == 0 {
        let message = "Kong took the signal and kept its old workers; its error log says no reason";
        return Err(Failure::new("RELOAD_NOT_TAKEN", message));
    }
    if !old.is_empty() || tree.starting > 0 || new.len() < expected {
        let message = format!(
            "{} of {expected} workers are new, {} old ones still take connections, {} are starting",
            new.len(),
            old.len(),
            tree.starting
        );
        return Err(Failure::new("WORKER_GENERATION_INCOMPLETE", message));
    }
    Ok(())
}

/// What a refused reload leaves behind, and a good one shows for a moment.
fn is_unfinished(reason: &str) -> bool {
    reason.contains("not yet complete")
}

/// Not ready for a reason that no reload of ours can change or should wait for.
fn is_accepted(reason: &str) -> bool {
    reason.contains("no configuration available") || reason.contains("draining")
}

fn not_ready(reason: &str) -> Failure {
    Failure::new("NOT_READY", format!("Kong says it is not ready: {reason}"))
}

/// Kong shows at most three numbers of a handler's VERSION. A version that was not read from one is not compared; the
/// digest of the files is the proof.
fn same_version(release: &ReleaseRef, loaded: &str) -> bool {
    let (Some(ours), Some(theirs)) = (numbers(&release.version), numbers(loaded)) else { return true };
    release.version.starts_with("0.0.0-") || ours == theirs
}

fn numbers(version: &str) -> Option<[u64; 3]> {
    let version = version.trim().trim_start_matches(['v', 'V']);
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let mut parts = version[..end].split('.').filter(|part| !part.is_empty());
    let mut numbers = [0; 3];
    for (i, number) in numbers.iter_mut().enumerate() {
        match parts.next() {
            Some(part) => *number = part.parse().ok()?,
            None if i == 0 => return None,
            None => break,
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kctl_shared::digest::Digest;

    #[test]
    fn versions_are_compared_as_kong_shows_them() {
        let release = |version: &str| ReleaseRef::new(version, Digest::of(b""));
        for (ours, kongs, same) in [
            ("1.2.3", "1.2.3", true),
            ("1.2.3-1", "1.2.3", true),
            ("v1.0", "1.0", true),
            ("1.0", "1.0.0", true),
            ("1.0-beta", "1.0", true),
            ("1.2.4", "1.2.3", false),
            ("2.0.0", "1.0.0", false),
            ("0.0.0-ab12cd34", "1.0.0", true),
            ("scm", "1.0.0", true),
        ] {
            assert_eq!(same_version(&release(ours), kongs), same, "{ours} {kongs}");
        }
    }
}
