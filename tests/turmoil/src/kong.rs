//! The port to Kong of one node: the way of the real gateway (edit, prepare, reload, prove, put back), in pieces between
//! which the agent's host can crash and Kong can stop.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use kctl_node_agent::config::Preflight;
use kctl_node_agent::gateway::{EnactError, Gateway, KongObserved, Progress, Wanted};
use kctl_shared::name::PluginName;
use kctl_shared::spec::{Entity, Failure, StepWord};
use rand::RngExt as _;

use crate::node::{Conf, Node};
use crate::world::{Asked, Shared, World, lock, now_ms};

/// How long workers of a former configuration go on serving, in milliseconds.
const LINGER_MS: Range<u64> = 0..1_500;

#[derive(Clone, Debug)]
pub struct Kong {
    pub node: String,
    pub world: Shared,
}

fn down() -> Failure {
    Failure::new("KONG_DOWN", "no master process lives")
}

fn settle(node: &mut Node) {
    node.unproven.clear();
}

impl Kong {
    fn with<R>(&self, look: impl FnOnce(&mut Node) -> R) -> R {
        let mut world = lock(&self.world);
        let node = world.node(&self.node);
        let now = now_ms();
        node.old.retain(|(_, until)| *until > now);
        look(node)
    }

    async fn pause(&self, ms: Range<u64>) {
        let ms = lock(&self.world).rng.random_range(ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Whether a reload to `conf` could be sent: Kong runs, and its Admin API names nothing that the list lacks.
    fn in_the_way(&self, conf: &Conf) -> Result<(), Failure> {
        let mut world = lock(&self.world);
        let in_use = world.in_use();
        let node = world.node(&self.node);
        if !node.up {
            return Err(down());
        }
        let lacking: Vec<_> = in_use.iter().filter(|name| !conf.listed.contains(*name)).collect();
        if node.has_admin_api() && !lacking.is_empty() {
            let message = format!("{lacking:?} in use");
            world.broken("I2", format!("{} is to drop {message}", self.node));
            return Err(Failure::new("IN_USE_NOT_ENABLED", message));
        }
        Ok(())
    }

    fn write(&self, wanted: &Wanted) {
        self.with(|node| {
            let conf = node.conf.edited(wanted);
            node.unproven.extend(node.conf.listed.symmetric_difference(&conf.listed).cloned());
            node.conf = conf;
        });
    }

    fn prepare(&self) {
        self.with(|node| node.armed = node.conf.clone());
    }

    fn reload(&self) {
        let mut world = lock(&self.world);
        if !world.node(&self.node).up {
            return;
        }
        world.judge_load(&self.node);
        let (in_use, until) = (world.in_use(), now_ms() + world.rng.random_range(LINGER_MS));
        let node = world.node(&self.node);
        let taken = node.hup(&in_use, until);
        let loaded: Vec<String> = node.loaded.keys().map(ToString::to_string).collect();
        world.judge_loaded(&self.node);
        world.count(if taken { "reloads" } else { "reloads thrown away by Kong" });
        let loaded = loaded.join(",");
        world.say(format!("{} reloads: {}", self.node, if taken { &loaded } else { "thrown away" }));
    }

    /// What was proven last, and nothing of edits since.
    fn way_back(&self, before: &Wanted) -> Wanted {
        let mut back = before.clone();
        let open: BTreeSet<PluginName> = self.with(|node| node.unproven.clone());
        back.unlisted.extend(open.into_iter().filter(|name| !before.listed.contains_key(name)));
        back
    }

    fn proves(&self, wanted: &Wanted) -> bool {
        self.with(|node| {
            let proves = node.proves(wanted);
            if proves {
                settle(node);
            }
            proves
        })
    }
}

#[async_trait]
impl Gateway for Kong {
    async fn observe(&self) -> KongObserved {
        let in_use = lock(&self.world).in_use();
        self.with(|node| node.observe(&in_use))
    }

    fn old_workers(&self) -> u32 {
        self.with(|node| u32::try_from(node.old.len()).unwrap_or(u32::MAX))
    }

    async fn proven(&self, wanted: &Wanted) -> Result<(), Failure> {
        let proves = self.with(|node| node.proves(wanted));
        proves.then_some(()).ok_or_else(|| Failure::new("NOT_PROVEN", "something else runs"))
    }

    async fn preflight(&self, wanted: &Wanted, _: Preflight) -> Result<(), Failure> {
        self.pause(20..150).await;
        let loads = self.with(|node| node.tries(wanted));
        loads.then_some(()).ok_or_else(|| Failure::new("PREFLIGHT_FAILED", "files are missing"))
    }

    async fn enact(
        &self,
        wanted: &Wanted,
        before: &Wanted,
        progress: Progress<'_>,
    ) -> Result<(), EnactError> {
        if self.proves(wanted) {
            return Ok(());
        }
        self.in_the_way(&self.with(|node| node.conf.edited(wanted))).map_err(EnactError::Waiting)?;
        progress(StepWord::Configuring);
        self.pause(5..60).await;
        self.write(wanted);
        self.pause(10..120).await;
        self.prepare();
        self.pause(5..60).await;
        if let Err(failure) = self.in_the_way(&self.with(|node| node.armed.clone())) {
            self.write(&self.way_back(before));
            self.prepare();
            return Err(EnactError::Waiting(failure));
        }
        progress(StepWord::Reloading);
        self.reload();
        progress(StepWord::Proving);
        self.pause(20..300).await;
        if self.proves(wanted) {
            return Ok(());
        }
        let failure = Failure::new("RELOAD_UNPROVEN", "what was wanted does not run");
        progress(StepWord::RollingBack);
        match self.put_back(before, progress).await {
            Ok(()) => Err(EnactError::PutBack(failure)),
            Err(_) => Err(EnactError::NotPutBack(failure)),
        }
    }

    async fn put_back(&self, before: &Wanted, _: Progress<'_>) -> Result<(), Failure> {
        let back = self.way_back(before);
        if !self.proves(&back) {
            self.write(&back);
            self.pause(10..120).await;
            self.prepare();
            self.in_the_way(&self.with(|node| node.armed.clone()))?;
            self.reload();
            self.pause(20..300).await;
        }
        if self.proves(&back) {
            lock(&self.world).count("put back");
            return Ok(());
        }
        Err(if self.with(|node| node.up) { Failure::new("RELOAD_UNPROVEN", "not back yet") } else { down() })
    }

    async fn scan(&self, plugin: &PluginName) -> Result<Vec<Entity>, Failure> {
        self.pause(5..40).await;
        self.reachable()?;
        let world = lock(&self.world);
        let of = world.entities.values().filter(|(of, _)| of == plugin);
        Ok(of.map(|(_, entity)| entity.clone()).collect())
    }

    async fn delete_entity(&self, id: &str) -> Result<(), Failure> {
        self.pause(5..40).await;
        self.reachable()?;
        let mut world = lock(&self.world);
        let Some((plugin, _)) = world.entities.remove(id) else { return Ok(()) };
        if !matches!(world.wish(&plugin).asked, Some(Asked::Remove(_))) {
            world.broken("I9", format!("{} deleted {id} of {plugin}, which nobody wants removed", self.node));
        }
        world.count("entities deleted");
        world.say(format!("{} deletes {id} of {plugin}", self.node));
        Ok(())
    }

    async fn put_entity(&self, entity: &Entity) -> Result<(), Failure> {
        self.pause(5..40).await;
        self.reachable()?;
        let mut world = lock(&self.world);
        let plugin = plugin_of(entity)?;
        if let Some(lacks) = lacking(&world, &plugin) {
            world.broken("I2", format!("an entity of {plugin} is there again and {lacks} lacks it"));
        }
        world.count("entities re-created");
        world.say(format!("{} re-creates {} of {plugin}", self.node, entity.id));
        world.entities.insert(entity.id.clone(), (plugin, entity.clone()));
        Ok(())
    }
}

impl Kong {
    fn reachable(&self) -> Result<(), Failure> {
        let answers = self.with(|node| node.has_admin_api());
        answers.then_some(()).ok_or_else(|| Failure::new("ADMIN_API_UNREACHABLE", "nobody answers"))
    }
}

/// A node that runs without the plugin.
fn lacking(world: &World, plugin: &PluginName) -> Option<String> {
    let lacks = |n: &&Node| n.up && !n.loaded.contains_key(plugin);
    world.nodes.values().find(lacks).map(|n| n.name.clone())
}

fn plugin_of(entity: &Entity) -> Result<PluginName, Failure> {
    let body: serde_json::Value = serde_json::from_str(&entity.body).unwrap_or_default();
    let name = body["name"].as_str().unwrap_or_default();
    PluginName::parse(name).map_err(|e| Failure::new("ENTITY_REFUSED", e.message))
}
