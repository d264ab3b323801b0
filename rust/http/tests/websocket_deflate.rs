//! Compressed messages through a session, in every mode: what comes out, what is refused, and what is kept.

use crate::websocket_peer;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use framegate_http::websocket::{
    Failure, Kind, code,
    deflate::{Agreement, Compressor, ContextPermit},
    message::{MessageBuffer, MessageSink},
    outbox::Outbox,
    session::{Closed, Handler, Session, Settings},
};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    task::{LocalSet, spawn_local},
    time::timeout,
};
use websocket_peer::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, Random, TEXT, close_of, fragment, frame,
    read_any_frame, read_frame,
};
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

const RSV1: u8 = 0x40;
const FIN: u8 = 0x80;

const SHARED: Agreement = Agreement {
    own_window_bits: 15,
    own_takeover: false,
    peer_takeover: false,
};
const CONTEXT: Agreement = Agreement {
    own_window_bits: 12,
    own_takeover: true,
    peer_takeover: true,
};
/// Every combination that can be agreed on, with some windows.
fn agreements() -> Vec<Agreement> {
    let mut all = Vec::new();
    for own_takeover in [false, true] {
        for peer_takeover in [false, true] {
            for own_window_bits in [9, 12, 15] {
                all.push(Agreement {
                    own_window_bits,
                    own_takeover,
                    peer_takeover,
                });
            }
        }
    }
    all
}

/// What the server's side saw.
#[derive(Default)]
struct Seen {
    messages: RefCell<Vec<(Kind, Vec<u8>)>>,
    /// The largest message in memory, complete or not.
    buffered_max: Cell<usize>,
    closed: RefCell<Option<Closed>>,
}

/// Sends back what comes.
struct Echo {
    outbox: Rc<Outbox>,
    seen: Rc<Seen>,
    kind: Kind,
    buffer: MessageBuffer,
    bytes: usize,
    room: usize,
}

impl MessageSink for Echo {
    fn begin(&mut self, kind: Kind, _size_hint: u64) -> Result<(), Failure> {
        (self.kind, self.bytes) = (kind, 0);
        Ok(())
    }

    fn space(&mut self, want: usize) -> ReadBuf<'_> {
        self.buffer.space(want.min(self.room - self.bytes))
    }

    fn filled(&mut self, count: usize) {
        self.bytes += count;
        let most = self.seen.buffered_max.get().max(self.bytes);
        self.seen.buffered_max.set(most);
        self.buffer.filled(count);
    }

    fn end(&mut self) -> Result<(), Failure> {
        let message = self.buffer.take();
        match self.kind {
            Kind::Text => self.outbox.text(std::str::from_utf8(&message).unwrap()),
            Kind::Binary => self.outbox.binary(&message),
        };
        self.seen.messages.borrow_mut().push((self.kind, message));
        Ok(())
    }
}

impl Handler for Echo {
    fn wants_message(&self) -> bool {
        true
    }

    fn turn(&mut self) {}

    fn closed(&mut self, closed: Closed) {
        self.seen.closed.replace(Some(closed));
    }
}

/// The client's side of a connection to an echo.
struct Client {
    stream: DuplexStream,
    seen: Rc<Seen>,
    outbox: Rc<Outbox>,
    agreement: Agreement,
    deflate: Deflate,
    inflate: Inflate,
}

const LIMIT: usize = 1 << 20;

impl Client {
    fn new(agreement: Agreement) -> Self {
        Self::with_limits(agreement, LIMIT, usize::MAX)
    }

    fn with_limits(agreement: Agreement, message_bytes_max: usize, room: usize) -> Self {
        let (stream, server) = duplex(1 << 20);
        let (seen, outbox) = (Rc::new(Seen::default()), Outbox::new());
        let permit = agreement
            .keeps_context()
            .then(|| ContextPermit::acquire(usize::MAX).unwrap());
        outbox.compress_with(Compressor::new(agreement, 1, permit));
        let echo = Echo {
            outbox: outbox.clone(),
            seen: seen.clone(),
            kind: Kind::Text,
            buffer: MessageBuffer::default(),
            bytes: 0,
            room,
        };
        let settings = Settings {
            message_bytes_max: message_bytes_max as u64,
            deflate: Some(agreement),
            ..Settings::default()
        };
        spawn_local(Session::new(server, &[], settings, outbox.clone(), echo));
        Self {
            stream,
            seen,
            outbox,
            agreement,
            deflate: Deflate::new(6, false, 15),
            inflate: Inflate::new(false, agreement.own_window_bits),
        }
    }

    /// The payload of a compressed message.
    fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        let mut space = vec![0; message.len() * 2 + 100];
        let before = self.deflate.total_out();
        self.deflate
            .compress(message, &mut space, DeflateFlush::SyncFlush)
            .unwrap();
        space.truncate((self.deflate.total_out() - before) as usize);
        assert!(space.ends_with(&[0, 0, 0xff, 0xff]));
        space.truncate(space.len() - 4);
        if !self.agreement.peer_takeover {
            self.deflate.reset();
        }
        space
    }

    fn decompress(&mut self, payload: &[u8]) -> Vec<u8> {
        if !self.agreement.own_takeover {
            // Proves that nothing before is needed.
            self.inflate = Inflate::new(false, self.agreement.own_window_bits);
        }
        let mut space = vec![0; LIMIT + 1];
        let before = self.inflate.total_out();
        let input = [payload, &[0, 0, 0xff, 0xff]].concat();
        let from = self.inflate.total_in();
        self.inflate
            .decompress(&input, &mut space, InflateFlush::SyncFlush)
            .unwrap();
        assert_eq!(self.inflate.total_in() - from, input.len() as u64);
        space.truncate((self.inflate.total_out() - before) as usize);
        space
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads a message: opcode, payload, whether it was compressed.
    async fn receive(&mut self) -> (u8, Vec<u8>, bool) {
        let (first, payload) = timeout(Duration::from_secs(60), read_any_frame(&mut self.stream))
            .await
            .unwrap()
            .expect("a frame comes");
        assert_eq!(first & 0xb0, FIN, "{first:#x}");
        let opcode = first & 0xf;
        if first & RSV1 == 0 {
            return (opcode, payload, false);
        }
        let message = self.decompress(&payload);
        assert!(payload.len() < message.len(), "compression pays");
        (opcode, message, true)
    }

    async fn fails(&mut self, bytes: &[u8], code: u16) {
        self.send(bytes).await;
        assert_eq!(close_of(read_frame(&mut self.stream).await).0, code);
        assert_eq!(self.seen.closed.borrow().as_ref().unwrap().code, code);
    }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

/// Something like JSON, with parts that occur in every message.
fn record(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < bytes {
        let line = format!(
            "{{\"id\": {}, \"name\": \"sensor-{}\", \"value\": {}.{}}}, ",
            random.below(1 << 30),
            random.below(20),
            random.below(100),
            random.below(1000)
        );
        text.extend_from_slice(line.as_bytes());
    }
    text.truncate(bytes);
    text
}

#[tokio::test]
async fn sixty_messages_over_one_connection_in_both_directions() {
    local(async {
        for agreement in agreements() {
            let mut random = Random::new(7);
            let mut client = Client::new(agreement);
            for number in 0..60 {
                let message = if number % 7 == 3 {
                    random.bytes(2048)
                } else {
                    record(&mut random, 2048)
                };
                let deflated = client.compress(&message);
                client.send(&frame(BINARY | RSV1, &deflated)).await;
                let (opcode, answer, compressed) = client.receive().await;
                assert_eq!(opcode, BINARY);
                assert_eq!(answer, message, "{agreement:?}, message {number}");
                assert_eq!(
                    compressed,
                    number % 7 != 3,
                    "random bytes leave as they are"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn fragments_may_be_cut_anywhere_with_control_frames_between() {
    local(async {
        for agreement in [SHARED, CONTEXT] {
            let mut random = Random::new(11);
            let mut client = Client::new(agreement);
            for _ in 0..40 {
                let characters = random.below(3000);
                let message = random.text(characters);
                let deflated = client.compress(message.as_bytes());
                let mut bytes = Vec::new();
                let mut opcode = TEXT | RSV1;
                let mut rest = &deflated[..];
                while random.below(4) > 0 {
                    let piece;
                    (piece, rest) = rest.split_at(random.below(rest.len() + 1));
                    bytes.extend(fragment(false, opcode, piece));
                    opcode = CONTINUATION;
                    if random.below(2) > 0 {
                        bytes.extend(frame(PING, b"between"));
                    }
                }
                bytes.extend(fragment(true, opcode, rest));
                // In pieces, so that frames are cut as well.
                let cut = random.below(bytes.len());
                client.send(&bytes[..cut]).await;
                tokio::task::yield_now().await;
                client.send(&bytes[cut..]).await;
                loop {
                    let (opcode, answer, _) = client.receive().await;
                    if opcode == PONG {
                        continue;
                    }
                    assert_eq!(opcode, TEXT);
                    assert_eq!(String::from_utf8(answer).unwrap(), message);
                    break;
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn two_connections_share_one_state_while_messages_of_both_are_open() {
    local(async {
        let mut random = Random::new(3);
        let mut clients = [Client::new(SHARED), Client::new(SHARED)];
        for _ in 0..20 {
            let mut rests = Vec::new();
            for client in &mut clients {
                let message = record(&mut random, 500);
                let deflated = client.compress(&message);
                let (head, rest) = deflated.split_at(random.below(deflated.len()));
                client.send(&fragment(false, BINARY | RSV1, head)).await;
                rests.push((message, rest.to_vec()));
                tokio::task::yield_now().await;
            }
            for (client, (message, rest)) in clients.iter_mut().zip(rests) {
                client.send(&fragment(true, CONTINUATION, &rest)).await;
                assert_eq!(client.receive().await.1, message);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn uncompressed_messages_stand_between_compressed_ones() {
    local(async {
        for agreement in [SHARED, CONTEXT] {
            let mut random = Random::new(5);
            let mut client = Client::new(agreement);
            for number in 0..30 {
                let message = record(&mut random, 300);
                let bytes = match number % 3 {
                    0 => frame(BINARY, &message),
                    1 => {
                        let (head, rest) = message.split_at(100);
                        [fragment(false, BINARY, head), frame(CONTINUATION, rest)].concat()
                    }
                    _ => {
                        let deflated = client.compress(&message);
                        frame(BINARY | RSV1, &deflated)
                    }
                };
                client.send(&bytes).await;
                assert_eq!(client.receive().await.1, message);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn empty_messages_and_final_blocks_are_understood() {
    local(async {
        for agreement in [SHARED, CONTEXT] {
            let mut client = Client::new(agreement);
            // RFC 7692, sections 7.2.3.1 to 7.2.3.6.
            let hello: [&[u8]; 6] = [
                &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
                &[
                    0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
                ],
                &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
                &[
                    0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
                ],
                // A final block with nothing behind it, and one in the middle.
                &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
                &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x02, 0x00],
            ];
            for payload in hello {
                client.send(&frame(TEXT | RSV1, payload)).await;
                let (_, answer, _) = client.receive().await;
                assert_eq!(answer, b"Hello", "{payload:02x?}");
            }
            for payload in [&[0x00][..], &[0x02, 0x00], &[]] {
                client.send(&frame(TEXT | RSV1, payload)).await;
                assert_eq!(client.receive().await.1, b"", "{payload:02x?}");
                // What comes behind it is not spoilt.
                client.send(&frame(TEXT | RSV1, hello[0])).await;
                assert_eq!(client.receive().await.1, b"Hello");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn with_takeover_a_message_may_refer_to_the_one_before() {
    local(async {
        let mut client = Client::new(CONTEXT);
        // RFC 7692, section 7.2.3.2.
        for payload in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
        ] {
            client.send(&frame(TEXT | RSV1, payload)).await;
            assert_eq!(client.receive().await.1, b"Hello");
        }
        // Without, that is a mistake.
        let mut client = Client::new(SHARED);
        client
            .send(&frame(
                TEXT | RSV1,
                &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            ))
            .await;
        assert_eq!(client.receive().await.1, b"Hello");
        let again = frame(TEXT | RSV1, &[0xf2, 0x00, 0x11, 0x00, 0x00]);
        client.fails(&again, code::INVALID_PAYLOAD).await;
    })
    .await;
}

#[tokio::test]
async fn context_makes_alike_messages_much_smaller() {
    local(async {
        let mut random = Random::new(1);
        let mut sizes = Vec::new();
        for agreement in [SHARED, CONTEXT] {
            let mut client = Client::new(agreement);
            let mut bytes = 0;
            for _ in 0..20 {
                let message = record(&mut random, 200);
                client.outbox.binary(&message);
                let (first, payload) = read_any_frame(&mut client.stream).await.unwrap();
                assert_eq!(first, FIN | RSV1 | BINARY);
                assert_eq!(client.decompress(&payload), message);
                bytes += payload.len();
            }
            sizes.push(bytes);
        }
        assert!(sizes[1] * 10 < sizes[0] * 8, "{sizes:?}");
    })
    .await;
}

#[tokio::test]
async fn reserved_bits_stand_only_where_the_extension_puts_them() {
    local(async {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        for bytes in [
            [
                fragment(false, TEXT | RSV1, &hello),
                frame(CONTINUATION | RSV1, &[]),
            ]
            .concat(),
            [
                fragment(false, TEXT, b"Hello"),
                frame(CONTINUATION | RSV1, &[]),
            ]
            .concat(),
            frame(PING | RSV1, b""),
            frame(PONG | RSV1, b""),
            frame(CLOSE | RSV1, b""),
            frame(TEXT | 0x20, &hello),
            frame(TEXT | 0x10, &hello),
            frame(TEXT | RSV1 | 0x20, &hello),
        ] {
            Client::new(SHARED)
                .fails(&bytes, code::PROTOCOL_ERROR)
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn data_that_is_not_deflated_is_refused() {
    local(async {
        for agreement in [SHARED, CONTEXT] {
            for payload in [
                // A block type that does not exist, lengths that contradict each other.
                &[0x07][..],
                &[0x00, 0x05, 0x00, 0x00, 0x00, b'H'],
                // "Hello", stored, cut off.
                &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65],
                // Refers to what never was.
                &[0x02, 0x00, 0x11, 0x00, 0x00],
            ] {
                Client::new(agreement)
                    .fails(&frame(BINARY | RSV1, payload), code::INVALID_PAYLOAD)
                    .await;
            }
        }
        // Cut off inside of a compressed block: certain only where the next message starts anew.
        let mut random = Random::new(2);
        let message = record(&mut random, 2000);
        let mut probe = Client::new(SHARED);
        let deflated = probe.compress(&message);
        for cut in [1, 2, 3, 50, deflated.len() / 2, deflated.len() - 2] {
            Client::new(SHARED)
                .fails(
                    &frame(BINARY | RSV1, &deflated[..cut]),
                    code::INVALID_PAYLOAD,
                )
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn text_is_checked_while_it_is_inflated() {
    local(async {
        for agreement in [SHARED, CONTEXT] {
            let mut client = Client::new(agreement);
            let deflated = client.compress(&[b"good, then \xff", &[b'x'; 3000][..]].concat());
            // The message is not over, and already refused.
            let bytes = fragment(false, TEXT | RSV1, &deflated);
            client.fails(&bytes, code::INVALID_PAYLOAD).await;

            let mut client = Client::new(agreement);
            let deflated = client.compress("cut: 🦀".as_bytes().split_last().unwrap().1);
            client
                .fails(&frame(TEXT | RSV1, &deflated), code::INVALID_PAYLOAD)
                .await;

            // As binary it is nobody's business.
            let mut client = Client::new(agreement);
            let deflated = client.compress(b"\xff");
            client.send(&frame(BINARY | RSV1, &deflated)).await;
            assert_eq!(client.receive().await.1, b"\xff");
        }
    })
    .await;
}

#[tokio::test]
async fn a_bomb_is_inflated_to_the_limit_and_no_further() {
    local(async {
        for agreement in [SHARED, CONTEXT] {
            let limit = 100_000;
            let mut client = Client::with_limits(agreement, limit, usize::MAX);
            let exact = client.compress(&vec![b'a'; limit]);
            client.send(&frame(TEXT | RSV1, &exact)).await;
            assert_eq!(client.receive().await.1.len(), limit);

            let over = client.compress(&vec![b'a'; limit + 1]);
            let bytes = frame(TEXT | RSV1, &over);
            client.fails(&bytes, code::TOO_BIG).await;
            assert_eq!(client.seen.buffered_max.get(), limit);

            // 10 MB in 10 KB, the end of which never comes.
            let mut client = Client::with_limits(agreement, limit, usize::MAX);
            let bomb = client.compress(&vec![0; 10_000_000]);
            assert!(bomb.len() < 20_000);
            let bytes = fragment(false, BINARY | RSV1, &bomb);
            client.fails(&bytes, code::TOO_BIG).await;
            assert_eq!(client.seen.buffered_max.get(), limit);
        }
    })
    .await;
}

#[tokio::test]
async fn a_sink_may_have_room_for_exactly_the_message() {
    local(async {
        let room = 1000;
        let mut client = Client::with_limits(SHARED, LIMIT, room);
        let exact = client.compress(&vec![b'a'; room]);
        client.send(&frame(TEXT | RSV1, &exact)).await;
        assert_eq!(client.receive().await.1.len(), room);
        let over = client.compress(&vec![b'a'; room + 1]);
        client
            .fails(&frame(TEXT | RSV1, &over), code::TOO_BIG)
            .await;
    })
    .await;
}

#[tokio::test]
async fn deflated_bytes_that_come_to_nothing_are_limited_too() {
    local(async {
        // Empty stored blocks.
        let nothing = [0, 0, 0, 0xff, 0xff].repeat(40);
        let mut client = Client::with_limits(SHARED, 68, usize::MAX);
        let bytes = fragment(false, BINARY | RSV1, &nothing[..200]);
        client.send(&bytes).await;
        client.send(&frame(CONTINUATION, &[0])).await;
        let (_, reason) = close_of(read_frame(&mut client.stream).await);
        assert_eq!(reason, "message too big");
        let mut client = Client::with_limits(SHARED, 68, usize::MAX);
        client
            .send(&fragment(false, BINARY | RSV1, &nothing[..199]))
            .await;
        client.send(&frame(CONTINUATION, &[0xff, 0])).await;
        let (_, reason) = close_of(read_frame(&mut client.stream).await);
        assert_eq!(reason, "message too big");
        let mut client = Client::with_limits(SHARED, 68, usize::MAX);
        client
            .send(&frame(BINARY | RSV1, &[&nothing[..195], &[0]].concat()))
            .await;
        assert_eq!(client.receive().await.1, b"");
    })
    .await;
}

#[tokio::test]
async fn messages_leave_compressed_only_where_it_pays() {
    local(async {
        for agreement in [SHARED, CONTEXT] {
            let mut client = Client::new(agreement);
            let mut random = Random::new(9);
            let noise = random.bytes(300_000);
            // Not much, but more than nothing.
            let mut disguised = random.bytes(70_000);
            disguised[33_000..37_000].fill(0);
            let text = record(&mut random, 300_000);
            for (message, pays) in [
                (&b""[..], false),
                (b"abc", false),
                (&noise[..100], false),
                (&text[..100], true),
                (&noise, false),
                (&text, true),
                (&noise[..66_000], false),
                (&text[..66_000], true),
                (&disguised, true),
                (&text[..150], true),
            ] {
                client.outbox.binary(message);
                let (_, received, compressed) = client.receive().await;
                assert!(received == message, "{} bytes", message.len());
                assert_eq!(compressed, pays, "{} bytes", message.len());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn every_form_of_length_fits_compressed_messages() {
    local(async {
        for agreement in [SHARED, CONTEXT] {
            let mut client = Client::new(agreement);
            let mut random = Random::new(13);
            // Heads of the message and of what it is deflated to have 2, 4 or 10 bytes.
            for noise in [
                10, 100, 110, 120, 124, 130, 1000, 65_400, 65_520, 65_540, 70_000,
            ] {
                for zeros in [20, 100, 1000, 100_000] {
                    let message = [random.bytes(noise), vec![0; zeros]].concat();
                    client.outbox.binary(&message);
                    assert!(client.receive().await.1 == message, "{noise} and {zeros}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn small_messages_are_left_alone() {
    local(async {
        let mut client = Client::new(SHARED);
        client
            .outbox
            .compress_with(Compressor::new(SHARED, 64, None));
        for (length, pays) in [(63, false), (64, true)] {
            client.outbox.text(&"a".repeat(length));
            let (_, message, compressed) = client.receive().await;
            assert_eq!(message.len(), length);
            assert_eq!(compressed, pays);
        }
    })
    .await;
}

#[tokio::test]
async fn permits_are_given_back_when_the_websocket_closes() {
    local(async {
        let client = Client::new(CONTEXT);
        assert!(ContextPermit::acquire(1).is_none());
        client.outbox.close(code::NORMAL, "");
        drop(ContextPermit::acquire(1).expect("the permit is free"));

        let mut client = Client::new(CONTEXT);
        client.fails(&frame(3, b""), code::PROTOCOL_ERROR).await;
        drop(ContextPermit::acquire(1).expect("the permit is free"));
    })
    .await;
}
