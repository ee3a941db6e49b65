//! The same way of a plugin on Kongs of all ages, each played by the stand-in under that version's name.

use std::fs;

use kctl_node_agent::gateway::Gateway as _;
use kctl_node_agent::gateway::Wanted;
use kctl_shared::spec::KongState;

use crate::node::{Node, SCHEMA, enact, put_back, without};

/// A handler as all Kongs before 3.0 know it.
const CLASS: &str = r#"local BasePlugin = require "kong.plugins.base_plugin"
local H = BasePlugin:extend()
H.PRIORITY = 1000
H.VERSION = "RELEASE"
MORE
function H:new() H.super.new(self, "NAME") end
function H:access(conf) H.super.access(self) end
return H
"#;

const OLD_SCHEMA: &str = r#"return { fields = { value = { type = "string", default = "hi" } } }"#;

pub fn plugin(node: &Node, release: &str, more: &str) -> Wanted {
    if node.since(3, 0) {
        return node.plugin("hello", release, more);
    }
    let handler = CLASS.replace("RELEASE", release).replace("MORE", more);
    let schema = if node.since(1, 0) { SCHEMA } else { OLD_SCHEMA };
    node.generation(&[("hello", release, &[("handler.lua", &handler), ("schema.lua", schema)])])
}

async fn comes_is_upgraded_and_goes(version: &str) {
    let Some(node) = Node::of_version(version) else { return };
    let conf = node.read_conf();
    let kong = node.gateway();
    let before = without("hello", None);
    let (first, second) = (plugin(&node, "1.0.0", ""), plugin(&node, "1.1.0", "-- more"));
    assert_eq!(kong.preflight(&first, kctl_node_agent::config::Preflight::Parse).await, Ok(()), "{version}");
    assert_eq!(node.read_conf(), conf, "{version}");

    enact(&kong, &first, &before).await.unwrap();
    assert!(node.has("hello"), "{version}");
    let seen = kong.observe().await;
    assert_eq!(seen.trouble, None, "{version}");
    assert_eq!((seen.facts.state, seen.facts.version.as_str()), (KongState::Running, version));
    assert_eq!(seen.armed_generation, first.generation, "{version}");
    assert!(seen.loaded.unwrap().contains_key("hello"), "{version}");
    assert_eq!(seen.limits.iter().any(|l| l.code == "APPLIED_BY_RESTART"), !node.since(0, 11), "{version}");

    // Again: nothing happens.
    let pid = node.pid();
    enact(&kong, &first, &before).await.unwrap();
    assert_eq!(node.pid(), pid, "{version}");
    enact(&kong, &second, &first).await.unwrap();
    assert_eq!(kong.proven(&second).await, Ok(()), "{version}");
    assert_eq!(node.pid() == pid, node.since(0, 11), "{version}");

    enact(&kong, &before, &second).await.unwrap();
    assert!(!node.has("hello"), "{version}");
    assert_eq!(node.read_conf(), conf, "{version}");
}

/// A list that does not load: found before anything is touched where there is a way to, else put back.
async fn breaks(version: &str) {
    let Some(node) = Node::of_version(version) else { return };
    let conf = node.read_conf();
    let kong = node.gateway();
    let before = without("hello", None);
    let broken = plugin(&node, "1.0.0", "error('boom')");
    if node.since(0, 11) {
        let pid = node.pid();
        let failure = kong.preflight(&broken, kctl_node_agent::config::Preflight::Parse).await.unwrap_err();
        assert!(failure.message.contains("boom"), "{version}: {failure}");
        assert_eq!(node.pid(), pid, "{version}");
    } else {
        assert_eq!(
            kong.preflight(&broken, kctl_node_agent::config::Preflight::Parse).await,
            Ok(()),
            "{version}"
        );
        assert!(kong.observe().await.limits.iter().any(|l| l.code == "NO_PREFLIGHT"), "{version}");
        let failure = put_back(enact(&kong, &broken, &before).await);
        assert!(failure.message.contains("boom"), "{version}: {failure}");
        assert_eq!(node.get("/").unwrap().0, 200, "{version}");
    }
    assert!(!node.has("hello"), "{version}");
    assert_eq!(node.read_conf(), conf, "{version}");
}

macro_rules! versions {
    ($($name:ident $broken:ident $version:literal;)*) => { $(
        #[tokio::test]
        async fn $name() { comes_is_upgraded_and_goes($version).await; }
        #[tokio::test]
        async fn $broken() { breaks($version).await; }
    )* };
}

versions! {
    on_3_9 broken_on_3_9 "3.9.1";
    on_3_0 broken_on_3_0 "3.0.2";
    on_2_8 broken_on_2_8 "2.8.5";
    on_2_2 broken_on_2_2 "2.2.2";
    on_1_5 broken_on_1_5 "1.5.1";
    on_1_0 broken_on_1_0 "1.0.3";
    on_0_14 broken_on_0_14 "0.14.1";
    on_0_13 broken_on_0_13 "0.13.1";
    on_0_11 broken_on_0_11 "0.11.2";
    on_0_10 broken_on_0_10 "0.10.4";
    on_0_9 broken_on_0_9 "0.9.9";
    on_0_8 broken_on_0_8 "0.8.3";
    on_0_5 broken_on_0_5 "0.5.4";
}

#[tokio::test]
async fn a_kong_that_cannot_be_driven_is_left_alone() {
    let Some(node) = Node::of_version("0.13.1") else { return };
    let conf = node.read_conf();
    for name in ["kong-0.9.3", "kong-7.0.0"] {
        let other = node.path(name);
        fs::copy(&node.bin, &other).unwrap();
        let kong = node.gateway_on(other, kctl_node_agent::gateway::kong::Limits::default());
        let failure = kong
            .preflight(&plugin(&node, "1.0.0", ""), kctl_node_agent::config::Preflight::Parse)
            .await
            .unwrap_err();
        assert!(failure.code.starts_with("KONG_VERSION_"), "{failure}");
        assert_eq!(kong.observe().await.trouble.map(|t| t.code), Some(failure.code));
    }
    assert_eq!(node.read_conf(), conf);
}
