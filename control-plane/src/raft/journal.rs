//! The log's disk: a journal in front of sled, so that what somebody waits for costs one write and one fdatasync.
//!
//! sled hands each flush to a thread of its own, waits for the disk to write, and grows its file, so that the fdatasync behind it
//! has the file system's metadata to write too. The journal is a file of fixed size that was written once in full: a record goes
//! where bytes already are. It has two halves. When one is full, records go to the other one, and a thread brings what came of
//! the full one to sled in one durable write, as one that was put and deleted meanwhile never does.
//!
//! The halves are used over and over. What stands in one is a *pass*; each has the number after that of the one before, and sled
//! keeps that of the oldest pass it has not taken in, in the same write that takes in the pass before. Records of any other pass
//! are leftovers. The first record that is not whole is the end: one that was under way when the power was cut was acknowledged
//! to nobody. If one of the same pass stands behind it, or one of the next pass that is not its successor, it is damage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use kctl_shared::fault::Fault;
use kctl_shared::mutant;

use super::disk::{Change, Disk, Record, SledDisk, corrupt};

mod settler;

use settler::Settler;

/// Bytes of each half. Thousands of entries of one small command each; read in full when a member starts.
const HALF: usize = 4 << 20;
/// Length, checksum, pass, number.
const HEADER: usize = 4 + 4 + 8 + 4;
/// Where in a header the pass stands.
const OF: std::ops::Range<usize> = 8..16;
/// Records begin at multiples of this, so that they can be looked for.
const GRID: usize = 64;
/// Where sled keeps the number of the oldest pass it lacks. A member that knows of no journal refuses the store because of it.
const PASS: &[u8] = b"m/journal";

/// What came of records; `None`: deleted.
type Net = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

pub struct Journal {
    sled: Arc<SledDisk>,
    file: File,
    half: usize,
    present: Mutex<Present>,
    /// Brings the pass before to sled.
    settler: Settler,
}

#[derive(Default)]
struct Present {
    pass: u64,
    /// Which half it stands in, and where in it the next record goes.
    second: bool,
    end: usize,
    /// The next record's; goes on from pass to pass.
    number: u32,
    net: Net,
}

impl Present {
    fn keep(&mut self, changes: Vec<Change>) {
        self.net.extend(changes.into_iter().map(|change| match change {
            Change::Put(key, value) => (key, Some(value)),
            Change::Delete(key) => (key, None),
        }));
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Journal")
    }
}

impl Journal {
    /// # Errors
    /// As [`SledDisk::open`].
    pub fn open(path: &Path) -> Result<Self, Fault> {
        Self::with_half(path, HALF)
    }

    fn with_half(path: &Path, half: usize) -> Result<Self, Fault> {
        let sled = Arc::new(SledDisk::open(path)?);
        let unusable = |e: io::Error| corrupt(path, e);
        let name = path.join("journal");
        let known = sled.scan(PASS).map_err(unusable)?.into_iter().next();
        let mut present = Present::default();
        let file = if let Some((_, id)) = known {
            let id = id.try_into().map_err(|_| corrupt(path, "the journal's pass is no number"))?;
            let file = File::options().read(true).write(true).open(&name).map_err(unusable)?;
            grow(&file, 2 * half).map_err(unusable)?;
            let mut bytes = vec![0; 2 * half];
            file.read_exact_at(&mut bytes, 0).map_err(unusable)?;
            let (first, second) = bytes.split_at(half);
            let pass = u64::from_be_bytes(id);
            for changes in read_both([first, second], pass).map_err(unusable)? {
                present.keep(changes);
            }
            // Neither it nor the next one begins again.
            present.pass = pass.wrapping_add(1);
            file
        } else {
            present.pass = rand::random();
            create(&name, path, 2 * half).map_err(unusable)?
        };
        let settler = Settler::start(sled.clone()).map_err(unusable)?;
        let journal = Self { sled, file, half, present: Mutex::new(present), settler };
        let mut present = journal.present.lock().unwrap_or_else(PoisonError::into_inner);
        journal.settle(&mut present).map_err(unusable)?;
        drop(present);
        Ok(journal)
    }

    /// Begins the next pass in the other half; returns what is to be brought to sled first.
    fn turn(present: &mut Present) -> Vec<Change> {
        let net = std::mem::take(&mut present.net).into_iter().map(|(key, value)| match value {
            Some(value) => Change::Put(key, value),
            None => Change::Delete(key),
        });
        present.pass = present.pass.wrapping_add(1);
        (present.second, present.end) = (!present.second, 0);
        net.chain([Change::Put(PASS.to_vec(), present.pass.to_be_bytes().to_vec())]).collect()
    }

    /// Everything to sled.
    fn settle(&self, present: &mut Present) -> io::Result<()> {
        self.settler.settled()?;
        self.sled.write(Self::turn(present))
    }

    /// As [`Self::settle`], while the next records come; the half that they go to is free when it is called.
    fn settle_aside(&self, present: &mut Present) -> io::Result<()> {
        self.settler.settled()?;
        self.settler.begin(Self::turn(present))
    }
}

impl Disk for Journal {
    fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let mut guard = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let present = &mut *guard;
        let mut record = encode(&changes);
        if record.len() > self.half {
            present.keep(changes);
            return self.settle(present);
        }
        if present.end + record.len() > self.half {
            self.settle_aside(present)?;
        }
        seal(&mut record, present.pass, present.number);
        let start = if present.second { self.half } else { 0 };
        self.file.write_all_at(&record, (start + present.end) as u64)?;
        present.number = present.number.wrapping_add(1);
        present.end = (present.end + record.len()).next_multiple_of(GRID);
        present.keep(changes);
        if mutant::is("no-fdatasync") { Ok(()) } else { self.file.sync_data() }
    }

    fn scan(&self, prefix: &[u8]) -> io::Result<Vec<Record>> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if present.net.is_empty() {
            self.settler.settled()?;
        } else {
            self.settle(&mut present)?;
        }
        let mut records = self.sled.scan(prefix)?;
        records.retain(|(key, _)| key != PASS);
        Ok(records)
    }
}

/// One that had no second half yet is given one.
fn grow(file: &File, size: usize) -> io::Result<()> {
    let present = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if present < size {
        file.write_all_at(&vec![0; size - present], present as u64)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Writes all of it, so that no later write has to find a place for itself.
fn create(name: &Path, dir: &Path, size: usize) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(name)?;
    file.write_all_at(&vec![0; size], 0)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

/// A record without what its header says.
fn encode(changes: &[Change]) -> Vec<u8> {
    let size = |change: &Change| match change {
        Change::Put(key, value) => 2 * 4 + key.len() + 1 + value.len(),
        Change::Delete(key) => 2 * 4 + key.len(),
    };
    let mut record = Vec::with_capacity(HEADER + changes.iter().map(size).sum::<usize>());
    record.resize(HEADER, 0);
    let mut part = |first: &[u8], rest: &[u8]| {
        let length = u32::try_from(first.len() + rest.len()).unwrap_or(u32::MAX);
        record.extend_from_slice(&length.to_be_bytes());
        record.extend_from_slice(first);
        record.extend_from_slice(rest);
    };
    for change in changes {
        match change {
            Change::Put(key, value) => {
                part(key, &[]);
                // So that an empty value is not none.
                part(&[1], value);
            }
            Change::Delete(key) => {
                part(key, &[]);
                part(&[], &[]);
            }
        }
    }
    record
}

fn decode(mut body: &[u8]) -> Option<Vec<Change>> {
    fn part<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = body.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        *body = rest;
        Some(part)
    }
    let mut changes = Vec::new();
    while !body.is_empty() {
        let key = part(&mut body)?.to_vec();
        changes.push(match part(&mut body)?.split_first() {
            Some((_, value)) => Change::Put(key, value.to_vec()),
            None => Change::Delete(key),
        });
    }
    Some(changes)
}

fn checksum(pass: u64, number: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&pass.to_be_bytes());
    hasher.update(&number.to_be_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Makes the header of a record that was encoded.
fn seal(record: &mut [u8], pass: u64, number: u32) {
    let (header, body) = record.split_at_mut(HEADER);
    let sum = checksum(pass, number, body);
    header[..4].copy_from_slice(&(body.len() as u32).to_be_bytes());
    header[4..8].copy_from_slice(&sum.to_be_bytes());
    header[OF].copy_from_slice(&pass.to_be_bytes());
    header[OF.end..].copy_from_slice(&number.to_be_bytes());
}

/// The body of the record that `bytes` begin with, if it is a whole one of `pass`, and its number.
fn open(bytes: &[u8], pass: u64) -> Option<(u32, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (of, rest) = rest.split_first_chunk::<8>()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    if u64::from_be_bytes(*of) != pass {
        return None;
    }
    let number = u32::from_be_bytes(*number);
    let body = rest.get(..u32::from_be_bytes(*length) as usize)?;
    (u32::from_be_bytes(*sum) == checksum(pass, number, body)).then_some((number, body))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the journal {what}"))
}

/// The changes of each record of `pass`, and of the one after it, which stands in the other half.
fn read_both(halves: [&[u8]; 2], pass: u64) -> io::Result<Vec<Vec<Change>>> {
    let next = pass.wrapping_add(1);
    let begins = |half: &&[u8]| open(half, pass).is_some();
    let (Some(here), there) = (halves.iter().find(|h| begins(h)), halves.iter().find(|h| !begins(h))) else {
        // Nothing of either is there.
        for (half, pass) in halves.iter().flat_map(|half| [(half, pass), (half, next)]) {
            if is_in(half, pass) {
                return Err(damaged("is damaged where it begins"));
            }
        }
        return Ok(Vec::new());
    };
    let mut number = open(here, pass).map_or(0, |(number, _)| number);
    let mut all = read(here, pass, &mut number)?;
    let Some(there) = there else { return Err(damaged("holds a pass twice")) };
    if open(there, next).is_some_and(|(first, _)| first != number) {
        return Err(damaged("is damaged where it goes on"));
    }
    all.extend(read(there, next, &mut number)?);
    Ok(all)
}

/// The changes of each record of `pass`, beginning with `number`, which is then that of the next record.
fn read(bytes: &[u8], pass: u64, number: &mut u32) -> io::Result<Vec<Vec<Change>>> {
    let (mut at, mut all) = (0, Vec::new());
    while let Some((stands, body)) = open(&bytes[at.min(bytes.len())..], pass)
        && stands == *number
    {
        all.push(decode(body).ok_or_else(|| damaged("holds a record of no known form"))?);
        at = (at + HEADER + body.len()).next_multiple_of(GRID);
        *number = number.wrapping_add(1);
    }
    // Records are written one after the other, each when the one before is on the disk.
    let later = is_in(&bytes[at.min(bytes.len())..], pass);
    if later { Err(damaged("is damaged before its end")) } else { Ok(all) }
}

/// Whether a whole record of `pass` begins anywhere.
fn is_in(bytes: &[u8], pass: u64) -> bool {
    let mark = pass.to_be_bytes();
    // Most of what is there is of another pass, and a member that starts is waited for.
    let starts = (0..).step_by(GRID).zip(bytes.chunks_exact(GRID)).filter(|(_, chunk)| chunk[OF] == mark);
    starts.map(|(at, _)| at).any(|at: usize| open(&bytes[at..], pass).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(n: u32) -> Change {
        Change::Put(n.to_be_bytes().to_vec(), vec![7; 100 + n as usize % 50])
    }

    fn small(path: &Path) -> Journal {
        Journal::with_half(path, 16 << 10).unwrap()
    }

    /// Where the next record goes.
    fn place(journal: &Journal) -> usize {
        let present = journal.present.lock().unwrap();
        present.end + if present.second { journal.half } else { 0 }
    }

    fn flip(dir: &Path, at: usize) {
        let file = File::options().read(true).write(true).open(dir.join("journal")).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[!byte[0]], at as u64).unwrap();
    }

    fn keys(journal: &Journal) -> Vec<u32> {
        let keys = journal.scan(b"").unwrap().into_iter();
        keys.map(|(key, _)| u32::from_be_bytes(key.try_into().unwrap())).collect()
    }

    #[test]
    fn what_was_written_is_there_again_over_many_passes() {
        let temp = tempfile::tempdir().unwrap();
        let journal = small(temp.path());
        // As a log does: entries come, those behind a snapshot go.
        for n in 0..1_000_u32 {
            let gone = n.checked_sub(100).map(|old| Change::Delete(old.to_be_bytes().to_vec()));
            journal.write([put(n)].into_iter().chain(gone).collect()).unwrap();
        }
        assert!(journal.present.lock().unwrap().net.len() < 200, "there were many passes");
        drop(journal);
        assert_eq!(keys(&small(temp.path())), (900..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_record_under_way_at_the_cut_is_none_and_damage_before_the_end_is_told() {
        for (damage, keeps) in [(None, Some(10)), (Some(9), Some(9)), (Some(4), None), (Some(0), None)] {
            let temp = tempfile::tempdir().unwrap();
            let journal = Journal::open(temp.path()).unwrap();
            let mut starts = Vec::new();
            for n in 0..10 {
                starts.push(place(&journal));
                journal.write(vec![put(n)]).unwrap();
            }
            drop(journal);
            if let Some(n) = damage {
                flip(temp.path(), starts[n] + HEADER + 9);
            }
            let reopened = Journal::open(temp.path());
            match keeps {
                Some(count) => assert_eq!(keys(&reopened.unwrap()), (0..count).collect::<Vec<_>>()),
                None => assert_eq!(reopened.err().unwrap().code, "STORE_CORRUPT", "{damage:?}"),
            }
        }
    }

    /// A process that is begun would hold the locks of all stores for a moment.
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }

    /// As if the power had been cut before sled took in what is in the journal: its files as they were, beside the journal.
    #[test]
    fn two_passes_that_sled_lacks_are_read_and_damage_between_them_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, before) = (temp.path().join("a"), temp.path().join("before"));
        drop(small(&dir));
        copy(&dir, &before);
        let (journal, mut last) = (small(&dir), 0);
        // Opening begins a pass: what sled knows then is what it knew before.
        std::fs::remove_dir_all(&before).unwrap();
        copy(&dir, &before);
        let first = place(&journal) / journal.half;
        let mut count = 0;
        while place(&journal) / journal.half == first || count % 10 != 0 {
            let at = place(&journal);
            journal.write(vec![put(count)]).unwrap();
            if place(&journal) / journal.half == first {
                last = at;
            }
            count += 1;
        }
        drop(journal);
        std::fs::copy(dir.join("journal"), before.join("journal")).unwrap();
        let damaged = temp.path().join("damaged");
        copy(&before, &damaged);
        assert_eq!(keys(&small(&before)), (0..count).collect::<Vec<_>>());
        assert_eq!(keys(&small(&before)), (0..count).collect::<Vec<_>>());
        flip(&damaged, last + HEADER + 9);
        assert_eq!(Journal::with_half(&damaged, 16 << 10).err().unwrap().code, "STORE_CORRUPT");
    }

    #[test]
    fn leftovers_of_an_earlier_pass_are_not_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let journal = Journal::open(temp.path()).unwrap();
        for n in 0..10 {
            journal.write(vec![put(n)]).unwrap();
        }
        assert_eq!(keys(&journal).len(), 10);
        journal.write(vec![Change::Delete(3_u32.to_be_bytes().to_vec())]).unwrap();
        drop(journal);
        assert_eq!(keys(&Journal::open(temp.path()).unwrap()), [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_is_too_large_for_the_journal_goes_past_it() {
        let temp = tempfile::tempdir().unwrap();
        let journal = Journal::open(temp.path()).unwrap();
        let large = Change::Put(vec![1], vec![5; HALF]);
        journal.write(vec![Change::Put(vec![0], vec![1]), large]).unwrap();
        drop(journal);
        let records = Journal::open(temp.path()).unwrap().scan(b"").unwrap();
        assert_eq!(records.iter().map(|(_, value)| value.len()).collect::<Vec<_>>(), [1, HALF]);
    }
}
