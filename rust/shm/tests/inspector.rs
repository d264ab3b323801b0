//! Looking at topics, and finding them.
use std::time::Duration;

use framegate_shm::{
    FrameMeta, Inspector, Policy, Publisher, Subscriber, SubscriberOptions, TopicOptions, TopicUse,
    topics, unlink,
};

#[test]
fn inspector_sees_what_happens_and_topics_are_found() {
    let name = format!("inspect/{}", std::process::id());
    assert!(
        Inspector::open(&name)
            .err()
            .is_some_and(|error| error.is_topic_not_found())
    );
    assert!(!topics().unwrap().contains(&name));
    let options = TopicOptions {
        slot_bytes: 4096,
        slots: 3,
        ..TopicOptions::default()
    };
    let publisher = Publisher::create(&name, &options).unwrap();
    let inspector = Inspector::open(&name).unwrap();
    let stats = inspector.stats().unwrap();
    assert_eq!((stats.publishers, stats.subscribers, stats.head), (1, 0, 0));
    let subscriber = Subscriber::open(&name, &SubscriberOptions::default()).unwrap();
    let loan = publisher.loan(5, Duration::ZERO).unwrap();
    loan.publish(&FrameMeta::default()).unwrap();
    let stats = inspector.stats().unwrap();
    assert_eq!((stats.publishers, stats.subscribers, stats.head), (1, 1, 1));
    assert_eq!(inspector.info().unwrap().slots, 3);
    assert_eq!(
        inspector.info().unwrap().identity,
        publisher.info().unwrap().identity
    );
    assert!(topics().unwrap().contains(&name));
    let identity = inspector.info().unwrap().identity;
    drop((publisher, subscriber, inspector));
    unlink(&name).unwrap();
    let again = Publisher::create(&name, &options).unwrap();
    assert_ne!(again.info().unwrap().identity, identity);
    unlink(&name).unwrap();
}

#[test]
fn usage_counts_what_subscribers_hold_and_lost_and_goes_with_them() {
    let name = format!("usage/{}", std::process::id());
    let options = TopicOptions {
        slot_bytes: 64,
        slots: 4,
        ..TopicOptions::default()
    };
    let publisher = Publisher::create(&name, &options).unwrap();
    let inspector = Inspector::open(&name).unwrap();
    assert_eq!(inspector.usage().unwrap(), TopicUse::default());
    let publish = || {
        let loan = publisher.loan(1, Duration::ZERO).unwrap();
        loan.publish(&FrameMeta::default()).unwrap();
    };
    let subscriber = Subscriber::open(&name, &SubscriberOptions::default()).unwrap();
    publish();
    let first = subscriber.take(Duration::ZERO).unwrap().unwrap();
    let usage = inspector.usage().unwrap();
    assert_eq!((usage.lost, usage.leases), (0, 1));
    assert_eq!(usage.published_ns, Some(first.published_ns()));
    assert_eq!(inspector.stats().unwrap().slots_leased, 1);
    for _ in 0..10 {
        publish();
    }
    let last = subscriber.take(Duration::ZERO).unwrap().unwrap();
    assert_eq!(last.sequence(), 11);
    let usage = inspector.usage().unwrap();
    assert_eq!((usage.lost, usage.leases), (9, 2));
    assert_eq!(usage.published_ns, Some(last.published_ns()));
    drop((first, last, subscriber));
    let usage = inspector.usage().unwrap();
    assert_eq!((usage.lost, usage.leases), (0, 0));
    unlink(&name).unwrap();
}

#[test]
fn participants_say_who_is_behind_and_who_holds_what() {
    let name = format!("participants/{}", std::process::id());
    let options = TopicOptions {
        slot_bytes: 64,
        slots: 4,
        ..TopicOptions::default()
    };
    let publisher = Publisher::create(&name, &options).unwrap();
    let inspector = Inspector::open(&name).unwrap();
    let reader = SubscriberOptions {
        policy: Policy::Queue,
        name: "reader",
        ..SubscriberOptions::default()
    };
    let subscriber = Subscriber::open(&name, &reader).unwrap();
    let publish = || {
        let loan = publisher.loan(1, Duration::ZERO).unwrap();
        loan.publish(&FrameMeta::default()).unwrap();
    };
    publish();
    let first = subscriber.take(Duration::ZERO).unwrap().unwrap();
    let of = |role: &str| {
        let found = inspector.participants().unwrap();
        found.into_iter().find(|one| one.role == role).unwrap()
    };
    let seen = of("subscriber");
    assert_eq!((seen.name.as_str(), seen.policy), ("reader", Some("queue")));
    assert_eq!(seen.pid.unsigned_abs(), std::process::id());
    assert_eq!(
        (seen.frames, seen.lag, seen.holds, seen.alive),
        (1, 0, 1, true)
    );
    assert_eq!(seen.oldest_ns, Some(first.published_ns()));
    assert_eq!(seen.behind_ns, None);
    // Two that it has not taken: it is behind since the first of them.
    publish();
    publish();
    let loan = publisher.loan(1, Duration::ZERO).unwrap();
    let seen = of("subscriber");
    assert_eq!((seen.lag, seen.holds), (2, 1));
    let filling = of("publisher");
    assert_eq!(
        (filling.policy, filling.frames, filling.holds),
        (None, 3, 1)
    );
    assert_eq!(
        (filling.lag, filling.behind_ns, filling.oldest_ns),
        (0, None, None)
    );
    drop((loan, first));
    let second = subscriber.take(Duration::ZERO).unwrap().unwrap();
    assert_eq!(seen.behind_ns, Some(second.published_ns()));
    assert_eq!(of("publisher").holds, 0);
    unlink(&name).unwrap();
}
