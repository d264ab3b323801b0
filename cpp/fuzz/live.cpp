// A live segment in which a hostile peer writes at any moment: an input is a list of steps, each
// either a write into the control or data file or a call. Nothing may crash, hang or read outside;
// what a frame promises (support.hpp) is demanded of every frame that comes out.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "layout.hpp"
#include "support.hpp"
#include "topic.hpp"

namespace {

constexpr char kName[] = "live";
constexpr std::uint64_t kSlotBytes = 512;
constexpr std::size_t kSubscribers = 3;
constexpr std::size_t kHeld = 4;

struct Held {
    fg_subscriber* subscriber = nullptr;
    fg_frame frame{};
};

struct Scene {
    fg_topic* topic = nullptr;
    fg_publisher* publisher = nullptr;
    fg_subscriber* subscribers[kSubscribers] = {};
    fg_loan loans[2] = {};
    Held held[kHeld];
    unsigned char* control = nullptr;
    unsigned char* payloads = nullptr;
    std::size_t control_bytes = 0;
    std::size_t data_bytes = 0;
};

fg_array image() {
    fg_array array{};
    std::memcpy(array.name, "image", 5);
    array.name_bytes = 5;
    array.dtype = FG_DTYPE_UINT8;
    array.dimension_count = 2;
    array.shape[0] = FG_DIMENSION_ANY;
    array.shape[1] = 4;
    return array;
}

void* map(const std::string& path, std::size_t bytes) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    fuzz::demand(fd >= 0 && memory != MAP_FAILED, "the mapping of the hostile peer");
    close(fd);
    return memory;
}

void begin(Scene& scene, std::uint8_t flags) {
    fg_topic_options options;
    fg_topic_options_init(&options);
    options.slots = 4;
    options.slot_bytes = kSlotBytes;
    options.participants_max = 8;
    const fg_array array = image();
    if ((flags & 1) != 0) {
        options.schema = &array;
        options.schema_count = 1;
    }
    fuzz::demand(fg_topic_create(kName, sizeof kName - 1, &options, &scene.topic) == FG_OK,
                 "a topic");
    fg_topic_info info{};
    info.struct_bytes = sizeof info;
    fuzz::demand(fg_topic_get_info(scene.topic, &info) == FG_OK, "its info");
    fuzz::demand(fg_publisher_open(scene.topic, nullptr, &scene.publisher) == FG_OK, "a publisher");
    for (std::size_t i = 0; i < kSubscribers; ++i) {
        fg_subscriber_options subscriber;
        fg_subscriber_options_init(&subscriber);
        subscriber.policy = i % 2 == 0 ? FG_POLICY_QUEUE : FG_POLICY_LATEST;
        subscriber.leases_max = 3;
        int fd = -1;
        fuzz::demand(fg_subscriber_open(scene.topic, &subscriber, &scene.subscribers[i]) == FG_OK &&
                         (i != 0 || fg_subscriber_event_fd(scene.subscribers[i], &fd) == FG_OK),
                     "a subscriber");
    }
    const fuzz::RuntimeDirectory& directory = fuzz::runtime_directory();
    char data_file[64];
    std::snprintf(data_file, sizeof data_file, "%s.%016llx.data", kName,
                  static_cast<unsigned long long>(info.identity[0]));
    scene.control_bytes = info.control_bytes;
    scene.data_bytes = info.data_bytes;
    scene.control =
        static_cast<unsigned char*>(map(directory.file("live.ctl"), scene.control_bytes));
    scene.payloads = static_cast<unsigned char*>(map(directory.file(data_file), scene.data_bytes));
}

void end(Scene& scene) {
    for (Held& held : scene.held) {
        if (held.frame.data != nullptr) {
            static_cast<void>(fg_subscriber_release(held.subscriber, &held.frame));
        }
    }
    for (fg_loan& loan : scene.loans) {
        static_cast<void>(fg_publisher_abandon(scene.publisher, &loan));
    }
    for (fg_subscriber* subscriber : scene.subscribers) {
        fg_subscriber_close(subscriber);
    }
    fg_publisher_close(scene.publisher);
    fg_topic_close(scene.topic);
    munmap(scene.control, scene.control_bytes);
    munmap(scene.payloads, scene.data_bytes);
    static_cast<void>(fg_topic_unlink(kName, sizeof kName - 1));
}

// Words where the algorithm looks, with values that could be good.
void write_word(Scene& scene, fuzz::Input& input) {
    const auto& identity = reinterpret_cast<framegate::impl::Topic*>(scene.topic)->identity_;
    const std::uint64_t sections[] = {identity.shared_offset, identity.participants_offset,
                                      identity.ring_offset,   identity.slots_offset,
                                      identity.groups_offset, identity.mailboxes_offset};
    const std::uint64_t from = sections[input.below(6)];
    const std::uint64_t at = from + input.below(256) * std::uint64_t{8};
    std::uint64_t value = input.next<std::uint64_t>();
    switch (input.below(4)) {
        case 0:  // small numbers: sequences, indexes, bits
            value %= 16;
            break;
        case 1:  // a slot word
            value = framegate::impl::slot_word(
                value % 8, static_cast<std::uint32_t>(value >> 8 & 0xfff),
                static_cast<framegate::impl::SlotState>(value >> 24 & 0xf));
            break;
        case 2:  // a ring entry
            value = framegate::impl::ring_entry(value % 8,
                                                static_cast<std::uint32_t>(value >> 8 & 0x7));
            break;
        default:
            break;
    }
    if (at + sizeof value <= scene.control_bytes) {
        std::memcpy(scene.control + at, &value, sizeof value);
    }
}

void publish(Scene& scene, fuzz::Input& input) {
    fg_loan& loan = scene.loans[input.below(2)];
    if (loan.data == nullptr && fg_publisher_loan(scene.publisher, kSlotBytes, 0, &loan) != FG_OK) {
        loan.data = nullptr;
        return;
    }
    std::memset(loan.data, 7, kSlotBytes);
    fg_publish_info info;
    fg_publish_info_init(&info);
    fg_array array = image();
    array.shape[0] = 1 + input.below(100);
    std::uint64_t bytes = 0;
    fuzz::demand(fg_arrays_lay_out(&array, 1, &bytes) == FG_OK, "a layout");
    info.bytes = bytes;
    info.arrays = &array;
    info.array_count = 1;
    info.content_type = "image/x";
    info.content_type_bytes = 7;
    info.user_metadata = "\x81\xa1k\x01";
    info.user_metadata_bytes = 4;
    static_cast<void>(fg_publisher_publish(scene.publisher, &loan, &info, nullptr));
}

void take(Scene& scene, fuzz::Input& input) {
    Held& held = scene.held[input.below(kHeld)];
    if (held.frame.data != nullptr) {
        static_cast<void>(fg_subscriber_release(held.subscriber, &held.frame));
        return;
    }
    held.subscriber = scene.subscribers[input.below(kSubscribers)];
    fg_status status = FG_OK;
    switch (input.below(4)) {
        case 0:
            status = fg_subscriber_take(held.subscriber, 0, &held.frame);
            break;
        case 1:
            status = fg_subscriber_take_next(held.subscriber, &held.frame);
            break;
        case 2:
            status = fg_subscriber_take_latest(held.subscriber, &held.frame);
            break;
        default:
            status = fg_subscriber_peek(held.subscriber, &held.frame);
    }
    if (status != FG_OK) {
        held.frame.data = nullptr;
        return;
    }
    fuzz::look_at(held.subscriber, held.frame, kSlotBytes);
}

void step(Scene& scene, fuzz::Input& input) {
    int ready = 0;
    fg_subscriber_stats stats{};
    stats.struct_bytes = sizeof stats;
    switch (input.below(14)) {
        case 0:
        case 1:
        case 2:
            write_word(scene, input);
            break;
        case 3: {
            const std::size_t first = sizeof(framegate::impl::Identity);
            const auto room = static_cast<std::uint32_t>(scene.control_bytes - first);
            scene.control[first + input.next<std::uint32_t>() % room] = input.next<std::uint8_t>();
            break;
        }
        case 4: {
            // Headers more often than payloads.
            const std::size_t slot = input.below(4) * (scene.data_bytes / 4);
            scene.payloads[slot + input.below(5000)] = input.next<std::uint8_t>();
            break;
        }
        case 5:
        case 6:
            publish(scene, input);
            break;
        case 7:
        case 8:
        case 9:
            take(scene, input);
            break;
        case 10:
            static_cast<void>(fg_publisher_abandon(scene.publisher, &scene.loans[input.below(2)]));
            break;
        case 11:
            static_cast<void>(fg_topic_sweep(scene.topic, nullptr));
            break;
        case 12:
            static_cast<void>(fg_subscriber_arm(scene.subscribers[0], &ready));
            static_cast<void>(fg_subscriber_drain(scene.subscribers[0]));
            static_cast<void>(fg_subscriber_get_stats(scene.subscribers[0], &stats));
            break;
        default:
            fuzz::inspect(kName);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static_cast<void>(fuzz::runtime_directory());
    fuzz::Input input(data, size);
    Scene scene;
    begin(scene, input.next<std::uint8_t>());
    for (int steps = 0; steps < 64 && !input.empty(); ++steps) {
        step(scene, input);
    }
    end(scene);
    return 0;
}
