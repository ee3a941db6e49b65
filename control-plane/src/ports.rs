//! What a member is given of the world; a simulation gives it another one.

use std::sync::Arc;

use kctl_shared::network::{Network, Tcp};

use crate::raft::{Disks, Sled};

#[derive(Clone, Debug)]
pub struct Ports {
    pub network: Arc<dyn Network>,
    /// For the log and the snapshots.
    pub disks: Arc<dyn Disks>,
}

/// The world there is.
impl Default for Ports {
    fn default() -> Self {
        Self { network: Arc::new(Tcp), disks: Arc::new(Sled) }
    }
}
