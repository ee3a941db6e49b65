//! `kctl operation logs`: an operation's view told in the order in which it happened.

use kctl_shared::proto::v1::{OperationView, StepView};
use prost_types::Timestamp;
use serde::Serialize;

use super::several;
use crate::commands::Verb;
use crate::fail::Outcome;
use crate::output::time;

/// One moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Line {
    #[serde(with = "kctl_shared::time::rfc3339")]
    at: Option<Timestamp>,
    /// Empty for the operation as a whole.
    node: String,
    /// "enable wave 2"; empty for the operation as a whole.
    step: String,
    what: String,
    code: String,
    message: String,
}

pub async fn run(verb: &Verb, id: &str, node: Option<&str>) -> Outcome {
    let views = several::find(verb, id).await?;
    let mut lines: Vec<_> = views.iter().flat_map(|view| lines(view, views.len() > 1)).collect();
    lines.retain(|l| node.is_none_or(|n| l.node == n));
    // Stable: what happened in one moment stays in the order of the steps.
    lines.sort_by_key(|l| l.at.map(|t| (t.seconds, t.nanos)));
    verb.printer.many(
        &lines,
        |line| line.what.clone(),
        |_| {
            let head = ["TIME", "STEP", "NODE", "WHAT", "WHY"].map(str::to_owned).to_vec();
            let row = |l: &Line| {
                let why = format!("{} {}", l.code, l.message);
                vec![time(l.at.as_ref()), dash(&l.step), dash(&l.node), l.what.clone(), why.trim().to_owned()]
            };
            std::iter::once(head).chain(lines.iter().map(row)).collect()
        },
    )
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

/// `named`: each says of which plugin it is.
fn lines(view: &OperationView, named: bool) -> Vec<Line> {
    let line = |at: Option<Timestamp>, step: &str, node: &str, what: &str, code: &str, message: &str| Line {
        at,
        node: node.into(),
        step: step.into(),
        what: what.into(),
        code: code.into(),
        message: message.into(),
    };
    let what = format!("{} {} {}", view.kind, view.plugins.join(","), view.version);
    let mut lines = vec![line(view.created_at, "", "", what.trim(), "", &view.reason)];
    for step in &view.steps {
        let title = if named { format!("{} {}", view.plugins.join(","), title(step)) } else { title(step) };
        for node in &step.nodes {
            if node.started_at.is_some() {
                lines.push(line(node.started_at, &title, &node.node, "begins", "", ""));
            }
            if node.finished_at.is_some() {
                lines.push(line(
                    node.finished_at,
                    &title,
                    &node.node,
                    &node.status,
                    &node.code,
                    &node.message,
                ));
            }
        }
        if step.finished_at.is_some() {
            lines.push(line(step.finished_at, &title, "", &step.phase.to_lowercase(), "", &step.summary));
        }
    }
    for note in &view.notes {
        lines.push(line(note.created_at, "", &note.node, &note.verb, "", &note.reason));
    }
    if view.finished_at.is_some() {
        let (code, message) = view.error.as_ref().map_or(("", ""), |e| (e.code.as_str(), e.message.as_str()));
        lines.push(line(view.finished_at, "", "", &view.phase, code, message));
    }
    lines
}

fn title(step: &StepView) -> String {
    if step.wave > 0 { format!("{} wave {}", step.name, step.wave) } else { step.name.clone() }
}
