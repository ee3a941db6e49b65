//! Does what findings say can be done, through the agent's own hands: its editor, prepare, reload, proof.
//!
//! kong.conf is changed only to something that a scratch Kong loads, and a Kong that does not take it gets its former
//! file back. Nothing is deleted but a stale pid file, no entity is touched, and no Kong is started.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kctl_shared::spec::Failure;
use rustix::process::{Pid, Signal};

use super::facts::Conf;
use super::gather::{Place, armed_env, subject, user};
use super::origin::from_outside;
use super::{Facts, Finding, Repair, checks, lines};
use crate::config::{Apply, Preflight};
use crate::gateway::cli::Cli;
use crate::gateway::conf_file::ConfFile;
use crate::gateway::dialect::{Takes, Trials};
use crate::gateway::effective::Environment;
use crate::gateway::kong::{Kong, KongConfig, Limits};
use crate::gateway::kong_conf::{Change, OurPath};
use crate::gateway::node_conf::NodeConf;
use crate::gateway::preflight::Trial;
use crate::gateway::process::Tree;
use crate::gateway::scratch::Scratch;
use crate::gateway::{Gateway as _, Wanted};

const TURNOVER: Duration = Duration::from_secs(6);
const POLL: Duration = Duration::from_millis(100);

/// Names that a corrected line brings back and that do not load are left out again, one after the other; mistakes behind
/// mistakes are corrected as often.
const MOST_LEFT_OUT: usize = 5;

/// Does the repairs of `findings`; `migrate` permits the one that changes the database. Returns why names that only a
/// repair had brought back into the list were left out.
///
/// # Errors
/// What kept one of them from being done; those before it were done.
pub async fn repair(
    place: &Place,
    facts: &Facts,
    findings: &[Finding],
    migrate: bool,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Failure>, Failure> {
    let repairs: Vec<&Repair> = findings.iter().filter_map(|f| f.repair.as_ref()).collect();
    for repair in &repairs {
        at_once(repair)?;
    }
    let shell = Shell::new(place, facts)?;
    if migrate && repairs.contains(&&Repair::Migrate) {
        progress("kong migrations up");
        shell.migrate().await?;
    }
    if !repairs.iter().any(|repair| repair.loads()) {
        return Ok(Vec::new());
    }
    let mut edited = shell.edited(&repairs)?;
    progress("the new kong.conf in a scratch Kong");
    let mut left_out = Vec::new();
    while let Err(failure) = shell.try_out(&edited).await {
        let less = (left_out.len() < MOST_LEFT_OUT).then(|| shell.without(&edited, &failure)).flatten();
        edited = less.ok_or_else(|| failure.clone())?;
        left_out.push(failure);
    }
    progress("loading kong.conf and proving it");
    shell.load(&edited).await?;
    Ok(left_out)
}

fn at_once(repair: &Repair) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Failure::new("REPAIR_FAILED", format!("{path}: {error}"))
    };
    match repair {
        Repair::Readable(paths) => paths.iter().try_for_each(|path| {
            let mode = fs::metadata(path).map_err(failed(path))?.permissions().mode();
            let more = if path.is_dir() { 0o555 } else { 0o444 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode | more)).map_err(failed(path))
        }),
        Repair::Owner { path, user, group } => {
            lchown(path, Some(*user), Some(*group)).map_err(failed(path))?;
            let all = fs::read_dir(path).map_err(failed(path))?.flatten().map(|e| e.path());
            all.filter(|p| !p.is_dir())
                .try_for_each(|p| lchown(&p, Some(*user), Some(*group)).map_err(failed(&p)))
        }
        Repair::RemoveFile(path) => match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(path)(error)),
            _ => Ok(()),
        },
        Repair::Continue(pid) => signal(*pid, Signal::CONT),
        Repair::End(pids) => pids.iter().try_for_each(|pid| signal(*pid, Signal::TERM)),
        Repair::List { .. } | Repair::Lines(_) | Repair::Load | Repair::Migrate => Ok(()),
    }
}

fn signal(pid: i32, signal: Signal) -> Result<(), Failure> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    match rustix::process::kill_process(pid, signal) {
        // Gone by itself.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => {
            Err(Failure::new("REPAIR_FAILED", format!("process {pid:?} could not be signalled: {error}")))
        }
    }
}

struct Shell<'a> {
    place: &'a Place,
    facts: &'a Facts,
    file: ConfFile,
    cli: Cli,
    environment: Environment,
    ours: OurPath,
    /// The adapter wants a place for its memory; this one is forgotten.
    state: tempfile::TempDir,
}

impl<'a> Shell<'a> {
    fn new(place: &'a Place, facts: &'a Facts) -> Result<Self, Failure> {
        let file = ConfFile::read(&place.conf, facts.dialect.grammar)?;
        let env = armed_env(Ok(&file), facts).ok();
        // What comes from outside stays; what the file says is what is wanted.
        let environment =
            env.as_ref().map(|env| env.as_environment(&from_outside(facts))).unwrap_or_default();
        let lua_dir = lua_dir(&file.conf).unwrap_or_else(|| "/opt/kctl".into());
        Ok(Self {
            place,
            facts,
            cli: Cli { bin: place.bin.clone(), user: user(env.as_ref()), open_files: None },
            environment,
            ours: OurPath::new(&lua_dir),
            state: tempfile::tempdir().map_err(|e| Failure::new("SCRATCH_FAILED", e.to_string()))?,
            file,
        })
    }

    fn lua_dir(&self) -> PathBuf {
        lua_dir(&self.file.conf).unwrap_or_else(|| "/opt/kctl".into())
    }

    /// The file with every edit made.
    fn edited(&self, repairs: &[&Repair]) -> Result<Vec<u8>, Failure> {
        let mut edits = Vec::new();
        let mut change = Change { generation: self.file.conf.generation(&self.ours), ..Change::default() };
        for repair in repairs {
            match repair {
                Repair::Lines(lines) => edits.extend(lines.iter().cloned()),
                Repair::List { add, remove } => {
                    change.add.extend(add.iter().cloned());
                    change.remove.extend(remove.iter().cloned());
                }
                _ => {}
            }
        }
        let text = self.settled(with_lines(&self.file.text, &edits), !edits.is_empty());
        change.remove.retain(|name| !change.add.contains(name));
        if change.add.is_empty() && change.remove.is_empty() {
            return Ok(text);
        }
        Ok(NodeConf::parse(&text, self.facts.dialect.grammar)?.edit(&change, &self.ours)?)
    }

    /// A corrected line may show the next mistake, such as quotation marks behind a key that Kong did not know: those
    /// that need no consent are corrected at once, because the file would not load as it is.
    fn settled(&self, mut text: Vec<u8>, corrected: bool) -> Vec<u8> {
        for _ in 0..MOST_LEFT_OUT {
            let (true, Some(conf)) = (corrected, self.facts.conf()) else { break };
            let Ok(read) = NodeConf::parse(&text, self.facts.dialect.grammar) else { break };
            let names = read.plugins();
            let conf = Conf {
                lines: lines::scan(&text),
                values: read.to_map(),
                unmanaged: names.as_ref().err().map(|e| e.clone().into()),
                names: names.unwrap_or_default(),
                ..conf.clone()
            };
            let facts = Facts { conf: Some(Ok(conf)), ..self.facts.clone() };
            let found = checks::conf::check(&facts);
            let more = found.iter().filter(|f| !f.asks).find_map(|f| match &f.repair {
                Some(Repair::Lines(edits)) => Some(edits),
                _ => None,
            });
            let Some(more) = more else { break };
            text = with_lines(&text, more);
        }
        text
    }

    /// The file without the plugin that Kong refuses, if the node never had it and nothing uses it: it stood in a line
    /// that did not count.
    fn without(&self, text: &[u8], failure: &Failure) -> Option<Vec<u8>> {
        let name = subject(&failure.message)?;
        let conf = NodeConf::parse(text, self.facts.dialect.grammar).ok()?;
        let had = |names: &[String]| names.contains(&name);
        let new = conf.plugins().is_ok_and(|names| had(&names))
            && !self.facts.conf().is_some_and(|conf| had(&conf.names))
            && !self.facts.armed().is_some_and(|armed| had(&armed.names));
        let unused = self.facts.in_use().is_some_and(|used| !used.contains(&name));
        if !(new && unused && failure.code == "NO_HANDLER") {
            return None;
        }
        let generation = conf.generation(&self.ours);
        let change = Change { remove: [name].into(), generation, ..Change::default() };
        conf.edit(&change, &self.ours).ok()
    }

    async fn try_out(&self, text: &[u8]) -> Result<(), Failure> {
        if self.facts.dialect.trials == Trials::None {
            return Ok(());
        }
        let prefix = self.facts.prefix.join("doctor");
        let (how, limit) = (Preflight::Boot, self.place.limit);
        let trial = Trial {
            cli: &self.cli,
            prefix: &prefix,
            environment: &self.environment,
            how,
            limit,
            dialect: self.facts.dialect,
        };
        match trial.load(text).await {
            Err(failure) if failure.code == "INIT_WORKER_FAILED" && self.facts.database.used => Ok(()),
            verdict => verdict,
        }
    }

    fn kong(&self) -> Kong {
        let config = KongConfig {
            bin: self.place.bin.clone(),
            conf: self.place.conf.clone(),
            prefix: self.facts.prefix.clone(),
            state_dir: self.state.path().to_path_buf(),
            lua_dir: self.lua_dir(),
            preflight: Preflight::Boot,
            apply: Apply::default(),
        };
        Kong::beside(config, Limits { command: self.place.limit, ..Limits::default() })
    }

    async fn load(&self, text: &[u8]) -> Result<(), Failure> {
        let backups = backups();
        if text != self.file.text {
            self.file.replace_keeping(text, &backups)?;
        }
        let kong = self.kong();
        if Tree::of(&self.facts.prefix).is_none() {
            // Whoever starts it prepares it.
            return Ok(());
        }
        let Err(failure) = kong.load(&self.environment).await else {
            self.turned_over().await;
            return Ok(());
        };
        if text == self.file.text {
            return Err(failure);
        }
        let back = ConfFile::read(&self.place.conf, self.facts.dialect.grammar)
            .map_err(Failure::from)
            .and_then(|now| now.replace_keeping(&self.file.text, &backups).map_err(Failure::from));
        let back = match back {
            // A restart that failed left nothing running.
            Ok(()) if self.facts.dialect.takes == Takes::Restart => {
                let generation = self.file.conf.generation(&self.ours);
                kong.put_back(&Wanted { generation, ..Wanted::default() }, &|_| {}).await
            }
            Ok(()) => kong.arm(&self.environment).await,
            Err(failure) => Err(failure),
        };
        let then = match back {
            Ok(()) => "kong.conf was put back".to_owned(),
            Err(other) => {
                format!("kong.conf could not be put back ({other}); its copy is in {}", backups.display())
            }
        };
        Err(Failure { message: format!("{}; {then}", failure.message), ..failure })
    }

    /// Idle workers of the former configuration leave within a few seconds.
    async fn turned_over(&self) {
        let deadline = tokio::time::Instant::now() + TURNOVER;
        let lingers = || Tree::of(&self.facts.prefix).is_some_and(|tree| tree.draining().next().is_some());
        while lingers() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }

    async fn migrate(&self) -> Result<(), Failure> {
        // In a prefix of its own: what is rendered in the real one would be read instead of the file.
        let scratch = Scratch::new(&self.facts.prefix.join("doctor"), self.cli.user)?;
        let (conf, there) = (scratch.write("kong.conf", &self.file.text)?, scratch.prefix());
        let args = ["migrations", "up", "-c", &*conf.to_string_lossy(), "-p", &*there.to_string_lossy()];
        let ended = self.cli.run(&args, &self.environment, self.place.limit * 5).await?;
        if ended.succeeded() { Ok(()) } else { Err(Failure::new("REPAIR_FAILED", ended.words())) }
    }
}

/// Copies of kong.conf: where an agent keeps its own, or beside the user's other files of that kind.
fn backups() -> PathBuf {
    let state = Path::new("/var/lib/kctl-node-agent");
    if state.is_dir() && rustix::process::geteuid().is_root() {
        return state.join("backup");
    }
    let uid = rustix::process::geteuid().as_raw();
    std::env::var_os("XDG_STATE_HOME").map_or_else(
        || std::env::temp_dir().join(format!("kctl-backup-{uid}")),
        |d| PathBuf::from(d).join("kctl/backup"),
    )
}

/// `LUA_DIR` of the first `LUA_DIR/gen/N` in the file's Lua path.
fn lua_dir(conf: &NodeConf) -> Option<PathBuf> {
    let path = conf.get("lua_package_path")?;
    path.split(';').find_map(|entry| {
        let directory = Path::new(entry.strip_suffix("/?.lua")?);
        let generations = directory.parent().filter(|g| g.ends_with("gen"))?;
        directory.file_name()?.to_str()?.parse::<u64>().ok()?;
        Some(generations.parent()?.to_path_buf())
    })
}

/// Replaces or drops whole lines, everything else byte for byte the same.
fn with_lines(text: &[u8], edits: &[(usize, Option<String>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (index, line) in text.split_inclusive(|b| *b == b'\n').enumerate() {
        match edits.iter().find(|(number, _)| *number == index + 1) {
            None => out.extend_from_slice(line),
            Some((_, None)) => {}
            Some((_, Some(new))) => {
                out.extend_from_slice(new.as_bytes());
                let end = line.len() - line.iter().rev().take_while(|b| matches!(b, b'\r' | b'\n')).count();
                out.extend_from_slice(&line[end..]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::dialect::Grammar;

    #[test]
    fn only_the_lines_named_change() {
        let text = b"a = 1\r\n# c\nplugin = x\nb = 2";
        let edits = [(3, Some("plugins = x".to_owned())), (1, None)];
        assert_eq!(with_lines(text, &edits), b"# c\nplugins = x\nb = 2");
        assert_eq!(with_lines(text, &[(1, Some("z = 3".into()))]), b"z = 3\r\n# c\nplugin = x\nb = 2");
    }

    #[test]
    fn our_directory_is_read_off_the_path() {
        let text = |path: &str| format!("lua_package_path = {path}\n");
        let conf = |path: &str| NodeConf::parse(text(path).as_bytes(), Grammar::default()).unwrap();
        assert_eq!(
            lua_dir(&conf("/opt/kctl/gen/7/?.lua;/opt/kctl/gen/7/?/init.lua;./?.lua")),
            Some("/opt/kctl".into())
        );
        assert_eq!(lua_dir(&conf("/srv/gen/x/?.lua;./?.lua")), None);
    }
}
