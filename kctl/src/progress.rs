//! Watching an operation: bars on a terminal, plain lines elsewhere, and how it ended.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use futures_util::future::try_join_all;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle as BarStyle};
use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::operation_service_client::OperationServiceClient;
use kctl_shared::proto::v1::{GetOperationRequest, OperationView, StepView};
use tokio::time::Instant;

use crate::cli::ProgressStyle;
use crate::client::Client;
use crate::fail::{Fail, Outcome};

/// Widest bar on a terminal.
const BAR: u64 = 18;

pub fn has_ended(view: &OperationView) -> bool {
    matches!(view.phase.as_str(), "Succeeded" | "Failed" | "Aborted" | "Compensated")
}

/// The operation stands still after the step that it was to stop after.
pub fn has_stopped(view: &OperationView) -> bool {
    view.phase == "Paused" && view.waiting_on.iter().any(|w| w.reason == "STEP_DONE")
}

/// It has ended, or does as much as was asked for.
pub fn is_done(view: &OperationView) -> bool {
    has_ended(view) || has_stopped(view)
}

/// Follows the operation until `until` says so, over any change of leader.
///
/// # Errors
/// `Unfinished` after `timeout`, `Interrupted` after Ctrl-C (the operation goes on), or a fault.
pub async fn follow(
    client: &Client,
    id: &str,
    style: ProgressStyle,
    timeout: Option<Duration>,
    until: fn(&OperationView) -> bool,
) -> Outcome<OperationView> {
    let one = [(String::new(), id.to_owned())];
    let mut views = follow_all(client, &one, style, timeout, until).await?;
    views.pop().ok_or(Fail::Unfinished)
}

/// As [`follow`], several at once, (what its lines begin with, id) each; they come back in the same order.
///
/// # Errors
/// Those of [`follow`].
pub async fn follow_all(
    client: &Client,
    operations: &[(String, String)],
    style: ProgressStyle,
    timeout: Option<Duration>,
    until: fn(&OperationView) -> bool,
) -> Outcome<Vec<OperationView>> {
    let bars = MultiProgress::new();
    let width = operations.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let label = |label: &str| if width == 0 { String::new() } else { format!("{label:width$}  ") };
    let watches = operations.iter().map(|(plugin, id)| {
        let mut shown = Shown::new(style, &bars);
        let label = label(plugin);
        async move { watch(client, id, &label, &mut shown, until).await }
    });
    let deadline = timeout.map(|t| Instant::now() + t);
    let expired = async {
        match deadline {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let again = || {
        let each = operations.iter().map(|(_, id)| format!("kctl operation status {id} -w"));
        each.collect::<Vec<_>>().join("\n  ")
    };
    let goes = if operations.len() == 1 { "the operation goes" } else { "the operations go" };
    // A watch holds no state of its own: dropping it midway loses nothing.
    tokio::select! {
        views = try_join_all(watches) => views.map_err(Fail::Fault),
        () = expired => {
            eprintln!("still in progress; watch it again: {}", again());
            Err(Fail::Unfinished)
        }
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nno longer watching; {goes} on: {}", again());
            Err(Fail::Interrupted)
        }
    }
}

async fn watch(
    client: &Client,
    id: &str,
    label: &str,
    shown: &mut Shown,
    until: fn(&OperationView) -> bool,
) -> Result<OperationView, Fault> {
    loop {
        let request = || GetOperationRequest { id: id.to_owned() };
        let mut stream = client
            .call(|channel| async move {
                Ok(OperationServiceClient::new(channel).watch(request()).await?.into_inner())
            })
            .await?;
        // A stream that breaks is looked for again at the next leader.
        while let Ok(Some(view)) = stream.message().await {
            shown.update(&view, label);
            if until(&view) {
                shown.finish();
                return Ok(view);
            }
        }
    }
}

enum Shown {
    Bars { all: MultiProgress, bars: BTreeMap<usize, ProgressBar>, waiting: Option<ProgressBar> },
    Lines { last: BTreeMap<String, String> },
    Json,
    Nothing,
}

impl Shown {
    fn new(style: ProgressStyle, bars: &MultiProgress) -> Self {
        match style {
            ProgressStyle::Auto if io::stderr().is_terminal() => {
                Self::Bars { all: bars.clone(), bars: BTreeMap::new(), waiting: None }
            }
            ProgressStyle::Auto | ProgressStyle::Plain => Self::Lines { last: BTreeMap::new() },
            ProgressStyle::Json => Self::Json,
            ProgressStyle::None => Self::Nothing,
        }
    }

    /// Every line begins with `label`.
    fn update(&mut self, view: &OperationView, label: &str) {
        match self {
            Self::Bars { all, bars, waiting } => {
                for (index, step) in view.steps.iter().enumerate().filter(|(_, s)| s.phase != "Pending") {
                    let bar = bars.entry(index).or_insert_with(|| {
                        let style = BarStyle::with_template("{prefix:12} {bar:18} {pos}/{len}  {msg}");
                        let bar = ProgressBar::new(BAR)
                            .with_style(style.unwrap_or_else(|_| BarStyle::default_bar()));
                        all.add(bar.with_prefix(format!("{label}{}", title(step))))
                    });
                    bar.set_length(step.nodes.len().max(1) as u64);
                    bar.set_position(done(step) as u64);
                    bar.set_message(detail(step));
                    if step.finished_at.is_some() && !bar.is_finished() {
                        bar.abandon();
                    }
                }
                let line = waiting.get_or_insert_with(|| {
                    let style = BarStyle::with_template("{msg}").unwrap_or_else(|_| BarStyle::default_bar());
                    all.add(ProgressBar::new(1).with_style(style))
                });
                line.set_message(
                    waits(view).iter().map(|w| format!("{label}{w}")).collect::<Vec<_>>().join("\n"),
                );
            }
            Self::Lines { last } => {
                let steps = view.steps.iter().enumerate().filter(|(_, s)| s.phase != "Pending");
                let mut lines: Vec<_> = steps
                    .map(|(i, s)| {
                        (
                            format!("step {i:04}"),
                            format!("{:12} {}/{}  {}", title(s), done(s), s.nodes.len(), detail(s)),
                        )
                    })
                    .collect();
                lines.extend(waits(view).into_iter().map(|w| (format!("wait {w}"), w)));
                for (key, line) in lines {
                    if last.get(&key) != Some(&line) {
                        eprintln!("{label}{line}");
                        last.insert(key, line);
                    }
                }
            }
            Self::Json => eprintln!("{}", serde_json::to_string(view).unwrap_or_default()),
            Self::Nothing => {}
        }
    }

    fn finish(&self) {
        if let Self::Bars { bars, waiting, .. } = self {
            bars.values().for_each(ProgressBar::abandon);
            if let Some(line) = waiting {
                line.finish_and_clear();
            }
        }
    }
}

fn title(step: &StepView) -> String {
    if step.wave > 0 { format!("{} wave {}", step.name, step.wave) } else { step.name.clone() }
}

fn done(step: &StepView) -> usize {
    step.nodes.iter().filter(|n| n.status == "verified").count()
}

fn detail(step: &StepView) -> String {
    if !step.summary.is_empty() {
        return step.summary.clone();
    }
    let busy = step.nodes.iter().filter(|n| !matches!(n.status.as_str(), "verified" | "pending"));
    let words: Vec<_> = busy.take(4).map(|n| format!("{} {}", n.node, n.status)).collect();
    words.join(", ")
}

/// What a person should know about a wait; plain progress is shown by the steps already.
fn waits(view: &OperationView) -> Vec<String> {
    let telling = view.waiting_on.iter().filter(|w| w.reason != "IN_PROGRESS");
    let on = |node: &str| if node.is_empty() { String::new() } else { format!("{node} ") };
    telling.map(|w| format!("waiting on {}{} {}", on(&w.node), w.reason, w.message)).collect()
}

/// As [`verdict`]; all of them are told before the exit code is made.
pub fn verdicts(views: &[OperationView]) -> Outcome {
    let each: Vec<Outcome> = views.iter().map(verdict).collect();
    if each.iter().all(Result::is_ok) { Ok(()) } else { Err(Fail::Operation) }
}

/// Says on standard error how a failed operation ended, and makes the exit code of it.
pub fn verdict(view: &OperationView) -> Outcome {
    if (view.phase == "Succeeded" && !view.partial) || has_stopped(view) {
        return Ok(());
    }
    for excuse in &view.excused {
        eprintln!("~ without {}: {}", excuse.node, excuse.reason);
    }
    for step in &view.steps {
        for node in step.nodes.iter().filter(|n| n.status == "failed") {
            eprintln!("✖ {}: {} failed", title(step), node.node);
            eprintln!("    Kong said: {}", node.message);
            eprintln!("    {}", node.code);
        }
    }
    if let Some(error) = &view.error {
        eprintln!(
            "✖ {} {} {}: {} {}",
            view.kind,
            view.plugins.join(" "),
            view.phase.to_lowercase(),
            error.code,
            error.message
        );
    }
    for refused in &view.refused {
        eprintln!("✖ {} {} could not be brought back", refused.what, refused.id);
        eprintln!("    Kong said: {}", refused.message);
    }
    let restored = view.steps.iter().filter(|s| s.name == "restore");
    let restored: usize = restored.map(|s| s.nodes.len() + s.forgotten as usize).sum();
    if view.partial && !view.refused.is_empty() {
        eprintln!("▲ partial: everything is back but what is named above.");
    } else if view.partial {
        eprintln!(
            "▲ partial: the nodes named above follow when they can; until then they differ from the others."
        );
    } else if view.phase == "Compensated" {
        let attached = view.steps.iter().find(|s| s.name == "attach").map(|s| s.summary.as_str());
        eprintln!(
            "↺ called off: {restored} nodes had to be given it back; {}.",
            attached.unwrap_or("no configuration was deleted")
        );
    } else if view.kind != "remove" {
        eprintln!("↺ everything is as before; {restored} nodes had to be rolled back.");
    }
    eprintln!("  look: kctl operation status {}", view.id);
    Err(Fail::Operation)
}
