//! What a directory or archive holds, as far as it can matter: names of everything, content of what may be the plugin's.
//!
//! Readers report each entry once, in their own order. The tree refuses what no honest archive has (two entries with
//! one name, files below a file or a link) and bounds what is kept: content beyond the budget is read, counted and
//! dropped, and is an error only if it turns out to belong to the plugin.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;

use super::error::{PackageError, shown};
use super::limits::Limits;
use super::{archive, path};

const BUFFER: usize = 64 * 1024;

#[derive(Debug)]
pub(super) enum Node {
    Directory,
    Link,
    File(Body),
}

#[derive(Debug)]
pub(super) enum Body {
    Kept(Vec<u8>),
    /// May be the plugin's, but is over a limit; the size is as far as it was read.
    Dropped(u64),
    /// Cannot be the plugin's.
    Foreign,
}

#[derive(Debug)]
pub(super) struct Tree<'a> {
    pub limits: &'a Limits,
    pub nodes: BTreeMap<String, Node>,
    entries: usize,
    /// Bytes that may still be kept of files below `kong/plugins`, of other Lua, and of archives inside.
    left: [u64; 3],
}

/// Which budget pays for a file's content.
fn budget(path: &str) -> Option<usize> {
    // The outermost directory of an archive may be called anything, `test` too.
    let inner = path.split_once('/').map_or("", |(_, inner)| inner);
    if path::hidden(path) || path::aside(inner) && path::canonical(path).is_none_or(|c| path::aside(c.above))
    {
        None
    } else if path::canonical(path).is_some() {
        Some(0)
    } else if path.ends_with(".lua")
        || path.ends_with(".rockspec")
        || path::native(path)
        || path::declaration(path)
    {
        Some(1)
    } else if path::archive(path) && path::parts(path).count() <= 2 {
        Some(2)
    } else {
        None
    }
}

impl<'a> Tree<'a> {
    pub fn new(limits: &'a Limits) -> Self {
        let left = [limits.max_total_bytes, limits.max_total_bytes, limits.max_inner];
        Self { limits, nodes: BTreeMap::new(), entries: 0, left }
    }

    /// Whether the content of a file is worth reading where nothing needs to be verified by reading.
    pub fn wants(path: &str) -> bool {
        matches!(budget(path), Some(0 | 1))
    }

    pub fn directory(&mut self, raw: &[u8]) -> Result<(), PackageError> {
        let path = self.admit(raw)?;
        if path.is_empty() {
            return Ok(());
        }
        match self.place(path)? {
            Entry::Vacant(slot) => {
                slot.insert(Node::Directory);
                Ok(())
            }
            Entry::Occupied(slot) if matches!(slot.get(), Node::Directory) => Ok(()),
            Entry::Occupied(slot) => Err(twice(slot.key())),
        }
    }

    /// A symbolic link. One that leads out is refused wherever it is; any other only if the plugin needs it.
    pub fn link(&mut self, raw: &[u8], target: &[u8]) -> Result<(), PackageError> {
        let path = self.admit(raw)?;
        if path::leads_out(&path, target) {
            let target = shown(&String::from_utf8_lossy(target));
            return Err(PackageError::new(
                "LINK_NOT_ALLOWED",
                format!("{} is a link to {target}, outside", shown(&path)),
            ));
        }
        if path::canonical(&path).is_some_and(|c| !path::aside(c.above)) && !path::hidden(&path) {
            return Err(link_inside(&path));
        }
        self.put(path, Node::Link)
    }

    /// Reads the whole of `content`; returns how much that was.
    pub fn file(&mut self, raw: &[u8], size: u64, content: &mut dyn Read) -> Result<u64, PackageError> {
        let path = self.admit(raw)?;
        let budget = budget(&path);
        let most = budget.map_or(0, |b| {
            let one = if b == 2 { self.limits.max_inner } else { self.limits.max_file_bytes };
            self.left[b].min(one)
        });
        let mut kept = Vec::new();
        let mut keep = budget.is_some() && size <= most;
        if keep {
            kept.reserve_exact(usize::try_from(size).unwrap_or(0));
        }
        let mut buffer = vec![0; BUFFER];
        let mut read = 0;
        loop {
            let n = content.read(&mut buffer).map_err(|e| archive::unreadable(&e, &path))?;
            if n == 0 {
                break;
            }
            read += n as u64;
            keep &= read <= most;
            if keep {
                kept.extend_from_slice(&buffer[..n]);
            } else {
                kept = Vec::new();
            }
        }
        let body = match budget {
            None => Body::Foreign,
            Some(_) if !keep => Body::Dropped(read.max(size)),
            Some(b) => {
                self.left[b] -= read;
                Body::Kept(kept)
            }
        };
        self.put(path, Node::File(body))?;
        Ok(read)
    }

    /// A file of which only the size is known, and that it is too much.
    pub fn oversized(&mut self, raw: &[u8], size: u64) -> Result<(), PackageError> {
        let path = self.admit(raw)?;
        self.put(path, Node::File(Body::Dropped(size)))
    }

    /// A file that is there but was not read.
    pub fn unread(&mut self, raw: &[u8]) -> Result<(), PackageError> {
        let path = self.admit(raw)?;
        self.put(path, Node::File(Body::Foreign))
    }

    fn admit(&mut self, raw: &[u8]) -> Result<String, PackageError> {
        self.entries += 1;
        self.room(self.entries)?;
        path::clean(raw, self.limits.max_path)
    }

    fn room(&self, entries: usize) -> Result<(), PackageError> {
        if entries <= self.limits.max_entries {
            return Ok(());
        }
        Err(PackageError::new("TOO_MANY_ENTRIES", format!("more than {} entries", self.limits.max_entries)))
    }

    fn put(&mut self, path: String, node: Node) -> Result<(), PackageError> {
        if path.is_empty() {
            return Err(PackageError::new("PATH_INVALID", "an entry that is no directory has an empty name"));
        }
        match self.place(path)? {
            Entry::Vacant(slot) => {
                slot.insert(node);
                Ok(())
            }
            Entry::Occupied(slot) => Err(twice(slot.key())),
        }
    }

    /// The place of an entry, all directories above it made.
    fn place(&mut self, path: String) -> Result<Entry<'_, String, Node>, PackageError> {
        for (at, _) in path.match_indices('/') {
            let above = &path[..at];
            match self.nodes.get(above) {
                Some(Node::Directory) => {}
                Some(Node::Link) => {
                    let message = format!("{} lies behind the link {}", shown(&path), shown(above));
                    return Err(PackageError::new("LINK_NOT_ALLOWED", message));
                }
                Some(Node::File(_)) => return Err(twice(above)),
                None => {
                    // Counted too: otherwise deep names would multiply the entries.
                    self.room(self.nodes.len() + 1)?;
                    self.nodes.insert(above.to_owned(), Node::Directory);
                }
            }
        }
        self.room(self.nodes.len() + 1)?;
        Ok(self.nodes.entry(path))
    }
}

fn twice(path: &str) -> PackageError {
    PackageError::new("DUPLICATE_PATH", format!("{} is there twice", shown(path)))
}

pub(super) fn link_inside(path: &str) -> PackageError {
    PackageError::new(
        "LINK_NOT_ALLOWED",
        format!("{} is a link, and the plugin's tree may have none", shown(path)),
    )
}
