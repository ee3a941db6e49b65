//! The log's disk: a journal in front of sled, so that what somebody waits for costs one write and one fdatasync.
//!
//! sled hands each flush to a thread of its own, waits for the disk to write, and grows its file, so that the fdatasync behind it
//! has the file system's metadata to write too. The journal is a file of fixed size that was written once in full: a record goes
//! where bytes already are. Before it is full, what came of all its records goes to sled in one durable write, as one that was
//! put and deleted meanwhile never does.
//!
//! A journal is used over and over. Each *pass* has a number drawn at random, which sled keeps in the same write that took in
//! the pass before; records of any other pass are leftovers. The first record that is not whole is the end: one that was
//! under way when the power was cut was acknowledged to nobody. If one of the same pass stands behind it, it is damage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kctl_shared::fault::Fault;
use kctl_shared::mutant;

use super::disk::{Change, Disk, Record, SledDisk, corrupt};

/// Bytes of the file. Thousands of entries of one small command each; read in full when a member starts.
const SIZE: usize = 4 << 20;
/// Length, checksum, pass, number in the pass.
const HEADER: usize = 4 + 4 + 8 + 4;
/// Where in a header the pass stands.
const OF: std::ops::Range<usize> = 8..16;
/// Records begin at multiples of this, so that they can be looked for.
const GRID: usize = 64;
/// Where sled keeps the number of the present pass. A member that knows of no journal refuses the store because of it.
const PASS: &[u8] = b"m/journal";

pub struct Journal {
    sled: SledDisk,
    file: File,
    size: usize,
    present: Mutex<Pass>,
}

#[derive(Default)]
struct Pass {
    id: u64,
    /// Records in it, and where the next one goes.
    records: u32,
    end: usize,
    /// What came of them; `None`: deleted.
    net: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Pass {
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
        Self::with_size(path, SIZE)
    }

    fn with_size(path: &Path, size: usize) -> Result<Self, Fault> {
        let sled = SledDisk::open(path)?;
        let unusable = |e: io::Error| corrupt(path, e);
        let name = path.join("journal");
        let known = sled.scan(PASS).map_err(unusable)?.into_iter().next();
        let mut pass = Pass::default();
        let file = if let Some((_, id)) = known {
            let id = id.try_into().map_err(|_| corrupt(path, "the journal's pass is no number"))?;
            pass.id = u64::from_be_bytes(id);
            let file = File::options().read(true).write(true).open(&name).map_err(unusable)?;
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, 0).map_err(unusable)?;
            for changes in read(&bytes, pass.id).map_err(unusable)? {
                pass.keep(changes);
            }
            file
        } else {
            create(&name, path, size).map_err(unusable)?
        };
        let journal = Self { sled, file, size, present: Mutex::new(pass) };
        let mut present = journal.present.lock().unwrap_or_else(PoisonError::into_inner);
        journal.settle(&mut present).map_err(unusable)?;
        drop(present);
        Ok(journal)
    }

    /// Everything to sled, and a new pass.
    fn settle(&self, pass: &mut Pass) -> io::Result<()> {
        let id = rand::random::<u64>();
        let net = std::mem::take(&mut pass.net).into_iter().map(|(key, value)| match value {
            Some(value) => Change::Put(key, value),
            None => Change::Delete(key),
        });
        let next = Change::Put(PASS.to_vec(), id.to_be_bytes().to_vec());
        self.sled.write(net.chain([next]).collect())?;
        *pass = Pass { id, ..Pass::default() };
        Ok(())
    }
}

impl Disk for Journal {
    fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let mut guard = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let pass = &mut *guard;
        let body = encode(&changes);
        if pass.end + HEADER + body.len() > self.size {
            pass.keep(changes);
            return self.settle(pass);
        }
        let record = seal(pass.id, pass.records, &body);
        self.file.write_all_at(&record, pass.end as u64)?;
        pass.records += 1;
        pass.end = (pass.end + record.len()).next_multiple_of(GRID);
        pass.keep(changes);
        if mutant::is("no-fdatasync") { Ok(()) } else { self.file.sync_data() }
    }

    fn scan(&self, prefix: &[u8]) -> io::Result<Vec<Record>> {
        let mut pass = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if pass.records > 0 {
            self.settle(&mut pass)?;
        }
        let mut records = self.sled.scan(prefix)?;
        records.retain(|(key, _)| key != PASS);
        Ok(records)
    }
}

/// Writes all of it, so that no later write has to find a place for itself.
fn create(name: &Path, dir: &Path, size: usize) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(name)?;
    file.write_all_at(&vec![0; size], 0)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

fn encode(changes: &[Change]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut part = |bytes: &[u8]| {
        body.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(bytes);
    };
    for change in changes {
        match change {
            Change::Put(key, value) => {
                part(key);
                // So that an empty value is not none.
                part(&[&[1], value.as_slice()].concat());
            }
            Change::Delete(key) => {
                part(key);
                part(&[]);
            }
        }
    }
    body
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

fn seal(pass: u64, number: u32, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + body.len());
    record.extend_from_slice(&(body.len() as u32).to_be_bytes());
    record.extend_from_slice(&checksum(pass, number, body).to_be_bytes());
    record.extend_from_slice(&pass.to_be_bytes());
    record.extend_from_slice(&number.to_be_bytes());
    record.extend_from_slice(body);
    record
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

/// The changes of each record of `pass`.
fn read(bytes: &[u8], pass: u64) -> io::Result<Vec<Vec<Change>>> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the journal {what}"));
    let (mut at, mut all) = (0, Vec::new());
    while let Some((number, body)) = open(&bytes[at.min(bytes.len())..], pass)
        && number as usize == all.len()
    {
        all.push(decode(body).ok_or_else(|| damaged("holds a record of no known form"))?);
        at = (at + HEADER + body.len()).next_multiple_of(GRID);
    }
    // Records are written one after the other, each when the one before is on the disk.
    let mark = pass.to_be_bytes();
    let behind = bytes[at.min(bytes.len())..].chunks_exact(GRID);
    // Most of what is there is of another pass, and a member that starts is waited for.
    let starts = (at..).step_by(GRID).zip(behind).filter(|(_, chunk)| chunk[OF] == mark);
    let later = starts.map(|(at, _)| at).any(|at| open(&bytes[at..], pass).is_some());
    if later { Err(damaged("is damaged before its end")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(n: u32) -> Change {
        Change::Put(n.to_be_bytes().to_vec(), vec![7; 100 + n as usize % 50])
    }

    fn small(path: &Path) -> Journal {
        Journal::with_size(path, 16 << 10).unwrap()
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
        for (flip, keeps) in [(None, Some(10)), (Some(9), Some(9)), (Some(4), None), (Some(0), None)] {
            let temp = tempfile::tempdir().unwrap();
            let journal = Journal::open(temp.path()).unwrap();
            let mut starts = Vec::new();
            for n in 0..10 {
                starts.push(journal.present.lock().unwrap().end);
                journal.write(vec![put(n)]).unwrap();
            }
            drop(journal);
            if let Some(n) = flip {
                let file = File::options().write(true).open(temp.path().join("journal")).unwrap();
                file.write_all_at(b"x", (starts[n] + HEADER + 9) as u64).unwrap();
            }
            let reopened = Journal::open(temp.path());
            match keeps {
                Some(count) => assert_eq!(keys(&reopened.unwrap()), (0..count).collect::<Vec<_>>()),
                None => assert_eq!(reopened.err().unwrap().code, "STORE_CORRUPT", "{flip:?}"),
            }
        }
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
        let large = Change::Put(vec![1], vec![5; SIZE]);
        journal.write(vec![Change::Put(vec![0], vec![1]), large]).unwrap();
        drop(journal);
        let records = Journal::open(temp.path()).unwrap().scan(b"").unwrap();
        assert_eq!(records.iter().map(|(_, value)| value.len()).collect::<Vec<_>>(), [1, SIZE]);
    }
}
