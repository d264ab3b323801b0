//! What was made of the newest frame of a topic, for all who look at it.
//!
//! Viewers of a live topic ask for the same frame in the same setting at nearly the same time. The first one starts the job; those that
//! come while it runs wait for it, and those that come later find it done. When somebody asks for a newer frame, what was made of
//! the one before is forgotten (who waits for it still gets it). Somebody who is late and asks for an older frame gets it made for
//! himself, so a slow viewer takes nothing from the others.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{PictureError, Pool, Setting, Source, make};

/// Settings in which one frame is made. Each costs an encoding per frame, and a client names them.
const SETTINGS_MAX: usize = 16;

/// Which frame of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameId {
    /// Differs when the topic was made anew, and its frames are counted from 1 again.
    pub epoch: u64,
    /// The frame's number.
    pub sequence: u64,
}

/// The pictures of one topic.
pub struct Cache {
    pool: Arc<Pool>,
    pixels_max: u64,
    newest: Mutex<Newest>,
}

#[derive(Default)]
struct Newest {
    frame: Option<FrameId>,
    pictures: Vec<(Setting, Arc<Picture>)>,
}

/// One picture that is made, or was.
#[derive(Default)]
struct Picture {
    made: OnceLock<Result<Bytes, PictureError>>,
    /// It has been.
    ready: Notify,
}

impl Picture {
    fn finish(&self, result: Result<Bytes, PictureError>) {
        // The first result counts: a guard sets another one after it.
        let _second = self.made.set(result);
        self.ready.notify_waiters();
    }

    async fn wait(&self) -> Result<Bytes, PictureError> {
        loop {
            // Made before it is looked whether there is something to wait for, or the call in between is missed.
            let ready = self.ready.notified();
            if let Some(made) = self.made.get() {
                return made.clone();
            }
            ready.await;
        }
    }
}

/// Tells those who wait when the job ends without a result: it was dropped with the queue, or it panicked.
struct Unfinished(std::sync::Weak<Picture>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(picture) = self.0.upgrade() {
            picture.finish(Err(PictureError::internal("the picture could not be made")));
        }
    }
}

impl Cache {
    /// An empty cache, whose pictures the pool makes. None has more than `pixels_max` pixels.
    pub fn new(pool: Arc<Pool>, pixels_max: u64) -> Self {
        Self {
            pool,
            pixels_max,
            newest: Mutex::default(),
        }
    }

    /// Held to look at most [`SETTINGS_MAX`] settings over.
    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The picture of frame `id`, whose content is `source`, as `setting` asks for it. May be awaited on any thread.
    ///
    /// # Errors
    /// See the questions of [`PictureError`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up the waiting only. A job whose frame is no longer the newest is not begun when nobody waits for it.
    pub fn picture(
        &self,
        id: FrameId,
        source: &Source,
        setting: Setting,
    ) -> impl Future<Output = Result<Bytes, PictureError>> + Send + use<> {
        let there = match source.as_is(&setting) {
            Some(bytes) => Err(Ok(bytes.clone())),
            None => self.find_or_start(id, source, setting).map_err(Err),
        };
        async move {
            match there {
                Ok(picture) => picture.wait().await,
                Err(known) => known,
            }
        }
    }

    fn find_or_start(
        &self,
        id: FrameId,
        source: &Source,
        setting: Setting,
    ) -> Result<Arc<Picture>, PictureError> {
        let mut newest = self.newest();
        let is_late = newest
            .frame
            .is_some_and(|known| known.epoch == id.epoch && known.sequence > id.sequence);
        if !is_late && newest.frame != Some(id) {
            newest.frame = Some(id);
            newest.pictures.clear();
        }
        if !is_late {
            let known = newest.pictures.iter().find(|(known, _)| *known == setting);
            if let Some((_, picture)) = known {
                return Ok(Arc::clone(picture));
            }
            if newest.pictures.len() >= SETTINGS_MAX {
                return Err(PictureError::busy(
                    "this frame is already made in 16 other sizes and qualities: ask for one of theirs, or later",
                ));
            }
        }
        let picture = Arc::new(Picture::default());
        if !self.start(&picture, source.clone(), setting) {
            return Err(PictureError::busy(
                "too many pictures wait to be made: ask for fewer, or later",
            ));
        }
        if !is_late {
            newest.pictures.push((setting, Arc::clone(&picture)));
        }
        Ok(picture)
    }

    fn start(&self, picture: &Arc<Picture>, source: Source, setting: Setting) -> bool {
        let (asked, pool) = (Arc::downgrade(picture), Arc::downgrade(&self.pool));
        let pixels_max = self.pixels_max;
        let unfinished = Unfinished(asked.clone());
        self.pool.submit(Box::new(move |codecs| {
            let _unfinished = unfinished;
            let Some(picture) = asked.upgrade() else {
                return; // nobody waits any more
            };
            let made = make(codecs, &source, &setting, pixels_max);
            // The frame's slot is free before anybody is told.
            drop(source);
            if let Some(pool) = pool.upgrade() {
                pool.count_made();
            }
            picture.finish(made);
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use bytes::Bytes;

    use super::{Cache, FrameId, SETTINGS_MAX};
    use crate::pictures::{Coding, PixelFormat, Pixels, Pool, Setting, Source};

    const PIXELS_MAX: u64 = 1 << 20;

    fn grey(value: u8) -> Source {
        let data = Bytes::from(vec![value; 64 * 48]);
        Source::Pixels(Pixels::new(PixelFormat::Mono8, 64, 48, data).unwrap())
    }

    fn frame(sequence: u64) -> FrameId {
        FrameId { epoch: 1, sequence }
    }

    fn jpeg(query: &str) -> Setting {
        Setting::from_query(Coding::Jpeg, query).unwrap()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all_on().block_on(future)
    }

    trait Build {
        fn enable_all_on(self) -> tokio::runtime::Runtime;
    }

    impl Build for tokio::runtime::Builder {
        fn enable_all_on(mut self) -> tokio::runtime::Runtime {
            self.enable_all().build().unwrap()
        }
    }

    /// Holds the only thread of a pool until it is dropped.
    fn held(pool: &Pool) -> mpsc::Sender<()> {
        let (hold, held) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel::<()>();
        assert!(pool.submit(Box::new(move |_| {
            begun.send(()).unwrap();
            let _let_go = held.recv();
        })));
        begins.recv().unwrap();
        hold
    }

    #[test]
    fn frame_is_made_once_for_each_setting_however_many_ask() {
        let pool = Arc::new(Pool::start(1, 8).unwrap());
        let cache = Cache::new(Arc::clone(&pool), PIXELS_MAX);
        let hold = held(&pool);
        // While it is not begun, and when it is done: both find it.
        let early: Vec<_> = (0..100)
            .map(|_| cache.picture(frame(1), &grey(9), jpeg("")))
            .collect();
        let small = cache.picture(frame(1), &grey(9), jpeg("width=32"));
        drop(hold);
        block_on(async {
            let first = early.into_iter().map(|it| async { it.await.unwrap() });
            let mut addresses = Vec::new();
            for made in first {
                addresses.push(made.await.as_ptr());
            }
            let late = cache.picture(frame(1), &grey(9), jpeg("")).await.unwrap();
            assert!(addresses.iter().all(|&address| address == late.as_ptr()));
            assert_ne!(small.await.unwrap(), late);
            assert_eq!(pool.made(), 2);
            cache.picture(frame(2), &grey(9), jpeg("")).await.unwrap();
            assert_eq!(pool.made(), 3);
        });
    }

    #[test]
    fn asking_for_an_older_frame_takes_nothing_from_the_others() {
        let pool = Arc::new(Pool::start(1, 8).unwrap());
        let cache = Cache::new(Arc::clone(&pool), PIXELS_MAX);
        block_on(async {
            let new = cache.picture(frame(2), &grey(0), jpeg("")).await.unwrap();
            let old = cache.picture(frame(1), &grey(200), jpeg("")).await.unwrap();
            assert_ne!(new, old);
            let again = cache.picture(frame(2), &grey(0), jpeg("")).await.unwrap();
            assert_eq!(again.as_ptr(), new.as_ptr());
            assert_eq!(pool.made(), 2);
            // A topic that was made anew begins at 1 again, and that is newer.
            let anew = FrameId {
                epoch: 2,
                sequence: 1,
            };
            let made = cache.picture(anew, &grey(200), jpeg("")).await.unwrap();
            let again = cache.picture(anew, &grey(200), jpeg("")).await.unwrap();
            assert_eq!(again.as_ptr(), made.as_ptr());
        });
    }

    #[test]
    fn full_queue_refuses_and_gives_the_frame_back() {
        let pool = Arc::new(Pool::start(1, 1).unwrap());
        let cache = Cache::new(Arc::clone(&pool), PIXELS_MAX);
        let hold = held(&pool);
        let waits = cache.picture(frame(1), &grey(1), jpeg(""));
        let refused = block_on(cache.picture(frame(1), &grey(1), jpeg("width=8")));
        assert!(refused.unwrap_err().is_busy());
        assert_eq!(pool.refused(), 1);
        drop(hold);
        block_on(waits).unwrap();
        block_on(cache.picture(frame(1), &grey(1), jpeg("width=8"))).unwrap();
    }

    #[test]
    fn settings_of_one_frame_are_bounded() {
        let pool = Arc::new(Pool::start(1, 100).unwrap());
        let cache = Cache::new(Arc::clone(&pool), PIXELS_MAX);
        let ask = |sequence, width: usize| {
            let setting = jpeg(&format!("width={width}"));
            block_on(cache.picture(frame(sequence), &grey(1), setting))
        };
        for width in 1..=SETTINGS_MAX {
            ask(1, width).unwrap();
        }
        assert!(ask(1, SETTINGS_MAX + 1).unwrap_err().is_busy());
        ask(1, 1).unwrap();
        ask(2, SETTINGS_MAX + 1).unwrap();
    }

    #[test]
    fn job_of_a_forgotten_frame_that_nobody_waits_for_is_not_done() {
        let pool = Arc::new(Pool::start(1, 8).unwrap());
        let cache = Cache::new(Arc::clone(&pool), PIXELS_MAX);
        let hold = held(&pool);
        drop(cache.picture(frame(1), &grey(1), jpeg("")));
        let wanted = cache.picture(frame(2), &grey(2), jpeg(""));
        drop(hold);
        block_on(wanted).unwrap();
        assert_eq!(pool.made(), 1);
    }

    #[test]
    fn who_waits_hears_of_a_panic_and_the_thread_goes_on() {
        let pool = Arc::new(Pool::start(1, 8).unwrap());
        let cache = Cache::new(Arc::clone(&pool), PIXELS_MAX);
        let picture = Arc::new(super::Picture::default());
        let unfinished = super::Unfinished(Arc::downgrade(&picture));
        assert!(pool.submit(Box::new(move |_| {
            let _unfinished = unfinished;
            panic!("this panic belongs to the test");
        })));
        assert!(block_on(picture.wait()).is_err());
        block_on(cache.picture(frame(1), &grey(1), jpeg(""))).unwrap();
    }

    #[test]
    fn what_a_viewer_wants_as_it_is_needs_no_thread() {
        let pool = Arc::new(Pool::start(0, 0).unwrap());
        let cache = Cache::new(Arc::clone(&pool), PIXELS_MAX);
        let bytes = Bytes::from_static(b"any");
        let source = Source::Coded(Coding::Jpeg, bytes.clone());
        let got = block_on(cache.picture(frame(1), &source, jpeg("quality=10"))).unwrap();
        assert_eq!(got.as_ptr(), bytes.as_ptr());
        assert!(block_on(cache.picture(frame(1), &source, jpeg("width=10"))).is_err());
    }
}
