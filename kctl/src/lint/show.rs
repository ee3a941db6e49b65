//! The forms of reports: for people, and as SARIF 2.1.0.

use serde_json::{Value, json};

use super::report::{Finding, Report};
use super::rules::{self, Severity};

/// Findings below each other, each with what to do; notes are left to those who ask for them.
pub fn human(reports: &[Report], notes: bool) -> String {
    let mut out = String::new();
    for report in reports {
        let mark = match report.verdict {
            "refused" => '✖',
            "uncertain" => '?',
            _ => '✔',
        };
        let name = match (report.plugin.as_str(), report.version.as_str()) {
            ("", _) => String::new(),
            (name, "") => format!(" {name}"),
            (name, version) => format!(" {name} {version}"),
        };
        let (errors, warnings) = (plural(report.errors, "error"), plural(report.warnings, "warning"));
        out.push_str(&format!("{mark} lint {name}   {errors}, {warnings}   (Kong {})\n", report.kong));
        if report.verdict == "loads with needs" {
            out.push_str(&format!("  loads where there is {}\n", report.needs.join(", ")));
        }
        let told = report.findings.iter().filter(|f| notes || f.severity > Severity::Note);
        told.for_each(|finding| out.push_str(&one(finding)));
        let silent = report.findings.iter().filter(|f| f.severity == Severity::Note).count();
        if !notes && silent > 0 {
            out.push_str(&format!("  {} more with --notes\n", plural(silent, "note")));
        }
    }
    out
}

fn one(finding: &Finding) -> String {
    let place = match (finding.file.as_str(), finding.line) {
        ("", _) => String::new(),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}: "),
    };
    // The sentence may begin with Lua's own place.
    let message = finding.message.strip_prefix(&place).unwrap_or(&finding.message).replace('\n', "\n    ");
    let help = if finding.help.is_empty() { String::new() } else { format!("   {}", finding.help) };
    format!("  {} {place}{message}\n    {}{help}\n", finding.severity.word(), finding.rule)
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// One run over all plugins.
pub fn sarif(reports: &[Report]) -> Value {
    let results = reports.iter().flat_map(|r| r.findings.iter().map(|f| result(f, &r.plugin)));
    let results: Vec<Value> = results.collect();
    let known = rules::RULES.iter().filter_map(|r| Some((r, r.entry()?))).map(|(r, entry)| {
        json!({
            "id": r.code,
            "shortDescription": { "text": entry.means },
            "fullDescription": { "text": entry.why },
            "help": { "text": entry.todo },
            "defaultConfiguration": { "level": r.severity.word() },
        })
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "kctl plugin lint",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": known.collect::<Vec<_>>(),
            }},
            "results": results,
            "columnKind": "utf16CodeUnits",
        }],
    })
}

fn result(finding: &Finding, plugin: &str) -> Value {
    let text = if finding.help.is_empty() {
        finding.message.clone()
    } else {
        format!("{}. To do: {}.", finding.message, finding.help)
    };
    let mut result = json!({
        "ruleId": finding.rule,
        "level": finding.severity.word(),
        "message": { "text": text },
        "properties": { "plugin": plugin },
    });
    if !finding.file.is_empty() {
        let mut place = json!({ "artifactLocation": { "uri": uri(&finding.file) } });
        if finding.line > 0 {
            place["region"] = json!({ "startLine": finding.line });
        }
        result["locations"] = json!([{ "physicalLocation": place }]);
    }
    result
}

/// A relative path as a URI reference.
fn uri(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
