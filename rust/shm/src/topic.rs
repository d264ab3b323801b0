//! Topics: options, an open handle, names.
#![expect(unsafe_code, reason = "the whole file is calls into the library")]

use std::ffi::{CStr, c_char, c_void};
use std::path::PathBuf;
use std::ptr;
use std::time::Duration;

use crate::array::Array;
use crate::error::{Error, check};
use crate::sys;

/// How a topic is made. The defaults are those of the library.
#[derive(Clone, Debug)]
pub struct TopicOptions {
    /// Number of slots, 2 to 4096.
    pub slots: u32,
    /// Payload bytes of a slot.
    pub slot_bytes: u64,
    /// Newest frames that are never reused, 1 to `slots - 1`.
    pub keep: u32,
    /// Publishers and subscribers that can be attached at the same time, 2 to 256.
    pub participants_max: u32,
    /// Bytes of the static metadata area.
    pub metadata_bytes: u32,
    /// Bytes of the mailbox of each participant that has one; 0: neither calls nor controls.
    pub mailbox_bytes: u32,
    /// File mode, `0o600` or `0o660`.
    pub mode: u32,
    /// What every frame consists of; empty: frames are free.
    pub schema: Vec<Array>,
    /// Of payloads, made by every publish and looked at by every take.
    pub checksum: Checksum,
}

/// Checksum of payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// None: nothing is computed.
    #[default]
    None = 0,
    /// CRC-32C, in hardware where the machine has it.
    Crc32c = 1,
    /// XXH3 with 64 bits.
    Xxh3 = 2,
}

impl Checksum {
    fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Crc32c,
            2 => Self::Xxh3,
            _ => Self::None,
        }
    }
}

impl TopicOptions {
    fn to_raw(&self) -> sys::TopicOptions {
        sys::TopicOptions {
            slots: self.slots,
            slot_bytes: self.slot_bytes,
            keep: self.keep,
            participants_max: self.participants_max,
            metadata_bytes: self.metadata_bytes,
            mailbox_bytes: self.mailbox_bytes,
            mode: self.mode,
            checksum: self.checksum as u32,
            // More than the library takes stays more than it takes.
            schema_count: u32::try_from(self.schema.len()).unwrap_or(u32::MAX),
            schema: if self.schema.is_empty() {
                ptr::null()
            } else {
                self.schema.as_ptr().cast()
            },
            ..default_options()
        }
    }
}

fn default_options() -> sys::TopicOptions {
    let mut raw = std::mem::MaybeUninit::uninit();
    // SAFETY: the library writes every field.
    unsafe {
        sys::fg_topic_options_init(raw.as_mut_ptr());
        raw.assume_init()
    }
}

impl Default for TopicOptions {
    fn default() -> Self {
        let raw = default_options();
        Self {
            slots: raw.slots,
            slot_bytes: raw.slot_bytes,
            keep: raw.keep,
            participants_max: raw.participants_max,
            metadata_bytes: raw.metadata_bytes,
            mailbox_bytes: raw.mailbox_bytes,
            mode: raw.mode,
            schema: Vec::new(),
            checksum: Checksum::from_code(raw.checksum),
        }
    }
}

/// What an open topic is like.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// Number of slots.
    pub slots: u32,
    /// Payload bytes of a slot.
    pub slot_bytes: u64,
    /// Newest frames that are never reused.
    pub keep: u32,
    /// Publishers and subscribers that can be attached at the same time.
    pub participants_max: u32,
    /// What every frame consists of; empty: frames are free.
    pub schema: Vec<Array>,
    /// Of payloads.
    pub checksum: Checksum,
    /// Random, new with every creation: tells one life of a name from the next.
    pub identity: [u64; 2],
    /// Of its files, without mailboxes.
    pub file_bytes: u64,
}

impl TopicInfo {
    /// Asks twice, for the numbers and for the schema.
    pub(crate) fn read(
        info: impl FnOnce(*mut sys::TopicInfo) -> sys::Status,
        schema: impl FnOnce(*mut sys::Array, usize, *mut usize) -> sys::Status,
    ) -> Result<Self, Error> {
        let mut raw = sys::TopicInfo {
            struct_bytes: size_of::<sys::TopicInfo>() as u32,
            ..sys::TopicInfo::default()
        };
        let mut arrays = [Array::new("", crate::Dtype::Bool, &[]); sys::ARRAYS_MAX];
        let mut count = 0;
        check(info(&raw mut raw))?;
        // `Array` is a transparent `sys::Array`.
        check(schema(
            arrays.as_mut_ptr().cast(),
            arrays.len(),
            &raw mut count,
        ))?;
        Ok(Self {
            slots: raw.slots,
            slot_bytes: raw.slot_bytes,
            keep: raw.keep,
            participants_max: raw.participants_max,
            schema: arrays[..count.min(arrays.len())].to_vec(),
            checksum: Checksum::from_code(raw.checksum),
            identity: raw.identity,
            file_bytes: raw.control_bytes.saturating_add(raw.data_bytes),
        })
    }
}

/// An open topic. Freed by `Drop`.
pub(crate) struct Topic(*mut sys::Topic);

// SAFETY: shm.h: handles may be used from several threads at once; the reference count is the library's.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Topic {
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: pointer and length of a live string, a place for the handle.
        check(unsafe { sys::fg_topic_open(name.as_ptr().cast(), name.len(), &raw mut raw) })?;
        Ok(Self(raw))
    }

    pub(crate) fn create(name: &str, options: &TopicOptions) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: as in `open`; the options point to `options.schema`, which outlives the call.
        check(unsafe {
            sys::fg_topic_create(
                name.as_ptr().cast(),
                name.len(),
                &options.to_raw(),
                &raw mut raw,
            )
        })?;
        Ok(Self(raw))
    }

    pub(crate) fn create_or_open(name: &str, options: &TopicOptions) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: as in `create`; NULL for `created` is allowed.
        check(unsafe {
            sys::fg_topic_create_or_open(
                name.as_ptr().cast(),
                name.len(),
                &options.to_raw(),
                &raw mut raw,
                ptr::null_mut(),
            )
        })?;
        Ok(Self(raw))
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::Topic {
        self.0
    }

    pub(crate) fn metadata_bytes(&self) -> Result<usize, Error> {
        let mut raw = sys::TopicInfo {
            struct_bytes: size_of::<sys::TopicInfo>() as u32,
            ..sys::TopicInfo::default()
        };
        // SAFETY: the handle is live; a place of the right type.
        check(unsafe { sys::fg_topic_get_info(self.0, &raw mut raw) })?;
        Ok(raw.metadata_bytes as usize)
    }

    pub(crate) fn info(&self) -> Result<TopicInfo, Error> {
        // SAFETY: the handle is live; places of the right type.
        TopicInfo::read(
            |out| unsafe { sys::fg_topic_get_info(self.0, out) },
            |out, capacity, count| unsafe { sys::fg_topic_schema(self.0, out, capacity, count) },
        )
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle is live and not used afterwards; participants keep their own reference.
        unsafe { sys::fg_topic_close(self.0) }
    }
}

/// Goes on in another number or size of slots while publishers and subscribers of all processes keep
/// running; `None` keeps what it is.
///
/// # Errors
/// No such topic, numbers outside their limits, a schema that does not fit, no space: nothing
/// changed.
pub fn resize(name: &str, slots: Option<u32>, slot_bytes: Option<u64>) -> Result<(), Error> {
    let topic = Topic::open(name)?;
    let options = sys::ResizeOptions {
        struct_bytes: size_of::<sys::ResizeOptions>() as u32,
        slots: slots.unwrap_or(0),
        slot_bytes: slot_bytes.unwrap_or(0),
        keep: 0,
        reserved: 0,
    };
    // SAFETY: a live handle and live options.
    check(unsafe { sys::fg_topic_resize(topic.as_ptr(), &raw const options) })
}

/// What [`gc`] removed, or would have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Name and bytes of each topic that nobody uses.
    pub topics: Vec<(String, u64)>,
    /// Number of other files, of processes that died.
    pub orphans: u32,
}

/// Removes topics that no process has open and that nobody opened or left for `older_than`, and files
/// that dead processes left; never a living topic. With `dry_run` it only looks.
///
/// # Errors
/// The runtime directory is not safe to use, or belongs to somebody else.
pub fn gc(older_than: Duration, dry_run: bool) -> Result<Garbage, Error> {
    unsafe extern "C" fn visit(context: *mut c_void, name: *const c_char, bytes: u64) {
        // SAFETY: the vector below, which nobody else uses meanwhile; a zero-terminated name.
        let (topics, name) = unsafe {
            (
                &mut *context.cast::<Vec<(String, u64)>>(),
                CStr::from_ptr(name),
            )
        };
        topics.push((name.to_string_lossy().into_owned(), bytes));
    }
    let mut garbage = Garbage::default();
    let topics: *mut Vec<(String, u64)> = &raw mut garbage.topics;
    // SAFETY: the callback gets the vector while the call runs; a place for the number.
    check(unsafe {
        sys::fg_collect_stale_topics(
            i64::try_from(older_than.as_nanos()).unwrap_or(i64::MAX),
            i32::from(dry_run),
            Some(visit),
            topics.cast(),
            &raw mut garbage.orphans,
        )
    })?;
    Ok(garbage)
}

/// Removes a topic's files. Open handles go on undisturbed among themselves.
///
/// # Errors
///
/// `is_topic_not_found` if there is none, `is_bad_topic_name`, `is_permission_denied`.
pub fn unlink(name: &str) -> Result<(), Error> {
    // SAFETY: pointer and length of a live string.
    check(unsafe { sys::fg_topic_unlink(name.as_ptr().cast(), name.len()) })
}

/// Checks a topic name: 1 to 8 segments of `[A-Za-z0-9_][A-Za-z0-9_.-]*` joined by `/`, at most 128 bytes, no `..`.
///
/// # Errors
///
/// `is_bad_topic_name`; the text says what is wrong.
pub fn check_topic_name(name: &str) -> Result<(), Error> {
    // SAFETY: pointer and length of a live string.
    check(unsafe { sys::fg_topic_name_check(name.as_ptr().cast(), name.len()) })
}

/// Where topics live: `$FRAMEGATE_RUNTIME_DIR`, else `/dev/shm/framegate-<uid>`. It may not exist yet.
///
/// # Errors
///
/// `is_invalid_argument` if the path has 4096 bytes or more.
pub fn runtime_directory() -> Result<PathBuf, Error> {
    let mut path: [c_char; 4096] = [0; 4096];
    // SAFETY: a buffer and its length.
    check(unsafe { sys::fg_runtime_directory(path.as_mut_ptr(), path.len()) })?;
    // SAFETY: zero-terminated on success.
    let text = unsafe { CStr::from_ptr(path.as_ptr()) };
    Ok(path_of(text.to_bytes()))
}

/// The path that the library has written.
#[cfg(unix)]
fn path_of(text: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(text))
}

/// The same on Windows, where the library's texts are UTF-8.
#[cfg(windows)]
fn path_of(text: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(text).into_owned())
}

/// Path of the control file of a topic, which is there as long as the topic is. Another file of that name is another life of
/// it.
///
/// # Errors
///
/// `is_bad_topic_name`, and as [`runtime_directory`].
pub fn control_file(name: &str) -> Result<PathBuf, Error> {
    let mut stem: [c_char; 512] = [0; 512];
    // SAFETY: pointer and length of a live string; a buffer and its length.
    check(unsafe {
        sys::fg_topic_file_name(
            name.as_ptr().cast(),
            name.len(),
            stem.as_mut_ptr(),
            stem.len(),
        )
    })?;
    // SAFETY: zero-terminated on success.
    let stem = unsafe { CStr::from_ptr(stem.as_ptr()) };
    Ok(runtime_directory()?.join(format!("{}.ctl", stem.to_string_lossy())))
}

/// The library's time-outs: nanoseconds, negative for ever (also what does not fit: 292 years).
pub(crate) fn timeout_ns(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_nanos()).unwrap_or(-1)
}

const _: () = assert!(sys::TOPIC_NAME_BYTES_MAX == 128);
