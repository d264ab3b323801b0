//! Looking at topics without taking part.
#![expect(unsafe_code, reason = "the whole file is calls into the library")]

use std::ffi::{CStr, c_char};
use std::{io, ptr};

use crate::error::{Error, check};
use crate::sys;
use crate::topic::{TopicInfo, runtime_directory};

/// Looks at one topic. No participant: nobody sees it and nothing is changed.
pub struct Inspector(*mut sys::Inspector);

// SAFETY: shm.h: handles may be used from several threads at once.
unsafe impl Send for Inspector {}

/// Numbers of a topic that move, as they were at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// Living publishers.
    pub publishers: u32,
    /// Living subscribers.
    pub subscribers: u32,
    /// Sequence of the newest frame; 0: none yet.
    pub head: u64,
    /// Slots that hold a frame which somebody leases.
    pub slots_leased: u32,
}

/// What became of the frames of a topic, and who has part in it, as it was at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicUse {
    /// Frames that the living subscribers lost, added up. It falls when one of them leaves.
    pub lost: u64,
    /// Leases of the living: a frame that three hold counts three times.
    pub leases: u64,
    /// Living responders.
    pub responders: u32,
    /// `CLOCK_MONOTONIC` of the newest frame that is still in its slot, in nanoseconds; `None`: there is none.
    pub published_ns: Option<u64>,
}

/// Somebody who takes part in a topic, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// What it calls itself; by default its program.
    pub name: String,
    /// Its process.
    pub pid: i32,
    /// `publisher`, `subscriber`, `caller` or `responder`.
    pub role: &'static str,
    /// Of a subscriber: `latest`, `queue`, `reliable` or `group`.
    pub policy: Option<&'static str>,
    /// False: it died, and holds what it held until somebody tidies up.
    pub alive: bool,
    /// Frames that it published or took.
    pub frames: u64,
    /// Frames that it lost: a subscriber that was too slow.
    pub lost: u64,
    /// Frames that are newer than the last one that it took.
    pub lag: u64,
    /// Slots that it fills, or frames that it holds.
    pub holds: u32,
    /// `CLOCK_MONOTONIC` of the oldest frame that it holds, in nanoseconds.
    pub oldest_ns: Option<u64>,
    /// `CLOCK_MONOTONIC` of the oldest frame that is still in its slot and that it has not taken, in nanoseconds: since then it
    /// is behind, or for longer.
    pub behind_ns: Option<u64>,
}

impl Inspector {
    /// Opens the control file of a topic, read-only.
    ///
    /// # Errors
    ///
    /// `is_topic_not_found`, `is_segment_incompatible`, `is_segment_corrupt`, `is_permission_denied`, ...
    pub fn open(name: &str) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: pointer and length of a live string, a place for the handle.
        check(unsafe { sys::fg_inspector_open(name.as_ptr().cast(), name.len(), &raw mut raw) })?;
        Ok(Self(raw))
    }

    /// What the topic is like.
    ///
    /// # Errors
    ///
    /// `is_segment_corrupt`, `is_forked`.
    pub fn info(&self) -> Result<TopicInfo, Error> {
        // SAFETY: the handle is live; places of the right type.
        TopicInfo::read(
            |out| unsafe { sys::fg_inspector_get_info(self.0, out) },
            |out, capacity, count| unsafe {
                sys::fg_inspector_schema(self.0, out, capacity, count)
            },
        )
    }

    /// Who is there, and how far the topic is.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info).
    pub fn stats(&self) -> Result<TopicStats, Error> {
        let mut raw = sys::TopicStats {
            struct_bytes: size_of::<sys::TopicStats>() as u32,
            ..sys::TopicStats::default()
        };
        // SAFETY: the handle is live; a place of the right type.
        check(unsafe { sys::fg_inspector_stats(self.0, &raw mut raw) })?;
        Ok(TopicStats {
            publishers: raw.publishers,
            subscribers: raw.subscribers,
            head: raw.head,
            slots_leased: raw.slots_leased,
        })
    }

    /// What became of its frames. Takes a system call per participant, and memory for all slots while it looks.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info).
    pub fn usage(&self) -> Result<TopicUse, Error> {
        let (participants, slots) = self.rows()?;
        let living = || participants.iter().filter(|one| one.alive != 0);
        let newest = slots
            .iter()
            .filter(|slot| slot.sequence != 0 && slot.published_ns != 0)
            .max_by_key(|slot| slot.sequence);
        Ok(TopicUse {
            lost: living()
                .filter(|one| one.role == sys::ROLE_SUBSCRIBER)
                .fold(0, |sum, one| sum.saturating_add(one.lost)),
            leases: living().map(|one| u64::from(one.leases)).sum(),
            responders: living()
                .filter(|one| one.role == sys::ROLE_RESPONDER)
                .count() as u32,
            published_ns: newest.map(|slot| slot.published_ns),
        })
    }

    /// Who has part in it, and what each one holds. Costs what [`usage`](Self::usage) costs.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info).
    pub fn participants(&self) -> Result<Vec<Participant>, Error> {
        let head = self.stats()?.head;
        let (participants, slots) = self.rows()?;
        Ok(participants
            .iter()
            .map(|one| Participant::of(one, &slots, head))
            .collect())
    }

    fn rows(&self) -> Result<(Vec<sys::Participant>, Vec<sys::Slot>), Error> {
        // SAFETY: the handle is live; pointer, capacity and a place for the count.
        let participants = collect(|out, capacity, count| unsafe {
            sys::fg_inspector_participants(self.0, out, capacity, count)
        })?;
        // SAFETY: as above.
        let slots = collect(|out, capacity, count| unsafe {
            sys::fg_inspector_slots(self.0, out, capacity, count)
        })?;
        Ok((participants, slots))
    }
}

impl Participant {
    fn of(raw: &sys::Participant, slots: &[sys::Slot], head: u64) -> Self {
        let is_subscriber = raw.role == sys::ROLE_SUBSCRIBER;
        let index = raw.index as usize;
        let oldest = |wanted: &dyn Fn(&sys::Slot) -> bool| {
            let frames = slots
                .iter()
                .filter(|slot| slot.sequence != 0 && slot.published_ns != 0);
            frames
                .filter(|slot| wanted(slot))
                .map(|slot| slot.published_ns)
                .min()
        };
        let holds = |slot: &sys::Slot| {
            let word = slot.holders.get(index / 64).copied().unwrap_or(0);
            (word >> (index % 64)) & 1 != 0
        };
        let fills = |slot: &&sys::Slot| slot.state == sys::SLOT_LOANED && slot.owner == raw.index;
        let (lag, held) = if is_subscriber {
            (head.saturating_sub(raw.position), raw.leases)
        } else {
            (0, slots.iter().filter(fills).count() as u32)
        };
        let bytes: Vec<u8> = raw
            .name
            .iter()
            .take(raw.name_bytes as usize)
            .map(|byte| byte.to_ne_bytes()[0])
            .collect();
        Self {
            name: String::from_utf8_lossy(&bytes).into_owned(),
            pid: raw.pid,
            role: match raw.role {
                sys::ROLE_PUBLISHER => "publisher",
                sys::ROLE_SUBSCRIBER => "subscriber",
                sys::ROLE_CALLER => "caller",
                _ => "responder",
            },
            policy: match raw.policy {
                _ if !is_subscriber => None,
                sys::POLICY_LATEST => Some("latest"),
                sys::POLICY_QUEUE => Some("queue"),
                sys::POLICY_RELIABLE => Some("reliable"),
                _ => Some("group"),
            },
            alive: raw.alive != 0,
            frames: raw.received,
            lost: raw.lost,
            lag,
            holds: held,
            oldest_ns: oldest(&holds),
            behind_ns: oldest(&|slot| is_subscriber && slot.sequence > raw.position),
        }
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        // SAFETY: the handle is live and not used afterwards.
        unsafe { sys::fg_inspector_close(self.0) }
    }
}

/// What a call fills in that first says how many there are; what comes in between is left out.
fn collect<T: Copy>(
    fill: impl Fn(*mut T, usize, *mut usize) -> sys::Status,
) -> Result<Vec<T>, Error> {
    let mut count = 0;
    check(fill(ptr::null_mut(), 0, &raw mut count))?;
    let mut found = Vec::with_capacity(count);
    let mut now = 0;
    check(fill(found.as_mut_ptr(), found.capacity(), &raw mut now))?;
    // SAFETY: the library has filled so many, and no more than there is room for.
    unsafe { found.set_len(now.min(found.capacity())) };
    Ok(found)
}

/// Names of all topics in the runtime directory, sorted; none if there is no such directory.
///
/// # Errors
///
/// The directory cannot be read.
pub fn topics() -> io::Result<Vec<String>> {
    let directory = runtime_directory().map_err(io::Error::other)?;
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(topic_of_file(entry?.file_name().as_encoded_bytes()));
    }
    names.sort();
    Ok(names)
}

fn topic_of_file(file: &[u8]) -> Option<String> {
    let mut name = [0 as c_char; sys::TOPIC_NAME_BYTES_MAX + 1];
    // SAFETY: pointer and length of a live slice; a buffer and its length.
    let status = unsafe {
        sys::fg_topic_name_from_file(
            file.as_ptr().cast(),
            file.len(),
            name.as_mut_ptr(),
            name.len(),
        )
    };
    check(status).ok()?;
    // SAFETY: zero-terminated on success.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_str().ok().map(str::to_owned)
}
