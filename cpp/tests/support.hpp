// What the tests share: a private runtime directory, handles that close themselves, a segment on
// the heap.
#pragma once

#ifdef _WIN32
#include "windows.hpp"
#else
#include <dirent.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "doctest.h"
#include "framegate/shm.h"
#include "layout.hpp"
#include "slots.hpp"
#include "step_hooks.hpp"
#include "steps.hpp"
#include "topic.hpp"

// Fewer rounds. Also on Windows: under wine, a call of the kernel is one of a server.
#if defined(__SANITIZE_THREAD__) || defined(_WIN32)
#define FG_TEST_TSAN 1
#else
#define FG_TEST_TSAN 0
#endif

namespace test {

inline constexpr std::int64_t kPatienceNs = 60'000'000'000;  // a watchdog, never reached

// What only waits for its last handle, where a file system removes no file that is open: it got this
// name, "t.ctl.<id>.tmp", with which it is no file of a topic.
inline bool is_removed(const std::string& file) {
#ifdef _WIN32
    return file.size() > 25 && file.compare(file.size() - 4, 4, ".tmp") == 0 &&
           file.find('.') < file.size() - 21;
#else
    return file.empty();
#endif
}

inline std::set<std::string> files_in(const std::string& path, bool removed_too = false) {
    std::set<std::string> names;
    DIR* entries = opendir(path.c_str());
    while (const dirent* entry = entries != nullptr ? readdir(entries) : nullptr) {
        const std::string name = entry->d_name;
        if (name != "." && name != ".." && (removed_too || !is_removed(name))) {
            names.insert(name);
        }
    }
    if (entries != nullptr) {
        closedir(entries);
    }
    return names;
}

// A fresh FRAMEGATE_RUNTIME_DIR for one test. Whatever the test leaves in it is removed.
class RuntimeDirectory {
  public:
    RuntimeDirectory() {
#ifdef _WIN32
        path_ = windows::make_directory();
        REQUIRE_FALSE(path_.empty());
#else
#ifdef __APPLE__
        char path[] = "/tmp/framegate-test-XXXXXX";
#else
        char path[] = "/dev/shm/framegate-test-XXXXXX";
#endif
        REQUIRE(mkdtemp(path) != nullptr);
        path_ = path;
#endif
        setenv("FRAMEGATE_RUNTIME_DIR", path_.c_str(), 1);
    }
    ~RuntimeDirectory() {
        for (const std::string& file : files_in(path_, true)) {
            unlink((path_ + "/" + file).c_str());
        }
        rmdir(path_.c_str());
        unsetenv("FRAMEGATE_RUNTIME_DIR");
    }
    RuntimeDirectory(const RuntimeDirectory&) = delete;
    RuntimeDirectory& operator=(const RuntimeDirectory&) = delete;
    const std::string& path() const { return path_; }
    std::set<std::string> files() const { return files_in(path_); }

  private:
    std::string path_;
};

struct TopicClose {
    void operator()(fg_topic* topic) const { fg_topic_close(topic); }
};
struct PublisherClose {
    void operator()(fg_publisher* publisher) const { fg_publisher_close(publisher); }
};
struct SubscriberClose {
    void operator()(fg_subscriber* subscriber) const { fg_subscriber_close(subscriber); }
};
struct InspectorClose {
    void operator()(fg_inspector* inspector) const { fg_inspector_close(inspector); }
};
using Topic = std::unique_ptr<fg_topic, TopicClose>;
using Publisher = std::unique_ptr<fg_publisher, PublisherClose>;
using Subscriber = std::unique_ptr<fg_subscriber, SubscriberClose>;
using Inspector = std::unique_ptr<fg_inspector, InspectorClose>;

inline fg_topic_options options(std::uint32_t slots, std::uint64_t slot_bytes) {
    fg_topic_options value;
    fg_topic_options_init(&value);
    value.slots = slots;
    value.slot_bytes = slot_bytes;
    return value;
}

inline Topic create(const std::string& name, const fg_topic_options& value) {
    fg_topic* topic = nullptr;
    const fg_status status = fg_topic_create(name.data(), name.size(), &value, &topic);
    REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
    return Topic(topic);
}

inline Topic open(const std::string& name) {
    fg_topic* topic = nullptr;
    const fg_status status = fg_topic_open(name.data(), name.size(), &topic);
    REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
    return Topic(topic);
}

// What is in the shared memory.
inline framegate::impl::SegmentView& view_of(const Topic& topic) {
    return reinterpret_cast<framegate::impl::Topic*>(topic.get())->view_;
}

inline Publisher publisher(const Topic& topic) {
    fg_publisher* handle = nullptr;
    const fg_status status = fg_publisher_open(topic.get(), nullptr, &handle);
    REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
    return Publisher(handle);
}

inline Subscriber subscriber(const Topic& topic, std::uint32_t policy = FG_POLICY_QUEUE,
                             std::uint32_t leases_max = 0) {
    fg_subscriber_options value;
    fg_subscriber_options_init(&value);
    value.policy = policy;
    value.leases_max = leases_max;
    fg_subscriber* handle = nullptr;
    const fg_status status = fg_subscriber_open(topic.get(), &value, &handle);
    REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
    return Subscriber(handle);
}

inline Inspector inspector(const std::string& name) {
    fg_inspector* handle = nullptr;
    const fg_status status = fg_inspector_open(name.data(), name.size(), &handle);
    REQUIRE_MESSAGE(status == FG_OK, fg_last_error());
    return Inspector(handle);
}

inline fg_publish_info bytes_info(std::uint64_t bytes) {
    fg_publish_info info;
    fg_publish_info_init(&info);
    info.bytes = bytes;
    return info;
}

// Publishes `text`; returns the status.
inline fg_status send(const Publisher& handle, const std::string& text,
                      std::int64_t timeout_ns = 0) {
    const fg_publish_info info = bytes_info(text.size());
    return fg_publisher_send(handle.get(), text.data(), &info, timeout_ns, nullptr);
}

inline std::string text_of(const fg_frame& frame) {
    return std::string(static_cast<const char*>(frame.data), frame.bytes);
}

inline fg_topic_stats stats(const std::string& name) {
    fg_topic_stats value{};
    value.struct_bytes = sizeof value;
    REQUIRE(fg_inspector_stats(inspector(name).get(), &value) == FG_OK);
    return value;
}

#ifndef _WIN32
// Runs `body` in a forked child; its exit status is what `body` returns.
inline pid_t in_child(const std::function<int()>& body) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        alarm(60);  // an abandoned child must not stay
        _exit(body());
    }
    return child;
}

#endif

inline int wait_for(pid_t child) {
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return status;
}

// A process that does only this and ends with what it returns, in a minute at the latest.
inline pid_t start(int (*role)(std::uint64_t, std::uint64_t), std::uint64_t a = 0,
                   std::uint64_t b = 0) {
#ifdef _WIN32
    return windows::start(role, a, b);
#else
    return in_child([=] { return role(a, b); });
#endif
}

// The algorithm on plain memory: no files, no locks.
class HeapSegment {
  public:
    explicit HeapSegment(const fg_topic_options& value) {
        framegate::impl::compute_geometry(value, &identity_);
        memory_ = ::operator new(identity_.control_bytes, kAlignment);
        std::memset(memory_, 0, identity_.control_bytes);
        view_ = framegate::impl::make_view(identity_, static_cast<unsigned char*>(memory_));
        data_.resize(identity_.slots * value.slot_bytes / 8);
    }
    ~HeapSegment() { ::operator delete(memory_, kAlignment); }
    HeapSegment(const HeapSegment&) = delete;
    HeapSegment& operator=(const HeapSegment&) = delete;

    const framegate::impl::SegmentView& view() const { return view_; }
    framegate::impl::Self join(std::uint32_t index) const {
        return framegate::impl::begin_row(view_, index, {});
    }
    std::uint64_t* words(std::uint32_t slot) {
        return data_.data() + slot * (identity_.slot_bytes / 8);
    }

  private:
    static constexpr std::align_val_t kAlignment{framegate::impl::kPageBytes};
    framegate::impl::Identity identity_{};
    void* memory_ = nullptr;
    framegate::impl::SegmentView view_;
    std::vector<std::uint64_t> data_;
};

// A take by somebody who leases nothing yet.
inline bool holds_nothing(void*, std::uint32_t) { return false; }

inline std::uint64_t publish_one(const framegate::impl::SegmentView& view,
                                 const framegate::impl::Self& self) {
    const framegate::impl::LoanAttempt loan = framegate::impl::try_loan(view, self);
    REQUIRE(loan.result == framegate::impl::LoanResult::kOk);
    const framegate::impl::Publication publication =
        framegate::impl::publish(view, self, loan.slot, loan.word);
    REQUIRE(publication.result == framegate::impl::PublishResult::kOk);
    return publication.sequence;
}

}  // namespace test
