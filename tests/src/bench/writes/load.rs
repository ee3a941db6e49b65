//! Clients that each ask again as soon as they are answered.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::pb::{PutRequest, RangeRequest, StatusRequest};
use super::pb::{kv_client::KvClient, maintenance_client::MaintenanceClient};
use crate::bench::figures::{millis, quantile};
use crate::members::until;

/// Connections that the clients share.
const CONNECTIONS: usize = 16;
/// Bytes of a value.
pub const VALUE: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A committed write.
    Put,
    /// A linearizable read.
    Range,
}

#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub kind: Kind,
    pub clients: usize,
    pub duration: Duration,
}

/// What one round came to; latencies in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// Operations a second.
    pub rate: f64,
    pub p50: f64,
    pub p99: f64,
}

impl Load {
    /// Asks the member that leads.
    ///
    /// # Panics
    /// When anything is refused.
    pub async fn run(&self, urls: &[String]) -> Ran {
        let leader = until("a leader that takes writes", || leader(urls)).await;
        let mut channels = Vec::new();
        for _ in 0..self.clients.min(CONNECTIONS) {
            let endpoint = Endpoint::from_shared(leader.clone()).unwrap().tcp_nodelay(true);
            channels.push(endpoint.connect().await.unwrap());
        }
        let mut clients = JoinSet::new();
        let start = Instant::now();
        for n in 0..self.clients {
            clients.spawn(client(*self, n, KvClient::new(channels[n % channels.len()].clone()), start));
        }
        let latencies: Vec<f64> = clients.join_all().await.into_iter().flatten().collect();
        let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
        Ran { rate, p50: quantile(&latencies, 0.5), p99: quantile(&latencies, 0.99) }
    }
}

async fn client(load: Load, number: usize, mut kv: KvClient<Channel>, start: Instant) -> Vec<f64> {
    let key = format!("client-{number}").into_bytes();
    let value = vec![b'v'; VALUE];
    let mut latencies = Vec::new();
    if load.kind == Kind::Range {
        kv.put(PutRequest { key: key.clone(), value: value.clone() }).await.unwrap();
    }
    while start.elapsed() < load.duration {
        let asked = Instant::now();
        match load.kind {
            Kind::Put => drop(kv.put(PutRequest { key: key.clone(), value: value.clone() }).await.unwrap()),
            Kind::Range => {
                let read = kv.range(RangeRequest { key: key.clone() }).await.unwrap().into_inner();
                assert_eq!(read.kvs[0].value, value);
            }
        }
        latencies.push(millis(asked.elapsed()));
    }
    latencies
}

async fn leader(urls: &[String]) -> Option<String> {
    for url in urls {
        let Ok(mut client) = MaintenanceClient::connect(url.clone()).await else { continue };
        let Ok(answer) = client.status(StatusRequest {}).await else { continue };
        let status = answer.into_inner();
        if status.leader != 0 && status.header.is_some_and(|h| h.member_id == status.leader) {
            // Of members that have just begun the first to lead may be overruled by a later vote.
            let mut kv = KvClient::connect(url.clone()).await.ok()?;
            let put = PutRequest { key: b"first".to_vec(), value: vec![b'v'; VALUE] };
            return kv.put(put).await.ok().map(|_| url.clone());
        }
    }
    None
}
