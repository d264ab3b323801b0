// Topic names and file names: what is accepted goes there and back and cannot leave the directory.
#include "names.hpp"

#include "support.hpp"

using framegate::impl::topic_file_stem;
using framegate::impl::topic_name_from_file;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // On the heap with their exact sizes, so that the sanitizer sees a byte too many.
    const std::string text(reinterpret_cast<const char*>(data), size);
    char stem[FG_TOPIC_FILE_NAME_BYTES_MAX];
    char back[FG_TOPIC_NAME_BYTES_MAX + 1];
    if (topic_file_stem(text.data(), text.size(), stem, sizeof stem) == FG_OK) {
        fuzz::demand(std::strchr(stem, '/') == nullptr && stem[0] != '.',
                     "a file name stays in its directory");
        const std::string file = std::string(stem) + ".ctl";
        fuzz::demand(topic_name_from_file(file.data(), file.size(), back, sizeof back) == FG_OK &&
                         text == back,
                     "a name goes there and back");
    }
    if (topic_name_from_file(text.data(), text.size(), back, sizeof back) == FG_OK) {
        fuzz::demand(topic_file_stem(back, std::strlen(back), stem, sizeof stem) == FG_OK &&
                         text == std::string(stem) + ".ctl",
                     "a file goes there and back");
    }
    for (std::size_t room = 0; room < 4; ++room) {
        static_cast<void>(topic_file_stem(text.data(), text.size(), stem, room));
        static_cast<void>(topic_name_from_file(text.data(), text.size(), back, room));
    }
    return 0;
}
