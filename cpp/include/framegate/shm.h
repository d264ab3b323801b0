/*
 * framegate shared-memory frames: the C ABI. The one contract for C++, Rust, Python and any other
 * language.
 *
 * Words. A topic is a named channel; its segment is two mapped files of fixed-size slots. A
 * publisher gets a loan (the exclusive right to fill a slot) and publishes it as a frame with the
 * next sequence. A subscriber takes a frame and holds a lease (a shared right to read that slot);
 * the bytes under a lease never change until it is released. Every publisher and subscriber is one
 * participant of the topic. Inspectors only look; they are no participants.
 *
 * Rules for every function
 * - Returns a fg_status unless stated. Nothing throws. On any status other than FG_OK (and the
 * expected FG_EMPTY, FG_TIMEOUT, FG_TOPIC_FULL) fg_last_error() holds a sentence for a person.
 * Output parameters are written only on FG_OK unless stated.
 * - Strings go in as (pointer, length) and need no terminating zero. Strings come out into caller
 * memory.
 * - Structs that may grow begin with `struct_bytes`: set it to sizeof, or use the fg_*_init
 * function.
 * - Time-outs are int64 nanoseconds: 0 never waits, negative waits for ever.
 * - "Hot": takes no system call unless somebody has to be woken, and allocates nothing.
 * - Threads: handles may be used from several threads at once, closing included: a call on another
 * thread either completes before the close or answers FG_CLOSED, as long as it holds a reference
 * (fg_*_retain) or a live loan or lease. A topic has nothing to close but references: whoever
 * holds one may use it. The pointer itself is freed with the last reference, loan or lease.
 * - Fork: in a child forked after opening, every inherited handle answers FG_FORKED and its memory
 * is unmapped (touching an inherited loan or lease faults). The child opens its own handles.
 */
#ifndef FRAMEGATE_SHM_H
#define FRAMEGATE_SHM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ---- */

/* The one list of status codes: FG_STATUS_LIST(X) calls X(NAME, number, text). Numbers never change
 * meaning. */
#define FG_STATUS_LIST(X)                                                                          \
    X(OK, 0, "done")                                                                               \
    X(INVALID_ARGUMENT, 1, "an argument or option is outside its limits")                          \
    X(BAD_TOPIC_NAME, 2, "the topic name does not follow the grammar")                             \
    X(TOPIC_NOT_FOUND, 3, "no topic of this name in the runtime directory")                        \
    X(TOPIC_EXISTS, 4, "a topic of this name exists already")                                      \
    X(SEGMENT_INCOMPATIBLE, 5,                                                                     \
      "the segment was made by another layout version or kind of machine")                         \
    X(SEGMENT_CORRUPT, 6, "the segment contradicts itself")                                        \
    X(NO_SPACE, 7, "the file system of the runtime directory is too full for this topic")          \
    X(PERMISSION_DENIED, 8, "the operating system refused access")                                 \
    X(RUNTIME_DIRECTORY, 9, "the runtime directory is missing or not safe to use")                 \
    X(PARTICIPANTS_FULL, 10, "all participant rows of the topic are taken by living participants") \
    X(TOPIC_FULL, 11, "every slot is leased, loaned or newest: nothing to loan")                   \
    X(EMPTY, 12, "no frame that this subscriber has not seen")                                     \
    X(TIMEOUT, 13, "the time-out passed")                                                          \
    X(INTERRUPTED, 14, "a signal handler ran while waiting")                                       \
    X(FRAME_TOO_LARGE, 15, "the frame is larger than a slot")                                      \
    X(LEASE_QUOTA, 16, "this subscriber holds as many leases as it may")                           \
    X(LEASE_LOST, 17, "the lease was taken away: its bytes may have been overwritten")             \
    X(LOAN_LOST, 18, "the loan is not this publisher's any more: nothing was published")           \
    X(SCHEMA_MISMATCH, 19, "the frame or the request contradicts the schema of the topic")         \
    X(FORKED, 20, "the handle was opened before a fork and is dead in this process")               \
    X(POISONED, 21, "this process lost the lock that shows it is alive; the handle is unusable")   \
    X(CLOSED, 22, "the handle was closed")                                                         \
    X(MOVED, 23, "the topic goes on in a new generation of slots (used inside the library only)")  \
    X(SEQUENCE_EXHAUSTED, 24, "the topic used up all sequence numbers; create it again")           \
    X(UNSUPPORTED, 25, "this version of the library does not do that")                             \
    X(OUT_OF_MEMORY, 26, "the process has no memory left")                                         \
    X(SYSTEM, 27, "a system call failed")                                                          \
    X(CHECKSUM_MISMATCH, 28, "the bytes of the frame are not those that were published")           \
    X(METADATA_FULL, 29, "the metadata area of the topic has no room for that")                    \
    X(GROUPS_FULL, 30, "all group rows of the topic are taken by groups with members")             \
    X(NO_RESPONDER, 31, "nobody answers calls on this topic")                                      \
    X(RESPONDER_DIED, 32, "the responder died or closed before it answered")                       \
    X(CALL_FAILED, 33, "the responder answered that it failed")                                    \
    X(MAILBOX_FULL, 34, "the mailbox of the addressee is full")                                    \
    X(CALLER_GONE, 35, "the caller died or closed before it was answered")                         \
    X(CALLS_EXHAUSTED, 36, "this caller has as many calls in flight as it may")

typedef int32_t fg_status;
enum {
#define FG_STATUS_ENUM(name, number, text) FG_##name = number,
    FG_STATUS_LIST(FG_STATUS_ENUM)
#undef FG_STATUS_ENUM
};

typedef struct fg_status_info {
    fg_status code;
    const char* name; /* "TOPIC_NOT_FOUND" */
    const char* text; /* one clause, lower case */
} fg_status_info;

/* The list above as data, for tests that demand an exception or error kind per code. Static memory;
 * any thread. */
const fg_status_info* fg_status_table(size_t* count);

/* Text of the last failure on the calling thread, zero-terminated; valid until the next failing
 * call on this thread. Names the object, the numbers and what to do. Empty string if nothing failed
 * yet. */
const char* fg_last_error(void);

/* ---- versions and limits ---- */

enum {
    FG_LAYOUT_VERSION = 1,
    FG_TOPIC_NAME_BYTES_MAX = 128,
    FG_TOPIC_SEGMENTS_MAX = 8,
    FG_TOPIC_FILE_NAME_BYTES_MAX =
        160, /* of the joined form without suffix, terminating zero included */
    FG_PARTICIPANTS_MAX = 256,
    FG_SLOTS_MIN = 2,
    FG_SLOTS_MAX = 4096,
    FG_ARRAYS_MAX = 16,
    FG_ARRAY_DIMENSIONS_MAX = 8,
    FG_ARRAY_NAME_BYTES_MAX = 36,
    FG_ARRAY_ALIGNMENT = 64,
    FG_CONTENT_TYPE_BYTES_MAX = 64,
    FG_USER_METADATA_BYTES_MAX = 1024,
    FG_VALUES_MAX = 128,
    FG_VALUE_KEY_BYTES_MAX = 64,
    FG_UNITS_BYTES_MAX = 32,
    FG_PARTICIPANT_NAME_BYTES_MAX = 32,
    FG_GROUP_NAME_BYTES_MAX = 32,
    FG_GROUPS_MAX = 8, /* work-queue groups of a topic at the same time */
    FG_METADATA_BYTES_MAX = 1048576,
    FG_MAILBOX_BYTES_MAX = 65536,
    FG_LETTER_BYTES_MAX = 192, /* inline: control messages, texts of failures */
    FG_REQUESTS_MAX = 4096
};
#define FG_SLOT_BYTES_MAX (UINT64_C(1) << 40)
#define FG_SEQUENCE_MAX ((UINT64_C(1) << 48) - 1)
#define FG_DIMENSION_ANY UINT64_MAX /* in a schema: this dimension may have any length */

/* Version of the segment layout that this library reads and writes. */
uint32_t fg_layout_version(void);

/* ---- names and places ---- */

/* The topic name grammar of all languages: 1 to 8 segments of [A-Za-z0-9_][A-Za-z0-9_.-]* joined by
 * '/', at most 128 bytes, no "..". FG_OK or FG_BAD_TOPIC_NAME. Any thread, never blocks. */
fg_status fg_topic_name_check(const char* name, size_t name_bytes);

/* File name stem of a topic ('/' becomes "%2F"), zero-terminated, into `out` of at least
 * FG_TOPIC_FILE_NAME_BYTES_MAX. */
fg_status fg_topic_file_name(const char* name, size_t name_bytes, char* out, size_t out_bytes);

/* The inverse: topic name of "<stem>.ctl", zero-terminated, into `out` of FG_TOPIC_NAME_BYTES_MAX +
 * 1 or more. FG_BAD_TOPIC_NAME if the file is not the control file of a topic. */
fg_status fg_topic_name_from_file(const char* file, size_t file_bytes, char* out, size_t out_bytes);

/* Path of the runtime directory ($FRAMEGATE_RUNTIME_DIR, else /dev/shm/framegate-<uid>),
 * zero-terminated. Does not create it. FG_INVALID_ARGUMENT if `out` is too small. */
fg_status fg_runtime_directory(char* out, size_t out_bytes);

/* ---- arrays ---- */

/* X(NAME, code, item bytes, numpy-style name) */
#define FG_DTYPE_LIST(X)                \
    X(BOOL, 1, 1, "bool")               \
    X(INT8, 2, 1, "int8")               \
    X(INT16, 3, 2, "int16")             \
    X(INT32, 4, 4, "int32")             \
    X(INT64, 5, 8, "int64")             \
    X(UINT8, 6, 1, "uint8")             \
    X(UINT16, 7, 2, "uint16")           \
    X(UINT32, 8, 4, "uint32")           \
    X(UINT64, 9, 8, "uint64")           \
    X(FLOAT16, 10, 2, "float16")        \
    X(FLOAT32, 11, 4, "float32")        \
    X(FLOAT64, 12, 8, "float64")        \
    X(COMPLEX64, 13, 8, "complex64")    \
    X(COMPLEX128, 14, 16, "complex128") \
    X(BFLOAT16, 15, 2, "bfloat16")

typedef uint8_t fg_dtype;
enum {
#define FG_DTYPE_ENUM(name, code, item_bytes, text) FG_DTYPE_##name = code,
    FG_DTYPE_LIST(FG_DTYPE_ENUM)
#undef FG_DTYPE_ENUM
};

/* Bytes of one item, 0 for an unknown code. */
uint32_t fg_dtype_item_bytes(fg_dtype dtype);
/* "uint8"; NULL for an unknown code. Static memory. */
const char* fg_dtype_name(fg_dtype dtype);
/* Code of a name such as "float32"; 0 for an unknown name. */
fg_dtype fg_dtype_from_name(const char* name, size_t name_bytes);

enum { FG_ARRAY_FIELD = 1 };

/* One array of a frame (or, with FG_DIMENSION_ANY allowed, of a schema). C order. A frame's array i
 * lies at payload + offset. The name may be empty (one unnamed array).
 *
 * With the flag FG_ARRAY_FIELD it is a field of records that lie one after the other, as an array of
 * C structs: its first `record_dimensions` dimensions count records, each `record_bytes` after the
 * one before, and `offset` is its place in a record. Either all arrays of a frame are fields, of the
 * same records, or none is. */
typedef struct fg_array {
    char name[FG_ARRAY_NAME_BYTES_MAX]; /* UTF-8, not zero-terminated, rest zero */
    uint8_t name_bytes;
    fg_dtype dtype;
    uint8_t dimension_count;
    uint8_t flags; /* FG_ARRAY_FIELD or zero */
    uint64_t shape[FG_ARRAY_DIMENSIONS_MAX];
    uint64_t offset; /* from the start of the payload, multiple of FG_ARRAY_ALIGNMENT; of a field:
                        from the start of a record */
    uint64_t bytes;  /* of all items */
    uint32_t record_bytes;      /* of a field: from one record to the next; else zero */
    uint32_t record_dimensions; /* of a field; else zero */
} fg_array;

/* Fills `offset` and `bytes` of every array from dtype and shape, one after the other at multiples
 * of 64, and says how many payload bytes they need; fields keep their offset. FG_INVALID_ARGUMENT on a
 * bad name, dtype, dimension count or overflow, and on fields of different records. Any thread. */
fg_status fg_arrays_lay_out(fg_array* arrays, size_t count, uint64_t* payload_bytes);

/* ---- values: small typed maps ---- */

enum {
    FG_VALUE_BOOL = 1,
    FG_VALUE_INT = 2,
    FG_VALUE_FLOAT = 3,
    FG_VALUE_STRING = 4,
    FG_VALUE_BYTES = 5
};

/* One entry of a map: user metadata of a frame, metadata of a topic or of an array. */
typedef struct fg_value {
    const char* key; /* UTF-8, 1..FG_VALUE_KEY_BYTES_MAX bytes, not zero-terminated */
    uint32_t key_bytes;
    uint32_t type;    /* FG_VALUE_* */
    int64_t integer;  /* BOOL (0 or 1) and INT */
    double real;      /* FLOAT */
    const void* data; /* STRING (UTF-8) and BYTES */
    uint64_t data_bytes;
} fg_value;

/* Writes at most FG_VALUES_MAX values with different keys as one MessagePack map. `bytes` is what
 * the map needs: call it with capacity 0 to ask. FG_INVALID_ARGUMENT also if it does not fit. Any
 * thread. */
fg_status fg_values_encode(const fg_value* values, size_t count, void* out, size_t capacity,
                           size_t* bytes);
/* Reads such a map, of whatever origin; the values point into `data`. No byte at all is an empty
 * map. `count` may be more than `capacity`: then that many were written. FG_INVALID_ARGUMENT says
 * where it is broken. Any thread. */
fg_status fg_values_decode(const void* data, size_t bytes, fg_value* out, size_t capacity,
                           size_t* count);

/* ---- metadata of topics and arrays ---- */

#define FG_METADATA_TOPIC UINT32_MAX

/* A map that belongs to the topic, or to one array of its schema. The key "units" of an array is a
 * string of 1 to FG_UNITS_BYTES_MAX bytes, such as "m/s", and part of the schema: it is given when
 * the topic is created and never changes. */
typedef struct fg_metadata {
    uint32_t array; /* index in the schema, or FG_METADATA_TOPIC */
    uint32_t value_count;
    const fg_value* values;
} fg_metadata;

/* Walks over what fg_topic_metadata copied: begin with *position = 0. Of a key that comes several
 * times the last value counts, of units the first. FG_EMPTY at the end, FG_SEGMENT_CORRUPT for bytes
 * that nobody of us wrote. The values point into `metadata`; `count` may be more than `capacity`. */
fg_status fg_metadata_next(const void* metadata, size_t bytes, size_t* position, uint32_t* array,
                           fg_value* out, size_t capacity, size_t* count);

/* ---- topic ---- */

typedef struct fg_topic fg_topic;
typedef struct fg_publisher fg_publisher;
typedef struct fg_subscriber fg_subscriber;
typedef struct fg_inspector fg_inspector;

/* Of payloads, made by publish and looked at by every take. */
enum {
    FG_CHECKSUM_NONE = 0,
    FG_CHECKSUM_CRC32C = 1, /* 32 bits; in hardware where there is SSE4.2 or the CRC of ARMv8 */
    FG_CHECKSUM_XXH3 = 2    /* XXH3 with 64 bits; vectorised */
};

/* The checksum of some bytes, 0 for an unknown kind. Any thread. */
uint64_t fg_checksum(uint32_t kind, const void* data, size_t bytes);

typedef struct fg_topic_options {
    uint32_t struct_bytes;
    uint32_t slots;            /* FG_SLOTS_MIN..FG_SLOTS_MAX; default 8 */
    uint64_t slot_bytes;       /* payload bytes of a slot, 1..FG_SLOT_BYTES_MAX; default 1 MiB */
    uint32_t keep;             /* newest frames that are never reused, 1..slots - 1; default 1 */
    uint32_t participants_max; /* 2..FG_PARTICIPANTS_MAX; default 128 */
    uint32_t metadata_bytes;   /* static metadata area, 0..FG_METADATA_BYTES_MAX; default 4096 */
    uint32_t mailbox_bytes;    /* of each participant that has one, 0 (no calls, no controls) to
                                * FG_MAILBOX_BYTES_MAX; default 16384: 63 letters. Memory is taken
                                * when a mailbox is first opened */
    uint32_t mode;             /* file mode, 0600 or 0660; default 0600 */
    uint32_t schema_count;     /* arrays of the schema; 0: frames are free; default 0 */
    const fg_array* schema;    /* dtype, shape and names; offset and bytes are ignored */
    uint32_t checksum;         /* FG_CHECKSUM_*; default none */
    uint32_t metadata_count;
    const fg_metadata* metadata; /* what it begins with; may be NULL */
} fg_topic_options;

void fg_topic_options_init(fg_topic_options* options);

typedef struct fg_topic_info {
    uint32_t struct_bytes;
    uint32_t slots;
    uint64_t slot_bytes;
    uint32_t keep;
    uint32_t participants_max;
    uint32_t metadata_bytes;
    uint32_t mailbox_bytes;
    uint32_t schema_count;
    uint32_t mode;
    uint64_t identity[2];     /* random, new with every creation */
    uint64_t created_unix_ns; /* CLOCK_REALTIME at creation, for people */
    uint64_t control_bytes;   /* of the .ctl file, without the mailboxes */
    uint64_t data_bytes;      /* size of the .data file */
    uint32_t checksum;        /* FG_CHECKSUM_* */
    uint32_t reserved;
} fg_topic_info;

/* Creates the topic and opens it; FG_TOPIC_EXISTS if there is one. Allocates and touches every page
 * of it (first touch costs six times a warm copy), so it may take a second per few GB; FG_NO_SPACE
 * names the bytes needed and free. Blocking: file system only. */
fg_status fg_topic_create(const char* name, size_t name_bytes, const fg_topic_options* options,
                          fg_topic** out);

/* Opens an existing topic. FG_TOPIC_NOT_FOUND, FG_SEGMENT_INCOMPATIBLE, FG_SEGMENT_CORRUPT,
 * FG_PERMISSION_DENIED. */
fg_status fg_topic_open(const char* name, size_t name_bytes, fg_topic** out);

/* Opens the topic or, if there is none, creates it; safe against others doing the same. An existing
 * topic is taken as it is, except that its slots must hold options->slot_bytes (else
 * FG_FRAME_TOO_LARGE) and that a schema in the options must equal its schema (else
 * FG_SCHEMA_MISMATCH). `created` may be NULL; else 1 if this call created it. */
fg_status fg_topic_create_or_open(const char* name, size_t name_bytes,
                                  const fg_topic_options* options, fg_topic** out, int* created);

/* Removes the names of the topic's files. Open handles go on undisturbed among themselves; the
 * memory is freed with the last of them. FG_TOPIC_NOT_FOUND if there is none. */
fg_status fg_topic_unlink(const char* name, size_t name_bytes);

typedef struct fg_resize_options {
    uint32_t struct_bytes;
    uint32_t slots;      /* 0: as it is */
    uint64_t slot_bytes; /* 0: as it is */
    uint32_t keep;       /* 0: as it is */
    uint32_t reserved;
} fg_resize_options;

void fg_resize_options_init(fg_resize_options* options);

/* Goes on in a new generation of slots of another number or size; everything else of the topic stays
 * (schema, participants_max, mode). Publishers and subscribers follow by themselves, in all
 * processes: subscribers first take what they have not seen in the old slots, sequences carry on,
 * loans are carried over by a copy when they are published, leases stay good, calls in flight and
 * what groups have not finished go on. The memory of the old slots is freed when the last participant
 * has moved on. FG_OK also if the topic has that size already; FG_INVALID_ARGUMENT,
 * FG_FRAME_TOO_LARGE (its schema does not fit), FG_NO_SPACE, FG_TIMEOUT (a process that joins a group
 * is stopped): nothing changed. Blocking: as fg_topic_create. */
fg_status fg_topic_resize(fg_topic* topic, const fg_resize_options* options);

/* Removes topics that no process has open and that nobody opened or left for `age_ns`, and whatever
 * files dead processes left. Never removes a living topic: who opens one while it is being removed
 * finds none. With `dry_run` it only looks. `visit` (may be NULL) is called with each such topic;
 * `orphans` (may be NULL) is the number of other files removed. Topics of other layout versions and
 * topics that may not be opened are left alone. */
typedef void (*fg_stale_topic)(void* context, const char* name, uint64_t bytes);
fg_status fg_collect_stale_topics(int64_t age_ns, int dry_run, fg_stale_topic visit, void* context,
                                  uint32_t* orphans);

/* The sizes are those of the newest generation. */
fg_status fg_topic_get_info(const fg_topic* topic, fg_topic_info* out);
/* Name of the topic, zero-terminated, valid as long as the handle. */
const char* fg_topic_name(const fg_topic* topic);
/* Copies the schema (offset and bytes filled where all dimensions are fixed). `count` is always
 * written. */
fg_status fg_topic_schema(const fg_topic* topic, fg_array* out, size_t capacity, size_t* count);
/* Copies the metadata of the topic and its arrays, at most info.metadata_bytes, for
 * fg_metadata_next. `generation` grows with every append. FG_INVALID_ARGUMENT, with *bytes written,
 * if `capacity` is too small. No system call. */
fg_status fg_topic_metadata(const fg_topic* topic, void* out, size_t capacity, size_t* bytes,
                            uint32_t* generation);
/* The generation alone: one load, to see whether there is something new. */
uint32_t fg_topic_metadata_generation(const fg_topic* topic);
/* Appends to it; every process that has the topic open sees it with the next look. It is there
 * wholly or not at all, whoever dies when. FG_METADATA_FULL; FG_TIMEOUT if a process was stopped while
 * it appended. `generation` may be NULL. */
fg_status fg_topic_append_metadata(fg_topic* topic, const fg_metadata* metadata,
                                   uint32_t* generation);
/* Reaps participants that died: their loans and leases come back. Done by itself by attaching, by a
 * loan that finds nothing, and by every waiter about once a second. `reaped` may be NULL. Up to 256
 * system calls. */
fg_status fg_topic_sweep(fg_topic* topic, uint32_t* reaped);
/* Gives the reference back; publishers and subscribers keep the topic open by themselves. NULL is
 * allowed. */
void fg_topic_close(fg_topic* topic);

/* One more reference for another thread; every retain needs one fg_topic_close. */
void fg_topic_retain(fg_topic* topic);

/* ---- publisher ---- */

typedef struct fg_publisher_options {
    uint32_t struct_bytes;
    uint32_t name_bytes; /* at most FG_PARTICIPANT_NAME_BYTES_MAX */
    const char* name;    /* shown by inspectors; may be NULL */
} fg_publisher_options;

void fg_publisher_options_init(fg_publisher_options* options);

/* Attaches one more publisher (options may be NULL). FG_PARTICIPANTS_FULL if no row is free or
 * reapable. */
fg_status fg_publisher_open(fg_topic* topic, const fg_publisher_options* options,
                            fg_publisher** out);

typedef struct fg_loan {
    void* data;        /* writable, page-aligned, `capacity` bytes; NULL once given back */
    uint64_t capacity; /* slot_bytes of the topic */
    uint64_t ticket;   /* proves the loan; private */
    uint32_t slot;
    uint32_t generation; /* of the slots at the time of the loan; private */
} fg_loan;

/* Loans a slot for `bytes` payload bytes. Hot when a slot is free. Else sweeps once, then waits up
 * to the time-out for one and answers FG_TOPIC_FULL (also with time-out 0). FG_FRAME_TOO_LARGE,
 * FG_INTERRUPTED. The loan lives until publish or abandon, on any thread; it keeps the
 * publisher handle alive. */
fg_status fg_publisher_loan(fg_publisher* publisher, uint64_t bytes, int64_t timeout_ns,
                            fg_loan* out);

/* Payload bytes of a slot as a loan would have them now; they change when the topic is resized. */
fg_status fg_publisher_slot_bytes(fg_publisher* publisher, uint64_t* out);

typedef struct fg_publish_info {
    uint32_t struct_bytes;
    uint32_t
        array_count; /* 0: raw bytes, or the topic's schema if it has one with fixed dimensions */
    uint64_t bytes;  /* payload bytes that were filled */
    double timestamp_s;           /* the application's own time; NaN (the default): none */
    const fg_array* arrays;       /* offsets inside the payload, checked */
    const char* content_type;     /* may be NULL */
    const void* user_metadata;    /* of fg_values_encode, copied beside the payload; may be NULL */
    uint32_t content_type_bytes;  /* at most FG_CONTENT_TYPE_BYTES_MAX */
    uint32_t user_metadata_bytes; /* at most FG_USER_METADATA_BYTES_MAX */
} fg_publish_info;

void fg_publish_info_init(fg_publish_info* info);

/* Publishes the loan as the next frame. Hot; wakes sleeping subscribers, if any, and never waits
 * for one. On FG_OK the loan is consumed (data = NULL) and *sequence is its number, 1 upwards. On
 * FG_INVALID_ARGUMENT, FG_SCHEMA_MISMATCH and FG_FRAME_TOO_LARGE the loan stays good; on every
 * other status it is gone. If the topic was resized since the loan, the bytes are copied to a new
 * slot first; only then can it answer FG_TOPIC_FULL, and the loan stays good. `sequence` may be
 * NULL. */
fg_status fg_publisher_publish(fg_publisher* publisher, fg_loan* loan, const fg_publish_info* info,
                               uint64_t* sequence);

/* What is copied in about the time in which a sleeping thread wakes. */
#define FG_ANNOUNCE_BYTES (512 * 1024)
#define FG_ANNOUNCE_BYTES_MIN (256 * 1024)

/* Its topic, for the functions above; valid as long as the publisher. Do not close it. */
fg_topic* fg_publisher_topic(const fg_publisher* publisher);

/* Says that the next frame follows within some ten microseconds: threads that sleep in a take or
 * wait are woken now, and are awake when it is published instead of starting to wake then. For who
 * fills a large loan: call it when FG_ANNOUNCE_BYTES of it are still to be written. Costs nothing if
 * nobody sleeps; nothing depends on it. fg_publisher_send does it for frames of FG_ANNOUNCE_BYTES_MIN
 * and more. */
fg_status fg_publisher_announce(fg_publisher* publisher);

/* Gives an unpublished loan back. Hot. Safe to call on a loan whose data is NULL. */
fg_status fg_publisher_abandon(fg_publisher* publisher, fg_loan* loan);

/* Loan, copy, publish in one call; everything as above. */
fg_status fg_publisher_send(fg_publisher* publisher, const void* data, const fg_publish_info* info,
                            int64_t timeout_ns, uint64_t* sequence);

/* One more reference for another thread; every retain needs one fg_publisher_release_handle. */
void fg_publisher_retain(fg_publisher* publisher);
void fg_publisher_release_handle(fg_publisher* publisher);
/* Detaches (with live loans: when the last of them ends) and drops the opener's reference. Wakes a
 * loan that waits on another thread, which answers FG_CLOSED. NULL is allowed. */
void fg_publisher_close(fg_publisher* publisher);

/* ---- subscriber ---- */

enum {
    FG_POLICY_LATEST = 1, /* every take jumps to the newest frame */
    FG_POLICY_QUEUE =
        2, /* every take is the next frame that still exists; overwritten ones are counted lost */
    FG_POLICY_RELIABLE = 3, /* every frame in order: publishers do not reuse a slot that this
                               subscriber has not passed, their loans wait for it or time out */
    FG_POLICY_GROUP = 4     /* every frame to one member of the group; see `group` */
};
enum {
    FG_START_DEFAULT = 0, /* latest: newest; the others: next */
    FG_START_NEXT = 1,    /* only frames published after the opening */
    FG_START_NEWEST = 2   /* the newest frame that exists now counts as unseen */
};

/* As long as going to sleep and waking costs, in the subscriber and in the publisher that wakes it.
 */
#define FG_SPIN_NS 50000

typedef struct fg_subscriber_options {
    uint32_t struct_bytes;
    uint32_t policy;     /* default FG_POLICY_LATEST */
    uint32_t start;      /* default FG_START_DEFAULT */
    uint32_t leases_max; /* 1..slots - keep; 0, the default: half of the slots, at least 1 */
    uint32_t
        spin_ns; /* busy-wait this long before sleeping; at most 1 ms, which costs a core. 0, the
                    default: FG_SPIN_NS, and only while frames come that fast */
    uint32_t name_bytes; /* at most FG_PARTICIPANT_NAME_BYTES_MAX */
    const char* name;    /* shown by inspectors; may be NULL */
    /* FG_POLICY_GROUP: the group to join, or to found: 1 to FG_GROUP_NAME_BYTES_MAX letters, digits,
     * '_', '-' or '.'. A group lives from its first member until its last one closed or died and
     * keeps every frame published meanwhile for its members; `start` counts for its founder. */
    const char* group;
    uint32_t group_bytes;
    uint32_t reserved; /* zero */
} fg_subscriber_options;

void fg_subscriber_options_init(fg_subscriber_options* options);

/* Attaches one more subscriber (options may be NULL). FG_PARTICIPANTS_FULL; FG_GROUPS_FULL if
 * FG_GROUPS_MAX other groups have members; FG_TIMEOUT if a stopped process has been in the middle of
 * joining a group for a second. */
fg_status fg_subscriber_open(fg_topic* topic, const fg_subscriber_options* options,
                             fg_subscriber** out);

/* A leased frame. Everything it points to is read-only and stays valid and unchanged until
 * released. */
typedef struct fg_frame {
    const void* data; /* page-aligned */
    uint64_t bytes;
    uint64_t sequence;
    uint64_t published_ns; /* CLOCK_MONOTONIC of the publisher, comparable within the machine */
    double timestamp_s;    /* the application's; NaN: none */
    const char* content_type;
    const void* user_metadata;
    uint32_t content_type_bytes;
    uint32_t user_metadata_bytes;
    uint32_t array_count; /* 0: raw bytes */
    uint32_t slot;
    uint64_t lost;        /* frames lost by this subscriber just before this one */
    uint32_t redelivered; /* group: 1 if a member before did not finish it */
    uint32_t reserved;
} fg_frame;

/* Takes a frame by the subscriber's policy. Hot when there is one; else waits up to the time-out,
 * in slices of at most one second each followed by a sweep and a re-check. FG_EMPTY (time-out 0),
 * FG_TIMEOUT, FG_INTERRUPTED, FG_LEASE_QUOTA (release one first). FG_CHECKSUM_MISMATCH: the
 * bytes are not those that were published; the frame is skipped and counted, and out->sequence is its
 * number. The lease lives until
 * fg_subscriber_release, on any thread; it keeps the subscriber handle and its mapping alive. */
fg_status fg_subscriber_take(fg_subscriber* subscriber, int64_t timeout_ns, fg_frame* out);
/* The same without waiting, with the policy said by the call: the newest unseen frame / the next
 * one. Members of a group take only as their policy says: FG_UNSUPPORTED for the newest one and for
 * peek, whose lease would look like work. */
fg_status fg_subscriber_take_latest(fg_subscriber* subscriber, fg_frame* out);
fg_status fg_subscriber_take_next(fg_subscriber* subscriber, fg_frame* out);
/* The newest frame even if it was seen; leaves the position alone. FG_EMPTY if nothing was ever
 * published. */
fg_status fg_subscriber_peek(fg_subscriber* subscriber, fg_frame* out);

/* Validated copies of the frame's array descriptors (at most frame->array_count). `count` may be
 * NULL. Hot. */
fg_status fg_subscriber_arrays(fg_subscriber* subscriber, const fg_frame* frame, fg_array* out,
                               size_t capacity, size_t* count);

/* Ends the lease; the pointers of `frame` are dead and data becomes NULL. Hot; wakes loans that
 * wait for space. FG_LEASE_LOST: it ended before, its bytes were not protected to the end (see
 * crash-safety). */
fg_status fg_subscriber_release(fg_subscriber* subscriber, fg_frame* frame);

/* Members of a group acknowledge a frame by releasing it. This gives it back unfinished instead:
 * the lease ends, and the next take of some member (maybe this one) gets the frame again. The same
 * happens to the frames of a member that dies. FG_INVALID_ARGUMENT: not a member; the lease stays. */
fg_status fg_subscriber_nack(fg_subscriber* subscriber, fg_frame* frame);

/* Its topic, for the functions above; valid as long as the subscriber. Do not close it. */
fg_topic* fg_subscriber_topic(const fg_subscriber* subscriber);

/* Sleeps until there is an unseen frame. FG_OK, FG_TIMEOUT, FG_INTERRUPTED, FG_CLOSED. */
fg_status fg_subscriber_wait(fg_subscriber* subscriber, int64_t timeout_ns);

/* For event loops. The fd (an epoll fd owned by the subscriber; never read it, never close it) is
 * readable when something may have happened after arming. The cycle: drain; take until FG_EMPTY;
 * arm; if *ready take again, else wait for readability. The fd also ticks about once a second while
 * armed: drain then sweeps and re-checks, which covers publishers that died before waking anybody.
 * One thread at a time should run the cycle. */
fg_status fg_subscriber_event_fd(fg_subscriber* subscriber, int* fd);
fg_status fg_subscriber_arm(fg_subscriber* subscriber, int* ready);
fg_status fg_subscriber_drain(fg_subscriber* subscriber);

typedef struct fg_subscriber_stats {
    uint32_t struct_bytes;
    uint32_t leases;     /* held now */
    uint32_t leases_max; /* quota */
    uint32_t policy;
    uint64_t position; /* sequence of the last frame taken or skipped */
    uint64_t head;     /* newest sequence of the topic */
    uint64_t received; /* frames taken */
    uint64_t lost; /* queue: frames overwritten before they were taken; latest: frames jumped over;
                 reliable, group: 0, unless somebody breaks the rules of the segment */
    uint64_t corrupt; /* frames refused with FG_CHECKSUM_MISMATCH */
} fg_subscriber_stats;

fg_status fg_subscriber_get_stats(const fg_subscriber* subscriber, fg_subscriber_stats* out);

/* As for publishers; with live leases the detach happens at the last release. */
void fg_subscriber_retain(fg_subscriber* subscriber);
void fg_subscriber_release_handle(fg_subscriber* subscriber);
void fg_subscriber_close(fg_subscriber* subscriber);

/* ---- control messages ---- */

typedef struct fg_control {
    uint32_t sender; /* fg_participant.index of the subscriber */
    uint32_t type;   /* the application's */
    uint32_t bytes;
    uint32_t reserved;
    unsigned char data[FG_LETTER_BYTES_MAX];
} fg_control;

/* Sends a small message to every publisher of the topic; `reached` (may be NULL, always written)
 * counts those who got it. Never waits: FG_MAILBOX_FULL if a publisher does not read its messages
 * (the others have it). FG_INVALID_ARGUMENT over FG_LETTER_BYTES_MAX; FG_UNSUPPORTED if the topic
 * was created with mailbox_bytes 0. */
fg_status fg_subscriber_send_control(fg_subscriber* subscriber, uint32_t type, const void* data,
                                     uint32_t bytes, uint32_t* reached);
/* Takes up to `capacity` messages, oldest first; `count` may be 0. Never waits. Hot. */
fg_status fg_publisher_controls(fg_publisher* publisher, fg_control* out, size_t capacity,
                                size_t* count);

/* ---- calls ----
 *
 * A caller fills a slot and posts it as a request to one of the topic's responders; the answer
 * comes back in another slot. Neither is a frame: subscribers see nothing of it, and requests and
 * replies need not follow the topic's schema (array_count 0 is raw bytes). Callers and responders
 * are participants with a mailbox each; a call needs two slots that nothing else occupies.
 */

typedef struct fg_caller fg_caller;
typedef struct fg_responder fg_responder;

typedef struct fg_caller_options {
    uint32_t struct_bytes;
    uint32_t
        calls_max; /* in flight at once, 1 to the letters of a mailbox; 0, the default: these */
    uint32_t name_bytes; /* at most FG_PARTICIPANT_NAME_BYTES_MAX */
    uint32_t reserved;
    const char* name; /* shown by inspectors; may be NULL */
} fg_caller_options;

void fg_caller_options_init(fg_caller_options* options);
fg_status fg_caller_open(fg_topic* topic, const fg_caller_options* options, fg_caller** out);

/* The publisher that lends this caller its slots: for fg_publisher_loan and fg_publisher_abandon,
 * nothing else. Valid as long as the caller. Its loans wait while no second slot is free, so that
 * requests cannot take the slots of the replies. */
fg_publisher* fg_caller_loans(fg_caller* caller);

/* Posts the loan to the responder that has the least to do. Never waits. On FG_OK the loan is
 * consumed, and `call` is the number of the call, which ends by fg_caller_wait or fg_caller_cancel.
 * The time-out starts here; the responder sees it. FG_NO_RESPONDER, FG_MAILBOX_FULL (all of them),
 * FG_CALLS_EXHAUSTED: the loan stays good. FG_RESPONDER_DIED, FG_LOAN_LOST: it is gone. */
fg_status fg_caller_call(fg_caller* caller, fg_loan* loan, const fg_publish_info* info,
                         int64_t timeout_ns, uint64_t* call);
/* Waits for the answer, at most `timeout_ns`: then FG_EMPTY, and the call goes on. Everything else
 * ends the call: FG_OK (the reply is leased until fg_caller_release), FG_CALL_FAILED
 * (fg_last_error() is what the responder said), FG_RESPONDER_DIED, FG_TIMEOUT (of the call),
 * FG_CLOSED. FG_INTERRUPTED: it goes on. */
fg_status fg_caller_wait(fg_caller* caller, uint64_t call, int64_t timeout_ns, fg_frame* reply);
/* Nobody waits any more; an answer that comes yet is thrown away. Harmless for a call that ended. */
fg_status fg_caller_cancel(fg_caller* caller, uint64_t call);

/* Of a reply: as for frames of a subscriber. `sequence` of a reply is no sequence of the topic. */
fg_status fg_caller_arrays(fg_caller* caller, const fg_frame* reply, fg_array* out, size_t capacity,
                           size_t* count);
fg_status fg_caller_release(fg_caller* caller, fg_frame* reply);

/* As for subscribers: drain; wait with time-out 0 for each call; arm; sleep unless *ready. */
fg_status fg_caller_event_fd(fg_caller* caller, int* fd);
fg_status fg_caller_arm(fg_caller* caller, int* ready);
fg_status fg_caller_drain(fg_caller* caller);

void fg_caller_retain(fg_caller* caller);
void fg_caller_release_handle(fg_caller* caller);
/* Ends all calls. Detaches when the last reply is released. NULL is allowed. */
void fg_caller_close(fg_caller* caller);

typedef struct fg_responder_options {
    uint32_t struct_bytes;
    uint32_t requests_max; /* taken and not answered, at once, at most FG_REQUESTS_MAX; 0, the
                            * default: as many as a mailbox has letters */
    uint32_t name_bytes;   /* at most FG_PARTICIPANT_NAME_BYTES_MAX */
    uint32_t reserved;
    const char* name; /* shown by inspectors; may be NULL */
} fg_responder_options;

void fg_responder_options_init(fg_responder_options* options);
fg_status fg_responder_open(fg_topic* topic, const fg_responder_options* options,
                            fg_responder** out);
/* Lends the slots of replies, as fg_caller_loans. */
fg_publisher* fg_responder_loans(fg_responder* responder);

typedef struct fg_request {
    fg_frame frame;       /* leased until fg_responder_release(&frame), answered or not */
    uint64_t id;          /* 0 once answered; private */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC at which the caller gives up; UINT64_MAX: never */
    uint32_t caller;      /* fg_participant.index */
    uint32_t reserved;
} fg_request;

/* Takes a request, waiting for one. Those whose caller is gone or gave up are skipped. FG_EMPTY
 * (time-out 0), FG_TIMEOUT, FG_INTERRUPTED, FG_CLOSED, FG_LEASE_QUOTA (answer one first). Each must
 * be answered by reply, fail or drop. */
fg_status fg_responder_take(fg_responder* responder, int64_t timeout_ns, fg_request* out);
/* Posts the loan as the answer and consumes it. FG_CALLER_GONE: nobody waits any more; the request
 * is over. FG_MAILBOX_FULL and refusals of `info`: loan and request stay good. */
fg_status fg_responder_reply(fg_responder* responder, fg_request* request, fg_loan* loan,
                             const fg_publish_info* info);
/* Answers with a text, cut after FG_LETTER_BYTES_MAX bytes: FG_CALL_FAILED for the caller. */
fg_status fg_responder_fail(fg_responder* responder, fg_request* request, const char* text,
                            size_t text_bytes);
/* Answers that there will be no answer. Harmless when it was answered. */
void fg_responder_drop(fg_responder* responder, fg_request* request);

fg_status fg_responder_arrays(fg_responder* responder, const fg_frame* request, fg_array* out,
                              size_t capacity, size_t* count);
fg_status fg_responder_release(fg_responder* responder, fg_frame* request);
fg_status fg_responder_event_fd(fg_responder* responder, int* fd);
fg_status fg_responder_arm(fg_responder* responder, int* ready);
fg_status fg_responder_drain(fg_responder* responder);
void fg_responder_retain(fg_responder* responder);
void fg_responder_release_handle(fg_responder* responder);
/* Takes no more requests and fails those that nobody took. Those taken can still be answered: the
 * participant detaches with the last of them. NULL is allowed. */
void fg_responder_close(fg_responder* responder);

/* ---- inspector ---- */

typedef struct fg_topic_stats {
    uint32_t struct_bytes;
    uint32_t publishers;  /* living */
    uint32_t subscribers; /* living */
    uint32_t dead;        /* rows whose owner died and that nobody reaped yet */
    uint64_t head;        /* newest sequence, 0: none yet */
    uint32_t slots_free;
    uint32_t slots_loaned; /* being filled or committed */
    uint32_t slots_published;
    uint32_t slots_leased; /* published ones with at least one lease */
} fg_topic_stats;

enum { FG_ROLE_PUBLISHER = 1, FG_ROLE_SUBSCRIBER = 2, FG_ROLE_CALLER = 3, FG_ROLE_RESPONDER = 4 };

typedef struct fg_participant {
    uint32_t index;
    uint32_t role;
    uint32_t policy; /* of a subscriber */
    uint32_t alive;  /* 0: died, not reaped yet */
    int32_t pid;     /* as its own pid namespace counts; for people only */
    uint32_t leases;
    uint64_t position;
    uint64_t received; /* subscriber: taken; publisher: published */
    uint64_t lost;
    uint64_t corrupt; /* frames whose checksum was wrong */
    uint64_t attached_unix_ns;
    char name[FG_PARTICIPANT_NAME_BYTES_MAX]; /* not zero-terminated */
    uint32_t name_bytes;
    uint32_t group_bytes;
    char group[FG_GROUP_NAME_BYTES_MAX]; /* of a group's member; not zero-terminated */
} fg_participant;

enum {
    FG_SLOT_FREE = 0,     /* holds no frame */
    FG_SLOT_LOANED = 1,   /* `owner` fills it */
    FG_SLOT_PUBLISHED = 2 /* holds frame `sequence`, leased by `holders` */
};
#define FG_SLOT_NO_OWNER UINT32_MAX

/* One slot as an inspector sees it. */
typedef struct fg_slot {
    uint32_t index;
    uint32_t state;    /* FG_SLOT_* */
    uint32_t owner;    /* loaned: fg_participant.index of the publisher, else FG_SLOT_NO_OWNER */
    uint32_t reserved; /* zero */
    uint64_t sequence; /* published: of the frame, else 0 */
    uint64_t bytes;    /* published: payload bytes of the frame, else 0 */
    uint64_t published_ns; /* published: CLOCK_MONOTONIC of the publisher, else 0 */
    uint64_t holders[FG_PARTICIPANTS_MAX / 64]; /* bit i % 64 of word i / 64: participant i leases
                                                 * it, or just checks whether it may */
} fg_slot;

/* Opens the control file read-only: looks without taking part. Numbers are a snapshot of moving
 * things. */
fg_status fg_inspector_open(const char* name, size_t name_bytes, fg_inspector** out);
fg_status fg_inspector_get_info(const fg_inspector* inspector, fg_topic_info* out);
fg_status fg_inspector_schema(const fg_inspector* inspector, fg_array* out, size_t capacity,
                              size_t* count);
/* As fg_topic_metadata. */
fg_status fg_inspector_metadata(const fg_inspector* inspector, void* out, size_t capacity,
                                size_t* bytes, uint32_t* generation);
fg_status fg_inspector_stats(fg_inspector* inspector, fg_topic_stats* out);
/* Fills up to `capacity` rows; `count` is the number that exist. One system call per row. */
fg_status fg_inspector_participants(fg_inspector* inspector, fg_participant* out, size_t capacity,
                                    size_t* count);
/* Fills up to `capacity` slots, in order; `count` is the number that exist. Each slot is consistent
 * in itself, as seen at one moment. No system call. */
fg_status fg_inspector_slots(fg_inspector* inspector, fg_slot* out, size_t capacity, size_t* count);
void fg_inspector_close(fg_inspector* inspector);

/* ---- sizes, for tests of bindings ---- */

typedef struct fg_struct_size {
    const char* name; /* "fg_loan" */
    uint32_t bytes;
} fg_struct_size;
const fg_struct_size* fg_struct_sizes(size_t* count);

#ifdef __cplusplus
}
#endif
#endif /* FRAMEGATE_SHM_H */
