//! The thread that brings full halves of the journal to sled, one after the other. One for all of them: a new one each time
//! would ask the kernel for all of its memory again.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::super::disk::{Change, Disk as _, SledDisk};

pub(super) struct Settler {
    inner: Mutex<Inner>,
}

struct Inner {
    /// Taken when there is nothing more to come.
    halves: Option<Sender<Vec<Change>>>,
    outcomes: Receiver<io::Result<()>>,
    is_busy: bool,
    thread: Option<JoinHandle<()>>,
}

fn ended() -> io::Error {
    io::Error::other("sled did not take the journal")
}

impl Settler {
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(sled: Arc<SledDisk>) -> io::Result<Self> {
        let (halves, work) = channel::<Vec<Change>>();
        let (done, outcomes) = channel();
        let thread = std::thread::Builder::new().name("raft-journal".into()).spawn(move || {
            let settled = work.into_iter().map(|changes| sled.write(changes));
            settled.map_while(|outcome| done.send(outcome).ok()).for_each(drop);
        })?;
        let inner = Inner { halves: Some(halves), outcomes, is_busy: false, thread: Some(thread) };
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// Brings a half to sled, while others write; the one before is done.
    ///
    /// # Errors
    /// When the thread is no more.
    pub fn begin(&self, changes: Vec<Change>) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.halves.as_ref().ok_or_else(ended)?.send(changes).map_err(|_| ended())?;
        inner.is_busy = true;
        Ok(())
    }

    /// Waits until sled has taken the half that was begun.
    ///
    /// # Errors
    /// Why it did not take it, once.
    pub fn settled(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut inner.is_busy) {
            return Ok(());
        }
        inner.outcomes.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        // What sled did not take is in the journal; but the store must be free for whoever opens it next.
        if let Err(error) = self.settled() {
            tracing::error!(%error, "the journal stays as it is");
        }
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        inner.halves = None;
        if inner.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the journal panicked");
        }
    }
}
