//! `kctl plugin lint`, and the same before a plugin is packed or installed.

use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;
use kctl_shared::package::{LoadOptions, Loaded, PackageError, gather, load_all_about};

use crate::cli::{Format, JudgeArgs, LintArgs, SourceArgs};
use crate::fail::{Fail, Outcome};
use crate::lint::{self, Policy, Report, Sandboxed, Target};
use crate::output::Printer;

pub fn run(printer: &Printer, args: &LintArgs) -> Outcome {
    let options = options(&args.source)?;
    let kong = args.judge.kong.unwrap_or_default();
    let reports = reports(&args.source, &options, kong, &args.judge.policy)?;
    match printer.format {
        Format::Sarif => printer.text(&format!("{:#}\n", lint::sarif(&reports)))?,
        Format::Table | Format::Wide => {
            printer.text(&lint::human(&reports, args.notes || printer.format == Format::Wide))?;
        }
        _ => printer.many(&reports, |r| r.plugin.clone(), |_| Vec::new())?,
    }
    if reports.iter().any(|r| r.errors > 0) { Err(Fail::Findings) } else { Ok(()) }
}

/// One report for each plugin there is, or the one that was named.
fn reports(
    source: &SourceArgs,
    options: &LoadOptions,
    kong: Target,
    policy: &[Policy],
) -> Outcome<Vec<Report>> {
    let one = |options: &LoadOptions| {
        with_modules(source, options, load_all_about(&source.reference, options, &Sandboxed))
    };
    let report = |loaded: Result<Loaded, PackageError>, name: &str| -> Outcome<Report> {
        match loaded {
            Ok(loaded) => Ok(lint::judge(&loaded, kong, policy)?),
            Err(e) => {
                // Kong never sees a rockspec: what it would say of the files is worth hearing too.
                let named = PluginName::parse(name).ok().or_else(|| options.name.clone());
                let bare = LoadOptions { name: named, ignore_rockspec: true, ..options.clone() };
                match one(&bare) {
                    Ok(loaded) if e.code.starts_with("ROCKSPEC_") => {
                        Ok(Report::unpacked(&e, lint::judge(&loaded, kong, policy)?))
                    }
                    _ => Ok(Report::refused(&e, name, kong)),
                }
            }
        }
    };
    match one(options) {
        Err(e) if e.code == "MULTIPLE_PLUGINS" => {
            let named = |name: &String| {
                let loaded = PluginName::parse(name)
                    .map_err(PackageError::from)
                    .and_then(|n| one(&LoadOptions { name: Some(n), ..options.clone() }));
                report(loaded, name)
            };
            e.plugins.iter().map(named).collect()
        }
        // What cannot be read at all is no plugin that could be judged.
        Err(e) if e.code == "SOURCE_UNREADABLE" => Err(Fault::from(e).into()),
        loaded => Ok(vec![report(loaded, source.name.as_deref().unwrap_or_default())?]),
    }
}

/// How a reference of the command line is to be read.
pub fn options(source: &SourceArgs) -> Result<LoadOptions, Fault> {
    let name = source.name.as_deref().map(PluginName::parse).transpose();
    let name = name.map_err(|e| Fault::new(e.code, e.message))?;
    Ok(LoadOptions {
        name,
        version: source.as_version.clone(),
        allow_native: source.allow_native,
        ignore_rockspec: source.ignore_rockspec,
        allow_shadow: source.allow_shadow,
        ..LoadOptions::default()
    })
}

/// Takes the one plugin of a reference.
///
/// # Errors
/// Those of packing.
pub fn take(source: &SourceArgs) -> Outcome<Loaded> {
    let options = options(source)?;
    let loaded = load_all_about(&source.reference, &options, &Sandboxed);
    Ok(with_modules(source, &options, loaded).map_err(Fault::from)?)
}

/// With the modules of the dependencies that were given along.
fn with_modules(
    source: &SourceArgs,
    options: &LoadOptions,
    loaded: Result<Loaded, PackageError>,
) -> Result<Loaded, PackageError> {
    let mut loaded = loaded?;
    if !source.dependencies.is_empty() {
        loaded.package = gather(loaded.package, &source.dependencies, options, &Sandboxed)?;
    }
    Ok(loaded)
}

/// Judges what was taken, for each of `kongs`, and says so on standard error.
///
/// # Errors
/// The first error that was found, by the code of its rule.
pub fn pass(loaded: &Loaded, args: &JudgeArgs, kongs: &[Target]) -> Outcome {
    if args.no_lint {
        return Ok(());
    }
    for kong in kongs {
        let report = lint::judge(loaded, *kong, &args.policy)?;
        let Some(error) = report.error() else {
            eprintln!("✔ lint       {}", report.summary());
            continue;
        };
        let place = match (error.file.as_str(), error.line) {
            ("", _) => String::new(),
            (file, 0) => format!("{file}: "),
            (file, line) => format!("{file}:{line}: "),
        };
        let message = error.message.strip_prefix(&place).unwrap_or(&error.message);
        let (others, version) = (report.errors - 1, &report.kong);
        let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
        let message = format!("Kong {version} would refuse it: {place}{message}{more}");
        let hint =
            format!("{}; `kctl plugin lint` shows everything, --no-lint goes on all the same", error.help);
        return Err(Fault::new(&error.rule, message).hint(hint).into());
    }
    Ok(())
}
