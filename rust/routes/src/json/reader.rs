//! The reader: RFC 8259 and nothing else.
//!
//! What other readers let pass is refused here, because two programs that read the same text differently are how requests are
//! smuggled past a check: names that are there twice, `NaN` and `Infinity`, numbers that no finite float is near, halves of
//! surrogate pairs, a byte order mark, anything behind the value. Depth, digits and bytes have limits; memory is bounded by
//! the text: a value takes at most 40 bytes for each of its own, and is never larger than the text by more than that factor.
//!
//! One pass over bytes that are known to be UTF-8. Recursion is bounded by the limit of depth.

use std::{borrow::Cow, fmt};

use super::{
    number::Number,
    value::{Object, Value},
};

/// What a text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole text. 4 MiB: such a text of `[1,1,1...]` becomes 80 MiB of values while it is read.
    pub bytes_max: usize,
    /// Lists and objects inside each other. 128: everything that walks a value, here and in Python, does it by recursion.
    pub depth_max: usize,
    /// Digits of an integer. 4300, as Python has it: turning digits into an integer takes quadratic time.
    pub digits_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 4 << 20,
            depth_max: 128,
            digits_max: 4300,
        }
    }
}

/// Why a text is no JSON that is taken here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Byte of the text, the first is 0.
    pub offset: usize,
    /// Line, the first is 1.
    pub line: usize,
    /// Character in the line, the first is 1.
    pub column: usize,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "`Display` says it")]
pub enum ErrorKind {
    BytesMax(usize),
    DepthMax(usize),
    DigitsMax(usize),
    NotUtf8,
    ByteOrderMark,
    EndOfText(&'static str),
    Expected(&'static str),
    NotFinite,
    TooLarge,
    LeadingZero,
    ControlCharacter,
    Escape,
    LoneSurrogate,
    NameTwice(String),
    Behind,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BytesMax(max) => write!(f, "the text is longer than {max} bytes"),
            Self::DepthMax(max) => write!(f, "lists and objects are nested deeper than {max}"),
            Self::DigitsMax(max) => write!(f, "the integer has more than {max} digits"),
            Self::NotUtf8 => f.write_str("the text is not UTF-8"),
            Self::ByteOrderMark => f.write_str("the text begins with a byte order mark"),
            Self::EndOfText(what) => write!(f, "the text ends where {what} is expected"),
            Self::Expected(what) => write!(f, "{what} is expected"),
            Self::NotFinite => f.write_str("JSON has neither NaN nor Infinity"),
            Self::TooLarge => f.write_str("the number is larger than any float"),
            Self::LeadingZero => f.write_str("a number has no zeros in front"),
            Self::ControlCharacter => {
                f.write_str("a control character in a string has to be escaped")
            }
            Self::Escape => f.write_str("this is no escape of JSON"),
            Self::LoneSurrogate => f.write_str("half of a surrogate pair is no character"),
            Self::NameTwice(name) => {
                let mut quoted = Vec::new();
                let cut: String = name.chars().take(64).collect();
                super::push_string(&cut, &mut quoted);
                let quoted = String::from_utf8_lossy(&quoted);
                write!(f, "the object has the name {quoted} twice")
            }
            Self::Behind => f.write_str("something follows the value"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (line {}, column {})",
            self.kind, self.line, self.column
        )
    }
}

impl std::error::Error for Error {}

/// Reads one value, which is the whole text.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn read(text: &[u8], limits: Limits) -> Result<Value<'_>, Error> {
    if text.len() > limits.bytes_max {
        return Err(error(
            text,
            limits.bytes_max,
            ErrorKind::BytesMax(limits.bytes_max),
        ));
    }
    let Ok(source) = simdutf8::basic::from_utf8(text) else {
        // Once more, for the place.
        let at =
            simdutf8::compat::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len);
        return Err(error(text, at, ErrorKind::NotUtf8));
    };
    let mut reader = Reader {
        source,
        bytes: text,
        at: 0,
        depth: 0,
        limits,
        names: Vec::new(),
    };
    reader
        .document()
        .map_err(|(kind, at)| error(text, at, kind))
}

/// Lines and columns are counted only when something is wrong.
fn error(text: &[u8], offset: usize, kind: ErrorKind) -> Error {
    let before = &text[..offset.min(text.len())];
    let line_from = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let is_first_of_character = |byte: &&u8| **byte & 0xC0 != 0x80;
    Error {
        kind,
        offset,
        line: 1 + before.split(|byte| *byte == b'\n').skip(1).count(),
        column: 1 + before[line_from..]
            .iter()
            .filter(is_first_of_character)
            .count(),
    }
}

type Failure = (ErrorKind, usize);

struct Reader<'a> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    limits: Limits,
    /// Where the names of the open objects begin, for one that is there twice.
    names: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Value<'a>, Failure> {
        if self.bytes.starts_with(b"\xEF\xBB\xBF") {
            return Err((ErrorKind::ByteOrderMark, 0));
        }
        self.skip_space();
        let value = self.value()?;
        self.skip_space();
        if self.at < self.bytes.len() {
            return Err((ErrorKind::Behind, self.at));
        }
        Ok(value)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn expected(&self, what: &'static str) -> Failure {
        let kind = match self.peek() {
            Some(_) => ErrorKind::Expected(what),
            None => ErrorKind::EndOfText(what),
        };
        (kind, self.at)
    }

    fn value(&mut self) -> Result<Value<'a>, Failure> {
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => Ok(Value::Number(self.number()?)),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'N' | b'I') => Err((ErrorKind::NotFinite, self.at)),
            _ => Err(self.expected("a value")),
        }
    }

    fn word(&mut self, word: &'static str, value: Value<'a>) -> Result<Value<'a>, Failure> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err((ErrorKind::Expected("a value"), self.at))
        }
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value<'a>, Failure>,
    ) -> Result<Value<'a>, Failure> {
        if self.depth == self.limits.depth_max {
            return Err((ErrorKind::DepthMax(self.limits.depth_max), self.at));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_space();
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn array(&mut self) -> Result<Value<'a>, Failure> {
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.expected("`,` or `]`")),
            }
            self.skip_space();
        }
    }

    fn object(&mut self) -> Result<Value<'a>, Failure> {
        let mut members = Vec::new();
        let names_before = self.names.len();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(Object::default()));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.expected("a name in quotes"));
            }
            self.names.push(self.at);
            let name = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.expected("`:`"));
            }
            self.at += 1;
            self.skip_space();
            let value = self.value()?;
            members.push((name, value));
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    break;
                }
                _ => return Err(self.expected("`,` or `}`")),
            }
            self.skip_space();
        }
        let object = Object::new(members).map_err(|position| {
            let from = self.names[names_before + position];
            self.at = from;
            let name = self.string().map(Cow::into_owned).unwrap_or_default();
            (ErrorKind::NameTwice(name), from)
        })?;
        self.names.truncate(names_before);
        Ok(Value::Object(object))
    }

    fn digits(&mut self) -> Result<usize, Failure> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == from {
            return Err(self.expected("a digit"));
        }
        Ok(self.at - from)
    }

    fn number(&mut self) -> Result<Number<'a>, Failure> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
            if self.peek() == Some(b'I') {
                return Err((ErrorKind::NotFinite, from));
            }
        }
        let begins_with_zero = self.peek() == Some(b'0');
        let digits = self.digits()?;
        if begins_with_zero && digits > 1 {
            return Err((ErrorKind::LeadingZero, from));
        }
        let mut is_integer = true;
        if self.peek() == Some(b'.') {
            is_integer = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            is_integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        // Of floats too: whoever compares them exactly, or makes a Decimal, handles every digit.
        if self.at - from > self.limits.digits_max + 1 || digits > self.limits.digits_max {
            return Err((ErrorKind::DigitsMax(self.limits.digits_max), from));
        }
        Number::parse(&self.source[from..self.at], is_integer).ok_or((ErrorKind::TooLarge, from))
    }

    /// From its quote to behind its other quote.
    fn string(&mut self) -> Result<Cow<'a, str>, Failure> {
        self.at += 1;
        let from = self.at;
        self.skip_plain();
        if self.peek() == Some(b'"') {
            let text = &self.source[from..self.at];
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut text = String::from(&self.source[from..self.at]);
        loop {
            match self.peek() {
                None => return Err(self.expected("the end of a string")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err((ErrorKind::ControlCharacter, self.at)),
            }
            let from = self.at;
            self.skip_plain();
            text.push_str(&self.source[from..self.at]);
        }
    }

    /// To the next quote, backslash or control character, eight bytes at a time.
    fn skip_plain(&mut self) {
        const LOW: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = 0x8080_8080_8080_8080;
        // The high bit of each byte that is zero, and perhaps of those above it: enough to know that there is one.
        let zeros = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
        while let Some(eight) = self.bytes[self.at..].first_chunk() {
            let word = u64::from_le_bytes(*eight);
            let controls = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
            let quotes = zeros(word ^ (LOW * u64::from(b'"')));
            let backslashes = zeros(word ^ (LOW * u64::from(b'\\')));
            let found = controls | quotes | backslashes;
            if found != 0 {
                // The lowest is right: a borrow only reaches bytes above it.
                self.at += found.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while let Some(byte) = self.peek() {
            if byte < 0x20 || byte == b'"' || byte == b'\\' {
                return;
            }
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<char, Failure> {
        let from = self.at;
        self.at += 1;
        let Some(kind) = self.peek() else {
            return Err(self.expected("the rest of an escape"));
        };
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit(from)?;
                let code = match unit {
                    0xD800..0xDC00 => {
                        if !self.bytes[self.at..].starts_with(b"\\u") {
                            return Err((ErrorKind::LoneSurrogate, from));
                        }
                        self.at += 2;
                        let low = self.unit(from)?;
                        if !(0xDC00..0xE000).contains(&low) {
                            return Err((ErrorKind::LoneSurrogate, from));
                        }
                        0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                    _ => unit,
                };
                // What is left of the surrogates are second halves.
                char::from_u32(code).ok_or((ErrorKind::LoneSurrogate, from))?
            }
            _ => return Err((ErrorKind::Escape, from)),
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self, from: usize) -> Result<u32, Failure> {
        let mut unit = 0;
        for _ in 0..4 {
            let Some(byte) = self.peek() else {
                return Err(self.expected("the rest of an escape"));
            };
            let digit = char::from(byte).to_digit(16);
            unit = unit * 16 + digit.ok_or((ErrorKind::Escape, from))?;
            self.at += 1;
        }
        Ok(unit)
    }
}
