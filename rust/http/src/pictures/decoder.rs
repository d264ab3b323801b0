//! Pictures that come in, decoded on the threads of a pool.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Coding, PictureError, Pixels, Pool, decode};

/// Decodes pictures, none of more than so many pixels. Cheap to clone.
#[derive(Clone)]
pub struct Decoder {
    pool: Arc<Pool>,
    pixels_max: u64,
}

impl Decoder {
    /// On the threads of that pool.
    pub fn new(pool: Arc<Pool>, pixels_max: u64) -> Self {
        Self { pool, pixels_max }
    }

    /// The pixels of `file`.
    ///
    /// # Errors
    /// See the questions of [`PictureError`].
    ///
    /// # Cancel safety
    /// A picture whose asker is gone is not begun.
    pub async fn decode(&self, coding: Coding, file: Vec<u8>) -> Result<Pixels, PictureError> {
        let (tell, told) = oneshot::channel();
        let pixels_max = self.pixels_max;
        let is_taken = self.pool.submit(Box::new(move |codecs| {
            if !tell.is_closed() {
                let _ = tell.send(decode(codecs, coding, &file, pixels_max));
            }
        }));
        if !is_taken {
            return Err(PictureError::busy(
                "too many pictures wait to be decoded: send fewer, or later",
            ));
        }
        // A panic of the thread, which was printed.
        told.await
            .unwrap_or_else(|_| Err(PictureError::internal("the picture could not be decoded")))
    }
}
