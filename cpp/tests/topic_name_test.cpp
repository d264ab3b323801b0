#include <fcntl.h>

#include <fstream>
#include <random>

#include "support.hpp"

namespace {

fg_status check(const std::string& name) { return fg_topic_name_check(name.data(), name.size()); }

}  // namespace

TEST_CASE("names by the grammar are good") {
    for (const char* name :
         {"a", "camera/front", "A_b-c.d", "0", "_", "a/b/c/d/e/f/g/h", "v1.2.3", "a.b/c-d_e"}) {
        CAPTURE(name);
        CHECK(check(name) == FG_OK);
    }
    CHECK(check(std::string(128, 'x')) == FG_OK);
}

TEST_CASE("other names are refused with a reason") {
    for (const char* name : {"",
                             "/",
                             "/a",
                             "a/",
                             "a//b",
                             ".",
                             "..",
                             "a..b",
                             "../a",
                             "a/../b",
                             ".hidden",
                             "-x",
                             "a/-b",
                             "a b",
                             "a%2Fb",
                             "a\\b",
                             "caf\xc3\xa9",
                             "a\nb",
                             "a/b/c/d/e/f/g/h/i",
                             "a:b",
                             "a/.b"}) {
        CAPTURE(name);
        CHECK(check(name) == FG_BAD_TOPIC_NAME);
        CHECK(std::string(fg_last_error()).find("bad topic name") == 0);
    }
    CHECK(check(std::string(129, 'x')) == FG_BAD_TOPIC_NAME);
    CHECK(check(std::string("a\0b", 3)) == FG_BAD_TOPIC_NAME);
    CHECK(fg_topic_name_check(nullptr, 1) == FG_INVALID_ARGUMENT);
}

TEST_CASE("file names go there and back") {
    const std::string longest = "aaaaaaaa/bbbbbbb/c/d/e/f/g/" + std::string(101, 'h');
    for (const std::string& name : {std::string("a"), std::string("camera/front"), longest}) {
        char file[FG_TOPIC_FILE_NAME_BYTES_MAX];
        REQUIRE(fg_topic_file_name(name.data(), name.size(), file, sizeof file) == FG_OK);
        const std::string control = std::string(file) + ".ctl";
        CHECK(control.find('/') == std::string::npos);
        char back[FG_TOPIC_NAME_BYTES_MAX + 1];
        REQUIRE(fg_topic_name_from_file(control.data(), control.size(), back, sizeof back) ==
                FG_OK);
        CHECK(back == name);
        CHECK(fg_topic_name_from_file(control.data(), control.size(), back, name.size()) ==
              FG_INVALID_ARGUMENT);
    }
    char file[4];
    CHECK(fg_topic_file_name("camera", 6, file, sizeof file) == FG_INVALID_ARGUMENT);
}

TEST_CASE("files that are no control files have no topic name") {
    for (const char* file : {"a", ".ctl", "a.data", "a%2.ctl", "a%2f.ctl", "%2F.ctl", "a%2F.ctl",
                             "..ctl", "a.0123.tmp", "a/b.ctl"}) {
        CAPTURE(file);
        char name[FG_TOPIC_NAME_BYTES_MAX + 1];
        CHECK(fg_topic_name_from_file(file, std::strlen(file), name, sizeof name) ==
              FG_BAD_TOPIC_NAME);
    }
}

TEST_CASE("random names get an answer, and good ones survive the way through a file name") {
    std::mt19937 random(1);
    const char alphabet[] = "ab/..-_%2F0";
    for (int i = 0; i < 50000; ++i) {
        std::string name;
        for (auto length = random() % 12; length > 0; --length) {
            name += i % 4 == 0 ? static_cast<char>(random())
                               : alphabet[random() % (sizeof alphabet - 1)];
        }
        const fg_status status = check(name);
        REQUIRE((status == FG_OK || status == FG_BAD_TOPIC_NAME));
        if (status == FG_OK) {
            char file[FG_TOPIC_FILE_NAME_BYTES_MAX];
            char back[FG_TOPIC_NAME_BYTES_MAX + 1];
            REQUIRE(fg_topic_file_name(name.data(), name.size(), file, sizeof file) == FG_OK);
            const std::string control = std::string(file) + ".ctl";
            REQUIRE(fg_topic_name_from_file(control.data(), control.size(), back, sizeof back) ==
                    FG_OK);
            REQUIRE(back == name);
        }
    }
}

// Whatever is in a control file, opening it and working with it ends in a status. Deterministic;
// run under ASan and UBSan.
TEST_CASE("random bytes in a control file end in a status") {
    const test::RuntimeDirectory directory;
    std::mt19937_64 random(2);
    const std::string name = "fuzz";
    const fg_topic_options options = test::options(4, 256);
    const int rounds = FG_TEST_TSAN ? 100 : 400;
    int usable = 0;
    for (int round = 0; round < rounds; ++round) {
        {
            const test::Topic topic = test::create(name, options);
            const test::Publisher publisher = test::publisher(topic);
            test::send(publisher, "one");
            test::send(publisher, "two");
        }
        const std::string path = directory.path() + "/fuzz.ctl";
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary | std::ios::ate);
        REQUIRE(file.is_open());
        const auto bytes_of_file = static_cast<std::size_t>(file.tellg());
        // Every other round leaves the header alone, so that what follows it is reached, too.
        const std::size_t first = round % 2 == 0 ? 0 : sizeof(framegate::impl::Identity);
        const bool few = round % 4 < 2;
        // In memory and back at once: most of the file is mailboxes, 250,000 words of them.
        std::vector<char> content(bytes_of_file);
        const auto all = static_cast<std::streamsize>(bytes_of_file);
        REQUIRE(file.seekg(0).read(content.data(), all));
        for (std::size_t at = first; at < bytes_of_file; at += few ? random() % 600 + 1 : 8) {
            const std::uint64_t bytes = random();
            std::memcpy(&content[at], &bytes, few ? 1 : sizeof bytes);
        }
        REQUIRE(file.seekp(0).write(content.data(), all));
        file.close();
        fg_topic* raw = nullptr;
        if (fg_topic_open(name.data(), name.size(), &raw) == FG_OK) {
            ++usable;
            const test::Topic topic(raw);
            fg_publisher* publisher = nullptr;
            fg_subscriber* subscriber = nullptr;
            if (fg_publisher_open(topic.get(), nullptr, &publisher) == FG_OK) {
                for (int i = 0; i < 6; ++i) {
                    const fg_publish_info frame = test::bytes_info(3);
                    fg_publisher_send(publisher, "abc", &frame, 0, nullptr);
                }
            }
            if (fg_subscriber_open(topic.get(), nullptr, &subscriber) == FG_OK) {
                fg_frame frame{};
                fg_array arrays[FG_ARRAYS_MAX];
                for (int i = 0; i < 3; ++i) {
                    if (fg_subscriber_take_next(subscriber, &frame) == FG_OK) {
                        fg_subscriber_arrays(subscriber, &frame, arrays, FG_ARRAYS_MAX, nullptr);
                        fg_subscriber_release(subscriber, &frame);
                    }
                    if (fg_subscriber_peek(subscriber, &frame) == FG_OK) {
                        fg_subscriber_release(subscriber, &frame);
                    }
                }
            }
            fg_publisher_close(publisher);
            fg_subscriber_close(subscriber);
        }
        fg_inspector* inspector = nullptr;
        if (fg_inspector_open(name.data(), name.size(), &inspector) == FG_OK) {
            fg_topic_stats stats{};
            stats.struct_bytes = sizeof stats;
            fg_inspector_stats(inspector, &stats);
            fg_participant rows[FG_PARTICIPANTS_MAX];
            std::size_t count = 0;
            fg_inspector_participants(inspector, rows, FG_PARTICIPANTS_MAX, &count);
            fg_array arrays[FG_ARRAYS_MAX];
            fg_inspector_schema(inspector, arrays, FG_ARRAYS_MAX, &count);
            fg_inspector_close(inspector);
        }
        fg_topic_unlink(name.data(), name.size());
    }
    CHECK(usable > 0);
}

#ifndef _WIN32  // links and pipes
TEST_CASE("files that are no segments are refused") {
    const test::RuntimeDirectory directory;
    const auto open_status = [](const std::string& name) {
        fg_topic* topic = nullptr;
        return fg_topic_open(name.data(), name.size(), &topic);
    };
    const auto write_file = [&](const std::string& file, const std::string& content) {
        const int fd =
            ::open((directory.path() + "/" + file).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        REQUIRE(write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
        close(fd);
    };
    write_file("empty.ctl", "");
    write_file("text.ctl", std::string(5000, 'x'));
    REQUIRE(mkdir((directory.path() + "/folder.ctl").c_str(), 0700) == 0);
    REQUIRE(mkfifo((directory.path() + "/pipe.ctl").c_str(), 0600) == 0);
    REQUIRE(symlink("/etc/passwd", (directory.path() + "/link.ctl").c_str()) == 0);
    CHECK(open_status("empty") == FG_SEGMENT_INCOMPATIBLE);
    CHECK(open_status("text") == FG_SEGMENT_INCOMPATIBLE);
    CHECK(open_status("folder") != FG_OK);
    CHECK(open_status("pipe") == FG_SEGMENT_INCOMPATIBLE);
    CHECK(open_status("link") != FG_OK);
    CHECK(open_status("missing") == FG_TOPIC_NOT_FOUND);
    rmdir((directory.path() + "/folder.ctl").c_str());
}
#endif
