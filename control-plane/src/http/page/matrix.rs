//! Nodes × plugins: what each node last proved about each plugin.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use kctl_shared::proto::v1::{NodePluginView, NodeView, PluginView, StatusView};

use super::word::Word;

#[derive(Debug, Template)]
#[template(path = "matrix.html")]
pub(super) struct Matrix<'a> {
    columns: Vec<Column<'a>>,
    groups: Vec<Group<'a>>,
}

#[derive(Debug)]
struct Column<'a> {
    name: &'a str,
    /// The plugin in each group that has it.
    plugins: Vec<&'a PluginView>,
}

#[derive(Debug)]
struct Group<'a> {
    name: &'a str,
    rows: Vec<Row<'a>>,
}

#[derive(Debug)]
struct Row<'a> {
    node: &'a NodeView,
    agent: Word<'a>,
    kong: Word<'a>,
    cells: Vec<Cell<'a>>,
}

#[derive(Debug)]
struct Cell<'a> {
    word: Word<'a>,
    /// None when the node never had anything of it.
    plugin: Option<&'a NodePluginView>,
}

impl<'a> Matrix<'a> {
    pub fn new(view: &'a StatusView) -> Self {
        let known = view.plugins.iter().map(|p| p.name.as_str());
        let seen = view.nodes.iter().flat_map(|n| n.plugins.iter().map(|p| p.name.as_str()));
        let names: BTreeSet<&str> = known.chain(seen).collect();
        let columns = names
            .iter()
            .map(|name| Column { name, plugins: view.plugins.iter().filter(|p| p.name == *name).collect() });
        let mut groups: BTreeMap<&str, Vec<Row<'_>>> = BTreeMap::new();
        for node in &view.nodes {
            groups.entry(&node.group).or_default().push(Row::new(node, &names));
        }
        Self {
            columns: columns.collect(),
            groups: groups.into_iter().map(|(name, rows)| Group { name, rows }).collect(),
        }
    }
}

impl<'a> Row<'a> {
    fn new(node: &'a NodeView, names: &BTreeSet<&str>) -> Self {
        let kong = match (node.kong_state.as_str(), node.ready) {
            ("running", true) => "ready",
            ("running", false) => "not ready",
            ("", _) => "unknown",
            (other, _) => other,
        };
        let cells = names.iter().map(|name| {
            let plugin = node.plugins.iter().find(|p| p.name == *name);
            Cell { word: Word::new(plugin.map_or("absent", |p| &p.state)), plugin }
        });
        Self { node, agent: Word::new(&node.state), kong: Word::new(kong), cells: cells.collect() }
    }
}
