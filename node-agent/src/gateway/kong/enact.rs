//! The way from what runs to what is wanted, and back: edit, prepare, reload, prove.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kctl_shared::name::BUNDLED;
use kctl_shared::spec::{Failure, StepWord};

use super::prove::Before;
use super::{Kong, change_for};
use crate::durable::{self, ensure_room};
use crate::gateway::cli::Cli;
use crate::gateway::conf_file::ConfFile;
use crate::gateway::dialect::Takes;
use crate::gateway::effective::{self, Environment};
use crate::gateway::error_log::ErrorLog;
use crate::gateway::kong_conf::Change;
use crate::gateway::kong_env::KongEnv;
use crate::gateway::node_conf::NodeConf;
use crate::gateway::process::{self, Tree};
use crate::gateway::record::Pending;
use crate::gateway::{EnactError, Progress, Wanted, words};

/// Somebody else writing kong.conf at the same moment is tried again this often.
const EDIT_TRIES: usize = 3;

/// How a reload that was not proven ended.
pub(super) enum Unproven {
    /// No HUP was sent.
    NotSent(Failure),
    /// One was, or may have been.
    Sent(Failure),
}

impl Kong {
    pub(super) async fn enact_now(
        &self,
        wanted: &Wanted,
        before: &Wanted,
        progress: Progress<'_>,
    ) -> Result<(), EnactError> {
        if self.proven_soon(wanted).await.is_ok() {
            return Ok(());
        }
        let (waiting, refused) = (EnactError::Waiting, EnactError::Refused);
        let tree = self.running().map_err(waiting)?;
        let armed = self.armed().map_err(refused)?;
        let change = change_for(wanted);
        let (conf, edited) = self.edited(&change).map_err(refused)?;
        ensure_room(&[self.prefix(), &self.config.state_dir], 0).map_err(refused)?;
        self.can_be_restarted(&armed).map_err(refused)?;
        effective::check_directives(&conf, &armed, &self.ours, &self.explained(wanted)).map_err(refused)?;
        effective::check_nginx(&conf, &armed, &self.own_nginx(&conf, wanted)).map_err(refused)?;
        let names = self.names(&edited).map_err(refused)?;
        self.nothing_in_the_way(&armed, &tree, &names).await.map_err(waiting)?;
        let cli = self.cli(Some(&armed), Some(&tree)).map_err(refused)?;
        let environment =
            self.environment(&cli, &edited, &armed, wanted, Some(tree.master)).await.map_err(refused)?;

        progress(StepWord::Configuring);
        self.write(&change).map_err(refused)?;
        if let Err(failure) = self.prepare(&cli, &environment).await {
            self.restore_files(before, &cli, &environment).await;
            return Err(refused(failure));
        }
        // Only the files were different: what runs is what they say again.
        if self.proven_now(wanted).await.is_ok() {
            return Ok(());
        }
        match self.reload(wanted, &cli, &environment, progress).await {
            Ok(()) => Ok(()),
            Err(Unproven::NotSent(failure)) => {
                self.restore_files(before, &cli, &environment).await;
                let outside =
                    matches!(failure.code.as_str(), "DATABASE_UNREACHABLE" | "KONG_DOWN" | "KONG_STOPPED");
                Err(if outside { waiting(failure) } else { refused(failure) })
            }
            Err(Unproven::Sent(failure)) => {
                progress(StepWord::RollingBack);
                match self.put_back_now(before, progress).await {
                    Ok(()) => Err(EnactError::PutBack(failure)),
                    Err(hindered) => {
                        let message = format!("{}; putting back waits ({hindered})", failure.message);
                        Err(EnactError::NotPutBack(Failure { message, ..failure }))
                    }
                }
            }
        }
    }

    pub(super) async fn put_back_now(&self, before: &Wanted, progress: Progress<'_>) -> Result<(), Failure> {
        if self.proven_soon(before).await.is_ok() {
            return Ok(());
        }
        let change = self.way_back(before);
        let armed = self.armed()?;
        let tree = Tree::of(self.prefix());
        let (_, edited) = self.edited(&change)?;
        let cli = self.cli(Some(&armed), tree.as_ref())?;
        let environment =
            self.environment(&cli, &edited, &armed, before, tree.as_ref().map(|t| t.master)).await?;
        self.write(&change)?;
        self.prepare(&cli, &environment).await?;
        if tree.is_none() && (self.restarts() || self.record.memory().stopped_by_us()) {
            // What was being put in did not start, or was not given the time to; what ran before will.
            progress(StepWord::Reloading);
            let log = ErrorLog::from_now(&armed.error_logs(self.prefix()));
            let mut down = Before::down(log);
            self.record.restarting()?;
            self.restart(&cli, &environment).await?;
            progress(StepWord::Proving);
            return self.prove(before, &mut down).await;
        }
        let tree = self.running()?;
        // A HUP that Kong is going to refuse would only do harm once more.
        let names = self.names(&edited)?;
        self.all_in_use_are_listed(&armed, &tree, &names).await?;
        match self.reload(before, &cli, &environment, progress).await {
            Ok(()) => Ok(()),
            Err(Unproven::NotSent(failure) | Unproven::Sent(failure)) => Err(failure),
        }
    }

    /// Names that may differ between what runs and what is written: those asked for, and those of an edit of ours that
    /// was interrupted.
    pub(super) fn explained(&self, wanted: &Wanted) -> BTreeSet<String> {
        let Change { add, remove, .. } = change_for(wanted);
        let pending = self.record.memory().pending.unwrap_or_default();
        [add, remove, pending.added, pending.removed].into_iter().flatten().collect()
    }

    pub(super) fn running(&self) -> Result<Tree, Failure> {
        match Tree::of(self.prefix()) {
            None => Err(Failure::new("KONG_DOWN", "Kong is not running on this node; start it")),
            Some(tree) if tree.stopped => Err(Failure::new(
                "KONG_STOPPED",
                "Kong's master process is held (SIGSTOP or a debugger); let it go on",
            )),
            Some(tree) => Ok(tree),
        }
    }

    fn edited(&self, change: &Change) -> Result<(ConfFile, Vec<u8>), Failure> {
        let conf = self.conf()?;
        let edited = self.edit(&conf, change)?;
        Ok((conf, edited))
    }

    /// Everything outside the agent that would make this reload fail, or is better waited for.
    pub(super) async fn nothing_in_the_way(
        &self,
        armed: &KongEnv,
        tree: &Tree,
        names: &[String],
    ) -> Result<(), Failure> {
        let asked = async {
            match self.admin(armed) {
                Some(api) if armed.database() != "off" => api.database_reachable().await,
                _ => Ok(None),
            }
        };
        let (database, in_use) = tokio::join!(asked, self.all_in_use_are_listed(armed, tree, names));
        if database? == Some(false) {
            return Err(Failure::new(
                "DATABASE_UNREACHABLE",
                "Kong cannot reach its database; a reload now would be refused",
            ));
        }
        in_use?;
        let expected = armed.worker_processes().unwrap_or_else(|| tree.serving().count()).max(1);
        let old = tree.draining().count().div_ceil(expected);
        if old >= self.limits.old_generations {
            let message = format!(
                "workers of {old} earlier configurations still serve long requests; another reload waits for them \
                 (nginx_main_worker_shutdown_timeout bounds it)"
            );
            return Err(Failure::new("TOO_MANY_OLD_WORKERS", message));
        }
        Ok(())
    }

    /// Kong refuses every list that lacks the plugin of any entity, and is left worse by having refused.
    async fn all_in_use_are_listed(
        &self,
        armed: &KongEnv,
        tree: &Tree,
        names: &[String],
    ) -> Result<(), Failure> {
        let Some(api) = self.admin(armed) else { return Ok(()) };
        let root = match api.root().await {
            Ok(root) => root,
            // An Admin API that is broken cannot be asked, and may be what is being put back.
            Err(failure) if matches!(failure.code.as_str(), "ADMIN_API_BROKEN" | "ADMIN_API_REFUSED") => {
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let listed: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        // Names that this Kong has loaded without being told them one by one came with it.
        let told = root.configured_plugins.clone().unwrap_or_default();
        let bundled = |name: &str| {
            listed.contains("bundled")
                && (BUNDLED.contains(&name)
                    || (root.available.contains_key(name) && !told.iter().any(|t| t == name)))
        };
        let missing: Vec<&String> =
            root.enabled.iter().filter(|n| !listed.contains(n.as_str()) && !bundled(n)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
        tracing::debug!(master = tree.master.pid, names, "in use but not listed");
        let message = format!(
            "{names} would be in use but not enabled: an entity still refers to it; delete that entity first"
        );
        Err(Failure::new("IN_USE_NOT_ENABLED", message))
    }

    /// Puts the change into kong.conf as it is at this moment.
    pub(super) fn write(&self, change: &Change) -> Result<(), Failure> {
        let backups = self.config.state_dir.join("backup");
        for attempt in 1.. {
            let (conf, edited) = self.edited(change)?;
            if edited == conf.text {
                return Ok(());
            }
            let names = |text: &[u8]| Ok::<BTreeSet<_>, Failure>(self.names(text)?.into_iter().collect());
            let (old, new) = (names(&conf.text)?, names(&edited)?);
            let pending = Pending {
                added: new.difference(&old).cloned().collect(),
                removed: old.difference(&new).cloned().collect(),
            };
            let copy = conf.backup(&backups).map_err(|error| conf.not_written(&error))?;
            let armed = (self.dialect().takes != Takes::Restart).then(|| self.armed_path());
            self.record.intend(pending, copy.as_deref().map(|p| (p, &*conf.text)), armed.as_deref())?;
            match conf.replace(&edited) {
                Ok(()) => return Ok(()),
                Err(error) if error.code == "CONF_CHANGED" && attempt < EDIT_TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn armed_path(&self) -> PathBuf {
        KongEnv::path(self.prefix(), &self.dialect())
    }

    /// Names that a file lists.
    fn names(&self, text: &[u8]) -> Result<Vec<String>, Failure> {
        Ok(NodeConf::parse(text, self.dialect().grammar)?.plugins()?)
    }

    pub(super) async fn prepare(&self, cli: &Cli, environment: &Environment) -> Result<(), Failure> {
        if self.dialect().takes == Takes::Restart {
            return Ok(());
        }
        // Kong takes the old `.kong_env` away before it writes the new one.
        self.record.keep_armed(&self.armed_path())?;
        let (conf, prefix) = (self.config.conf.to_string_lossy(), self.prefix().to_string_lossy());
        passed("kong.prepare", "before")?;
        let ended =
            cli.run(&["prepare", "-c", &conf, "-p", &prefix], environment, self.limits.command).await?;
        passed("kong.prepare", "done")?;
        if ended.succeeded() { Ok(()) } else { Err(Failure::new("PREPARE_FAILED", ended.words())) }
    }

    /// Sends the HUP, or restarts Kong, and proves what came of it.
    pub(super) async fn reload(
        &self,
        wanted: &Wanted,
        cli: &Cli,
        environment: &Environment,
        progress: Progress<'_>,
    ) -> Result<(), Unproven> {
        let armed = self.armed().map_err(Unproven::NotSent)?;
        let tree = self.running().map_err(Unproven::NotSent)?;
        let log = ErrorLog::from_now(&armed.error_logs(self.prefix()));
        let earlier: Option<PathBuf> = self.record.memory().proof.and_then(|proof| proof.wanted.generation);
        self.record
            .sending(&tree, earlier, wanted.generation.clone(), log.marks())
            .map_err(Unproven::NotSent)?;
        let mut before = Before {
            at: process::ticks_now(),
            readiness: self.readiness(&armed).await,
            tree,
            log,
            restarts: false,
        };
        progress(StepWord::Reloading);
        if self.restarts() {
            before.restarts = true;
            // Should this process end before Kong is up again, the next one starts it.
            self.record.restarting().map_err(Unproven::NotSent)?;
            self.restart(cli, environment).await.map_err(Unproven::Sent)?;
            progress(StepWord::Proving);
            return self.prove(wanted, &mut before).await.map_err(Unproven::Sent);
        }
        let prefix = self.prefix().to_string_lossy();
        let mut environment = environment.clone();
        if let Some(file) = armed.get("declarative_config") {
            // Kong forgets it in a reload that is not told of it, and would go on without the file from then on.
            environment.insert("KONG_DECLARATIVE_CONFIG".into(), file.to_owned());
        }
        passed("kong.reload", "before").map_err(Unproven::NotSent)?;
        match cli.run(&["reload", "-p", &prefix], &environment, self.limits.command).await {
            Ok(ended) if ended.succeeded() => {}
            Ok(ended) => {
                let words = ended.words();
                let code = if words.contains("nginx not running") {
                    "KONG_DOWN"
                } else if words::is_about_database(&words) {
                    "DATABASE_UNREACHABLE"
                } else {
                    "RELOAD_FAILED"
                };
                return Err(Unproven::NotSent(Failure::new(code, words)));
            }
            // It may have been stopped before or after the signal; only the processes can tell.
            Err(failure) if failure.code == "KONG_HANGS" => {
                tracing::warn!(%failure, "looking whether the signal was sent")
            }
            Err(failure) => return Err(Unproven::NotSent(failure)),
        }
        passed("kong.reload", "done").map_err(Unproven::Sent)?;
        progress(StepWord::Proving);
        self.prove(wanted, &mut before).await.map_err(Unproven::Sent)
    }

    /// A Kong in the foreground belongs to its supervisor: `kong restart` would end it, and itself become another one.
    ///
    /// # Errors
    /// `RESTART_IN_FOREGROUND`.
    pub(super) fn can_be_restarted(&self, armed: &KongEnv) -> Result<(), Failure> {
        let in_foreground =
            ["nginx_main_daemon", "nginx_daemon"].iter().any(|key| armed.get(key) == Some("off"));
        if !self.restarts() || !in_foreground {
            return Ok(());
        }
        let message = "this node's Kong runs in the foreground (nginx_main_daemon = off), where only its supervisor can \
                       restart it";
        Err(Failure::new("RESTART_IN_FOREGROUND", message))
    }

    /// Stops Kong and starts it with the node's file; when that fails, nothing runs.
    async fn restart(&self, cli: &Cli, environment: &Environment) -> Result<(), Failure> {
        let (conf, prefix) = (self.config.conf.to_string_lossy(), self.prefix().to_string_lossy());
        let mut args = vec!["restart", "-c", &*conf];
        if self.dialect().armed.is_some() {
            args.extend(["-p", &*prefix]);
        }
        let ended = cli.run(&args, environment, self.limits.command).await?;
        if ended.succeeded() {
            return Ok(());
        }
        let words = ended.words();
        let code = if words::is_about_database(&words) { "DATABASE_UNREACHABLE" } else { "RESTART_FAILED" };
        Err(Failure::new(words::load_failure_code(&words, code), words))
    }

    /// After a refusal without a HUP: the files as they were, so that a reload by anybody loads what runs.
    async fn restore_files(&self, before: &Wanted, cli: &Cli, environment: &Environment) {
        let restored = match self.write(&self.way_back(before)) {
            Ok(()) => self.prepare(cli, environment).await,
            Err(failure) => Err(failure),
        };
        match restored.and_then(|()| self.record.taken_back()) {
            Ok(()) => {}
            Err(failure) => tracing::warn!(%failure, "the files could not be restored yet"),
        }
    }

    /// The edit that leads back to `before`: its own names, and whatever an edit of ours that was never proven changed
    /// beside them.
    fn way_back(&self, before: &Wanted) -> Change {
        let mut change = change_for(before);
        let pending = self.record.memory().pending.unwrap_or_default();
        change.remove.extend(pending.added.into_iter().filter(|name| !change.add.contains(name)));
        change.add.extend(pending.removed.into_iter().filter(|name| !change.remove.contains(name)));
        change
    }
}

/// A point around one of Kong's commands, see [`durable::STEPS`].
fn passed(step: &'static str, point: &'static str) -> Result<(), Failure> {
    durable::pass(step, point).map_err(|error| Failure::new("INTERNAL", error.to_string()))
}
