//! Which kind of archive it is, by its first bytes, and the one place that turns read errors into words.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::bufread::MultiGzDecoder;

use super::error::{PackageError, shown};
use super::tree::Tree;
use super::{tar, zip};

const BLOCK: usize = 512;

/// Reads all of an archive into the tree. `unpacked` is what it may still yield, and is counted down.
///
/// # Errors
/// `NOT_AN_ARCHIVE`, `ARCHIVE_TRUNCATED`, `ARCHIVE_CORRUPT`, `ARCHIVE_TOO_LARGE`, `ARCHIVE_ENCRYPTED`,
/// `SPECIAL_FILE_NOT_ALLOWED`, `MODE_NOT_ALLOWED`, and those of the tree.
pub(super) fn read<R: Read + Seek>(
    mut input: R,
    tree: &mut Tree<'_>,
    unpacked: &mut u64,
) -> Result<(), PackageError> {
    let mut head = [0; BLOCK];
    let n = fill(&mut input, &mut head).map_err(|e| unreadable(&e, ""))?;
    input.seek(SeekFrom::Start(0)).map_err(|e| unreadable(&e, ""))?;
    let head = &head[..n];
    match head {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => {
            zip::read(&mut BufReader::new(input), tree, unpacked)
        }
        [0x1f, 0x8b, ..] => {
            let mut bounded = Bounded { inner: MultiGzDecoder::new(BufReader::new(input)), left: unpacked };
            let mut first = [0; BLOCK];
            let n = fill(&mut bounded, &mut first).map_err(|e| unreadable(&e, ""))?;
            if n < BLOCK || !(tar::is_header(&first) || first == [0; BLOCK]) {
                return Err(PackageError::new("NOT_AN_ARCHIVE", "what is compressed is not a tar"));
            }
            tar::read(&mut first.chain(bounded), tree)
        }
        _ if n == BLOCK && tar::is_header(head) => {
            tar::read(&mut Bounded { inner: BufReader::new(input), left: unpacked }, tree)
        }
        _ => Err(not_an_archive(head)),
    }
}

fn not_an_archive(head: &[u8]) -> PackageError {
    let known: &[(&[u8], &str)] = &[
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"Rar!", "rar"),
    ];
    match known.iter().find(|(magic, _)| head.starts_with(magic)) {
        Some((_, name)) => PackageError::new("NOT_AN_ARCHIVE", format!("{name} archives are not read"))
            .hint("pack it again as .tar.gz or .zip"),
        None if head.is_empty() => PackageError::new("NOT_AN_ARCHIVE", "the file is empty"),
        None => PackageError::new("NOT_AN_ARCHIVE", "the file is neither a zip nor a tar"),
    }
}

/// Reads until the buffer is full or the input ends.
pub(super) fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match input.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(at)
}

/// Yields at most `left` bytes; one more is an error of kind `FileTooLarge`.
#[derive(Debug)]
pub(super) struct Bounded<'a, R> {
    pub inner: R,
    pub left: &'a mut u64,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if *self.left == 0 {
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::ErrorKind::FileTooLarge.into()),
            };
        }
        let most = usize::try_from(*self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.inner.read(&mut buffer[..most])?;
        *self.left -= n as u64;
        Ok(n)
    }
}

pub(super) fn truncated(what: &str) -> PackageError {
    PackageError::new("ARCHIVE_TRUNCATED", format!("the archive ends in the middle of {what}"))
}

pub(super) fn corrupt(what: impl Into<String>) -> PackageError {
    PackageError::new("ARCHIVE_CORRUPT", what)
}

pub(super) fn too_large() -> PackageError {
    PackageError::new("ARCHIVE_TOO_LARGE", "unpacked it is larger than a plugin can be")
}

/// What a failed read means; `path` is the entry being read, or empty.
pub(super) fn unreadable(e: &io::Error, path: &str) -> PackageError {
    let what = if path.is_empty() { "its content".into() } else { shown(path) };
    match e.kind() {
        io::ErrorKind::FileTooLarge => too_large(),
        io::ErrorKind::UnexpectedEof => truncated(&what),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            corrupt(format!("{what} does not unpack: {e}"))
        }
        _ => PackageError::new("SOURCE_UNREADABLE", format!("{what} cannot be read: {e}"))
            .hint("check that it exists and that you may read it"),
    }
}
