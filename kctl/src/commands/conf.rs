//! `kctl conf`: the agent's own editor of kong.conf and kong.yml, by hand and without a control plane.

use std::collections::BTreeSet;
use std::path::Path;

use kctl_node_agent::gateway::conf_file::ConfFile;
use kctl_node_agent::gateway::dialect::{Dialect, Grammar, YmlKey};
use kctl_node_agent::gateway::kong_conf::{Change, ConfError, OurPath};
use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;
use serde::Serialize;

use crate::cli::{ConfCommand, ConfEditArgs, ConfFileArgs};
use crate::fail::{Fail, Outcome};
use crate::output::Printer;

/// Lines looked ahead for the place where two texts are the same again.
const AHEAD: usize = 200;

#[derive(Serialize)]
struct Listed {
    conf: String,
    key: &'static str,
    /// `bundled` stands for those that come with Kong.
    plugins: Vec<String>,
}

#[derive(Serialize)]
struct Edited {
    conf: String,
    key: &'static str,
    plugins: Vec<String>,
    changed: bool,
    /// False with `--dry-run`.
    written: bool,
    diff: Vec<String>,
}

pub fn run(printer: &Printer, command: &ConfCommand) -> Outcome {
    match command {
        ConfCommand::Get { file } => get(printer, file),
        ConfCommand::Add(args) => {
            edit(printer, args, Change { add: checked(&args.names)?, ..Change::default() })
        }
        ConfCommand::Remove(args) => {
            edit(printer, args, Change { remove: checked(&args.names)?, ..Change::default() })
        }
    }
}

fn get(printer: &Printer, args: &ConfFileArgs) -> Outcome {
    let grammar = grammar(args)?;
    let file = ConfFile::read(&args.conf, grammar).map_err(|e| fault(e, &args.conf))?;
    let plugins = file.conf.plugins().map_err(|e| fault(e, &args.conf))?;
    let listed = Listed { conf: args.conf.display().to_string(), key: key(grammar), plugins };
    let names = listed.plugins.join("\n");
    printer.one(&listed, &names, || listed.plugins.iter().map(|name| format!("{name}\n")).collect())
}

fn edit(printer: &Printer, edit: &ConfEditArgs, change: Change) -> Outcome {
    let (args, dry_run) = (&edit.file, edit.dry_run);
    let grammar = grammar(args)?;
    let failed = |e: ConfError| fault(e, &args.conf);
    let file = ConfFile::read(&args.conf, grammar).map_err(failed)?;
    let ours = OurPath::new(Path::new("/opt/kctl"));
    // An agent's entry in the Lua path is not what is asked about.
    let change = Change { generation: file.conf.generation(&ours), ..change };
    let text = file.conf.edit(&change, &ours).map_err(failed)?;
    let changed = text != file.text;
    if changed && !dry_run {
        file.replace(&text).map_err(failed)?;
    }
    let after = kctl_node_agent::gateway::node_conf::NodeConf::parse(&text, grammar).map_err(failed)?;
    let edited = Edited {
        conf: args.conf.display().to_string(),
        key: key(grammar),
        plugins: after.plugins().map_err(failed)?,
        changed,
        written: changed && !dry_run,
        diff: diff(&String::from_utf8_lossy(&file.text), &String::from_utf8_lossy(&text)),
    };
    printer.one(&edited, &edited.conf, || {
        let lines: String = edited.diff.iter().map(|line| format!("{line}\n")).collect();
        let what = match (edited.changed, edited.written) {
            (false, _) => "is as asked for already",
            (true, true) => "was edited; Kong loads it with the next `kong prepare` and `kong reload`",
            (true, false) => "would be edited (nothing was written)",
        };
        format!("{lines}✔ {} {what}\n", edited.conf)
    })
}

fn grammar(args: &ConfFileArgs) -> Outcome<Grammar> {
    if let Some(version) = &args.kong {
        return Dialect::grammar_of(version).map_err(|failure| {
            Fail::usage(&failure.code, failure.message, "--kong 3.9, as `kong version` says it")
        });
    }
    let yaml = args.conf.extension().is_some_and(|end| end == "yml" || end == "yaml");
    if yaml {
        return Err(Fail::usage(
            "KONG_VERSION_NEEDED",
            "a kong.yml is read in another way by each Kong before 0.9",
            "say which with --kong, for example --kong 0.8.3",
        ));
    }
    Ok(Grammar::default())
}

fn key(grammar: Grammar) -> &'static str {
    match grammar {
        Grammar::Conf(style) => style.lists.key(),
        Grammar::Yml(key) => YmlKey::as_str(key),
    }
}

fn checked(names: &[String]) -> Outcome<BTreeSet<String>> {
    let parsed = names.iter().map(|name| PluginName::parse(name).map(|name| name.to_string()));
    Ok(parsed
        .collect::<Result<_, _>>()
        .map_err(|e| Fault::new(e.code, e.message).hint("kctl conf get --help"))?)
}

fn fault(error: ConfError, conf: &Path) -> Fail {
    let file =
        error.code.starts_with("CONF_") && !matches!(error.code, "CONF_EDIT_UNSAFE" | "CONF_YAML_UNSAFE");
    let conf = conf.display();
    let hint = if file {
        format!("ls -l {conf}")
    } else {
        format!("nothing was changed; kctl conf get --conf {conf}")
    };
    Fail::Fault(Fault::new(error.code, error.message).hint(hint))
}

/// `12 - old`, `12 + new`: the lines that differ, with their numbers.
fn diff(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && old.get(i) == new.get(j) {
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let same = |(a, b): &(usize, usize)| old.get(i + a).is_some() && old.get(i + a) == new.get(j + b);
        let steps = (1..AHEAD).flat_map(|sum| (0..=sum).map(move |a| (a, sum - a)));
        let (removed, added) = steps.into_iter().find(same).unwrap_or((old.len() - i, new.len() - j));
        lines.extend((i..i + removed).map(|n| format!("{:>5} - {}", n + 1, old[n])));
        lines.extend((j..j + added).map(|n| format!("{:>5} + {}", n + 1, new[n])));
        (i, j) = (i + removed, j + added);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_differ_are_shown() {
        let shown = |old, new| diff(old, new).iter().map(|l| l.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(shown("a\nb\nc\n", "a\nx\nc\n"), ["2 - b", "2 + x"]);
        assert_eq!(shown("a\nc\n", "a\nb\nc\n"), ["2 + b"]);
        assert_eq!(shown("a\nb\n", "a\n"), ["2 - b"]);
        assert_eq!(shown("a\n\nb\n\n", "a\n\nb,x\n\n"), ["3 - b", "3 + b,x"]);
        assert!(shown("a\n", "a\n").is_empty());
    }
}
