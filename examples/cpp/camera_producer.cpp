// A camera in C++: pictures of 480 x 270, RGB, drawn straight into shared memory, 30 a second.
//
//   build/example/camera_producer [COUNT] & python examples/camera_consumer.py

#include <chrono>
#include <cstdlib>
#include <framegate/publisher.hpp>
#include <iostream>
#include <thread>

namespace {

constexpr std::uint64_t kWidth = 480, kHeight = 270, kChannels = 3;
constexpr std::uint64_t kBytes = kWidth * kHeight * kChannels;

// A bright column that wanders over grey.
void draw(std::span<std::byte> pixels, std::uint64_t number) {
    for (std::uint64_t i = 0; i < pixels.size(); ++i) {
        const bool bright = i / kChannels % kWidth == number % kWidth;
        pixels[i] = static_cast<std::byte>(bright ? 255 : 100);
    }
}

template <class Result>
Result must(Result result) {
    if (!result) {
        std::cerr << "camera_producer: " << result.error().detail() << '\n';
        std::exit(1);
    }
    return result;
}

}  // namespace

int main(int count, char** words) {
    const std::uint64_t frames = count > 1 ? std::strtoull(words[1], nullptr, 10) : UINT64_MAX;
    const fg_array picture =
        framegate::make_array("", FG_DTYPE_UINT8, {kHeight, kWidth, kChannels});
    framegate::TopicOptions options;
    options.slot_bytes = kBytes;
    options.schema = &picture;
    options.schema_count = 1;
    auto topic = must(framegate::Topic::create_or_open("camera/front", options));
    auto publisher = must(framegate::Publisher::open(*topic, "camera in C++"));
    auto due = std::chrono::steady_clock::now();
    for (std::uint64_t number = 0; number < frames; ++number) {
        auto loan = must(publisher->loan(kBytes, std::chrono::seconds(1)));
        draw(loan->bytes(), number);
        must(loan->publish(framegate::FrameInfo(kBytes)));
        due += std::chrono::milliseconds(33);
        std::this_thread::sleep_until(due);
    }
}
