//! What must hold, as far as it shows outside of the product. Numbers are those of the simulation's laws.
//!
//! I1, I2, I3, I8, I14 and I16 are here, I4 (what was acknowledged is there), I9 (only what is to go is deleted) and
//! convergence in [`crate::people`] and [`crate::kong`]. The others are about what is inside, see the simulation.

use std::collections::{BTreeMap, BTreeSet};

use kctl_node_agent::ledger::Ledger;
use kctl_shared::digest::Digest;
use kctl_shared::name::PluginName;

use crate::node::FOREIGN;
use crate::world::{Asked, World};

/// What was seen before.
#[derive(Debug, Default)]
pub struct Ghost {
    stored: BTreeMap<(String, PluginName), BTreeSet<Digest>>,
    fences: BTreeMap<String, (u64, u64)>,
}

impl Ghost {
    /// Looks at all disks; `fences`: at the ledgers too, which costs more.
    pub fn look(&mut self, world: &mut World, fences: bool) {
        let mut broken = Vec::new();
        for node in world.nodes.values() {
            for (plugin, digest) in node.running() {
                if !node.release(plugin, digest).join("handler.lua").exists() {
                    broken.push(("I1", format!("{} runs {plugin} {digest} without its files", node.name)));
                }
            }
            for (plugin, wish) in &world.wishes {
                let stored = node.stored(plugin);
                let key = (node.name.clone(), plugin.clone());
                let former = self.stored.insert(key, stored.clone()).unwrap_or_default();
                let Some(Asked::Remove(digest)) = wish.asked else { continue };
                if former.contains(&digest) && !stored.contains(&digest) {
                    let runs = |n: &&crate::node::Node| n.running().any(|r| r == (plugin, &digest));
                    if let Some(other) = world.nodes.values().find(runs) {
                        let message =
                            format!("{} deleted {plugin} {digest} while {} runs it", node.name, other.name);
                        broken.push(("I1", message));
                    }
                }
            }
            if fences && let Ok(record) = Ledger::peek(&node.state_dir) {
                let fence = record.spec.map(|s| (s.epoch, s.generation)).unwrap_or_default();
                let former = self.fences.insert(node.name.clone(), fence).unwrap_or_default();
                if fence < former {
                    broken.push(("I8", format!("{} went from {former:?} back to {fence:?}", node.name)));
                }
            }
        }
        broken.into_iter().for_each(|(law, detail)| world.broken(law, detail));
    }
}

impl World {
    /// A Kong is about to load what is armed.
    pub fn judge_load(&mut self, name: &str) {
        let Some(node) = self.nodes.get(name) else { return };
        let (armed, loaded) = (node.armed.clone(), node.loaded.clone());
        if let Some(lacking) = self.in_use().iter().find(|plugin| !armed.listed.contains(*plugin)) {
            self.broken("I2", format!("{name} loads a list without {lacking}, which is in use"));
        }
        if !armed.listed.iter().any(|p| p.as_str() == FOREIGN) {
            self.broken("I14", format!("{name} loads a list without what was listed by hand"));
        }
        for (plugin, digest) in loaded.iter().filter_map(|(p, d)| Some((p, d.as_ref()?))) {
            let Some(wish) = self.wishes.get(plugin) else { continue };
            let stays = wish.present == Some(*digest) && !matches!(wish.asked, Some(Asked::Remove(_)));
            if stays && !armed.listed.contains(plugin) {
                self.broken("I2", format!("{name} drops {plugin}, which nobody wants removed"));
            }
        }
    }

    /// A Kong has loaded something else.
    pub fn judge_loaded(&mut self, name: &str) {
        let Some(node) = self.nodes.get(name) else { return };
        let mut broken = Vec::new();
        for (plugin, digest) in node.loaded.iter().filter_map(|(p, d)| Some((p, d.as_ref()?))) {
            let file = std::fs::read(node.release(plugin, digest).join("handler.lua")).ok();
            if file.is_none() || file.as_ref() != self.releases.get(digest) {
                broken.push(("I3", format!("{name} loads {plugin} from files that are not {digest}")));
            }
            let wish = self.wishes.get(plugin);
            let known = wish.is_some_and(|w| w.present == Some(*digest) || w.tried.contains(digest));
            if !known {
                broken.push(("I16", format!("{name} loads {plugin} {digest}, which nobody asked for")));
            }
        }
        broken.into_iter().for_each(|(law, detail)| self.broken(law, detail));
    }
}
