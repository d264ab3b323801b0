//! What threads do with an open WebSocket: who waits drives, who does not is stood in for.
mod common;

use std::{
    net::{Shutdown, TcpListener},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use common::{Far, PING, PONG, TEXT, close, read_request, run, settings, switching, whole};
use framegate_client::{
    Background, Error, ErrorKind, Kind, Message, Settings, Shared, Stopped, Waiting,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const PATIENCE: Duration = Duration::from_secs(20);

/// The far side, on a thread of its own.
fn serve<T: Send + 'static, F: Future<Output = T>>(
    then: impl FnOnce(Far<TcpStream>) -> F + Send + 'static,
) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let thread = thread::Builder::new()
        .name("far".to_owned())
        .spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            run(async {
                let mut stream = TcpStream::from_std(stream).unwrap();
                let request = read_request(&mut stream).await;
                let answer = switching(&request, "");
                stream.write_all(answer.as_bytes()).await.unwrap();
                then(Far { stream }).await
            })
        })
        .unwrap();
    (url, thread)
}

fn opened(waiting: &Waiting) -> Result<std::sync::Arc<Shared>, Error> {
    loop {
        if let Some(opened) = waiting.wait() {
            return opened.map(|it| Shared::new(it.socket).unwrap());
        }
    }
}

fn open(url: &str, settings: Settings) -> std::sync::Arc<Shared> {
    let background = Background::get().unwrap();
    opened(&background.connect(url.to_owned(), settings).unwrap()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

#[test]
fn small_answers_to_messages_that_came_together_leave_together() {
    let (url, far) = serve(|mut far| async move {
        let burst = [
            whole(TEXT, b"a"),
            whole(TEXT, b"b"),
            whole(TEXT, b"c"),
            whole(TEXT, b"d"),
        ];
        far.send(&burst.concat()).await;
        let mut answers = Vec::new();
        for _ in 0..4 {
            answers.push(far.read().await.unwrap().1.len());
        }
        far.send(&close(1000, "")).await;
        answers
    });
    let shared = open(&url, settings());
    let next = |more: bool| {
        let message = shared.receive(Some(soon())).unwrap();
        while more && !shared.with(|socket| socket.has_message()) {
            shared.with(framegate_client::Socket::step);
        }
        message
    };
    let post = |bytes: usize| shared.post_soon(Kind::Binary, &vec![0; bytes]).unwrap();
    next(true);
    assert!(post(10) > 10);
    next(true);
    // With a large one all that was left goes out, as far as there is room.
    assert_eq!(post(16 * 1024), 0);
    next(true);
    assert!(post(20) > 20);
    next(false);
    assert_eq!(post(30), 0);
    assert_eq!(far.join().unwrap(), [10, 16 * 1024, 20, 30]);
}

#[test]
fn a_thread_sends_and_receives() {
    let (url, far) = serve(|mut far| async move {
        for _ in 0..100 {
            let (opcode, payload) = far.read().await.unwrap();
            far.send(&whole(opcode, &payload)).await;
        }
        assert_eq!(far.read_close().await, Some((1000, "bye".to_owned())));
        far.send(&close(1000, "bye")).await;
    });
    let shared = open(&url, settings());
    for i in 0..100_u32 {
        shared.send(Kind::Binary, &i.to_be_bytes()).unwrap();
        let message = shared.receive(Some(soon())).unwrap();
        assert_eq!(message, Message::binary(i.to_be_bytes()));
    }
    let late = shared.receive(Some(Instant::now()));
    assert!(matches!(late, Err(Stopped::Timeout)));
    shared.with(|socket| socket.close(1000, "bye")).unwrap();
    let closed = shared.wait_closed().unwrap();
    assert_eq!((closed.code, closed.clean), (1000, true));
    far.join().unwrap();
    let Err(Stopped::Error(error)) = shared.receive(Some(soon())) else {
        panic!("it is closed")
    };
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn pings_are_answered_while_nobody_calls() {
    let (url, far) = serve(|mut far| async move {
        for i in 0..10 {
            far.send(&whole(PING, &[i])).await;
            assert_eq!(far.read().await, Some((PONG, vec![i])));
        }
        far.send(&whole(TEXT, b"meanwhile")).await;
        far.send(&whole(PING, b"last")).await;
        assert_eq!(far.read().await, Some((PONG, b"last".to_vec())));
        assert_eq!(far.read().await, Some((TEXT, b"back".to_vec())));
        far.send(&whole(TEXT, b"and again")).await;
        assert!(far.read().await.is_none());
    });
    let shared = open(&url, settings());
    // The far side goes on to its last ping without us; then there is a message to take.
    let start = Instant::now();
    let message = loop {
        if let Some(message) = shared.take() {
            break message;
        }
        assert!(start.elapsed() < PATIENCE);
        // Long enough to be called absent.
        thread::park_timeout(Duration::from_millis(700));
    };
    assert_eq!(message, Message::text("meanwhile"));
    shared.send(Kind::Text, b"back").unwrap();
    assert_eq!(
        shared.receive(Some(soon())).unwrap(),
        Message::text("and again")
    );
    // Dropped without a word: the connection ends at once, although it is looked after.
    drop(shared);
    far.join().unwrap();
}

#[test]
fn silence_is_noticed_while_nobody_calls() {
    let (url, far) = serve(|mut far| async move {
        assert_eq!(far.read().await, Some((PING, Vec::new())));
        far.read_close().await
    });
    let shared = open(
        &url,
        Settings {
            ping_interval: Some(Duration::from_millis(50)),
            ping_timeout: Some(Duration::from_millis(50)),
            ..settings()
        },
    );
    assert_eq!(far.join().unwrap().unwrap().0, 1011);
    let Err(Stopped::Error(error)) = shared.receive(Some(soon())) else {
        panic!("it is closed")
    };
    assert_eq!(error.closed().unwrap().reason, "ping timeout");
}

#[test]
fn closing_from_another_thread_ends_a_wait() {
    let (url, far) = serve(|mut far| async move {
        assert!(far.read_close().await.is_some());
        far.send(&close(1000, "")).await;
    });
    let shared = open(&url, settings());
    thread::scope(|scope| {
        let waiting = thread::Builder::new()
            .name("waiting".to_owned())
            .spawn_scoped(scope, || shared.receive(None))
            .unwrap();
        shared.with(|socket| socket.close(1000, "")).unwrap();
        shared.wait_closed().unwrap();
        assert!(matches!(waiting.join().unwrap(), Err(Stopped::Error(_))));
    });
    far.join().unwrap();
}

#[test]
fn only_one_thread_receives() {
    let (url, far) = serve(|mut far| async move {
        let (_, payload) = far.read().await.unwrap();
        far.send(&whole(TEXT, &payload)).await;
        assert!(far.read().await.is_none());
    });
    let shared = open(&url, settings());
    thread::scope(|scope| {
        let waiting = thread::Builder::new()
            .name("waiting".to_owned())
            .spawn_scoped(scope, || {
                loop {
                    match shared.receive(None) {
                        // The other one was inside when this one came: it does not stay.
                        Err(Stopped::Error(error)) if error.kind() == ErrorKind::Argument => {
                            thread::yield_now();
                        }
                        received => break received,
                    }
                }
            })
            .unwrap();
        let error = loop {
            match shared.receive(Some(Instant::now())) {
                // The other one is not there yet. Without a pause this one would hold the lock all the time.
                Err(Stopped::Timeout) => thread::sleep(Duration::from_millis(1)),
                Err(Stopped::Error(error)) => break error,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(error.kind(), ErrorKind::Argument);
        shared.send(Kind::Text, b"x").unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), Message::text("x"));
    });
    drop(shared);
    far.join().unwrap();
}

#[test]
fn a_sender_waits_for_a_slow_reader() {
    let (url, far) = serve(|mut far| async move {
        // Long enough for the sender to fill everything.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut bytes = 0;
        while let Some((opcode, payload)) = far.read().await {
            if opcode == 8 {
                break;
            }
            bytes += payload.len();
        }
        bytes
    });
    let plain = Settings {
        compression: false,
        close_timeout: PATIENCE,
        ..settings()
    };
    let shared = open(&url, plain);
    let payload = vec![1; 1 << 20];
    for _ in 0..50 {
        match shared.send(Kind::Binary, &payload) {
            Ok(()) => {}
            other => panic!("{other:?}"),
        }
        let unsent = shared.with(|socket| socket.unsent());
        assert!(unsent <= 64 * 1024, "{unsent}");
    }
    shared.with(|socket| socket.close(1000, "")).unwrap();
    shared.wait_closed().unwrap();
    assert_eq!(far.join().unwrap(), 50 << 20);
}

#[test]
fn opening_can_be_given_up_and_fails_as_it_should() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let background = Background::get().unwrap();
    let waiting = background.connect(url.clone(), settings()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    assert!(waiting.take().is_none());
    drop(waiting);
    // Its connection ends.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut &stream, &mut rest).ok();
    drop(listener);
    let _ = stream.shutdown(Shutdown::Both);
    let waiting = background.connect(url, settings()).unwrap();
    let error = opened(&waiting).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}
