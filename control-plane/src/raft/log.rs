//! The log and the vote: in memory for readers, on disk by one writer thread in the order they were given.
//!
//! The thread drains its queue into one durable write, then runs all callbacks: while one fsync is under way, the next
//! group gathers. Log and vote never overtake each other. A write that fails ends the process: what is on the disk after
//! a failed fsync is unknown, and a second try would only hide that.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use kctl_shared::fault::Fault;
use openraft::OptionalSend;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::alias;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::disk::{Change, Disk, corrupt};
use super::types::{Entry, LogId, TypeConfig, Vote, decode, encode};

const ENTRY: &[u8] = b"e";
const VOTE: &[u8] = b"m/vote";
const PURGED: &[u8] = b"m/purged";
const COMMITTED: &[u8] = b"m/committed";

/// Requests gathered into one durable write at the most.
const GROUP: usize = 1_024;

#[derive(Debug, Default)]
struct Memory {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

enum Done {
    Flushed(IOFlushed<TypeConfig>),
    Answer(oneshot::Sender<()>),
    Nobody,
}

/// What is to be written, and who waits for it.
type Request = (Vec<Change>, Done);

#[derive(Clone, Debug)]
pub(super) struct LogStore {
    memory: Arc<RwLock<Memory>>,
    writer: UnboundedSender<Request>,
}

fn key(index: u64) -> Vec<u8> {
    [ENTRY, &index.to_be_bytes()].concat()
}

impl LogStore {
    /// Reads everything back and checks that it is whole.
    ///
    /// # Errors
    /// `STORE_CORRUPT`.
    pub(super) fn open(path: &Path, disk: Arc<dyn Disk>) -> Result<Self, Fault> {
        let memory = load(&*disk).map_err(|e| corrupt(path, e))?;
        let (writer, queue) = unbounded_channel();
        if let Some(latency) = disk.simulated() {
            tokio::spawn(write_task(disk, queue, latency));
        } else {
            std::thread::Builder::new()
                .name("raft-log".into())
                .spawn(move || write_loop(&*disk, queue))
                .map_err(|e| Fault::new("INTERNAL", format!("cannot start the log writer: {e}")))?;
        }
        Ok(Self { memory: Arc::new(RwLock::new(memory)), writer })
    }

    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn edit(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, changes: Vec<Change>, done: Done) -> io::Result<()> {
        self.writer.send((changes, done)).map_err(|_| io::Error::other("the log writer has ended"))
    }

    async fn durable(&self, changes: Vec<Change>) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        self.submit(changes, Done::Answer(tx))?;
        rx.await.map_err(|_| io::Error::other("the log writer has ended"))
    }
}

/// Records of a log that begins behind `purged`.
pub(super) fn begin(purged: LogId, vote: Vote) -> io::Result<Vec<Change>> {
    let purged = Change::Put(PURGED.to_vec(), encode(&purged)?);
    Ok(vec![purged, Change::Put(VOTE.to_vec(), encode(&vote)?)])
}

fn load(disk: &dyn Disk) -> io::Result<Memory> {
    let mut memory = Memory::default();
    for (key, value) in disk.scan(b"m/")? {
        match key.as_slice() {
            VOTE => memory.vote = Some(decode(&value)?),
            PURGED => memory.purged = Some(decode(&value)?),
            COMMITTED => memory.committed = Some(decode(&value)?),
            _ => return Err(io::Error::other("a record of unknown kind")),
        }
    }
    let mut next = memory.purged.as_ref().map(|id| id.index + 1);
    for (key, value) in disk.scan(ENTRY)? {
        let entry: Entry = decode(&value)?;
        let index = entry.index();
        if key != self::key(index) || next.is_some_and(|n| n != index) {
            return Err(io::Error::other(format!("the log has a hole before entry {index}")));
        }
        next = Some(index + 1);
        memory.entries.insert(index, entry);
    }
    Ok(memory)
}

fn write_loop(disk: &dyn Disk, mut queue: UnboundedReceiver<Request>) {
    let mut group = Group::default();
    while let Some(first) = queue.blocking_recv() {
        if group.gather(first, &mut queue) {
            group.write(disk);
        }
    }
}

/// As [`write_loop`], in a simulated world.
async fn write_task(disk: Arc<dyn Disk>, mut queue: UnboundedReceiver<Request>, latency: Duration) {
    let mut group = Group::default();
    while let Some(first) = queue.recv().await {
        if group.gather(first, &mut queue) {
            tokio::time::sleep(latency).await;
            group.write(&*disk);
        }
    }
}

/// What goes to the disk in one write.
#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    waiting: Vec<Done>,
}

impl Group {
    /// Takes in what is queued; whether it is to be written now.
    fn gather(&mut self, (first, done): Request, queue: &mut UnboundedReceiver<Request>) -> bool {
        self.changes.extend(first);
        self.waiting.push(done);
        while self.waiting.len() < GROUP
            && let Ok((more, done)) = queue.try_recv()
        {
            self.changes.extend(more);
            self.waiting.push(done);
        }
        // What nobody waits for rides with what somebody does: a sync of its own would be in that one's way.
        self.waiting.retain(|done| !matches!(done, Done::Nobody));
        !self.waiting.is_empty() || self.changes.len() >= GROUP
    }

    fn write(&mut self, disk: &dyn Disk) {
        if let Err(error) = disk.write(std::mem::take(&mut self.changes)) {
            tracing::error!(%error, "STORE_WRITE_FAILED: the log cannot be written; ending rather than guessing what is on the disk");
            std::process::exit(70);
        }
        for done in self.waiting.drain(..) {
            match done {
                Done::Flushed(callback) => callback.io_completed(Ok(())),
                // The receiver may have gone with its task.
                Done::Answer(tx) => drop(tx.send(())),
                Done::Nobody => {}
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read().entries.range(range).map(|(_, e)| e.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.read().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let memory = self.read();
        let last = memory.entries.values().next_back().map(openraft::entry::RaftEntry::log_id);
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: last.or(memory.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &alias::VoteOf<TypeConfig>) -> Result<(), io::Error> {
        self.edit().vote = Some(*vote);
        self.durable(vec![Change::Put(VOTE.to_vec(), encode(vote)?)]).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.edit().committed = committed;
        let Some(committed) = committed else { return Ok(()) };
        // Only saves work after a restart; it rides with the next write that somebody waits for.
        let change = Change::Put(COMMITTED.to_vec(), encode(&committed)?);
        self.submit(vec![change], Done::Nobody)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut changes = Vec::with_capacity(entries.len());
        for entry in &entries {
            changes.push(Change::Put(key(entry.index()), encode(entry)?));
        }
        self.edit().entries.extend(entries.into_iter().map(|e| (e.index(), e)));
        self.submit(changes, Done::Flushed(callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        let gone = self.edit().entries.split_off(&from);
        // From the end backwards, so that no prefix of the deletions leaves a hole.
        self.durable(gone.into_keys().rev().map(|index| Change::Delete(key(index))).collect()).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let gone = {
            let mut memory = self.edit();
            let kept = memory.entries.split_off(&(upto.index + 1));
            memory.purged = Some(upto);
            std::mem::replace(&mut memory.entries, kept)
        };
        let mut changes = vec![Change::Put(PURGED.to_vec(), encode(&upto)?)];
        changes.extend(gone.into_keys().map(|index| Change::Delete(key(index))));
        self.durable(changes).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::raft::disk::Record;

    #[derive(Default)]
    struct Counted(Mutex<Vec<usize>>);

    impl Disk for Counted {
        fn write(&self, changes: Vec<Change>) -> io::Result<()> {
            self.0.lock().unwrap().push(changes.len());
            Ok(())
        }
        fn scan(&self, _: &[u8]) -> io::Result<Vec<Record>> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_synced_alone() {
        let disk = Arc::new(Counted::default());
        let mut log = LogStore::open(Path::new("/"), disk.clone()).unwrap();
        let vote = Vote::new(1, 1);
        for index in 1..4 {
            log.save_committed(Some(LogId::new(vote.leader_id, index))).await.unwrap();
        }
        log.save_vote(&vote).await.unwrap();
        assert_eq!(*disk.0.lock().unwrap(), [4]);
    }
}
