//! The threads that make pictures: few, named, with a bounded queue.
//!
//! They are native threads because a picture takes milliseconds, which no event loop has; and few, because the machine's cores belong
//! to the application.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::jpeg::Jpeg;

/// Encoders and decoders of one thread, which keep their memory from picture to picture.
#[derive(Default)]
pub struct Codecs {
    pub(super) jpeg: Jpeg,
}

/// What a thread of the pool does. It must see to it that its askers hear of a panic.
pub(super) type Job = Box<dyn FnOnce(&mut Codecs) + Send>;

/// Threads that make pictures. They end when the pool is dropped, after what they are at.
pub struct Pool {
    shared: Arc<Shared>,
    jobs_max: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    /// There is a job, or none will come.
    changed: Condvar,
    made: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Shared {
    /// Held to put in or take out one job.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut codecs = Codecs::default();
        loop {
            let job = {
                let mut queue = self.queue();
                loop {
                    if let Some(job) = queue.jobs.pop_front() {
                        break job;
                    }
                    if queue.closed {
                        return;
                    }
                    queue = self
                        .changed
                        .wait(queue)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            };
            if catch_unwind(AssertUnwindSafe(|| job(&mut codecs))).is_err() {
                // The panic was printed; what it left behind in the codecs nobody knows.
                codecs = Codecs::default();
            }
        }
    }
}

impl Pool {
    /// Starts `threads` threads, whose signal mask is that of the caller. At most `jobs_max` pictures wait to be made.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(threads: usize, jobs_max: usize) -> io::Result<Self> {
        // Those that were started end when the pool is dropped.
        let pool = Self {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                changed: Condvar::new(),
                made: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            }),
            jobs_max,
        };
        for _ in 0..threads {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new()
                .name("framegate-pics".to_owned())
                .spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Pictures that were made.
    pub fn made(&self) -> u64 {
        // Relaxed: a count.
        self.shared.made.load(Ordering::Relaxed)
    }

    /// Pictures that were not made because too many waited.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    pub(super) fn count_made(&self) {
        self.shared.made.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets a thread do it; false when too many wait already.
    pub(super) fn submit(&self, job: Job) -> bool {
        let mut queue = self.shared.queue();
        if queue.jobs.len() >= self.jobs_max {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.changed.notify_one();
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        // Nobody waits for them: who waits holds the pool.
        queue.jobs.clear();
        drop(queue);
        self.shared.changed.notify_all();
    }
}
