//! Plugins that stay at their version until somebody lets them go.

use kctl_shared::name::{GroupName, PluginName};

use super::command::{Event, Rejection};
use super::model::ClusterState;

/// # Errors
/// `PLUGIN_PINNED` when `version` may not take the place of what is pinned.
pub fn not_pinned(
    state: &ClusterState,
    group: &GroupName,
    plugin: &PluginName,
    version: &str,
) -> Result<(), Rejection> {
    match state.plugin(group, plugin).and_then(|p| p.pinned.as_deref()) {
        Some(pinned) if pinned != version => {
            let message =
                format!("{plugin} is pinned to {pinned} in group {group}, {version:?} is another version");
            Err(Rejection::new("PLUGIN_PINNED", message)
                .hint(format!("kctl plugin unpin {plugin} --group {group}")))
        }
        _ => Ok(()),
    }
}

pub(super) fn pin(
    state: &mut ClusterState,
    group: &GroupName,
    plugin: &PluginName,
    version: Option<String>,
) -> Result<Vec<Event>, Rejection> {
    let Some(present) = state.plugin_mut(group, plugin).filter(|p| p.release.is_some()) else {
        let message = format!("{plugin} is not installed in group {group}");
        return Err(Rejection::new("PLUGIN_NOT_INSTALLED", message).hint("kctl plugin list"));
    };
    if let Some(live) = &present.operation {
        let message = format!("operation {live} holds {plugin} in group {group}");
        return Err(Rejection::new("PLUGIN_BUSY", message).hint(format!("kctl operation status {live} -w")));
    }
    present.pinned.clone_from(&version);
    Ok(vec![Event::Pinned { plugin: plugin.to_string(), version }])
}
