// The opener: control files of every content and size. An input is a few options (so that a good
// identity of any small geometry is a byte away), then a list of patches to the file, then flags:
// whether the checksum is made good again (without that hardly an input gets past it) and whether
// the files are cut.
#include <fcntl.h>
#include <unistd.h>

#include <vector>

#include "layout.hpp"
#include "support.hpp"
#include "topic.hpp"

using framegate::impl::Identity;

namespace {

constexpr char kName[] = "t";

void write_file(const std::string& path, const void* data, std::size_t bytes, std::size_t size) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fuzz::demand(fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0 &&
                     pwrite(fd, data, bytes < size ? bytes : size, 0) >= 0,
                 "a file for the input");
    close(fd);
}

void use(fg_topic* topic) {
    fg_topic_info info{};
    info.struct_bytes = sizeof info;
    fuzz::demand(fg_topic_get_info(topic, &info) == FG_OK, "an open topic has its info");
    fg_publisher* publisher = nullptr;
    fg_subscriber* subscriber = nullptr;
    if (fg_subscriber_open(topic, nullptr, &subscriber) == FG_OK &&
        fg_publisher_open(topic, nullptr, &publisher) == FG_OK) {
        fg_publish_info frame;
        fg_publish_info_init(&frame);
        frame.bytes = info.slot_bytes < 3 ? info.slot_bytes : 3;
        static_cast<void>(fg_publisher_send(publisher, "abc", &frame, 0, nullptr));
        fg_frame taken{};
        if (fg_subscriber_take(subscriber, 0, &taken) == FG_OK) {
            fuzz::look_at(subscriber, taken, info.slot_bytes);
            static_cast<void>(fg_subscriber_release(subscriber, &taken));
        }
    }
    fg_publisher_close(publisher);
    fg_subscriber_close(subscriber);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const fuzz::RuntimeDirectory& directory = fuzz::runtime_directory();
    fuzz::Input input(data, size);
    fg_topic_options options;
    fg_topic_options_init(&options);
    options.slots = 2 + input.below(7);
    options.slot_bytes = 1 + input.below(9000);
    options.keep = 1 + input.below(options.slots - 1);
    options.participants_max = 2 + input.below(255);
    options.metadata_bytes = input.below(4097);
    Identity identity{};
    framegate::impl::compute_geometry(options, &identity);
    std::memcpy(identity.magic, framegate::impl::kMagic, sizeof identity.magic);
    identity.id[0] = 1;
    const std::size_t control_bytes = identity.control_bytes;
    const std::size_t data_bytes = identity.data_bytes;
    const std::uint8_t flags = input.next<std::uint8_t>();
    framegate::impl::seal_identity(&identity);
    std::vector<unsigned char> control(control_bytes);
    std::memcpy(control.data(), &identity, sizeof identity);
    while (!input.empty()) {
        // Mostly the identity and the schema behind it, where an opener looks.
        std::size_t at = input.next<std::uint16_t>();
        at = (at & 1) != 0 ? at / 2 % 4096 : at * 37;
        if (at + 8 <= control.size()) {
            const auto value = input.next<std::uint64_t>();
            std::memcpy(control.data() + at, &value, 1U << (flags & 3));
        }
    }
    if ((flags & 4) != 0) {
        std::memcpy(&identity, control.data(), sizeof identity);
        framegate::impl::seal_identity(&identity);
        std::memcpy(control.data(), &identity, sizeof identity);
    }
    const std::size_t cut = (flags & 8) != 0 ? std::size_t{flags} * 64 : 0;
    const std::size_t shown = control_bytes > cut ? control_bytes - cut : 0;
    write_file(directory.file("t.ctl"), control.data(), control.size(), shown);
    write_file(directory.file("t.0000000000000001.data"), "", 0,
               (flags & 16) != 0 ? data_bytes / 2 : data_bytes);
    fg_topic* topic = nullptr;
    if (fg_topic_open(kName, 1, &topic) == FG_OK) {
        use(topic);
        fg_topic_close(topic);
    }
    fuzz::inspect(kName);
    directory.clear();
    return 0;
}
