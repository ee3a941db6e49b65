//! A strict tar reader.
//!
//! Reads ustar, GNU and pax headers itself, block by block, because the usual readers take extended headers into memory
//! whatever their size, and settle contradictions silently where an artifact wants them refused.

use std::io::Read;

use ::tar::{EntryType, Header};

use super::archive::{corrupt, fill, too_large, truncated, unreadable};
use super::error::{PackageError, shown};
use super::tree::Tree;

const BLOCK: usize = 512;
/// Bytes of one extended header: paths and attributes of one file, with room to spare.
const MAX_EXTENSION: u64 = 256 * 1024;

/// Whether this is a tar header: its checksum is right.
pub(super) fn is_header(block: &[u8]) -> bool {
    if block.len() != BLOCK || block.iter().all(|b| *b == 0) {
        return false;
    }
    // The checksum field counts as blanks.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(i, b)| u32::from(if (148..156).contains(&i) { b' ' } else { *b }))
        .sum();
    Header::from_byte_slice(block).cksum().is_ok_and(|c| c == sum)
}

/// What extended headers said about the entry that follows.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    seen: bool,
}

/// Reads to the very end of the input: what follows the archive must be padding.
pub(super) fn read(input: &mut dyn Read, tree: &mut Tree<'_>) -> Result<(), PackageError> {
    let mut extension = Extension::default();
    let mut block = [0; BLOCK];
    loop {
        match fill(input, &mut block).map_err(|e| unreadable(&e, ""))? {
            BLOCK => {}
            0 => return Err(truncated("its list of files (there is no end mark)")),
            _ => return Err(truncated("a header")),
        }
        if block == [0; BLOCK] {
            return if extension.seen {
                Err(corrupt("an extended header belongs to no file"))
            } else {
                padding(input)
            };
        }
        if !is_header(&block) {
            return Err(corrupt("a header has a wrong checksum"));
        }
        let header = Header::from_byte_slice(&block);
        let size = header.entry_size().map_err(|_| corrupt("a header has no valid size"))?;
        match header.entry_type() {
            EntryType::XHeader => pax(&extended(input, size)?, &mut extension)?,
            EntryType::XGlobalHeader => global(&extended(input, size)?)?,
            EntryType::GNULongName => set(&mut extension.path, gnu(extended(input, size)?))?,
            EntryType::GNULongLink => set(&mut extension.target, gnu(extended(input, size)?))?,
            kind => {
                entry(input, header, kind, size, std::mem::take(&mut extension), tree)?;
                continue;
            }
        }
        extension.seen |= header.entry_type() != EntryType::XGlobalHeader;
    }
}

fn padding(input: &mut dyn Read) -> Result<(), PackageError> {
    let mut buffer = [0; 4096];
    loop {
        // Reading on also lets the decompressor check its checksum.
        let n = fill(input, &mut buffer).map_err(|e| unreadable(&e, ""))?;
        if buffer[..n].iter().any(|b| *b != 0) {
            return Err(corrupt("there is data after the end of the archive"));
        }
        if n == 0 {
            return Ok(());
        }
    }
}

fn entry(
    input: &mut dyn Read,
    header: &Header,
    kind: EntryType,
    size: u64,
    extension: Extension,
    tree: &mut Tree<'_>,
) -> Result<(), PackageError> {
    let path = match extension.path {
        Some(path) => path,
        None => name(header)?,
    };
    let shown = || shown(&String::from_utf8_lossy(&path));
    if extension.size.is_some_and(|s| s != size) {
        return Err(corrupt(format!("{} has two sizes", shown())));
    }
    let mode = header.mode().map_err(|_| corrupt(format!("{} has no valid mode", shown())))?;
    let directory = kind.is_dir() || kind.is_file() && path.ends_with(b"/");
    // Shared directories often carry set-group-id; only a file's bit would ever take effect.
    if mode & 0o6000 != 0 && !directory {
        return Err(PackageError::new(
            "MODE_NOT_ALLOWED",
            format!("{} is set-user-id or set-group-id", shown()),
        ));
    }
    let special =
        |what: &str| Err(PackageError::new("SPECIAL_FILE_NOT_ALLOWED", format!("{} is {what}", shown())));
    if size != 0 && (directory || kind == EntryType::Symlink) {
        return Err(corrupt(format!("{} has content, which its type cannot have", shown())));
    }
    match kind {
        _ if directory => tree.directory(&path),
        EntryType::Regular | EntryType::Continuous => {
            if size > tree.limits.max_unpacked {
                return Err(too_large());
            }
            if tree.file(&path, size, &mut input.take(size))? < size {
                return Err(truncated(&shown()));
            }
            let rest = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
            match fill(input, &mut [0; BLOCK][..rest]).map_err(|e| unreadable(&e, ""))? {
                n if n == rest => Ok(()),
                _ => Err(truncated(&shown())),
            }
        }
        EntryType::Symlink => {
            let target = match extension.target {
                Some(target) => target,
                None => header.link_name_bytes().map(|t| t.into_owned()).unwrap_or_default(),
            };
            tree.link(&path, &target)
        }
        EntryType::Link => {
            Err(PackageError::new("LINK_NOT_ALLOWED", format!("{} is a hard link to another file", shown())))
        }
        EntryType::Char | EntryType::Block => special("a device"),
        EntryType::Fifo => special("a pipe"),
        EntryType::GNUSparse => special("a sparse file"),
        other => special(&format!("of the unknown type {:?}", char::from(other.as_byte()))),
    }
}

/// The name of a header without extension. Bytes behind a NUL would be seen by some readers and not by others.
fn name(header: &Header) -> Result<Vec<u8>, PackageError> {
    let field = &header.as_old().name;
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    if field[end..].iter().any(|b| *b != 0) {
        let name = shown(&String::from_utf8_lossy(&field[..end]));
        return Err(PackageError::new("PATH_ESCAPE", format!("{name} has a NUL byte in its name")));
    }
    Ok(header.path_bytes().into_owned())
}

fn extended(input: &mut dyn Read, size: u64) -> Result<Vec<u8>, PackageError> {
    if size > MAX_EXTENSION {
        return Err(corrupt(format!(
            "an extended header has {size} bytes, at most {MAX_EXTENSION} are taken"
        )));
    }
    let mut bytes = vec![0; (size as usize).next_multiple_of(BLOCK)];
    if fill(input, &mut bytes).map_err(|e| unreadable(&e, ""))? < bytes.len() {
        return Err(truncated("an extended header"));
    }
    bytes.truncate(size as usize);
    Ok(bytes)
}

/// GNU ends a long name with one NUL.
fn gnu(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), PackageError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(corrupt("two extended headers say the same thing about one file")),
    }
}

/// (key, value)
type Record<'a> = (&'a [u8], &'a [u8]);

/// Records `LENGTH KEY=VALUE\n`, where the length counts the whole record.
fn records(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, PackageError> {
    let bad = || corrupt("an extended header cannot be read");
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let length =
            std::str::from_utf8(&bytes[..blank]).ok().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
        let record = bytes.get(blank + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        found.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Ok(found)
}

fn sparse(key: &[u8]) -> Result<(), PackageError> {
    if key.starts_with(b"GNU.sparse.") {
        return Err(PackageError::new("SPECIAL_FILE_NOT_ALLOWED", "the archive holds a sparse file")
            .hint("pack it again without --sparse"));
    }
    Ok(())
}

fn pax(bytes: &[u8], extension: &mut Extension) -> Result<(), PackageError> {
    for (key, value) in records(bytes)? {
        sparse(key)?;
        match key {
            b"path" => set(&mut extension.path, value.to_vec())?,
            b"linkpath" => set(&mut extension.target, value.to_vec())?,
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|n| n.parse().ok());
                set(
                    &mut extension.size,
                    size.ok_or_else(|| corrupt("an extended header has no valid size"))?,
                )?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A header for all files that follow: `git archive` leaves its commit there. It may not rename or resize them.
fn global(bytes: &[u8]) -> Result<(), PackageError> {
    for (key, _) in records(bytes)? {
        sparse(key)?;
        if matches!(key, b"path" | b"linkpath" | b"size") {
            return Err(corrupt("a global header gives all files one name or size"));
        }
    }
    Ok(())
}
