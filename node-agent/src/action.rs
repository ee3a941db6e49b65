//! One effect of the agent on the world.

use kctl_shared::digest::Digest;
use kctl_shared::name::PluginName;
use kctl_shared::spec::{Grant, ReleaseRef};

use crate::config::Preflight;
use crate::gateway::Wanted;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bring a release's files into the store, checked and synced.
    Fetch { plugin: PluginName, grant: Grant, release: ReleaseRef },
    /// Try in a scratch Kong what `wanted` would load.
    Preflight {
        plugin: PluginName,
        grant: Grant,
        release: Option<ReleaseRef>,
        wanted: Wanted,
        how: Preflight,
    },
    /// Make the running Kong as `wanted` says, and prove it.
    Enact { plugin: PluginName, grant: Grant, wanted: Wanted },
    /// Go on bringing back what was proven last.
    PutBack,
    /// Delete a release's files.
    Delete { plugin: PluginName, digest: Digest },
    /// Delete generation directories that nothing reads any more.
    CollectGenerations,
}
