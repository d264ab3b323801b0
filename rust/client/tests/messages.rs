//! An open WebSocket against raw bytes: what goes out, what comes in, and every way in which it ends.
mod common;

use std::{collections::HashSet, time::Duration};

use common::{BINARY, CLOSE, PING, PONG, Peer, TEXT, close, frame, pair, run, settings, whole};
use framegate_client::{Client, ErrorKind, Kind, Message, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn quick() -> Settings {
    Settings {
        close_timeout: Duration::from_millis(50),
        ..settings()
    }
}

/// How the WebSocket ends for who reads it.
async fn end(client: &mut Client) -> (u16, bool) {
    loop {
        let received = client.receive().await;
        if !matches!(received, Ok(Some(_))) {
            let closed = client.closed().unwrap();
            return (closed.code, closed.clean);
        }
    }
}

#[test]
fn messages_are_masked_with_a_new_key_each() {
    run(async {
        let plain = Settings {
            compression: false,
            ..settings()
        };
        let (mut client, mut far) = pair(&plain).await;
        let mut keys = HashSet::new();
        for length in [0, 1, 125, 126, 65_535, 65_536, 1_000_003] {
            let payload: Vec<u8> = (0..length).map(|i: u32| (i % 251) as u8).collect();
            let message = Message::binary(payload.clone());
            let (sent, got) = tokio::join!(client.send(&message), far.read_masked());
            sent.unwrap();
            let (first, key, got) = got.unwrap();
            assert_eq!(first, 0x80 | BINARY);
            assert!(got == payload, "{length}");
            keys.insert(key);
        }
        assert_eq!(keys.len(), 7);
        client.send(&Message::text("ä")).await.unwrap();
        assert_eq!(far.read().await, Some((TEXT, "ä".as_bytes().to_vec())));
    });
}

#[test]
fn messages_come_however_they_are_cut() {
    run(async {
        let (mut client, mut far) = pair(&settings()).await;
        let large: Vec<u8> = (0..300_000_u32).map(|i| (i % 249) as u8).collect();
        let bytes = [
            whole(TEXT, "grüße".as_bytes()),
            frame(BINARY, b"ab"),
            whole(PING, b"between"),
            frame(0, b"cd"),
            frame(0x80, b""),
            whole(BINARY, &large),
            whole(TEXT, b""),
        ]
        .concat();
        let expected = [
            Message::text("grüße"),
            Message::binary(*b"abcd"),
            Message::binary(large),
            Message::text(""),
        ];
        for step in [1, 7, 1000, 65_536, bytes.len()] {
            let sending = async {
                // Byte by byte the large message would take long.
                let (head, rest) = bytes.split_at(if step < 1000 { 100 } else { 0 });
                for piece in head.chunks(step) {
                    far.send(piece).await;
                    tokio::task::yield_now().await;
                }
                for piece in rest.chunks(step.max(1000)) {
                    far.send(piece).await;
                }
                assert_eq!(far.read().await, Some((PONG, b"between".to_vec())));
            };
            let receiving = async {
                for message in &expected {
                    assert!(client.receive().await.unwrap().as_ref() == Some(message));
                }
            };
            tokio::join!(sending, receiving);
        }
    });
}

#[test]
fn what_comes_with_the_handshake_is_not_lost() {
    run(async {
        let (peer, settings) = (Peer::new().await, settings());
        let (client, _stream) = tokio::join!(Client::connect(&peer.url, &settings), async {
            let mut stream = peer.accept().await;
            let request = common::read_request(&mut stream).await;
            let mut answer = common::switching(&request, "").into_bytes();
            answer.extend(whole(TEXT, b"at once"));
            answer.extend(&whole(TEXT, b"in two")[..4]);
            stream.write_all(&answer).await.unwrap();
            stream
                .write_all(&whole(TEXT, b"in two")[4..])
                .await
                .unwrap();
            stream
        });
        let mut client = client.unwrap();
        for text in ["at once", "in two"] {
            let message = client.receive().await.unwrap();
            assert_eq!(message, Some(Message::text(text)));
        }
    });
}

#[test]
fn a_server_that_breaks_the_rules_is_told_and_left() {
    let cases: [(&str, Vec<u8>, u16); 10] = [
        ("masked", vec![0x81, 0x81, 1, 2, 3, 4, 5], 1002),
        ("reserved bits", frame(0xc1 | TEXT, b"x"), 1002),
        ("opcode", whole(3, b""), 1002),
        ("continuation", frame(0x80, b"x"), 1002),
        ("fragmented ping", frame(PING, b"x"), 1002),
        ("long ping", whole(PING, &[0; 126]), 1002),
        ("text", whole(TEXT, b"\xff"), 1007),
        ("too big", whole(BINARY, &[0; 2000]), 1009),
        ("close of one byte", whole(CLOSE, b"x"), 1002),
        ("close code", close(1005, ""), 1002),
    ];
    for (what, bytes, code) in cases {
        run(async {
            let settings = Settings {
                message_bytes_max: 1999,
                compression: false,
                ..settings()
            };
            let (mut client, mut far) = pair(&settings).await;
            far.send(&whole(TEXT, b"before")).await;
            far.send(&bytes).await;
            assert_eq!(
                client.receive().await.unwrap(),
                Some(Message::text("before")),
                "{what}"
            );
            let error = client.receive().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed, "{what}");
            let closed = error.closed().unwrap();
            assert_eq!((closed.code, closed.by_peer), (code, false), "{what}");
            assert_eq!(far.read_close().await.unwrap().0, code, "{what}");
            // Our side has ended.
            assert_eq!(far.stream.read(&mut [0]).await.unwrap(), 0, "{what}");
        });
    }
}

#[test]
fn answers_to_messages_in_front_of_a_broken_rule_still_leave() {
    let bytes = [whole(TEXT, b"a"), whole(TEXT, b"b"), whole(3, b"")].concat();
    run(async {
        let (mut client, mut far) = pair(&settings()).await;
        far.send(&bytes).await;
        for text in ["a", "b"] {
            let message = client.receive().await.unwrap().unwrap();
            assert_eq!(message, Message::text(text));
            client.send(&message).await.unwrap();
        }
        assert_eq!(end(&mut client).await, (1002, false));
        assert_eq!(far.read().await, Some((TEXT, b"a".to_vec())));
        assert_eq!(far.read().await, Some((TEXT, b"b".to_vec())));
        assert_eq!(far.read_close().await.unwrap().0, 1002);
    });
    // Who closes before is told nothing more, and the server what it did.
    run(async {
        let (mut client, mut far) = pair(&settings()).await;
        far.send(&bytes).await;
        assert!(client.receive().await.unwrap().is_some());
        let (closed, told) = tokio::join!(client.close(1000, ""), async {
            let told = far.read_close().await;
            drop(far);
            told
        });
        closed.unwrap();
        assert_eq!(told.unwrap().0, 1002);
        assert_eq!(client.closed().unwrap().code, 1002);
    });
}

#[test]
fn the_largest_message_is_taken() {
    run(async {
        let settings = Settings {
            message_bytes_max: 1999,
            ..settings()
        };
        let (mut client, mut far) = pair(&settings).await;
        far.send(&frame(BINARY, &[1; 999])).await;
        far.send(&frame(0x80, &[1; 1000])).await;
        let message = client.receive().await.unwrap().unwrap();
        assert_eq!(message.payload.len(), 1999);
    });
}

#[test]
fn the_server_closes() {
    for (bytes, answer, code, is_end) in [
        (
            close(1000, "bye"),
            Some((1000, "bye".to_owned())),
            1000,
            true,
        ),
        (close(1001, ""), Some((1001, String::new())), 1001, true),
        (close(4000, "ä"), Some((4000, "ä".to_owned())), 4000, false),
        (whole(CLOSE, b""), None, 1005, true),
    ] {
        run(async {
            let (mut client, mut far) = pair(&settings()).await;
            far.send(&[whole(TEXT, b"last"), bytes].concat()).await;
            assert_eq!(client.receive().await.unwrap(), Some(Message::text("last")));
            match client.receive().await {
                Ok(None) => assert!(is_end, "{code}"),
                Ok(Some(message)) => panic!("{message:?}"),
                Err(error) => {
                    assert!(!is_end, "{code}");
                    assert_eq!(error.closed().unwrap().code, code);
                }
            }
            assert!(client.closed().unwrap().by_peer);
            assert_eq!(far.read_close().await, answer);
            let error = client.send(&Message::text("x")).await.unwrap_err();
            assert_eq!(error.closed().unwrap().code, code);
        });
    }
}

#[test]
fn the_client_closes_and_the_server_ends_the_connection() {
    run(async {
        let (mut client, mut far) = pair(&settings()).await;
        let closing = client.close(4001, "done");
        let answering = async {
            assert_eq!(far.read_close().await, Some((4001, "done".to_owned())));
            // What is on its way is dropped.
            far.send(&whole(TEXT, b"late")).await;
            far.send(&close(4001, "")).await;
            // The client waits for our end.
            let mut byte = [0];
            let still_open =
                tokio::time::timeout(Duration::from_millis(20), far.stream.read(&mut byte));
            assert!(still_open.await.is_err());
            drop(far);
        };
        let (closed, ()) = tokio::join!(closing, answering);
        closed.unwrap();
        let closed = client.closed().unwrap().clone();
        assert_eq!(
            (closed.code, closed.clean, closed.by_peer),
            (4001, true, false)
        );
        assert_eq!(
            client.send(&Message::text("x")).await.unwrap_err().kind(),
            ErrorKind::Closed
        );
        client.close(1000, "").await.unwrap();
    });
}

#[test]
fn codes_and_reasons_that_cannot_be_sent_are_refused() {
    run(async {
        let (mut client, _far) = pair(&settings()).await;
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            let error = client.close(code, "").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Argument, "{code}");
        }
        assert!(client.close(1000, &"x".repeat(124)).await.is_err());
        assert!(client.closed().is_none());
    });
}

#[test]
fn a_server_that_does_not_answer_a_close_is_left() {
    run(async {
        let (mut client, _far) = pair(&quick()).await;
        client.close(1000, "").await.unwrap();
        assert_eq!(end(&mut client).await, (1006, false));
    });
    // Neither is one that answers and does not end the connection.
    run(async {
        let (mut client, mut far) = pair(&quick()).await;
        far.send(&close(1000, "")).await;
        client.close(1000, "").await.unwrap();
        assert_eq!(end(&mut client).await, (1000, true));
    });
}

#[test]
fn a_lost_connection_is_1006() {
    run(async {
        let (mut client, mut far) = pair(&settings()).await;
        far.send(&frame(BINARY, b"unfinished")).await;
        drop(far);
        assert_eq!(end(&mut client).await, (1006, false));
    });
}

#[test]
fn silent_server_is_asked_and_given_up() {
    run(async {
        let impatient = Settings {
            ping_interval: Some(Duration::from_millis(20)),
            ping_timeout: Some(Duration::from_millis(200)),
            ..settings()
        };
        let (mut client, mut far) = pair(&impatient).await;
        let far_side = async {
            // Any byte is a sign of life.
            for _ in 0..3 {
                assert_eq!(far.read().await, Some((PING, Vec::new())));
                far.send(&whole(PING, b"")).await;
                assert_eq!(far.read().await, Some((PONG, Vec::new())));
            }
            assert_eq!(far.read().await, Some((PING, Vec::new())));
            // Silence.
            assert_eq!(far.read_close().await.unwrap().0, 1011);
        };
        let (ended, ()) = tokio::join!(end(&mut client), far_side);
        assert_eq!(ended, (1006, false));
        assert_eq!(client.closed().unwrap().reason, "ping timeout");
    });
}

#[test]
fn no_pings_without_an_interval() {
    run(async {
        let never = Settings {
            ping_interval: None,
            ..settings()
        };
        let (mut client, mut far) = pair(&never).await;
        let pause = tokio::time::timeout(Duration::from_millis(50), client.receive());
        assert!(pause.await.is_err());
        client.send(&Message::text("x")).await.unwrap();
        assert_eq!(far.read().await, Some((TEXT, b"x".to_vec())));
    });
}

#[test]
fn who_does_not_take_messages_gets_no_more_than_the_limit() {
    run(async {
        let (mut client, mut far) = pair(&settings()).await;
        let message = whole(BINARY, &vec![0; 100_000]);
        // Until the kernel's buffers are full, and then some.
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(200), far.send(&message))
            .await
            .is_ok()
        {
            sent += 1;
            assert!(sent < 1000, "nobody reads");
        }
        // Sending works all the same.
        client.send(&Message::text("x")).await.unwrap();
        assert_eq!(far.read().await, Some((TEXT, b"x".to_vec())));
        for _ in 0..sent {
            assert_eq!(
                client.receive().await.unwrap().unwrap().payload.len(),
                100_000
            );
        }
    });
}

#[test]
fn many_small_messages_pass_a_full_inbox() {
    run(async {
        let (mut client, mut far) = pair(&settings()).await;
        let count = 30_000_u32;
        let bytes: Vec<u8> = (0..count)
            .flat_map(|i| whole(BINARY, &i.to_be_bytes()))
            .collect();
        let receiving = async {
            for i in 0..count {
                let message = client.receive().await.unwrap().unwrap();
                assert_eq!(message.payload, i.to_be_bytes());
            }
        };
        tokio::join!(far.send(&bytes), receiving);
    });
}

#[test]
fn compression_goes_both_ways_and_keeps_its_context() {
    use zlib::{Deflater, Inflater};

    for (answer, contexts) in [
        ("permessage-deflate", true),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            false,
        ),
        ("permessage-deflate; client_max_window_bits=9", true),
    ] {
        run(async {
            let peer = Peer::new().await;
            let line = format!("Sec-WebSocket-Extensions: {answer}\r\n");
            let (mut client, mut far) = peer.open(&settings(), &line).await;
            let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
            let text = "framegate ".repeat(300);
            let mut sizes = Vec::new();
            for _ in 0..3 {
                client.send(&Message::text(text.clone())).await.unwrap();
                let (first, _, payload) = far.read_masked().await.unwrap();
                assert_eq!(first, 0xc0 | TEXT);
                sizes.push(payload.len());
                assert_eq!(inflater.message(&payload), text.as_bytes());
                let back = deflater.message(text.as_bytes());
                far.send(&frame(0xc0 | BINARY, &back)).await;
                let message = client.receive().await.unwrap().unwrap();
                assert_eq!(message.kind, Kind::Binary);
                assert_eq!(message.payload, text.as_bytes());
                if !contexts {
                    (deflater, inflater) = (Deflater::new(), Inflater::new());
                }
            }
            assert_eq!(sizes[2] < sizes[0], contexts, "{sizes:?}");
            // Below the limit nothing is compressed.
            client.send(&Message::text("short")).await.unwrap();
            assert_eq!(far.read().await.unwrap().1, b"short");
        });
    }
}

/// The other side of permessage-deflate, as the server has it.
mod zlib {
    use framegate_http::websocket::{
        Kind,
        deflate::{Agreement, Compressor, Inflation},
        message::{MessageBuffer, MessageSink},
    };
    use tokio::io::ReadBuf;

    const BOTH: Agreement = Agreement {
        own_window_bits: 15,
        own_takeover: true,
        peer_takeover: true,
    };

    pub(crate) struct Deflater(Compressor);

    impl Deflater {
        pub(crate) fn new() -> Self {
            Self(Compressor::new(BOTH, 0, None))
        }

        pub(crate) fn message(&mut self, payload: &[u8]) -> Vec<u8> {
            let mut frame = Vec::new();
            assert!(self.0.encode_smaller(&mut frame, Kind::Text, payload));
            assert!(frame[1] < 126, "a head of two bytes");
            frame.split_off(2)
        }
    }

    pub(crate) struct Inflater(Inflation);

    struct Sink(MessageBuffer);

    impl MessageSink for Sink {
        fn begin(&mut self, _: Kind, _: u64) -> Result<(), framegate_http::websocket::Failure> {
            Ok(())
        }

        fn space(&mut self, want: usize) -> ReadBuf<'_> {
            self.0.space(want)
        }

        fn filled(&mut self, count: usize) {
            self.0.filled(count);
        }

        fn end(&mut self) -> Result<(), framegate_http::websocket::Failure> {
            Ok(())
        }
    }

    impl Inflater {
        pub(crate) fn new() -> Self {
            Self(Inflation::new(BOTH, 1 << 20))
        }

        pub(crate) fn message(&mut self, payload: &[u8]) -> Vec<u8> {
            let mut sink = Sink(MessageBuffer::default());
            self.0.begin(Kind::Text);
            self.0.push(payload, &mut sink).unwrap();
            self.0.end().unwrap();
            sink.0.take()
        }
    }
}
