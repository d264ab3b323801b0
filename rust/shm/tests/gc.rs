//! Collecting topics that nobody uses, in a runtime directory of its own: the test runs itself again there.

use std::os::unix::fs::DirBuilderExt;
use std::process::Command;
use std::time::Duration;

use framegate_shm::{Publisher, Subscriber, SubscriberOptions, TopicOptions, gc};

#[test]
fn gc_removes_what_nobody_uses_and_nothing_else() {
    if std::env::var_os("FRAMEGATE_GC_TEST").is_some() {
        collect();
        return;
    }
    let directory = std::env::temp_dir().join(format!("framegate-gc-{}", std::process::id()));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "gc_removes_what_nobody_uses_and_nothing_else"])
        .env("FRAMEGATE_GC_TEST", "1")
        .env("FRAMEGATE_RUNTIME_DIR", &directory)
        .status()
        .unwrap();
    std::fs::remove_dir(&directory).unwrap(); // fails unless the topic's files are gone
    assert!(status.success());
}

fn collect() {
    let options = TopicOptions {
        slots: 4,
        slot_bytes: 4096,
        ..TopicOptions::default()
    };
    let publisher = Publisher::create_or_open("camera/front", &options).unwrap();
    let nothing = gc(Duration::ZERO, false).unwrap();
    assert!(nothing.topics.is_empty(), "{nothing:?}");
    drop(publisher);
    let looked = gc(Duration::ZERO, true).unwrap();
    assert_eq!(looked.topics.len(), 1);
    let (name, bytes) = &looked.topics[0];
    assert_eq!(name, "camera/front");
    assert!(*bytes > 4 * 4096);
    assert!(
        gc(Duration::from_secs(3600), false)
            .unwrap()
            .topics
            .is_empty()
    );
    assert_eq!(gc(Duration::ZERO, false).unwrap().topics, looked.topics);
    let error = Subscriber::open("camera/front", &SubscriberOptions::default()).unwrap_err();
    assert!(error.is_topic_not_found(), "{error}");
}
