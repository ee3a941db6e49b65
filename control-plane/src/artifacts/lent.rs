//! Artifacts on their way to agents. When a release is announced every agent wants the same bytes at once: they are read
//! from the disk once, shared by all that are sent, and sent to some of them at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::package::pieces;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// Sent at once. More would not be faster, and each holds a few buffers.
const SENT_AT_ONCE: usize = 256;

/// What is being read or sent; nothing is kept that nobody is sent.
type Shelf = BTreeMap<Digest, Weak<OnceCell<Bytes>>>;

#[derive(Debug)]
pub(super) struct Lent {
    shelf: Mutex<Shelf>,
    turns: Arc<Semaphore>,
}

impl Default for Lent {
    fn default() -> Self {
        Self { shelf: Mutex::default(), turns: Arc::new(Semaphore::new(SENT_AT_ONCE)) }
    }
}

/// An artifact for one receiver; the next one's turn comes when it is dropped.
#[derive(Debug)]
pub struct Loan {
    pub bytes: Bytes,
    /// Keeps the bytes on the shelf for those that come meanwhile.
    _cell: Arc<OnceCell<Bytes>>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Loan {
    /// The bytes in pieces; the turn ends with the last of them.
    pub fn pieces(self) -> impl Iterator<Item = Bytes> + Send + 'static {
        let pieces: Vec<_> = pieces(&self.bytes).collect();
        pieces.into_iter().inspect(move |_| {
            let _until_the_last = &self;
        })
    }
}

impl Lent {
    /// Waits for a turn, then for `read`, unless somebody has the bytes already.
    pub(super) async fn lend(
        &self,
        digest: &Digest,
        read: impl Future<Output = Result<Bytes, Fault>>,
    ) -> Result<Loan, Fault> {
        // Nobody closes the semaphore.
        let turn = self.turns.clone().acquire_owned().await.ok();
        let cell = {
            let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
            let known = shelf.get(digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let new = Arc::default();
                shelf.retain(|_, cell| cell.strong_count() > 0);
                shelf.insert(*digest, Arc::downgrade(&new));
                new
            })
        };
        let bytes = cell.get_or_try_init(|| read).await?.clone();
        Ok(Loan { bytes, _cell: cell, _turn: turn })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_are_lent_what_is_read_once_and_nothing_is_kept() {
        let (lent, reads) = (Lent::default(), AtomicUsize::new(0));
        let digest = Digest::of(b"a");
        let read = || async {
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Bytes::from(vec![7; 100_000]))
        };
        let loans = futures_util::future::try_join_all((0..SENT_AT_ONCE).map(|_| lent.lend(&digest, read())));
        let loans = loans.await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        let turn = tokio::time::timeout(std::time::Duration::from_millis(20), lent.lend(&digest, read()));
        assert!(turn.await.is_err(), "one more than may be sent at once");
        let whole: Vec<u8> = loans.into_iter().next().unwrap().pieces().flatten().collect();
        assert_eq!(whole, [7; 100_000]);
        lent.lend(&digest, read()).await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 2, "all were given back");
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_tried_again() {
        let (lent, digest) = (Lent::default(), Digest::of(b"a"));
        let failed = lent.lend(&digest, async { Err(Fault::new("ARTIFACT_STORE", "no")) }).await;
        assert_eq!(failed.unwrap_err().code, "ARTIFACT_STORE");
        assert_eq!(lent.lend(&digest, async { Ok(Bytes::from_static(b"x")) }).await.unwrap().bytes, "x");
    }
}
