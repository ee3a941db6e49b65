//! `kctl plugin lint`, and the same before a plugin is packed or installed.

use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;
use kctl_shared::package::{LoadOptions, Loaded, Package, PackageError, gather, load_all_about};
use kctl_shared::proto::v1::plugin_service_client::PluginServiceClient;
use kctl_shared::proto::v1::{ListPluginsRequest, PluginView};

use crate::build;
use crate::cli::{Format, JudgeArgs, LintArgs, SourceArgs};
use crate::client::Client;
use crate::fail::{Fail, Outcome};
use crate::lint::{self, Others, Policy, Report, Sandboxed, Target};
use crate::output::Printer;

/// `client` asks the cluster for what else is installed in it, where that is wished.
pub async fn run(printer: &Printer, client: Option<&Client>, args: &LintArgs) -> Outcome {
    let options = options(&args.source)?;
    let kong = args.judge.kong.unwrap_or_default();
    let judged = reports(&args.source, &options, kong, &args.judge.policy)?;
    let mut others: Vec<Others> = judged.iter().filter_map(|(_, p)| p.as_ref()).map(Others::from).collect();
    if let Some(client) = client {
        others.extend(installed(client).await?.iter().map(Others::from));
    }
    let compared = judged.into_iter().map(|(report, package)| match package {
        Some(package) => report.with_clashes(&lint::clashes(&package, &others), &args.judge.policy),
        None => report,
    });
    let reports: Vec<Report> = compared.collect();
    match printer.format {
        Format::Sarif => printer.text(&format!("{:#}\n", lint::sarif(&reports)))?,
        Format::Table | Format::Wide => {
            printer.text(&lint::human(&reports, args.notes || printer.format == Format::Wide))?;
        }
        _ => printer.many(&reports, |r| r.plugin.clone(), |_| Vec::new())?,
    }
    if reports.iter().any(|r| r.errors > 0) { Err(Fail::Findings) } else { Ok(()) }
}

/// The plugins that are installed in any group.
///
/// # Errors
/// Those of asking.
pub async fn installed(client: &Client) -> Result<Vec<PluginView>, Fault> {
    let answer = client.call(|channel| async move {
        Ok(PluginServiceClient::new(channel).list(ListPluginsRequest::default()).await?.into_inner())
    });
    Ok(answer.await?.plugins)
}

/// One report for each plugin there is, or the one that was named, with what can be packed of it.
fn reports(
    source: &SourceArgs,
    options: &LoadOptions,
    kong: Target,
    policy: &[Policy],
) -> Outcome<Vec<(Report, Option<Package>)>> {
    let one = |options: &LoadOptions| with_more(source, options, read(source, options));
    let report = |loaded: Result<Loaded, PackageError>, name: &str| -> Outcome<(Report, Option<Package>)> {
        match loaded {
            Ok(loaded) => Ok((lint::judge(&loaded, kong, policy)?, Some(loaded.package))),
            Err(e) => {
                // Kong never sees a rockspec: what it would say of the files is worth hearing too.
                let named = PluginName::parse(name).ok().or_else(|| options.name.clone());
                let bare = LoadOptions { name: named, ignore_rockspec: true, ..options.clone() };
                match one(&bare) {
                    Ok(loaded) if e.code.starts_with("ROCKSPEC_") => {
                        Ok((Report::unpacked(&e, lint::judge(&loaded, kong, policy)?), None))
                    }
                    _ => Ok((Report::refused(&e, name, kong), None)),
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

/// What is named along with the first plugin is another one, or a dependency of the one before it.
///
/// # Errors
/// That a name is none.
pub fn each_plugin(source: &SourceArgs) -> Outcome<Vec<SourceArgs>> {
    let bare = LoadOptions { name: None, version: None, ..options(source)? };
    let one = |reference| SourceArgs { reference, dependencies: Vec::new(), ..source.clone() };
    let mut plugins = vec![one(source.reference.clone())];
    for path in &source.dependencies {
        let is_plugin = match load_all_about(path, &bare, &Sandboxed) {
            Ok(_) => true,
            Err(e) => matches!(e.code, "MULTIPLE_PLUGINS" | "NAME_UNKNOWN"),
        };
        match plugins.last_mut() {
            Some(last) if !is_plugin => last.dependencies.push(path.clone()),
            _ => plugins.push(one(path.clone())),
        }
    }
    Ok(plugins)
}

/// Takes the one plugin of a reference.
///
/// # Errors
/// Those of packing.
pub fn take(source: &SourceArgs) -> Outcome<Loaded> {
    let options = options(source)?;
    let loaded = read(source, &options);
    Ok(with_more(source, &options, loaded).map_err(Fault::from)?)
}

/// As it lies, or built where that is needed and allowed.
fn read(source: &SourceArgs, options: &LoadOptions) -> Result<Loaded, PackageError> {
    match load_all_about(&source.reference, options, &Sandboxed) {
        Err(e) if e.code == "ROCKSPEC_BUILD_TYPE" && source.allow_build => {
            build::built(&source.reference, options)
        }
        loaded => loaded,
    }
}

/// With the modules of the dependencies that were given along, and what it was said to need of nginx.
fn with_more(
    source: &SourceArgs,
    options: &LoadOptions,
    loaded: Result<Loaded, PackageError>,
) -> Result<Loaded, PackageError> {
    let mut loaded = loaded?;
    if !source.dependencies.is_empty() {
        loaded.package = gather(loaded.package, &source.dependencies, options, &Sandboxed)?;
    }
    loaded.package = loaded.package.with_nginx(&source.nginx, &options.limits)?;
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
