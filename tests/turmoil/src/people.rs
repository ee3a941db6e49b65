//! Somebody who has one plugin installed, upgraded, configured and removed, again and again, through whatever happens; and
//! who looks, once the faults have stopped, whether every node has what they were told.

mod calls;
mod verify;

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use kctl_shared::name::PluginName;
use kctl_shared::network::{Dialer, dialer};
use kctl_shared::package::{Limits, Package};
use kctl_shared::proto::v1::node_service_client::NodeServiceClient;
use kctl_shared::proto::v1::operation_service_client::OperationServiceClient;
use kctl_shared::proto::v1::{GetOperationRequest, ListNodesRequest, OperationView, RolloutPolicy};
use kctl_shared::spec::Entity;
use rand::RngExt as _;
use rand::rngs::SmallRng;

use crate::chaos::{MEMBERS, NODES};
use crate::network::Simulated;
use crate::node::Node;
use crate::run::url;
use crate::world::{Asked, Shared, World, lock, now_ms};

/// Everything that is asked for in calm is done within this.
const CALM_MS: u64 = 150_000;

/// Ends the run.
type Broken = String;

pub struct Person {
    plugin: PluginName,
    world: Shared,
    rng: SmallRng,
    dialer: Dialer,
    leader: String,
    turn: usize,
    /// Of the newest release that was made.
    minor: u32,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "whoever has {}", self.plugin)
    }
}

impl Person {
    pub fn new(plugin: &str, world: Shared, rng: SmallRng) -> Self {
        Self {
            plugin: plugin.parse().expect("a valid name"),
            world,
            rng,
            dialer: dialer(Arc::new(Simulated), true),
            leader: url(MEMBERS[0]),
            turn: 0,
            minor: 0,
        }
    }

    /// Until an operation that was begun in calm succeeded and every node is as it says.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn live(mut self) -> Result<(), Broken> {
        self.until_nodes_are_there().await?;
        loop {
            let calm = self.world().calm;
            let ended = self.operate(calm).await?;
            match ended {
                Some(view) if calm && view.phase != "Succeeded" => {
                    return Err(format!(
                        "liveness: in calm {} ended {}: {:?}",
                        view.kind, view.phase, view.error
                    ));
                }
                Some(_) if calm => return self.verify().await,
                _ => self.rest(50..2_000).await,
            }
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    async fn rest(&mut self, ms: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(ms))).await;
    }

    /// Whether calm has lasted for too long.
    fn late(&self, since: u64) -> bool {
        self.world().calm && now_ms() > since + CALM_MS
    }

    async fn until_nodes_are_there(&mut self) -> Result<(), Broken> {
        let since = now_ms();
        loop {
            let listed =
                self.call(|c| async { NodeServiceClient::new(c).list(ListNodesRequest::default()).await });
            if listed.await.is_ok_and(|l| l.nodes.len() == NODES.len()) {
                return Ok(());
            }
            if self.late(since) {
                return Err("liveness: not all nodes are known".into());
            }
            self.rest(100..500).await;
        }
    }

    /// One operation to its end; `None` when it was refused.
    async fn operate(&mut self, calm: bool) -> Result<Option<OperationView>, Broken> {
        let present = self.world().wish(&self.plugin.clone()).present;
        let request_id = uuid(self.rng.random());
        let (asked, id) = match present.filter(|_| self.rng.random_bool(0.5)) {
            Some(digest) => {
                self.ask(Asked::Remove(digest));
                (Asked::Remove(digest), self.remove(request_id).await?)
            }
            None => {
                let package = self.package(calm);
                let asked = Asked::Install(package.digest());
                self.ask(asked);
                (asked, self.install(&package, request_id, calm).await?)
            }
        };
        let Some(id) = id else {
            self.world().wish(&self.plugin.clone()).asked = None;
            return Ok(None);
        };
        let view = self.until_ended(&id, asked, calm).await?;
        self.learn(asked, &view);
        if view.phase == "Succeeded" && matches!(asked, Asked::Install(_)) && self.rng.random_bool(0.7) {
            self.configure();
        }
        Ok(Some(view))
    }

    fn ask(&self, asked: Asked) {
        let mut world = self.world();
        world.say(format!("{}: {asked:?}", self.plugin));
        let wish = world.wish(&self.plugin);
        wish.asked = Some(asked);
        if let Asked::Install(digest) = asked {
            wish.tried.insert(digest);
        }
    }

    fn learn(&self, asked: Asked, view: &OperationView) {
        let mut world = self.world();
        let why = view.error.as_ref().map(|e| e.code.clone()).unwrap_or_default();
        world.say(format!("{}: {} {} {why}", self.plugin, view.kind, view.phase));
        let wish = world.wish(&self.plugin);
        wish.asked = None;
        let configured = wish.configured.clone();
        let what = match (view.phase.as_str(), asked) {
            ("Succeeded", Asked::Install(digest)) => {
                let upgraded = wish.present.replace(digest).is_some();
                wish.tried.clear();
                if upgraded { "upgrades succeeded" } else { "installs succeeded" }
            }
            ("Succeeded", Asked::Remove(_)) => {
                wish.present = None;
                wish.configured.clear();
                wish.tried.clear();
                "removals succeeded"
            }
            (_, Asked::Install(_)) => "installs and upgrades rolled back",
            (_, Asked::Remove(_)) => "removals called off",
        };
        world.count(what);
        // Gone with the plugin, or there as they were.
        let gone = what == "removals succeeded";
        let wrong = configured.into_iter().find(|id| world.entities.contains_key(id) == gone);
        if let Some(id) = wrong {
            let is = if gone { "is there" } else { "is not there" };
            world.broken("I9", format!("{id} of {} {is} after {what}", self.plugin));
        }
    }

    /// A new release, in chaos now and then one that does not load on one of the nodes.
    fn package(&mut self, calm: bool) -> Package {
        self.minor += 1;
        let version = format!("0.{}.0", self.minor);
        let poison = if !calm && self.rng.random_bool(0.12) {
            format!("-- poison for {}\n", NODES[self.rng.random_range(0..NODES.len())])
        } else {
            String::new()
        };
        let handler = format!("{poison}return {{ PRIORITY = 801, VERSION = \"{version}\" }}\n").into_bytes();
        let schema = format!("return {{ name = \"{}\", fields = {{}} }}\n", self.plugin).into_bytes();
        let files = vec![("handler.lua".to_owned(), handler.clone()), ("schema.lua".to_owned(), schema)];
        let mut package =
            Package::new(self.plugin.clone(), files, &Limits::default()).expect("a good package");
        package.version = version;
        self.world().releases.insert(package.digest(), handler);
        package
    }

    fn policy(&mut self, calm: bool) -> RolloutPolicy {
        let waves: &[&str] =
            [&["100%"] as &[_], &["1", "100%"], &["1", "25%", "100%"]][self.rng.random_range(0..3)];
        let deadline = if calm { 300_000 } else { [8_000, 60_000, 300_000][self.rng.random_range(0..3)] };
        RolloutPolicy {
            waves: waves.iter().map(|w| (*w).to_owned()).collect(),
            max_parallel: self.rng.random_range(1..=2).to_string(),
            node_deadline_ms: deadline,
            ..RolloutPolicy::default()
        }
    }

    async fn until_ended(&mut self, id: &str, asked: Asked, calm: bool) -> Result<OperationView, Broken> {
        let since = now_ms();
        let mut call_off = !calm && matches!(asked, Asked::Remove(_)) && self.rng.random_bool(0.2);
        loop {
            self.rest(200..600).await;
            let get = GetOperationRequest { id: id.to_owned() };
            let got = self.call(|c| async { OperationServiceClient::new(c).get(get).await }).await;
            match got {
                Ok(view)
                    if matches!(view.phase.as_str(), "Succeeded" | "Failed" | "Aborted" | "Compensated") =>
                {
                    return Ok(view);
                }
                Ok(view) if view.phase == "Paused" => self.again(id).await,
                Ok(view) if self.late(since) => {
                    return Err(format!(
                        "liveness: {} {} stands at {}: {:?}",
                        self.plugin, view.kind, view.phase, view.waiting_on
                    ));
                }
                Ok(_) if call_off && self.rng.random_bool(0.3) => {
                    call_off = false;
                    self.call_off(id).await;
                }
                Ok(_) => {}
                Err(fault) if fault.code.contains("NOT_FOUND") => {
                    return Err(format!("I4: {id} of {} was acknowledged: {fault}", self.plugin));
                }
                Err(fault) if self.late(since) => {
                    return Err(format!("liveness: nobody tells of {id}: {fault}"));
                }
                Err(_) => {}
            }
        }
    }

    /// Makes use of the plugin on a node whose Admin API answers.
    fn configure(&mut self) {
        let id = uuid(self.rng.random());
        let mut world = self.world();
        let takes = |n: &&Node| n.has_admin_api() && n.loaded.contains_key(&self.plugin);
        if world.nodes.values().find(takes).is_none() {
            return;
        }
        let entity = Entity {
            id: id.clone(),
            scope: "global".into(),
            target: String::new(),
            body: serde_json::json!({ "id": id, "name": self.plugin.as_str() }).to_string(),
            workspace: "default".into(),
        };
        world.say(format!("{}: configured as {id}", self.plugin));
        world.count("plugins configured");
        world.wish(&self.plugin).configured.insert(id.clone());
        world.entities.insert(id, (self.plugin.clone(), entity));
    }
}

/// A UUID of version 4.
fn uuid(bits: u128) -> String {
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
