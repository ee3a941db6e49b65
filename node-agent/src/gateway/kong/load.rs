//! kong.conf as it is written, loaded or put in order for a Kong that does not run: for whoever works without a spec.

use std::path::{Path, PathBuf};

use kctl_shared::spec::Failure;

use super::enact::Unproven;
use super::{Kong, change_for};
use crate::durable::ensure_room;
use crate::gateway::Wanted;
use crate::gateway::dialect::Trials;
use crate::gateway::effective::{self, Environment};
use crate::gateway::preflight::Trial;
use crate::gateway::process::Tree;

impl Kong {
    /// Loads kong.conf as it is: prepare, reload, prove.
    ///
    /// # Errors
    /// As [`crate::gateway::Gateway::enact`]. The prefix is prepared from the file after each, whatever runs.
    pub async fn load(&self, environment: &Environment) -> Result<(), Failure> {
        let _one = self.changing.lock().await;
        self.ask_version().await?;
        let tree = self.running()?;
        let conf = self.conf()?;
        let armed = self.armed()?;
        let names = conf.conf.plugins()?;
        match self.nothing_in_the_way(&armed, &tree, &names).await {
            // An Admin API that cannot be asked may be just what the reload is to mend.
            Err(failure) if !failure.code.starts_with("ADMIN_API_") => return Err(failure),
            Err(_) | Ok(()) => {}
        }
        let cli = self.cli(Some(&armed), Some(&tree))?;
        let wanted = Wanted { generation: conf.conf.generation(&self.ours), ..Wanted::default() };
        self.prepare(&cli, environment).await?;
        match self.reload(&wanted, &cli, environment, &|_| {}).await {
            Ok(()) => Ok(()),
            Err(Unproven::NotSent(failure) | Unproven::Sent(failure)) => Err(failure),
        }
    }

    /// Renders kong.conf into the prefix and tells nobody.
    ///
    /// # Errors
    /// `PREPARE_FAILED`, `KONG_NOT_FOUND`, `KONG_HANGS`.
    pub async fn arm(&self, environment: &Environment) -> Result<(), Failure> {
        let _one = self.changing.lock().await;
        self.ask_version().await?;
        let (armed, tree) = (self.armed().ok(), Tree::of(self.prefix()));
        let cli = self.cli(armed.as_ref(), tree.as_ref())?;
        self.prepare(&cli, environment).await
    }

    /// Whether the list that `wanted` would give loads in a scratch Kong. What was prepared before counts for nothing but
    /// the settings that kong.conf does not have: those came from where Kong is started, as do `own`.
    ///
    /// # Errors
    /// As [`crate::gateway::Gateway::preflight`].
    pub async fn try_out(&self, wanted: &Wanted, own: &Environment) -> Result<(), Failure> {
        let dialect = self.ask_version().await?;
        let conf = self.conf()?;
        let edited = self.edit(&conf, &change_for(wanted))?;
        if dialect.trials == Trials::None {
            return Ok(());
        }
        let armed = self.armed().ok();
        let cli = self.cli(armed.as_ref(), None)?;
        let mut environment = Environment::new();
        if let Some(armed) = &armed {
            let limit = self.limits.command;
            let ours = self.nginx_keys(&edited, wanted, armed)?;
            let renderer = effective::Renderer { cli: &cli, prefix: self.prefix(), limit, ours: &ours };
            let mut keys = renderer.render(&edited, own, armed).await?;
            keys.retain(|key| conf.conf.get(key).is_none() && !key.contains(' '));
            environment = armed.as_environment(&keys);
        }
        environment.extend(own.clone());
        let (how, limit) = (self.config.preflight, self.limits.command);
        let trial =
            Trial { cli: &cli, prefix: self.prefix(), environment: &environment, how, limit, dialect };
        trial.judge(&edited, &conf.text).await
    }

    /// Names in kong.conf's directive, and our generation directory in it.
    ///
    /// # Errors
    /// The codes of the file.
    pub fn written(&self) -> Result<(Vec<String>, Option<PathBuf>), Failure> {
        let conf = self.conf()?.conf;
        Ok((conf.plugins()?, conf.generation(&self.ours)))
    }

    /// Writes into kong.conf what `wanted` says, for the Kong that starts next; whether anything had to be written.
    /// Nothing is prepared: whoever starts Kong does that, in the environment that only it knows.
    ///
    /// # Errors
    /// `KONG_RUNNING`, and the codes of the file and its editor; the file is untouched after each.
    pub async fn arrange(&self, wanted: &Wanted) -> Result<bool, Failure> {
        let _one = self.changing.lock().await;
        if let Some(tree) = Tree::of(self.prefix()) {
            let message =
                format!("Kong runs already (process {}); its agent changes it, with proof", tree.master.pid);
            return Err(Failure::new("KONG_RUNNING", message));
        }
        ensure_room(&[self.config.conf.parent().unwrap_or(Path::new("/")), &self.config.state_dir], 0)?;
        let change = change_for(wanted);
        let conf = self.conf()?;
        let differs = self.edit(&conf, &change)? != conf.text;
        self.write(&change)?;
        Ok(differs)
    }
}
