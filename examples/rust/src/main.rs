//! Sees each newest picture of `camera/front` where it lies in shared memory, and says how bright it is.
//!
//! cargo run --manifest-path examples/rust/Cargo.toml -- [COUNT]

use std::{env, error::Error, time::Duration};

use framegate_shm::{Subscriber, SubscriberOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let count = env::args().nth(1).map_or(Ok(10), |word| word.parse::<u64>())?;
    let camera = Subscriber::open("camera/front", &SubscriberOptions::default())?;
    for _ in 0..count {
        let Some(frame) = camera.take(Duration::from_secs(10))? else {
            return Err("no picture for 10 seconds".into());
        };
        // A frame is a `&[u8]` that never changes while it lives; its arrays say what the bytes are.
        let arrays = frame.arrays()?;
        let shape = arrays.first().map_or(&[][..], |array| array.shape());
        let sum: u64 = frame.iter().map(|&value| u64::from(value)).sum();
        let mean = sum as f64 / frame.len() as f64;
        println!("frame {}: {shape:?}, mean {mean:.1}", frame.sequence());
    }
    Ok(())
}
