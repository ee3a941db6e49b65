//! A strict zip reader.
//!
//! The list at the end decides, and every local header must say the same. Entries are counted, summed and checked for
//! overlap before the first one is unpacked; every one is unpacked, so that a wrong checksum is found wherever it is.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::archive::{corrupt, fill, too_large, truncated, unreadable};
use super::error::{PackageError, shown};
use super::tree::Tree;

const END: usize = 22;
const CENTRAL: usize = 46;
const LOCAL: usize = 30;
/// The end record with the longest comment it can have.
const MAX_END: u64 = END as u64 + 0xffff;
/// Bytes of the list for each entry that may be: a path, attributes and time stamps.
const LIST_BYTES_EACH: usize = 512;
/// A link's target longer than any path is none.
const MAX_TARGET: u64 = 4096;

struct Entry {
    name: Vec<u8>,
    /// Unix type and permissions; 0 when the archive was not made on Unix.
    mode: u32,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    offset: u64,
}

pub(super) fn read<R: io::BufRead + Seek>(
    input: &mut R,
    tree: &mut Tree<'_>,
    unpacked: &mut u64,
) -> Result<(), PackageError> {
    let failed = |e: io::Error| unreadable(&e, "");
    let length = input.seek(SeekFrom::End(0)).map_err(failed)?;
    let (list_at, entries) = list(input, length, tree.limits.max_entries)?;
    let total = entries.iter().try_fold(0u64, |sum, e| sum.checked_add(e.size)).unwrap_or(u64::MAX);
    *unpacked = unpacked.checked_sub(total).ok_or_else(too_large)?;

    // In the order of their place in the file, so that an overlap is a place before the end of the last one.
    let mut entries = entries;
    entries.sort_by_key(|e| e.offset);
    let mut free = 0;
    for entry in entries {
        let name = shown(&String::from_utf8_lossy(&entry.name));
        if entry.offset < free {
            return Err(corrupt(format!("{name} overlaps another entry")));
        }
        input.seek(SeekFrom::Start(entry.offset)).map_err(failed)?;
        let data = entry.offset + local(input, &entry, &name)?;
        free = data
            .checked_add(entry.packed)
            .filter(|end| *end <= list_at)
            .ok_or_else(|| corrupt(format!("{name} reaches into the list of entries")))?;
        unpack(input, &entry, &name, tree)?;
    }
    Ok(())
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn exactly(input: &mut dyn Read, buffer: &mut [u8], what: &str) -> Result<(), PackageError> {
    match fill(input, buffer).map_err(|e| unreadable(&e, ""))? {
        n if n == buffer.len() => Ok(()),
        _ => Err(truncated(what)),
    }
}

/// Where the list begins, and what it says.
fn list<R: Read + Seek>(input: &mut R, length: u64, max: usize) -> Result<(u64, Vec<Entry>), PackageError> {
    let failed = |e: io::Error| unreadable(&e, "");
    let tail_at = length.saturating_sub(MAX_END);
    input.seek(SeekFrom::Start(tail_at)).map_err(failed)?;
    let mut tail = Vec::new();
    input.take(MAX_END).read_to_end(&mut tail).map_err(failed)?;
    let fits = |at: usize| tail.len() - at == END + usize::from(u16_at(&tail, at + 20));
    let marks: Vec<usize> = (0..(tail.len() + 1).saturating_sub(END))
        .filter(|at| tail[*at..].starts_with(b"PK\x05\x06"))
        .collect();
    let Some(&at) = marks.iter().rev().find(|at| fits(**at)) else {
        return Err(match marks.is_empty() {
            true => truncated("its content (the list of entries at the end is missing)"),
            false => corrupt("there is data after the end of the archive"),
        });
    };
    let end = &tail[at..];
    let (count, size, start) = (usize::from(u16_at(end, 10)), u32_at(end, 12), u32_at(end, 16));
    if u16_at(end, 4) != 0 || u16_at(end, 6) != 0 || usize::from(u16_at(end, 8)) != count {
        return Err(corrupt("the archive is one part of several"));
    }
    if count == 0xffff || count > max || size as usize > max.saturating_mul(LIST_BYTES_EACH) {
        return Err(PackageError::new("TOO_MANY_ENTRIES", format!("more than {max} entries")));
    }
    if u64::from(start) + u64::from(size) != tail_at + at as u64 {
        return Err(corrupt("the list of entries is not where the archive says"));
    }
    input.seek(SeekFrom::Start(u64::from(start))).map_err(failed)?;
    let mut list = vec![0; size as usize];
    exactly(input, &mut list, "the list of entries")?;
    let mut rest = list.as_slice();
    let mut entries = Vec::new();
    for _ in 0..count {
        let (entry, used) = central(rest)?;
        entries.push(entry);
        rest = &rest[used..];
    }
    if rest.is_empty() {
        Ok((u64::from(start), entries))
    } else {
        Err(corrupt("the list of entries is longer than it says"))
    }
}

fn central(b: &[u8]) -> Result<(Entry, usize), PackageError> {
    let bad = || corrupt("the list of entries cannot be read");
    if b.len() < CENTRAL || !b.starts_with(b"PK\x01\x02") {
        return Err(bad());
    }
    let (name, extra, comment) =
        (usize::from(u16_at(b, 28)), usize::from(u16_at(b, 30)), usize::from(u16_at(b, 32)));
    let used = CENTRAL + name + extra + comment;
    if b.len() < used {
        return Err(bad());
    }
    let entry = Entry {
        name: b[CENTRAL..CENTRAL + name].to_vec(),
        mode: if b[5] == 3 { u32_at(b, 38) >> 16 } else { 0 },
        flags: u16_at(b, 8),
        method: u16_at(b, 10),
        crc: u32_at(b, 16),
        packed: u32_at(b, 20).into(),
        size: u32_at(b, 24).into(),
        offset: u32_at(b, 42).into(),
    };
    if [entry.packed, entry.size, entry.offset].contains(&u32::MAX.into()) {
        return Err(PackageError::new(
            "ARCHIVE_TOO_LARGE",
            "the archive is in the form for more than 4 GiB (zip64)",
        ));
    }
    Ok((entry, used))
}

/// Checks the header at the entry itself; returns its length.
fn local(input: &mut dyn Read, entry: &Entry, shown: &str) -> Result<u64, PackageError> {
    let mut b = [0; LOCAL];
    exactly(input, &mut b, "a header")?;
    let differs = || corrupt(format!("{shown} is described in two ways"));
    if !b.starts_with(b"PK\x03\x04")
        || (u16_at(&b, 6) ^ entry.flags) & 1 != 0
        || u16_at(&b, 8) != entry.method
    {
        return Err(differs());
    }
    // Written in one go: sizes and checksum follow the data, and zeros stand here. All ones: a writer that did not
    // know yet whether it would need the large form.
    let streamed = u16_at(&b, 6) & 8 != 0;
    for (at, value) in [(14, u64::from(entry.crc)), (18, entry.packed), (22, entry.size)] {
        let said = u64::from(u32_at(&b, at));
        if said != value && !(streamed && said == 0) && !(at > 14 && said == u64::from(u32::MAX)) {
            return Err(differs());
        }
    }
    let (name, extra) = (usize::from(u16_at(&b, 26)), u16_at(&b, 28));
    let mut bytes = vec![0; name + usize::from(extra)];
    exactly(input, &mut bytes, "a header")?;
    if bytes[..name] != entry.name {
        return Err(differs());
    }
    Ok((LOCAL + bytes.len()) as u64)
}

fn unpack<R: io::BufRead>(
    input: &mut R,
    entry: &Entry,
    shown: &str,
    tree: &mut Tree<'_>,
) -> Result<(), PackageError> {
    if entry.flags & 1 != 0 {
        return Err(PackageError::new("ARCHIVE_ENCRYPTED", format!("{shown} is encrypted"))
            .hint("pack it again without a password"));
    }
    const TYPE: u32 = 0o170_000;
    let kind = entry.mode & TYPE;
    let directory = entry.name.ends_with(b"/");
    if entry.mode & 0o6000 != 0 && !directory {
        return Err(PackageError::new("MODE_NOT_ALLOWED", format!("{shown} is set-user-id or set-group-id")));
    }
    match kind {
        0o040_000 if directory => {}
        0 | 0o100_000 => {}
        0o120_000 if !directory && entry.size <= MAX_TARGET => {}
        0o040_000 | 0o120_000 => return Err(corrupt(format!("{shown} is of two types at once"))),
        _ => {
            let message = format!("{shown} is neither a file nor a directory");
            return Err(PackageError::new("SPECIAL_FILE_NOT_ALLOWED", message));
        }
    }
    if directory {
        return match entry.size {
            0 => tree.directory(&entry.name),
            _ => Err(corrupt(format!("{shown} has content, which a directory cannot have"))),
        };
    }
    let mut packed = input.take(entry.packed);
    let (read, crc) = match entry.method {
        0 => content(&mut packed, entry, kind == 0o120_000, tree)?,
        8 => content(&mut DeflateDecoder::new(&mut packed), entry, kind == 0o120_000, tree)?,
        other => {
            return Err(corrupt(format!("{shown} is compressed with method {other}"))
                .hint("pack it again with the usual method, deflate"));
        }
    };
    if packed.limit() != 0 && read == entry.size && crc == entry.crc {
        return Err(corrupt(format!("{shown} has bytes behind its content")));
    }
    if read < entry.size || crc != entry.crc {
        return Err(corrupt(format!("{shown} has a wrong checksum or size")));
    }
    Ok(())
}

/// Reads one entry's content; more than the list promised is an error before it is kept.
fn content(
    input: &mut dyn Read,
    entry: &Entry,
    link: bool,
    tree: &mut Tree<'_>,
) -> Result<(u64, u32), PackageError> {
    let mut checked = Checked { inner: input, left: entry.size, crc: Crc::new() };
    let read = if link {
        let mut target = Vec::new();
        checked.read_to_end(&mut target).map_err(|e| unreadable(&e, ""))?;
        tree.link(&entry.name, &target)?;
        target.len() as u64
    } else {
        tree.file(&entry.name, entry.size, &mut checked)?
    };
    Ok((read, checked.crc.sum()))
}

struct Checked<'a> {
    inner: &'a mut dyn Read,
    left: u64,
    crc: Crc,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match self.inner.read(buffer) {
            // The decompressor's view of an entry that is cut short: the archive itself is whole.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the compressed data stops too early",
                ));
            }
            other => other?,
        };
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "there is more than the archive says")
        })?;
        self.crc.update(&buffer[..n]);
        Ok(n)
    }
}
