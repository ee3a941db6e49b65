//! One effect of the agent on the world.

use std::collections::BTreeMap;

use kctl_shared::name::PluginName;
use kctl_shared::spec::{Grant, Placement, ReleaseRef};

use crate::config::Preflight;
use crate::gateway::Wanted;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bring a release's files onto the node by its method, checked and synced.
    Fetch { plugin: PluginName, grant: Grant, release: ReleaseRef },
    /// Try in a scratch Kong what `wanted` would load.
    Preflight {
        plugin: PluginName,
        grant: Grant,
        release: Option<ReleaseRef>,
        wanted: Wanted,
        how: Preflight,
    },
    /// Make the running Kong as `wanted` says, and prove it: one reload for all plugins that wait for one.
    Enact { plugins: BTreeMap<PluginName, Grant>, wanted: Wanted },
    /// Take the node out of its load balancer: Kong is about to be away for a moment, or somebody wants it out.
    Drain { plugins: BTreeMap<PluginName, Grant> },
    /// Bring it back in.
    Undrain,
    /// Go on bringing back what was proven last.
    PutBack,
    /// Undo a placement of a release, by its method's counterpart.
    Delete { plugin: PluginName, placement: Placement },
    /// Delete generation directories that nothing reads any more.
    CollectGenerations,
}
