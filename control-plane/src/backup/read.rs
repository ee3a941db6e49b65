//! Reading a backup, believing none of it before its sums were compared.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::package::Limits;

use super::{ARTIFACTS, FORMAT, MANIFEST, MARK, Manifest, Mark, Part, SEAL, STATE};
use crate::artifacts::{check, file_name};
use crate::raft::decode_state;
use crate::state::ClusterState;

/// As much as a member takes of a snapshot.
const MAX_STATE: u64 = 512 * 1024 * 1024;
const MAX_MANIFEST: u64 = 64 * 1024 * 1024;
const MAX_MARK: u64 = 4 * 1024;

/// A backup that was read to its end and is whole.
#[derive(Clone, Debug)]
pub struct Whole {
    pub manifest: Manifest,
    pub state: ClusterState,
}

pub(super) fn damaged(path: &Path, why: impl std::fmt::Display) -> Fault {
    Fault::new("BACKUP_DAMAGED", format!("{} is not whole: {why}", path.display()))
        .hint("use another backup; what is in this one cannot be trusted")
}

fn foreign(path: &Path, why: impl std::fmt::Display) -> Fault {
    Fault::new("BACKUP_INVALID", format!("{} is no backup of kctl's: {why}", path.display()))
        .hint("name a file that kctl cluster backup wrote")
}

/// Reads everything and compares every sum. `artifact` is handed each artifact once it is known to be that of its digest;
/// nothing is certain before this returns.
///
/// # Errors
/// `BACKUP_NOT_FOUND`, `BACKUP_INVALID`, `BACKUP_FORMAT`, `BACKUP_DAMAGED`, and those of `artifact`.
pub fn read(
    path: &Path,
    mut artifact: impl FnMut(&Digest, &[u8]) -> Result<(), Fault>,
) -> Result<Whole, Fault> {
    let file = File::open(path).map_err(|e| {
        Fault::new("BACKUP_NOT_FOUND", format!("cannot read {}: {e}", path.display())).hint("check the path")
    })?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut entries = archive.entries().map_err(|e| foreign(path, e))?;
    let (mut seen, mut present) = (Vec::new(), BTreeSet::new());
    let (mut state, mut manifest, mut sealed) = (None, None, false);
    let mut marked = false;
    let bad = |why: &str| damaged(path, why);
    for entry in &mut entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(e) if !marked => return Err(foreign(path, e)),
            Err(e) => return Err(damaged(path, e)),
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let limit = match name.as_str() {
            MARK => MAX_MARK,
            STATE => MAX_STATE,
            MANIFEST => MAX_MANIFEST,
            SEAL => MAX_MARK,
            _ => Limits::default().max_artifact(),
        };
        if !marked && name != MARK {
            return Err(foreign(path, "its first entry is another"));
        }
        if entry.size() > limit || sealed {
            return Err(bad("it has more in it than was written"));
        }
        let mut bytes = Vec::new();
        let read = entry.by_ref().take(limit).read_to_end(&mut bytes);
        read.map_err(|e| damaged(path, e))?;
        if bytes.len() as u64 != entry.size() {
            return Err(bad("it ends too early"));
        }
        match name.as_str() {
            MARK if !marked => {
                let mark: Mark = serde_json::from_slice(&bytes).map_err(|e| foreign(path, e))?;
                if mark.format != FORMAT {
                    let message = format!("it is of format {}, written by kctl {}", mark.format, mark.kctl);
                    return Err(Fault::new("BACKUP_FORMAT", format!("{}: {message}", path.display()))
                        .hint("read it with the version of kctl that wrote it"));
                }
                marked = true;
                continue;
            }
            MANIFEST if manifest.is_none() => {
                manifest = Some(bytes);
                continue;
            }
            SEAL => {
                let sum = manifest.as_ref().map(|m| Digest::of(m).to_string());
                if sum.as_ref().map(String::as_bytes) != Some(&bytes) {
                    return Err(bad("the manifest does not fit its sum"));
                }
                sealed = true;
                continue;
            }
            STATE if state.is_none() => {
                state = Some(decode_state(&bytes).map_err(|e| damaged(path, format!("the state: {e}")))?);
            }
            other => {
                let file = other.strip_prefix(ARTIFACTS);
                let digest: Option<Digest> =
                    file.and_then(|f| f.split_once('.')).and_then(|(digest, _)| digest.parse().ok());
                let known = digest.filter(|d| file == Some(file_name(d, &bytes).as_str()));
                let digest = known.ok_or_else(|| bad("it has a part of unknown kind"))?;
                check(&digest, &bytes)
                    .map_err(|_| damaged(path, format!("the artifact {digest} is another")))?;
                present.insert(digest);
                artifact(&digest, &bytes)?;
            }
        }
        let part = Part { name, size: bytes.len() as u64, sha256: Digest::of(&bytes) };
        seen.push(part);
    }
    let manifest = manifest.filter(|_| sealed).ok_or_else(|| bad("it ends too early: it has no manifest"))?;
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|e| damaged(path, e))?;
    let mut rest = archive.into_inner();
    let mut tail = Vec::new();
    rest.by_ref().take(64 * 1024).read_to_end(&mut tail).map_err(|e| damaged(path, e))?;
    if tail.iter().any(|b| *b != 0) {
        return Err(bad("something stands behind its end"));
    }
    if manifest.parts != seen {
        let differs = manifest.parts.iter().zip(&seen).find(|(a, b)| a != b);
        let name = differs.map_or("a part is missing or too many".to_owned(), |(a, _)| a.name.clone());
        return Err(damaged(path, format!("not as its manifest says: {name}")));
    }
    let state = state.ok_or_else(|| bad("it has no state"))?;
    if let Some(lost) = state.artifacts().difference(&present).next() {
        return Err(damaged(path, format!("the artifact {lost} is not in it")));
    }
    Ok(Whole { manifest, state })
}

/// Whether the file is whole, and what is in it.
///
/// # Errors
/// As [`read`].
pub fn inspect(path: &Path) -> Result<Whole, Fault> {
    read(path, |_, _| Ok(()))
}
