//! Writing a backup as a stream of bytes.

use bytes::Bytes;
use futures_util::Stream;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::time::Timestamp;
use tar::Header;

use super::{ARTIFACTS, FORMAT, MANIFEST, MARK, Manifest, Mark, Part, SEAL, STATE};
use crate::artifacts::{Artifacts, file_name};
use crate::raft::Captured;

const BLOCK: usize = 512;

/// Appends parts and keeps their sums.
pub(super) struct Writer {
    manifest: Manifest,
}

impl Writer {
    /// The bytes of the mark and of the state come first.
    pub(super) fn begin(captured: &Captured, at: Timestamp) -> Result<(Self, Vec<u8>), Fault> {
        let mut writer = Self { manifest: Manifest::of(&captured.state, captured.index, at) };
        let mark = Mark { format: FORMAT, kctl: writer.manifest.kctl.clone() };
        let mut bytes = entry(MARK, &json(&mark)?)?;
        bytes.extend(writer.part(STATE, &captured.encoded()?)?);
        Ok((writer, bytes))
    }

    pub(super) fn artifact(&mut self, digest: &Digest, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        self.part(&format!("{ARTIFACTS}{}", file_name(digest, bytes)), bytes)
    }

    fn part(&mut self, name: &str, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let part = Part { name: name.into(), size: bytes.len() as u64, sha256: Digest::of(bytes) };
        self.manifest.parts.push(part);
        entry(name, bytes)
    }

    pub(super) fn end(self) -> Result<Vec<u8>, Fault> {
        let manifest = json(&self.manifest)?;
        let mut bytes = entry(MANIFEST, &manifest)?;
        bytes.extend(entry(SEAL, Digest::of(&manifest).to_string().as_bytes())?);
        bytes.extend([0; 2 * BLOCK]);
        Ok(bytes)
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec_pretty(value).map_err(|e| internal(&e))
}

fn internal(e: &dyn std::fmt::Display) -> Fault {
    Fault::new("INTERNAL", format!("writing a backup: {e}"))
}

fn entry(name: &str, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut header = Header::new_ustar();
    header.set_path(name).map_err(|e| internal(&e))?;
    header.set_mode(0o600);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    Ok(out)
}

/// The backup of what was captured; artifacts that are not here are fetched from other members.
///
/// # Errors
/// In the stream: `ARTIFACT_NOT_FOUND` when no member in reach has one; a backup without it would be none.
pub fn stream(captured: Captured, artifacts: Artifacts) -> impl Stream<Item = Result<Bytes, Fault>> {
    async_stream::try_stream! {
        let (mut writer, first) = Writer::begin(&captured, Timestamp::now())?;
        yield Bytes::from(first);
        for digest in captured.state.artifacts() {
            artifacts.ensure(&digest).await?;
            let bytes = artifacts.get(&digest).await?;
            yield Bytes::from(writer.artifact(&digest, &bytes)?);
        }
        yield Bytes::from(writer.end()?);
    }
}
