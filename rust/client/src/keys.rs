//! Keys that mask frames (RFC 6455, section 5.3): new ones for each frame, which nobody who sees the others can foretell.

use aws_lc_rs::rand;

/// Keys that are fetched at a time: the generator costs as much for many as for one.
const BATCH_BYTES: usize = 512;

/// A supply of masking keys from the generator of the cryptography that TLS uses as well.
pub(crate) struct Keys {
    bytes: [u8; BATCH_BYTES],
    used: usize,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; BATCH_BYTES],
            used: BATCH_BYTES,
        }
    }

    /// The next key.
    pub(crate) fn next(&mut self) -> [u8; 4] {
        if self.used == BATCH_BYTES {
            rand::fill(&mut self.bytes).expect("the generator of random numbers works");
            self.used = 0;
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.bytes[self.used..self.used + 4]);
        self.used += 4;
        key
    }
}

/// Random bytes for the key of a handshake.
pub(crate) fn nonce() -> [u8; 16] {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("the generator of random numbers works");
    bytes
}

/// A number from 0 to 1, 1 excluded.
pub(crate) fn fraction() -> f64 {
    let mut bytes = [0; 4];
    rand::fill(&mut bytes).expect("the generator of random numbers works");
    f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Keys;

    #[test]
    fn keys_are_new_beyond_a_batch() {
        let mut keys = Keys::new();
        let seen: HashSet<_> = (0..1000).map(|_| keys.next()).collect();
        // Two of a thousand are alike once in ten thousand runs, three pairs never.
        assert!(seen.len() > 997, "{}", seen.len());
    }
}
