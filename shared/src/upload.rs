//! An artifact on its way to the control plane.

use bytes::Bytes;

use crate::package::{Package, pieces};
use crate::proto::v1::upload_message::Part;
use crate::proto::v1::{UploadHeader, UploadMessage};

/// What is sent for a package whose artifact is `bytes`: its header, then the bytes in pieces.
pub fn messages(package: &Package, bytes: &Bytes) -> Vec<UploadMessage> {
    let header = UploadHeader {
        plugin: package.plugin.to_string(),
        version: package.version.clone(),
        digest: package.digest().to_string(),
        size: bytes.len() as u64,
    };
    let parts = std::iter::once(Part::Header(header)).chain(pieces(bytes).map(|c| Part::Chunk(c.to_vec())));
    parts.map(|part| UploadMessage { part: Some(part) }).collect()
}
