//! Talking to whoever leads: members are tried in turn, redirections followed, and what is safe to repeat is repeated.

use std::future::Future;
use std::time::Duration;

use kctl_shared::audit::CLIENT;
use kctl_shared::endpoint;
use kctl_shared::fault::Fault;
use tokio::time::Instant;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::context::Context;

/// How long a leader is looked for before giving up; an election takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A connection on which every request says who asks.
pub type Connection = InterceptedService<Channel, Claim>;

/// `user@host`, for the audit log: a claim, as long as nobody proves who he is.
#[derive(Clone, Debug)]
pub struct Claim(AsciiMetadataValue);

impl Claim {
    fn new() -> Self {
        let user = ["USER", "LOGNAME"].iter().find_map(|key| std::env::var(key).ok());
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let user = user.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
        let name = format!("{user}@{}", host.trim());
        Self(name.parse().unwrap_or_else(|_| AsciiMetadataValue::from_static("unknown")))
    }
}

impl Interceptor for Claim {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(CLIENT, self.0.clone());
        Ok(request)
    }
}

#[derive(Clone, Debug)]
pub struct Client {
    context: Context,
    claim: Claim,
}

impl Client {
    pub fn new(context: Context) -> Self {
        Self { context, claim: Claim::new() }
    }

    async fn connect(&self, url: &str) -> Result<Channel, Fault> {
        let unreachable = |e: tonic::transport::Error| {
            let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            Fault::new("UNREACHABLE", format!("no member answers at {url}: {cause}"))
                .hint("check --server and whether it runs")
        };
        let endpoint = endpoint::dial(url, self.context.insecure, CONNECT, KEEPALIVE)?;
        endpoint.connect().await.map_err(unreachable)
    }

    /// Makes a call on the leader. It must be safe to repeat: a read, or a write with a request id.
    ///
    /// # Errors
    /// The call's own fault, or `UNREACHABLE` / `NO_QUORUM` after some patience.
    pub async fn call<T, F>(&self, mut make: impl FnMut(Connection) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut hint: Option<String> = None;
        let mut turn = 0;
        // What a member said is worth more than that another one says nothing.
        let mut said: Option<Fault> = None;
        loop {
            let endpoints = &self.context.endpoints;
            let url = hint.take().unwrap_or_else(|| endpoints[turn % endpoints.len()].clone());
            turn += 1;
            let fault = match self.connect(&url).await {
                Ok(channel) => match make(InterceptedService::new(channel, self.claim.clone())).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) => {
                        let (fault, leader) = Fault::from_status(&status);
                        hint = leader.filter(|l| *l != url);
                        said = Some(fault.clone());
                        fault
                    }
                },
                Err(fault) => fault,
            };
            let again =
                matches!(fault.code.as_str(), "NOT_LEADER" | "NO_QUORUM" | "UNREACHABLE" | "SHUTTING_DOWN");
            // A member that nobody listens at is not worth all the patience when there is no other.
            let hopeless = fault.code == "UNREACHABLE" && endpoints.len() == 1 && turn > 3;
            if !again || hopeless || Instant::now() > deadline {
                return Err(said.filter(|_| fault.code == "UNREACHABLE").unwrap_or(fault));
            }
            if hint.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
