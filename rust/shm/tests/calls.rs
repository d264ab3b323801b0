//! Calls and control messages through the safe API.

use std::thread;
use std::time::Duration;

use framegate_shm::{
    Caller, FrameMeta, Publisher, Responder, Subscriber, SubscriberOptions, TopicOptions, Value,
    encode_values, unlink,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A topic that disappears with the test.
struct Topic(String);

impl Topic {
    fn new(test: &str) -> Self {
        Self(format!("calls/{test}-{}", std::process::id()))
    }

    fn responder(&self) -> Responder {
        let options = TopicOptions {
            slots: 8,
            slot_bytes: 4096,
            ..TopicOptions::default()
        };
        Responder::create_or_open(&self.0, &options).expect("a responder")
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        unlink(&self.0).expect("the topic exists");
    }
}

#[test]
fn a_call_comes_back_with_its_metadata() {
    let topic = Topic::new("echo");
    let responder = topic.responder();
    let server = move || {
        let request = responder.take(PATIENCE).expect("take").expect("a request");
        assert_eq!(request.metadata().expect("a map"), [("n", Value::Int(7))]);
        let backwards: Vec<u8> = request.iter().rev().copied().collect();
        request
            .reply(&backwards, &FrameMeta::default(), PATIENCE)
            .expect("a reply");
    };
    let server = thread::Builder::new()
        .name("server".to_owned())
        .spawn(server)
        .expect("a thread");
    let caller = Caller::open(&topic.0).expect("a caller");
    let metadata = encode_values(&[("n", Value::Int(7))]).expect("encodable");
    let meta = FrameMeta {
        user_metadata: &metadata,
        ..FrameMeta::default()
    };
    let reply = caller.call(b"hello", &meta, PATIENCE).expect("an answer");
    assert_eq!(&reply[..], b"olleh");
    assert!(reply.arrays().expect("raw").is_empty());
    server.join().expect("no panic");
}

#[test]
fn each_way_to_fail_is_its_own_kind() {
    let topic = Topic::new("fail");
    let responder = topic.responder();
    let caller = Caller::open(&topic.0).expect("a caller");
    let meta = FrameMeta::default();
    let late = caller.call(b"x", &meta, Duration::from_millis(1));
    assert!(late.expect_err("nobody takes it").is_timeout());

    let mut call = caller
        .start(1, &meta, PATIENCE, |slot| slot[0] = 1)
        .expect("posted");
    assert!(call.wait(Duration::ZERO).expect("goes on").is_none());
    let request = responder.take(PATIENCE).expect("take").expect("a request");
    request.fail("out of paper").expect("told");
    let error = call.wait(PATIENCE).expect_err("failed");
    assert!(error.is_call_failed());
    assert_eq!(error.to_string(), "out of paper");

    let mut call = caller.start(1, &meta, PATIENCE, |_| {}).expect("posted");
    drop(responder.take(PATIENCE).expect("take").expect("a request"));
    assert!(call.wait(PATIENCE).expect_err("dropped").is_call_failed());

    let cancelled = caller.start(1, &meta, PATIENCE, |_| {}).expect("posted");
    drop(cancelled);
    assert!(responder.take(Duration::ZERO).expect("take").is_none());

    drop(responder);
    let nobody = caller.call(b"x", &meta, PATIENCE);
    assert!(nobody.expect_err("nobody there").is_no_responder());
}

#[test]
fn a_request_is_filled_in_place_and_posted_when_it_is_whole() {
    let topic = Topic::new("loan");
    let responder = topic.responder();
    let caller = Caller::open(&topic.0).expect("a caller");
    assert_eq!(caller.info().expect("known").slot_bytes, 4096);
    let mut loan = caller.loan(8, Duration::ZERO).expect("a slot");
    loan.as_mut_slice()[..5].copy_from_slice(b"hello");
    assert!(responder.take(Duration::ZERO).expect("take").is_none());
    let meta = FrameMeta {
        bytes: Some(5),
        ..FrameMeta::default()
    };
    let mut call = loan.post(&meta, PATIENCE).expect("posted");
    let request = responder.take(PATIENCE).expect("take").expect("a request");
    assert_eq!(&request[..], b"hello");
    request
        .reply(b"you too", &FrameMeta::default(), PATIENCE)
        .expect("a reply");
    let reply = call.wait(PATIENCE).expect("answered").expect("a reply");
    assert_eq!(&reply[..], b"you too");
    drop(reply);

    // More than was loaned is not posted, and what is not posted gives its slot back.
    let longer = FrameMeta {
        bytes: Some(9),
        ..FrameMeta::default()
    };
    let loan = caller.loan(8, Duration::ZERO).expect("a slot");
    let error = loan.post(&longer, PATIENCE).expect_err("too long");
    assert!(error.is_frame_too_large());
    for _ in 0..20 {
        drop(caller.loan(4096, Duration::ZERO).expect("a slot"));
    }
    let large = caller.loan(4097, Duration::ZERO);
    assert!(large.expect_err("no such slot").is_frame_too_large());
}

#[test]
fn fds_become_readable() {
    let topic = Topic::new("fds");
    let responder = topic.responder();
    let caller = Caller::open(&topic.0).expect("a caller");
    assert!(caller.event_fd().expect("an fd") >= 0);
    assert!(responder.event_fd().expect("an fd") >= 0);
    assert!(!responder.arm().expect("armed"));
    let mut call = caller
        .start(1, &FrameMeta::default(), PATIENCE, |_| {})
        .expect("posted");
    responder.drain().expect("drained");
    assert!(responder.arm().expect("armed"));
    assert!(!caller.arm().expect("armed"));
    let request = responder.take(PATIENCE).expect("take").expect("a request");
    request
        .reply(b"", &FrameMeta::default(), PATIENCE)
        .expect("a reply");
    caller.drain().expect("drained");
    assert!(caller.arm().expect("armed"));
    assert!(call.wait(Duration::ZERO).expect("answered").is_some());
}

#[test]
fn publishers_read_control_messages() {
    let topic = Topic::new("control");
    let options = TopicOptions {
        slot_bytes: 64,
        ..TopicOptions::default()
    };
    let publisher = Publisher::create(&topic.0, &options).expect("a publisher");
    let subscriber =
        Subscriber::open(&topic.0, &SubscriberOptions::default()).expect("a subscriber");
    assert_eq!(subscriber.send_control(3, b"slower").expect("sent"), 1);
    assert_eq!(subscriber.send_control(4, b"").expect("sent"), 1);
    let too_long = subscriber.send_control(4, &[0; 193]);
    assert!(too_long.expect_err("too long").is_invalid_argument());
    let controls = publisher.controls().expect("read");
    assert_eq!(controls.len(), 2);
    assert_eq!(
        (controls[0].kind, &controls[0].data[..]),
        (3, &b"slower"[..])
    );
    assert_eq!(controls[1].sender, controls[0].sender);
    assert!(publisher.controls().expect("read").is_empty());
}
