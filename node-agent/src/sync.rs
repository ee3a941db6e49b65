//! The boot gate: `sync --once`, run before Kong starts.
//!
//! Makes the node's files, generation directory and kong.conf such that the Kong which starts next comes up with the
//! plugins its group's configuration refers to: as the control plane says now, or as it said last when it is away. Nothing
//! is prepared and nobody is signalled: whoever starts Kong prepares it, in the environment that only it knows. An agent
//! that starts later finds everything in place and proves it without a reload.

pub mod plan;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches};
use kctl_shared::daemon::Daemon;
use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;
use kctl_shared::network::{Tcp, dialer};
use kctl_shared::spec::{Failure, NodeStatus, ReleaseRef};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::ArtifactSource as _;
use crate::config::Config;
use crate::gateway::kong::{Kong, Limits};
use crate::gateway::{Gateway as _, Wanted};
use crate::ledger::Ledger;
use crate::packages::{Links, Packages};
use crate::session::members::Members;
use crate::session::{Downloads, Home, Identity, Session};

/// Longest time for one artifact from one member.
const FETCH: Duration = Duration::from_secs(60);

/// Runs the gate; exit code 0 when Kong may start.
pub fn main(daemon: Daemon, args: Vec<OsString>) -> ExitCode {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let wait = Arg::new("wait").long("wait").default_value("30s").value_parser(duration);
    let command = daemon
        .command()
        .about("Makes this node ready before Kong starts: files and kong.conf as its group needs them, then ends")
        .after_help("Ends with 0 when Kong may start, with 1 when it would not come up as it should.")
        .arg(flag("once").required(true).help("Do it once and end"))
        .arg(wait.value_name("DURATION").help("How long the control plane is waited for before its last word counts"))
        .arg(flag("best-effort").help("Let Kong start with what there is when something fails"));
    daemon.main_of(command, args, |args, config, shutdown| {
        let options = Options::of(args);
        async move {
            let config = Config::load(&config)?;
            let ended = tokio::select! {
                () = shutdown.cancelled() => Err(Fault::new("INTERRUPTED", "told to end before the node was ready").hint("run it again")),
                ended = gate(&config, &options) => ended,
            };
            match ended {
                Ok(report) => println!("✔ {report}; Kong may start"),
                Err(fault) if options.best_effort => {
                    eprintln!("⚠ {fault}\n  Kong starts with what there is (--best-effort)");
                }
                Err(fault) => return Err(fault),
            }
            Ok(())
        }
    })
}

/// `30s`, `5m`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a duration such as 30s"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("{text:?} is not a duration such as 30s")),
    }
}

/// What the command line said.
#[derive(Clone, Debug)]
pub struct Options {
    pub wait: Duration,
    pub best_effort: bool,
}

impl Options {
    fn of(args: &ArgMatches) -> Self {
        Self {
            wait: args.get_one("wait").copied().unwrap_or(Duration::from_secs(30)),
            best_effort: args.get_flag("best-effort"),
        }
    }
}

/// Makes the node ready; the answer is a sentence on what it will come up with.
///
/// # Errors
/// `NO_SPEC`, `AGENT_RUNNING`, `FETCH_FAILED`, `FILES_CHANGED`, `ENV_OVERRIDES_CONF`, the codes of kong.conf, and those of a
/// list that does not load. kong.conf is untouched after each.
pub async fn gate(config: &Config, options: &Options) -> Result<String, Fault> {
    let mut ledger = match Ledger::open(&config.state_dir, &config.node) {
        Err(fault) if fault.code == "AGENT_RUNNING" => return beside_agent(config),
        opened => opened?,
    };
    let located = config.kong()?;
    let kong = Kong::with_limits(located.clone(), Limits::default());
    let seen = kong.observe().await;
    if seen.facts.master_pid != 0 {
        return Ok("Kong runs already and nothing was changed".into());
    }
    let status = NodeStatus { kong: seen.facts.clone(), ..NodeStatus::default() };
    let answered = learn(config, options.wait, &mut ledger, status).await;
    let record = ledger.record();
    let spec = record.spec.clone().ok_or_else(|| {
        Fault::new(
            "NO_SPEC",
            format!(
                "no member answered within {:?}, and node {} has no spec from before",
                options.wait, config.node
            ),
        )
        .hint("start the control plane, or let Kong start as it is: --best-effort")
    })?;
    let names = match (&seen.conf_plugins, &seen.trouble) {
        (Some(names), _) => names.clone(),
        (None, Some(trouble)) => return Err(fault(trouble.clone())),
        (None, None) => Vec::new(),
    };
    let plan = plan::plan(&spec, record, &names);
    plan.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let lua_path = seen.lua_path.as_deref();
    let packages = Packages::open(&config.lua_dir, config.kong.luarocks.clone())?;
    for (plugin, release) in &plan.wanted.listed {
        ensure(config, &packages, plugin, release, lua_path).await?;
    }
    packages.deploy(&plan.wanted).await.map_err(fault)?;
    let mut wanted = plan.wanted;
    let own = own_environment();
    overridden(&wanted, &own)?;
    let reused = seen.conf_generation.filter(|g| packages.links_exactly(g, &wanted));
    let made = reused.is_none();
    wanted.generation = match reused {
        Some(generation) => Some(generation),
        None => packages.link(ledger.next_generation(), &wanted, Links::Placed).map_err(fault)?,
    };
    if located.bin.is_file() {
        if let Err(failure) = kong.try_out(&wanted, &own).await {
            // Nothing names it, and the agent would take it away as well.
            wanted.generation.filter(|_| made).map(std::fs::remove_dir_all);
            return Err(fault(failure));
        }
    } else {
        tracing::warn!(bin = %located.bin.display(), "there is no Kong to try the list with");
    }
    // Before it is written: a name in the directive that is nobody's would be taken for somebody else's.
    let listed: Vec<PluginName> = wanted.listed.keys().cloned().collect();
    ledger.update("ledger.managed", |r| r.managed.extend(listed));
    match kong.arrange(&wanted).await {
        Ok(changed) => Ok(sentence(&wanted, answered, spec.generation, changed)),
        Err(failure) if failure.code == "KONG_RUNNING" => Ok(failure.message),
        Err(failure) => Err(fault(failure)),
    }
}

fn fault(failure: Failure) -> Fault {
    let hint = format!("kctl explain {}", failure.code);
    Fault::new(&failure.code, failure.message).hint(hint)
}

/// Asks the control plane what the node should be; whether it answered.
async fn learn(config: &Config, wait: Duration, ledger: &mut Ledger, status: NodeStatus) -> bool {
    let (specs, mut incoming) = mpsc::channel(1);
    let (_status, reported) = watch::channel(status);
    let (lease, _lease) = watch::channel(None);
    let (_accepted, accepted) = watch::channel(ledger.record().spec.clone());
    let (current, _current) = watch::channel(Home::configured(&config.control_plane[0]));
    let identity = Identity {
        node: config.node.to_string(),
        group: config.group.to_string(),
        nonce: ledger.record().nonce.clone(),
        boot: ledger.record().boot,
    };
    let dialer = dialer(Arc::new(Tcp), config.insecure);
    let session = Session {
        identity,
        members: Members::open(config.control_plane.clone(), &config.state_dir, dialer.clone()),
        dialer,
        specs,
        accepted,
        status: reported,
        lease,
        current,
        packages: Packages::beside(&config.lua_dir),
        references: None,
    };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(session.run(shutdown.clone()));
    let heard = tokio::time::timeout(wait, incoming.recv()).await;
    shutdown.cancel();
    // A connection attempt under way is not worth waiting for.
    running.abort();
    match heard {
        Ok(Some(spec)) => match ledger.accept(spec) {
            Ok(_) => true,
            Err(fault) => {
                tracing::warn!(%fault, "the spec was refused; the one from before counts");
                false
            }
        },
        Ok(None) | Err(_) => {
            tracing::warn!("no member answered; the spec from before counts");
            false
        }
    }
}

/// The files of a release, re-hashed from disk, fetched when they are not what they should be.
async fn ensure(
    config: &Config,
    packages: &Packages,
    plugin: &PluginName,
    release: &ReleaseRef,
    lua_path: Option<&str>,
) -> Result<(), Fault> {
    let (placement, version) = (release.placement(), &release.version);
    if packages.verify(plugin, &placement) {
        return Ok(());
    }
    let there = packages.stored().get(plugin).is_some_and(|stored| stored.contains(&placement));
    let mut why = String::new();
    for url in &config.control_plane {
        let (_sender, current) = watch::channel(Home::configured(url));
        let source = Downloads { current, dialer: dialer(Arc::new(Tcp), config.insecure) };
        match tokio::time::timeout(FETCH, source.fetch(&release.digest)).await {
            Ok(Ok(bytes)) => {
                return packages.stage(plugin, release, bytes, lua_path).await.map_err(fault);
            }
            Ok(Err(fault)) => why = fault.to_string(),
            Err(_) => why = format!("{url} did not send it within {FETCH:?}"),
        }
    }
    let (code, what) = if there {
        ("FILES_CHANGED", "are not those of the release")
    } else {
        ("FETCH_FAILED", "are not on this node")
    };
    Err(Fault::new(code, format!("the files of {plugin} {version} {what}, and no member sent them ({why})"))
        .hint("start the control plane and run this again; --best-effort lets Kong start all the same"))
}

/// `KONG_…` variables of whoever runs this: in a container and in a unit's drop-in they are Kong's own.
fn own_environment() -> BTreeMap<String, String> {
    let all = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    all.filter(|(key, _)| key.starts_with("KONG_")).collect()
}

fn overridden(wanted: &Wanted, own: &BTreeMap<String, String>) -> Result<(), Fault> {
    let listed = |names: &str| {
        wanted.listed.keys().all(|plugin| names.split(',').any(|n| n.trim() == plugin.as_str()))
    };
    let nginx: Vec<String> =
        wanted.nginx().iter().map(|s| format!("KONG_{}", s.key.to_uppercase())).collect();
    let key = if own.get("KONG_PLUGINS").is_some_and(|names| !listed(names)) {
        "KONG_PLUGINS"
    } else if own.contains_key("KONG_LUA_PACKAGE_PATH") && !wanted.listed.is_empty() {
        "KONG_LUA_PACKAGE_PATH"
    } else if let Some(key) = nginx.iter().find(|key| own.contains_key(*key)) {
        key
    } else {
        return Ok(());
    };
    Err(Fault::new(
        "ENV_OVERRIDES_CONF",
        format!("{key} is set where Kong is started, and wins over kong.conf"),
    )
    .hint(format!("take {key} away there")))
}

/// An agent has the state: nothing is touched, and Kong may start if everything is in place.
fn beside_agent(config: &Config) -> Result<String, Fault> {
    let record = Ledger::peek(&config.state_dir)?;
    let running = |why: String| {
        Err(Fault::new(
            "AGENT_RUNNING",
            format!("an agent works on this node, so nothing was changed, and {why}"),
        )
        .hint("stop the agent, run this, then start Kong and the agent"))
    };
    let Some(spec) = record.spec.clone() else {
        return running("it has not heard yet what the node should be".into());
    };
    let kong = Kong::beside(config.kong()?, Limits::default());
    let (names, generation) = kong.written().map_err(fault)?;
    let plan = plan::plan(&spec, &record, &names);
    let packages = Packages::beside(&config.lua_dir);
    for (plugin, release) in &plan.wanted.listed {
        if !names.iter().any(|name| name == plugin.as_str()) {
            return running(format!("kong.conf does not list {plugin}"));
        }
        if !packages.verify(plugin, &release.placement()) {
            return running(format!(
                "the files of {plugin} {} are not those of the release",
                release.version
            ));
        }
    }
    let linked =
        generation.as_ref().is_some_and(|generation| packages.links_exactly(generation, &plan.wanted));
    if !plan.wanted.listed.is_empty() && !linked {
        return running("kong.conf names another directory of plugins".into());
    }
    Ok("an agent works on this node; nothing was changed, and all is in place".into())
}

fn sentence(wanted: &Wanted, answered: bool, generation: u64, changed: bool) -> String {
    let names: Vec<String> = wanted.listed.iter().map(|(name, r)| format!("{name} {}", r.version)).collect();
    let names = if names.is_empty() { "no plugin of kctl's".to_owned() } else { names.join(", ") };
    let source = if answered { "as the control plane says" } else { "as the control plane said last" };
    let done = if changed { "kong.conf was written" } else { "kong.conf was right already" };
    format!("{names}, {source} (generation {generation}); {done}")
}
