// Files, options, handles: create, open, unlink, schema, quota, closing, fork, locks.
#ifndef _WIN32
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#endif

#include <cerrno>
#include <fstream>
#include <thread>

#include "files.hpp"
#include "step_hooks.hpp"
#include "support.hpp"

namespace {

fg_status create_status(const std::string& name, const fg_topic_options& options) {
    fg_topic* topic = nullptr;
    const fg_status status = fg_topic_create(name.data(), name.size(), &options, &topic);
    fg_topic_close(status == FG_OK ? topic : nullptr);
    return status;
}

fg_status open_status(const std::string& name) {
    fg_topic* topic = nullptr;
    const fg_status status = fg_topic_open(name.data(), name.size(), &topic);
    fg_topic_close(status == FG_OK ? topic : nullptr);
    return status;
}

fg_status take(const test::Subscriber& subscriber, fg_frame* frame, std::int64_t timeout_ns = 0) {
    return fg_subscriber_take(subscriber.get(), timeout_ns, frame);
}

[[maybe_unused]] void touch(const std::string& path) { std::ofstream(path, std::ios::binary); }

}  // namespace

TEST_CASE("topic is created once, opened often, unlinked once") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("camera/front", test::options(4, 100));
    CHECK(create_status("camera/front", test::options(4, 100)) == FG_TOPIC_EXISTS);
    CHECK(open_status("camera/front") == FG_OK);
    CHECK(directory.files().size() == 2);
    CHECK(directory.files().count("camera%2Ffront.ctl") == 1);
    fg_topic_info info{};
    info.struct_bytes = sizeof info;
    REQUIRE(fg_topic_get_info(topic.get(), &info) == FG_OK);
    CHECK(info.slots == 4);
    CHECK(info.slot_bytes == 100);
    CHECK(info.data_bytes == 4 * 8192);
    CHECK(std::string(fg_topic_name(topic.get())) == "camera/front");
    CHECK(fg_topic_unlink("camera/front", 12) == FG_OK);
    CHECK(fg_topic_unlink("camera/front", 12) == FG_TOPIC_NOT_FOUND);
    CHECK(open_status("camera/front") == FG_TOPIC_NOT_FOUND);
    CHECK(directory.files().empty());
}

TEST_CASE("handles of an unlinked topic go on among themselves") {
    const test::RuntimeDirectory directory;
    const test::Topic old_topic = test::create("t", test::options(4, 64));
    const test::Publisher old_publisher = test::publisher(old_topic);
    REQUIRE(fg_topic_unlink("t", 1) == FG_OK);
    const test::Topic new_topic = test::create("t", test::options(4, 64));
    const test::Subscriber old_subscriber = test::subscriber(old_topic);
    const test::Subscriber new_subscriber = test::subscriber(new_topic);
    CHECK(test::send(old_publisher, "old") == FG_OK);
    fg_frame frame{};
    CHECK(take(old_subscriber, &frame) == FG_OK);
    CHECK(fg_subscriber_release(old_subscriber.get(), &frame) == FG_OK);
    CHECK(take(new_subscriber, &frame) == FG_EMPTY);
}

TEST_CASE("what was removed while somebody had it open leaves nothing for ever") {
    const test::RuntimeDirectory directory;
    {
        const test::Topic topic = test::create("t", test::options(4, 64));
        const test::Topic same = test::open("t");
        const test::Publisher publisher = test::publisher(same);
        REQUIRE(fg_topic_unlink("t", 1) == FG_OK);
        CHECK(open_status("t") == FG_TOPIC_NOT_FOUND);
        const test::Topic next = test::create("t", test::options(4, 64));  // the name is free
        CHECK(test::send(publisher, "to nobody") == FG_OK);
        REQUIRE(fg_topic_unlink("t", 1) == FG_OK);
    }
    test::create("other", test::options(4, 64));  // whoever creates sweeps
    REQUIRE(fg_topic_unlink("other", 5) == FG_OK);
    CHECK(test::files_in(directory.path(), true).empty());
}

TEST_CASE("options outside of their limits are refused by name") {
    const test::RuntimeDirectory directory;
    const auto refused = [](fg_topic_options options, const char* word) {
        CHECK(create_status("t", options) == FG_INVALID_ARGUMENT);
        CHECK_MESSAGE(std::string(fg_last_error()).find(word) != std::string::npos,
                      fg_last_error());
    };
    fg_topic_options options = test::options(1, 64);
    refused(options, "slots");
    options = test::options(FG_SLOTS_MAX + 1, 64);
    refused(options, "slots");
    options = test::options(4, 0);
    refused(options, "slot_bytes");
    options = test::options(4, FG_SLOT_BYTES_MAX + 1);
    refused(options, "slot_bytes");
    options = test::options(4, 64);
    options.keep = 4;
    refused(options, "keep");
    options = test::options(4, 64);
    options.participants_max = 257;
    refused(options, "participants_max");
    options = test::options(4, 64);
    options.mode = 0666;
    refused(options, "mode");
    options = test::options(4, 64);
    options.metadata_bytes = FG_METADATA_BYTES_MAX + 1;
    refused(options, "metadata_bytes");
    options = test::options(4, 64);
    options.mailbox_bytes = FG_MAILBOX_BYTES_MAX + 1;
    refused(options, "mailbox_bytes");
    options = test::options(4, 64);
    options.struct_bytes = 4;
    refused(options, "struct_bytes");
    fg_topic* topic = nullptr;
    CHECK(fg_topic_create("t", 1, nullptr, &topic) == FG_INVALID_ARGUMENT);
    CHECK(std::string(fg_last_error()) == "options is NULL");
}

#ifndef _WIN32  // modes and users
TEST_CASE("files have the mode of the options whatever the umask says") {
    const test::RuntimeDirectory directory;
    const mode_t before = umask(0077);
    fg_topic_options options = test::options(4, 64);
    options.mode = 0660;
    const test::Topic topic = test::create("shared", options);
    umask(before);
    for (const std::string& file : directory.files()) {
        struct stat info{};
        REQUIRE(stat((directory.path() + "/" + file).c_str(), &info) == 0);
        CHECK((info.st_mode & 07777) == 0660);
    }
}

TEST_CASE("unsafe runtime directory is refused") {
    const test::RuntimeDirectory directory;
    REQUIRE(chmod(directory.path().c_str(), 0755) == 0);
    CHECK(create_status("t", test::options(4, 64)) == FG_RUNTIME_DIRECTORY);
    CHECK_MESSAGE(std::string(fg_last_error()).find("0755") != std::string::npos, fg_last_error());
    REQUIRE(chmod(directory.path().c_str(), 0770) == 0);
    CHECK(create_status("t", test::options(4, 64)) == FG_RUNTIME_DIRECTORY);
    REQUIRE(chmod(directory.path().c_str(), 02770) == 0);
    CHECK(create_status("t", test::options(4, 64)) == FG_OK);
    REQUIRE(chmod(directory.path().c_str(), 0700) == 0);
    const std::string link = directory.path() + "/link";
    REQUIRE(symlink(directory.path().c_str(), link.c_str()) == 0);
    setenv("FRAMEGATE_RUNTIME_DIR", link.c_str(), 1);
    CHECK(create_status("t", test::options(4, 64)) == FG_RUNTIME_DIRECTORY);
    setenv("FRAMEGATE_RUNTIME_DIR", (directory.path() + "/absent").c_str(), 1);
    CHECK(open_status("t") == FG_TOPIC_NOT_FOUND);
    CHECK(create_status("t", test::options(4, 64)) == FG_OK);
    struct stat info{};
    REQUIRE(stat((directory.path() + "/absent").c_str(), &info) == 0);
    CHECK((info.st_mode & 07777) == 0700);
    REQUIRE(fg_topic_unlink("t", 1) == FG_OK);
    rmdir((directory.path() + "/absent").c_str());
}

// Root may do anything, so this looks through another user's eyes.
TEST_CASE("other users are refused") {
    if (geteuid() != 0) {
        MESSAGE("needs root to become somebody else");
        return;
    }
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const int status = test::wait_for(test::in_child([] {
        if (setgid(65534) != 0 || setuid(65534) != 0) {
            return 100;
        }
        return open_status("t") + 0;
    }));
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == FG_PERMISSION_DENIED);
    REQUIRE(chown(directory.path().c_str(), 65534, 65534) == 0);
    CHECK(open_status("t") == FG_RUNTIME_DIRECTORY);
    REQUIRE(chown(directory.path().c_str(), 0, 0) == 0);
}
#endif

TEST_CASE("full file system is a status with numbers") {
    const test::RuntimeDirectory directory;
    const fg_topic_options options = test::options(FG_SLOTS_MAX, FG_SLOT_BYTES_MAX);
    CHECK(create_status("huge", options) == FG_NO_SPACE);
    const std::string text = fg_last_error();
    framegate::impl::Identity identity{};
    framegate::impl::compute_geometry(options, &identity);
    // Mailboxes are allocated later, one by one.
    const std::string needed = std::to_string(identity.mailboxes_offset + identity.data_bytes);
    CHECK_MESSAGE(text.find("needs " + needed + " bytes") != std::string::npos, text);
    CHECK_MESSAGE(text.find("are free in " + directory.path()) != std::string::npos, text);
    CHECK(directory.files().empty());
}

#ifndef _WIN32  // blocks
TEST_CASE("every page but those of mailboxes is allocated at creation") {
    const test::RuntimeDirectory directory;
    fg_topic_options options = test::options(8, 100000);
    options.mailbox_bytes = 0;
    const test::Topic topic = test::create("t", options);
    for (const std::string& file : directory.files()) {
        struct stat info{};
        REQUIRE(stat((directory.path() + "/" + file).c_str(), &info) == 0);
        CHECK(info.st_blocks * 512 >= info.st_size);
    }
}
#endif

TEST_CASE("create_or_open takes what is there if it is enough") {
    const test::RuntimeDirectory directory;
    const fg_topic_options options = test::options(4, 100);
    fg_topic* topic = nullptr;
    int created = -1;
    REQUIRE(fg_topic_create_or_open("t", 1, &options, &topic, &created) == FG_OK);
    fg_topic_close(topic);
    CHECK(created == 1);
    REQUIRE(fg_topic_create_or_open("t", 1, &options, &topic, &created) == FG_OK);
    fg_topic_close(topic);
    CHECK(created == 0);
    const fg_topic_options larger = test::options(4, 101);
    CHECK(fg_topic_create_or_open("t", 1, &larger, &topic, nullptr) == FG_FRAME_TOO_LARGE);
    fg_array array{};
    array.dtype = FG_DTYPE_UINT8;
    fg_topic_options schema = options;
    schema.schema = &array;
    schema.schema_count = 1;
    CHECK(fg_topic_create_or_open("t", 1, &schema, &topic, nullptr) == FG_SCHEMA_MISMATCH);
}

#ifndef _WIN32  // fork, sockets of Unix, limits
TEST_CASE("one of many creators at the same time wins") {
    const test::RuntimeDirectory directory;
    std::vector<pid_t> children;
    for (int i = 0; i < 6; ++i) {
        children.push_back(test::in_child([] {
            for (int round = 0; round < 20; ++round) {
                const std::string name = "race" + std::to_string(round);
                const fg_topic_options options = test::options(2, 64);
                fg_topic* topic = nullptr;
                if (fg_topic_create_or_open(name.data(), name.size(), &options, &topic, nullptr) !=
                    FG_OK) {
                    return 1;
                }
            }
            return 0;
        }));
    }
    for (const pid_t child : children) {
        CHECK(test::wait_for(child) == 0);
    }
    CHECK(directory.files().size() == 40);  // no orphans
}

TEST_CASE("files of dead creators are swept, those of living topics are not") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("living", test::options(2, 64));
    const std::set<std::string> living = directory.files();
    const std::string path = directory.path() + "/";
    touch(path + "a.0123456789abcdef.data");
    touch(path + "living.0123456789abcdef.data");
    touch(path + "b.0123456789abcdef.tmp");
    touch(path + "notes.txt");
    const int socket_fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%s0123456789abcdef-3.sock", path.c_str());
    REQUIRE(bind(socket_fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    test::create("other", test::options(2, 64));
    CHECK(directory.files().count("0123456789abcdef-3.sock") == 1);  // somebody listens
    close(socket_fd);
    REQUIRE(fg_topic_unlink("other", 5) == FG_OK);
    test::create("other", test::options(2, 64));
    REQUIRE(fg_topic_unlink("other", 5) == FG_OK);
    std::set<std::string> expected = living;
    expected.insert("notes.txt");
    CHECK(directory.files() == expected);
}

TEST_CASE("sweep that cannot open a file keeps what it may lead to") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("living", test::options(2, 64));
    const std::set<std::string> living = directory.files();
    const framegate::impl::Fd runtime(open(directory.path().c_str(), O_RDONLY | O_DIRECTORY));
    rlimit limit{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    const int lowest = dup(runtime.get());
    close(lowest);
    // From none left to enough for all of it: somewhere between, the last one goes to a data file and
    // none is left for the control file that leads to it.
    for (int left = 0; left < 8; ++left) {
        rlimit few = limit;
        few.rlim_cur = static_cast<rlim_t>(lowest + left);
        REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
        const std::uint32_t removed = framegate::impl::sweep_orphans(runtime.get());
        static_cast<void>(create_status("other", test::options(2, 64)));
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        static_cast<void>(fg_topic_unlink("other", 5));
        CHECK(removed == 0);
        CHECK(directory.files() == living);
    }
    touch(directory.path() + "/living.0123456789abcdef.data");
    CHECK(framegate::impl::sweep_orphans(runtime.get()) == 1);
}

TEST_CASE("child that is forked during a collection keeps no topic locked") {
    const test::RuntimeDirectory directory;
    test::create("t", test::options(2, 64));
    pid_t child = 0;
    {
        const test::At forked(framegate::impl::Step::kCollectLocked, [&] {
            child = test::in_child([] {
                pause();
                return 0;
            });
        });
        REQUIRE(fg_collect_stale_topics(0, 1, nullptr, nullptr, nullptr) == FG_OK);
    }
    REQUIRE(child != 0);
    CHECK_MESSAGE(open_status("t") == FG_OK, fg_last_error());
    kill(child, SIGKILL);
    test::wait_for(child);
}

#ifdef __linux__
// On many kernels a signal ends posix_fallocate() and takes back what it allocated; this one lets
// calls of a few MiB through, as a profiler that ticks every few milliseconds would.
namespace {
constexpr int kInterruptionsMax = 1000;
bool is_interrupting = false;  // NOLINT: the function below has no place for more
int interruptions = 0;         // NOLINT
}  // namespace

extern "C" int posix_fallocate(int fd, off_t offset, off_t bytes) {
    const bool is_long = bytes > 16 << 20;
    if (is_interrupting && interruptions < kInterruptionsMax && (is_long || offset != 0)) {
        is_interrupting = is_long;  // a short one only once
        ++interruptions;
        return EINTR;
    }
    return fallocate(fd, 0, offset, bytes) == 0 ? 0 : errno;
}

TEST_CASE("topic is created under a signal that comes again and again") {
    const test::RuntimeDirectory directory;
    is_interrupting = true;
    const fg_status status = create_status("t", test::options(2, 16 << 20));
    is_interrupting = false;
    CHECK_MESSAGE(status == FG_OK, fg_last_error());
    CHECK(interruptions == 1);
    interruptions = 0;
}
#endif
#endif

TEST_CASE("schema is kept, readable and enforced") {
    const test::RuntimeDirectory directory;
    fg_array schema[2] = {};
    std::memcpy(schema[0].name, "left", 4);
    schema[0].name_bytes = 4;
    schema[0].dtype = FG_DTYPE_FLOAT32;
    schema[0].dimension_count = 2;
    schema[0].shape[0] = 4;
    schema[0].shape[1] = 4;
    schema[1].dtype = FG_DTYPE_UINT8;
    schema[1].dimension_count = 1;
    schema[1].shape[0] = 10;
    fg_topic_options options = test::options(4, 73);
    options.schema = schema;
    options.schema_count = 2;
    CHECK(create_status("s", options) == FG_FRAME_TOO_LARGE);
    options.slot_bytes = 74;
    const test::Topic topic = test::create("s", options);
    fg_array seen[FG_ARRAYS_MAX] = {};
    std::size_t count = 0;
    REQUIRE(fg_topic_schema(test::open("s").get(), seen, FG_ARRAYS_MAX, &count) == FG_OK);
    CHECK(count == 2);
    CHECK(seen[1].offset == 64);
    CHECK(seen[0].bytes == 64);
    REQUIRE(fg_inspector_schema(test::inspector("s").get(), seen, 1, &count) == FG_OK);
    CHECK(count == 2);

    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    CHECK(test::send(publisher, std::string(73, 'x')) == FG_SCHEMA_MISMATCH);
    CHECK(test::send(publisher, std::string(74, 'x')) == FG_OK);
    fg_frame frame{};
    REQUIRE(take(subscriber, &frame) == FG_OK);
    CHECK(frame.array_count == 2);
    REQUIRE(fg_subscriber_arrays(subscriber.get(), &frame, seen, FG_ARRAYS_MAX, &count) == FG_OK);
    CHECK(seen[0].dtype == FG_DTYPE_FLOAT32);
    CHECK(seen[1].offset == 64);
    REQUIRE(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    CHECK(fg_subscriber_arrays(subscriber.get(), &frame, seen, FG_ARRAYS_MAX, &count) ==
          FG_LEASE_LOST);

    fg_publish_info info = test::bytes_info(74);
    info.arrays = seen;
    info.array_count = 2;
    const std::string payload(74, 'y');
    CHECK(fg_publisher_send(publisher.get(), payload.data(), &info, 0, nullptr) == FG_OK);
    seen[0].dtype = FG_DTYPE_INT32;
    CHECK(fg_publisher_send(publisher.get(), payload.data(), &info, 0, nullptr) ==
          FG_SCHEMA_MISMATCH);
    info.array_count = 1;
    CHECK(fg_publisher_send(publisher.get(), payload.data(), &info, 0, nullptr) ==
          FG_SCHEMA_MISMATCH);
}

TEST_CASE("schema with an open dimension wants the shape of every frame") {
    const test::RuntimeDirectory directory;
    fg_array schema{};
    schema.dtype = FG_DTYPE_UINT16;
    schema.dimension_count = 2;
    schema.shape[0] = FG_DIMENSION_ANY;
    schema.shape[1] = 2;
    fg_topic_options options = test::options(4, 64);
    options.schema = &schema;
    options.schema_count = 1;
    const test::Topic topic = test::create("s", options);
    const test::Publisher publisher = test::publisher(topic);
    CHECK(test::send(publisher, "12345678") == FG_SCHEMA_MISMATCH);
    fg_array array = schema;
    array.shape[0] = 3;
    std::uint64_t bytes = 0;
    REQUIRE(fg_arrays_lay_out(&array, 1, &bytes) == FG_OK);
    fg_publish_info info = test::bytes_info(bytes);
    info.arrays = &array;
    info.array_count = 1;
    CHECK(fg_publisher_send(publisher.get(), "123456789012", &info, 0, nullptr) == FG_OK);
}

TEST_CASE("bad array descriptors leave the loan good") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    fg_loan loan{};
    REQUIRE(fg_publisher_loan(publisher.get(), 64, 0, &loan) == FG_OK);
    fg_array array{};
    array.dtype = FG_DTYPE_UINT8;
    array.dimension_count = 1;
    array.shape[0] = 65;
    array.bytes = 65;
    fg_publish_info info = test::bytes_info(64);
    info.arrays = &array;
    info.array_count = 1;
    CHECK(fg_publisher_publish(publisher.get(), &loan, &info, nullptr) == FG_INVALID_ARGUMENT);
    array.shape[0] = array.bytes = 4;
    array.offset = 1;
    CHECK(fg_publisher_publish(publisher.get(), &loan, &info, nullptr) == FG_INVALID_ARGUMENT);
    info.bytes = 65;
    CHECK(fg_publisher_publish(publisher.get(), &loan, &info, nullptr) == FG_FRAME_TOO_LARGE);
    info.bytes = 64;
    array.offset = 0;
    info.user_metadata_bytes = FG_USER_METADATA_BYTES_MAX + 1;
    info.user_metadata = "x";
    CHECK(fg_publisher_publish(publisher.get(), &loan, &info, nullptr) == FG_INVALID_ARGUMENT);
    info.user_metadata_bytes = 1;
    REQUIRE(loan.data != nullptr);
    CHECK(fg_publisher_publish(publisher.get(), &loan, &info, nullptr) == FG_OK);
    CHECK(loan.data == nullptr);
}

TEST_CASE("loan ends once") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    fg_loan loan{};
    REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loan) == FG_OK);
    fg_loan copy = loan;
    const fg_publish_info info = test::bytes_info(1);
    CHECK(fg_publisher_publish(publisher.get(), &loan, &info, nullptr) == FG_OK);
    CHECK(fg_publisher_publish(publisher.get(), &copy, &info, nullptr) == FG_LOAN_LOST);
    CHECK(fg_publisher_abandon(publisher.get(), &loan) == FG_OK);
    fg_loan forged{};
    forged.data = &forged;
    forged.slot = 4000000;
    forged.ticket = 1;
    CHECK(fg_publisher_abandon(publisher.get(), &forged) == FG_LOAN_LOST);
}

TEST_CASE("quota is its own status and comes back with a release") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);  // quota: 4
    fg_frame frames[5] = {};
    for (int i = 0; i < 4; ++i) {
        REQUIRE(test::send(publisher, std::to_string(i)) == FG_OK);
        REQUIRE(take(subscriber, &frames[i]) == FG_OK);
    }
    CHECK(take(subscriber, &frames[4]) == FG_EMPTY);
    REQUIRE(test::send(publisher, "4") == FG_OK);
    CHECK(take(subscriber, &frames[4]) == FG_LEASE_QUOTA);
    REQUIRE(fg_subscriber_release(subscriber.get(), &frames[1]) == FG_OK);
    REQUIRE(take(subscriber, &frames[4]) == FG_OK);
    CHECK(test::text_of(frames[0]) == "0");
    CHECK(test::text_of(frames[4]) == "4");
    // The same frame again costs no quota.
    fg_frame peeked{};
    REQUIRE(fg_subscriber_peek(subscriber.get(), &peeked) == FG_OK);
    CHECK(peeked.sequence == 5);
    for (fg_frame* frame : {&frames[0], &frames[2], &frames[3], &frames[4]}) {
        CHECK(fg_subscriber_release(subscriber.get(), frame) == FG_OK);
    }
    CHECK(test::stats("t").slots_leased == 1);
    CHECK(fg_subscriber_release(subscriber.get(), &peeked) == FG_OK);
    CHECK(test::stats("t").slots_leased == 0);
    fg_subscriber_options options;
    fg_subscriber_options_init(&options);
    options.leases_max = 8;
    fg_subscriber* greedy = nullptr;
    CHECK(fg_subscriber_open(topic.get(), &options, &greedy) == FG_INVALID_ARGUMENT);
    options.leases_max = 0;
    options.policy = FG_POLICY_GROUP + 1;
    CHECK(fg_subscriber_open(topic.get(), &options, &greedy) == FG_INVALID_ARGUMENT);
    options.policy = FG_POLICY_GROUP;  // without a name
    CHECK(fg_subscriber_open(topic.get(), &options, &greedy) == FG_INVALID_ARGUMENT);
    options.policy = FG_POLICY_RELIABLE;  // with one
    options.group = "work";
    options.group_bytes = 4;
    CHECK(fg_subscriber_open(topic.get(), &options, &greedy) == FG_INVALID_ARGUMENT);
}

TEST_CASE("policies: latest jumps, queue goes on, both count") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber latest = test::subscriber(topic, FG_POLICY_LATEST);
    const test::Subscriber queue = test::subscriber(topic, FG_POLICY_QUEUE);
    for (int i = 1; i <= 3; ++i) {
        REQUIRE(test::send(publisher, std::to_string(i)) == FG_OK);
    }
    fg_frame frame{};
    REQUIRE(take(latest, &frame) == FG_OK);
    CHECK(test::text_of(frame) == "3");
    CHECK(frame.lost == 2);
    REQUIRE(fg_subscriber_release(latest.get(), &frame) == FG_OK);
    for (int i = 4; i <= 6; ++i) {
        REQUIRE(test::send(publisher, std::to_string(i)) == FG_OK);
    }
    for (int i = 3; i <= 6; ++i) {
        REQUIRE(take(queue, &frame) == FG_OK);
        CHECK(test::text_of(frame) == std::to_string(i));
        CHECK(frame.lost == (i == 3 ? 2 : 0));
        REQUIRE(fg_subscriber_release(queue.get(), &frame) == FG_OK);
    }
    for (int i = 0; i < 100; ++i) {  // further than the ring reaches
        REQUIRE(test::send(publisher, "x") == FG_OK);
    }
    REQUIRE(take(queue, &frame) == FG_OK);
    CHECK(frame.sequence == 103);
    CHECK(frame.lost == 96);
    REQUIRE(fg_subscriber_release(queue.get(), &frame) == FG_OK);
    fg_subscriber_stats stats{};
    stats.struct_bytes = sizeof stats;
    REQUIRE(fg_subscriber_get_stats(queue.get(), &stats) == FG_OK);
    CHECK(stats.received == 5);
    CHECK(stats.lost == 98);
    CHECK(stats.head == 106);
    CHECK(stats.received + stats.lost == stats.position);

    // A late subscriber: latest sees the newest frame, queue only what comes.
    const test::Subscriber late = test::subscriber(topic, FG_POLICY_LATEST);
    CHECK(take(late, &frame) == FG_OK);
    CHECK(fg_subscriber_release(late.get(), &frame) == FG_OK);
    CHECK(take(test::subscriber(topic, FG_POLICY_QUEUE), &frame) == FG_EMPTY);
}

TEST_CASE("64 subscribers and several publishers share one topic") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    std::vector<test::Publisher> publishers;
    std::vector<test::Subscriber> subscribers;
    for (int i = 0; i < 4; ++i) {
        publishers.push_back(test::publisher(topic));
    }
    for (int i = 0; i < 100; ++i) {
        subscribers.push_back(test::subscriber(topic, FG_POLICY_QUEUE, 1));
    }
    for (int round = 0; round < 8; ++round) {
        REQUIRE(test::send(publishers[static_cast<std::size_t>(round) % 4],
                           std::to_string(round)) == FG_OK);
        std::vector<fg_frame> frames(subscribers.size());
        for (std::size_t i = 0; i < subscribers.size(); ++i) {
            REQUIRE(take(subscribers[i], &frames[i]) == FG_OK);
            REQUIRE(test::text_of(frames[i]) == std::to_string(round));
        }
        for (std::size_t i = 0; i < subscribers.size(); ++i) {
            REQUIRE(fg_subscriber_release(subscribers[i].get(), &frames[i]) == FG_OK);
        }
    }
    const fg_topic_stats stats = test::stats("t");
    CHECK(stats.publishers == 4);
    CHECK(stats.subscribers == 100);
    CHECK(stats.dead == 0);
}

TEST_CASE("participant rows end at the limit and come back") {
    const test::RuntimeDirectory directory;
    fg_topic_options options = test::options(4, 64);
    options.participants_max = 2;
    const test::Topic topic = test::create("t", options);
    const test::Publisher publisher = test::publisher(topic);
    fg_subscriber* raw = nullptr;
    {
        const test::Subscriber subscriber = test::subscriber(topic);
        CHECK(fg_subscriber_open(topic.get(), nullptr, &raw) == FG_PARTICIPANTS_FULL);
        CHECK(fg_subscriber_open(test::open("t").get(), nullptr, &raw) == FG_PARTICIPANTS_FULL);
    }
    test::subscriber(topic);
    test::subscriber(test::open("t"));
}

TEST_CASE("frames and loans outlive close") {
    const test::RuntimeDirectory directory;
    test::Topic topic = test::create("t", test::options(4, 64));
    test::Publisher publisher = test::publisher(topic);
    test::Subscriber subscriber = test::subscriber(topic);
    REQUIRE(test::send(publisher, "kept") == FG_OK);
    fg_frame frame{};
    REQUIRE(take(subscriber, &frame) == FG_OK);
    fg_loan loan{};
    REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loan) == FG_OK);
    fg_publisher* raw_publisher = publisher.release();
    fg_subscriber* raw_subscriber = subscriber.release();
    fg_publisher_close(raw_publisher);
    fg_subscriber_close(raw_subscriber);
    topic.reset();
    CHECK(test::stats("t").publishers == 1);  // still attached
    CHECK(test::stats("t").slots_leased == 1);
    CHECK(test::text_of(frame) == "kept");
    fg_loan second{};
    CHECK(fg_publisher_loan(raw_publisher, 1, 0, &second) == FG_CLOSED);
    const fg_publish_info info = test::bytes_info(1);
    CHECK(fg_publisher_publish(raw_publisher, &loan, &info, nullptr) == FG_OK);
    CHECK(fg_subscriber_release(raw_subscriber, &frame) == FG_OK);
    CHECK(test::stats("t").publishers == 0);
    CHECK(test::stats("t").subscribers == 0);
    CHECK(test::stats("t").slots_leased == 0);
}

TEST_CASE("close wakes threads that wait inside") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(2, 64));
    test::Publisher publisher = test::publisher(topic);
    test::Subscriber subscriber = test::subscriber(topic);
    fg_loan loans[2] = {};
    REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loans[0]) == FG_OK);
    REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loans[1]) == FG_OK);
    fg_publisher* raw_publisher = publisher.release();
    fg_subscriber* raw_subscriber = subscriber.release();
    fg_publisher_retain(raw_publisher);
    fg_subscriber_retain(raw_subscriber);
    fg_status loan_status = FG_OK;
    fg_status wait_status = FG_OK;
    std::thread loaning([&] {
        fg_loan loan{};
        loan_status = fg_publisher_loan(raw_publisher, 1, test::kPatienceNs, &loan);
        fg_publisher_release_handle(raw_publisher);
    });
    std::thread waiting([&] {
        wait_status = fg_subscriber_wait(raw_subscriber, test::kPatienceNs);
        fg_subscriber_release_handle(raw_subscriber);
    });
    fg_publisher_close(raw_publisher);
    fg_subscriber_close(raw_subscriber);
    waiting.join();
    loaning.join();
    CHECK(loan_status == FG_CLOSED);
    CHECK(wait_status == FG_CLOSED);
    CHECK(fg_publisher_abandon(raw_publisher, &loans[0]) == FG_OK);
    CHECK(fg_publisher_abandon(raw_publisher, &loans[1]) == FG_OK);
    CHECK(test::stats("t").publishers == 0);
}

TEST_CASE("threads share one publisher and one subscriber") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(8, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    constexpr int kThreads = 3;
    constexpr std::uint64_t kFrames = 3000;
    std::atomic<std::uint64_t> received{0};
    std::atomic<int> bad{0};
    std::atomic<int> publishing{kThreads};
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&, i] {
            for (std::uint64_t n = 0; n < kFrames; ++n) {
                bad += test::send(publisher, std::string(32, static_cast<char>('a' + i)),
                                  test::kPatienceNs) == FG_OK
                           ? 0
                           : 1;
            }
            --publishing;
        });
        threads.emplace_back([&] {
            while (publishing.load() != 0) {
                fg_frame frame{};
                const fg_status status = fg_subscriber_take(subscriber.get(), 1000000, &frame);
                if (status == FG_TIMEOUT || status == FG_LEASE_QUOTA) {
                    continue;
                }
                if (status != FG_OK) {
                    ++bad;
                    break;
                }
                const std::string text = test::text_of(frame);
                bad += text == std::string(32, text[0]) ? 0 : 1;
                ++received;
                bad += fg_subscriber_release(subscriber.get(), &frame) == FG_OK ? 0 : 1;
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(bad.load() == 0);
    fg_subscriber_stats stats{};
    stats.struct_bytes = sizeof stats;
    REQUIRE(fg_subscriber_get_stats(subscriber.get(), &stats) == FG_OK);
    CHECK(stats.received == received.load());
    CHECK(stats.head == kThreads * kFrames);
    CHECK(test::stats("t").slots_leased == 0);
}

#ifndef _WIN32  // fork
TEST_CASE("held frame stays and cannot be written") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    REQUIRE(test::send(publisher, "hello") == FG_OK);
    fg_frame frame{};
    REQUIRE(take(subscriber, &frame) == FG_OK);
    for (int i = 0; i < 100; ++i) {
        REQUIRE(test::send(publisher, "other") == FG_OK);
    }
    CHECK(test::text_of(frame) == "hello");
    // write(2) into the view: the kernel answers EFAULT where a store would be a SIGSEGV.
    int pipe_fds[2];
    REQUIRE(pipe(pipe_fds) == 0);
    REQUIRE(write(pipe_fds[1], "x", 1) == 1);
    CHECK(read(pipe_fds[0], const_cast<void*>(frame.data), 1) == -1);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    CHECK(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    frame.data = &frame;
    CHECK(fg_subscriber_release(subscriber.get(), &frame) == FG_LEASE_LOST);
}

TEST_CASE("forked child finds its handles dead and the memory gone") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    REQUIRE(test::send(publisher, "x") == FG_OK);
    fg_frame frame{};
    REQUIRE(take(subscriber, &frame) == FG_OK);
    fg_loan loan{};
    REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loan) == FG_OK);
    const int status = test::wait_for(test::in_child([&] {
        fg_frame other{};
        fg_loan another{};
        int failed = 0;
        failed += fg_subscriber_take(subscriber.get(), 0, &other) != FG_FORKED;
        failed += fg_publisher_loan(publisher.get(), 1, 0, &another) != FG_FORKED;
        failed += msync(loan.data, 4096, MS_ASYNC) == 0;  // ENOMEM: unmapped
        fg_frame frame_copy = frame;
        failed += msync(const_cast<void*>(frame_copy.data), 4096, MS_ASYNC) == 0;
        failed += fg_subscriber_release(subscriber.get(), &frame_copy) != FG_FORKED;
        fg_loan loan_copy = loan;
        failed += fg_publisher_abandon(publisher.get(), &loan_copy) != FG_FORKED;
        failed += fg_topic_sweep(topic.get(), nullptr) != FG_FORKED;
        fg_publisher* own = nullptr;
        failed += fg_publisher_open(topic.get(), nullptr, &own) != FG_FORKED;
        fg_topic* fresh = nullptr;
        failed += fg_topic_open("t", 1, &fresh) != FG_OK;
        failed += fg_publisher_open(fresh, nullptr, &own) != FG_OK;
        fg_publisher_close(own);
        fg_topic_close(fresh);
        fg_publisher_close(publisher.get());
        fg_subscriber_close(subscriber.get());
        return failed;
    }));
    CHECK(status == 0);
    CHECK(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    CHECK(fg_publisher_abandon(publisher.get(), &loan) == FG_OK);
    CHECK(test::stats("t").publishers == 1);
}

// The child of a participant shares its open description; it must not keep the dead parent alive.
TEST_CASE("participant is dead although its forked child lives") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    int pipe_fds[2];
    REQUIRE(pipe(pipe_fds) == 0);
    const pid_t participant = test::in_child([&] {
        const test::Subscriber subscriber = test::subscriber(test::open("t"));
        if (fork() == 0) {
            alarm(60);
            // Only now: between fork and its handlers the child does hold the parent's lock.
            const pid_t grandchild = getpid();
            static_cast<void>(!write(pipe_fds[1], &grandchild, sizeof grandchild));
            pause();
            _exit(0);
        }
        pause();
        return 0;
    });
    pid_t grandchild = 0;
    REQUIRE(read(pipe_fds[0], &grandchild, sizeof grandchild) == sizeof grandchild);
    std::uint32_t reaped = 0;
    REQUIRE(fg_topic_sweep(topic.get(), &reaped) == FG_OK);
    CHECK(reaped == 0);
    kill(participant, SIGKILL);
    test::wait_for(participant);
    REQUIRE(fg_topic_sweep(topic.get(), &reaped) == FG_OK);
    CHECK(reaped == 1);
    kill(grandchild, SIGKILL);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

TEST_CASE("stopped participant is not reaped") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);
    REQUIRE(test::send(publisher, "x") == FG_OK);
    const pid_t child = test::in_child([] {
        const test::Subscriber subscriber = test::subscriber(test::open("t"), FG_POLICY_LATEST);
        fg_frame frame{};
        if (take(subscriber, &frame) != FG_OK) {
            return 1;
        }
        raise(SIGSTOP);
        return fg_subscriber_release(subscriber.get(), &frame) == FG_OK ? 0 : 2;
    });
    int status = 0;
    REQUIRE(waitpid(child, &status, WUNTRACED) == child);
    REQUIRE(WIFSTOPPED(status));
    std::uint32_t reaped = 7;
    REQUIRE(fg_topic_sweep(topic.get(), &reaped) == FG_OK);
    CHECK(reaped == 0);
    CHECK(test::stats("t").slots_leased == 1);
    kill(child, SIGCONT);
    CHECK(test::wait_for(child) == 0);
    CHECK(test::stats("t").slots_leased == 0);
}

TEST_CASE("process that lost its locks notices and stops touching the topic") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    bool numbers_reused = false;
    SUBCASE("descriptors closed") {}
    SUBCASE("descriptors closed and their numbers reused") { numbers_reused = true; }
    const int status = test::wait_for(test::in_child([numbers_reused] {
        const test::Topic own = test::open("t");
        const test::Publisher publisher = test::publisher(own);
        fg_loan loan{};
        if (fg_publisher_loan(publisher.get(), 1, 0, &loan) != FG_OK) {
            return 1;
        }
        for (int fd = 3; fd < 200; ++fd) {
            close(fd);
        }
        for (int i = 0; numbers_reused && i < 20; ++i) {
            static_cast<void>(open("/dev/null", O_RDWR | O_CLOEXEC));
        }
        int failed = 0;
        failed += fg_topic_sweep(own.get(), nullptr) != FG_POISONED;
        const fg_publish_info info = test::bytes_info(1);
        failed += fg_publisher_publish(publisher.get(), &loan, &info, nullptr) != FG_POISONED;
        failed += fg_publisher_loan(publisher.get(), 1, 0, &loan) != FG_POISONED;
        return failed;
    }));
    CHECK(status == 0);
    std::uint32_t reaped = 0;
    REQUIRE(fg_topic_sweep(topic.get(), &reaped) == FG_OK);
    CHECK(reaped == 1);
    CHECK(test::stats("t").slots_loaned == 0);
}

// A daemon closes all descriptors, and what it opens then has their numbers.
TEST_CASE("handles close no descriptor that became somebody else's") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    enum { kNone, kSweep, kSameTopic };
    int between = kNone;
    bool has_handles = true;
    SUBCASE("close at once") {}
    SUBCASE("close of a topic without handles") { has_handles = false; }
    SUBCASE("sweep, then close") { between = kSweep; }
    SUBCASE("the numbers are the same topic's") { between = kSameTopic; }
    const int status = test::wait_for(test::in_child([&] {
        test::Topic own = test::open("t");
        test::Publisher publisher;
        test::Subscriber subscriber;
        if (has_handles) {
            subscriber = test::subscriber(own);
            fg_resize_options larger;  // a descriptor for a later generation, too
            fg_resize_options_init(&larger);
            larger.slots = 5;
            int event_fd = -1;
            if (fg_topic_resize(own.get(), &larger) != FG_OK ||
                fg_subscriber_event_fd(subscriber.get(), &event_fd) != FG_OK) {
                return 1;
            }
            publisher = test::publisher(own);
        }
        for (int fd = 3; fd < 200; ++fd) {
            close(fd);
        }
        test::Topic again;
        test::Publisher again_publisher;
        if (between == kSameTopic) {
            again = test::open("t");
            again_publisher = test::publisher(again);
        }
        for (int fd = 3; fd < 24; ++fd) {
            if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR | O_CLOEXEC) != fd) {
                return 3;
            }
        }
        if (between == kSweep && fg_topic_sweep(own.get(), nullptr) != FG_POISONED) {
            return 4;
        }
        publisher.reset();
        subscriber.reset();
        own.reset();
        for (int fd = 3; fd < 24; ++fd) {
            if (fcntl(fd, F_GETFD) < 0) {
                return 100 + fd;
            }
        }
        return again == nullptr || test::send(again_publisher, "x") == FG_OK ? 0 : 5;
    }));
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
}
#endif

TEST_CASE("inspector sees names, roles and counters") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    fg_publisher_options options;
    fg_publisher_options_init(&options);
    options.name = "camera";
    options.name_bytes = 6;
    fg_publisher* raw = nullptr;
    REQUIRE(fg_publisher_open(topic.get(), &options, &raw) == FG_OK);
    const test::Publisher publisher(raw);
    const test::Subscriber subscriber = test::subscriber(topic);
    REQUIRE(test::send(publisher, "x") == FG_OK);
    fg_frame frame{};
    REQUIRE(take(subscriber, &frame) == FG_OK);
    fg_participant rows[8] = {};
    std::size_t count = 0;
    const test::Inspector inspector = test::inspector("t");
    REQUIRE(fg_inspector_participants(inspector.get(), rows, 1, &count) == FG_OK);
    CHECK(count == 2);
    REQUIRE(fg_inspector_participants(inspector.get(), rows, 8, &count) == FG_OK);
    CHECK(rows[0].role == FG_ROLE_PUBLISHER);
    CHECK(std::string(rows[0].name, rows[0].name_bytes) == "camera");
    CHECK(rows[0].received == 1);
    CHECK(rows[0].pid == getpid());
    CHECK(rows[0].alive == 1);
    CHECK(rows[1].role == FG_ROLE_SUBSCRIBER);
    CHECK(rows[1].policy == FG_POLICY_QUEUE);
    CHECK(rows[1].leases == 1);
    CHECK(rows[1].position == 1);
    CHECK(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    options.name_bytes = FG_PARTICIPANT_NAME_BYTES_MAX + 1;
    CHECK(fg_publisher_open(topic.get(), &options, &raw) == FG_INVALID_ARGUMENT);
}

TEST_CASE("head that is no sequence is a status, not an endless loop") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Subscriber queue = test::subscriber(topic);
    const test::Subscriber latest = test::subscriber(topic, FG_POLICY_LATEST);
    test::view_of(topic).shared->head.store(~std::uint64_t{0});
    fg_frame frame{};
    CHECK(take(queue, &frame) == FG_SEGMENT_CORRUPT);
    CHECK(take(latest, &frame) == FG_EMPTY);
}

namespace {

// A topic with one frame, and who would take it.
struct OneFrame {
    test::Topic topic = test::create("t", test::options(4, 64));
    test::Publisher publisher = test::publisher(topic);
    test::Subscriber latest = test::subscriber(topic, FG_POLICY_LATEST);
    framegate::impl::SegmentView& view = test::view_of(topic);

    OneFrame() { REQUIRE(test::send(publisher, "x") == FG_OK); }
};

}  // namespace

TEST_CASE("newest frame that is not there ends a take, however long it may wait") {
    const test::RuntimeDirectory directory;
    const OneFrame one;
    SUBCASE("its slot is another one's") {
        for (std::uint32_t i = 0; i < one.view.slot_count; ++i) {
            one.view.slots[i].word.store(0);
        }
    }
    SUBCASE("head was forged") { one.view.flow->head.store(~std::uint64_t{0}); }
    fg_frame frame{};
    CHECK(take(one.latest, &frame, -1) == FG_SEGMENT_CORRUPT);
    CHECK(take(one.latest, &frame, test::kPatienceNs) == FG_SEGMENT_CORRUPT);
}

TEST_CASE("take ends at its deadline, also if every frame is gone before it has it") {
    const test::RuntimeDirectory directory;
    const OneFrame one;
    std::uint32_t slot = 0;
    REQUIRE(framegate::impl::find_frame(one.view, 1, &slot));
    const test::At overtaken(
        framegate::impl::Step::kTakeAnnounced,
        [&] {
            const std::uint64_t next = one.view.flow->head.load() + 1;
            one.view.slots[slot].word.store(
                framegate::impl::slot_word(next, 0, framegate::impl::SlotState::kPub));
            one.view.ring[next & one.view.ring_mask].store(framegate::impl::ring_entry(next, slot));
            one.view.flow->head.store(next);
        },
        true);
    fg_frame frame{};
    CHECK(take(one.latest, &frame, 50'000'000) == FG_TIMEOUT);
}

TEST_CASE("seal without a next generation is a status, not an endless loop") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    framegate::impl::Topic* own = reinterpret_cast<framegate::impl::Topic*>(topic.get());
    own->view_.ring[1].store(framegate::impl::ring_entry(1, framegate::impl::kClosedSlot));
    fg_subscriber_options options;
    fg_subscriber_options_init(&options);
    SUBCASE("reliable") { options.policy = FG_POLICY_RELIABLE; }
    SUBCASE("group") {
        options.policy = FG_POLICY_GROUP;
        options.group = "g";
        options.group_bytes = 1;
    }
    fg_subscriber* subscriber = nullptr;
    CHECK(fg_subscriber_open(topic.get(), &options, &subscriber) == FG_SEGMENT_CORRUPT);
    CHECK(test::stats("t").subscribers == 0);
}
