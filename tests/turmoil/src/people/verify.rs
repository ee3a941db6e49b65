//! Whether every node is as the operations that ended say.

use std::collections::BTreeSet;

use kctl_shared::digest::Digest;
use kctl_shared::proto::v1::ListPluginsRequest;
use kctl_shared::proto::v1::plugin_service_client::PluginServiceClient;

use super::{Broken, Person};
use crate::node::Node;
use crate::world::now_ms;

impl Person {
    /// Every node has what the operations that ended say, and the control plane says the same.
    pub(super) async fn verify(&mut self) -> Result<(), Broken> {
        let since = now_ms();
        loop {
            let listed = self.call(|c| async {
                PluginServiceClient::new(c).list(ListPluginsRequest { group: "default".into() }).await
            });
            let differs = match listed.await {
                Ok(list) => {
                    let plugin = list.plugins.iter().find(|p| p.name == self.plugin.as_str());
                    let digest = plugin.and_then(|p| p.digest.parse().ok());
                    self.differs(digest)
                }
                Err(fault) => Some(fault.to_string()),
            };
            match differs {
                None => return Ok(()),
                Some(what) if self.late(since) => return Err(format!("convergence: {what}")),
                Some(_) => self.rest(200..600).await,
            }
        }
    }

    fn differs(&self, told: Option<Digest>) -> Option<String> {
        let mut world = self.world();
        let present = world.wish(&self.plugin).present;
        if told != present {
            return Some(format!(
                "{} is {told:?} to the control plane, {present:?} to whom it answered",
                self.plugin
            ));
        }
        let used = world.entities.values().any(|(plugin, _)| *plugin == self.plugin);
        if present.is_none() && used {
            return Some(format!("{} is gone and still configured", self.plugin));
        }
        let wanted: BTreeSet<Digest> = present.into_iter().collect();
        let differs = |node: &&Node| {
            let loaded = node.loaded.get(&self.plugin).copied().flatten();
            !node.up
                || loaded != present
                || node.conf.listed.contains(&self.plugin) != present.is_some()
                || node.conf != node.armed
                || node.stored(&self.plugin) != wanted
        };
        world.nodes.values().find(differs).map(|n| {
            format!(
                "{}: {} is to be {present:?}; stored {:?}, {n:?}",
                n.name,
                self.plugin,
                n.stored(&self.plugin)
            )
        })
    }
}
