//! Frames through shared memory, within a process and between two.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use framegate_shm::{
    Array, Checksum, Dtype, FrameMeta, Policy, Publisher, Subscriber, SubscriberOptions,
    TopicOptions, Value, encode_values, lay_out, resize, unlink,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A topic name of this test run; its files go when it is dropped.
struct TopicName(String);

impl TopicName {
    fn new(subject: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!(
            "rust-test/{subject}-{}-{number}",
            std::process::id()
        ))
    }
}

impl Drop for TopicName {
    fn drop(&mut self) {
        let _ = unlink(&self.0);
    }
}

fn options(slots: u32, slot_bytes: u64) -> TopicOptions {
    TopicOptions {
        slots,
        slot_bytes,
        ..TopicOptions::default()
    }
}

fn send(publisher: &Publisher, bytes: &[u8]) -> u64 {
    let mut loan = publisher.loan(bytes.len(), Duration::ZERO).unwrap();
    loan.as_mut_slice().copy_from_slice(bytes);
    loan.publish(&FrameMeta::default()).unwrap()
}

#[test]
fn frame_arrives_with_everything_that_was_published() {
    let name = TopicName::new("everything");
    let publisher = Publisher::create_or_open(&name.0, &options(4, 8192)).unwrap();
    let subscriber = Subscriber::open(&name.0, &SubscriberOptions::default()).unwrap();
    let mut arrays = [
        Array::new("left", Dtype::Uint8, &[3, 5]),
        Array::new("right", Dtype::Float32, &[7]),
    ];
    let bytes = lay_out(&mut arrays).unwrap();
    assert_eq!((arrays[1].offset(), bytes), (64, 64 + 28));

    let metadata =
        encode_values(&[("gain", Value::Float(2.5)), ("camera", Value::Str("left"))]).unwrap();
    let mut loan = publisher
        .loan(usize::try_from(bytes).unwrap(), Duration::ZERO)
        .unwrap();
    loan.as_mut_slice()[0] = 42;
    let sequence = loan
        .publish(&FrameMeta {
            timestamp_s: Some(1.5),
            arrays: &arrays,
            content_type: Some("application/x-test"),
            user_metadata: &metadata,
            ..FrameMeta::default()
        })
        .unwrap();

    let frame = subscriber.take(PATIENCE).unwrap().unwrap();
    assert_eq!(
        (frame.sequence(), frame.len(), frame[0]),
        (sequence, 92, 42)
    );
    assert_eq!(frame.timestamp_s(), Some(1.5));
    assert_eq!(frame.content_type(), Some(&b"application/x-test"[..]));
    assert_eq!(frame.user_metadata(), metadata);
    assert_eq!(
        frame.metadata().unwrap(),
        [("gain", Value::Float(2.5)), ("camera", Value::Str("left"))]
    );
    assert!(frame.published_ns() > 0);
    let received = frame.arrays().unwrap();
    assert_eq!(received, arrays);
    assert_eq!(
        (received[0].name().as_ref(), received[0].shape()),
        ("left", &[3, 5][..])
    );
    assert_eq!(received[1].dtype(), Some(Dtype::Float32));
}

#[test]
fn dropped_loan_publishes_nothing_and_returns_its_slot() {
    let name = TopicName::new("abandon");
    let publisher = Publisher::create_or_open(&name.0, &options(2, 64)).unwrap();
    for _ in 0..10 {
        let first = publisher.loan(64, Duration::ZERO).unwrap();
        let second = publisher.loan(64, Duration::ZERO).unwrap();
        assert!(
            publisher
                .loan(64, Duration::ZERO)
                .unwrap_err()
                .is_topic_full()
        );
        drop((first, second));
    }
    let subscriber = Subscriber::open(&name.0, &SubscriberOptions::default()).unwrap();
    assert!(subscriber.take(Duration::ZERO).unwrap().is_none());
}

#[test]
fn held_frame_does_not_change() {
    let name = TopicName::new("held");
    let publisher = Publisher::create_or_open(&name.0, &options(4, 64)).unwrap();
    let subscriber = Subscriber::open(&name.0, &SubscriberOptions::default()).unwrap();
    send(&publisher, b"keep me");
    let frame = subscriber.take(PATIENCE).unwrap().unwrap();
    for _ in 0..100 {
        send(&publisher, b"another");
    }
    assert_eq!(&frame[..], b"keep me");
}

#[test]
fn frame_outlives_the_subscriber_that_took_it() {
    let name = TopicName::new("outlives");
    let publisher = Publisher::create_or_open(&name.0, &options(4, 64)).unwrap();
    let subscriber = Subscriber::open(&name.0, &SubscriberOptions::default()).unwrap();
    send(&publisher, b"alive");
    let frame = subscriber.take(PATIENCE).unwrap().unwrap();
    drop(subscriber);
    drop(publisher);
    assert_eq!(&frame[..], b"alive");
    std::thread::scope(|scope| {
        scope.spawn(move || drop(frame));
    });
}

#[test]
fn queue_counts_what_it_lost() {
    let name = TopicName::new("lost");
    let publisher = Publisher::create_or_open(&name.0, &options(4, 64)).unwrap();
    let queue = SubscriberOptions {
        policy: Policy::Queue,
        ..SubscriberOptions::default()
    };
    let subscriber = Subscriber::open(&name.0, &queue).unwrap();
    for number in 0..10_u8 {
        send(&publisher, &[number]);
    }
    let mut numbers = Vec::new();
    while let Some(frame) = subscriber.take(Duration::ZERO).unwrap() {
        numbers.push(frame[0]);
    }
    assert_eq!(numbers, [6, 7, 8, 9]);
    assert_eq!(subscriber.lost().unwrap(), 6);
}

#[test]
fn reliable_holds_the_publisher_back_and_is_named() {
    let name = TopicName::new("reliable");
    let publisher = Publisher::create_or_open(&name.0, &options(4, 64)).unwrap();
    let reliable = SubscriberOptions {
        policy: Policy::Reliable,
        name: "archive",
        ..SubscriberOptions::default()
    };
    let subscriber = Subscriber::open(&name.0, &reliable).unwrap();
    for number in 0..4_u8 {
        send(&publisher, &[number]);
    }
    let error = publisher
        .loan(1, Duration::from_millis(5))
        .map(drop)
        .unwrap_err();
    assert!(error.is_topic_full(), "{error}");
    assert!(
        error
            .to_string()
            .contains(&format!("\"archive\" (pid {})", std::process::id())),
        "{error}"
    );
    for number in 0..20_u8 {
        let frame = subscriber.take(PATIENCE).unwrap().unwrap();
        assert_eq!(frame[0], number);
        drop(frame);
        send(&publisher, &[number + 4]);
    }
    assert_eq!(subscriber.lost().unwrap(), 0);
}

#[test]
fn group_gives_each_frame_to_one_member_until_it_is_done() {
    let name = TopicName::new("group");
    let publisher = Publisher::create_or_open(&name.0, &options(8, 64)).unwrap();
    let member = || {
        let group = SubscriberOptions {
            policy: Policy::Group("work"),
            ..SubscriberOptions::default()
        };
        Subscriber::open(&name.0, &group).unwrap()
    };
    let (first, second) = (member(), member());
    for number in 0..3_u8 {
        send(&publisher, &[number]);
    }
    let frame = first.take(Duration::ZERO).unwrap().unwrap();
    assert_eq!((frame[0], frame.redelivered()), (0, false));
    assert_eq!(second.take(Duration::ZERO).unwrap().unwrap()[0], 1);
    frame.nack().unwrap();
    let again = second.take(Duration::ZERO).unwrap().unwrap();
    assert_eq!((again[0], again.redelivered()), (0, true));
    drop(again);
    assert_eq!(first.take(Duration::ZERO).unwrap().unwrap()[0], 2);
    assert!(first.take(Duration::ZERO).unwrap().is_none());
    assert!(first.peek().unwrap_err().is_unsupported());
}

#[test]
fn groups_have_names_and_a_limit() {
    let name = TopicName::new("groups");
    let _publisher = Publisher::create_or_open(&name.0, &options(4, 64)).unwrap();
    let join = |group: &str| {
        let options = SubscriberOptions {
            policy: Policy::Group(group),
            ..SubscriberOptions::default()
        };
        Subscriber::open(&name.0, &options)
    };
    let mut members: Vec<_> = (0..8).map(|n| join(&n.to_string()).unwrap()).collect();
    assert!(join("ninth").unwrap_err().is_groups_full());
    assert!(join("3").is_ok());
    members.truncate(7);
    assert!(join("ninth").is_ok());
    for bad in ["", "a b", "a/b", "x".repeat(33).as_str()] {
        assert!(join(bad).unwrap_err().is_invalid_argument(), "{bad}");
    }
}

#[test]
fn only_members_give_frames_back() {
    let name = TopicName::new("nack");
    let publisher = Publisher::create_or_open(&name.0, &options(4, 64)).unwrap();
    let subscriber = Subscriber::open(&name.0, &SubscriberOptions::default()).unwrap();
    send(&publisher, b"a");
    let frame = subscriber.take(PATIENCE).unwrap().unwrap();
    assert!(frame.nack().unwrap_err().is_invalid_argument());
    send(&publisher, b"b");
    let one = subscriber.take(PATIENCE).unwrap();
    assert!(
        one.is_some(),
        "the lease of the refused frame ended by its drop"
    );
}

#[test]
fn quota_is_a_distinct_error() {
    let name = TopicName::new("quota");
    let publisher = Publisher::create_or_open(&name.0, &options(4, 64)).unwrap();
    let one = SubscriberOptions {
        leases_max: 1,
        ..SubscriberOptions::default()
    };
    let subscriber = Subscriber::open(&name.0, &one).unwrap();
    send(&publisher, b"a");
    let frame = subscriber.take(PATIENCE).unwrap().unwrap();
    send(&publisher, b"b");
    let error = subscriber.take(Duration::ZERO).unwrap_err();
    assert!(error.is_lease_quota() && !error.is_topic_full(), "{error}");
    drop(frame);
    assert_eq!(&subscriber.take(Duration::ZERO).unwrap().unwrap()[..], b"b");
}

#[test]
fn loan_waits_until_a_frame_is_released() {
    let name = TopicName::new("space");
    let publisher = Publisher::create_or_open(&name.0, &options(2, 64)).unwrap();
    let subscriber = Subscriber::open(&name.0, &SubscriberOptions::default()).unwrap();
    send(&publisher, b"a");
    let frame = subscriber.take(PATIENCE).unwrap().unwrap();
    send(&publisher, b"b");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| publisher.loan(1, PATIENCE).map(drop));
        drop(frame);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn errors_say_what_and_where() {
    let error = Publisher::create_or_open("../etc", &TopicOptions::default()).unwrap_err();
    assert!(
        error.is_bad_topic_name() && error.to_string().contains("../etc"),
        "{error}"
    );
    let error =
        Subscriber::open("rust-test/nobody-made-this", &SubscriberOptions::default()).unwrap_err();
    assert!(
        error.is_topic_not_found() && error.to_string().contains("nobody-made-this"),
        "{error}"
    );

    let name = TopicName::new("errors");
    let schema = vec![Array::new("", Dtype::Uint8, &[8, 8])];
    let with_schema = TopicOptions {
        schema: schema.clone(),
        ..options(4, 64)
    };
    let publisher = Publisher::create(&name.0, &with_schema).unwrap();
    assert!(
        Publisher::create(&name.0, &with_schema)
            .unwrap_err()
            .is_topic_exists()
    );
    assert!(
        Publisher::create_or_open(&name.0, &options(4, 65))
            .unwrap_err()
            .is_frame_too_large()
    );
    assert!(
        publisher
            .loan(65, Duration::ZERO)
            .unwrap_err()
            .is_frame_too_large()
    );
    let loan = publisher.loan(63, Duration::ZERO).unwrap();
    assert!(
        loan.publish(&FrameMeta::default())
            .unwrap_err()
            .is_schema_mismatch()
    );
    let loan = publisher.loan(8, Duration::ZERO).unwrap();
    let longer = FrameMeta {
        bytes: Some(9),
        ..FrameMeta::default()
    };
    assert!(loan.publish(&longer).unwrap_err().is_frame_too_large());
    assert_eq!(
        publisher.info().unwrap().schema[0].shape(),
        schema[0].shape()
    );
    assert_eq!(publisher.slot_bytes(), 64);
}

#[test]
fn event_fd_cycle_sees_every_frame() {
    let name = TopicName::new("fd");
    let publisher = Publisher::create_or_open(&name.0, &options(4, 64)).unwrap();
    let subscriber = Subscriber::open(&name.0, &SubscriberOptions::default()).unwrap();
    assert!(subscriber.arm().unwrap_err().is_invalid_argument());
    let fd = subscriber.event_fd().unwrap();
    assert!(fd >= 0);
    assert!(!subscriber.arm().unwrap());
    send(&publisher, b"x");
    assert!(subscriber.arm().unwrap());
    subscriber.drain().unwrap();
    assert!(subscriber.take(Duration::ZERO).unwrap().is_some());
    assert!(!subscriber.arm().unwrap());
    assert!(!subscriber.wait(Duration::ZERO).unwrap());
}

/// The other process of the next test; does nothing when it runs as a test of its own.
#[test]
fn child_publishes_when_asked() {
    let Ok(name) = std::env::var("FRAMEGATE_TEST_CHILD_TOPIC") else {
        return;
    };
    let publisher = Publisher::open(&name).unwrap();
    for number in 0..100_u64 {
        let mut loan = publisher.loan(8, PATIENCE).unwrap();
        loan.as_mut_slice().copy_from_slice(&number.to_le_bytes());
        loan.publish(&FrameMeta::default()).unwrap();
    }
}

#[test]
fn frames_cross_processes() {
    let name = TopicName::new("processes");
    let _owner = Publisher::create_or_open(&name.0, &options(128, 64)).unwrap();
    let queue = SubscriberOptions {
        policy: Policy::Queue,
        ..SubscriberOptions::default()
    };
    let subscriber = Subscriber::open(&name.0, &queue).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_publishes_when_asked"])
        .env("FRAMEGATE_TEST_CHILD_TOPIC", &name.0)
        .spawn()
        .unwrap();
    for number in 0..100_u64 {
        let frame = subscriber
            .take(PATIENCE)
            .unwrap()
            .expect("the child publishes 100 frames");
        assert_eq!(&frame[..], number.to_le_bytes());
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn frames_with_checksums_come_through() {
    for checksum in [Checksum::Crc32c, Checksum::Xxh3] {
        let name = TopicName::new("checksum");
        let publisher = Publisher::create(
            &name.0,
            &TopicOptions {
                checksum,
                ..options(2, 64)
            },
        )
        .unwrap();
        assert_eq!(publisher.info().unwrap().checksum, checksum);
        let subscriber = Subscriber::open(&name.0, &SubscriberOptions::default()).unwrap();
        let mut loan = publisher.loan(9, Duration::ZERO).unwrap();
        loan.as_mut_slice().copy_from_slice(b"123456789");
        loan.publish(&FrameMeta::default()).unwrap();
        assert_eq!(
            &subscriber.take(PATIENCE).unwrap().unwrap()[..],
            b"123456789"
        );
        assert_eq!(subscriber.corrupt().unwrap(), 0);
    }
}

#[test]
fn metadata_is_appended_and_seen_by_others() {
    let name = TopicName::new("metadata");
    let publisher = Publisher::create_or_open(&name.0, &options(2, 64)).unwrap();
    let subscriber = Subscriber::open(&name.0, &SubscriberOptions::default()).unwrap();
    assert_eq!(subscriber.metadata_generation(), 0);
    assert_eq!(subscriber.metadata().unwrap().get("site"), None);
    let generation = publisher
        .append_metadata(&[("site", Value::Str("roof")), ("rig", Value::Int(7))])
        .unwrap();
    assert_eq!(generation, 1);
    assert_eq!(
        subscriber
            .append_metadata(&[("rig", Value::Int(8))])
            .unwrap(),
        2
    );
    let metadata = publisher.metadata().unwrap();
    assert_eq!(
        (metadata.generation(), publisher.metadata_generation()),
        (2, 2)
    );
    assert_eq!(metadata.get("site"), Some(Value::Str("roof")));
    assert_eq!(metadata.get("rig"), Some(Value::Int(8)));
    assert_eq!(
        (metadata.of_array(0, "rig"), metadata.units(0)),
        (None, None)
    );
    let large = vec![0; 5000];
    let error = publisher
        .append_metadata(&[("large", Value::Bytes(&large))])
        .unwrap_err();
    assert!(error.is_metadata_full(), "{error}");
}

#[test]
fn publishers_and_subscribers_follow_a_resize() {
    let name = TopicName::new("resize");
    let publisher = Publisher::create_or_open(&name.0, &options(4, 64)).unwrap();
    let queue = SubscriberOptions {
        policy: Policy::Queue,
        ..SubscriberOptions::default()
    };
    let subscriber = Subscriber::open(&name.0, &queue).unwrap();
    assert_eq!(send(&publisher, b"before"), 1);
    resize(&name.0, Some(6), Some(4096)).unwrap();
    assert_eq!(send(&publisher, &[7; 4096]), 2);
    for (sequence, bytes) in [(1, 6), (2, 4096)] {
        let frame = subscriber.take(PATIENCE).unwrap().unwrap();
        assert_eq!((frame.sequence(), frame.len()), (sequence, bytes));
    }
    assert!(resize(&name.0, Some(1), None).is_err());
}
