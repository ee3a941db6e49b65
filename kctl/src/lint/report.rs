//! What was found in one plugin, by policy, and how people read it.

use kctl_shared::package::{Loaded, PackageError};
use serde::Serialize;

use super::child;
use super::clashes::Clash;
use super::job::{Head, Job, Line, PluginJob, Raw};
use super::rules::{self, Policy, Severity};
use super::target::Target;

/// Files of one report are told in full; a plugin with more findings of one rule than this is not read line by line.
const MOST_PER_RULE: usize = 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable.
    pub rule: String,
    pub severity: Severity,
    /// Path within the directory or archive; empty where it is about the plugin as a whole.
    pub file: String,
    /// From 1; 0 if unknown.
    pub line: u32,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// One plugin's findings, errors first.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Empty if there is none.
    pub plugin: String,
    pub version: String,
    /// Of the release; empty if there is none.
    pub digest: String,
    /// The Kong it was judged for.
    pub kong: String,
    pub priority: Option<f64>,
    /// `loads`, `loads with needs`, `uncertain` or `refused`.
    pub verdict: &'static str,
    /// Modules that must be on a node before Kong loads the plugin there: Kong does not bring them.
    pub needs: Vec<String>,
    pub errors: usize,
    pub warnings: usize,
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(plugin: &str, version: &str, digest: String, kong: Target, findings: Vec<Finding>) -> Self {
        let mut findings = findings;
        findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        Self {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            digest,
            kong: kong.to_string(),
            priority: None,
            verdict: if count(Severity::Error) > 0 { "refused" } else { "loads" },
            needs: Vec::new(),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            findings,
        }
    }

    /// The report on what could not be packed.
    pub fn refused(error: &PackageError, name: &str, kong: Target) -> Self {
        let finding = Finding {
            rule: error.code.to_owned(),
            severity: Severity::Error,
            file: String::new(),
            line: 0,
            message: error.message.clone(),
            help: error.hint.clone(),
        };
        Self::new(name, "", String::new(), kong, vec![finding])
    }

    /// The report on what cannot be packed for its rockspec alone: that, and what Kong would make of the files.
    pub fn unpacked(error: &PackageError, judged: Self) -> Self {
        let refused = Self::refused(error, &judged.plugin, Target::default());
        let findings = refused.findings.into_iter().chain(judged.findings).collect();
        let (verdict, errors) = (refused.verdict, judged.errors + 1);
        Self { findings, verdict, errors, digest: String::new(), ..judged }
    }

    /// Adds what was found by comparing with other releases.
    pub fn with_clashes(mut self, clashes: &[Clash], policies: &[Policy]) -> Self {
        let raw = |clash: &Clash| Raw {
            rule: "MODULE_CLASH".into(),
            file: clash.path.clone(),
            line: 0,
            message: clash.to_string(),
        };
        let more = findings(clashes.iter().map(raw).collect(), &[], policies);
        self.errors += more.iter().filter(|f| f.severity == Severity::Error).count();
        self.warnings += more.iter().filter(|f| f.severity == Severity::Warning).count();
        self.findings.extend(more);
        self.findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
        if self.errors > 0 {
            self.verdict = "refused";
        }
        self
    }

    /// The first error.
    pub fn error(&self) -> Option<&Finding> {
        self.findings.iter().find(|f| f.severity == Severity::Error)
    }

    /// `0 errors, 1 warning (…)`, one line.
    pub fn summary(&self) -> String {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let first = self.findings.iter().find(|f| f.severity >= Severity::Warning);
        let first = first.map_or(String::new(), |f| format!(" ({})", f.message));
        format!("{}, {}{first}", plural(self.errors, "error"), plural(self.warnings, "warning"))
    }
}

/// Judges a package in the sandbox.
///
/// # Errors
/// Those of starting a process.
pub fn judge(loaded: &Loaded, kong: Target, policies: &[Policy]) -> std::io::Result<Report> {
    let package = &loaded.package;
    let key = |path: &str| format!("kong/plugins/{}/{path}", package.plugin);
    let origin = |key: &str| {
        let known = loaded.origins.iter().find(|(to, _)| to == key);
        known.map_or_else(|| key.to_owned(), |(_, from)| from.clone())
    };
    let files = package.files.iter().map(|f| Head {
        key: key(&f.entry.path),
        chunk: origin(&key(&f.entry.path)),
        size: f.bytes.len(),
    });
    // Modules that travel beside the plugin are found as Lua would find them.
    let extras = package.extras.iter().map(|f| Head {
        key: f.entry.path.clone(),
        chunk: origin(&f.entry.path),
        size: f.bytes.len(),
    });
    let job = PluginJob {
        plugin: package.plugin.to_string(),
        kong,
        files: files.chain(extras).collect(),
        beside: package.left_out.iter().flat_map(|f| modules_of(f)).collect(),
        dicts: package
            .nginx()
            .unwrap_or_default()
            .iter()
            .filter_map(|s| s.shared_dict().map(str::to_owned))
            .collect(),
    };
    let bytes: Vec<&[u8]> = package.files.iter().chain(&package.extras).map(|f| f.bytes.as_slice()).collect();
    let told = child::run(&Job::Plugin(job.clone()), &bytes)?;
    let mut raws: Vec<Raw> = loaded
        .oddities
        .iter()
        .map(|(rule, message)| Raw {
            rule: (*rule).into(),
            file: String::new(),
            line: 0,
            message: message.clone(),
        })
        .collect();
    let (mut priority, mut loading, mut needs) = (None, String::new(), Vec::new());
    for line in told.lines {
        match line {
            Line::Found(raw) => raws.push(raw),
            Line::Needs(module) if !needs.contains(&module) => needs.push(module),
            Line::Handler { priority: p, .. } => priority = p,
            Line::Loading(module) => loading = module,
            _ => {}
        }
    }
    let file = format!("{}.lua", loading.replace('.', "/"));
    let file = if loading.is_empty() { String::new() } else { origin(&file) };
    // What took everything down did so where it was.
    let dying = |r: &&mut Raw| r.file.is_empty() && r.rule.starts_with("LOAD_");
    raws.iter_mut().filter(dying).for_each(|r| r.file.clone_from(&file));
    if let Some(death) = told.death {
        let rule = if death.contains("come to an end") { "LOAD_ENDLESS" } else { "LOAD_CRASHED" };
        raws.push(Raw { rule: rule.into(), file, line: 0, message: format!("loading was stopped: {death}") });
    }
    let findings = findings(raws, &job.files, policies);
    let digest = package.digest().to_string();
    let mut report = Report::new(package.plugin.as_str(), &package.version, digest, kong, findings);
    report.priority = priority;
    let doubt = report.findings.iter().any(|f| f.rule == "LOAD_UNCERTAIN");
    report.verdict = match (report.errors, needs.is_empty(), doubt) {
        (1.., ..) => "refused",
        (0, _, true) => "uncertain",
        (0, false, _) => "loads with needs",
        (0, true, _) => "loads",
    };
    report.needs = needs;
    Ok(report)
}

fn findings(raws: Vec<Raw>, heads: &[Head], policies: &[Policy]) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for raw in raws {
        let Some(rule) = rules::find(&raw.rule) else { continue };
        let chosen = policies.iter().rev().find(|p| p.rule == rule.code);
        let Some(severity) = chosen.map_or(Some(rule.severity), |p| p.severity) else { continue };
        // Lua says what it calls a file, the scanner its key.
        let named = |h: &&Head| h.key == raw.file || h.chunk == raw.file;
        let ending = |h: &&Head| !raw.file.is_empty() && h.chunk.ends_with(&format!("/{}", raw.file));
        let head = heads.iter().find(named).or_else(|| heads.iter().find(ending));
        let finding = Finding {
            rule: raw.rule,
            severity,
            file: head.map_or(raw.file.clone(), |h| h.chunk.clone()),
            line: raw.line,
            message: raw.message,
            help: rule.help(),
        };
        let many = found.iter().filter(|f| f.rule == finding.rule).count() >= MOST_PER_RULE;
        if !many && !found.contains(&finding) {
            found.push(finding);
        }
    }
    found
}

/// Which modules a file beside the plugin may be: what `lua`, `src` and `lib` are for is known.
fn modules_of(file: &str) -> Vec<(String, String)> {
    let Some(bare) = file.strip_suffix(".lua") else { return Vec::new() };
    let bare = bare.strip_suffix("/init").unwrap_or(bare);
    let starts = std::iter::once(0).chain(bare.match_indices('/').map(|(at, _)| at + 1));
    starts.take(5).map(|at| (bare[at..].replace('/', "."), file.to_owned())).collect()
}
