//! The state of everything in four tiles, one sentence for screen readers and one line for the browser's tab.

use kctl_shared::proto::v1::{OperationView, StatusView};

use super::word::Tone;

#[derive(Debug)]
pub(super) struct Summary {
    pub tiles: Vec<Tile>,
    pub sentence: String,
    pub title: String,
}

#[derive(Debug)]
pub(super) struct Tile {
    pub label: &'static str,
    pub value: String,
    pub note: String,
    pub tone: Tone,
    pub symbol: &'static str,
    /// Id of the section that tells more.
    pub anchor: &'static str,
}

impl Summary {
    pub fn new(view: &StatusView) -> Self {
        let tiles = vec![members(view), nodes(view), plugins(view), operations(view)];
        let parts: Vec<_> = tiles.iter().map(|t| format!("{}: {}, {}.", t.label, t.value, t.note)).collect();
        let worst = tiles
            .iter()
            .find(|t| t.tone == Tone::Bad)
            .or_else(|| tiles.iter().find(|t| t.tone == Tone::Warn));
        let title = match (worst, running(view).next()) {
            (Some(tile), _) => format!("{} {}: {}", tile.symbol, tile.label, tile.note),
            (None, Some(operation)) => format!("◐ {}", what(operation)),
            (None, None) => "✔ all quiet".into(),
        };
        Self { sentence: parts.join(" "), tiles, title }
    }
}

fn running(view: &StatusView) -> impl Iterator<Item = &OperationView> {
    view.operations.iter().filter(|o| o.finished_at.is_none())
}

/// E.g. `install rate-guard 1.2.0`.
pub(super) fn what(operation: &OperationView) -> String {
    format!("{} {} {}", operation.kind, operation.plugins.join(", "), operation.version).trim_end().to_owned()
}

fn tile(
    label: &'static str,
    anchor: &'static str,
    value: String,
    note: String,
    (tone, symbol): (Tone, &'static str),
) -> Tile {
    Tile { label, value, note, tone, symbol, anchor }
}

const GOOD: (Tone, &str) = (Tone::Good, "✔");
const WARN: (Tone, &str) = (Tone::Warn, "▲");
const BAD: (Tone, &str) = (Tone::Bad, "✖");
const BUSY: (Tone, &str) = (Tone::Busy, "◐");
const IDLE: (Tone, &str) = (Tone::Idle, "–");

fn members(view: &StatusView) -> Tile {
    let members = view.cluster.as_ref().map_or(&[][..], |c| &c.members);
    let reachable = members.iter().filter(|m| m.state != "unreachable").count();
    let value = format!("{reachable}/{}", members.len());
    let (note, mood) = match view.cluster.as_ref().and_then(|c| c.leader) {
        None => ("no leader".into(), BAD),
        Some(leader) if reachable < members.len() => {
            (format!("member {leader} leads, one or more missing"), WARN)
        }
        Some(leader) => (format!("member {leader} leads"), GOOD),
    };
    tile("Members", "quorum", value, note, mood)
}

fn nodes(view: &StatusView) -> Tile {
    let count = |state: &str| view.nodes.iter().filter(|n| n.state == state).count();
    let live = count("Live");
    let value = format!("{live}/{}", view.nodes.len());
    let others: Vec<_> = [("Lost", "lost"), ("Suspect", "suspect"), ("Unknown", "not heard of yet")]
        .into_iter()
        .filter(|(state, _)| count(state) > 0)
        .map(|(state, word)| format!("{} {word}", count(state)))
        .collect();
    let (note, mood) = if view.nodes.is_empty() {
        ("none has registered".into(), IDLE)
    } else if others.is_empty() {
        ("all live".into(), GOOD)
    } else {
        (others.join(", "), if count("Lost") > 0 { BAD } else { WARN })
    };
    tile("Nodes", "nodes", value, note, mood)
}

fn plugins(view: &StatusView) -> Tile {
    let value = view.plugins.len().to_string();
    let whole = view.plugins.iter().filter(|p| p.nodes_total > 0 && p.nodes_enabled == p.nodes_total).count();
    let held = view.plugins.iter().filter(|p| !p.operation.is_empty()).count();
    let (note, mood) = if view.plugins.is_empty() {
        ("none installed".into(), IDLE)
    } else if whole == view.plugins.len() {
        ("loaded wherever they should be".into(), GOOD)
    } else {
        let short = view.plugins.len() - whole;
        (format!("{short} not loaded on every node"), if held > 0 { BUSY } else { WARN })
    };
    tile("Plugins", "plugins", value, note, mood)
}

fn operations(view: &StatusView) -> Tile {
    let count = running(view).count();
    let (note, mood) = match running(view).next() {
        None => ("nothing runs".into(), IDLE),
        Some(first) if running(view).any(|o| matches!(o.phase.as_str(), "RollingBack" | "Paused")) => {
            (what(first), WARN)
        }
        Some(first) => (what(first), BUSY),
    };
    tile("Operations", "operations", count.to_string(), note, mood)
}
