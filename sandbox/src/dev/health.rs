//! Whether a development cluster is up, asked from outside as anybody would.

use std::time::Duration;

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::StatusView;
use serde_json::Value;
use tokio::time::Instant;

use super::plan::Plan;

const PAUSE: Duration = Duration::from_millis(100);
const REQUEST: Duration = Duration::from_secs(5);

/// A client that makes a new connection for every request: old workers must not answer.
///
/// # Errors
/// `INTERNAL`.
pub fn http() -> Result<reqwest::Client, Fault> {
    let client = reqwest::Client::builder().no_proxy().timeout(REQUEST).pool_max_idle_per_host(0).build();
    client.map_err(|e| Fault::new("INTERNAL", format!("http client: {e}")))
}

async fn status(http: &reqwest::Client, url: &str) -> Option<StatusView> {
    http.get(format!("{url}/api/v1/status")).send().await.ok()?.json().await.ok()
}

/// Waits until a leader is known and every node is live with a running, ready Kong.
///
/// # Errors
/// `DEV_UNHEALTHY` naming what is missing after `patience`.
pub async fn wait(plan: &Plan, patience: Duration) -> Result<StatusView, Fault> {
    let http = http()?;
    let deadline = Instant::now() + patience;
    loop {
        let mut missing = "no member answers".to_owned();
        for member in &plan.members {
            let Some(view) = status(&http, &member.http).await else { continue };
            let leader = view.cluster.as_ref().and_then(|c| c.leader);
            let down: Vec<_> =
                plan.nodes
                    .iter()
                    .filter(|n| {
                        !view.nodes.iter().any(|v| {
                            v.id == n.id && v.state == "Live" && v.kong_state == "running" && v.ready
                        })
                    })
                    .map(|n| n.id.as_str())
                    .collect();
            if leader.is_some() && down.is_empty() {
                return Ok(view);
            }
            missing =
                if leader.is_none() { "no leader".into() } else { format!("not ready: {}", down.join(", ")) };
        }
        if Instant::now() > deadline {
            return Err(
                Fault::new("DEV_UNHEALTHY", missing).hint(format!("see {}", plan.dir.join("log").display()))
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What a node's Kong says of `plugin`: its version (nothing before Kong 3.0), or `None` when it is not loaded.
///
/// # Errors
/// `UNREACHABLE`.
pub async fn loaded(http: &reqwest::Client, admin: &str, plugin: &str) -> Result<Option<String>, Fault> {
    let unreachable = |e: reqwest::Error| Fault::new("UNREACHABLE", format!("{admin}: {e}"));
    let root: Value =
        http.get(format!("{admin}/")).send().await.map_err(unreachable)?.json().await.map_err(unreachable)?;
    let entry = &root["plugins"]["available_on_server"][plugin];
    Ok((!entry.is_null()).then(|| entry["version"].as_str().unwrap_or_default().to_owned()))
}
