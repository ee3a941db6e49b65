//! `kctl doctor --local`: this machine's Kong, with no control plane and no agent.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use kctl_node_agent::doctor::gather::{Place, gather};
use kctl_node_agent::doctor::repair::repair;
use kctl_node_agent::doctor::{Facts, Finding, Repair, diagnose, passed};
use serde::Serialize;

use super::{permitted, show, status, verdict};
use crate::cli::DoctorArgs;
use crate::fail::Outcome;
use crate::output::Printer;

/// Mending one thing may show another.
const ROUNDS: usize = 3;
/// One of Kong's commands; the slowest, a start with a port clash, takes a few seconds.
const LIMIT: Duration = Duration::from_secs(30);
const USUAL: [&str; 4] =
    ["/usr/local/bin/kong", "/usr/bin/kong", "/opt/kong/bin/kong", "/usr/local/kong/bin/kong"];

#[derive(Serialize)]
struct Report {
    /// `ok`, `warnings` or `errors`.
    status: &'static str,
    conf: PathBuf,
    prefix: PathBuf,
    findings: Vec<Finding>,
    /// What was looked at and is in order.
    passed: Vec<String>,
    /// Codes that `--fix` made go away.
    fixed: Vec<String>,
    /// Why `--fix` could not go on.
    not_fixed: Option<String>,
}

pub async fn run(printer: &Printer, args: &DoctorArgs) -> Outcome {
    let conf = args.conf.clone().unwrap_or_else(|| "/etc/kong/kong.conf".into());
    let place = Place {
        conf: std::path::absolute(&conf).unwrap_or(conf),
        prefix: args.prefix.clone().map(|p| std::path::absolute(&p).unwrap_or(p)),
        bin: args.kong.clone().unwrap_or_else(found),
        limit: LIMIT,
    };
    let (mut facts, mut findings) = look(&place).await;
    let before: Vec<String> = findings.iter().map(|f| f.code.clone()).collect();
    let (mut not_fixed, mut on_the_way) = (None, Vec::new());
    if args.fix {
        for round in 0..ROUNDS {
            let chosen = chosen(&findings, args.migrations);
            if chosen.is_empty() {
                break;
            }
            // Later rounds mend what showed itself only then; what was not foreseen is not consented to.
            let chosen = match permitted(chosen, args.yes) {
                Err(_) if round > 0 => break,
                permitted => permitted?,
            };
            if chosen.is_empty() {
                break;
            }
            let done = repair(&place, &facts, &chosen, args.migrations, &tell).await;
            (facts, findings) = look(&place).await;
            match done {
                Ok(left_out) => on_the_way.extend(left_out.into_iter().map(|failure| failure.code)),
                Err(failure) => {
                    not_fixed = Some(failure.to_string());
                    break;
                }
            }
        }
    }
    let now: Vec<&String> = findings.iter().map(|f| &f.code).collect();
    let mut fixed: Vec<String> =
        before.into_iter().chain(on_the_way).filter(|code| !now.contains(&code)).collect();
    fixed.dedup();
    let report = Report {
        status: status(&findings),
        conf: place.conf.clone(),
        prefix: facts.prefix.clone(),
        passed: passed(&facts, &findings),
        fixed,
        not_fixed,
        findings,
    };
    printer.one(&report, report.status, || text(&report))?;
    verdict(&report.findings)
}

async fn look(place: &Place) -> (Facts, Vec<Finding>) {
    let facts = gather(place, &tell).await;
    let findings = diagnose(&facts);
    (facts, findings)
}

fn chosen(findings: &[Finding], migrations: bool) -> Vec<Finding> {
    let wanted = |f: &&Finding| match &f.repair {
        None => false,
        Some(Repair::Migrate) => migrations,
        Some(_) => true,
    };
    let mut chosen: Vec<Finding> = findings.iter().filter(wanted).cloned().collect();
    // Asking for it by name is the consent.
    chosen.iter_mut().filter(|f| f.repair == Some(Repair::Migrate)).for_each(|f| f.asks = false);
    chosen
}

/// The first `kong` in PATH, or where packages put it.
fn found() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|dir| dir.join("kong")).chain(USUAL.map(PathBuf::from));
    places.into_iter().find(|path| path.is_file()).unwrap_or_else(|| USUAL[0].into())
}

fn tell(what: &str) {
    // Nobody reads it, then.
    let _ = writeln!(io::stderr(), "looking at {what}");
}

fn text(report: &Report) -> String {
    let mut out = show::findings(&report.findings);
    for sentence in &report.passed {
        out.push_str(&format!("✔ {sentence}\n"));
    }
    for code in &report.fixed {
        out.push_str(&format!("✔ fixed {code}\n"));
    }
    if let Some(why) = &report.not_fixed {
        out.push_str(&format!("× not fixed: {why}\n"));
    }
    out
}
