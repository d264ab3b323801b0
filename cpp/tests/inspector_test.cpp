// What an inspector shows of slots, beside publishers and subscribers that know nothing of it.
#include "framegate/inspector.hpp"

#include <atomic>
#include <thread>

#include "support.hpp"

namespace {

std::vector<fg_slot> slots_of(const test::Inspector& inspector) {
    std::size_t count = 0;
    REQUIRE(fg_inspector_slots(inspector.get(), nullptr, 0, &count) == FG_OK);
    std::vector<fg_slot> rows(count);
    REQUIRE(fg_inspector_slots(inspector.get(), rows.data(), rows.size(), &count) == FG_OK);
    return rows;
}

bool holds(const fg_slot& slot, std::uint32_t participant) {
    return (slot.holders[participant / 64] >> (participant % 64) & 1) != 0;
}

}  // namespace

TEST_CASE("slots show frames, their size and time, who holds and who fills them") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Publisher publisher = test::publisher(topic);     // row 0
    const test::Subscriber subscriber = test::subscriber(topic);  // row 1
    const test::Inspector inspector = test::inspector("t");
    for (const fg_slot& slot : slots_of(inspector)) {
        CHECK(slot.state == FG_SLOT_FREE);
        CHECK(slot.sequence == 0);
        CHECK(slot.owner == FG_SLOT_NO_OWNER);
    }
    REQUIRE(test::send(publisher, "one") == FG_OK);
    REQUIRE(test::send(publisher, "three") == FG_OK);
    fg_frame frame{};
    REQUIRE(fg_subscriber_take(subscriber.get(), 0, &frame) == FG_OK);
    fg_loan loan{};
    REQUIRE(fg_publisher_loan(publisher.get(), 1, 0, &loan) == FG_OK);
    const std::vector<fg_slot> rows = slots_of(inspector);
    REQUIRE(rows.size() == 4);
    const fg_slot& held = rows[frame.slot];
    CHECK(held.state == FG_SLOT_PUBLISHED);
    CHECK(held.sequence == 1);
    CHECK(held.bytes == 3);
    CHECK(held.published_ns == frame.published_ns);
    CHECK(holds(held, 1));
    CHECK_FALSE(holds(held, 0));
    CHECK(rows[loan.slot].state == FG_SLOT_LOANED);
    CHECK(rows[loan.slot].owner == 0);
    CHECK(rows[loan.slot].sequence == 0);
    std::uint32_t index = 0;
    bool found = false;
    for (const fg_slot& slot : rows) {
        CHECK(slot.index == index++);
        if (slot.sequence == 2) {
            found = true;
            CHECK(slot.bytes == 5);
            CHECK(slot.published_ns >= held.published_ns);
        }
    }
    CHECK(found);
    REQUIRE(fg_publisher_abandon(publisher.get(), &loan) == FG_OK);
    REQUIRE(fg_subscriber_release(subscriber.get(), &frame) == FG_OK);
    for (const fg_slot& slot : slots_of(inspector)) {
        CHECK_FALSE(holds(slot, 1));
        CHECK(slot.state != FG_SLOT_LOANED);
    }
}

TEST_CASE("slots fill no more than their capacity, and the C++ class gives them all") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Inspector inspector = test::inspector("t");
    fg_slot rows[3] = {};
    rows[2].index = 77;
    std::size_t count = 0;
    REQUIRE(fg_inspector_slots(inspector.get(), rows, 2, &count) == FG_OK);
    CHECK(count == 4);
    CHECK(rows[1].index == 1);
    CHECK(rows[2].index == 77);
    auto opened = framegate::Inspector::open("t");
    REQUIRE(opened);
    auto all = opened->slots();
    REQUIRE(all);
    CHECK(all->size() == 4);
}

TEST_CASE("the header of a slot belongs to its frame while publishers reuse the slots") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(3, 4096));
    const test::Publisher publisher = test::publisher(topic);
    const test::Inspector inspector = test::inspector("t");
    // Frame s has s mod 4000 + 1 bytes, so size and sequence show whether they belong together.
    constexpr std::uint64_t kFrames = 20000;
    std::atomic<bool> over{false};
    std::thread thread([&] {
        for (std::uint64_t sequence = 1; sequence <= kFrames; ++sequence) {
            fg_loan loan{};
            if (fg_publisher_loan(publisher.get(), 1, test::kPatienceNs, &loan) != FG_OK) {
                break;
            }
            fg_publish_info info = test::bytes_info(sequence % 4000 + 1);
            static_cast<void>(fg_publisher_publish(publisher.get(), &loan, &info, nullptr));
        }
        over = true;
    });
    std::uint64_t looks = 0;
    std::uint64_t torn = 0;
    do {
        for (const fg_slot& slot : slots_of(inspector)) {
            if (slot.sequence != 0 && slot.published_ns != 0) {
                ++looks;
                torn += slot.bytes == slot.sequence % 4000 + 1 ? 0 : 1;
            }
        }
    } while (!over || looks == 0);  // the publisher may be done before the first look
    thread.join();
    CHECK(looks > 0);
    CHECK(torn == 0);
}

#ifndef _WIN32  // fork
TEST_CASE("inspector of a forked child says so, whatever it is asked") {
    const test::RuntimeDirectory directory;
    const test::Topic topic = test::create("t", test::options(4, 64));
    const test::Inspector inspector = test::inspector("t");
    const int status = test::wait_for(test::in_child([&] {
        fg_topic_info info{};
        info.struct_bytes = sizeof info;
        fg_topic_stats stats{};
        stats.struct_bytes = sizeof stats;
        std::size_t count = 0;
        std::uint32_t generation = 0;
        fg_inspector* own = inspector.get();
        int failed = 0;
        failed += fg_inspector_get_info(own, &info) != FG_FORKED;
        failed += fg_inspector_schema(own, nullptr, 0, &count) != FG_FORKED;
        failed += fg_inspector_metadata(own, nullptr, 0, &count, &generation) != FG_FORKED;
        failed += fg_inspector_stats(own, &stats) != FG_FORKED;
        failed += fg_inspector_participants(own, nullptr, 0, &count) != FG_FORKED;
        failed += fg_inspector_slots(own, nullptr, 0, &count) != FG_FORKED;
        return failed;
    }));
    CHECK(status == 0);
}
#endif
