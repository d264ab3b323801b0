/* shm.h is C, and the library needs no C++ runtime: this program is compiled and linked by a C
 * compiler. */
#define _GNU_SOURCE /* mkdtemp, setenv */
#define _DARWIN_C_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "framegate/shm.h"

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, fg_last_error()); \
            return 1;                                                                    \
        }                                                                                \
    } while (0)

static int round_trip(void) {
    static const char kName[] = "c/link";
    fg_topic_options options;
    fg_topic_options_init(&options);
    options.slots = 4;
    options.slot_bytes = 64;
    fg_topic* topic = NULL;
    CHECK(fg_topic_create(kName, strlen(kName), &options, &topic) == FG_OK);
    CHECK(fg_topic_create(kName, strlen(kName), &options, &topic) == FG_TOPIC_EXISTS);
    fg_publisher* publisher = NULL;
    fg_subscriber* subscriber = NULL;
    CHECK(fg_publisher_open(topic, NULL, &publisher) == FG_OK);
    CHECK(fg_subscriber_open(topic, NULL, &subscriber) == FG_OK);
    fg_topic_close(topic);

    fg_loan loan;
    CHECK(fg_publisher_loan(publisher, 5, 0, &loan) == FG_OK);
    memcpy(loan.data, "hello", 5);
    fg_publish_info info;
    fg_publish_info_init(&info);
    info.bytes = 5;
    uint64_t sequence = 0;
    CHECK(fg_publisher_publish(publisher, &loan, &info, &sequence) == FG_OK && sequence == 1);
    CHECK(loan.data == NULL && fg_publisher_abandon(publisher, &loan) == FG_OK);

    fg_frame frame;
    CHECK(fg_subscriber_take(subscriber, 0, &frame) == FG_OK);
    CHECK(frame.bytes == 5 && memcmp(frame.data, "hello", 5) == 0);
    CHECK(fg_subscriber_release(subscriber, &frame) == FG_OK);
    CHECK(fg_subscriber_take(subscriber, 0, &frame) == FG_EMPTY);
    fg_subscriber_close(subscriber);
    fg_publisher_close(publisher);
    CHECK(fg_topic_unlink(kName, strlen(kName)) == FG_OK);
    return 0;
}

int main(void) {
#ifdef __APPLE__
    char directory[] = "/tmp/framegate-c-link-XXXXXX";
#else
    char directory[] = "/dev/shm/framegate-c-link-XXXXXX";
#endif
    if (mkdtemp(directory) == NULL || setenv("FRAMEGATE_RUNTIME_DIR", directory, 1) != 0) {
        return 1;
    }
    const int failed = round_trip();
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command) != 0 || failed;
}
