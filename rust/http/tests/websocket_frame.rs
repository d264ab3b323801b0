//! The frame decoder and encoder: every split of the input gives the same messages, every rule of RFC 6455 is judged
//! as early as it can be.

use crate::websocket_peer;

use framegate_http::websocket::{
    Kind, code,
    frame::{
        Decoder, Part, encode_close, encode_masked_message, encode_message, encode_ping,
        encode_pong, mask_frame,
    },
};
use websocket_peer::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, Random, TEXT, close, fragment, frame, head,
};

const LIMIT: u64 = 1 << 20;

/// What a stream of parts amounts to, however the payload was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Failed(u16),
}

/// A decoder and the input that it left.
struct Reader {
    decoder: Decoder,
    input: Vec<u8>,
    message: Option<(Kind, Vec<u8>)>,
    seen: Vec<Seen>,
}

impl Reader {
    fn new() -> Self {
        Self {
            decoder: Decoder::new(LIMIT),
            input: Vec::new(),
            message: None,
            seen: Vec::new(),
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        if matches!(self.seen.last(), Some(Seen::Failed(_))) {
            return;
        }
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let mut rest = &mut input[..];
        loop {
            match self.decoder.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(part)) => self.take(&part),
                Err(failure) => {
                    self.seen.push(Seen::Failed(failure.code));
                    return;
                }
            }
        }
        self.input = rest.to_vec();
    }

    fn take(&mut self, part: &Part<'_>) {
        match *part {
            Part::Whole { kind, payload } => {
                assert!(self.message.is_none());
                self.seen.push(Seen::Message(kind, payload.to_vec()));
            }
            Part::Begin {
                kind, compressed, ..
            } => {
                assert!(!compressed && self.message.is_none());
                self.message = Some((kind, Vec::new()));
            }
            Part::Data(data) => {
                assert!(!data.is_empty());
                self.message.as_mut().unwrap().1.extend_from_slice(data);
            }
            Part::End => {
                let (kind, payload) = self.message.take().unwrap();
                self.seen.push(Seen::Message(kind, payload));
            }
            Part::Ping(payload) => self.seen.push(Seen::Ping(payload.to_vec())),
            Part::Pong(payload) => self.seen.push(Seen::Pong(payload.to_vec())),
            Part::Close(close) => {
                self.seen.push(Seen::Close(
                    close.map(|(code, reason)| (code, reason.to_owned())),
                ));
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Vec<Seen> {
    let mut reader = Reader::new();
    reader.feed(bytes);
    reader.seen
}

#[track_caller]
fn fails(bytes: &[u8], code: u16) {
    assert_eq!(decode(bytes), [Seen::Failed(code)], "{bytes:02x?}");
}

#[test]
fn messages_of_all_length_forms_pass() {
    for length in [0, 1, 7, 8, 125, 126, 127, 65535, 65536, 100_000] {
        let payload: Vec<u8> = (0..length).map(|i: u32| (i * 31) as u8).collect();
        assert_eq!(
            decode(&frame(BINARY, &payload)),
            [Seen::Message(Kind::Binary, payload)]
        );
    }
    assert_eq!(
        decode(&frame(TEXT, "grüße".as_bytes())),
        [Seen::Message(Kind::Text, "grüße".into())]
    );
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let bytes = [
        fragment(false, TEXT, "gr\u{fc}".as_bytes()),
        frame(PING, b"1"),
        fragment(false, CONTINUATION, b""),
        frame(PONG, b"2"),
        fragment(true, CONTINUATION, "ße".as_bytes()),
        frame(CLOSE, b""),
    ]
    .concat();
    let seen = [
        Seen::Ping(b"1".into()),
        Seen::Pong(b"2".into()),
        Seen::Message(Kind::Text, "grüße".into()),
        Seen::Close(None),
    ];
    assert_eq!(decode(&bytes), seen);
}

#[test]
fn every_split_in_two_gives_the_same() {
    let bytes = [
        frame(TEXT, "a€🦀".as_bytes()),
        fragment(false, BINARY, &[7; 130]),
        frame(PING, &[9; 125]),
        fragment(true, CONTINUATION, b"tail"),
        frame(BINARY, b""),
        close(4000, "fertig ü"),
    ]
    .concat();
    let whole = decode(&bytes);
    assert_eq!(whole.len(), 5);
    for at in 0..=bytes.len() {
        let mut reader = Reader::new();
        reader.feed(&bytes[..at]);
        reader.feed(&bytes[at..]);
        assert_eq!(reader.seen, whole, "split at {at}");
    }
}

#[test]
fn random_streams_split_at_random_give_the_same() {
    for seed in 1..400 {
        let mut random = Random::new(seed);
        let (mut bytes, mut sent) = (Vec::new(), Vec::new());
        for _ in 0..=random.below(12) {
            random_message(&mut random, &mut bytes, &mut sent);
        }
        if random.below(3) == 0 {
            // A stream that ends in an error gives that error at the same place.
            bytes.extend_from_slice(&fragment(true, CONTINUATION, b"lost"));
            sent.push(Seen::Failed(code::PROTOCOL_ERROR));
        }
        let piece_max = [1, 3, 20, 1000][random.below(4)];
        let mut reader = Reader::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at((random.below(piece_max) + 1).min(rest.len()));
            reader.feed(piece);
            rest = tail;
        }
        assert_eq!(reader.seen, sent, "seed {seed}");
    }
}

/// Appends a message in one or several frames, with control frames between them.
fn random_message(random: &mut Random, bytes: &mut Vec<u8>, sent: &mut Vec<Seen>) {
    let size = [0, 5, 125, 200, 3000][random.below(5)];
    let (kind, payload) = if random.below(2) == 0 {
        (Kind::Text, random.text(size).into_bytes())
    } else {
        (Kind::Binary, random.bytes(size))
    };
    let mut rest = &payload[..];
    let mut opcode = if kind == Kind::Text { TEXT } else { BINARY };
    loop {
        if random.below(4) == 0 {
            let count = random.below(126);
            let payload = random.bytes(count);
            bytes.extend_from_slice(&frame(PING, &payload));
            sent.push(Seen::Ping(payload));
        }
        let (piece, tail) = rest.split_at(random.below(rest.len() + 1));
        if random.below(3) == 0 {
            bytes.extend_from_slice(&fragment(true, opcode, rest));
            break;
        }
        bytes.extend_from_slice(&fragment(false, opcode, piece));
        (rest, opcode) = (tail, CONTINUATION);
    }
    sent.push(Seen::Message(kind, payload));
}

#[test]
fn the_first_two_bytes_are_judged_alone() {
    for (first, second) in [
        (0x82, 0x05), // not masked
        (0xc2, 0x80), // RSV1 without an extension
        (0xa2, 0x80), // RSV2
        (0x92, 0x80), // RSV3
        (0x83, 0x80), // reserved opcodes
        (0x8b, 0x80), //
        (0x80, 0x80), // continuation of nothing
        (0x09, 0x80), // fragmented ping
        (0x08, 0x80), // fragmented close
        (0x89, 0xfe), // long ping
        (0x88, 0xff), // long close
    ] {
        fails(&[first, second], code::PROTOCOL_ERROR);
    }
    let nested = [fragment(false, TEXT, b"a"), vec![0x81, 0x80]].concat();
    fails(&nested, code::PROTOCOL_ERROR);
}

#[test]
fn lengths_are_the_shortest_and_below_two_to_the_63() {
    fails(&[0x82, 0xfe, 0, 125, 1, 2, 3, 4], code::PROTOCOL_ERROR);
    fails(
        &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4],
        code::PROTOCOL_ERROR,
    );
    fails(
        &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        code::PROTOCOL_ERROR,
    );
}

#[test]
fn size_is_limited_before_the_payload_comes() {
    let key = [1, 2, 3, 4];
    fails(
        &[&head(true, BINARY, LIMIT + 1)[..], &key].concat(),
        code::TOO_BIG,
    );
    fails(
        &[&head(true, BINARY, u64::MAX >> 1)[..], &key].concat(),
        code::TOO_BIG,
    );
    let mut reader = Reader::new();
    reader.feed(&[&head(true, BINARY, LIMIT)[..], &key].concat());
    assert_eq!(reader.seen, []);
    // All frames of a message together.
    let half = vec![0; (LIMIT / 2) as usize];
    let mut reader = Reader::new();
    reader.feed(&fragment(false, BINARY, &half));
    reader.feed(&fragment(false, CONTINUATION, &half));
    assert_eq!(reader.seen, []);
    reader.feed(&[&head(true, CONTINUATION, 1)[..], &key].concat());
    assert_eq!(reader.seen, [Seen::Failed(code::TOO_BIG)]);
}

#[test]
fn close_payload_is_checked() {
    fails(&frame(CLOSE, b"\x03"), code::PROTOCOL_ERROR);
    fails(&frame(CLOSE, b"\x03\xe8\xff"), code::PROTOCOL_ERROR);
    for bad in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        fails(&close(bad, ""), code::PROTOCOL_ERROR);
    }
    for good in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999] {
        assert_eq!(
            decode(&close(good, "x")),
            [Seen::Close(Some((good, "x".to_owned())))]
        );
    }
}

#[test]
fn text_is_checked_piece_by_piece() {
    let bad = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
    fails(&frame(TEXT, bad), code::INVALID_PAYLOAD);
    // In a frame that is not complete, right after the first byte that cannot be.
    let mut reader = Reader::new();
    let bytes = frame(TEXT, bad);
    reader.feed(&bytes[..6 + 12]);
    assert_eq!(reader.seen, []);
    reader.feed(&bytes[6 + 12..6 + 13]);
    assert_eq!(reader.seen, [Seen::Failed(code::INVALID_PAYLOAD)]);
    // A character may be cut by frames, but not by the end of the message.
    let crab = "🦀".as_bytes();
    let cut = [
        fragment(false, TEXT, &crab[..1]),
        fragment(true, CONTINUATION, &crab[1..]),
    ]
    .concat();
    assert_eq!(decode(&cut), [Seen::Message(Kind::Text, crab.to_vec())]);
    fails(&fragment(true, TEXT, &crab[..3]), code::INVALID_PAYLOAD);
    fails(
        &[
            fragment(false, TEXT, &crab[..2]),
            fragment(true, CONTINUATION, b""),
        ]
        .concat(),
        code::INVALID_PAYLOAD,
    );
    fails(&frame(TEXT, b"\xed\xa0\x80"), code::INVALID_PAYLOAD);
}

#[test]
fn every_cut_of_every_kind_of_character_agrees_with_std() {
    for sample in ["é", "€", "🦀", "\u{10ffff}", "a\u{800}b"] {
        let mut bytes = sample.as_bytes().to_vec();
        for position in 0..bytes.len() {
            let right = bytes[position];
            for wrong in [
                right, 0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xc2, 0xe0, 0xed, 0xf0, 0xf4, 0xf5, 0xff,
            ] {
                bytes[position] = wrong;
                let valid = std::str::from_utf8(&bytes).is_ok();
                for at in 0..=bytes.len() {
                    let cut = [
                        fragment(false, TEXT, &bytes[..at]),
                        fragment(true, CONTINUATION, &bytes[at..]),
                    ];
                    let expected = if valid {
                        Seen::Message(Kind::Text, bytes.clone())
                    } else {
                        Seen::Failed(code::INVALID_PAYLOAD)
                    };
                    assert_eq!(
                        decode(&cut.concat()),
                        [expected],
                        "{bytes:02x?} cut at {at}"
                    );
                }
            }
            bytes[position] = right;
        }
    }
}

#[test]
fn payload_can_be_read_past_the_decoder() {
    let payload = Random::new(7).bytes(5000);
    let bytes = [frame(BINARY, &payload), frame(PING, b"next")].concat();
    let mut decoder = Decoder::new(LIMIT);
    let mut first = bytes[..100].to_vec();
    let mut input = &mut first[..];
    assert_eq!(decoder.payload_left(), 0);
    assert_eq!(
        decoder.next(&mut input).unwrap().unwrap(),
        Part::Begin {
            kind: Kind::Binary,
            size_hint: 5000,
            compressed: false
        }
    );
    let Part::Data(data) = decoder.next(&mut input).unwrap().unwrap() else {
        panic!("payload is there")
    };
    let mut collected = data.to_vec();
    assert_eq!(decoder.next(&mut input).unwrap(), None);
    let mut at = 100;
    while decoder.payload_left() > 0 {
        let count = decoder.payload_left().min(777) as usize;
        let mut direct = bytes[at..at + count].to_vec();
        decoder.payload_read(&mut direct).unwrap();
        collected.extend_from_slice(&direct);
        at += count;
    }
    assert!(decoder.end_is_due());
    assert_eq!(decoder.next(&mut &mut [][..]).unwrap().unwrap(), Part::End);
    assert_eq!(collected, payload);
    let mut rest = bytes[at..].to_vec();
    assert_eq!(
        decoder.next(&mut &mut rest[..]).unwrap().unwrap(),
        Part::Ping(b"next")
    );
}

#[test]
fn frames_are_encoded_with_the_shortest_length() {
    for (length, head) in [
        (0, vec![0x82, 0]),
        (125, vec![0x82, 125]),
        (126, vec![0x82, 126, 0, 126]),
        (65535, vec![0x82, 126, 255, 255]),
        (65536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut output = Vec::new();
        encode_message(&mut output, Kind::Binary, &vec![5; length]);
        assert_eq!(&output[..head.len()], head);
        assert_eq!(output.len(), head.len() + length);
    }
    let mut output = Vec::new();
    encode_message(&mut output, Kind::Text, b"hi");
    encode_ping(&mut output, b"1");
    encode_pong(&mut output, b"");
    encode_close(&mut output, None);
    encode_close(&mut output, Some((1001, "ü")));
    assert_eq!(
        output,
        b"\x81\x02hi\x89\x011\x8a\x00\x88\x00\x88\x04\x03\xe9\xc3\xbc"
    );
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let mut output = Vec::new();
    encode_close(&mut output, Some((1000, &"ü".repeat(100))));
    assert_eq!(output[1], 2 + 122);
    assert_eq!(&output[4..], "ü".repeat(61).as_bytes());
}

/// RFC 6455, section 5.7: "Hello", masked.
const HELLO: [u8; 11] = [
    0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
];

#[test]
fn a_client_masks_as_the_rfc_does() {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut direct = b"before".to_vec();
    encode_masked_message(&mut direct, Kind::Text, b"Hello", key);
    assert_eq!(direct[6..], HELLO);
    let mut after = b"before".to_vec();
    encode_message(&mut after, Kind::Text, b"Hello");
    mask_frame(&mut after, 6, key);
    assert_eq!(after, direct);
}

#[test]
fn what_a_client_sends_is_read_by_a_server_at_every_length() {
    let mut random = Random::new(77);
    for length in [
        0, 1, 7, 8, 125, 126, 127, 16_383, 16_384, 16_385, 65_535, 65_536, 300_001,
    ] {
        let payload = random.bytes(length);
        let mut key = [0; 4];
        key.copy_from_slice(&random.bytes(4));
        let (mut direct, mut after) = (Vec::new(), Vec::new());
        encode_masked_message(&mut direct, Kind::Binary, &payload, key);
        encode_message(&mut after, Kind::Binary, &payload);
        mask_frame(&mut after, 0, key);
        assert!(direct == after, "{length}");
        let mut decoder = Decoder::new(LIMIT);
        let part = decoder.next(&mut &mut direct[..]).unwrap();
        let expected = Part::Whole {
            kind: Kind::Binary,
            payload: &payload,
        };
        assert!(part == Some(expected), "{length}");
    }
}

#[test]
fn a_client_reads_frames_that_are_not_masked_and_no_others() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let payload = vec![7; length];
        let mut frame = Vec::new();
        encode_message(&mut frame, Kind::Binary, &payload);
        encode_ping(&mut frame, b"p");
        encode_close(&mut frame, Some((1001, "away")));
        let mut input = &mut frame[..];
        let mut decoder = Decoder::of_server(LIMIT);
        let expected = Part::Whole {
            kind: Kind::Binary,
            payload: &payload,
        };
        assert!(
            decoder.next(&mut input).unwrap() == Some(expected),
            "{length}"
        );
        assert_eq!(decoder.next(&mut input).unwrap(), Some(Part::Ping(b"p")));
        let close = Part::Close(Some((1001, "away")));
        assert_eq!(decoder.next(&mut input).unwrap(), Some(close));
    }
    let mut masked = HELLO;
    let failure = Decoder::of_server(LIMIT).next(&mut &mut masked[..]);
    assert_eq!(failure.unwrap_err().code, code::PROTOCOL_ERROR);
    // Piece by piece, behind the decoder's back.
    let mut frame = Vec::new();
    encode_message(&mut frame, Kind::Text, "grüße".as_bytes());
    let (head, rest) = frame.split_at_mut(3);
    let mut decoder = Decoder::of_server(LIMIT);
    let mut input = &mut head[..];
    assert!(matches!(
        decoder.next(&mut input),
        Ok(Some(Part::Begin { .. }))
    ));
    assert_eq!(decoder.next(&mut input), Ok(Some(Part::Data(b"g"))));
    assert_eq!(decoder.payload_left(), rest.len() as u64);
    decoder.payload_read(rest).unwrap();
    assert_eq!(rest, "rüße".as_bytes());
    assert_eq!(decoder.next(&mut &mut [][..]), Ok(Some(Part::End)));
}
