//! Findings as a person reads them.

use kctl_node_agent::doctor::{Finding, Repair, Severity};

/// Where the code stands; a longer sentence pushes it on.
const COLUMN: usize = 72;

pub fn findings(findings: &[Finding]) -> String {
    findings.iter().map(one).collect()
}

fn one(finding: &Finding) -> String {
    let mark = match finding.severity {
        Severity::Error => "×",
        Severity::Warning => "⚠",
    };
    let node = finding.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
    let mut out = format!("{mark} {:<COLUMN$}  {}\n", format!("{node}{}", finding.message), finding.code);
    for detail in &finding.details {
        out.push_str(&format!("    {detail}\n"));
    }
    if let Some(words) = &finding.kong_says {
        out.push_str(&format!("    Kong said: \"{words}\"\n"));
    }
    if let Some(cause) = &finding.follows {
        out.push_str(&format!("    follows from {cause}\n"));
    }
    if !finding.fix.is_empty() {
        let how = match (finding.can_fix, finding.asks, &finding.repair) {
            (false, ..) => "",
            (true, _, Some(Repair::Migrate)) => "        [--fix --migrations does it]",
            (true, false, _) => "        [--fix does it]",
            (true, true, _) => "        [--fix --yes does it]",
        };
        out.push_str(&format!("    fix: {}{how}\n", finding.fix));
    }
    out
}
