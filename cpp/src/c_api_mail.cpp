// The part of shm.h about calls and control messages; see c_api.cpp.
#include <cstddef>
#include <cstring>

#include "caller.hpp"
#include "framegate/shm.h"
#include "responder.hpp"
#include "status.hpp"
#include "subscriber.hpp"

#pragma GCC visibility push(default)

namespace {

using framegate::impl::Caller;
using framegate::impl::fail;
using framegate::impl::Publisher;
using framegate::impl::Responder;
using framegate::impl::Subscriber;
using framegate::impl::Topic;

Caller* unwrap(fg_caller* caller) { return reinterpret_cast<Caller*>(caller); }
Responder* unwrap(fg_responder* responder) { return reinterpret_cast<Responder*>(responder); }

fg_status is_null(const char* argument) {
    return fail(FG_INVALID_ARGUMENT, "%s is NULL", argument);
}

fg_status wrong_size(const char* type, std::uint32_t bytes) {
    return fail(FG_INVALID_ARGUMENT,
                "%s.struct_bytes is %u: initialise the struct with sizeof or its fg_*_init", type,
                bytes);
}

template <typename T>
fg_status arm(T* handle, int* ready) {
    bool is_ready = false;
    const fg_status status = handle->arm(&is_ready);
    if (status == FG_OK) {
        *ready = is_ready ? 1 : 0;
    }
    return status;
}

}  // namespace

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

// ---- control messages

fg_status fg_subscriber_send_control(fg_subscriber* subscriber, uint32_t type, const void* data,
                                     uint32_t bytes, uint32_t* reached) {
    FG_REQUIRE(subscriber);
    if (bytes != 0) {
        FG_REQUIRE(data);
    }
    uint32_t count = 0;
    const fg_status status =
        reinterpret_cast<Subscriber*>(subscriber)->send_control(type, data, bytes, &count);
    if (reached != nullptr) {
        *reached = count;
    }
    return status;
}

fg_status fg_publisher_controls(fg_publisher* publisher, fg_control* out, size_t capacity,
                                size_t* count) {
    FG_REQUIRE(publisher);
    FG_REQUIRE(count);
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    return reinterpret_cast<Publisher*>(publisher)->controls(out, capacity, count);
}

// ---- caller

void fg_caller_options_init(fg_caller_options* options) {
    *options = fg_caller_options{};
    options->struct_bytes = sizeof *options;
}

fg_status fg_caller_open(fg_topic* topic, const fg_caller_options* options, fg_caller** out) {
    FG_REQUIRE(topic);
    FG_REQUIRE(out);
    fg_caller_options defaults;
    fg_caller_options_init(&defaults);
    if (options != nullptr) {
        FG_REQUIRE_STRUCT(fg_caller_options, options);
    }
    return Caller::open(*reinterpret_cast<Topic*>(topic), options != nullptr ? *options : defaults,
                        reinterpret_cast<Caller**>(out));
}

fg_publisher* fg_caller_loans(fg_caller* caller) {
    return reinterpret_cast<fg_publisher*>(static_cast<Publisher*>(unwrap(caller)));
}

fg_status fg_caller_call(fg_caller* caller, fg_loan* loan, const fg_publish_info* info,
                         int64_t timeout_ns, uint64_t* call) {
    FG_REQUIRE(caller);
    FG_REQUIRE(loan);
    FG_REQUIRE_STRUCT(fg_publish_info, info);
    FG_REQUIRE(call);
    return unwrap(caller)->call(loan, *info, timeout_ns, call);
}

fg_status fg_caller_wait(fg_caller* caller, uint64_t call, int64_t timeout_ns, fg_frame* reply) {
    FG_REQUIRE(caller);
    FG_REQUIRE(reply);
    return unwrap(caller)->wait(call, timeout_ns, reply);
}

fg_status fg_caller_cancel(fg_caller* caller, uint64_t call) {
    FG_REQUIRE(caller);
    return unwrap(caller)->cancel(call);
}

fg_status fg_caller_arrays(fg_caller* caller, const fg_frame* reply, fg_array* out, size_t capacity,
                           size_t* count) {
    FG_REQUIRE(caller);
    FG_REQUIRE(reply);
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    return unwrap(caller)->arrays(*reply, out, capacity, count);
}

fg_status fg_caller_release(fg_caller* caller, fg_frame* reply) {
    FG_REQUIRE(caller);
    FG_REQUIRE(reply);
    return unwrap(caller)->release(reply);
}

fg_status fg_caller_event_fd(fg_caller* caller, int* fd) {
    FG_REQUIRE(caller);
    FG_REQUIRE(fd);
    return unwrap(caller)->event_fd(fd);
}

fg_status fg_caller_arm(fg_caller* caller, int* ready) {
    FG_REQUIRE(caller);
    FG_REQUIRE(ready);
    return arm(unwrap(caller), ready);
}

fg_status fg_caller_drain(fg_caller* caller) {
    FG_REQUIRE(caller);
    return unwrap(caller)->drain();
}

void fg_caller_retain(fg_caller* caller) { unwrap(caller)->retain(); }
void fg_caller_release_handle(fg_caller* caller) { unwrap(caller)->drop_reference(); }

void fg_caller_close(fg_caller* caller) {
    if (caller != nullptr) {
        unwrap(caller)->close();
    }
}

// ---- responder

void fg_responder_options_init(fg_responder_options* options) {
    *options = fg_responder_options{};
    options->struct_bytes = sizeof *options;
}

fg_status fg_responder_open(fg_topic* topic, const fg_responder_options* options,
                            fg_responder** out) {
    FG_REQUIRE(topic);
    FG_REQUIRE(out);
    fg_responder_options defaults;
    fg_responder_options_init(&defaults);
    if (options != nullptr) {
        FG_REQUIRE_STRUCT(fg_responder_options, options);
    }
    return Responder::open(*reinterpret_cast<Topic*>(topic),
                           options != nullptr ? *options : defaults,
                           reinterpret_cast<Responder**>(out));
}

fg_publisher* fg_responder_loans(fg_responder* responder) {
    return reinterpret_cast<fg_publisher*>(static_cast<Publisher*>(unwrap(responder)));
}

fg_status fg_responder_take(fg_responder* responder, int64_t timeout_ns, fg_request* out) {
    FG_REQUIRE(responder);
    FG_REQUIRE(out);
    return unwrap(responder)->take(timeout_ns, out);
}

fg_status fg_responder_reply(fg_responder* responder, fg_request* request, fg_loan* loan,
                             const fg_publish_info* info) {
    FG_REQUIRE(responder);
    FG_REQUIRE(request);
    FG_REQUIRE(loan);
    FG_REQUIRE_STRUCT(fg_publish_info, info);
    return unwrap(responder)->reply(request, loan, *info);
}

fg_status fg_responder_fail(fg_responder* responder, fg_request* request, const char* text,
                            size_t text_bytes) {
    FG_REQUIRE(responder);
    FG_REQUIRE(request);
    if (text_bytes != 0) {
        FG_REQUIRE(text);
    }
    return unwrap(responder)->fail_request(request, text, text_bytes);
}

void fg_responder_drop(fg_responder* responder, fg_request* request) {
    if (responder != nullptr && request != nullptr) {
        unwrap(responder)->drop(request);
    }
}

fg_status fg_responder_arrays(fg_responder* responder, const fg_frame* request, fg_array* out,
                              size_t capacity, size_t* count) {
    FG_REQUIRE(responder);
    FG_REQUIRE(request);
    if (capacity != 0) {
        FG_REQUIRE(out);
    }
    return unwrap(responder)->arrays(*request, out, capacity, count);
}

fg_status fg_responder_release(fg_responder* responder, fg_frame* request) {
    FG_REQUIRE(responder);
    FG_REQUIRE(request);
    return unwrap(responder)->release(request);
}

fg_status fg_responder_event_fd(fg_responder* responder, int* fd) {
    FG_REQUIRE(responder);
    FG_REQUIRE(fd);
    return unwrap(responder)->event_fd(fd);
}

fg_status fg_responder_arm(fg_responder* responder, int* ready) {
    FG_REQUIRE(responder);
    FG_REQUIRE(ready);
    return arm(unwrap(responder), ready);
}

fg_status fg_responder_drain(fg_responder* responder) {
    FG_REQUIRE(responder);
    return unwrap(responder)->drain();
}

void fg_responder_retain(fg_responder* responder) { unwrap(responder)->retain(); }
void fg_responder_release_handle(fg_responder* responder) { unwrap(responder)->drop_reference(); }

void fg_responder_close(fg_responder* responder) {
    if (responder != nullptr) {
        unwrap(responder)->close();
    }
}

}  // extern "C"

#pragma GCC visibility pop
