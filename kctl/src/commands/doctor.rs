//! `kctl doctor`: what is wrong, the true cause first, and what to do about it.

mod cluster;
mod local;
mod show;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use kctl_node_agent::doctor::{Finding, Severity};

use super::Verb;
use crate::cli::DoctorArgs;
use crate::fail::{Fail, Outcome};
use crate::output::Printer;

/// With a control plane.
pub async fn cluster(verb: &Verb, args: &DoctorArgs) -> Outcome {
    cluster::run(verb, args).await
}

/// On this machine, with nothing but Kong.
pub async fn local(printer: &Printer, args: &DoctorArgs) -> Outcome {
    local::run(printer, args).await
}

/// The exit code says how bad it is.
fn verdict(findings: &[Finding]) -> Outcome {
    match findings.iter().map(|f| f.severity).min() {
        None => Ok(()),
        Some(Severity::Error) => Err(Fail::Found { errors: true }),
        Some(Severity::Warning) => Err(Fail::Found { errors: false }),
    }
}

fn status(findings: &[Finding]) -> &'static str {
    match findings.iter().map(|f| f.severity).min() {
        None => "ok",
        Some(Severity::Error) => "errors",
        Some(Severity::Warning) => "warnings",
    }
}

/// Asks about every repair that takes something away or could be meant otherwise; those that were denied are left out.
fn permitted(findings: Vec<Finding>, yes: bool) -> Outcome<Vec<Finding>> {
    let asking: Vec<&Finding> = findings.iter().filter(|f| f.asks).collect();
    if yes || asking.is_empty() {
        return Ok(findings);
    }
    if !io::stdin().is_terminal() {
        let codes = asking.iter().map(|f| f.code.as_str()).collect::<Vec<_>>().join(", ");
        let message =
            format!("mending {codes} takes something away or could be meant otherwise; nothing was changed");
        return Err(Fail::usage(
            "CONSENT_REQUIRED",
            message,
            "add --yes, or do it by hand as the fix lines say",
        ));
    }
    let mut kept = Vec::new();
    for finding in findings {
        if finding.asks {
            let mut err = io::stderr();
            write!(err, "{}: {}\n  {}\n  do it? [y/N] ", finding.code, finding.message, finding.fix)?;
            err.flush()?;
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            if !matches!(line.trim(), "y" | "Y" | "yes") {
                continue;
            }
        }
        kept.push(finding);
    }
    Ok(kept)
}
