//! What Kong's own counters say of the requests it answered.

use kctl_shared::served::Answers;

use super::Kong;

impl Kong {
    /// `None` when it does not count them, or does not say.
    pub(super) async fn counted(&self) -> Option<Answers> {
        let armed = self.armed().ok()?;
        // Without the plugin nobody knows the path.
        armed.plugins().ok()?.iter().find(|name| *name == "prometheus" || *name == "bundled")?;
        let apis = [self.status_api(&armed), self.admin(&armed)];
        for api in apis.into_iter().flatten() {
            if let Ok(counted) = api.answers().await {
                return counted;
            }
        }
        None
    }
}
