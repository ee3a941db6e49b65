//! The loop that does nothing but what has to be done: Kong's commands in their order, the edit, and the wait for the
//! workers.

use std::fs;
use std::path::PathBuf;

use super::node::Node;
use super::rounds::Change;

/// Settings of a Kong that only reads.
const ISOLATED: [(&str, &str); 3] =
    [("KONG_DATABASE", "off"), ("KONG_DECLARATIVE_CONFIG", ""), ("KONG_ANONYMOUS_REPORTS", "off")];

#[derive(Debug)]
pub struct Bare {
    pub node: Node,
    /// kong.conf without the plugin.
    plain: String,
    sources: PathBuf,
    round: usize,
}

impl Bare {
    pub fn new(node: Node, sources: PathBuf) -> Self {
        let plain = fs::read_to_string(node.conf()).unwrap();
        Self { node, plain, sources, round: 0 }
    }

    /// As the node's file is to be.
    fn text(&self, change: Change) -> String {
        let Some(version) = change.version() else { return self.plain.clone() };
        let place = self.sources.join(format!("{}-{version}", super::plugin::NAME));
        let plugins = format!("plugins = bundled,{}", super::plugin::NAME);
        let path =
            format!("lua_package_path = {0}/?.lua;{0}/?/init.lua;./?.lua;./?/init.lua;\n", place.display());
        self.plain.replace("plugins = bundled", &plugins) + &path
    }

    /// Where a list is tried; not part of what is measured.
    pub fn scratch(&mut self) -> PathBuf {
        self.round += 1;
        let scratch = self.node.path(&format!("s{}", self.round));
        fs::create_dir(&scratch).unwrap();
        fs::write(scratch.join("empty.yml"), "_format_version: \"3.0\"\n").unwrap();
        scratch
    }

    /// The commands that a change cannot do without, until its workers run.
    pub async fn go(&self, change: Change, scratch: &std::path::Path) {
        let (text, ready, old) = (self.text(change), self.node.ready().await, self.node.workers().serving);
        let [trial, empty, there] = ["kong.conf", "empty.yml", "p"].map(|name| scratch.join(name));
        fs::write(&trial, &text).unwrap();
        let [trial, empty, there] = [&trial, &empty, &there].map(|path| path.to_string_lossy());
        self.node.run(&["config", "parse", &empty, "-c", &trial, "-p", &there], &ISOLATED);
        fs::write(self.node.conf(), &text).unwrap();
        let (conf, prefix) = (self.node.conf(), self.node.prefix());
        let (conf, prefix) = (conf.to_string_lossy(), prefix.to_string_lossy());
        self.node.run(&["prepare", "-c", &conf, "-p", &prefix], &[]);
        self.node.run(&["reload", "-p", &prefix], &[]);
        self.node.turnover(&old, change.version(), ready).await;
        if change.version().is_none() {
            // Files may only go when nobody can read them any more.
            self.node.drained().await;
        }
    }
}
