// Fields of records: arrays that lie interleaved, as in an array of C structs.
#include <cstddef>
#include <string>

#include "framegate/types.hpp"
#include "support.hpp"

namespace {

struct Point {
    float position[3];
    std::uint8_t colour;
    double time;
};

fg_array field(const char* name, fg_dtype dtype, std::initializer_list<std::uint64_t> shape,
               std::size_t offset) {
    fg_array array = framegate::make_array(name, dtype, shape);
    array.flags = FG_ARRAY_FIELD;
    array.offset = offset;
    array.record_bytes = sizeof(Point);
    array.record_dimensions = 1;
    return array;
}

struct Fields {
    fg_array arrays[3];
    explicit Fields(std::uint64_t count)
        : arrays{field("position", FG_DTYPE_FLOAT32, {count, 3}, offsetof(Point, position)),
                 field("colour", FG_DTYPE_UINT8, {count}, offsetof(Point, colour)),
                 field("time", FG_DTYPE_FLOAT64, {count}, offsetof(Point, time))} {}
};

fg_status lay_out(Fields& fields) {
    std::uint64_t bytes = 0;
    return fg_arrays_lay_out(fields.arrays, 3, &bytes);
}

fg_status publish(const test::Publisher& publisher, const Fields& fields, std::uint64_t bytes) {
    fg_loan loan{};
    REQUIRE(fg_publisher_loan(publisher.get(), bytes, 0, &loan) == FG_OK);
    fg_publish_info info = test::bytes_info(bytes);
    info.arrays = fields.arrays;
    info.array_count = 3;
    const fg_status status = fg_publisher_publish(publisher.get(), &loan, &info, nullptr);
    fg_publisher_abandon(publisher.get(), &loan);
    return status;
}

}  // namespace

TEST_CASE("records are laid out as the compiler lays out structs") {
    Fields fields(10);
    std::uint64_t bytes = 0;
    REQUIRE(fg_arrays_lay_out(fields.arrays, 3, &bytes) == FG_OK);
    CHECK(bytes == 10 * sizeof(Point));
    CHECK(fields.arrays[0].offset == 0);
    CHECK(fields.arrays[1].offset == offsetof(Point, colour));
    CHECK(fields.arrays[2].offset == offsetof(Point, time));
    CHECK(fields.arrays[0].bytes == 120);
    Fields none(0);
    REQUIRE(fg_arrays_lay_out(none.arrays, 3, &bytes) == FG_OK);
    CHECK(bytes == 0);
}

TEST_CASE("a topic of records of any number") {
    const test::RuntimeDirectory directory;
    const Fields schema(FG_DIMENSION_ANY);
    fg_topic_options options = test::options(4, 4096);
    options.schema = schema.arrays;
    options.schema_count = 3;
    const test::Topic topic = test::create("points", options);
    const test::Publisher publisher = test::publisher(topic);
    const test::Subscriber subscriber = test::subscriber(topic);
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, 4096 / sizeof(Point)}) {
        Fields fields(count);
        REQUIRE(lay_out(fields) == FG_OK);
        REQUIRE_MESSAGE(publish(publisher, fields, count * sizeof(Point)) == FG_OK,
                        fg_last_error());
        fg_frame frame;
        REQUIRE(fg_subscriber_take(subscriber.get(), 0, &frame) == FG_OK);
        fg_array arrays[3];
        REQUIRE(fg_subscriber_arrays(subscriber.get(), &frame, arrays, 3, nullptr) == FG_OK);
        CHECK(arrays[2].shape[0] == count);
        CHECK(arrays[2].record_bytes == sizeof(Point));
        CHECK(arrays[2].offset == offsetof(Point, time));
        CHECK(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    }
    fg_array stored[3];
    std::size_t count = 0;
    REQUIRE(fg_topic_schema(test::open("points").get(), stored, 3, &count) == FG_OK);
    CHECK(stored[1].offset == offsetof(Point, colour));
}

TEST_CASE("fields elsewhere in the record, or of other records, are another schema") {
    const test::RuntimeDirectory directory;
    Fields fields(2);
    REQUIRE(lay_out(fields) == FG_OK);
    fg_topic_options options = test::options(4, 4096);
    options.schema = fields.arrays;
    options.schema_count = 3;
    const test::Topic topic = test::create("points", options);
    const test::Publisher publisher = test::publisher(topic);
    CHECK(publish(publisher, fields, 2 * sizeof(Point)) == FG_OK);
    Fields moved = fields;
    moved.arrays[1].offset += 1;
    CHECK(publish(publisher, moved, 2 * sizeof(Point)) == FG_SCHEMA_MISMATCH);
    Fields wider = fields;
    for (fg_array& array : wider.arrays) {
        array.record_bytes += 8;
    }
    CHECK(publish(publisher, wider, 2 * sizeof(Point) + 16) == FG_SCHEMA_MISMATCH);
    Fields longer(3);
    REQUIRE(lay_out(longer) == FG_OK);
    CHECK(publish(publisher, longer, 2 * sizeof(Point)) == FG_INVALID_ARGUMENT);  // outside
}

TEST_CASE("descriptions that make no sense are refused") {
    const auto refused = [](auto change) {
        Fields fields(4);
        change(fields.arrays);
        return lay_out(fields) == FG_INVALID_ARGUMENT;
    };
    CHECK_FALSE(refused([](fg_array*) {}));
    CHECK(refused([](fg_array* a) { a[1].flags = 0; }));  // flags of one only, numbers left
    CHECK(refused([](fg_array* a) { a[1].flags = 2; }));
    CHECK(refused([](fg_array* a) { a[1].record_bytes = 0; }));
    CHECK(refused([](fg_array* a) { a[1].record_bytes += 8; }));  // other records
    CHECK(refused([](fg_array* a) { a[1].shape[0] = 5; }));       // another number of them
    CHECK(refused([](fg_array* a) { a[1].record_dimensions = 2; }));
    CHECK(refused([](fg_array* a) { a[2].offset = sizeof(Point) - 7; }));  // over the edge
    CHECK_FALSE(refused([](fg_array* a) { a[2].offset = sizeof(Point) - 8; }));
    CHECK(refused([](fg_array* a) { a[2].offset = UINT64_MAX; }));
    CHECK(refused([](fg_array* a) { a[0].shape[1] = std::uint64_t{1} << 40; }));
    CHECK(refused([](fg_array* a) {
        for (int i = 0; i < 3; ++i) {
            a[i].shape[0] = std::uint64_t{1} << 40;
        }
    }));
    fg_array plain[2] = {framegate::make_array("a", FG_DTYPE_UINT8, {4}),
                         field("b", FG_DTYPE_UINT8, {4}, 0)};
    std::uint64_t bytes = 0;
    CHECK(fg_arrays_lay_out(plain, 2, &bytes) == FG_INVALID_ARGUMENT);
}
