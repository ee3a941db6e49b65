//! Which releases exist.

use kctl_shared::digest::Digest;
use kctl_shared::name::{GroupName, PluginName};
use kctl_shared::package::FileEntry;

use super::command::{Event, LogStamp, Rejection};
use super::model::{ClusterState, MAX_RELEASES, Release};

/// A version never changes its content.
///
/// # Errors
/// `VERSION_CONFLICT`.
pub fn same_content(
    state: &ClusterState,
    plugin: &PluginName,
    version: &str,
    digest: &Digest,
) -> Result<(), Rejection> {
    let other = |r: &&Release| r.plugin == *plugin && r.version == version && r.digest != *digest;
    match state.releases.values().find(other) {
        None => Ok(()),
        Some(other) => Err(Rejection::new(
            "VERSION_CONFLICT",
            format!(
                "{plugin} {version} exists already with other content ({} there, {digest} here)",
                other.digest
            ),
        )
        .hint("raise VERSION in handler.lua: a version never changes its content")),
    }
}

/// Modules beside a plugin's own directory are seen by everything in a Kong: two plugins of a group may bring the same one
/// only if it is the same.
///
/// # Errors
/// `MODULE_CONFLICT`.
pub fn no_conflict(
    state: &ClusterState,
    group: &GroupName,
    plugin: &PluginName,
    digest: &Digest,
) -> Result<(), Rejection> {
    let Some(release) = state.releases.get(digest) else { return Ok(()) };
    let others =
        state.groups.get(group).into_iter().flat_map(|g| &g.plugins).filter(|(name, _)| *name != plugin);
    for (other, record) in others {
        let coming = record.operation.as_ref().and_then(|id| state.operations.get(id)).map(|o| o.release);
        let theirs = record.release.into_iter().chain(coming).filter_map(|d| state.releases.get(&d));
        let inside = |r: &Release, name: &PluginName| {
            let own = format!("kong/plugins/{name}/");
            r.extras.iter().find(|e| e.path.starts_with(&own)).map(|e| e.path.clone())
        };
        for their in theirs {
            let differs =
                |e: &&FileEntry| their.extras.iter().any(|t| t.path == e.path && t.sha256 != e.sha256);
            let conflict = release.extras.iter().find(differs).map(|e| e.path.clone());
            let conflict = conflict.or_else(|| inside(release, other)).or_else(|| inside(their, plugin));
            if let Some(path) = conflict {
                let message = format!(
                    "{path} would come with {plugin} and is another one in {other} {}",
                    their.version
                );
                return Err(Rejection::new("MODULE_CONFLICT", message)
                    .hint("make both plugins bring the same module, or only one of them"));
            }
        }
    }
    Ok(())
}

pub(super) fn register_release(
    state: &mut ClusterState,
    at: LogStamp,
    release: Release,
) -> Result<Vec<Event>, Rejection> {
    same_content(state, &release.plugin, &release.version, &release.digest)?;
    if state.releases.len() >= MAX_RELEASES && !state.releases.contains_key(&release.digest) {
        return Err(Rejection::new(
            "TOO_MANY_RELEASES",
            format!("the catalogue holds {MAX_RELEASES} releases"),
        )
        .hint("remove plugins that are not used any more"));
    }
    let event = Event::ReleaseRegistered {
        plugin: release.plugin.to_string(),
        version: release.version.clone(),
        digest: release.digest.to_string(),
    };
    // The same bytes under another version keep the first version: a release is its content.
    state.releases.entry(release.digest).or_insert(Release {
        registered_at: at.proposed_at,
        retained: false,
        ..release
    });
    Ok(vec![event])
}

/// Drops releases that no plugin has, no live operation carries and no operation ever installed with success, so that a
/// mended plugin may be tried again under the same version.
pub(super) fn collect(state: &mut ClusterState, plugin: &kctl_shared::name::PluginName) {
    let used: std::collections::BTreeSet<_> = state
        .groups
        .values()
        .flat_map(|g| g.plugins.values().filter_map(|p| p.release))
        .chain(state.live_operations().flat_map(|o| [Some(o.release), o.previous]).flatten())
        .collect();
    state.releases.retain(|digest, r| &r.plugin != plugin || r.retained || used.contains(digest));
}
