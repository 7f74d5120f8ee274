//! Threads that compute password hashes, with a bounded queue.
//!
//! The threads are few and live as long as the queue. Each reuses one block of memory for argon2. Hashes that need more,
//! such as those of scrypt, free the thread's block first, and their own memory at the end. Only half of the
//! threads compute such hashes at the same time. Together, this limits the memory of a login storm.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use argon2::Block;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

/// Maximum time that a request waits for the computation of its hash to start.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Number of argon2 blocks, of 1 KiB each, that a thread keeps between hashes.
pub(super) const KEPT_BLOCKS: usize = 12 * 1024;

/// Minimum capacity of a thread's memory, in argon2 blocks. glibc returns blocks of more than 32 MiB to the system when
/// they are freed, but keeps smaller ones, and from then on all blocks of the same size, in its heap. Unused capacity
/// occupies no memory.
const MIN_CAPACITY: usize = 33 * 1024;

/// Error if too many requests wait for hashes; a later retry may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being hashed")]
pub struct Overloaded;

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// Queue of the hashing threads, which end when it is dropped.
#[derive(Debug, Clone)]
pub(super) struct HashQueue {
    jobs: SyncSender<Job>,
    large: Arc<Large>,
}

/// Limits on hashes that need more memory than a thread keeps.
#[derive(Debug)]
struct Large {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

/// Memory that a hash needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashSize {
    /// At most the memory that a thread keeps.
    Usual,
    Large,
}

impl HashQueue {
    /// Starts `threads` threads and a queue for `max_waiting` jobs.
    pub(super) fn start(threads: usize, max_waiting: usize) -> Self {
        let (jobs, waiting) = sync_channel(max_waiting);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new()
                .name("password-hash".to_owned())
                .spawn(move || run(&waiting))
                .expect("a process that just started can start a thread");
        }
        let large = Arc::new(Large {
            running: Arc::new(Semaphore::new((threads / 2).max(1))),
            waiting: Semaphore::new(max_waiting),
        });
        Self { jobs, large }
    }

    /// Runs `work` on a hashing thread. Skips it if the returned future is dropped before the work starts.
    ///
    /// # Errors
    /// [`Overloaded`] when the queue is full or the work does not start in time.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        size: HashSize,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let (start, started) = oneshot::channel();
        let (result, computed) = oneshot::channel();
        let begun = async {
            let permit = match size {
                HashSize::Usual => None,
                HashSize::Large => Some(self.large.admit().await?),
            };
            let job = move |memory: &mut Memory| {
                if start.send(()).is_ok() {
                    let output = match size {
                        HashSize::Usual => work(memory),
                        HashSize::Large => {
                            *memory = Memory::default();
                            work(&mut Memory::default())
                        }
                    };
                    drop(permit);
                    let _ = result.send(output);
                }
            };
            self.jobs.try_send(Box::new(job)).map_err(|_| Overloaded)?;
            started.await.map_err(|_| Overloaded)
        };
        timeout(TIMEOUT, begun).await.map_err(|_| Overloaded)??;
        // An error means that the work panicked, which the panic hook has logged.
        computed.await.map_err(|_| Overloaded)
    }
}

impl Large {
    /// Waits for permission to compute a large hash.
    async fn admit(&self) -> Result<OwnedSemaphorePermit, Overloaded> {
        let _waiting = self.waiting.try_acquire().map_err(|_| Overloaded)?;
        let permit = self.running.clone().acquire_owned().await;
        permit.map_err(|_| Overloaded)
    }
}

fn run(waiting: &Mutex<Receiver<Job>>) {
    let mut memory = Memory::default();
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else {
            return;
        };
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
    }
}

/// Memory of a hashing thread.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl Memory {
    /// Returns `count` blocks with arbitrary content.
    pub(super) fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.0.len() < count {
            self.0.reserve_exact(count.max(MIN_CAPACITY) - self.0.len());
            self.0.resize(count, Block::new());
        }
        &mut self.0[..count]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Sender, channel},
    };

    use super::*;

    /// Occupies the only thread of `queue` until the returned sender is used.
    async fn block(queue: &HashQueue) -> Sender<()> {
        let (release, released) = channel::<()>();
        let (started, has_started) = oneshot::channel();
        let job = move |_: &mut Memory| {
            let _ = started.send(());
            let _ = released.recv();
        };
        queue.jobs.try_send(Box::new(job)).unwrap();
        has_started.await.unwrap();
        release
    }

    #[tokio::test]
    async fn a_request_is_rejected_if_too_many_requests_wait() {
        let queue = HashQueue::start(1, 1);
        let release = block(&queue).await;
        queue.jobs.try_send(Box::new(|_| ())).unwrap();
        assert_eq!(queue.compute(HashSize::Usual, |_| 1).await, Err(Overloaded));
        release.send(()).unwrap();
        until_computed(&queue).await;
    }

    /// Waits until the queue has room.
    async fn until_computed(queue: &HashQueue) {
        while queue.compute(HashSize::Usual, |_| ()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn half_of_the_threads_compute_large_hashes() {
        let queue = HashQueue::start(4, 8);
        let running = Arc::new(AtomicUsize::new(0));
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let large = || {
            let (queue, running, released) = (queue.clone(), running.clone(), released.clone());
            tokio::spawn(async move {
                let work = move |_: &mut Memory| {
                    let concurrent = running.fetch_add(1, SeqCst) + 1;
                    released.lock().unwrap().recv().unwrap();
                    running.fetch_sub(1, SeqCst);
                    concurrent
                };
                queue.compute(HashSize::Large, work).await
            })
        };
        let hashes: Vec<_> = (0..6).map(|_| large()).collect();
        while running.load(SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            queue.compute(HashSize::Usual, |_| 7).await,
            Ok(7),
            "others do not wait"
        );
        for _ in 0..6 {
            release.send(()).unwrap();
        }
        for hash in hashes {
            assert!(hash.await.unwrap().unwrap() <= 2);
        }
    }

    #[tokio::test]
    async fn a_large_hash_is_rejected_if_too_many_wait() {
        let queue = HashQueue::start(1, 1);
        let _running = queue.large.admit().await.unwrap();
        let waits = queue.compute(HashSize::Large, |_| ());
        tokio::pin!(waits);
        assert!(timeout(Duration::ZERO, &mut waits).await.is_err());
        assert_eq!(queue.compute(HashSize::Large, |_| ()).await, Err(Overloaded));
    }

    #[tokio::test]
    async fn a_panic_fails_one_request_and_the_thread_continues() {
        let queue = HashQueue::start(1, 8);
        assert_eq!(
            queue.compute(HashSize::Usual, |_| panic!("a defect")).await,
            Err::<(), _>(Overloaded)
        );
        assert_eq!(queue.compute(HashSize::Usual, |_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn work_of_a_dropped_caller_is_skipped() {
        let queue = HashQueue::start(1, 8);
        let release = block(&queue).await;
        let (ran, has_run) = channel();
        let dropped = queue.compute(HashSize::Usual, move |_| ran.send(()));
        assert!(timeout(Duration::ZERO, dropped).await.is_err());
        release.send(()).unwrap();
        assert_eq!(queue.compute(HashSize::Usual, |_| 7).await, Ok(7));
        assert!(has_run.recv().is_err());
    }

    #[tokio::test]
    async fn a_thread_keeps_the_memory_of_usual_hashes_until_a_large_one() {
        let queue = HashQueue::start(1, 8);
        let blocks = async |size, count| {
            let work = move |memory: &mut Memory| {
                let kept = memory.0.len();
                assert_eq!(memory.blocks(count).len(), count);
                kept
            };
            queue.compute(size, work).await.unwrap()
        };
        assert_eq!(blocks(HashSize::Usual, KEPT_BLOCKS).await, 0);
        assert_eq!(blocks(HashSize::Usual, 8).await, KEPT_BLOCKS);
        assert_eq!(blocks(HashSize::Large, KEPT_BLOCKS + 1).await, 0);
        assert_eq!(blocks(HashSize::Usual, 8).await, 0);
    }
}
