//! Counters that the plugin `prometheus` tells, by either API.

use kctl_shared::served::Answers;
use kctl_shared::spec::Failure;
use reqwest::{Method, StatusCode};

use super::{AdminApi, read, refusal};
use crate::answers::scrape::Scrape;

/// Largest `/metrics` read, in bytes; it is looked at while it comes and never held.
pub(super) const MAX_METRICS: usize = 32 << 20;

impl AdminApi {
    /// What was answered since Kong was started; `None` when it counts no answers by code.
    ///
    /// # Errors
    /// As [`Self::root`]; `ADMIN_API_BAD_ANSWER` where the plugin is not loaded.
    pub async fn answers(&self) -> Result<Option<Answers>, Failure> {
        let path = "/metrics";
        let response = self.answer_to(Method::GET, path, None).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(path, response.status(), b""));
        }
        let mut scrape = Scrape::default();
        read(path, response, MAX_METRICS, |chunk| scrape.feed(chunk)).await?;
        Ok(scrape.end())
    }
}
