//! Limits of all workers: settings and memory for [`framegate_http::edge::Limits`].
//!
//! The memory lies behind the rows of the runtime segment ([`crate::stats`]); `python/framegate/limits_area.py` sizes it and
//! clears what a dead worker held. A server without a segment, or a thread of somebody's process, counts for itself.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use framegate_http::edge::{Limits, Rate, SharedWords};
use http::HeaderName;
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::settings::seconds;
use crate::stats::Row;

struct BehindRows(Arc<Row>);

impl SharedWords for BehindRows {
    fn words(&self) -> &[AtomicU64] {
        self.0.behind_rows()
    }
}

/// What the configuration limits, if anything.
pub(crate) fn limits(
    config: &Bound<'_, PyAny>,
    row: Option<&Arc<Row>>,
) -> PyResult<Option<Limits>> {
    let client_rate: Option<(u64, u64, u64)> = config.getattr("rate_limit_terms")?.extract()?;
    let key_rate: Option<(String, (u64, u64, u64))> =
        config.getattr("rate_limit_key_terms")?.extract()?;
    let connections_max: Option<u64> = config.getattr("limit_connections")?.extract()?;
    let requests_max: Option<u64> = config.getattr("limit_requests")?.extract()?;
    if client_rate.is_none()
        && key_rate.is_none()
        && connections_max.is_none()
        && requests_max.is_none()
    {
        return Ok(None);
    }
    let entries: usize = config.getattr("rate_limit_entries")?.extract()?;
    let (place, rows, memory): (_, _, Arc<dyn SharedWords>) = match row {
        Some(row) if row.behind_rows().len() >= Limits::words(row.place().1, entries) => {
            let (place, rows) = row.place();
            (place, rows, Arc::new(BehindRows(row.clone())))
        }
        _ => (0, 1, Arc::new(own_words(entries))),
    };
    let rate = |(quota, window_seconds, burst)| Rate {
        quota,
        window_seconds,
        burst,
    };
    let key_rate = key_rate
        .map(|(name, terms)| {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| PyValueError::new_err(format!("{name:?} is no header")))?;
            PyResult::Ok((name, rate(terms)))
        })
        .transpose()?;
    Ok(Some(Limits {
        memory,
        row: place,
        rows,
        now_ns: crate::os::monotonic_ns,
        connections_max,
        requests_max,
        waiting_max: config.getattr("limit_queue")?.extract()?,
        wait: seconds(config, "limit_queue_timeout")?,
        client_rate: client_rate.map(rate),
        key_rate,
        entries,
        exempt_paths: config.getattr("limit_exempt_paths")?.extract()?,
    }))
}

/// Memory that nobody shares, with a seed.
fn own_words(entries: usize) -> Vec<AtomicU64> {
    use std::hash::{BuildHasher, RandomState};

    let words: Vec<_> = (0..Limits::words(1, entries))
        .map(|_| AtomicU64::new(0))
        .collect();
    for word in &words[..8] {
        // The keys of the standard library's hash tables are of the system's generator.
        word.store(RandomState::new().hash_one(0_u64), Ordering::Relaxed);
    }
    words
}
