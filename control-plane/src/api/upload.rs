//! Artifacts in and out.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;
use kctl_shared::package::{FileEntry, Limits, MAX_VERSION, Package, is_version};
use kctl_shared::proto::v1::{self, artifact_service_server::ArtifactService, upload_message::Part};
use kctl_shared::time::Timestamp;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, request};
use crate::state::command::Command;
use crate::state::model::Release;

impl Api {
    async fn receive(
        &self,
        mut stream: Streaming<v1::UploadMessage>,
    ) -> Result<(Bytes, v1::UploadHeader), Status> {
        let limit = Limits::default().max_artifact();
        let bad =
            |message: &str| self.fail(&Fault::new("BAD_UPLOAD", message).hint("send it again with kctl"));
        let header = match stream.message().await?.and_then(|m| m.part) {
            Some(Part::Header(header)) => header,
            _ => return Err(bad("an upload begins with its header")),
        };
        if header.size > limit {
            let fault =
                Fault::new("ARCHIVE_TOO_LARGE", format!("{} bytes, at most {limit} are taken", header.size));
            return Err(self.fail(&fault.hint("leave out what the plugin does not need at run time")));
        }
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            let Some(Part::Chunk(chunk)) = message.part else { return Err(bad("an upload has one header")) };
            if bytes.len() + chunk.len() > header.size as usize {
                return Err(bad("more bytes than announced"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() as u64 != header.size {
            return Err(bad("fewer bytes than announced"));
        }
        Ok((bytes.into(), header))
    }
}

fn validate(bytes: &[u8], header: &v1::UploadHeader) -> Result<(Release, PluginName), Fault> {
    let plugin = request::plugin(&header.plugin)?;
    let digest: Digest = header.digest.parse().map_err(|e| Fault::new("INVALID_DIGEST", format!("{e}")))?;
    if !is_version(&header.version) {
        return Err(Fault::new("VERSION_INVALID", format!("{:?} is not a version", header.version))
            .hint(format!("1 to {MAX_VERSION} letters, digits, `.`, `_`, `+`, `-`")));
    }
    let package = Package::from_artifact(bytes, &Limits::default())
        .map_err(|e| Fault::new(e.code, e.message.clone()).hint(e.hint.clone()))?;
    if package.digest() != digest || package.plugin != plugin {
        return Err(Fault::new(
            "DIGEST_MISMATCH",
            format!("the bytes are {} of {}", package.digest(), package.plugin),
        )
        .hint("send it again"));
    }
    let files: Vec<FileEntry> = package.files.iter().map(|f| f.entry.clone()).collect();
    let release = Release {
        plugin: plugin.clone(),
        version: header.version.clone(),
        digest,
        files,
        registered_at: Timestamp::now(),
        retained: false,
        extras: package.extras.iter().map(|f| f.entry.clone()).collect(),
        nginx: package.nginx()?,
    };
    Ok((release, plugin))
}

#[tonic::async_trait]
impl ArtifactService for Api {
    async fn upload(
        &self,
        r: Request<Streaming<v1::UploadMessage>>,
    ) -> Result<Response<v1::UploadResponse>, Status> {
        self.as_leader().await?;
        let (bytes, header) = self.receive(r.into_inner()).await?;
        let (release, _) = validate(&bytes, &header).map_err(|f| self.fail(&f))?;
        let digest = release.digest;
        let known = self.hub.consensus.with_state(|s| s.releases.contains_key(&digest));
        self.artifacts.put(&digest, bytes).await.map_err(|f| self.fail(&f))?;
        let copies = self.artifacts.replicate(&digest).await.map_err(|f| self.fail(&f))?;
        self.propose(Command::RegisterRelease { release }).await?;
        let response =
            v1::UploadResponse { digest: digest.to_string(), copies: copies as u32, stored: !known };
        Ok(Response::new(response))
    }

    type DownloadStream = Pin<Box<dyn Stream<Item = Result<v1::Chunk, Status>> + Send>>;

    async fn download(
        &self,
        r: Request<v1::DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let digest: Digest = r
            .into_inner()
            .digest
            .parse()
            .map_err(|e| self.fail(&Fault::new("INVALID_DIGEST", format!("{e}"))))?;
        let loan = self.artifacts.lend(&digest).await.map_err(|f| self.fail(&f))?;
        let chunks = loan.pieces().map(|data| Ok(v1::Chunk { data: data.to_vec() }));
        Ok(Response::new(tokio_stream::iter(chunks).boxed()))
    }
}
