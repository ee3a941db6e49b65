//! A plugin's files: there, whole, once, readable by those who run them.

use std::path::PathBuf;

use crate::doctor::facts::Files;
use crate::doctor::{Facts, Finding, Repair};

pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        facts.plugins.iter().flat_map(|(name, files)| of(facts, name, files)).collect();
    for (name, copy) in &facts.shadowed {
        found.push(
            Finding::warning(
                "FILES_SHADOWED",
                format!("{} stands before Kong's own {name} on the Lua path and replaces it", copy.display()),
            )
            .about(name)
            .fix(format!("move {} away if that is not meant, then reload", parent(copy).display())),
        );
    }
    found
}

fn of(facts: &Facts, name: &str, files: &Files) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(link) = files.dangling.first() {
        found.push(
            Finding::error("LINK_DANGLING", format!("{} is a symbolic link to nowhere", link.display()))
                .about(name)
                .detail(format!("{name} cannot be loaded through it after the next reload"))
                .fix(format!(
                    "restore what it points at, or remove the link and take {name} out of `{}`",
                    facts.key()
                )),
        );
    }
    if !files.closed.is_empty() {
        found.push(closed(facts, name, files));
    }
    if let Some(why) = &files.changed {
        found.push(
            Finding::error("FILES_CHANGED", format!("the files of {name} are not those of its release"))
                .about(name)
                .detail(why)
                .fix("let kctl place them again: stop the agent, then kctl-node-agent sync --once --config FILE"),
        );
    }
    found.extend(copies(name, files));
    if let Some(sign) = &files.old_style {
        found.push(
            Finding::error("OLD_STYLE_PLUGIN", format!("{name} is written for Kong before 3.0: {sign}"))
                .about(name)
                .fix("port it to Kong 3 (kctl plugin lint DIRECTORY names the places), or take it out of `plugins`"),
        );
    }
    found
}

fn closed(facts: &Facts, name: &str, files: &Files) -> Finding {
    let paths = files.closed.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let message = format!("Kong's workers (user {}) cannot read the files of {name}", files.reader);
    let finding = Finding::error("FILES_UNREADABLE", message)
        .about(name)
        .detail(format!("closed to them: {}", paths.join(", ")))
        .detail("the master reads them as root, so a reload seems to work; what workers load later fails")
        .fix(format!("chmod a+rX {} && kong reload -p {}", paths.join(" "), facts.prefix.display()));
    let repair = Repair::Readable(files.closed.clone());
    // The plugin's own tree is the plugin's; what stands above may be closed on purpose.
    let own = |path: &PathBuf| {
        let tree = files.handlers.iter().chain(&files.schemas).filter_map(|file| root_of(file, name));
        tree.clone().any(|root| path.starts_with(root))
    };
    let home = |path: &PathBuf| path.starts_with("/root") || path.starts_with("/home");
    if files.closed.iter().all(own) {
        finding.repair(repair)
    } else if files.closed.iter().any(home) {
        finding.detail("a home directory is no place for plugins: move them, and correct lua_package_path")
    } else {
        finding.repair_if_allowed(repair)
    }
}

/// The directory that `kong/plugins/NAME` stands in, `kong` itself included.
fn root_of(file: &std::path::Path, name: &str) -> Option<PathBuf> {
    let plugin = file.ancestors().find(|a| a.ends_with(format!("kong/plugins/{name}")))?;
    plugin.parent()?.parent().map(std::path::Path::to_path_buf)
}

fn copies(name: &str, files: &Files) -> Option<Finding> {
    let places: Vec<PathBuf> = files.handlers.iter().map(|file| parent(file)).collect();
    let schema = files.schemas.first().map(|file| parent(file));
    if let (Some(first), Some(schema)) = (places.first(), &schema)
        && first != schema
    {
        let message = format!(
            "handler and schema of {name} come from different places: {} and {}",
            first.display(),
            schema.display()
        );
        return Some(
            Finding::error("FILES_SHADOWED", message)
                .about(name)
                .fix(format!("keep one whole copy of {name} on lua_package_path, then reload")),
        );
    }
    let (first, others) = places.split_first()?;
    if others.is_empty() {
        return None;
    }
    let list = others.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    Some(
        Finding::warning(
            "FILES_SHADOWED",
            format!(
                "there are {} copies of {name}, and Lua takes the one in {}",
                places.len(),
                first.display()
            ),
        )
        .about(name)
        .detail(format!("shadowed: {list}"))
        .fix("move the copies away that are not meant, then reload"),
    )
}

fn parent(path: &std::path::Path) -> PathBuf {
    path.parent().unwrap_or(path).to_path_buf()
}
