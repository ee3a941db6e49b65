//! What the HTTP side is told about this member.

use std::sync::Arc;

use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;
use kctl_shared::proto::v1::StatusView;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::artifacts::Artifacts;
use crate::config::Config;
use crate::http::{Gauges, HttpState, hosts_for};
use crate::hub::Hub;

pub fn http_state(
    hub: &Hub,
    views: watch::Receiver<Arc<StatusView>>,
    config: &Config,
    artifacts: Artifacts,
    shutdown: CancellationToken,
) -> HttpState {
    let (ready, gauges, ended, operation) = (hub.clone(), hub.clone(), hub.clone(), hub.clone());
    let history = hub.clone();
    let audited = hub.clone();
    HttpState {
        views,
        member: config.id,
        version: env!("CARGO_PKG_VERSION"),
        ready: Arc::new(move || match ready.leader_url() {
            Some(_) => Ok(()),
            None => Err(Fault::new("NO_QUORUM", "no leader is known").hint("kctl cluster status")),
        }),
        gauges: Arc::new(move || Gauges {
            term: gauges.consensus.term(),
            leads: gauges.leads(),
            applied_index: gauges.consensus.applied_index(),
        }),
        ended: Arc::new(move |limit| {
            ended.view(|s| {
                let newest = s.state.ended.iter().rev().take(limit);
                newest.filter_map(|id| s.state.operations.get(id)).map(|o| s.operation(o)).collect()
            })
        }),
        operation: Arc::new(move |id| operation.view(|s| s.state.operations.get(id).map(|o| s.operation(o)))),
        artifact: Arc::new(move |digest| {
            let artifacts = artifacts.clone();
            Box::pin(async move { artifacts.lend(&digest).await })
        }),
        history: Arc::new(move |group, plugin| {
            let Ok(plugin) = PluginName::parse(plugin) else { return Vec::new() };
            history.view(|s| {
                let groups =
                    s.state.groups.keys().filter(|g| group.is_none_or(|wanted| g.as_str() == wanted));
                groups.flat_map(|g| s.history(g, &plugin)).collect()
            })
        }),
        audit: Arc::new(move |asked| audited.view(|s| s.audit(asked))),
        allowed_hosts: hosts_for(config.listen.http),
        shutdown,
    }
}
