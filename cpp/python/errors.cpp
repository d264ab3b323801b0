#include "errors.hpp"

#include <array>

namespace framegate::py {
namespace {

struct Row {
    fg_status status;
    const char* class_name;
};

constexpr auto kClasses = std::to_array<Row>({
    {FG_INVALID_ARGUMENT, "ShmArgumentError"},
    {FG_BAD_TOPIC_NAME, "TopicNameInvalid"},
    {FG_TOPIC_NOT_FOUND, "TopicNotFound"},
    {FG_TOPIC_EXISTS, "TopicExists"},
    {FG_SEGMENT_INCOMPATIBLE, "SegmentIncompatible"},
    {FG_SEGMENT_CORRUPT, "SegmentCorrupt"},
    {FG_NO_SPACE, "NoSpace"},
    {FG_PERMISSION_DENIED, "PermissionDenied"},
    {FG_RUNTIME_DIRECTORY, "RuntimeDirectoryError"},
    {FG_PARTICIPANTS_FULL, "ParticipantsExhausted"},
    {FG_TOPIC_FULL, "TopicFull"},
    {FG_EMPTY, "ShmTimeout"},  // only a caller who said "now" meets it
    {FG_TIMEOUT, "ShmTimeout"},
    {FG_INTERRUPTED,
     "ShmError"},  // never leaves the module: the wait goes on after the signal handler
    {FG_FRAME_TOO_LARGE, "FrameTooLarge"},
    {FG_LEASE_QUOTA, "LeaseQuotaExceeded"},
    {FG_LEASE_LOST, "LeaseLost"},
    {FG_LOAN_LOST, "LoanLost"},
    {FG_SCHEMA_MISMATCH, "SchemaMismatch"},
    {FG_FORKED, "ForkedHandleError"},
    {FG_POISONED, "HandlePoisoned"},
    {FG_CLOSED, "ClosedError"},
    {FG_MOVED, "TopicMoved"},
    {FG_SEQUENCE_EXHAUSTED, "ShmError"},
    {FG_UNSUPPORTED, "ShmError"},
    {FG_OUT_OF_MEMORY, "ShmError"},
    {FG_SYSTEM, "ShmError"},
    {FG_CHECKSUM_MISMATCH, "ChecksumMismatch"},
    {FG_METADATA_FULL, "MetadataFull"},
    {FG_GROUPS_FULL, "GroupsExhausted"},
    {FG_NO_RESPONDER, "NoResponder"},
    {FG_RESPONDER_DIED, "ResponderDied"},
    {FG_CALL_FAILED, "CallFailed"},
    {FG_MAILBOX_FULL, "MailboxFull"},
    {FG_CALLER_GONE, "CallerGone"},
    {FG_CALLS_EXHAUSTED, "CallsExhausted"},
});

#define FG_COUNT(name, number, text) +1
static_assert(kClasses.size() + 1 == 0 FG_STATUS_LIST(FG_COUNT),
              "every status but FG_OK needs a class");
#undef FG_COUNT

}  // namespace

const char* error_class_name(fg_status status) {
    for (const Row& row : kClasses) {
        if (row.status == status) {
            return row.class_name;
        }
    }
    return status == FG_OK ? nullptr : "ShmError";
}

void raise_error(fg_status status, const std::string& message) {
    // Looked up when needed: importing _shm alone stays free of Python modules, and errors are the
    // rare path.
    const nb::object type = nb::module_::import_("framegate.errors").attr(error_class_name(status));
    // It may quote names out of shared memory, which are bytes.
    const nb::object text = nb::steal(
        PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace"));
    PyErr_SetObject(type.ptr(), text.ptr());
    throw nb::python_error();
}

void raise_status(fg_status status) {
    const char* text = fg_last_error();
    raise_error(status, text != nullptr && text[0] != '\0' ? text : "shared memory call failed");
}

void bind_errors(nb::module_& module) {
    module.def(
        "status_classes",
        [] {
            nb::list rows;
            std::size_t count = 0;
            const fg_status_info* table = fg_status_table(&count);
            for (std::size_t i = 0; i < count; ++i) {
                const char* name = error_class_name(table[i].code);
                rows.append(
                    nb::make_tuple(table[i].name, table[i].code,
                                   name == nullptr ? nb::none() : nb::object(nb::str(name))));
            }
            return rows;
        },
        nb::sig("def status_classes() -> list[tuple[str, int, str | None]]"),
        "Every status of the C ABI as (name, code, class of framegate.errors or None for\n"
        "success).");
}

}  // namespace framegate::py
