//! The agent's whole loop on one node, driven by specs alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "crash_points/agent.rs"]
#[allow(dead_code, reason = "shared with the tests of crash points")]
mod agent;
#[allow(dead_code, reason = "shared with the tests of the gateway")]
#[path = "gateway_kong/database.rs"]
mod database;
#[path = "agent_loop/full_disk.rs"]
mod full_disk;
#[allow(dead_code, reason = "shared with the tests of the gateway")]
#[path = "gateway_kong/node.rs"]
mod node;

use std::fs;
use std::path::PathBuf;

use kctl_node_agent::reconcile::Policy;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::package::{LoadOptions, Unread, load};
use kctl_shared::spec::{Grant, NodeSpec, PluginSpec, ReleaseRef};
use kctl_tests::plugins;

use agent::{GIVEN_UP, Job};
use node::Node;

struct World {
    node: Node,
    job: Job,
    spec: NodeSpec,
}

impl World {
    fn new() -> Self {
        let node = Node::started("plugins = bundled\n");
        let job = Job { root: node.temp.path().to_owned() };
        fs::write(job.path("bin"), node.bin.as_os_str().as_encoded_bytes()).unwrap();
        fs::create_dir(job.path("artifacts")).unwrap();
        let spec = NodeSpec {
            node: NodeId::parse("n1").unwrap(),
            epoch: 1,
            supersedes: None,
            generation: 0,
            plugins: Default::default(),
            task: None,
            hold: None,
        };
        Self { node, job, spec }
    }

    fn release(&self, sources: &std::path::Path) -> ReleaseRef {
        let package = load(sources, &LoadOptions::default(), &Unread).unwrap();
        let digest = package.digest();
        fs::write(self.job.path("artifacts").join(digest.hex()), package.to_artifact()).unwrap();
        ReleaseRef::new(package.version.clone(), digest)
    }

    fn want(&mut self, name: &str, release: &ReleaseRef) {
        self.spec.generation += 1;
        let grant = Grant { index: self.spec.generation, offset: 0 };
        let (enabled, staged) = (Some(release.clone()), [release.clone()].into());
        let plugin = PluginSpec { grant, enabled, staged, ..PluginSpec::default() };
        self.spec.plugins.insert(PluginName::parse(name).unwrap(), plugin);
    }

    async fn settle(&self, policy: Policy) -> i32 {
        fs::write(self.job.path("spec.json"), serde_json::to_vec(&self.spec).unwrap()).unwrap();
        agent::run(&self.job, policy).await
    }

    fn hups(&self) -> usize {
        let log = fs::read_to_string(self.node.prefix().join("logs/error.log")).unwrap();
        log.lines().filter(|line| line.contains("(SIGHUP) received")).count()
    }

    fn handler(&self, name: &str, release: &ReleaseRef) -> PathBuf {
        let slot = self.job.lua_dir().join("store").join(name).join(release.digest.hex());
        slot.join("kong/plugins").join(name).join("handler.lua")
    }
}

#[tokio::test]
async fn one_reload_serves_all_that_wait_for_one() {
    let mut world = World::new();
    for name in ["alpha", "beta", "gamma"] {
        let release = world.release(&plugins::good(&world.job.path("sources"), name, "1.0.0"));
        world.want(name, &release);
    }
    assert_eq!(world.settle(Policy::default()).await, 0);
    assert_eq!(world.hups(), 1);
    assert!(["alpha", "beta", "gamma"].iter().all(|name| world.node.loaded(name).is_some()));
}

#[tokio::test]
async fn of_several_that_failed_together_the_right_one_is_blamed() {
    let mut world = World::new();
    let ready = world.node.ready();
    let good = world.release(&plugins::good(&world.job.path("sources"), "alpha", "1.0.0"));
    let bad = world.release(&plugins::broken_init_worker(&world.job.path("sources"), "beta", "1.0.0"));
    world.want("alpha", &good);
    world.want("beta", &bad);
    assert_eq!(world.settle(Policy::default()).await, GIVEN_UP);
    assert_eq!(world.node.loaded("beta"), None);
    world.spec.plugins.remove(&PluginName::parse("beta").unwrap());
    world.spec.generation += 1;
    assert_eq!(world.settle(Policy::default()).await, 0);
    assert_eq!(world.node.loaded("alpha").as_deref(), Some("1.0.0"));
    assert_eq!(world.node.ready(), ready);
}

#[tokio::test]
async fn what_others_changed_is_made_good_with_no_more_reloads_than_needed() {
    let mut world = World::new();
    let release = world.release(&plugins::good(&world.job.path("sources"), "alpha", "1.0.0"));
    world.want("alpha", &release);
    assert_eq!(world.settle(Policy::default()).await, 0);
    let (conf, hups) = (world.node.read_conf(), world.hups());

    // The directive: Kong still runs what it should, so nobody is disturbed.
    world.node.write_conf(&conf.replace(",alpha", ""));
    assert_eq!(world.settle(Policy::default()).await, 0);
    assert_eq!((world.node.read_conf(), world.hups()), (conf.clone(), hups));

    // The files: nobody knows what was loaded from them meanwhile.
    let handler = world.handler("alpha", &release);
    let text = fs::read_to_string(&handler).unwrap();
    fs::write(&handler, text.replace("1.0.0", "6.6.6")).unwrap();
    assert_eq!(world.settle(Policy::default()).await, 0);
    assert_eq!(fs::read_to_string(world.handler("alpha", &release)).unwrap(), text);
    assert_eq!(world.hups(), hups + 1);
    assert_eq!(world.node.loaded("alpha").as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn what_others_changed_is_left_so_where_that_was_asked_for() {
    let mut world = World::new();
    let release = world.release(&plugins::good(&world.job.path("sources"), "alpha", "1.0.0"));
    world.want("alpha", &release);
    assert_eq!(world.settle(Policy::default()).await, 0);
    let edited = world.node.read_conf().replace(",alpha", "");
    world.node.write_conf(&edited);
    let handler = world.handler("alpha", &release);
    fs::write(&handler, "return {}").unwrap();
    let hups = world.hups();
    assert_eq!(world.settle(Policy { heal: false, ..Policy::default() }).await, 0);
    assert_eq!(world.node.read_conf(), edited);
    assert_eq!(fs::read_to_string(&handler).unwrap(), "return {}");
    assert_eq!(world.hups(), hups);
    let said: Vec<String> =
        serde_json::from_slice(&fs::read(world.job.path("conditions.json")).unwrap()).unwrap();
    assert!(said.contains(&"DRIFT_CONF".to_owned()) && said.contains(&"DRIFT_FILES".to_owned()), "{said:?}");
}
