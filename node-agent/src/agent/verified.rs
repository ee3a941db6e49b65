//! Which proof was checked in full, and for which Kong.

use crate::gateway::{Gateway, KongObserved, Wanted};

/// Remembers for which Kong process the proof was checked in full; between that a look at what is loaded is enough.
#[derive(Default)]
pub(super) struct Verified {
    checked: Option<(u32, Wanted)>,
}

impl Verified {
    /// What was enacted a moment ago was proven in doing so; a restarted Kong is another process.
    pub(super) fn just_proven(&mut self, before: &KongObserved, proven: Wanted) {
        self.checked = Some((before.facts.master_pid, proven));
    }

    pub(super) async fn check(
        &mut self,
        gateway: &dyn Gateway,
        proven: &Wanted,
        kong: &KongObserved,
    ) -> bool {
        if proven.listed.is_empty() {
            return true;
        }
        let Some(loaded) = &kong.loaded else { return false };
        if proven.listed.keys().any(|p| !loaded.contains_key(p.as_str())) {
            self.checked = None;
            return false;
        }
        let key = (kong.facts.master_pid, proven.clone());
        if self.checked.as_ref() == Some(&key) {
            return true;
        }
        match gateway.proven(proven).await {
            Ok(()) => {
                self.checked = Some(key);
                true
            }
            Err(failure) => {
                tracing::debug!(%failure, "the former proof does not hold");
                false
            }
        }
    }
}
