//! Artifacts from the member of the present session: over plain HTTP where it says so, which costs both sides a third, and
//! over gRPC otherwise or when that fails, because its port may not be reachable from here.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::network::Dialer;
use kctl_shared::package::Limits;
use kctl_shared::proto::v1::DownloadRequest;
use kctl_shared::proto::v1::artifact_service_client::ArtifactServiceClient;
use tokio::sync::watch;

use super::{Home, PATIENCE};
use crate::agent::ArtifactSource;

/// Nothing arrived for so long: whoever sends it has thousands of others to send it to.
const STALL: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Downloads {
    pub current: watch::Receiver<Home>,
    pub dialer: Dialer,
}

/// Bytes that have arrived, as many as an artifact may have.
struct Arrived {
    bytes: Vec<u8>,
    limit: usize,
}

impl Arrived {
    fn new() -> Self {
        let limit = usize::try_from(Limits::default().max_artifact()).unwrap_or(usize::MAX);
        Self { bytes: Vec::new(), limit }
    }

    fn take(&mut self, more: &[u8]) -> Result<(), Fault> {
        if self.bytes.len() + more.len() > self.limit {
            return Err(Fault::new("ARCHIVE_TOO_LARGE", "more than an artifact may hold"));
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}

fn unreachable(url: &str, why: impl std::fmt::Display) -> Fault {
    Fault::new("UNREACHABLE", format!("{url}: {why}"))
}

impl Downloads {
    async fn over_http(&self, url: &str, digest: &Digest) -> Result<Bytes, Fault> {
        let failed = |e: hyper::Error| unreachable(url, e);
        let path: Uri = format!("{}/artifacts/{digest}", url.trim_end_matches('/'))
            .parse()
            .map_err(|e| unreachable(url, e))?;
        let host = path.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        let target = path.path().to_owned();
        let io = self.dialer.open(url, PATIENCE).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
        // Ends with the sender and the body, so with this future.
        tokio::spawn(connection);
        let request = Request::get(target).header("host", host).body(String::new());
        let request = request.map_err(|e| unreachable(url, e))?;
        let answer = tokio::time::timeout(STALL, sender.send_request(request)).await;
        let answer = answer.map_err(|_| unreachable(url, "no answer in time"))?.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(unreachable(url, answer.status()));
        }
        self.read(url, answer.into_body()).await
    }

    async fn read(&self, url: &str, mut body: Incoming) -> Result<Bytes, Fault> {
        let mut arrived = Arrived::new();
        loop {
            let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
            match tokio::time::timeout(STALL, next).await {
                Ok(Some(Ok(frame))) => arrived.take(frame.data_ref().map_or(&[], |d| d))?,
                Ok(Some(Err(e))) => return Err(unreachable(url, e)),
                Ok(None) => return Ok(arrived.bytes.into()),
                Err(_) => return Err(unreachable(url, "it stopped midway")),
            }
        }
    }

    async fn over_grpc(&self, url: &str, digest: &Digest) -> Result<Bytes, Fault> {
        let channel = self.dialer.connect(url, PATIENCE).await?;
        let request = DownloadRequest { digest: digest.to_string() };
        let fault = |status: tonic::Status| Fault::from_status(&status).0;
        let mut stream =
            ArtifactServiceClient::new(channel).download(request).await.map_err(fault)?.into_inner();
        let mut arrived = Arrived::new();
        while let Some(chunk) = stream.message().await.map_err(fault)? {
            arrived.take(&chunk.data)?;
        }
        Ok(arrived.bytes.into())
    }
}

#[async_trait]
impl ArtifactSource for Downloads {
    async fn fetch(&self, digest: &Digest) -> Result<Bytes, Fault> {
        let home = self.current.borrow().clone();
        if !home.http.is_empty() {
            match self.over_http(&home.http, digest).await {
                Ok(bytes) => return Ok(bytes),
                Err(fault) => tracing::debug!(%digest, %fault, "not over HTTP"),
            }
        }
        self.over_grpc(&home.grpc, digest).await
    }
}
