//! The declarations of `shm.h`, one to one. The tests at the end compare sizes and status codes with those that the
//! library was compiled with.
#![expect(unsafe_code, reason = "the whole file is foreign declarations")]

use std::ffi::{c_char, c_int, c_void};

pub(crate) const TOPIC_NAME_BYTES_MAX: usize = 128;
pub(crate) const ARRAYS_MAX: usize = 16;
pub(crate) const ARRAY_DIMENSIONS_MAX: usize = 8;
pub(crate) const ARRAY_NAME_BYTES_MAX: usize = 36;
pub(crate) const LETTER_BYTES_MAX: usize = 192;
pub(crate) const VALUES_MAX: usize = 128;
pub(crate) const PARTICIPANTS_MAX: usize = 256;
pub(crate) const PARTICIPANT_NAME_BYTES_MAX: usize = 32;
pub(crate) const GROUP_NAME_BYTES_MAX: usize = 32;
pub(crate) const ROLE_PUBLISHER: u32 = 1;
pub(crate) const ROLE_SUBSCRIBER: u32 = 2;
pub(crate) const ROLE_CALLER: u32 = 3;
pub(crate) const ROLE_RESPONDER: u32 = 4;
pub(crate) const POLICY_LATEST: u32 = 1;
pub(crate) const POLICY_QUEUE: u32 = 2;
pub(crate) const POLICY_RELIABLE: u32 = 3;
pub(crate) const SLOT_LOANED: u32 = 1;
pub(crate) const DIMENSION_ANY: u64 = u64::MAX;

pub(crate) type Status = i32;
pub(crate) const OK: Status = 0;

#[repr(C)]
pub(crate) struct Topic {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Publisher {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Subscriber {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Inspector {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Caller {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Responder {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) name: [u8; ARRAY_NAME_BYTES_MAX],
    pub(crate) name_bytes: u8,
    pub(crate) dtype: u8,
    pub(crate) dimension_count: u8,
    pub(crate) flags: u8,
    pub(crate) shape: [u64; ARRAY_DIMENSIONS_MAX],
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) record_bytes: u32,
    pub(crate) record_dimensions: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct TopicOptions {
    pub(crate) struct_bytes: u32,
    pub(crate) slots: u32,
    pub(crate) slot_bytes: u64,
    pub(crate) keep: u32,
    pub(crate) participants_max: u32,
    pub(crate) metadata_bytes: u32,
    pub(crate) mailbox_bytes: u32,
    pub(crate) mode: u32,
    pub(crate) schema_count: u32,
    pub(crate) schema: *const Array,
    pub(crate) checksum: u32,
    pub(crate) metadata_count: u32,
    pub(crate) metadata: *const Metadata,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Metadata {
    pub(crate) array: u32,
    pub(crate) value_count: u32,
    pub(crate) values: *const Value,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct TopicInfo {
    pub(crate) struct_bytes: u32,
    pub(crate) slots: u32,
    pub(crate) slot_bytes: u64,
    pub(crate) keep: u32,
    pub(crate) participants_max: u32,
    pub(crate) metadata_bytes: u32,
    pub(crate) mailbox_bytes: u32,
    pub(crate) schema_count: u32,
    pub(crate) mode: u32,
    pub(crate) identity: [u64; 2],
    pub(crate) created_unix_ns: u64,
    pub(crate) control_bytes: u64,
    pub(crate) data_bytes: u64,
    pub(crate) checksum: u32,
    pub(crate) reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct TopicStats {
    pub(crate) struct_bytes: u32,
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    pub(crate) dead: u32,
    pub(crate) head: u64,
    pub(crate) slots_free: u32,
    pub(crate) slots_loaned: u32,
    pub(crate) slots_published: u32,
    pub(crate) slots_leased: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Participant {
    pub(crate) index: u32,
    pub(crate) role: u32,
    pub(crate) policy: u32,
    pub(crate) alive: u32,
    pub(crate) pid: i32,
    pub(crate) leases: u32,
    pub(crate) position: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) corrupt: u64,
    pub(crate) attached_unix_ns: u64,
    pub(crate) name: [c_char; PARTICIPANT_NAME_BYTES_MAX],
    pub(crate) name_bytes: u32,
    pub(crate) group_bytes: u32,
    pub(crate) group: [c_char; GROUP_NAME_BYTES_MAX],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) index: u32,
    pub(crate) state: u32,
    pub(crate) owner: u32,
    pub(crate) reserved: u32,
    pub(crate) sequence: u64,
    pub(crate) bytes: u64,
    pub(crate) published_ns: u64,
    pub(crate) holders: [u64; PARTICIPANTS_MAX / 64],
}

#[repr(C)]
pub(crate) struct ResizeOptions {
    pub(crate) struct_bytes: u32,
    pub(crate) slots: u32,
    pub(crate) slot_bytes: u64,
    pub(crate) keep: u32,
    pub(crate) reserved: u32,
}

#[repr(C)]
pub(crate) struct PublisherOptions {
    pub(crate) struct_bytes: u32,
    pub(crate) name_bytes: u32,
    pub(crate) name: *const c_char,
}

#[repr(C)]
pub(crate) struct CallerOptions {
    pub(crate) struct_bytes: u32,
    pub(crate) calls_max: u32,
    pub(crate) name_bytes: u32,
    pub(crate) reserved: u32,
    pub(crate) name: *const c_char,
}

#[repr(C)]
pub(crate) struct ResponderOptions {
    pub(crate) struct_bytes: u32,
    pub(crate) requests_max: u32,
    pub(crate) name_bytes: u32,
    pub(crate) reserved: u32,
    pub(crate) name: *const c_char,
}

#[repr(C)]
pub(crate) struct Request {
    pub(crate) frame: Frame,
    pub(crate) id: u64,
    pub(crate) deadline_ns: u64,
    pub(crate) caller: u32,
    pub(crate) reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Control {
    pub(crate) sender: u32,
    pub(crate) kind: u32,
    pub(crate) bytes: u32,
    pub(crate) reserved: u32,
    pub(crate) data: [u8; LETTER_BYTES_MAX],
}

#[repr(C)]
pub(crate) struct Loan {
    pub(crate) data: *mut c_void,
    pub(crate) capacity: u64,
    pub(crate) ticket: u64,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

#[repr(C)]
pub(crate) struct PublishInfo {
    pub(crate) struct_bytes: u32,
    pub(crate) array_count: u32,
    pub(crate) bytes: u64,
    pub(crate) timestamp_s: f64,
    pub(crate) arrays: *const Array,
    pub(crate) content_type: *const c_char,
    pub(crate) user_metadata: *const c_void,
    pub(crate) content_type_bytes: u32,
    pub(crate) user_metadata_bytes: u32,
}

#[repr(C)]
pub(crate) struct SubscriberOptions {
    pub(crate) struct_bytes: u32,
    pub(crate) policy: u32,
    pub(crate) start: u32,
    pub(crate) leases_max: u32,
    pub(crate) spin_ns: u32,
    pub(crate) name_bytes: u32,
    pub(crate) name: *const c_char,
    pub(crate) group: *const c_char,
    pub(crate) group_bytes: u32,
    pub(crate) reserved: u32,
}

#[repr(C)]
pub(crate) struct Frame {
    pub(crate) data: *const c_void,
    pub(crate) bytes: u64,
    pub(crate) sequence: u64,
    pub(crate) published_ns: u64,
    pub(crate) timestamp_s: f64,
    pub(crate) content_type: *const c_char,
    pub(crate) user_metadata: *const c_void,
    pub(crate) content_type_bytes: u32,
    pub(crate) user_metadata_bytes: u32,
    pub(crate) array_count: u32,
    pub(crate) slot: u32,
    pub(crate) lost: u64,
    pub(crate) redelivered: u32,
    pub(crate) reserved: u32,
}

impl Frame {
    /// One that is not leased.
    pub(crate) fn ended() -> Self {
        Self {
            data: std::ptr::null(),
            bytes: 0,
            sequence: 0,
            published_ns: 0,
            timestamp_s: f64::NAN,
            content_type: std::ptr::null(),
            user_metadata: std::ptr::null(),
            content_type_bytes: 0,
            user_metadata_bytes: 0,
            array_count: 0,
            slot: 0,
            lost: 0,
            redelivered: 0,
            reserved: 0,
        }
    }
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct SubscriberStats {
    pub(crate) struct_bytes: u32,
    pub(crate) leases: u32,
    pub(crate) leases_max: u32,
    pub(crate) policy: u32,
    pub(crate) position: u64,
    pub(crate) head: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) corrupt: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Value {
    pub(crate) key: *const c_char,
    pub(crate) key_bytes: u32,
    pub(crate) kind: u32,
    pub(crate) integer: i64,
    pub(crate) real: f64,
    pub(crate) data: *const c_void,
    pub(crate) data_bytes: u64,
}

unsafe extern "C" {
    pub(crate) fn fg_topic_metadata(
        topic: *const Topic,
        out: *mut c_void,
        capacity: usize,
        bytes: *mut usize,
        generation: *mut u32,
    ) -> Status;
    pub(crate) fn fg_collect_stale_topics(
        age_ns: i64,
        dry_run: c_int,
        visit: Option<unsafe extern "C" fn(*mut c_void, *const c_char, u64)>,
        context: *mut c_void,
        orphans: *mut u32,
    ) -> Status;
    pub(crate) fn fg_topic_resize(topic: *mut Topic, options: *const ResizeOptions) -> Status;
    pub(crate) fn fg_topic_metadata_generation(topic: *const Topic) -> u32;
    pub(crate) fn fg_topic_append_metadata(
        topic: *mut Topic,
        metadata: *const Metadata,
        generation: *mut u32,
    ) -> Status;
    pub(crate) fn fg_metadata_next(
        metadata: *const c_void,
        bytes: usize,
        position: *mut usize,
        array: *mut u32,
        out: *mut Value,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_values_encode(
        values: *const Value,
        count: usize,
        out: *mut c_void,
        capacity: usize,
        bytes: *mut usize,
    ) -> Status;
    pub(crate) fn fg_values_decode(
        data: *const c_void,
        bytes: usize,
        out: *mut Value,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_last_error() -> *const c_char;
    pub(crate) fn fg_topic_name_check(name: *const c_char, name_bytes: usize) -> Status;
    pub(crate) fn fg_runtime_directory(out: *mut c_char, out_bytes: usize) -> Status;
    pub(crate) fn fg_arrays_lay_out(
        arrays: *mut Array,
        count: usize,
        payload_bytes: *mut u64,
    ) -> Status;
    pub(crate) fn fg_topic_file_name(
        name: *const c_char,
        name_bytes: usize,
        out: *mut c_char,
        out_bytes: usize,
    ) -> Status;
    pub(crate) fn fg_topic_name_from_file(
        file: *const c_char,
        file_bytes: usize,
        out: *mut c_char,
        out_bytes: usize,
    ) -> Status;
    pub(crate) fn fg_inspector_open(
        name: *const c_char,
        name_bytes: usize,
        out: *mut *mut Inspector,
    ) -> Status;
    pub(crate) fn fg_inspector_get_info(inspector: *const Inspector, out: *mut TopicInfo)
    -> Status;
    pub(crate) fn fg_inspector_schema(
        inspector: *const Inspector,
        out: *mut Array,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_inspector_stats(inspector: *mut Inspector, out: *mut TopicStats) -> Status;
    pub(crate) fn fg_inspector_participants(
        inspector: *mut Inspector,
        out: *mut Participant,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_inspector_slots(
        inspector: *mut Inspector,
        out: *mut Slot,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_inspector_close(inspector: *mut Inspector);
    pub(crate) fn fg_topic_options_init(options: *mut TopicOptions);
    pub(crate) fn fg_topic_create(
        name: *const c_char,
        name_bytes: usize,
        options: *const TopicOptions,
        out: *mut *mut Topic,
    ) -> Status;
    pub(crate) fn fg_topic_open(
        name: *const c_char,
        name_bytes: usize,
        out: *mut *mut Topic,
    ) -> Status;
    pub(crate) fn fg_topic_create_or_open(
        name: *const c_char,
        name_bytes: usize,
        options: *const TopicOptions,
        out: *mut *mut Topic,
        created: *mut c_int,
    ) -> Status;
    pub(crate) fn fg_topic_unlink(name: *const c_char, name_bytes: usize) -> Status;
    pub(crate) fn fg_topic_get_info(topic: *const Topic, out: *mut TopicInfo) -> Status;
    pub(crate) fn fg_topic_schema(
        topic: *const Topic,
        out: *mut Array,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_topic_close(topic: *mut Topic);
    pub(crate) fn fg_publisher_open(
        topic: *mut Topic,
        options: *const PublisherOptions,
        out: *mut *mut Publisher,
    ) -> Status;
    pub(crate) fn fg_publisher_loan(
        publisher: *mut Publisher,
        bytes: u64,
        timeout_ns: i64,
        out: *mut Loan,
    ) -> Status;
    pub(crate) fn fg_publisher_slot_bytes(publisher: *mut Publisher, out: *mut u64) -> Status;
    pub(crate) fn fg_publish_info_init(info: *mut PublishInfo);
    pub(crate) fn fg_publisher_publish(
        publisher: *mut Publisher,
        loan: *mut Loan,
        info: *const PublishInfo,
        sequence: *mut u64,
    ) -> Status;
    pub(crate) fn fg_publisher_abandon(publisher: *mut Publisher, loan: *mut Loan) -> Status;
    pub(crate) fn fg_publisher_close(publisher: *mut Publisher);
    pub(crate) fn fg_subscriber_options_init(options: *mut SubscriberOptions);
    pub(crate) fn fg_subscriber_open(
        topic: *mut Topic,
        options: *const SubscriberOptions,
        out: *mut *mut Subscriber,
    ) -> Status;
    pub(crate) fn fg_subscriber_take(
        subscriber: *mut Subscriber,
        timeout_ns: i64,
        out: *mut Frame,
    ) -> Status;
    pub(crate) fn fg_subscriber_peek(subscriber: *mut Subscriber, out: *mut Frame) -> Status;
    pub(crate) fn fg_subscriber_arrays(
        subscriber: *mut Subscriber,
        frame: *const Frame,
        out: *mut Array,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_subscriber_release(subscriber: *mut Subscriber, frame: *mut Frame) -> Status;
    pub(crate) fn fg_subscriber_nack(subscriber: *mut Subscriber, frame: *mut Frame) -> Status;
    pub(crate) fn fg_subscriber_wait(subscriber: *mut Subscriber, timeout_ns: i64) -> Status;
    pub(crate) fn fg_subscriber_event_fd(subscriber: *mut Subscriber, fd: *mut c_int) -> Status;
    pub(crate) fn fg_subscriber_arm(subscriber: *mut Subscriber, ready: *mut c_int) -> Status;
    pub(crate) fn fg_subscriber_drain(subscriber: *mut Subscriber) -> Status;
    pub(crate) fn fg_subscriber_get_stats(
        subscriber: *const Subscriber,
        out: *mut SubscriberStats,
    ) -> Status;
    pub(crate) fn fg_subscriber_close(subscriber: *mut Subscriber);
    pub(crate) fn fg_subscriber_send_control(
        subscriber: *mut Subscriber,
        kind: u32,
        data: *const c_void,
        bytes: u32,
        reached: *mut u32,
    ) -> Status;
    pub(crate) fn fg_publisher_controls(
        publisher: *mut Publisher,
        out: *mut Control,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_caller_options_init(options: *mut CallerOptions);
    pub(crate) fn fg_caller_open(
        topic: *mut Topic,
        options: *const CallerOptions,
        out: *mut *mut Caller,
    ) -> Status;
    pub(crate) fn fg_caller_loans(caller: *mut Caller) -> *mut Publisher;
    pub(crate) fn fg_caller_call(
        caller: *mut Caller,
        loan: *mut Loan,
        info: *const PublishInfo,
        timeout_ns: i64,
        call: *mut u64,
    ) -> Status;
    pub(crate) fn fg_caller_wait(
        caller: *mut Caller,
        call: u64,
        timeout_ns: i64,
        reply: *mut Frame,
    ) -> Status;
    pub(crate) fn fg_caller_cancel(caller: *mut Caller, call: u64) -> Status;
    pub(crate) fn fg_caller_arrays(
        caller: *mut Caller,
        reply: *const Frame,
        out: *mut Array,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_caller_release(caller: *mut Caller, reply: *mut Frame) -> Status;
    pub(crate) fn fg_caller_event_fd(caller: *mut Caller, fd: *mut c_int) -> Status;
    pub(crate) fn fg_caller_arm(caller: *mut Caller, ready: *mut c_int) -> Status;
    pub(crate) fn fg_caller_drain(caller: *mut Caller) -> Status;
    pub(crate) fn fg_caller_close(caller: *mut Caller);
    pub(crate) fn fg_responder_options_init(options: *mut ResponderOptions);
    pub(crate) fn fg_responder_open(
        topic: *mut Topic,
        options: *const ResponderOptions,
        out: *mut *mut Responder,
    ) -> Status;
    pub(crate) fn fg_responder_loans(responder: *mut Responder) -> *mut Publisher;
    pub(crate) fn fg_responder_take(
        responder: *mut Responder,
        timeout_ns: i64,
        out: *mut Request,
    ) -> Status;
    pub(crate) fn fg_responder_reply(
        responder: *mut Responder,
        request: *mut Request,
        loan: *mut Loan,
        info: *const PublishInfo,
    ) -> Status;
    pub(crate) fn fg_responder_fail(
        responder: *mut Responder,
        request: *mut Request,
        text: *const c_char,
        text_bytes: usize,
    ) -> Status;
    pub(crate) fn fg_responder_drop(responder: *mut Responder, request: *mut Request);
    pub(crate) fn fg_responder_arrays(
        responder: *mut Responder,
        request: *const Frame,
        out: *mut Array,
        capacity: usize,
        count: *mut usize,
    ) -> Status;
    pub(crate) fn fg_responder_release(responder: *mut Responder, request: *mut Frame) -> Status;
    pub(crate) fn fg_responder_event_fd(responder: *mut Responder, fd: *mut c_int) -> Status;
    pub(crate) fn fg_responder_arm(responder: *mut Responder, ready: *mut c_int) -> Status;
    pub(crate) fn fg_responder_drain(responder: *mut Responder) -> Status;
    pub(crate) fn fg_responder_close(responder: *mut Responder);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use std::mem::size_of;

    #[repr(C)]
    struct StatusInfo {
        code: Status,
        name: *const c_char,
        text: *const c_char,
    }
    #[repr(C)]
    struct StructSize {
        name: *const c_char,
        bytes: u32,
    }
    unsafe extern "C" {
        fn fg_status_table(count: *mut usize) -> *const StatusInfo;
        fn fg_struct_sizes(count: *mut usize) -> *const StructSize;
        fn fg_layout_version() -> u32;
    }

    fn table<T>(function: unsafe extern "C" fn(*mut usize) -> *const T) -> &'static [T] {
        let mut count = 0;
        // SAFETY: the library returns a static array and says how long it is.
        unsafe {
            let first = function(&raw mut count);
            std::slice::from_raw_parts(first, count)
        }
    }

    fn text(pointer: *const c_char) -> &'static str {
        // SAFETY: the tables consist of string literals.
        unsafe { CStr::from_ptr(pointer) }.to_str().expect("ASCII")
    }

    #[test]
    fn every_status_of_the_library_has_its_kind() {
        for row in table(fg_status_table) {
            let name = text(row.name);
            let kind = crate::error::Kind::from_status(row.code);
            let camel: String = name
                .split('_')
                .map(|word| word[..1].to_owned() + &word[1..].to_ascii_lowercase())
                .collect();
            if row.code != OK {
                assert_eq!(format!("{kind:?}"), camel, "status {} {name}", row.code);
            }
            assert!(!text(row.text).is_empty());
        }
        assert!(table(fg_status_table).len() > 20);
    }

    #[test]
    fn structs_are_as_large_as_the_library_says() {
        let mut compared = 0;
        for row in table(fg_struct_sizes) {
            let ours = match text(row.name) {
                "fg_array" => size_of::<Array>(),
                "fg_caller_options" => size_of::<CallerOptions>(),
                "fg_control" => size_of::<Control>(),
                "fg_frame" => size_of::<Frame>(),
                "fg_loan" => size_of::<Loan>(),
                "fg_publish_info" => size_of::<PublishInfo>(),
                "fg_resize_options" => size_of::<ResizeOptions>(),
                "fg_publisher_options" => size_of::<PublisherOptions>(),
                "fg_request" => size_of::<Request>(),
                "fg_responder_options" => size_of::<ResponderOptions>(),
                "fg_status_info" => size_of::<StatusInfo>(),
                "fg_struct_size" => size_of::<StructSize>(),
                "fg_subscriber_options" => size_of::<SubscriberOptions>(),
                "fg_subscriber_stats" => size_of::<SubscriberStats>(),
                "fg_topic_info" => size_of::<TopicInfo>(),
                "fg_topic_options" => size_of::<TopicOptions>(),
                "fg_topic_stats" => size_of::<TopicStats>(),
                "fg_metadata" => size_of::<Metadata>(),
                "fg_value" => size_of::<Value>(),
                "fg_participant" => size_of::<Participant>(),
                "fg_slot" => size_of::<Slot>(),
                other => panic!("{other} is new: declare it here"),
            };
            assert_eq!(ours, row.bytes as usize, "{}", text(row.name));
            compared += 1;
        }
        assert_eq!(compared, 21);
    }

    #[test]
    fn layout_version_is_the_one_this_crate_was_written_for() {
        // SAFETY: takes nothing, returns a number.
        assert_eq!(unsafe { fg_layout_version() }, 1);
    }
}
