//! Files named by digest in one directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::package::{Limits, Package};
use kctl_shared::simulated::aside;

use super::sealed::is_sealed;
use crate::raft::Consensus;

const RELEASE: &str = "tar";
const SEALED: &str = "sealed";
const KINDS: [&str; 2] = [RELEASE, SEALED];

fn name(digest: &Digest, kind: &str) -> String {
    format!("{}.{kind}", digest.hex())
}

/// What the file with these bytes is called, in the store and in a backup.
pub(crate) fn file_name(digest: &Digest, bytes: &[u8]) -> String {
    name(digest, if is_sealed(bytes) { SEALED } else { RELEASE })
}

#[derive(Debug)]
pub(super) struct FileStore {
    dir: PathBuf,
}

fn failed(e: &io::Error) -> Fault {
    Fault::new("ARTIFACT_STORE", format!("the artifact store failed: {e}")).hint("check the member's disk")
}

impl FileStore {
    pub(super) fn open(dir: &Path) -> Result<Self, Fault> {
        fs::create_dir_all(dir).map_err(|e| failed(&e))?;
        // What a crash left half written was never acknowledged.
        for entry in fs::read_dir(dir).map_err(|e| failed(&e))?.flatten() {
            if entry.path().extension().is_some_and(|e| e == "part") {
                fs::remove_file(entry.path()).map_err(|e| failed(&e))?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, digest: &Digest, kind: &str) -> PathBuf {
        self.dir.join(name(digest, kind))
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        KINDS.iter().any(|kind| self.path(digest, kind).exists())
    }

    /// Artifacts that the state names and that are not here.
    pub(super) fn missing(&self, consensus: &Consensus) -> u32 {
        // Files are looked for after the state was let go.
        let named = consensus.with_state(|s| s.artifacts());
        u32::try_from(named.iter().filter(|d| !self.has(d)).count()).unwrap_or(u32::MAX)
    }

    /// Temporary file in the same directory, synced, renamed, directory synced.
    fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if self.has(digest) {
            return Ok(());
        }
        let mut file = tempfile::Builder::new().suffix(".part").tempfile_in(&self.dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.dir.join(file_name(digest, bytes))).map_err(|e| e.error)?;
        File::open(&self.dir)?.sync_all()
    }

    fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        match fs::read(self.path(digest, RELEASE)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::read(self.path(digest, SEALED)),
            read => read,
        }
    }

    fn forget_sealed(&self, named: &BTreeSet<Digest>, older: Duration) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let path = entry.path();
            let sealed = path.extension().is_some_and(|e| e == SEALED);
            let digest = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<Digest>().ok());
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if sealed && age > older && digest.is_some_and(|d| !named.contains(&d)) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Deletes sealed entities that nothing names and that are older than `older`.
pub(super) async fn forget_sealed(
    store: Arc<FileStore>,
    named: BTreeSet<Digest>,
    older: Duration,
) -> Result<(), Fault> {
    blocking(move || store.forget_sealed(&named, older).map_err(|e| failed(&e))).await
}

/// The bytes are the canonical artifact of `digest`, or what was sealed under it, nothing else.
///
/// # Errors
/// `DIGEST_MISMATCH`, and those of a package that is none.
pub(crate) fn check(digest: &Digest, bytes: &[u8]) -> Result<(), Fault> {
    if is_sealed(bytes) {
        let same = Digest::of(bytes) == *digest;
        let other = || Fault::new("DIGEST_MISMATCH", format!("the sealed bytes are not {digest}"));
        return if same { Ok(()) } else { Err(other().hint("send it again")) };
    }
    let package = Package::from_artifact(bytes, &Limits::default())
        .map_err(|e| Fault::new(e.code, e.message.clone()).hint(e.hint.clone()))?;
    if &package.digest() == digest {
        return Ok(());
    }
    Err(Fault::new("DIGEST_MISMATCH", format!("the bytes are {}, not {digest}", package.digest()))
        .hint("send it again"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    aside(work).await.unwrap_or_else(|e| Err(Fault::new("INTERNAL", e.to_string())))
}

pub(super) async fn put(store: Arc<FileStore>, digest: Digest, bytes: Bytes) -> Result<(), Fault> {
    blocking(move || {
        check(&digest, &bytes)?;
        store.write(&digest, &bytes).map_err(|e| failed(&e))
    })
    .await
}

pub(super) async fn get(store: Arc<FileStore>, digest: Digest) -> Result<Bytes, Fault> {
    blocking(move || match store.read(&digest) {
        Ok(bytes) => Ok(bytes.into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Fault::new("ARTIFACT_NOT_FOUND", format!("{digest} is not on this member")))
        }
        Err(e) => Err(failed(&e)),
    })
    .await
}
