//! What a person should look at: what agents report in full sentences, and nodes nobody hears from.

use askama::Template;
use kctl_shared::proto::v1::{NodeView, StatusView};

use super::moment::Moment;
use super::word::Word;

#[derive(Debug, Template)]
#[template(path = "conditions.html")]
pub(super) struct Conditions<'a> {
    rows: Vec<Row<'a>>,
}

#[derive(Debug)]
struct Row<'a> {
    node: &'a str,
    /// Empty when the whole node is concerned.
    plugin: &'a str,
    word: Word<'a>,
    code: &'a str,
    message: &'a str,
    last_seen: Option<Moment>,
}

impl<'a> Conditions<'a> {
    pub fn new(view: &'a StatusView) -> Self {
        Self { rows: view.nodes.iter().flat_map(of_node).collect() }
    }
}

fn of_node(node: &NodeView) -> impl Iterator<Item = Row<'_>> {
    let row = Row {
        node: &node.id,
        plugin: "",
        word: Word::new(&node.state),
        code: "",
        message: "",
        last_seen: None,
    };
    let silent = matches!(node.state.as_str(), "Lost" | "Suspect").then(|| Row {
        code: "AGENT_UNREACHABLE",
        message: "its agent is not heard from",
        last_seen: node.last_seen.as_ref().and_then(|t| Moment::new((t.seconds, t.nanos))),
        ..row
    });
    let told = node.conditions.iter().map(|c| Row {
        node: &node.id,
        plugin: "",
        word: Word::new("held"),
        code: &c.code,
        message: &c.message,
        last_seen: None,
    });
    let troubled = node.plugins.iter().filter(|p| !p.code.is_empty() || !p.message.is_empty()).map(|p| Row {
        node: &node.id,
        plugin: &p.name,
        word: Word::new(&p.state),
        code: &p.code,
        message: &p.message,
        last_seen: None,
    });
    silent.into_iter().chain(told).chain(troubled)
}
