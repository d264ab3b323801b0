// Mailboxes in which a hostile peer writes at any moment: an input is a list of steps, each either a
// write into a mailbox (or into the words of slots that letters name) or something that callers,
// responders, senders and publishers do. Nothing may crash, hang or read outside.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "layout.hpp"
#include "support.hpp"
#include "topic.hpp"

namespace {

constexpr char kName[] = "mail";
constexpr std::uint64_t kSlotBytes = 256;
constexpr std::uint32_t kRows = 6;
constexpr std::size_t kCalls = 4;

struct Scene {
    fg_topic* topic = nullptr;
    fg_publisher* publisher = nullptr;
    fg_subscriber* subscriber = nullptr;
    fg_caller* caller = nullptr;
    fg_responder* responder = nullptr;
    fg_loan loan{};
    std::uint64_t calls[kCalls] = {};
    fg_frame replies[kCalls] = {};
    fg_request requests[kCalls] = {};
    unsigned char* control = nullptr;
    std::size_t control_bytes = 0;
};

void begin(Scene& scene) {
    fg_topic_options options;
    fg_topic_options_init(&options);
    options.slots = 6;
    options.slot_bytes = kSlotBytes;
    options.participants_max = kRows;
    options.mailbox_bytes = 4096;
    int fd = -1;
    fuzz::demand(fg_topic_create(kName, sizeof kName - 1, &options, &scene.topic) == FG_OK &&
                     fg_publisher_open(scene.topic, nullptr, &scene.publisher) == FG_OK &&
                     fg_subscriber_open(scene.topic, nullptr, &scene.subscriber) == FG_OK &&
                     fg_caller_open(scene.topic, nullptr, &scene.caller) == FG_OK &&
                     fg_responder_open(scene.topic, nullptr, &scene.responder) == FG_OK &&
                     fg_caller_event_fd(scene.caller, &fd) == FG_OK &&
                     fg_responder_event_fd(scene.responder, &fd) == FG_OK,
                 "a topic and its participants");
    scene.control_bytes =
        reinterpret_cast<framegate::impl::Topic*>(scene.topic)->identity_.control_bytes;
    const int control =
        open(fuzz::runtime_directory().file("mail.ctl").c_str(), O_RDWR | O_CLOEXEC);
    void* memory =
        mmap(nullptr, scene.control_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, control, 0);
    fuzz::demand(control >= 0 && memory != MAP_FAILED, "the mapping of the hostile peer");
    close(control);
    scene.control = static_cast<unsigned char*>(memory);
}

void end(Scene& scene) {
    for (std::size_t i = 0; i < kCalls; ++i) {
        if (scene.replies[i].data != nullptr) {
            static_cast<void>(fg_caller_release(scene.caller, &scene.replies[i]));
        }
        fg_responder_drop(scene.responder, &scene.requests[i]);
        if (scene.requests[i].frame.data != nullptr) {
            static_cast<void>(fg_responder_release(scene.responder, &scene.requests[i].frame));
        }
    }
    fg_caller_close(scene.caller);
    fg_responder_close(scene.responder);
    fg_subscriber_close(scene.subscriber);
    fg_publisher_close(scene.publisher);
    fg_topic_close(scene.topic);
    munmap(scene.control, scene.control_bytes);
    static_cast<void>(fg_topic_unlink(kName, sizeof kName - 1));
}

// Values that could be good, where mailboxes and those who read them look.
void write_word(Scene& scene, fuzz::Input& input) {
    const auto* topic = reinterpret_cast<framegate::impl::Topic*>(scene.topic);
    std::uint64_t value = input.next<std::uint64_t>();
    std::uint64_t at = 0;
    if (input.below(6) == 0) {
        at = topic->identity_.slots_offset + input.below(6) * sizeof(framegate::impl::SlotRecord) +
             input.below(16) * 8;
    } else if (input.below(8) == 0) {
        at = topic->identity_.participants_offset +
             input.below(kRows) * sizeof(framegate::impl::ParticipantRow) + input.below(24) * 8;
    } else {
        at = topic->identity_.mailboxes_offset + input.below(kRows) * 4096;
        at += input.below(3) == 0 ? input.below(32) * 8
                                  : 256 + input.below(15) * 256 + input.below(9) * 8;
    }
    switch (input.below(4)) {
        case 0:  // small numbers: tickets, epochs, participants, slots, generations
            value %= 8;
            break;
        case 1:  // the word of a cell or a slot
            value = framegate::impl::slot_word(
                value % 8, static_cast<std::uint32_t>(value >> 8 & 0xfff),
                static_cast<framegate::impl::SlotState>(value >> 24 & 0x7));
            break;
        case 2:  // two small halves
            value = value % 8 << 32 | (value >> 32) % 8;
            break;
        default:
            break;
    }
    if (at + sizeof value <= scene.control_bytes) {
        std::memcpy(scene.control + at, &value, sizeof value);
    }
}

// A filled loan; false if there is none.
bool fill(fg_publisher* loans, fg_loan* loan, std::uint32_t bytes) {
    if (fg_publisher_loan(loans, bytes, 0, loan) != FG_OK) {
        loan->data = nullptr;
        return false;
    }
    std::memset(loan->data, 7, bytes);
    return true;
}

fg_publish_info info_of(std::uint64_t bytes) {
    fg_publish_info info;
    fg_publish_info_init(&info);
    info.bytes = bytes;
    info.user_metadata = "\x81\xa1k\x01";
    info.user_metadata_bytes = 4;
    return info;
}

void look_at(const fg_frame& frame) {
    fuzz::demand(frame.bytes <= 2 * kSlotBytes, "a message fits its slot");
    fuzz::demand(frame.content_type_bytes <= FG_CONTENT_TYPE_BYTES_MAX, "a content type is short");
    fuzz::demand(frame.user_metadata_bytes <= FG_USER_METADATA_BYTES_MAX, "metadata is short");
    fuzz::read_all(frame.data, frame.bytes);
    fuzz::read_all(frame.content_type, frame.content_type_bytes);
    fuzz::read_all(frame.user_metadata, frame.user_metadata_bytes);
}

void call(Scene& scene, fuzz::Input& input) {
    const std::size_t i = input.below(kCalls);
    fg_array arrays[FG_ARRAYS_MAX];
    std::size_t count = 0;
    if (scene.replies[i].data != nullptr) {
        static_cast<void>(
            fg_caller_arrays(scene.caller, &scene.replies[i], arrays, FG_ARRAYS_MAX, &count));
        static_cast<void>(fg_caller_release(scene.caller, &scene.replies[i]));
    } else if (scene.calls[i] != 0) {
        if (input.below(4) == 0) {
            static_cast<void>(fg_caller_cancel(scene.caller, scene.calls[i]));
            scene.calls[i] = 0;
            return;
        }
        const fg_status status = fg_caller_wait(scene.caller, scene.calls[i], 0, &scene.replies[i]);
        if (status == FG_OK) {
            look_at(scene.replies[i]);
        } else {
            scene.replies[i].data = nullptr;
        }
        scene.calls[i] = status == FG_EMPTY ? scene.calls[i] : 0;
    } else {
        fg_loan loan{};
        fg_publisher* loans = fg_caller_loans(scene.caller);
        const std::uint32_t bytes = input.below(kSlotBytes);
        const fg_publish_info info = info_of(bytes);
        if (fill(loans, &loan, bytes) &&
            fg_caller_call(scene.caller, &loan, &info, input.below(2) == 0 ? -1 : 1000000000,
                           &scene.calls[i]) != FG_OK) {
            scene.calls[i] = 0;
            static_cast<void>(fg_publisher_abandon(loans, &loan));
        }
    }
}

void serve(Scene& scene, fuzz::Input& input) {
    fg_request& request = scene.requests[input.below(kCalls)];
    if (request.id == 0 && request.frame.data == nullptr) {
        if (fg_responder_take(scene.responder, 0, &request) == FG_OK) {
            look_at(request.frame);
        } else {
            request = fg_request{};
        }
        return;
    }
    fg_loan loan{};
    fg_publisher* loans = fg_responder_loans(scene.responder);
    const std::uint32_t bytes = input.below(kSlotBytes);
    const fg_publish_info info = info_of(bytes);
    switch (input.below(4)) {
        case 0:
            static_cast<void>(fg_responder_fail(scene.responder, &request, "because", 7));
            break;
        case 1:
            fg_responder_drop(scene.responder, &request);
            break;
        case 2:
            if (request.id != 0 && fill(loans, &loan, bytes) &&
                fg_responder_reply(scene.responder, &request, &loan, &info) != FG_OK) {
                static_cast<void>(fg_publisher_abandon(loans, &loan));
            }
            break;
        default:
            if (request.frame.data != nullptr) {
                static_cast<void>(fg_responder_release(scene.responder, &request.frame));
            }
    }
}

void step(Scene& scene, fuzz::Input& input) {
    fg_control controls[4];
    std::size_t count = 0;
    std::uint32_t reached = 0;
    int ready = 0;
    switch (input.below(16)) {
        case 0:
        case 1:
        case 2:
        case 3:
            write_word(scene, input);
            break;
        case 4: {
            const std::size_t first =
                reinterpret_cast<framegate::impl::Topic*>(scene.topic)->identity_.mailboxes_offset;
            scene.control[first + input.next<std::uint32_t>() % (scene.control_bytes - first)] =
                input.next<std::uint8_t>();
            break;
        }
        case 5:
        case 6:
        case 7:
            call(scene, input);
            break;
        case 8:
        case 9:
        case 10:
            serve(scene, input);
            break;
        case 11:
            static_cast<void>(
                fg_subscriber_send_control(scene.subscriber, 1, "control", 7, &reached));
            break;
        case 12:
            if (fg_publisher_controls(scene.publisher, controls, 4, &count) == FG_OK) {
                fuzz::demand(count <= 4, "as many controls as were asked for");
                for (std::size_t i = 0; i < count; ++i) {
                    fuzz::demand(controls[i].bytes <= FG_LETTER_BYTES_MAX, "a control is short");
                }
            }
            break;
        case 13:
            static_cast<void>(fg_caller_arm(scene.caller, &ready));
            static_cast<void>(fg_caller_drain(scene.caller));
            static_cast<void>(fg_responder_arm(scene.responder, &ready));
            static_cast<void>(fg_responder_drain(scene.responder));
            break;
        case 14: {
            fg_resize_options options;
            fg_resize_options_init(&options);
            options.slots = 6 + input.below(3);
            if (input.below(8) == 0) {  // it is the slowest step by far
                static_cast<void>(fg_topic_resize(scene.topic, &options));
            }
            break;
        }
        default:
            static_cast<void>(fg_topic_sweep(scene.topic, nullptr));
            fuzz::inspect(kName);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static_cast<void>(fuzz::runtime_directory());
    fuzz::Input input(data, size);
    Scene scene;
    begin(scene);
    for (int steps = 0; steps < 96 && !input.empty(); ++steps) {
        step(scene, input);
    }
    end(scene);
    return 0;
}
