//! One operation: its steps and waves, every node in them, and what it waits for.

use askama::Template;
use kctl_shared::proto::v1::{NodeStepView, OperationView, StepView, WaitingOn};

use super::moment::{Moment, Stamp, span};
use super::summary::what;
use super::word::{Tone, Word};

#[derive(Debug, Template)]
#[template(path = "operation.html")]
pub(super) struct OperationCard<'a> {
    operation: &'a OperationView,
    title: String,
    phase: Word<'a>,
    created: Option<Moment>,
    /// How long it took; empty while it runs.
    took: String,
    ended: bool,
    waits: Vec<Wait<'a>>,
    steps: Vec<Step<'a>>,
    done: usize,
    total: usize,
}

#[derive(Debug)]
struct Wait<'a> {
    on: &'a WaitingOn,
    since: Option<Moment>,
}

#[derive(Debug)]
struct Step<'a> {
    step: &'a StepView,
    phase: Word<'a>,
    nodes: Vec<Node<'a>>,
    verified: usize,
    /// Those that are not shown one by one any more too.
    total: usize,
    took: String,
    /// Whether its nodes are shown without being asked for.
    open: bool,
}

#[derive(Debug)]
struct Node<'a> {
    node: &'a NodeStepView,
    word: Word<'a>,
    took: String,
}

macro_rules! stamp {
    ($time:expr) => {
        $time.as_ref().map(|t| (t.seconds, t.nanos))
    };
}

fn took(started: Option<Stamp>, finished: Option<Stamp>) -> String {
    started.zip(finished).map(|(from, to)| span(from, to)).unwrap_or_default()
}

impl<'a> OperationCard<'a> {
    pub fn new(operation: &'a OperationView) -> Self {
        let steps: Vec<_> = operation.steps.iter().map(Step::new).collect();
        let counted = || steps.iter().filter(|s| s.step.phase != "Skipped");
        let waits =
            operation.waiting_on.iter().map(|on| Wait { on, since: stamp!(on.since).and_then(Moment::new) });
        Self {
            operation,
            title: what(operation),
            phase: Word::new(&operation.phase),
            created: stamp!(operation.created_at).and_then(Moment::new),
            took: took(stamp!(operation.created_at), stamp!(operation.finished_at)),
            ended: operation.finished_at.is_some(),
            waits: waits.collect(),
            done: counted().map(|s| s.verified).sum(),
            total: counted().map(|s| s.total).sum(),
            steps,
        }
    }
}

impl<'a> Step<'a> {
    fn new(step: &'a StepView) -> Self {
        let nodes: Vec<_> = step.nodes.iter().map(Node::new).collect();
        Self {
            phase: Word::new(&step.phase),
            verified: nodes.iter().filter(|n| n.node.status == "verified").count()
                + if step.phase == "Done" { step.forgotten as usize } else { 0 },
            total: nodes.len() + step.forgotten as usize,
            took: took(stamp!(step.started_at), stamp!(step.finished_at)),
            open: step.phase == "Running" || nodes.iter().any(|n| n.word.tone == Tone::Bad),
            step,
            nodes,
        }
    }
}

impl<'a> Node<'a> {
    fn new(node: &'a NodeStepView) -> Self {
        Self {
            word: Word::new(&node.status),
            took: took(stamp!(node.started_at), stamp!(node.finished_at)),
            node,
        }
    }
}
