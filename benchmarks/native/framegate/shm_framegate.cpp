// framegate from C++ over the C ABI, and what the machine allows, measured; prints JSON.
//
//     shm_framegate cycle|send|empty|latency|throughput|memcpy|futex|idle --cores 0,1 --seconds 0.5
//                   [--size 64] [--wake futex|asleep|fd|spin] [--touch] [--count]
//
// The protocol of the two processes is that of apps/shm_measure.py: the reader is the process that
// was started; the writer sends one frame when it is told to ("g"), after a pause in which the
// reader falls asleep, and ends at "e".
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "framegate/shm.h"

namespace {

constexpr int kPaceFd = 900;
constexpr int kWarmupFrames = 12;
constexpr int kCounted = 1000;

struct Options {
    std::string mode;
    std::string wake = "futex";
    std::size_t size = 64;
    double seconds = 0.5;
    int cores[2] = {0, 1};
    bool touch = false;
    bool count = false;
};

std::uint64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000000000U +
           static_cast<std::uint64_t>(now.tv_nsec);
}

void check(fg_status status, const char* what) {
    if (status != FG_OK) {
        fprintf(stderr, "%s: status %d: %s\n", what, status, fg_last_error());
        exit(1);
    }
}

void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set, &set);
}

// The writer is busy in between, as one that makes pictures is; the reader falls asleep.
void work_for_a_while() {
    const std::uint64_t end = now_ns() + 200000;
    while (now_ns() < end) {
    }
}

double percentile(const std::vector<std::uint64_t>& sorted, double share) {
    const auto at = static_cast<std::size_t>(static_cast<double>(sorted.size()) * share);
    return static_cast<double>(sorted[std::min(at, sorted.size() - 1)]);
}

// The two processes, and the pipe by which the reader says when the next frame is wanted.
struct Peer {
    pid_t writer = 0;
    int ready[2] = {-1, -1};

    // True in the writing process. Nothing of framegate is open yet.
    bool split(const Options& options) {
        int pace[2];
        if (pipe(pace) != 0 || pipe(ready) != 0) {
            exit(1);
        }
        writer = fork();
        if (writer == 0) {
            dup2(pace[0], kPaceFd);
            close(pace[1]);
            pin(options.cores[1]);
            return true;
        }
        dup2(pace[1], kPaceFd);
        close(pace[0]);
        close(pace[1]);
        pin(options.cores[0]);
        return false;
    }
    void say_ready() const {
        if (write(ready[1], "r", 1) != 1) {
            exit(1);
        }
    }
    void wait_ready() const {
        char byte = 0;
        if (read(ready[0], &byte, 1) != 1) {
            exit(1);
        }
    }
    static void go_on() {
        if (write(kPaceFd, "g", 1) != 1) {
            exit(1);
        }
    }
    static bool told_to_go_on() {
        char byte = 0;
        return read(kPaceFd, &byte, 1) == 1 && byte == 'g';
    }
    void end() const {
        if (write(kPaceFd, "e", 1) != 1) {
            return;
        }
        waitpid(writer, nullptr, 0);
    }
};

struct Reader {
    fg_topic* topic = nullptr;
    fg_subscriber* subscriber = nullptr;
    int fd = -1;
    bool spins = false;

    Reader(const std::string& name, const Options& options) {
        fg_topic_options topic_options;
        fg_topic_options_init(&topic_options);
        topic_options.slot_bytes = options.size;
        check(fg_topic_create(name.data(), name.size(), &topic_options, &topic), "create");
        fg_subscriber_options subscriber_options;
        fg_subscriber_options_init(&subscriber_options);
        subscriber_options.spin_ns = options.wake == "asleep" ? 1 : 0;
        check(fg_subscriber_open(topic, &subscriber_options, &subscriber), "subscriber");
        if (options.wake == "fd") {
            check(fg_subscriber_event_fd(subscriber, &fd), "event fd");
        }
        spins = options.wake == "spin";
        fg_topic_unlink_later = name;
    }
    std::string fg_topic_unlink_later;

    void take(fg_frame* frame) const {
        if (spins) {
            fg_status status = FG_EMPTY;
            while ((status = fg_subscriber_take(subscriber, 0, frame)) == FG_EMPTY) {
            }
            check(status, "take");
        } else if (fd < 0) {
            check(fg_subscriber_take(subscriber, -1, frame), "take");
        } else {
            // The cycle of an event loop.
            fg_status status = FG_OK;
            while ((status = fg_subscriber_take(subscriber, 0, frame)) == FG_EMPTY) {
                int is_ready = 0;
                check(fg_subscriber_arm(subscriber, &is_ready), "arm");
                if (is_ready == 0) {
                    pollfd waits{fd, POLLIN, 0};
                    poll(&waits, 1, -1);
                    check(fg_subscriber_drain(subscriber), "drain");
                }
            }
            check(status, "take");
        }
    }
    void close_all() const {
        fg_subscriber_close(subscriber);
        fg_topic_close(topic);
        fg_topic_unlink(fg_topic_unlink_later.data(), fg_topic_unlink_later.size());
    }
};

struct Writer {
    fg_topic* topic = nullptr;
    fg_publisher* publisher = nullptr;
    fg_publish_info info{};
    std::unique_ptr<char[]> source;

    Writer(const std::string& name, const Options& options) {
        check(fg_topic_open(name.data(), name.size(), &topic), "open");
        check(fg_publisher_open(topic, nullptr, &publisher), "publisher");
        fg_publish_info_init(&info);
        info.bytes = options.size;
        source.reset(new char[options.size]);
        memset(source.get(), 1, options.size);  // so that its pages are not all the same zero page
    }
    void send() { check(fg_publisher_send(publisher, source.get(), &info, -1, nullptr), "send"); }
    void close_all() const {
        fg_publisher_close(publisher);
        fg_topic_close(topic);
    }
};

std::string topic_name() { return "bench-" + std::to_string(getpid()); }

// ---- one process

using Count = std::uint64_t (*)();

int measure_cycle(const Options& options) {
    pin(options.cores[0]);
    const std::string name = topic_name();
    Reader reader(name, options);
    if (options.mode == "send") {
        fg_subscriber_close(reader.subscriber);
    }
    Writer writer(name, options);
    const auto run = [&](long times) {
        fg_loan loan;
        fg_frame frame;
        if (options.mode == "empty") {
            for (long i = 0; i < times; ++i) {
                fg_subscriber_take(reader.subscriber, 0, &frame);
            }
            return;
        }
        const bool whole = options.mode == "cycle";
        for (long i = 0; i < times; ++i) {
            check(fg_publisher_loan(writer.publisher, options.size, 0, &loan), "loan");
            auto* words = static_cast<volatile std::uint64_t*>(loan.data);
            for (std::size_t at = 0; at < options.size / 8; ++at) {
                words[at] = static_cast<std::uint64_t>(i);
            }
            check(fg_publisher_publish(writer.publisher, &loan, &writer.info, nullptr), "publish");
            if (whole) {
                check(fg_subscriber_take(reader.subscriber, 0, &frame), "take");
                check(fg_subscriber_release(reader.subscriber, &frame), "release");
            }
        }
    };
    run(100000);
    if (options.count) {
        const auto counter =
            reinterpret_cast<Count>(dlsym(RTLD_DEFAULT, "framegate_bench_allocations"));
        const std::uint64_t before = counter != nullptr ? counter() : 0;
        syscall(SYS_getppid);
        run(kCounted);
        syscall(SYS_getppid);
        const std::uint64_t after = counter != nullptr ? counter() : 0;
        printf("{\"operations\": %d, \"allocations\": %g}\n", kCounted,
               static_cast<double>(after - before) / kCounted);
    } else {
        std::vector<double> batches;
        constexpr long kBatch = 20000;
        const std::uint64_t end = now_ns() + static_cast<std::uint64_t>(options.seconds * 1e9);
        while (now_ns() < end) {
            const std::uint64_t began = now_ns();
            run(kBatch);
            batches.push_back(static_cast<double>(now_ns() - began) / kBatch);
        }
        std::sort(batches.begin(), batches.end());
        printf("{\"ns\": %.2f}\n", batches[batches.size() / 2]);
    }
    if (options.mode == "send") {
        fg_topic_close(reader.topic);
        fg_topic_unlink(name.data(), name.size());
    } else {
        reader.close_all();
    }
    writer.close_all();
    return 0;
}

// What copying so many bytes costs, from one warm buffer into a ring of eight in shared memory, as
// a writer of frames does it.
int measure_memcpy(const Options& options) {
    pin(options.cores[0]);
    constexpr std::size_t kSlots = 2;
    auto* ring = static_cast<char*>(mmap(nullptr, kSlots * options.size, PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
    std::unique_ptr<char[]> source(new char[options.size]);
    memset(source.get(), 1, options.size);
    std::vector<std::uint64_t> times;
    const std::uint64_t end = now_ns() + static_cast<std::uint64_t>(options.seconds * 1e9);
    for (std::size_t at = 0; times.size() < 1000 || now_ns() < end; at = (at + 1) % kSlots) {
        const std::uint64_t began = now_ns();
        memcpy(ring + at * options.size, source.get(), options.size);
        asm volatile("" ::: "memory");
        times.push_back(now_ns() - began);
        if (now_ns() >= end && times.size() > 20) {
            break;
        }
    }
    std::sort(times.begin(), times.end());
    printf("{\"p50_us\": %.3f, \"p99_us\": %.3f}\n", percentile(times, 0.5) / 1000,
           percentile(times, 0.99) / 1000);
    return 0;
}

// ---- two processes

// `cpu_us`: of the reading thread, per frame.
void print_latency(std::vector<std::uint64_t>& times, double cpu_us = 0) {
    std::sort(times.begin(), times.end());
    printf("{\"frames\": %zu, \"p50_us\": %.3f, \"p99_us\": %.3f, \"cpu_us\": %.3f}\n",
           times.size(), percentile(times, 0.5) / 1000, percentile(times, 0.99) / 1000, cpu_us);
}

double thread_cpu_us() {
    timespec used{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) * 1e6 + static_cast<double>(used.tv_nsec) / 1e3;
}

// A futex wake and nothing else: the least that waking a sleeper can cost.
int measure_futex(const Options& options) {
    struct Shared {
        std::atomic<std::uint32_t> word;
        std::atomic<std::uint64_t> stamp;
    };
    auto* shared = static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                                             MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
    Peer peer;
    if (peer.split(options)) {
        peer.say_ready();
        while (Peer::told_to_go_on()) {
            work_for_a_while();
            shared->stamp = now_ns();
            shared->word.fetch_add(1);
            syscall(SYS_futex, &shared->word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
        }
        return 0;
    }
    peer.wait_ready();
    std::vector<std::uint64_t> times;
    const std::uint64_t end = now_ns() + static_cast<std::uint64_t>(options.seconds * 1e9);
    std::uint32_t seen = 0;
    while (now_ns() < end) {
        Peer::go_on();
        while (shared->word == seen) {
            syscall(SYS_futex, &shared->word, FUTEX_WAIT, seen, nullptr, nullptr, 0);
        }
        times.push_back(now_ns() - shared->stamp);
        ++seen;
    }
    peer.end();
    print_latency(times);
    return 0;
}

std::uint64_t touch(const fg_frame& frame) {
    std::uint64_t sum = 0;
    const auto* bytes = static_cast<const unsigned char*>(frame.data);
    for (std::uint64_t at = 0; at < frame.bytes; at += 64) {
        sum += bytes[at];
    }
    return sum;
}

int measure_latency(const Options& options) {
    const std::string name = topic_name();
    Peer peer;
    int created[2];
    if (pipe(created) != 0) {
        return 1;
    }
    if (peer.split(options)) {
        char byte = 0;
        if (read(created[0], &byte, 1) != 1) {
            return 1;
        }
        Writer writer(name, options);
        peer.say_ready();
        while (Peer::told_to_go_on()) {
            work_for_a_while();
            const std::uint64_t stamp = now_ns();
            memcpy(writer.source.get(), &stamp, sizeof stamp);
            writer.send();
        }
        writer.close_all();
        return 0;
    }
    Reader reader(name, options);
    if (write(created[1], "c", 1) != 1) {
        return 1;
    }
    peer.wait_ready();
    std::vector<std::uint64_t> times;
    std::uint64_t end = 0;
    double cpu_us = 0;
    for (int frames = 0;; ++frames) {
        if (frames == kWarmupFrames) {
            times.clear();
            cpu_us = thread_cpu_us();
            end = now_ns() + static_cast<std::uint64_t>(options.seconds * 1e9);
        }
        Peer::go_on();
        fg_frame frame;
        reader.take(&frame);
        if (options.touch) {
            static volatile std::uint64_t sink;
            sink = touch(frame);
        }
        const std::uint64_t now = now_ns();
        std::uint64_t stamp = 0;
        memcpy(&stamp, frame.data, sizeof stamp);
        times.push_back(now - stamp);
        check(fg_subscriber_release(reader.subscriber, &frame), "release");
        if (frames > kWarmupFrames && now > end) {
            break;
        }
    }
    cpu_us = (thread_cpu_us() - cpu_us) / static_cast<double>(times.size());
    peer.end();
    reader.close_all();
    print_latency(times, cpu_us);
    return 0;
}

int measure_throughput(const Options& options) {
    const std::string name = topic_name();
    Peer peer;
    int created[2];
    if (pipe(created) != 0) {
        return 1;
    }
    if (peer.split(options)) {
        char byte = 0;
        if (read(created[0], &byte, 1) != 1) {
            return 1;
        }
        Writer writer(name, options);
        peer.say_ready();
        Peer::told_to_go_on();
        pollfd told{kPaceFd, POLLIN, 0};
        while (poll(&told, 1, 0) == 0) {
            const std::uint64_t end = now_ns() + 20000000;
            while (now_ns() < end) {
                for (int i = 0; i < 8; ++i) {
                    writer.send();
                }
            }
        }
        writer.close_all();
        return 0;
    }
    Reader reader(name, options);
    if (write(created[1], "c", 1) != 1) {
        return 1;
    }
    peer.wait_ready();
    Peer::go_on();
    fg_frame frame;
    std::uint64_t frames = 0;
    reader.take(&frame);
    check(fg_subscriber_release(reader.subscriber, &frame), "release");
    const std::uint64_t began = now_ns();
    const auto length = static_cast<std::uint64_t>(options.seconds * 1e9);
    while (now_ns() - began < length) {
        reader.take(&frame);
        if (options.touch) {
            static volatile std::uint64_t sink;
            sink = touch(frame);
        }
        check(fg_subscriber_release(reader.subscriber, &frame), "release");
        ++frames;
    }
    const double per_s =
        static_cast<double>(frames) / (static_cast<double>(now_ns() - began) / 1e9);
    peer.end();
    reader.close_all();
    printf("{\"frames_per_s\": %.1f, \"gb_per_s\": %.3f}\n", per_s,
           per_s * static_cast<double>(options.size) / 1e9);
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    Options options;
    if (count < 2) {
        return 2;
    }
    options.mode = arguments[1];
    for (int i = 2; i < count; ++i) {
        const std::string word = arguments[i];
        if (word == "latency") {
            continue;  // the limits run as cases of questions about latency
        }
        if (word == "--touch") {
            options.touch = true;
        } else if (word == "--count") {
            options.count = true;
        } else if (i + 1 == count) {
            return 2;
        } else if (word == "--size") {
            options.size = strtoul(arguments[++i], nullptr, 10);
        } else if (word == "--seconds") {
            options.seconds = strtod(arguments[++i], nullptr);
        } else if (word == "--wake") {
            options.wake = arguments[++i];
        } else if (word == "--cores") {
            if (sscanf(arguments[++i], "%d,%d", &options.cores[0], &options.cores[1]) != 2) {
                return 2;
            }
        } else {
            return 2;
        }
    }
    if (options.mode == "memcpy") {
        return measure_memcpy(options);
    }
    if (options.mode == "futex") {
        return measure_futex(options);
    }
    if (options.mode == "latency") {
        return measure_latency(options);
    }
    if (options.mode == "throughput") {
        return measure_throughput(options);
    }
    return measure_cycle(options);
}
