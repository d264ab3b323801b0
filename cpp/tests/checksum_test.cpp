// Checksums: the right numbers by both ways, and what topics do with them.
#include "checksum.hpp"

#include <random>
#include <string>
#include <vector>

#include "support.hpp"

using framegate::impl::crc32c;
using framegate::impl::crc32c_in_software;

namespace {

std::vector<unsigned char> random_bytes(std::size_t count) {
    std::mt19937 random(11);
    std::vector<unsigned char> bytes(count);
    for (unsigned char& byte : bytes) {
        byte = static_cast<unsigned char>(random());
    }
    return bytes;
}

// By the definition: a bit at a time.
std::uint32_t crc32c_by_bits(const unsigned char* at, std::size_t bytes) {
    std::uint32_t crc = ~std::uint32_t{0};
    for (std::size_t i = 0; i < bytes; ++i) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
        }
    }
    return ~crc;
}

struct Streams {
    test::RuntimeDirectory directory;
    test::Topic topic;
    test::Publisher publisher;
    test::Subscriber subscriber;

    explicit Streams(std::uint32_t kind, std::uint32_t policy = FG_POLICY_QUEUE) {
        fg_topic_options options = test::options(4, 4096);
        options.checksum = kind;
        topic = test::create("sums", options);
        publisher = test::publisher(topic);
        subscriber = test::subscriber(topic, policy);
    }
    fg_status take(fg_frame* frame) { return fg_subscriber_take(subscriber.get(), 0, frame); }
    fg_subscriber_stats stats() {
        fg_subscriber_stats value{};
        value.struct_bytes = sizeof value;
        REQUIRE(fg_subscriber_get_stats(subscriber.get(), &value) == FG_OK);
        return value;
    }
    // What a wild pointer of a publisher's process does to the newest frame.
    void spoil() {
        fg_loan loan;
        fg_frame frame;
        REQUIRE(fg_subscriber_peek(subscriber.get(), &frame) == FG_OK);
        const std::uint32_t slot = frame.slot;
        REQUIRE(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
        REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loan) == FG_OK);
        const auto distance = static_cast<std::ptrdiff_t>(slot) - loan.slot;
        static_cast<unsigned char*>(loan.data)[distance * 2 * 4096] ^= 0x40;
        REQUIRE(fg_publisher_abandon(publisher.get(), &loan) == FG_OK);
    }
};

}  // namespace

TEST_CASE("known numbers") {
    const std::string digits = "123456789";  // the check value of the catalogue of CRCs
    CHECK(crc32c(digits.data(), digits.size()) == 0xe3069283);
    CHECK(crc32c_in_software(digits.data(), digits.size()) == 0xe3069283);
    const unsigned char zeros[32] = {};  // RFC 3720, B.4
    CHECK(crc32c(zeros, sizeof zeros) == 0x8a9136aa);
    CHECK(crc32c(nullptr, 0) == 0);
    // XXH3 of its reference implementation (xxhsum -H3).
    CHECK(fg_checksum(FG_CHECKSUM_XXH3, "", 0) == 0x2d06800538d394c2);
    CHECK(fg_checksum(FG_CHECKSUM_XXH3, "a", 1) == 0xe6c632b61e964e1f);
    CHECK(fg_checksum(FG_CHECKSUM_XXH3, "abc", 3) == 0x78af5f94892f3950);
    CHECK(fg_checksum(FG_CHECKSUM_CRC32C, digits.data(), digits.size()) == 0xe3069283);
    CHECK(fg_checksum(FG_CHECKSUM_NONE, digits.data(), digits.size()) == 0);
    CHECK(fg_checksum(3, digits.data(), digits.size()) == 0);
}

TEST_CASE("hardware, software and the definition agree at every length and alignment") {
    const std::vector<unsigned char> bytes = random_bytes(60000);
    std::mt19937 random(5);
    for (std::size_t length = 0; length < 1600; ++length) {
        const std::size_t from = random() % 64;
        const std::uint32_t expected = crc32c_by_bits(bytes.data() + from, length);
        CHECK(crc32c(bytes.data() + from, length) == expected);
        CHECK(crc32c_in_software(bytes.data() + from, length) == expected);
    }
    // Around the lanes: three of 256 bytes, three of 8 KiB, both.
    for (const std::size_t length : {3U * 8192 - 1, 3U * 8192, 3U * 8192 + 769, 6U * 8192 + 5}) {
        const std::uint32_t expected = crc32c_by_bits(bytes.data() + 3, length);
        CHECK(crc32c(bytes.data() + 3, length) == expected);
        CHECK(crc32c_in_software(bytes.data() + 3, length) == expected);
    }
}

TEST_CASE("frames with their checksum are delivered") {
    for (const std::uint32_t kind : {FG_CHECKSUM_CRC32C, FG_CHECKSUM_XXH3}) {
        Streams streams(kind);
        for (const std::string& text : {std::string(), std::string("x"), std::string(4096, 'y')}) {
            REQUIRE(test::send(streams.publisher, text) == FG_OK);
            fg_frame frame;
            REQUIRE(streams.take(&frame) == FG_OK);
            CHECK(test::text_of(frame) == text);
            CHECK(fg_subscriber_release(streams.subscriber.get(), &frame) == FG_OK);
        }
        CHECK(streams.stats().corrupt == 0);
    }
}

TEST_CASE("a spoiled frame is refused by name, counted, given back, and the next one comes") {
    for (const std::uint32_t policy : {FG_POLICY_QUEUE, FG_POLICY_LATEST}) {
        Streams streams(FG_CHECKSUM_CRC32C, policy);
        REQUIRE(test::send(streams.publisher, "123456789") == FG_OK);
        streams.spoil();
        fg_frame frame{};
        CHECK(streams.take(&frame) == FG_CHECKSUM_MISMATCH);
        CHECK(frame.sequence == 1);
        CHECK(frame.data == nullptr);
        const std::string text = fg_last_error();
        CHECK(text.find("frame 1 ") != std::string::npos);
        CHECK(text.find("00000000e3069283") != std::string::npos);
        CHECK(text.find("has checksum 0000000") != std::string::npos);
        fg_subscriber_stats stats = streams.stats();
        CHECK(stats.corrupt == 1);
        CHECK(stats.received == 0);
        CHECK(stats.leases == 0);
        CHECK(stats.lost == 0);
        REQUIRE(test::send(streams.publisher, "good") == FG_OK);
        REQUIRE(streams.take(&frame) == FG_OK);
        CHECK(frame.sequence == 2);
        CHECK(streams.stats().received == 1);
        CHECK(fg_subscriber_release(streams.subscriber.get(), &frame) == FG_OK);
        fg_participant rows[4];
        std::size_t count = 0;
        const test::Inspector inspector = test::inspector("sums");
        REQUIRE(fg_inspector_participants(inspector.get(), rows, 4, &count) == FG_OK);
        CHECK(rows[1].corrupt == 1);
    }
}

TEST_CASE("a peek looks as well and moves nothing") {
    Streams streams(FG_CHECKSUM_XXH3);
    REQUIRE(test::send(streams.publisher, "frame") == FG_OK);
    fg_frame frame{};
    REQUIRE(fg_subscriber_peek(streams.subscriber.get(), &frame) == FG_OK);
    REQUIRE(fg_subscriber_release(streams.subscriber.get(), &frame) == FG_OK);
    streams.spoil();
    CHECK(fg_subscriber_peek(streams.subscriber.get(), &frame) == FG_CHECKSUM_MISMATCH);
    CHECK(streams.stats().position == 0);
    CHECK(streams.stats().corrupt == 1);
}

TEST_CASE("a topic without checksums does not look") {
    Streams streams(FG_CHECKSUM_NONE);
    REQUIRE(test::send(streams.publisher, "frame") == FG_OK);
    streams.spoil();
    fg_frame frame;
    REQUIRE(streams.take(&frame) == FG_OK);
    CHECK(test::text_of(frame) != "frame");
    CHECK(fg_subscriber_release(streams.subscriber.get(), &frame) == FG_OK);
}

TEST_CASE("the kind is kept in the topic and has its limits") {
    Streams streams(FG_CHECKSUM_XXH3);
    fg_topic_info info{};
    info.struct_bytes = sizeof info;
    REQUIRE(fg_topic_get_info(test::open("sums").get(), &info) == FG_OK);
    CHECK(info.checksum == FG_CHECKSUM_XXH3);
    fg_topic_options options = test::options(4, 64);
    options.checksum = FG_CHECKSUM_XXH3 + 1;
    fg_topic* topic = nullptr;
    CHECK(fg_topic_create("other", 5, &options, &topic) == FG_INVALID_ARGUMENT);
}
