// shm.h over the classes: null checks by argument name, struct sizes, nothing else.
#include <cmath>
#include <cstddef>
#include <cstring>

#include "arrays.hpp"
#include "checksum.hpp"
#include "collect.hpp"
#include "framegate/shm.h"
#include "inspector.hpp"
#include "liveness.hpp"
#include "metadata.hpp"
#include "names.hpp"
#include "publisher.hpp"
#include "status.hpp"
#include "subscriber.hpp"
#include "topic.hpp"
#include "values.hpp"

// Hidden by default; the functions of shm.h are what a shared object built from this library may
// export.
#pragma GCC visibility push(default)

namespace {

using framegate::impl::fail;
using framegate::impl::Inspector;
using framegate::impl::Publisher;
using framegate::impl::Subscriber;
using framegate::impl::Topic;

Topic* unwrap(fg_topic* topic) { return reinterpret_cast<Topic*>(topic); }
const Topic* unwrap(const fg_topic* topic) { return reinterpret_cast<const Topic*>(topic); }
Publisher* unwrap(fg_publisher* publisher) { return reinterpret_cast<Publisher*>(publisher); }
Subscriber* unwrap(fg_subscriber* subscriber) { return reinterpret_cast<Subscriber*>(subscriber); }
Inspector* unwrap(fg_inspector* inspector) { return reinterpret_cast<Inspector*>(inspector); }

fg_status is_null(const char* argument) {
    return fail(FG_INVALID_ARGUMENT, "%s is NULL", argument);
}

fg_status wrong_size(const char* type, std::uint32_t bytes) {
    return fail(FG_INVALID_ARGUMENT,
                "%s.struct_bytes is %u: initialise the struct with sizeof or its fg_*_init", type,
                bytes);
}

constexpr fg_status_info kStatusTable[] = {
#define FG_STATUS_ROW(name, number, text) {FG_##name, #name, text},
    FG_STATUS_LIST(FG_STATUS_ROW)
#undef FG_STATUS_ROW
};

constexpr fg_struct_size kStructSizes[] = {
#define FG_SIZE_ROW(type) {#type, sizeof(type)}
    FG_SIZE_ROW(fg_array),
    FG_SIZE_ROW(fg_caller_options),
    FG_SIZE_ROW(fg_control),
    FG_SIZE_ROW(fg_frame),
    FG_SIZE_ROW(fg_loan),
    FG_SIZE_ROW(fg_metadata),
    FG_SIZE_ROW(fg_participant),
    FG_SIZE_ROW(fg_publish_info),
    FG_SIZE_ROW(fg_publisher_options),
    FG_SIZE_ROW(fg_request),
    FG_SIZE_ROW(fg_responder_options),
    FG_SIZE_ROW(fg_resize_options),
    FG_SIZE_ROW(fg_status_info),
    FG_SIZE_ROW(fg_struct_size),
    FG_SIZE_ROW(fg_subscriber_options),
    FG_SIZE_ROW(fg_subscriber_stats),
    FG_SIZE_ROW(fg_topic_info),
    FG_SIZE_ROW(fg_topic_options),
    FG_SIZE_ROW(fg_slot),
    FG_SIZE_ROW(fg_topic_stats),
    FG_SIZE_ROW(fg_value),
#undef FG_SIZE_ROW
};

}  // namespace

// Version 1 knows one size of each struct; a later version that appends fields accepts the smaller
// ones, too.
#define FG_REQUIRE(argument)           \
    do {                               \
        if ((argument) == nullptr) {   \
            return is_null(#argument); \
        }                              \
    } while (false)
#define FG_REQUIRE_STRUCT(type, argument)                       \
    do {                                                        \
        FG_REQUIRE(argument);                                   \
        if ((argument)->struct_bytes != sizeof(type)) {         \
            return wrong_size(#type, (argument)->struct_bytes); \
        }                                                       \
    } while (false)

extern "C" {

// ---- status

const fg_status_info* fg_status_table(size_t* count) {
    if (count != nullptr) {
        *count = sizeof kStatusTable / sizeof kStatusTable[0];
    }
    return kStatusTable;
}

const char* fg_last_error(void) { return framegate::impl::last_error(); }

uint32_t fg_layout_version(void) { return FG_LAYOUT_VERSION; }

const fg_struct_size* fg_struct_sizes(size_t* count) {
    if (count != nullptr) {
        *count = sizeof kStructSizes / sizeof kStructSizes[0];
    }
    return kStructSizes;
}

// ---- names and places

fg_status fg_topic_name_check(const char* name, size_t name_bytes) {
    FG_REQUIRE(name);
    return framegate::impl::check_topic_name(name, name_bytes);
}

fg_status fg_topic_file_name(const char* name, size_t name_bytes, char* out, size_t out_bytes) {
    FG_REQUIRE(name);
    FG_REQUIRE(out);
    return framegate::impl::topic_file_stem(name, name_bytes, out, out_bytes);
}

fg_status fg_topic_name_from_file(const char* file, size_t file_bytes, char* out,
                                  size_t out_bytes) {
    FG_REQUIRE(file);
    FG_REQUIRE(out);
    return framegate::impl::topic_name_from_file(file, file_bytes, out, out_bytes);
}

fg_status fg_runtime_directory(char* out, size_t out_bytes) {
    FG_REQUIRE(out);
    return framegate::impl::runtime_directory_path(out, out_bytes);
}

// ---- arrays

uint32_t fg_dtype_item_bytes(fg_dtype dtype) { return framegate::impl::dtype_item_bytes(dtype); }

const char* fg_dtype_name(fg_dtype dtype) { return framegate::impl::dtype_name(dtype); }

fg_dtype fg_dtype_from_name(const char* name, size_t name_bytes) {
    return name == nullptr ? fg_dtype{0} : framegate::impl::dtype_from_name(name, name_bytes);
}

fg_status fg_arrays_lay_out(fg_array* arrays, size_t count, uint64_t* payload_bytes) {
    FG_REQUIRE(payload_bytes);
    if (count != 0) {
        FG_REQUIRE(arrays);
    }
    return framegate::impl::lay_out_arrays(arrays, count, payload_bytes);
}

// ---- values

fg_status fg_values_encode(const fg_value* values, size_t count, void* out, size_t capacity,
                           size_t* bytes) {
    if (count != 0) {
        FG_REQUIRE(values);
    }
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    FG_REQUIRE(bytes);
    return framegate::impl::encode_values(values, count, out, capacity, bytes);
}

fg_status fg_values_decode(const void* data, size_t bytes, fg_value* out, size_t capacity,
                           size_t* count) {
    if (bytes != 0) {
        FG_REQUIRE(data);
    }
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    FG_REQUIRE(count);
    return framegate::impl::decode_values(data, bytes, out, capacity, count);
}

// ---- metadata

fg_status fg_metadata_next(const void* metadata, size_t bytes, size_t* position, uint32_t* array,
                           fg_value* out, size_t capacity, size_t* count) {
    FG_REQUIRE(position);
    FG_REQUIRE(array);
    FG_REQUIRE(count);
    if (bytes != 0) {
        FG_REQUIRE(metadata);
    }
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    return framegate::impl::next_metadata(metadata, bytes, position, array, out, capacity, count);
}

fg_status fg_topic_metadata(const fg_topic* topic, void* out, size_t capacity, size_t* bytes,
                            uint32_t* generation) {
    FG_REQUIRE(topic);
    FG_REQUIRE(bytes);
    FG_REQUIRE(generation);
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    const Topic& impl = *unwrap(topic);
    if (const fg_status status = framegate::impl::check_usable(impl); status != FG_OK) {
        return status;
    }
    return framegate::impl::read_metadata(impl.identity_, impl.control_, out, capacity, bytes,
                                          generation);
}

uint32_t fg_topic_metadata_generation(const fg_topic* topic) {
    if (topic == nullptr || framegate::impl::check_usable(*unwrap(topic)) != FG_OK) {
        return 0;
    }
    // acquire; pairs with the release of an append.
    return framegate::impl::metadata_generation(
        unwrap(topic)->view_.shared->metadata.load(std::memory_order_acquire));
}

fg_status fg_topic_append_metadata(fg_topic* topic, const fg_metadata* metadata,
                                   uint32_t* generation) {
    FG_REQUIRE(topic);
    FG_REQUIRE(metadata);
    uint32_t number = 0;
    const fg_status status = framegate::impl::append_metadata(*unwrap(topic), *metadata, &number);
    if (status == FG_OK && generation != nullptr) {
        *generation = number;
    }
    return status;
}

fg_topic* fg_publisher_topic(const fg_publisher* publisher) {
    return publisher == nullptr ? nullptr
                                : reinterpret_cast<fg_topic*>(
                                      &unwrap(const_cast<fg_publisher*>(publisher))->topic());
}

fg_topic* fg_subscriber_topic(const fg_subscriber* subscriber) {
    return subscriber == nullptr ? nullptr
                                 : reinterpret_cast<fg_topic*>(
                                       &unwrap(const_cast<fg_subscriber*>(subscriber))->topic());
}

fg_status fg_inspector_metadata(const fg_inspector* inspector, void* out, size_t capacity,
                                size_t* bytes, uint32_t* generation) {
    FG_REQUIRE(inspector);
    FG_REQUIRE(bytes);
    FG_REQUIRE(generation);
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    return unwrap(const_cast<fg_inspector*>(inspector))->metadata(out, capacity, bytes, generation);
}

// ---- topic

uint64_t fg_checksum(uint32_t kind, const void* data, size_t bytes) {
    return data == nullptr && bytes != 0 ? 0 : framegate::impl::checksum(kind, data, bytes);
}

void fg_topic_options_init(fg_topic_options* options) {
    *options = fg_topic_options{};
    options->struct_bytes = sizeof *options;
    options->slots = 8;
    options->slot_bytes = 1 << 20;
    options->keep = 1;
    options->participants_max = 128;
    options->metadata_bytes = 4096;
    options->mailbox_bytes = 16384;
    options->mode = 0600;
}

fg_status fg_topic_create(const char* name, size_t name_bytes, const fg_topic_options* options,
                          fg_topic** out) {
    FG_REQUIRE(name);
    FG_REQUIRE_STRUCT(fg_topic_options, options);
    FG_REQUIRE(out);
    return framegate::impl::create_topic(name, name_bytes, *options,
                                         reinterpret_cast<Topic**>(out));
}

fg_status fg_topic_open(const char* name, size_t name_bytes, fg_topic** out) {
    FG_REQUIRE(name);
    FG_REQUIRE(out);
    return framegate::impl::open_topic(name, name_bytes, reinterpret_cast<Topic**>(out));
}

fg_status fg_topic_create_or_open(const char* name, size_t name_bytes,
                                  const fg_topic_options* options, fg_topic** out, int* created) {
    FG_REQUIRE(name);
    FG_REQUIRE_STRUCT(fg_topic_options, options);
    FG_REQUIRE(out);
    bool was_created = false;
    const fg_status status = framegate::impl::create_or_open_topic(
        name, name_bytes, *options, reinterpret_cast<Topic**>(out), &was_created);
    if (status == FG_OK && created != nullptr) {
        *created = was_created ? 1 : 0;
    }
    return status;
}

fg_status fg_topic_unlink(const char* name, size_t name_bytes) {
    FG_REQUIRE(name);
    return framegate::impl::unlink_topic(name, name_bytes);
}

void fg_resize_options_init(fg_resize_options* options) {
    *options = fg_resize_options{};
    options->struct_bytes = sizeof *options;
}

fg_status fg_topic_resize(fg_topic* topic, const fg_resize_options* options) {
    FG_REQUIRE(topic);
    FG_REQUIRE_STRUCT(fg_resize_options, options);
    return framegate::impl::resize_topic(*unwrap(topic), *options);
}

fg_status fg_collect_stale_topics(int64_t age_ns, int dry_run, fg_stale_topic visit, void* context,
                                  uint32_t* orphans) {
    return framegate::impl::collect_stale_topics(age_ns, dry_run != 0, visit, context, orphans);
}

fg_status fg_topic_get_info(const fg_topic* topic, fg_topic_info* out) {
    FG_REQUIRE(topic);
    FG_REQUIRE_STRUCT(fg_topic_info, out);
    // The handle's caches change; what the caller sees of the topic does not.
    Topic& impl = *unwrap(const_cast<fg_topic*>(topic));
    if (const fg_status status = framegate::impl::check_usable(impl); status != FG_OK) {
        return status;
    }
    framegate::impl::Identity newest{};
    if (const fg_status status = framegate::impl::newest_identity(impl, &newest); status != FG_OK) {
        return status;
    }
    framegate::impl::describe(newest, out);
    out->identity[0] = impl.identity_.id[0];
    out->identity[1] = impl.identity_.id[1];
    out->created_unix_ns = impl.identity_.created_unix_ns;
    return FG_OK;
}

const char* fg_topic_name(const fg_topic* topic) {
    return topic == nullptr ? "" : unwrap(topic)->name_;
}

fg_status fg_topic_schema(const fg_topic* topic, fg_array* out, size_t capacity, size_t* count) {
    FG_REQUIRE(topic);
    FG_REQUIRE(count);
    const Topic& impl = *unwrap(topic);
    *count = impl.identity_.schema_count;
    if (capacity != 0 && *count != 0) {
        FG_REQUIRE(out);
        std::memcpy(out, impl.schema_, (*count < capacity ? *count : capacity) * sizeof(fg_array));
    }
    return FG_OK;
}

fg_status fg_topic_sweep(fg_topic* topic, uint32_t* reaped) {
    FG_REQUIRE(topic);
    if (const fg_status status = framegate::impl::check_usable(*unwrap(topic)); status != FG_OK) {
        return status;
    }
    const uint32_t count = framegate::impl::sweep(*unwrap(topic));
    if (reaped != nullptr) {
        *reaped = count;
    }
    return framegate::impl::check_usable(*unwrap(topic));
}

void fg_topic_retain(fg_topic* topic) { framegate::impl::retain_topic(*unwrap(topic)); }

void fg_topic_close(fg_topic* topic) { framegate::impl::release_topic(unwrap(topic)); }

// ---- publisher

void fg_publisher_options_init(fg_publisher_options* options) {
    *options = fg_publisher_options{};
    options->struct_bytes = sizeof *options;
}

fg_status fg_publisher_open(fg_topic* topic, const fg_publisher_options* options,
                            fg_publisher** out) {
    FG_REQUIRE(topic);
    FG_REQUIRE(out);
    fg_publisher_options defaults;
    fg_publisher_options_init(&defaults);
    if (options != nullptr) {
        FG_REQUIRE_STRUCT(fg_publisher_options, options);
    }
    return Publisher::open(*unwrap(topic), options != nullptr ? *options : defaults,
                           reinterpret_cast<Publisher**>(out));
}

fg_status fg_publisher_loan(fg_publisher* publisher, uint64_t bytes, int64_t timeout_ns,
                            fg_loan* out) {
    FG_REQUIRE(publisher);
    FG_REQUIRE(out);
    return unwrap(publisher)->loan(bytes, timeout_ns, out);
}

fg_status fg_publisher_slot_bytes(fg_publisher* publisher, uint64_t* out) {
    FG_REQUIRE(publisher);
    FG_REQUIRE(out);
    return unwrap(publisher)->slot_bytes(out);
}

void fg_publish_info_init(fg_publish_info* info) {
    *info = fg_publish_info{};
    info->struct_bytes = sizeof *info;
    info->timestamp_s = std::nan("");
}

fg_status fg_publisher_publish(fg_publisher* publisher, fg_loan* loan, const fg_publish_info* info,
                               uint64_t* sequence) {
    FG_REQUIRE(publisher);
    FG_REQUIRE(loan);
    FG_REQUIRE_STRUCT(fg_publish_info, info);
    return unwrap(publisher)->publish(loan, *info, sequence);
}

fg_status fg_publisher_announce(fg_publisher* publisher) {
    FG_REQUIRE(publisher);
    return unwrap(publisher)->announce();
}

fg_status fg_publisher_abandon(fg_publisher* publisher, fg_loan* loan) {
    FG_REQUIRE(publisher);
    FG_REQUIRE(loan);
    return unwrap(publisher)->abandon(loan);
}

fg_status fg_publisher_send(fg_publisher* publisher, const void* data, const fg_publish_info* info,
                            int64_t timeout_ns, uint64_t* sequence) {
    FG_REQUIRE(publisher);
    FG_REQUIRE_STRUCT(fg_publish_info, info);
    if (info->bytes != 0) {
        FG_REQUIRE(data);
    }
    return unwrap(publisher)->send(data, *info, timeout_ns, sequence);
}

void fg_publisher_retain(fg_publisher* publisher) { unwrap(publisher)->retain(); }

void fg_publisher_release_handle(fg_publisher* publisher) { unwrap(publisher)->drop_reference(); }

void fg_publisher_close(fg_publisher* publisher) {
    if (publisher != nullptr) {
        unwrap(publisher)->close();
    }
}

// ---- subscriber

void fg_subscriber_options_init(fg_subscriber_options* options) {
    *options = fg_subscriber_options{};
    options->struct_bytes = sizeof *options;
    options->policy = FG_POLICY_LATEST;
    options->start = FG_START_DEFAULT;
}

fg_status fg_subscriber_open(fg_topic* topic, const fg_subscriber_options* options,
                             fg_subscriber** out) {
    FG_REQUIRE(topic);
    FG_REQUIRE(out);
    fg_subscriber_options defaults;
    fg_subscriber_options_init(&defaults);
    if (options != nullptr) {
        FG_REQUIRE_STRUCT(fg_subscriber_options, options);
    }
    return Subscriber::open(*unwrap(topic), options != nullptr ? *options : defaults,
                            reinterpret_cast<Subscriber**>(out));
}

fg_status fg_subscriber_take(fg_subscriber* subscriber, int64_t timeout_ns, fg_frame* out) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE(out);
    return unwrap(subscriber)->take(timeout_ns, out);
}

fg_status fg_subscriber_take_latest(fg_subscriber* subscriber, fg_frame* out) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE(out);
    return unwrap(subscriber)->try_take(Subscriber::Mode::kLatest, out);
}

fg_status fg_subscriber_take_next(fg_subscriber* subscriber, fg_frame* out) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE(out);
    return unwrap(subscriber)->try_take(Subscriber::Mode::kNext, out);
}

fg_status fg_subscriber_peek(fg_subscriber* subscriber, fg_frame* out) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE(out);
    return unwrap(subscriber)->try_take(Subscriber::Mode::kPeek, out);
}

fg_status fg_subscriber_arrays(fg_subscriber* subscriber, const fg_frame* frame, fg_array* out,
                               size_t capacity, size_t* count) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE(frame);
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    return unwrap(subscriber)->arrays(*frame, out, capacity, count);
}

fg_status fg_subscriber_release(fg_subscriber* subscriber, fg_frame* frame) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE(frame);
    return unwrap(subscriber)->release(frame);
}

fg_status fg_subscriber_nack(fg_subscriber* subscriber, fg_frame* frame) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE(frame);
    return unwrap(subscriber)->nack(frame);
}

fg_status fg_subscriber_wait(fg_subscriber* subscriber, int64_t timeout_ns) {
    FG_REQUIRE(subscriber);
    return unwrap(subscriber)->wait(timeout_ns);
}

fg_status fg_subscriber_event_fd(fg_subscriber* subscriber, int* fd) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE(fd);
    return unwrap(subscriber)->event_fd(fd);
}

fg_status fg_subscriber_arm(fg_subscriber* subscriber, int* ready) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE(ready);
    bool is_ready = false;
    const fg_status status = unwrap(subscriber)->arm(&is_ready);
    if (status == FG_OK) {
        *ready = is_ready ? 1 : 0;
    }
    return status;
}

fg_status fg_subscriber_drain(fg_subscriber* subscriber) {
    FG_REQUIRE(subscriber);
    return unwrap(subscriber)->drain();
}

fg_status fg_subscriber_get_stats(const fg_subscriber* subscriber, fg_subscriber_stats* out) {
    FG_REQUIRE(subscriber);
    FG_REQUIRE_STRUCT(fg_subscriber_stats, out);
    // The lock inside changes; what the caller sees of the subscriber does not.
    return unwrap(const_cast<fg_subscriber*>(subscriber))->stats(out);
}

void fg_subscriber_retain(fg_subscriber* subscriber) { unwrap(subscriber)->retain(); }

void fg_subscriber_release_handle(fg_subscriber* subscriber) {
    unwrap(subscriber)->drop_reference();
}

void fg_subscriber_close(fg_subscriber* subscriber) {
    if (subscriber != nullptr) {
        unwrap(subscriber)->close();
    }
}

// ---- inspector

fg_status fg_inspector_open(const char* name, size_t name_bytes, fg_inspector** out) {
    FG_REQUIRE(name);
    FG_REQUIRE(out);
    return Inspector::open(name, name_bytes, reinterpret_cast<Inspector**>(out));
}

fg_status fg_inspector_get_info(const fg_inspector* inspector, fg_topic_info* out) {
    FG_REQUIRE(inspector);
    FG_REQUIRE_STRUCT(fg_topic_info, out);
    return unwrap(const_cast<fg_inspector*>(inspector))->info(out);
}

fg_status fg_inspector_schema(const fg_inspector* inspector, fg_array* out, size_t capacity,
                              size_t* count) {
    FG_REQUIRE(inspector);
    FG_REQUIRE(count);
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    return unwrap(const_cast<fg_inspector*>(inspector))->schema(out, capacity, count);
}

fg_status fg_inspector_stats(fg_inspector* inspector, fg_topic_stats* out) {
    FG_REQUIRE(inspector);
    FG_REQUIRE_STRUCT(fg_topic_stats, out);
    return unwrap(inspector)->stats(out);
}

fg_status fg_inspector_participants(fg_inspector* inspector, fg_participant* out, size_t capacity,
                                    size_t* count) {
    FG_REQUIRE(inspector);
    FG_REQUIRE(count);
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    return unwrap(inspector)->participants(out, capacity, count);
}

fg_status fg_inspector_slots(fg_inspector* inspector, fg_slot* out, size_t capacity,
                             size_t* count) {
    FG_REQUIRE(inspector);
    FG_REQUIRE(count);
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    return unwrap(inspector)->slots(out, capacity, count);
}

void fg_inspector_close(fg_inspector* inspector) {
    if (inspector != nullptr) {
        unwrap(inspector)->close();
    }
}

}  // extern "C"
#pragma GCC visibility pop
