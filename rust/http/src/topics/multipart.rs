//! Multipart bodies (RFC 2046, section 5.1) as they arrive: one part after the other, each of which is a [`Source`] of its own.
//!
//! ```text
//! preamble  CR LF --boundary padding CR LF  fields CR LF CR LF  bytes  CR LF --boundary ... CR LF --boundary--  epilogue
//! Preamble  |------ next ------------------ Head -------------| Data |---- next ...                 Ended
//! ```
//!
//! # Where the end of a part is
//! A part without `Content-Length` ends where its delimiter begins, so bytes that may be the beginning of one are not given out before
//! it is known, and the line of the delimiter is read to its end before the part counts as whole. The bytes are read straight
//! into the reader's memory, and looked through there; what came after the delimiter is moved into [`Multipart::held`], which is
//! at most one read of the socket. A part of a stream that says its length ends there, without waiting for what follows: a
//! camera sends the delimiter with its next picture. `multipart/form-data` knows no lengths of parts (RFC 7578, section 4.8).
//!
//! # How a stream may end
//! A camera that is switched off sends no last delimiter. Where the body is over between two parts, a stream is whole; a
//! form needs its end, since else its last files could be missing without anybody noticing.

use bytes::{Buf, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use memchr::memmem::Finder;

use super::problem::{Code, Problem};
use crate::ingest::{IngestError, Source};

/// Bytes of a boundary: RFC 2046, section 5.1.1.
pub(super) const BOUNDARY_BYTES_MAX: usize = 70;
/// Bytes of the fields of a part: its name, that of its file, and its type have some hundred.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Fields of a part: cameras and libraries for mail send up to six.
pub(super) const HEAD_FIELDS_MAX: usize = 32;
/// Bytes before the first delimiter, and after the last one: a line for people whose program knows no parts.
pub(super) const PREAMBLE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of spaces and tabs after a delimiter; RFC 2046 allows them for gateways that pad lines.
const PADDING_BYTES_MAX: usize = 256;
/// Bytes of one read of what is not payload.
const READ_BYTES: usize = 4 * 1024;

/// What a multipart body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    /// `multipart/form-data`; else parts that follow each other for as long as the client likes.
    pub(crate) is_form: bool,
    /// What stands between the parts.
    pub(crate) boundary: Vec<u8>,
}

impl Type {
    /// Reads a `Content-Type`; `None` if it is another one.
    ///
    /// # Errors
    /// [`Code::UnsupportedType`] for another kind of multipart, [`Code::Multipart`] for a boundary that is none.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Ok(None);
        };
        let value = value.as_bytes();
        let essence = value.split(|&byte| byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        let Some(kind) = essence
            .to_ascii_lowercase()
            .strip_prefix(b"multipart/")
            .map(<[u8]>::to_vec)
        else {
            return Ok(None);
        };
        let is_form = match &*kind {
            b"form-data" => true,
            b"mixed" | b"x-mixed-replace" => false,
            _ => {
                return Err(Problem::new(
                    Code::UnsupportedType,
                    "of multipart bodies form-data, mixed and x-mixed-replace are taken",
                ));
            }
        };
        let boundary = parameters(value).and_then(|found| {
            let mut boundaries = found.into_iter().filter(|(name, _)| name == b"boundary");
            // Two of them mean one thing here and another elsewhere.
            boundaries.next().filter(|_| boundaries.next().is_none())
        });
        match boundary {
            Some((_, boundary)) if is_boundary(&boundary) => Ok(Some(Self { is_form, boundary })),
            _ => Err(wrong(&format!(
                "its Content-Type needs one boundary of 1 to {BOUNDARY_BYTES_MAX} bytes"
            ))),
        }
    }
}

/// RFC 2046, section 5.1.1: `boundary`.
fn is_boundary(text: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    (1..=BOUNDARY_BYTES_MAX).contains(&text.len())
        && text.last() != Some(&b' ')
        && text.iter().all(is_allowed)
}

/// Parameters of a field such as `form-data; name="frame"; filename="a.jpg"`, with their names in lower case; `None` if they are
/// not written as RFC 9110, section 5.6.6 says, but for spaces around `=`.
pub(crate) fn parameters(value: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut rest = &value[memchr::memchr(b';', value).unwrap_or(value.len())..];
    loop {
        rest = rest.trim_ascii_start();
        let Some((b';', after)) = rest.split_first() else {
            return rest.is_empty().then_some(found);
        };
        rest = after.trim_ascii_start();
        if rest.is_empty() || rest[0] == b';' {
            continue;
        }
        let (name, after) = rest.split_at(memchr::memchr(b'=', rest)?);
        let name = name.trim_ascii().to_ascii_lowercase();
        rest = after[1..].trim_ascii_start();
        let mut text = Vec::new();
        if let Some(mut quoted) = rest.strip_prefix(b"\"") {
            loop {
                let (&byte, after) = quoted.split_first()?;
                quoted = after;
                match byte {
                    b'"' => break,
                    b'\\' => {
                        let (&escaped, after) = quoted.split_first()?;
                        quoted = after;
                        text.push(escaped);
                    }
                    byte => text.push(byte),
                }
            }
            rest = quoted;
        } else {
            let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
            text.extend_from_slice(rest[..end].trim_ascii());
            rest = &rest[end..];
        }
        found.push((name, text));
    }
}

fn wrong(what: &str) -> Problem {
    Problem::new(
        Code::Multipart,
        format!("the multipart body is refused: {what}"),
    )
}

fn cut_short() -> IngestError {
    Problem::new(
        Code::BodyIncomplete,
        "the body ended before its last delimiter; nothing unfinished was taken",
    )
    .into()
}

/// Where the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first delimiter.
    Preamble,
    /// After the line of a delimiter: fields of a part follow.
    Head,
    /// Within the bytes of a part, of which so many are still to come, if that is known.
    Data(Option<u64>),
    /// After the last delimiter.
    Ended,
}

/// Reads the parts of a body.
pub(crate) struct Multipart<'a, S> {
    body: &'a mut S,
    is_form: bool,
    /// CR LF, two dashes and the boundary.
    delimiter: Vec<u8>,
    finder: Finder<'static>,
    place: Place,
    /// Came from the body and is not given out yet.
    held: BytesMut,
}

impl<'a, S: Source> Multipart<'a, S> {
    pub(crate) fn new(body: &'a mut S, kind: &Type) -> Self {
        let delimiter = [b"\r\n--", &*kind.boundary].concat();
        Self {
            body,
            is_form: kind.is_form,
            finder: Finder::new(&delimiter).into_owned(),
            delimiter,
            place: Place::Preamble,
            // The first delimiter may be at the very beginning, without a line before it.
            held: BytesMut::from(&b"\r\n"[..]),
        }
    }

    /// The fields of the next part, whose bytes are [`Multipart::part`] then; `None` after the last one. What is left of the part
    /// before is dropped, at most `skipped_max` bytes of it.
    ///
    /// # Errors
    /// [`Code::Multipart`], [`Code::BodyIncomplete`]; after one the body is over.
    pub(crate) async fn next(
        &mut self,
        skipped_max: u64,
    ) -> Result<Option<HeaderMap>, IngestError> {
        let skipped_max = match self.place {
            // And the end of a line that is not there.
            Place::Preamble => PREAMBLE_BYTES_MAX as u64 + 2,
            _ => skipped_max,
        };
        self.skip(skipped_max).await?;
        if let Place::Data(Some(_)) = self.place
            && !self.delimiter_follows().await?
        {
            self.place = Place::Ended;
        }
        if self.place == Place::Ended {
            return Ok(None);
        }
        let Some(head) = self.head().await? else {
            self.place = Place::Ended;
            return Ok(None);
        };
        let fields = fields(&head)?;
        // RFC 7578, section 4.8: a form has no lengths of parts.
        let length = fields.get(CONTENT_LENGTH).filter(|_| !self.is_form);
        let length = length.map(|value| {
            let text = value.to_str().ok().map(str::trim);
            let number = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            number.and_then(|text| text.parse().ok())
        });
        self.place = Place::Data(match length {
            Some(None) => return Err(wrong("the Content-Length of a part is no number").into()),
            Some(length) => length,
            None => None,
        });
        Ok(Some(fields))
    }

    /// The bytes of the part whose fields came last.
    pub(crate) fn part(&mut self) -> Part<'_, 'a, S> {
        Part(self)
    }

    /// Reads what follows the last delimiter, up to a limit, so that the connection can be used again.
    pub(crate) async fn epilogue(&mut self) -> Result<(), IngestError> {
        let mut scratch = [0; READ_BYTES];
        let mut dropped = self.held.len();
        self.held.clear();
        while dropped <= PREAMBLE_BYTES_MAX {
            match self.body.read(&mut scratch).await? {
                0 => break,
                bytes => dropped += bytes,
            }
        }
        Ok(())
    }

    /// Drops what is left of a part, or of what stands before the first one.
    async fn skip(&mut self, bytes_max: u64) -> Result<(), IngestError> {
        let mut scratch = [0; READ_BYTES];
        let mut skipped = 0;
        loop {
            match self.read_part(&mut scratch).await? {
                0 => return Ok(()),
                bytes => skipped += bytes as u64,
            }
            if skipped > bytes_max {
                return Err(wrong("there is more beside its frames than is skipped").into());
            }
        }
    }

    /// The next bytes of the part; 0 at its end.
    async fn read_part(&mut self, into: &mut [u8]) -> Result<usize, IngestError> {
        match self.place {
            Place::Head | Place::Ended | Place::Data(Some(0)) => Ok(0),
            Place::Data(Some(left)) => {
                let room = usize::try_from(left).map_or(into.len(), |left| left.min(into.len()));
                let bytes = if self.held.is_empty() {
                    self.body.read(&mut into[..room]).await?
                } else {
                    self.take_held(&mut into[..room])
                };
                if bytes == 0 {
                    return Err(cut_short());
                }
                self.place = Place::Data(Some(left - bytes as u64));
                Ok(bytes)
            }
            Place::Data(None) | Place::Preamble => self.read_to_delimiter(into).await,
        }
    }

    fn take_held(&mut self, into: &mut [u8]) -> usize {
        let bytes = self.held.len().min(into.len());
        self.held.copy_to_slice(&mut into[..bytes]);
        bytes
    }

    /// How many of `bytes` belong to the part for certain, and whether its delimiter follows them.
    fn look(&self, bytes: &[u8]) -> (usize, bool) {
        if let Some(found) = self.finder.find(bytes) {
            return (found, true);
        }
        let first = bytes.len().saturating_sub(self.delimiter.len() - 1);
        let begin = (first..bytes.len()).find(|&at| self.delimiter.starts_with(&bytes[at..]));
        (begin.unwrap_or(bytes.len()), false)
    }

    async fn read_to_delimiter(&mut self, into: &mut [u8]) -> Result<usize, IngestError> {
        loop {
            let (ours, is_delimited) = self.look(&self.held);
            if ours > 0 {
                let room = ours.min(into.len());
                return Ok(self.take_held(&mut into[..room]));
            }
            if is_delimited {
                self.held.advance(self.delimiter.len());
                self.end_of_line().await?;
                return Ok(0);
            }
            // What is held may be the beginning of a delimiter, or is nothing.
            let kept = self.held.len();
            if into.len() <= kept + self.delimiter.len() {
                // The room is as large as the part may be: what follows is looked at beside it.
                self.more().await?;
                continue;
            }
            into[..kept].copy_from_slice(&self.held);
            let bytes = match self.body.read(&mut into[kept..]).await? {
                0 => return Err(cut_short()),
                bytes => kept + bytes,
            };
            let (ours, _) = self.look(&into[..bytes]);
            self.held.clear();
            self.held.extend_from_slice(&into[ours..bytes]);
            if ours > 0 {
                return Ok(ours);
            }
        }
    }

    /// Holds more of the body.
    async fn more(&mut self) -> Result<(), IngestError> {
        if self.more_or_end().await? {
            Ok(())
        } else {
            Err(cut_short())
        }
    }

    /// The same; false if the body is over.
    async fn more_or_end(&mut self) -> Result<bool, IngestError> {
        let before = self.held.len();
        self.held.resize(before + READ_BYTES, 0);
        let read = self.body.read(&mut self.held[before..]).await;
        self.held
            .truncate(before + read.as_ref().map_or(0, |bytes| *bytes));
        Ok(read? > 0)
    }

    /// After the bytes of a part that has said its length. False if the body is over, as that of a stream may be.
    async fn delimiter_follows(&mut self) -> Result<bool, IngestError> {
        while self.held.len() < self.delimiter.len() && self.delimiter.starts_with(&self.held) {
            if self.more_or_end().await? {
                continue;
            }
            let is_whole = self.held.is_empty() || *self.held == *b"\r\n";
            if is_whole && !self.is_form {
                return Ok(false);
            }
            return Err(cut_short());
        }
        if !self.held.starts_with(&self.delimiter) {
            return Err(wrong("a part is not as long as its Content-Length says").into());
        }
        self.held.advance(self.delimiter.len());
        self.end_of_line().await?;
        Ok(true)
    }

    /// What follows a delimiter: two dashes if it is the last one, else padding and the end of the line.
    async fn end_of_line(&mut self) -> Result<(), IngestError> {
        let mut padding = 0;
        loop {
            while self.held.len() < 2 {
                self.more().await?;
            }
            match &self.held[..2] {
                b"--" if padding == 0 => {
                    self.held.advance(2);
                    self.place = Place::Ended;
                    return Ok(());
                }
                b"\r\n" => {
                    self.held.advance(2);
                    self.place = Place::Head;
                    return Ok(());
                }
                [b' ' | b'\t', _] if padding < PADDING_BYTES_MAX => {
                    padding += 1;
                    self.held.advance(1);
                }
                _ => {
                    return Err(wrong(
                        "its boundary stands within a part, or its lines do not end in CR LF",
                    )
                    .into());
                }
            }
        }
    }

    /// The lines of a part's head, each with its end. `None` if the body of a stream is over before it.
    async fn head(&mut self) -> Result<Option<BytesMut>, IngestError> {
        if self.held.is_empty() && !self.more_or_end().await? {
            return if self.is_form {
                Err(cut_short())
            } else {
                Ok(None)
            };
        }
        let mut looked = 0;
        loop {
            // A part without fields begins with the empty line.
            if self.held.starts_with(b"\r\n") {
                self.held.advance(2);
                return Ok(Some(BytesMut::new()));
            }
            if let Some(end) = memchr::memmem::find(&self.held[looked..], b"\r\n\r\n") {
                let end = looked + end + 2;
                if end <= HEAD_BYTES_MAX {
                    let head = self.held.split_to(end);
                    self.held.advance(2);
                    return Ok(Some(head));
                }
            }
            // With the empty line.
            if self.held.len() > HEAD_BYTES_MAX + 2 {
                return Err(wrong(&format!(
                    "the fields of a part have more than {HEAD_BYTES_MAX} bytes"
                ))
                .into());
            }
            looked = self.held.len().saturating_sub(3);
            self.more().await?;
        }
    }
}

/// Reads the lines of a head. A line that begins with a space goes on with the one before (RFC 5322, section 2.2.3).
fn fields(head: &[u8]) -> Result<HeaderMap, Problem> {
    let mut fields = HeaderMap::new();
    let mut lines = head.split_inclusive(|&byte| byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let mut line = line.to_vec();
        while let Some(more) = lines.next_if(|line| matches!(line[0], b' ' | b'\t')) {
            line.truncate(line.trim_ascii_end().len());
            line.extend_from_slice(more);
        }
        let line = line.strip_suffix(b"\r\n").unwrap_or_default();
        let colon = memchr::memchr(b':', line);
        let field = colon.and_then(|colon| {
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            Some((name, value))
        });
        let Some((name, value)) = field else {
            return Err(wrong("a line in the head of a part is no field"));
        };
        if fields.len() == HEAD_FIELDS_MAX {
            return Err(wrong(&format!(
                "a part has more than {HEAD_FIELDS_MAX} fields"
            )));
        }
        fields.append(name, value);
    }
    Ok(fields)
}

/// The bytes of one part.
pub(crate) struct Part<'p, 'a, S>(&'p mut Multipart<'a, S>);

impl<S: Source> Source for Part<'_, '_, S> {
    fn remaining(&self) -> Option<u64> {
        match self.0.place {
            Place::Data(left) => left,
            _ => Some(0),
        }
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<usize, IngestError> {
        self.0.read_part(into).await
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod whole {
    //! Bodies that are there at once, cut as a test likes.

    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use http::HeaderMap;

    use super::{Code, Multipart, Source, Type};
    use crate::ingest::IngestError;
    use crate::topics::publish::problem_of;

    /// Bytes that come in pieces of at most so many.
    pub(crate) struct Cut<'a>(pub(crate) &'a [u8], pub(crate) usize);

    impl Source for Cut<'_> {
        fn remaining(&self) -> Option<u64> {
            None
        }

        async fn read(&mut self, into: &mut [u8]) -> Result<usize, IngestError> {
            let bytes = self.1.min(self.0.len()).min(into.len());
            let (now, later) = self.0.split_at(bytes);
            into[..bytes].copy_from_slice(now);
            self.0 = later;
            Ok(bytes)
        }
    }

    /// What a future gives that waits for nothing.
    pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("nothing of it has to be waited for"),
        }
    }

    /// Fields and bytes of all parts that are whole, and why there are no more.
    pub(crate) type Parts = (Vec<(HeaderMap, Vec<u8>)>, Option<Code>);

    /// Reads a body that comes in pieces of `size` bytes into rooms of `room` bytes.
    pub(crate) fn read(body: &[u8], kind: &Type, size: usize, room: usize) -> Parts {
        let mut found = Vec::new();
        let mut body = Cut(body, size);
        let mut parts = Multipart::new(&mut body, kind);
        let end = at_once(async {
            while let Some(fields) = parts.next(0).await? {
                let mut bytes = Vec::new();
                let mut into = vec![0; room];
                loop {
                    match parts.part().read(&mut into).await? {
                        0 => break,
                        read => bytes.extend_from_slice(&into[..read]),
                    }
                }
                found.push((fields, bytes));
            }
            Ok(())
        });
        let code = end.err().map(|error: IngestError| problem_of(&error).code);
        (found, code)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

    use super::whole::{Cut, at_once, read};
    use super::{
        BOUNDARY_BYTES_MAX, Code, HEAD_BYTES_MAX, HEAD_FIELDS_MAX, Multipart, PADDING_BYTES_MAX,
        PREAMBLE_BYTES_MAX, Source, Type, parameters,
    };

    fn form() -> Type {
        Type {
            is_form: true,
            boundary: b"xyz".to_vec(),
        }
    }

    fn stream() -> Type {
        Type {
            is_form: false,
            ..form()
        }
    }

    /// Bytes that begin as a delimiter does, and go on differently.
    const TRAPS: &[u8] = b"\r\r\n\r\n-\r\n--\r\n--xy\r\n--x\r\n--xy-xyz\r";

    /// A body, and where a stream of it may end: after the line of a delimiter, and after a part that said its length.
    fn body() -> (Vec<u8>, Vec<usize>) {
        let mut body = Vec::new();
        let mut ends = Vec::new();
        for piece in [
            &b"for people\r\n--xyz  \t\r\n"[..],
            &[
                b"A: 1\r\nB: long\r\n  value\r\n\r\n",
                TRAPS,
                b"\r\n--xyz\r\n",
            ]
            .concat(),
            b"\r\n\r\n--xyz\r\n",
            b"content-length: 9\r\n\r\n\r\n--xyz\r\n",
            b"\r\n",
            b"--xyz\r\n",
            b"\r\nlast\r\n--xyz--",
        ] {
            body.extend_from_slice(piece);
            ends.push(body.len());
        }
        (body, ends)
    }

    #[test]
    fn parts_are_the_same_however_the_body_is_cut() {
        let (mut body, _) = body();
        body.extend_from_slice(b"\r\nfor people");
        for size in 1..=body.len() {
            for room in [1, 2, 7, 8, 9, 64, 4096] {
                let (parts, error) = read(&body, &stream(), size, room);
                assert_eq!(error, None, "{size} {room}");
                let bytes: Vec<&[u8]> = parts.iter().map(|(_, bytes)| &**bytes).collect();
                assert_eq!(
                    bytes,
                    [TRAPS, b"", b"\r\n--xyz\r\n", b"last"],
                    "{size} {room}"
                );
                let fields = &parts[0].0;
                assert_eq!(
                    (&fields["a"], &fields["b"]),
                    (&"1".parse().unwrap(), &"long  value".parse().unwrap())
                );
            }
        }
        // A form has no lengths of parts: there the delimiter counts.
        let (parts, error) = read(&body, &form(), 5, 64);
        assert_eq!(error, None);
        assert_eq!(parts[2].1, b"");
        assert_eq!(parts[3].1, b"--xyz\r\n\r\nlast");
    }

    #[test]
    fn body_that_ends_anywhere_gives_only_whole_parts() {
        let (body, ends) = body();
        let (whole, _) = read(&body, &stream(), 64, 64);
        for cut in 0..body.len() {
            let (_, error) = read(&body[..cut], &form(), 3, 64);
            assert_eq!(error, Some(Code::BodyIncomplete), "{cut}");
            let (parts, error) = read(&body[..cut], &stream(), 3, 64);
            assert_eq!(parts[..], whole[..parts.len()], "{cut}");
            let expected = (!ends.contains(&cut)).then_some(Code::BodyIncomplete);
            assert_eq!(error, expected, "{cut}");
        }
    }

    #[test]
    fn part_that_says_its_length_is_whole_before_anything_follows() {
        let mut body = Cut(b"--xyz\r\nContent-Length: 3\r\n\r\nabc", 1);
        let kind = stream();
        let mut parts = Multipart::new(&mut body, &kind);
        at_once(async {
            parts.next(0).await.unwrap().unwrap();
            assert_eq!(parts.part().remaining(), Some(3));
            let mut into = [0; 8];
            for byte in b"abc" {
                assert_eq!(parts.part().read(&mut into).await.unwrap(), 1);
                assert_eq!(into[0], *byte);
            }
            // Nothing is read for the end: the source would say that it is over.
            assert_eq!(parts.part().read(&mut into).await.unwrap(), 0);
            assert_eq!(parts.part().remaining(), Some(0));
        });
    }

    fn code(body: &str) -> Option<Code> {
        let (_, one) = read(body.as_bytes(), &stream(), 1, 64);
        let (_, whole) = read(body.as_bytes(), &stream(), usize::MAX, 64);
        assert_eq!(one, whole, "{body}");
        one
    }

    #[test]
    fn what_is_no_multipart_body_is_refused() {
        for body in [
            "--xyzz\r\n\r\n\r\n--xyz--",
            "--xyz\n\r\n\r\n--xyz--",
            "--xyz--x\r\n--xyz\r\nno field\r\n\r\n",
            "--xyz\r\n: x\r\n\r\n\r\n--xyz--",
            "--xyz\r\nA: 1\nB: 2\r\n\r\n\r\n--xyz--",
            "--xyz\r\n A: 1\r\n\r\n\r\n--xyz--",
            "--xyz\r\ncontent-length: -1\r\n\r\n\r\n--xyz--",
            "--xyz\r\ncontent-length: 1\r\n\r\nab\r\n--xyz--",
            "--xyz\r\ncontent-length: 1\r\n\r\na\r\n-xyz--",
            "--xyz\r\n\r\na\r\n--xyzb\r\n--xyz--",
        ] {
            // What follows the last delimiter is for people.
            let expected = (!body.starts_with("--xyz--x")).then_some(Code::Multipart);
            assert_eq!(code(body), expected, "{body}");
        }
        assert_eq!(code("no delimiter"), Some(Code::BodyIncomplete));
        assert_eq!(code(""), Some(Code::BodyIncomplete));
    }

    #[test]
    fn head_of_a_part_is_bounded() {
        let with = |field: usize| {
            let value = "v".repeat(field - "A: \r\n".len());
            code(&format!("--xyz\r\nA: {value}\r\n\r\n\r\n--xyz--"))
        };
        assert_eq!(with(HEAD_BYTES_MAX), None);
        assert_eq!(with(HEAD_BYTES_MAX + 1), Some(Code::Multipart));
        let with = |fields: usize| {
            code(&format!(
                "--xyz\r\n{}\r\n\r\n--xyz--",
                "A: 1\r\n".repeat(fields)
            ))
        };
        assert_eq!(with(HEAD_FIELDS_MAX), None);
        assert_eq!(with(HEAD_FIELDS_MAX + 1), Some(Code::Multipart));
    }

    #[test]
    fn what_is_beside_the_parts_is_bounded() {
        let with = |bytes: usize| code(&format!("{}\r\n--xyz--", "p".repeat(bytes)));
        assert_eq!(with(PREAMBLE_BYTES_MAX), None);
        assert_eq!(with(PREAMBLE_BYTES_MAX + 1), Some(Code::Multipart));
        let with = |bytes: usize| code(&format!("--xyz{}\r\n\r\n\r\n--xyz--", " ".repeat(bytes)));
        assert_eq!(with(PADDING_BYTES_MAX), None);
        assert_eq!(with(PADDING_BYTES_MAX + 1), Some(Code::Multipart));
    }

    #[test]
    fn parts_are_skipped_up_to_a_limit() {
        for body in [
            "--xyz\r\n\r\n12345\r\n--xyz\r\nlast: 1\r\n\r\n\r\n--xyz--",
            "--xyz\r\ncontent-length: 5\r\n\r\n12345\r\n--xyz\r\nlast: 1\r\n\r\n\r\n--xyz--",
        ] {
            for (skipped_max, is_enough) in [(5, true), (4, false)] {
                let mut body = Cut(body.as_bytes(), 1);
                let kind = stream();
                let mut parts = Multipart::new(&mut body, &kind);
                at_once(async {
                    parts.next(0).await.unwrap().unwrap();
                    let next = parts.next(skipped_max).await;
                    let is_last = next.is_ok_and(|fields| fields.unwrap().contains_key("last"));
                    assert_eq!(is_last, is_enough);
                });
            }
        }
    }

    fn kind(value: &str) -> Result<Option<Type>, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(value).unwrap());
        Type::of(&headers).map_err(|problem| problem.code)
    }

    #[test]
    fn kinds_and_boundaries_are_read() {
        let longest = "b".repeat(BOUNDARY_BYTES_MAX);
        for (value, is_form, boundary) in [
            ("multipart/form-data; boundary=xyz", true, "xyz"),
            (
                "Multipart/Mixed;BOUNDARY=\"a b:?\"; charset=x",
                false,
                "a b:?",
            ),
            (
                "multipart/x-mixed-replace; boundary=--frame",
                false,
                "--frame",
            ),
            (
                &format!("multipart/mixed; boundary={longest}"),
                false,
                &longest,
            ),
        ] {
            let boundary = boundary.as_bytes().to_vec();
            assert_eq!(kind(value), Ok(Some(Type { is_form, boundary })), "{value}");
        }
        assert_eq!(kind("image/jpeg; boundary=x"), Ok(None));
        assert_eq!(
            kind("multipart/byteranges; boundary=x"),
            Err(Code::UnsupportedType)
        );
        for value in [
            "multipart/mixed",
            "multipart/mixed; boundary=",
            "multipart/mixed; boundary=\"a \"",
            "multipart/mixed; boundary=a*",
            "multipart/mixed; boundary=\"a",
            "multipart/mixed; boundary=a; boundary=b",
            &format!("multipart/mixed; boundary={longest}b"),
        ] {
            assert_eq!(kind(value), Err(Code::Multipart), "{value}");
        }
    }

    #[test]
    fn parameters_of_fields_are_read() {
        let found = |value: &[u8]| parameters(value);
        let pair = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        assert_eq!(found(b"form-data"), Some(vec![]));
        assert_eq!(
            found(b"form-data; name=\"a;b\" ;FileName = \"\\\"\xff.jpg\";; x=y ; "),
            Some(vec![
                pair(b"name", b"a;b"),
                pair(b"filename", b"\"\xff.jpg"),
                pair(b"x", b"y")
            ])
        );
        for value in [&b"a; b"[..], b"a; b=\"c", b"a; b=\"c\\", b"a; b=\"c\"d"] {
            assert_eq!(found(value), None);
        }
    }
}
