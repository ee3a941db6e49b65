//! `/metrics`: Prometheus text format 0.0.4, written anew for each scrape.
//!
//! Every member shows the whole fleet, since every member has the same view; only `kctl_raft_*` and
//! `kctl_http_event_streams` are the member's own. Sum over one instance, e.g. `… and on (instance) kctl_raft_leader == 1`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use kctl_shared::proto::v1::{PluginView, StatusView};

use super::{Context, Gauges, events};

const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";
const NODE_STATES: [&str; 4] = ["Live", "Suspect", "Lost", "Unknown"];
const LIVE_PHASES: [&str; 4] = ["Pending", "Progressing", "Paused", "RollingBack"];

pub(super) async fn show(State(shared): Context) -> Response {
    let view = shared.state.views.borrow().clone();
    let mut text = Exposition::default();
    text.gauge("kctl_build_info", "Version of the member.", [(vec![("version", shared.state.version)], 1)]);
    member(&mut text, (shared.state.gauges)());
    let open = (events::MAX_STREAMS - shared.streams.available_permits()) as u64;
    text.gauge("kctl_http_event_streams", "Event streams open on this member.", [(vec![], open)]);
    fleet(&mut text, &view);
    plugins(&mut text, &view);
    operations(&mut text, &view);
    ([(header::CONTENT_TYPE, MEDIA)], text.0).into_response()
}

fn member(text: &mut Exposition, gauges: Gauges) {
    text.gauge("kctl_raft_term", "Raft term this member is in.", [(vec![], gauges.term)]);
    text.gauge("kctl_raft_leader", "1 when this member leads.", [(vec![], u64::from(gauges.leads))]);
    text.gauge("kctl_raft_applied_index", "Last log index applied here.", [(vec![], gauges.applied_index)]);
}

fn fleet(text: &mut Exposition, view: &StatusView) {
    let members = view.cluster.iter().flat_map(|c| &c.members).map(|m| m.state.as_str());
    text.gauge("kctl_members", "Control plane members by state.", counted("state", &[], members));
    let states = view.nodes.iter().map(|n| n.state.as_str());
    text.gauge("kctl_nodes", "Nodes by state of their agent.", counted("state", &NODE_STATES, states));
    let ready = view.nodes.iter().map(|n| (vec![("node", n.id.as_str())], u64::from(n.ready)));
    text.gauge("kctl_node_ready", "1 when the node's Kong is ready for requests.", ready);
    let old = view.nodes.iter().map(|n| (vec![("node", n.id.as_str())], u64::from(n.old_workers)));
    text.gauge("kctl_node_old_workers", "Workers of earlier configurations that still serve.", old);
    let generations = view.nodes.iter().map(|n| (vec![("node", n.id.as_str())], n.observed_generation));
    text.gauge(
        "kctl_node_observed_generation",
        "Generation of the spec the node last answered.",
        generations,
    );
    let conditions = view.nodes.iter().flat_map(|n| n.conditions.iter().map(move |c| (n, c)));
    let conditions = conditions.map(|(n, c)| (vec![("node", n.id.as_str()), ("code", &c.code)], 1));
    text.gauge("kctl_node_condition", "What the agent wants a person to know.", conditions);
}

fn plugins(text: &mut Exposition, view: &StatusView) {
    let placed = || view.nodes.iter().flat_map(|n| n.plugins.iter().map(move |p| (n, p)));
    let stages = placed().map(|(n, p)| {
        (vec![("node", n.id.as_str()), ("plugin", &p.name), ("version", &p.version), ("stage", &p.stage)], 1)
    });
    text.gauge("kctl_node_plugin_stage", "Stage last proven for a plugin on a node.", stages);
    let states =
        placed().map(|(n, p)| (vec![("node", n.id.as_str()), ("plugin", &p.name), ("state", &p.state)], 1));
    text.gauge("kctl_node_plugin_state", "What a node does with a plugin now.", states);
    let enabled = view.plugins.iter().map(|p| (labels_of(p), u64::from(p.nodes_enabled)));
    text.gauge("kctl_plugin_nodes_enabled", "Nodes that proved the plugin loaded.", enabled);
    let total = view.plugins.iter().map(|p| (labels_of(p), u64::from(p.nodes_total)));
    text.gauge("kctl_plugin_nodes", "Nodes the plugin is meant for.", total);
}

fn labels_of(plugin: &PluginView) -> Labels<'_> {
    vec![("group", &plugin.group), ("plugin", &plugin.name), ("version", &plugin.version)]
}

fn operations(text: &mut Exposition, view: &StatusView) {
    let running = || view.operations.iter().filter(|o| o.finished_at.is_none());
    let phases = running().map(|o| o.phase.as_str());
    text.gauge(
        "kctl_operations",
        "Operations that have not ended, by phase.",
        counted("phase", &LIVE_PHASES, phases),
    );
    let waits = running().flat_map(|o| o.waiting_on.iter().map(move |w| (o, w)));
    let waits =
        waits.map(|(o, w)| (vec![("operation", o.id.as_str()), ("node", &w.node), ("reason", &w.reason)], 1));
    text.gauge("kctl_operation_waiting", "Why an operation does not move.", waits);
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// How often each word occurs; `known` words are there even with 0, so that an alert can tell 0 from no answer.
fn counted<'a>(
    label: &'static str,
    known: &[&'a str],
    words: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = (Labels<'a>, u64)> {
    let mut counts: BTreeMap<&str, u64> = known.iter().map(|w| (*w, 0)).collect();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts.into_iter().map(move |(word, n)| (vec![(label, word)], n))
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// Writes one family. Of samples with equal labels the last one stays: a repeated one makes a scrape fail as a whole.
    fn gauge<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels<'a>, u64)>) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (labels, value) in samples.into_iter().collect::<BTreeMap<_, _>>() {
            self.0.push_str(name);
            for (i, (label, text)) in labels.iter().enumerate() {
                let _ = write!(self.0, "{}{label}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(text));
            }
            let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
