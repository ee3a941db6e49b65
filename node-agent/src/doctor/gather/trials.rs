//! What Kong itself makes of the node's files: rendered, loaded and started in scratch prefixes, its database asked.

use std::collections::BTreeSet;
use std::path::Path;

use kctl_shared::spec::Failure;

use super::Place;
use crate::config::Preflight;
use crate::doctor::facts::{Facts, Refused, Rendered, State};
use crate::doctor::origin::from_outside;
use crate::gateway::cli::{Cli, Ended};
use crate::gateway::conf_file::ConfFile;
use crate::gateway::dialect::{Dialect, Grammar, Takes, Trials as Tries};
use crate::gateway::effective::Environment;
use crate::gateway::kong_conf::{Change, Lists, OurPath};
use crate::gateway::kong_env::{self, KongEnv};
use crate::gateway::node_conf::NodeConf;
use crate::gateway::preflight::Trial;
use crate::gateway::scratch::Scratch;
use crate::gateway::words;

/// Plugins that are left out in turn before the rest is not tried any more.
const MOST_REFUSED: usize = 5;
/// Variables that win over the list in the file.
const LISTS: [&str; 2] = ["KONG_PLUGINS", "KONG_CUSTOM_PLUGINS"];

/// The version in Kong's own words, and what goes with it; the newest Kong's dialect where nobody can tell.
///
/// # Errors
/// `KONG_NOT_FOUND`, `KONG_NOT_RUNNABLE`, `KONG_HANGS`, `KONG_VERSION_UNKNOWN`, `KONG_VERSION_UNSUPPORTED`.
pub async fn version(place: &Place) -> (Result<String, Failure>, Dialect) {
    match ask(place).await {
        Ok((words, dialect)) => (Ok(words), dialect),
        Err(failure) => (Err(failure), Dialect::default()),
    }
}

async fn ask(place: &Place) -> Result<(String, Dialect), Failure> {
    // Nothing is read or written, so anybody may ask.
    let cli = Cli { bin: place.bin.clone(), user: None, open_files: None };
    let ended = cli.run(&["version"], &Environment::new(), place.limit).await?;
    if !ended.succeeded() {
        return Err(Failure::new("KONG_NOT_RUNNABLE", format!("`kong version` failed: {}", ended.words())));
    }
    let dialect = Dialect::of(&ended.stdout)?;
    let text = ended.stdout.trim();
    let text = text.strip_prefix("Kong").map_or(text, |rest| rest.trim_start_matches([':', ' ']));
    Ok((text.strip_prefix("version:").unwrap_or(text).trim().to_owned(), dialect))
}

pub struct Trials<'a> {
    pub place: &'a Place,
    pub cli: &'a Cli,
    pub file: &'a ConfFile,
    pub env: Option<&'a KongEnv>,
    pub progress: &'a (dyn Fn(&str) + Sync),
}

impl Trials<'_> {
    pub async fn run(&self, facts: &mut Facts) {
        if facts.dialect.takes == Takes::Reload {
            (self.progress)("what Kong makes of kong.conf");
            facts.rendered = Some(self.rendered(facts).await);
            self.rendered_again(facts).await;
            if !matches!(facts.rendered, Some(Ok(_))) {
                return;
            }
        }
        let environment = self.environment(facts);
        if facts.database.used {
            (self.progress)("the database");
            self.database(facts, &environment).await;
        }
        if facts.dialect.trials == Tries::None {
            return;
        }
        (self.progress)("the plugins in a scratch Kong");
        facts.refused = self.load(facts, &environment).await;
        if facts.dialect.trials == Tries::BootOnDatabase {
            self.without_database(facts);
            return;
        }
        (self.progress)("the declarative configuration");
        facts.declarative = self.declarative(facts, &environment).await;
    }

    /// A Kong that was tried on the node's database and could not reach it says nothing of plugins.
    fn without_database(&self, facts: &mut Facts) {
        let about = |r: &Refused| r.plugin.is_none() && words::is_about_database(&r.failure.message);
        if let Some(refused) = facts.refused.iter().flatten().find(|r| about(r)) {
            facts.database.trouble = Some(Failure::new("DATABASE_UNREACHABLE", &refused.failure.message));
            facts.refused = None;
        }
    }

    /// A tag of its own: an agent that starts beside takes its leftovers away, and not these.
    fn scratch(&self, facts: &Facts) -> Result<Scratch, Failure> {
        Scratch::new(&tag(&facts.prefix), self.cli.user)
    }

    async fn prepare(&self, facts: &Facts, text: &[u8]) -> Result<(Scratch, KongEnv), Failure> {
        let scratch = self.scratch(facts)?;
        let (conf, there) = (scratch.write("kong.conf", text)?, scratch.prefix());
        let args = ["prepare", "-c", &*conf.to_string_lossy(), "-p", &*there.to_string_lossy()];
        let ended = self.cli.run(&args, &Environment::new(), self.place.limit).await?;
        if !ended.succeeded() {
            let words = ended.words().replace(&*there.to_string_lossy(), &facts.prefix.to_string_lossy());
            return Err(Failure::new("CONF_REFUSED", words));
        }
        let env = KongEnv::read(&there, &facts.dialect)?;
        Ok((scratch, env))
    }

    async fn rendered(&self, facts: &mut Facts) -> Result<Rendered, Failure> {
        let (scratch, rendered) = self.prepare(facts, &self.file.text).await?;
        if let Some(Ok(armed)) = &mut facts.armed {
            // A script that Kong's executable is brings its own every time.
            let brought = kong_env::stray_lua_path(&scratch.prefix(), rendered.lua_path());
            armed.leaked.retain(|entry| !brought.contains(entry));
        }
        let differing = self.env.map(|env| {
            let here = env.get("prefix").map_or(facts.prefix.as_path(), Path::new);
            env.differences(here, &rendered, &scratch.prefix())
        });
        Ok(Rendered {
            known: rendered.keys().map(str::to_owned).collect(),
            differing: differing.unwrap_or_default(),
        })
    }

    /// Whether a reload, which renders `.kong_env` again, would get so far at all.
    async fn rendered_again(&self, facts: &mut Facts) {
        let Some(Ok(rendered)) = &facts.rendered else { return };
        let injected = rendered.differing.iter().any(|key| key.starts_with("nginx_"));
        let Some(env) = self.env.filter(|_| injected) else { return };
        let Ok(text) = std::fs::read(KongEnv::path(&facts.prefix, &facts.dialect)) else { return };
        let refused =
            self.prepare(facts, &text).await.err().filter(|f| f.code == "CONF_REFUSED").map(|f| f.message);
        tracing::debug!(owner = env.owner.0, ?refused, "what was armed, rendered again");
        if let Some(Ok(armed)) = &mut facts.armed {
            armed.refused = refused;
        }
    }

    /// In which the next start of this node happens, as far as it can be told.
    fn environment(&self, facts: &Facts) -> Environment {
        let Some(env) = self.env else { return Environment::new() };
        env.as_environment(&from_outside(facts))
    }

    async fn load(&self, facts: &Facts, environment: &Environment) -> Option<Vec<Refused>> {
        let conf = facts.conf()?;
        let mut refused = Vec::new();
        if conf.unmanaged.is_some()
            || (conf.names.is_empty() && LISTS.iter().all(|l| !environment.contains_key(*l)))
        {
            return Some(refused);
        }
        let (mut environment, mut text) = (environment.clone(), self.file.text.clone());
        while refused.len() < MOST_REFUSED {
            let prefix = tag(&facts.prefix);
            let (how, limit) = (Preflight::Boot, self.place.limit);
            let trial = Trial {
                cli: self.cli,
                prefix: &prefix,
                environment: &environment,
                how,
                limit,
                dialect: facts.dialect,
            };
            let Err(failure) = trial.load(&text).await else { break };
            let plugin = super::subject(&failure.message);
            // The others may have something of their own.
            let rest =
                plugin.as_deref().and_then(|name| without(&environment, &text, name, facts.dialect.grammar));
            refused.push(Refused { plugin: plugin.filter(|_| rest.is_some()), failure });
            let Some(rest) = rest else { break };
            (environment, text) = rest;
        }
        Some(refused)
    }

    /// A command of Kong on the node's own file, in a prefix of its own.
    async fn on_conf(
        &self,
        facts: &Facts,
        args: &[&str],
        environment: &Environment,
    ) -> Result<(Scratch, Ended), Failure> {
        let scratch = self.scratch(facts)?;
        let (conf, there) = (scratch.write("kong.conf", &self.file.text)?, scratch.prefix());
        let (conf, there) = (conf.to_string_lossy().into_owned(), there.to_string_lossy().into_owned());
        let args: Vec<&str> = args.iter().copied().chain(["-c", &*conf, "-p", &*there]).collect();
        let ended = self.cli.run(&args, environment, self.place.limit).await?;
        Ok((scratch, ended))
    }

    async fn database(&self, facts: &mut Facts, environment: &Environment) {
        if let (Some(env), State::Running) = (self.env, facts.processes.state)
            && super::database_reachable(env).await == Some(false)
        {
            facts.database = super::trouble("DATABASE_UNREACHABLE", "Kong cannot reach its database");
            return;
        }
        if !facts.dialect.tells_migrations() {
            return;
        }
        match self.on_conf(facts, &["migrations", "list"], environment).await {
            Ok((_, ended)) => {
                let words = ended.words();
                let first = |text: &str| {
                    text.lines()
                        .filter(|l| !l.trim().is_empty() && !l.starts_with("prefix directory"))
                        .take(6)
                        .collect::<Vec<_>>()
                        .join(" ")
                };
                match ended.code {
                    Some(0) => {}
                    Some(3) => facts.database = super::trouble("DATABASE_NEEDS_BOOTSTRAP", first(&words)),
                    Some(4) => {
                        let left = left_to_do(&ended.stdout);
                        facts.database = super::trouble("MIGRATIONS_UNFINISHED", first(left));
                    }
                    Some(5) => {
                        let left = left_to_do(&ended.stdout);
                        facts.database = super::trouble("MIGRATIONS_PENDING", first(left));
                    }
                    _ if words::is_about_database(&words) => {
                        facts.database = super::trouble("DATABASE_UNREACHABLE", words);
                    }
                    // A list that does not load fails here too, and is told of by what tries it.
                    _ => tracing::debug!(words, "the migrations could not be listed"),
                }
            }
            Err(failure) if failure.code == "KONG_HANGS" => {
                facts.database = super::trouble("DATABASE_UNREACHABLE", failure.message);
            }
            Err(failure) => tracing::debug!(%failure, "the migrations could not be listed"),
        }
        let asked = facts.root().is_some()
            || facts.database.trouble.as_ref().is_some_and(|f| f.code.starts_with("DATABASE_"));
        if !asked {
            facts.database.in_use = self.in_use(facts, environment).await;
        }
    }

    /// What is configured, from the database itself: nobody answers for a Kong that is down.
    async fn in_use(&self, facts: &Facts, environment: &Environment) -> Option<BTreeSet<String>> {
        let scratch = self.scratch(facts).ok()?;
        let file = scratch.write("export.yml", b"").ok()?;
        // Kong refuses to write over a file.
        std::fs::remove_file(&file).ok()?;
        let mut environment = environment.clone();
        // With a list that loads, whatever the file's does.
        environment.insert("KONG_PLUGINS".into(), "bundled".into());
        let args = ["config", "db_export", &*file.to_string_lossy()];
        let (_, ended) = self.on_conf(facts, &args, &environment).await.ok()?;
        if !ended.succeeded() {
            tracing::debug!(words = ended.words(), "the configuration could not be exported");
            return None;
        }
        Some(plugin_names(&std::fs::read_to_string(&file).ok()?))
    }

    async fn declarative(&self, facts: &Facts, environment: &Environment) -> Option<Failure> {
        let conf = facts.conf()?;
        let file =
            environment.get("KONG_DECLARATIVE_CONFIG").or_else(|| conf.values.get("declarative_config"))?;
        if facts.database.used || file.is_empty() || facts.refused.as_ref().is_some_and(|r| !r.is_empty()) {
            return None;
        }
        if !Path::new(file).is_file() {
            return Some(Failure::new("DECLARATIVE_CONFIG_INVALID", format!("{file} is not there")));
        }
        let (_, ended) = self.on_conf(facts, &["config", "parse", file], environment).await.ok()?;
        let fine = ended.succeeded()
            || !ended.words().contains("declarative")
                && !ended.words().contains("not enabled")
                && !ended.words().contains("parsing");
        (!fine).then(|| Failure::new("DECLARATIVE_CONFIG_INVALID", ended.words()))
    }
}

/// Environment and file with a list that lacks `name`; `None` if it is not in it.
fn without(
    environment: &Environment,
    text: &[u8],
    name: &str,
    grammar: Grammar,
) -> Option<(Environment, Vec<u8>)> {
    let mut environment = environment.clone();
    // What is in the environment is all that counts, before 0.14 and after.
    if let Some(key) = LISTS.iter().find(|key| environment.contains_key(**key)) {
        let list = environment.get(*key).cloned().unwrap_or_default();
        let names: Vec<&str> = list.split(',').map(str::trim).collect();
        let rest: Vec<&str> = names.iter().copied().filter(|n| *n != name).collect();
        let left = rest.len() < names.len();
        environment.insert((*key).to_owned(), list_of(&rest));
        return left.then(|| (environment, text.to_vec()));
    }
    let conf = NodeConf::parse(text, grammar).ok()?;
    let names = conf.plugins().ok()?;
    if names.iter().all(|n| n != name) {
        return None;
    }
    let ours = OurPath::new(Path::new("/opt/kctl"));
    let generation = conf.generation(&ours);
    let change = Change { remove: [name.to_owned()].into(), generation, ..Change::default() };
    match (conf.edit(&change, &ours), grammar) {
        (Ok(rest), _) => Some((environment, rest)),
        // The file is better edited by its owner, or this was the only name in it.
        (Err(_), Grammar::Conf(style)) if style.lists == Lists::Plugins => {
            let rest: Vec<&str> = names.iter().map(String::as_str).filter(|n| *n != name).collect();
            environment.insert(LISTS[0].into(), list_of(&rest));
            Some((environment, text.to_vec()))
        }
        (Err(_), _) => None,
    }
}

/// What `kong migrations list` says behind the long list of what was done.
fn left_to_do(text: &str) -> &str {
    let at = ["New migrations", "Pending migrations"].iter().filter_map(|mark| text.find(mark)).min();
    at.map_or(text, |at| &text[at..])
}

fn list_of(names: &[&str]) -> String {
    if names.is_empty() { "off".to_owned() } else { names.join(",") }
}

fn tag(prefix: &Path) -> std::path::PathBuf {
    prefix.join("doctor")
}

/// Names of the entities in an exported configuration: the top-level `plugins` list has one object each.
fn plugin_names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        if !line.starts_with([' ', '-', '#']) && !line.is_empty() {
            inside = line.trim_end() == "plugins:";
        }
        let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("  "));
        if let (true, Some(name)) = (inside, item.and_then(|item| item.strip_prefix("name:"))) {
            names.insert(name.trim().trim_matches(['"', '\'']).to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_migrations_only_those_to_come_are_told() {
        let text = "Executed migrations:\n  core: 000_base\n\nNew migrations available:\n  foo: 000_base\n";
        assert_eq!(left_to_do(text), "New migrations available:\n  foo: 000_base\n");
        assert_eq!(left_to_do("other words"), "other words");
    }

    #[test]
    fn names_in_an_export_are_those_of_its_plugins() {
        let text = "_format_version: '3.0'\nservices:\n- name: web\n  host: x\nplugins:\n- config:\n    name: inner\n  name: golden\n  \
                    enabled: false\n- name: \"acl\"\n  tags: ~\nroutes:\n- name: r\n";
        let names: Vec<String> = plugin_names(text).into_iter().collect();
        assert_eq!(names, ["acl", "golden"]);
    }
}
