// Typed maps: what is written comes back, and no bytes make the reader do anything but say no.
#include "framegate/values.hpp"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "framegate/publisher.hpp"
#include "framegate/subscriber.hpp"
#include "support.hpp"
#include "values.hpp"

namespace {

using framegate::Values;
using framegate::ValuesView;

std::vector<std::byte> bytes_of(std::initializer_list<int> list) {
    std::vector<std::byte> bytes;
    for (const int value : list) {
        bytes.push_back(static_cast<std::byte>(value));
    }
    return bytes;
}

fg_status decode(const std::vector<std::byte>& bytes) {
    fg_value values[FG_VALUES_MAX];
    std::size_t count = 0;
    // An exact heap copy, so that AddressSanitizer sees a read past the end.
    const std::unique_ptr<std::byte[]> copy(new std::byte[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), copy.get());
    return fg_values_decode(copy.get(), bytes.size(), values, FG_VALUES_MAX, &count);
}

}  // namespace

TEST_CASE("every type comes back") {
    const std::string text(300, 'x');
    const std::byte raw[] = {std::byte{0}, std::byte{255}};
    Values values;
    values.set("no", false).set("yes", true).set("pi", 3.25).set("text", text).set("empty", "");
    values.set("raw", std::span(raw)).set("nan", std::nan(""));
    auto encoded = values.encode();
    REQUIRE(encoded);
    auto view = ValuesView::decode(*encoded);
    REQUIRE(view);
    const ValuesView& read = *view;
    CHECK(read.entries().size() == 7);
    CHECK(read.boolean("no") == false);
    CHECK(read.boolean("yes") == true);
    CHECK(read.real("pi") == 3.25);
    CHECK(std::isnan(*read.real("nan")));
    CHECK(read.string("text") == text);
    CHECK(read.string("empty") == "");
    CHECK(read.bytes("raw")->size() == 2);
    CHECK_FALSE(read.integer("pi"));
    CHECK(read.find("nobody") == nullptr);
}

TEST_CASE("integers take the shortest form and come back") {
    using Limits = std::numeric_limits<std::int64_t>;
    const std::pair<std::int64_t, std::size_t> cases[] = {{0, 1},
                                                          {127, 1},
                                                          {-32, 1},
                                                          {-33, 2},
                                                          {128, 2},
                                                          {255, 2},
                                                          {256, 3},
                                                          {-128, 2},
                                                          {-129, 3},
                                                          {65535, 3},
                                                          {65536, 5},
                                                          {-32768, 3},
                                                          {-32769, 5},
                                                          {4294967295, 5},
                                                          {4294967296, 9},
                                                          {-2147483648LL, 5},
                                                          {-2147483649LL, 9},
                                                          {Limits::max(), 9},
                                                          {Limits::min(), 9}};
    for (const auto& [number, width] : cases) {
        auto encoded = Values().set("k", number).encode();
        REQUIRE(encoded);
        CHECK(encoded->size() == 1 + 2 + width);
        auto view = ValuesView::decode(*encoded);
        REQUIRE(view);
        CHECK(view->integer("k") == number);
    }
}

TEST_CASE("the encoding is MessagePack") {
    auto encoded = Values().set("a", 1).set("b", true).set("c", "x").set("d", 1.0).encode();
    REQUIRE(encoded);
    CHECK(*encoded == bytes_of({0x84, 0xa1, 'a',  1,    0xa1, 'b', 0xc3, 0xa1, 'c', 0xa1, 'x',
                                0xa1, 'd',  0xcb, 0x3f, 0xf0, 0,   0,    0,    0,   0,    0}));
    // Longer forms of other writers are read: map16, str8, str16, float32.
    const std::vector<std::byte> longer =
        bytes_of({0xde, 0, 2,   0xd9, 1, 'f', 0xca, 0x3f, 0xc0, 0, 0, 0xda,
                  0,    1, 'n', 0xcf, 0, 0,   0,    0,    0,    0, 0, 5});
    auto view = ValuesView::decode(longer);
    REQUIRE(view);
    CHECK(view->real("f") == 1.5);
    CHECK(view->integer("n") == 5);
}

TEST_CASE("no bytes are the empty map") {
    auto view = ValuesView::decode({});
    REQUIRE(view);
    CHECK(view->entries().empty());
    CHECK(decode(bytes_of({0x80})) == FG_OK);
    auto encoded = Values().encode();
    CHECK(*encoded == bytes_of({0x80}));
}

TEST_CASE("a map has as many values as it may and not one more") {
    std::vector<std::string> keys;
    for (int i = 0; i <= FG_VALUES_MAX; ++i) {
        keys.push_back("k" + std::to_string(i));
    }
    Values values;
    for (int i = 0; i < FG_VALUES_MAX; ++i) {
        values.set(keys[static_cast<std::size_t>(i)], i);
    }
    auto encoded = values.encode();
    REQUIRE(encoded);
    auto view = ValuesView::decode(*encoded);
    REQUIRE(view);
    CHECK(view->entries().size() == FG_VALUES_MAX);
    CHECK(view->integer("k77") == 77);
    values.set(keys.back(), 0);
    CHECK_FALSE(values.encode());
    (*encoded)[2] = std::byte{FG_VALUES_MAX + 1};
    CHECK(decode(*encoded) == FG_INVALID_ARGUMENT);
}

TEST_CASE("keys are 1 to 64 bytes of UTF-8, each there once") {
    CHECK(Values().set(std::string(64, 'k'), 1).encode());
    CHECK_FALSE(Values().set(std::string(65, 'k'), 1).encode());
    CHECK_FALSE(Values().set("", 1).encode());
    CHECK_FALSE(Values().set("\xff", 1).encode());
    CHECK_FALSE(Values().set("a", "\xc0\x80").encode());
    auto twice = Values().set("same", 1).set("same", 2).encode();
    REQUIRE_FALSE(twice);
    CHECK(twice.error().detail().find("same") != std::string::npos);
}

TEST_CASE("a buffer of exactly the needed size is enough and one byte less is not") {
    const fg_value value = {"key", 3, FG_VALUE_INT, 1000, 0, nullptr, 0};
    std::size_t needed = 0;
    CHECK(fg_values_encode(&value, 1, nullptr, 0, &needed) == FG_INVALID_ARGUMENT);
    CHECK(needed == 8);
    const std::unique_ptr<std::byte[]> out(new std::byte[needed]);
    CHECK(fg_values_encode(&value, 1, out.get(), needed, &needed) == FG_OK);
    CHECK(fg_values_encode(&value, 1, out.get(), needed - 1, &needed) == FG_INVALID_ARGUMENT);
    fg_value unknown = value;
    unknown.type = 6;
    CHECK(fg_values_encode(&unknown, 1, out.get(), needed, &needed) == FG_INVALID_ARGUMENT);
}

TEST_CASE("what maps do not hold is refused") {
    CHECK(decode(bytes_of({0x81, 0xa1, 'k', 0xc0})) == FG_INVALID_ARGUMENT);        // nil
    CHECK(decode(bytes_of({0x81, 0xa1, 'k', 0x90})) == FG_INVALID_ARGUMENT);        // array
    CHECK(decode(bytes_of({0x81, 0xa1, 'k', 0x80})) == FG_INVALID_ARGUMENT);        // map
    CHECK(decode(bytes_of({0x81, 0xa1, 'k', 0xd4, 1, 1})) == FG_INVALID_ARGUMENT);  // extension
    CHECK(decode(bytes_of({0x81, 1, 1})) == FG_INVALID_ARGUMENT);     // a key that is a number
    CHECK(decode(bytes_of({0x81, 0xa0, 1})) == FG_INVALID_ARGUMENT);  // empty key
    CHECK(decode(bytes_of({0x93, 1, 2, 3})) == FG_INVALID_ARGUMENT);  // no map at all
    CHECK(decode(bytes_of({0xdf, 0, 0, 0, 0})) == FG_INVALID_ARGUMENT);
    CHECK(decode(bytes_of({0x80, 0})) == FG_INVALID_ARGUMENT);  // something behind it
    CHECK(decode(bytes_of({0x81, 0xa1, 'k', 0xa2, 0xc3, 0x28})) == FG_INVALID_ARGUMENT);
    CHECK(decode(bytes_of({0x82, 0xa1, 'k', 1, 0xa1, 'k', 2})) == FG_INVALID_ARGUMENT);
    CHECK(decode(bytes_of({0x81, 0xa1, 'k', 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0})) ==
          FG_INVALID_ARGUMENT);
}

TEST_CASE("every prefix of a map is refused") {
    const std::byte raw[] = {std::byte{1}, std::byte{2}};
    auto encoded = Values()
                       .set("int", 70000)
                       .set("float", 1.5)
                       .set("string", std::string(40, 's'))
                       .set("raw", std::span(raw))
                       .encode();
    REQUIRE(encoded);
    for (std::size_t length = 1; length < encoded->size(); ++length) {
        CHECK(decode({encoded->begin(), encoded->begin() + static_cast<std::ptrdiff_t>(length)}) ==
              FG_INVALID_ARGUMENT);
    }
}

TEST_CASE("random bytes never make it read outside, and what it accepts can be written again") {
    std::mt19937 random(7);
    const int heads[] = {0x81, 0x82, 0x8f, 0xde, 0xa1, 0xc4, 0xc6, 0xda, 0xdb, 0xcf};
    int accepted = 0;
    for (int round = 0; round < 20000; ++round) {
        std::vector<std::byte> bytes(random() % 24 + 1);
        for (std::byte& byte : bytes) {
            byte = static_cast<std::byte>(random() % 3 == 0 ? heads[random() % 10]
                                                            : static_cast<int>(random() % 256));
        }
        bytes[0] = static_cast<std::byte>(0x80 + random() % 3);
        fg_value values[FG_VALUES_MAX];
        std::size_t count = 0;
        if (fg_values_decode(bytes.data(), bytes.size(), values, FG_VALUES_MAX, &count) == FG_OK) {
            ++accepted;
            std::byte out[256];
            std::size_t written = 0;
            CHECK(fg_values_encode(values, count, out, sizeof out, &written) == FG_OK);
            CHECK(written <= bytes.size() + 5 * count);  // a float32 comes out as a float64
        }
    }
    CHECK(accepted > 0);
}

TEST_CASE("UTF-8 is checked strictly") {
    using framegate::impl::is_utf8;
    for (const char* good : {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                             "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"}) {
        CHECK(is_utf8(good, std::strlen(good)));
    }
    for (const char* bad : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
                            "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82", "a\xff"}) {
        CHECK_FALSE(is_utf8(bad, std::strlen(bad)));
    }
}

TEST_CASE("a frame carries a map") {
    const test::RuntimeDirectory directory;
    auto topic = framegate::Topic::create("values");
    auto publisher = framegate::Publisher::open(*topic);
    auto subscriber = framegate::Subscriber::open(*topic);
    auto metadata = Values().set("gain", 2.5).set("camera", "left").encode();
    auto loan = publisher->loan(0);
    framegate::FrameInfo info(0);
    info.user_metadata = metadata->data();
    info.user_metadata_bytes = static_cast<std::uint32_t>(metadata->size());
    REQUIRE(loan->publish(info));
    auto frame = subscriber->take();
    auto read = (*frame)->metadata();
    REQUIRE(read);
    CHECK(read->real("gain") == 2.5);
    CHECK(read->string("camera") == "left");
}
