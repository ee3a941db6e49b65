//! The composition root: everything a member runs, wired together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use kctl_shared::fault::Fault;
use kctl_shared::network::{Io, Listener, Network, dialer};
use kctl_shared::proto::{self, agent, v1};
use kctl_shared::time::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::api::{AgentApi, Api, Claimed};
use crate::artifacts::Artifacts;
use crate::config::Config;
use crate::http;
use crate::hub::Hub;
use crate::inventory::Inventory;
use crate::ports::Ports;
use crate::raft::{Consensus, ConsensusConfig, Leadership};
use crate::vault::Vault;
use crate::{membership, metrics, orchestrator};

/// HTTP/2 pings find a peer that vanished without a word.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// One connection carries a client's watches and calls together.
const MAX_STREAMS: u32 = 1_024;
/// Out of file descriptors, mostly: until some are closed there is nothing to do.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Runs a member until `shutdown`.
///
/// # Errors
/// What kept it from starting (`STORE_CORRUPT`, `ADDRESS_IN_USE`, …), or the first task that ended by itself.
pub async fn run(config: Config, ports: Ports, shutdown: CancellationToken) -> Result<(), Fault> {
    let grpc = bind(&*ports.network, config.listen.grpc).await?;
    let web = bind(&*ports.network, config.listen.http).await?;
    let raft = bind(&*ports.network, config.listen.raft).await?;
    let dialer = dialer(ports.network, config.insecure);
    let founders = if config.join.is_some() { BTreeMap::new() } else { config.members()? };
    let consensus_config = ConsensusConfig::new(config.id, config.data_dir.clone(), founders);
    let (consensus, raft_service) = Consensus::open(consensus_config, &*ports.disks, dialer.clone()).await?;
    let artifacts = Artifacts::open(&config.data_dir, consensus.clone(), dialer.clone())?;

    let inventory = Arc::new(Inventory::default());
    let (report, reported) = watch::channel(Arc::default());
    let (views, viewed) = watch::channel(Arc::default());
    let (holdings, held) = watch::channel(BTreeMap::new());
    let hub = Hub {
        consensus: consensus.clone(),
        inventory: inventory.clone(),
        report: reported,
        holdings: held,
        dialer: dialer.clone(),
    };
    let api = Api {
        hub: hub.clone(),
        artifacts: artifacts.clone(),
        vault: Vault::new(config.sealing_key()?, artifacts.clone(), consensus.clone()),
        views: viewed.clone(),
        address: config.address()?,
        shutdown: shutdown.clone(),
    };

    let mut tasks = JoinSet::new();
    let (keeper, store, token) = (consensus.clone(), artifacts.clone(), shutdown.clone());
    tasks.spawn(async move {
        membership::keeper::run(keeper, store, holdings, token).await;
        Ok(())
    });
    tasks.spawn(membership::departure::watch(consensus.clone(), artifacts.clone(), shutdown.clone()));
    if let Some(join) = config.join.clone() {
        let me = config.address()?.grpc;
        let waiting = membership::join::run(consensus.clone(), me, join, dialer, shutdown.clone());
        tasks.spawn(waiting);
    }
    let token = shutdown.clone();
    tasks.spawn(async move {
        orchestrator::run(consensus, inventory, report, token).await;
        Ok(())
    });
    let (token, follower) = (shutdown.clone(), hub.clone());
    tasks.spawn(async move {
        follower.run(views, token).await;
        Ok(())
    });
    let (token, store) = (shutdown.clone(), artifacts.clone());
    tasks.spawn(async move {
        store.run(token).await;
        Ok(())
    });

    let peers = server().add_service(raft_service).add_service(artifacts.peer_service());
    tasks.spawn(serve(peers, raft, shutdown.clone()));
    let (health, health_service) = tonic_health::server::health_reporter();
    tasks.spawn(report_health(health, hub.consensus.watch_leadership(), shutdown.clone()));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let unreflected = |e| Fault::new("INTERNAL", format!("reflection: {e}"));
    let public = server()
        .add_service(Claimed(v1::plugin_service_server::PluginServiceServer::new(api.clone())))
        .add_service(Claimed(v1::operation_service_server::OperationServiceServer::new(api.clone())))
        .add_service(Claimed(v1::node_service_server::NodeServiceServer::new(api.clone())))
        .add_service(Claimed(v1::group_service_server::GroupServiceServer::new(api.clone())))
        .add_service(Claimed(v1::cluster_service_server::ClusterServiceServer::new(api.clone())))
        .add_service(Claimed(v1::artifact_service_server::ArtifactServiceServer::new(api.clone())))
        .add_service(agent::agent_service_server::AgentServiceServer::new(AgentApi(api)))
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(unreflected)?)
        // What most tools still speak.
        .add_service(reflection().build_v1alpha().map_err(unreflected)?);
    tasks.spawn(serve(public, grpc, shutdown.clone()));

    let router = http::router(metrics::http_state(&hub, viewed, &config, artifacts, shutdown.clone()));
    let token = shutdown.clone();
    tasks.spawn(async move {
        // By itself axum makes the table of routes anew for each connection.
        let serving = axum::serve(Web(web), router.into_make_service())
            .with_graceful_shutdown(async move { token.cancelled().await });
        serving.await.map_err(|e| Fault::new("INTERNAL", format!("http server: {e}")))
    });
    tracing::info!(member = config.id, grpc = %config.listen.grpc, http = %config.listen.http, started = %Timestamp::now(), "member is up");

    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = tasks.join_next() => ended.unwrap_or_else(|e| Err(Fault::new("INTERNAL", format!("a task failed: {e}")))),
    };
    shutdown.cancel();
    // Open streams end on the token; whatever still hangs on is dropped with the runtime.
    let _late =
        tokio::time::timeout(Duration::from_secs(3), async { while tasks.join_next().await.is_some() {} })
            .await;
    hub.consensus.shutdown().await;
    outcome
}

fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .tcp_nodelay(true)
}

/// A member serves while it knows a leader, as `/readyz` says too.
async fn report_health(
    health: HealthReporter,
    mut leadership: watch::Receiver<Leadership>,
    shutdown: CancellationToken,
) -> Result<(), Fault> {
    loop {
        let status = match leadership.borrow_and_update().leader {
            Some(_) => ServingStatus::Serving,
            None => ServingStatus::NotServing,
        };
        health.set_service_status("", status).await;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Ok(()) = leadership.changed() => {}
        }
    }
}

/// What the HTTP server accepts from.
struct Web(Box<dyn Listener>);

impl axum::serve::Listener for Web {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Io, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn serve(
    router: tonic::transport::server::Router,
    listener: Box<dyn Listener>,
    shutdown: CancellationToken,
) -> Result<(), Fault> {
    let incoming = stream::unfold(listener, |mut listener| async {
        let accepted = listener.accept().await.map(|(io, _)| io);
        Some((accepted, listener))
    });
    router
        .serve_with_incoming_shutdown(incoming, async move { shutdown.cancelled().await })
        .await
        .map_err(|e| Fault::new("INTERNAL", format!("gRPC server: {e}")))
}

async fn bind(network: &dyn Network, address: SocketAddr) -> Result<Box<dyn Listener>, Fault> {
    network.listen(address).await.map_err(|e| {
        Fault::new("ADDRESS_IN_USE", format!("cannot listen on {address}: {e}"))
            .hint("choose another port in [listen]")
    })
}
