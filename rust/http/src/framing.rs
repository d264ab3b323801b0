//! Follows the framing of the requests on a connection, as an observer: it sees the bytes that hyper reads, holds nothing
//! back, and says of each head what hyper does not tell.
//!
//! hyper 1.12 takes a line that ends in a bare LF, folds equal repeated lengths into one, and drops a `Content-Length` that
//! comes with `Transfer-Encoding`, before its user can see any of it. A proxy in front may read the same bytes in another
//! way, so each is a way to smuggle a request and is refused. The observer has to be right only about requests that are served:
//! whatever else hyper or the checks refuse ends the connection, and with it the need to know where the next head begins.
//!
//! Cost: one `memchr` per line of a head; bodies are skipped by their lengths. No byte is copied unless a line is split
//! between two reads.

use std::collections::VecDeque;

use memchr::memchr;

/// What is remarkable about one head. Plain heads have nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadMarks {
    /// A line ends without CR.
    pub(crate) bare_lf: bool,
    /// More than one `Content-Length`.
    pub(crate) repeated_length: bool,
    /// `Content-Length` and `Transfer-Encoding`.
    pub(crate) length_and_coding: bool,
}

/// The observer of one connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    state: State,
    head: Head,
    /// The beginning of a line whose end has not been read yet.
    carry: Vec<u8>,
    /// Marks of heads that were read and not asked for yet; more than one only when requests are pipelined.
    heads: VecDeque<HeadMarks>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In a head, or between two requests.
    #[default]
    Head,
    /// So many bytes of a body of known length are to come.
    Body(u64),
    /// In a line with the size of a chunk.
    ChunkSize,
    /// So many bytes of a chunk, with its CRLF, are to come.
    Chunk(u64),
    Trailers,
    /// No HTTP any more, or nothing that could be followed.
    Opaque,
}

/// What is known of the head that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    begun: bool,
    marks: HeadMarks,
    length: Option<u64>,
    chunked: bool,
}

/// A trailer line ends in a bare LF. There is no head any more that could be refused: reading has to fail, after the bytes
/// before that line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BareLfInTrailers {
    /// Bytes of this read that come before the line.
    pub(crate) bytes_before: usize,
}

impl Framing {
    /// Follows bytes that were read from the socket.
    pub(crate) fn read(&mut self, read: &[u8]) -> Result<(), BareLfInTrailers> {
        let mut bytes = read;
        while !bytes.is_empty() {
            match self.state {
                State::Opaque => return Ok(()),
                State::Body(left) => {
                    let left = skip(&mut bytes, left);
                    self.state = if left == 0 {
                        State::Head
                    } else {
                        State::Body(left)
                    };
                }
                State::Chunk(left) => {
                    let left = skip(&mut bytes, left);
                    self.state = if left == 0 {
                        State::ChunkSize
                    } else {
                        State::Chunk(left)
                    };
                }
                State::Head | State::ChunkSize | State::Trailers => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        self.carry.extend_from_slice(bytes);
                        return Ok(());
                    };
                    let bytes_before = read.len() - bytes.len();
                    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
                    bytes = rest;
                    let valid = if self.carry.is_empty() {
                        self.line(line)
                    } else {
                        let mut whole = std::mem::take(&mut self.carry);
                        whole.extend_from_slice(line);
                        self.line(&whole)
                    };
                    if !valid {
                        self.state = State::Opaque;
                        return Err(BareLfInTrailers { bytes_before });
                    }
                }
            }
        }
        Ok(())
    }

    /// One line without its LF; false when it must not be.
    fn line(&mut self, line: &[u8]) -> bool {
        let stripped = line.strip_suffix(b"\r");
        let (line, bare_lf) = (stripped.unwrap_or(line), stripped.is_none());
        match self.state {
            State::Head => self.head_line(line, bare_lf),
            State::ChunkSize => {
                self.state = match chunk_size(line) {
                    Some(0) => State::Trailers,
                    // With a CRLF it may be larger than can be counted: then it has no end, and nothing lies behind it.
                    Some(size) => State::Chunk(size.saturating_add(2)),
                    // hyper refuses it as well.
                    None => State::Opaque,
                }
            }
            State::Trailers if bare_lf => return false,
            State::Trailers if line.is_empty() => self.state = State::Head,
            State::Trailers | State::Body(_) | State::Chunk(_) | State::Opaque => {}
        }
        true
    }

    fn head_line(&mut self, line: &[u8], bare_lf: bool) {
        let head = &mut self.head;
        head.marks.bare_lf |= bare_lf;
        match line.first() {
            // Empty lines before a request are allowed (RFC 9112, 2.2).
            None if !head.begun => {}
            None => self.head_end(),
            Some(_) if !head.begun => head.begun = true,
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(line, b"content-length:") {
                    head.marks.repeated_length |= head.length.is_some();
                    head.marks.length_and_coding |= head.chunked;
                    // What is no number hyper refuses.
                    let length = std::str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse().ok());
                    head.length = Some(length.unwrap_or(0));
                }
            }
            Some(b't' | b'T') => {
                if value_of(line, b"transfer-encoding:").is_some() {
                    head.marks.length_and_coding |= head.length.is_some();
                    head.chunked = true;
                }
            }
            Some(_) => {}
        }
    }

    fn head_end(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.heads.push_back(head.marks);
        self.state = match head.length {
            _ if head.chunked => State::ChunkSize,
            Some(length) if length > 0 => State::Body(length),
            _ => State::Head,
        };
    }

    /// The marks of the next head, which hyper has parsed.
    pub(crate) fn next_head(&mut self) -> HeadMarks {
        self.heads.pop_front().unwrap_or_default()
    }

    /// Part of a head was read.
    pub(crate) fn is_in_head(&self) -> bool {
        self.state == State::Head && (self.head.begun || !self.carry.is_empty())
    }

    /// Part of a body is still to come.
    pub(crate) fn is_in_body(&self) -> bool {
        matches!(
            self.state,
            State::Body(_) | State::ChunkSize | State::Chunk(_) | State::Trailers
        )
    }

    /// Bytes that are still to come of the body whose head was asked for last, where that is known.
    pub(crate) fn body_to_come(&self) -> Option<u64> {
        if !self.heads.is_empty() {
            // A head behind it was read to its end.
            return Some(0);
        }
        match self.state {
            State::Head => Some(0),
            State::Body(left) => Some(left),
            State::ChunkSize | State::Chunk(_) | State::Trailers | State::Opaque => None,
        }
    }

    /// Bytes that are still to come of a body of known length.
    pub(crate) fn body_left(&self) -> u64 {
        match self.state {
            State::Body(left) => left,
            _ => 0,
        }
    }

    /// Follows bytes of such a body without seeing them; returns how many are still to come. More than are left are
    /// an error of ours, after which nothing can be followed.
    pub(crate) fn read_body(&mut self, bytes: u64) -> u64 {
        let left = self.body_left().checked_sub(bytes);
        debug_assert!(left.is_some(), "more bytes were taken than the body has");
        self.state = match left {
            Some(0) => State::Head,
            Some(left) => State::Body(left),
            None => State::Opaque,
        };
        left.unwrap_or(u64::MAX)
    }

    /// From here on the bytes are no HTTP.
    pub(crate) fn stop(&mut self) {
        self.state = State::Opaque;
    }

    /// Gives back memory; to be called between two requests.
    pub(crate) fn shrink(&mut self) {
        self.heads = VecDeque::new();
        self.carry.shrink_to_fit();
    }
}

/// Takes up to `left` bytes; returns how many are still to come.
fn skip(bytes: &mut &[u8], left: u64) -> u64 {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    *bytes = &bytes[taken..];
    left - taken as u64
}

fn value_of<'line>(line: &'line [u8], name: &[u8]) -> Option<&'line [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or(line)
        .trim_ascii_end();
    let digits = std::str::from_utf8(digits).ok()?;
    // `from_str_radix` takes a sign.
    digits
        .starts_with(|first: char| first.is_ascii_hexdigit())
        .then_some(())?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::{BareLfInTrailers, Framing, HeadMarks};

    const PLAIN: HeadMarks = HeadMarks {
        bare_lf: false,
        repeated_length: false,
        length_and_coding: false,
    };

    /// Marks of all heads, and whether the bytes end between two requests; the same however they are split.
    fn marks(text: &str) -> (Vec<HeadMarks>, bool) {
        let whole = follow(text.as_bytes(), text.len());
        for size in 1..text.len().min(20) {
            assert_eq!(follow(text.as_bytes(), size), whole, "in pieces of {size}");
        }
        whole
    }

    fn follow(bytes: &[u8], size: usize) -> (Vec<HeadMarks>, bool) {
        let mut framing = Framing::default();
        for piece in bytes.chunks(size) {
            framing.read(piece).unwrap();
        }
        let between = !framing.is_in_head() && !framing.is_in_body();
        (framing.heads.iter().copied().collect(), between)
    }

    #[test]
    fn plain_requests_have_no_marks() {
        let text = "GET / HTTP/1.1\r\nHost: t\r\n\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 3\r\n\r\na\nbGET / HTTP/1.1\r\nT: c\r\nC: t\r\n\r\n";
        assert_eq!(marks(text), (vec![PLAIN; 3], true));
    }

    #[test]
    fn chunked_bodies_are_followed() {
        let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\n\n\n\n\r\nA \r\n0123456789\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(marks(text), (vec![PLAIN; 2], true));
    }

    #[test]
    fn chunk_without_an_end_is_a_body() {
        let mut framing = Framing::default();
        framing
            .read(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc")
            .unwrap();
        assert!(framing.is_in_body());
    }

    #[test]
    fn odd_heads_are_marked_and_their_neighbours_are_not() {
        let plain = "GET / HTTP/1.1\r\n\r\n";
        for (odd, expected) in [
            (
                "GET / HTTP/1.1\nHost: t\r\n\r\n",
                HeadMarks {
                    bare_lf: true,
                    ..PLAIN
                },
            ),
            (
                "GET / HTTP/1.1\r\nHost: t\n\r\n",
                HeadMarks {
                    bare_lf: true,
                    ..PLAIN
                },
            ),
            (
                "GET / HTTP/1.1\r\nHost: t\r\n\n",
                HeadMarks {
                    bare_lf: true,
                    ..PLAIN
                },
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 0\r\ncontent-length:0\r\n\r\n",
                HeadMarks {
                    repeated_length: true,
                    ..PLAIN
                },
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                HeadMarks {
                    length_and_coding: true,
                    ..PLAIN
                },
            ),
            (
                "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n",
                HeadMarks {
                    length_and_coding: true,
                    ..PLAIN
                },
            ),
        ] {
            let text = format!("{plain}{odd}{plain}");
            assert_eq!(
                marks(&text),
                (vec![PLAIN, expected, PLAIN], true),
                "{odd:?}"
            );
        }
    }

    #[test]
    fn place_in_the_stream_is_known() {
        let mut framing = Framing::default();
        assert!(!framing.is_in_head());
        framing.read(b"\r\nG").unwrap();
        assert!(framing.is_in_head());
        framing.read(b"ET / HTTP/1.1\r\n").unwrap();
        assert!(framing.is_in_head());
        framing.read(b"content-length: 2\r\n\r\n").unwrap();
        assert!(!framing.is_in_head() && framing.is_in_body());
        framing.read(b"abG").unwrap();
        assert!(framing.is_in_head() && !framing.is_in_body());
    }

    #[test]
    fn what_is_to_come_of_a_body_is_known_where_it_can_be() {
        let mut framing = Framing::default();
        let mut read = |text: &str| {
            framing.read(text.as_bytes()).unwrap();
            framing.next_head();
            framing.body_to_come()
        };
        let post = "POST / HTTP/1.1\r\n";
        assert_eq!(read(&format!("{post}\r\n")), Some(0));
        assert_eq!(read(&format!("{post}content-length: 3\r\n\r\n")), Some(3));
        assert_eq!(read("a"), Some(2));
        // The next head is asked for when the body is over.
        assert_eq!(read("bcPOST"), Some(0));
        assert_eq!(
            read(" / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"),
            None
        );
        assert_eq!(read("1\r\na\r\n"), None);
        assert_eq!(read("0\r\nx: y\r\n"), None);
        assert_eq!(read("\r\n"), Some(0));
        framing.read(post.as_bytes()).unwrap();
        framing
            .read(b"content-length: 1\r\n\r\naGET / HTTP/1.1\r\ncontent-length: 9\r\n\r\n")
            .unwrap();
        framing.next_head();
        assert_eq!(
            framing.body_to_come(),
            Some(0),
            "nine are to come of the one behind"
        );
        framing.next_head();
        assert_eq!(framing.body_to_come(), Some(9));
    }

    #[test]
    fn bytes_read_past_the_observer_count() {
        let mut framing = Framing::default();
        framing
            .read(b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nab")
            .unwrap();
        assert_eq!(framing.body_left(), 8);
        assert_eq!(framing.read_body(7), 1);
        assert!(framing.is_in_body());
        assert_eq!(framing.read_body(1), 0);
        assert!(!framing.is_in_body() && !framing.is_in_head());
        framing.read(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(framing.heads.len(), 2);
    }

    #[test]
    fn bare_lf_in_trailers_is_an_error() {
        let mut framing = Framing::default();
        framing
            .read(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
            .unwrap();
        assert_eq!(
            framing.read(b"a: b\r\nx: y\n\r\n"),
            Err(BareLfInTrailers { bytes_before: 6 })
        );
    }
}
