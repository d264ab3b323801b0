//! The PROXY protocol, versions 1 and 2: a header that a load balancer writes in front of a connection's bytes, before TLS, to
//! say whom it connects.
//!
//! A listener that speaks it serves trusted peers alone, and each of their connections has to begin with the header: a receiver
//! that guesses lets clients say who they are (section 2 of the specification, haproxy's `proxy-protocol.txt`). Whoever else
//! connects there is closed without a word.
//!
//! What follows the header may be a TLS handshake, which reads from the socket itself. So never more is read than the header must
//! still have: at first the 15 bytes of the shortest one, then, of version 2, as many as it says, and of version 1, which
//! ends with its line, as many as the parts that are missing need at least.
//!
//! | header | the connection then comes from |
//! |---|---|
//! | `TCP4`, `TCP6`, stream over a Unix socket | the source that it names, and goes to its destination |
//! | `UNKNOWN`, `UNSPEC` | the load balancer: it does not know either |
//! | `LOCAL` | the load balancer: a health check |
//!
//! Of the extensions (TLV) only the checksum is looked at; the others are skipped.

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    task::{Context, Poll, ready},
};

use tokio::io::ReadBuf;

use crate::h1_io::{Shared, Socket};
use crate::os::path_of;
use crate::service::{Address, ConnectionInfo};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// `PROXY UNKNOWN` and the end of its line; version 2 has 16 bytes at least.
const BYTES_MIN: usize = 15;
/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
/// What precedes the addresses in version 2.
const FIXED_BYTES: usize = 16;
/// The longest header of version 2 that is taken. Addresses of Unix sockets are 216 bytes; extensions with names of TLS and of
/// clouds are some 100, a client certificate as extension some 1,000.
const HEADER_BYTES_MAX: usize = 4096;
/// Type of the extension with a checksum of the whole header.
const CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Source and destination.
    From(Address, Address),
    /// Nothing: addresses are those of the connection itself.
    Nothing,
}

/// How far a header is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// At least so many bytes more.
    Needs(usize),
    /// It is whole.
    Whole(Said),
    /// There is none, or it is malformed.
    Invalid,
}

/// Reads the header of a connection, and gives the connection's addresses by it. `None` when the connection is to be closed.
pub(crate) async fn read(
    socket: &mut Socket,
    mut info: ConnectionInfo,
    shared: &Shared,
) -> Option<ConnectionInfo> {
    let mut header = Vec::with_capacity(128);
    // Nothing is held yet that parking would give back.
    shared.parked.set(true);
    let said = poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.is_draining() || shared.is_cut() {
            return Poll::Ready(None);
        }
        poll_header(socket, cx, &mut header)
    })
    .await;
    shared.parked.set(false);
    info.is_proxied = true;
    if let Said::From(source, destination) = said? {
        info.peer = source;
        info.local = destination;
    }
    Some(info)
}

fn poll_header(
    socket: &mut Socket,
    cx: &mut Context<'_>,
    header: &mut Vec<u8>,
) -> Poll<Option<Said>> {
    let mut scratch = [0; 512];
    loop {
        let needed = match parse(header) {
            Parsed::Needs(bytes) => bytes.min(scratch.len()),
            Parsed::Whole(said) => return Poll::Ready(Some(said)),
            Parsed::Invalid => return Poll::Ready(None),
        };
        let mut buffer = ReadBuf::new(&mut scratch[..needed]);
        let read = ready!(socket.poll_read(cx, &mut buffer));
        if read.is_err() || buffer.filled().is_empty() {
            return Poll::Ready(None);
        }
        header.extend_from_slice(buffer.filled());
    }
}

/// Reads a header from all bytes that have come of it.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        if bytes.len() < FIXED_BYTES {
            // The first read fits the other version, too.
            let wanted = if bytes.is_empty() {
                BYTES_MIN
            } else {
                FIXED_BYTES
            };
            return Parsed::Needs(wanted - bytes.len());
        }
        return parse_binary(bytes);
    }
    parse_line(bytes)
}

// ------------------------------------------------------------------------------------------------
// Version 1.

fn parse_line(bytes: &[u8]) -> Parsed {
    const BEGIN: &[u8] = b"PROXY ";
    let common = bytes.len().min(BEGIN.len());
    if bytes[..common] != BEGIN[..common] {
        return Parsed::Invalid;
    }
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) if end + 1 == bytes.len() && end < LINE_BYTES_MAX => {
            match bytes[..end].strip_suffix(b"\r").and_then(line) {
                Some(said) => Parsed::Whole(said),
                None => Parsed::Invalid,
            }
        }
        Some(_) => Parsed::Invalid,
        None if bytes.len() >= LINE_BYTES_MAX => Parsed::Invalid,
        None => Parsed::Needs(missing(bytes)),
    }
}

/// What a line must have in addition at least.
fn missing(bytes: &[u8]) -> usize {
    if bytes.len() < BYTES_MIN {
        return BYTES_MIN - bytes.len();
    }
    if bytes.ends_with(b"\r") {
        return 1;
    }
    if !bytes.starts_with(b"PROXY TCP") {
        return 2;
    }
    // Each part that has not begun is a space and a digit at least.
    let spaces = bytes.split(|&byte| byte == b' ').count() - 1;
    let begun = usize::from(bytes.ends_with(b" "));
    2 + begun + 5_usize.saturating_sub(spaces) * 2
}

/// A line without its end.
fn line(line: &[u8]) -> Option<Said> {
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("PROXY ")?;
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        // Whatever follows is to be ignored.
        return Some(Said::Nothing);
    }
    let mut parts = rest.split(' ');
    let family = parts.next()?;
    let (source, destination) = (parts.next()?, parts.next()?);
    let (source_port, destination_port) = (port(parts.next()?)?, port(parts.next()?)?);
    if parts.next().is_some() {
        return None;
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => Some(text.parse::<Ipv4Addr>().ok()?.into()),
            "TCP6" => Some(text.parse::<Ipv6Addr>().ok()?.into()),
            _ => None,
        }
    };
    Some(Said::From(
        inet(address(source)?, source_port),
        inet(address(destination)?, destination_port),
    ))
}

fn port(text: &str) -> Option<u16> {
    let is_number =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_number)
}

fn inet(address: IpAddr, port: u16) -> Address {
    Address::Inet(SocketAddr::new(address.to_canonical(), port))
}

// ------------------------------------------------------------------------------------------------
// Version 2.

fn parse_binary(bytes: &[u8]) -> Parsed {
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let (version, command) = (bytes[12] >> 4, bytes[12] & 0x0f);
    if version != 2 || command > 1 || length > HEADER_BYTES_MAX || bytes.len() > length {
        return Parsed::Invalid;
    }
    if bytes.len() < length {
        return Parsed::Needs(length - bytes.len());
    }
    if command == 0 {
        // LOCAL: whatever else it says is to be ignored.
        return Parsed::Whole(Said::Nothing);
    }
    match binary(bytes, bytes[13]) {
        Some(said) => Parsed::Whole(said),
        None => Parsed::Invalid,
    }
}

/// A whole header of version 2, of a connection that is passed on.
fn binary(header: &[u8], family: u8) -> Option<Said> {
    let body = &header[FIXED_BYTES..];
    let (said, extensions) = match family {
        // AF_INET, STREAM
        0x11 => {
            let (address, rest) = body.split_at_checked(12)?;
            let ip = |at: usize| -> Option<[u8; 4]> { address.get(at..at + 4)?.try_into().ok() };
            let from = inet(IpAddr::from(ip(0)?), big_endian(address, 8)?);
            let to = inet(IpAddr::from(ip(4)?), big_endian(address, 10)?);
            (Said::From(from, to), rest)
        }
        // AF_INET6, STREAM
        0x21 => {
            let (address, rest) = body.split_at_checked(36)?;
            let ip = |at: usize| -> Option<[u8; 16]> { address.get(at..at + 16)?.try_into().ok() };
            let from = inet(IpAddr::from(ip(0)?), big_endian(address, 32)?);
            let to = inet(IpAddr::from(ip(16)?), big_endian(address, 34)?);
            (Said::From(from, to), rest)
        }
        // AF_UNIX, STREAM
        0x31 => {
            let (address, rest) = body.split_at_checked(216)?;
            (
                Said::From(unix(&address[..108]), unix(&address[108..])),
                rest,
            )
        }
        // UNSPEC: nobody knows what its addresses are like, so nobody finds its extensions either.
        0x00 => return Some(Said::Nothing),
        _ => return None,
    };
    check_extensions(header, extensions)?;
    Some(said)
}

fn big_endian(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A path that ends with a zero byte or fills its field; one of the abstract namespace begins with a zero byte and has no path.
fn unix(field: &[u8]) -> Address {
    let end = field.iter().position(|&byte| byte == 0);
    let path = &field[..end.unwrap_or(field.len())];
    let named = !path.is_empty();
    Address::Unix(named.then(|| path_of(path)))
}

/// Walks over the extensions; nothing when they do not fit, or the checksum is wrong.
fn check_extensions(header: &[u8], extensions: &[u8]) -> Option<()> {
    let mut rest = extensions;
    while !rest.is_empty() {
        let length = usize::from(big_endian(rest, 1)?);
        let (extension, next) = rest.split_at_checked(3 + length)?;
        if extension[0] == CRC32C {
            let value: [u8; 4] = extension[3..].try_into().ok()?;
            let at = header.len() - rest.len() + 3;
            // Computed with zeros where it is.
            let sum = crc32c(header[..at].iter().chain(&[0; 4]).chain(&header[at + 4..]));
            if sum != u32::from_be_bytes(value) {
                return None;
            }
        }
        rest = next;
    }
    Some(())
}

/// CRC-32C (RFC 9260, appendix A). Byte by byte from a table: a header has some hundred bytes, once per connection.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    static TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut sum = index as u32;
            let mut bit = 0;
            while bit < 8 {
                sum = (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
                bit += 1;
            }
            table[index] = sum;
            index += 1;
        }
        table
    };
    !bytes.fold(!0, |sum: u32, &byte| {
        (sum >> 8) ^ TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)]
    })
}

/// For fuzzing: a header means the same however it is cut, and is never read beyond its end.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(data: &[u8], piece: usize) {
    let mut header = Vec::new();
    let mut rest = data;
    let in_pieces = loop {
        match parse(&header) {
            Parsed::Needs(bytes) => {
                assert!(bytes > 0, "progress");
                assert!(bytes <= HEADER_BYTES_MAX);
                let taken = bytes.min(piece.max(1)).min(rest.len());
                if taken == 0 {
                    break Parsed::Needs(bytes);
                }
                header.extend_from_slice(&rest[..taken]);
                rest = &rest[taken..];
            }
            over => break over,
        }
    };
    match &in_pieces {
        Parsed::Whole(_) => assert_eq!(parse(&data[..header.len()]), in_pieces),
        Parsed::Invalid => assert_eq!(parse(&header), Parsed::Invalid),
        // With what it needs at least, it is not longer than that.
        Parsed::Needs(_) => assert_eq!(header.len(), data.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        CRC32C, HEADER_BYTES_MAX, LINE_BYTES_MAX, Parsed, SIGNATURE, Said, check, crc32c, inet,
        parse,
    };
    use crate::service::Address;

    fn from(source: &str, destination: &str) -> Parsed {
        let address = |text: &str| {
            let address: std::net::SocketAddr = text.parse().unwrap();
            inet(address.ip(), address.port())
        };
        Parsed::Whole(Said::From(address(source), address(destination)))
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    const INET: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];

    /// With its checksum, and something in front of it and behind.
    fn with_checksum() -> Vec<u8> {
        let mut body = INET.to_vec();
        body.extend([0x04, 0, 2, 1, 2, CRC32C, 0, 4, 0, 0, 0, 0, 0x20, 0, 1, 9]);
        let mut header = binary(1, 0x11, &body);
        let sum = crc32c(header.iter());
        let at = header.len() - 8;
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        header
    }

    #[test]
    fn lines_of_version_1() {
        for (line, expected) in [
            (
                "PROXY TCP4 192.0.2.7 10.0.0.1 12345 443",
                from("192.0.2.7:12345", "10.0.0.1:443"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 1 65535",
                from("[2001:db8::1]:1", "[::1]:65535"),
            ),
            (
                "PROXY TCP4 1.1.1.1 1.1.1.1 0 0",
                from("1.1.1.1:0", "1.1.1.1:0"),
            ),
            ("PROXY UNKNOWN", Parsed::Whole(Said::Nothing)),
            (
                "PROXY UNKNOWN ffff::1 whatever",
                Parsed::Whole(Said::Nothing),
            ),
            ("PROXY TCP4 ::1 ::1 1 1", Parsed::Invalid),
            ("PROXY TCP6 1.1.1.1 1.1.1.1 1 1", Parsed::Invalid),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1 65536", Parsed::Invalid),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 01 1", Parsed::Invalid),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 +1 1", Parsed::Invalid),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1", Parsed::Invalid),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 ", Parsed::Invalid),
            ("PROXY TCP4 1.1.1.1  1.1.1.1 1 1", Parsed::Invalid),
            ("PROXY UDP4 1.1.1.1 1.1.1.1 1 1", Parsed::Invalid),
            ("PROXY tcp4 1.1.1.1 1.1.1.1 1 1", Parsed::Invalid),
            ("GET / HTTP/1.1", Parsed::Invalid),
            ("PROXY  UNKNOWN", Parsed::Invalid),
        ] {
            assert_eq!(parse(format!("{line}\r\n").as_bytes()), expected, "{line}");
        }
        assert_eq!(
            parse(b"PROXY UNKNOWN  \n"),
            Parsed::Invalid,
            "a line ends with CRLF"
        );
    }

    #[test]
    fn headers_of_version_2() {
        assert_eq!(
            parse(&binary(1, 0x11, &INET)),
            from("192.0.2.7:12345", "10.0.0.1:443")
        );
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
        assert_eq!(parse(&binary(1, 0x21, &six)), from("[::1]:3", "[::2]:4"));
        let mut unix = [0; 216];
        unix[..4].copy_from_slice(b"/a/b");
        let expected = Said::From(Address::Unix(Some("/a/b".into())), Address::Unix(None));
        assert_eq!(parse(&binary(1, 0x31, &unix)), Parsed::Whole(expected));
        for header in [
            binary(0, 0x00, b""),
            binary(0, 0x11, &INET),
            binary(0, 0x12, b"anything"),
            binary(1, 0x00, b"anything"),
        ] {
            assert_eq!(parse(&header), Parsed::Whole(Said::Nothing));
        }
        for header in [
            binary(2, 0x11, &INET),
            binary(1, 0x12, &INET),
            binary(1, 0x41, &INET),
            binary(1, 0x11, &INET[..11]),
            binary(1, 0x21, &INET),
            // Extensions that do not fit.
            binary(1, 0x11, &[&INET[..], &[4]].concat()),
            binary(1, 0x11, &[&INET[..], &[4, 0, 1]].concat()),
            binary(1, 0x11, &[&INET[..], &[CRC32C, 0, 3, 0, 0, 0]].concat()),
        ] {
            assert_eq!(parse(&header), Parsed::Invalid, "{header:?}");
        }
        let mut version = binary(1, 0x11, &INET);
        version[12] = 0x31;
        assert_eq!(parse(&version), Parsed::Invalid);
    }

    #[test]
    fn checksum_is_checked_where_there_is_one() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c([0; 32].iter()), 0x8a91_36aa);
        let header = with_checksum();
        assert_eq!(parse(&header), from("192.0.2.7:12345", "10.0.0.1:443"));
        // Without its type it is no checksum any more.
        for at in (16..header.len()).filter(|at| at + 11 != header.len()) {
            let mut wrong = header.clone();
            wrong[at] ^= 1;
            assert_ne!(parse(&wrong), parse(&header), "byte {at}");
        }
    }

    #[test]
    fn headers_are_read_to_their_end_and_no_further_however_they_come() {
        for header in [
            b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(),
            b"PROXY TCP6 ::1 ::1 1 1\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN x\r\n".to_vec(),
            binary(0, 0, b""),
            binary(1, 0x11, &INET),
            with_checksum(),
        ] {
            for length in 0..header.len() {
                let Parsed::Needs(bytes) = parse(&header[..length]) else {
                    panic!("{length} bytes of {header:?} are whole");
                };
                assert!(
                    length + bytes <= header.len(),
                    "{length} bytes of {header:?}"
                );
            }
            assert!(matches!(parse(&header), Parsed::Whole(_)));
            let followed = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            for piece in 1..=header.len() {
                check(&followed, piece);
            }
        }
    }

    #[test]
    fn headers_have_a_size() {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(LINE_BYTES_MAX - 2, b'x');
        line.extend(b"\r\n");
        assert_eq!(parse(&line), Parsed::Whole(Said::Nothing));
        line.insert(20, b'x');
        assert_eq!(parse(&line[..LINE_BYTES_MAX]), Parsed::Invalid);
        let extension = |bytes: usize| {
            let mut body = INET.to_vec();
            body.push(4);
            body.extend(u16::try_from(bytes).unwrap().to_be_bytes());
            body.resize(body.len() + bytes, 0);
            binary(1, 0x11, &body)
        };
        let most = HEADER_BYTES_MAX - 16 - 12 - 3;
        assert!(matches!(parse(&extension(most)), Parsed::Whole(_)));
        assert_eq!(parse(&extension(most + 1)), Parsed::Invalid);
        assert_eq!(
            parse(&extension(most + 1)[..16]),
            Parsed::Invalid,
            "it says so at once"
        );
    }
}
