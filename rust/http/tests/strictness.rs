//! What is not exactly one valid request is refused, and nothing behind it is served.
//!
//! Each vector is sent with a second request behind it. `Served` vectors get 200 for both; refused ones get their status, with a
//! close, or (where hyper cannot answer any more) a close alone; the request behind is never seen by the handler.
use crate::common;

use std::{cell::RefCell, rc::Rc};

use common::{TestServer, collect, ok, run};
use framegate_http::{Config, Limits, Protocol, service::ResponseFuture};
use http::{StatusCode, header::CONNECTION};

/// What becomes of a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// Answered 200 with this body (what the handler read), and so is the request behind it.
    Served(&'static str),
    /// Answered 200, then the connection is closed.
    Last(&'static str),
    /// Answered with this status, then closed.
    Refused(u16),
}
use Verdict::{Last, Refused, Served};

const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: t\r\n\r\n";

/// Head with a valid Host; the argument is what follows it, with the blank line.
macro_rules! get {
    ($rest:literal) => {
        concat!("GET / HTTP/1.1\r\nHost: t\r\n", $rest)
    };
}
macro_rules! post {
    ($rest:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: t\r\n", $rest)
    };
}
macro_rules! chunked {
    ($rest:literal) => {
        concat!(
            "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n",
            $rest
        )
    };
}

#[rustfmt::skip]
const VECTORS: &[(&str, &str, Verdict)] = &[
    // Plain requests: the table must be able to say yes.
    ("get", get!("\r\n"), Served("")),
    ("lower-case names", "GET / HTTP/1.1\r\nhost: t\r\n\r\n", Served("")),
    ("length", post!("Content-Length: 3\r\n\r\nabc"), Served("abc")),
    ("length zero", post!("Content-Length: 0\r\n\r\n"), Served("")),
    ("length with leading zeros", post!("Content-Length: 003\r\n\r\nabc"), Served("abc")),
    ("length with outer space", post!("Content-Length: \t 3 \t\r\n\r\nabc"), Served("abc")),
    ("chunks", chunked!("3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"), Served("abcd")),
    ("chunked in capitals", post!("TRANSFER-ENCODING: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n"), Served("a")),
    ("chunk sizes in both cases", chunked!("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), Served("01234567890123456789")),
    ("chunk size with zeros", chunked!("0003\r\nabc\r\n000\r\n\r\n"), Served("abc")),
    ("chunk extension", chunked!("3;a=b\r\nabc\r\n0;c\r\n\r\n"), Served("abc")),
    ("chunk extension, quoted", chunked!("3;a=\"b\"\r\nabc\r\n0\r\n\r\n"), Served("abc")),
    ("trailers", chunked!("1\r\na\r\n0\r\nX: y\r\n\r\n"), Served("a")),
    ("body that looks like a request", post!("Content-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Served("GET / HTTP/1.1\r\n\r\n")),
    ("blank line before", "\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("unknown method", "BREW / HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("method in lower case", "get / HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("empty value", get!("X:\r\n\r\n"), Served("")),
    ("value with tab", get!("X: a\tb\r\n\r\n"), Served("")),
    ("value of latin-1", get!("X: \u{e4}\r\n\r\n"), Served("")),
    ("all characters of a name", get!("!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n"), Served("")),
    ("query", "GET /?a=b&c HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("fragment", "GET /a#b HTTP/1.1\r\nHost: t\r\n\r\n", Served("")), // dropped by hyper
    ("double slash", "GET //a HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("percent", "GET /%2F%00 HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("URL as target", "GET http://t/a HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("URL without path", "GET http://t HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("URL with port", "GET https://t:1/a?b HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("options star", "OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n", Served("")),
    ("1.0 without host", "GET / HTTP/1.0\r\n\r\n", Last("")),
    ("1.0 kept alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Served("")),
    ("close", get!("Connection: close\r\n\r\n"), Last("")),
    ("close in a list", get!("Connection: x, close\r\n\r\n"), Last("")),
    ("close is not undone", get!("Connection: close\r\nConnection: keep-alive\r\n\r\n"), Last("")),
    ("close in capitals", get!("Connection: CLOSE\r\n\r\n"), Last("")),
    ("close between others", get!("Connection: keep-alive , close,x\r\n\r\n"), Last("")),
    ("close in the second field", get!("Connection: x\r\nConnection: close\r\n\r\n"), Last("")),
    ("words that contain close", get!("Connection: closed, unclose\r\n\r\n"), Served("")),
    ("1.0 with close beside keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", Last("")),
    ("connection that names framing", post!("Connection: content-length, host\r\nContent-Length: 3\r\n\r\nabc"), Served("abc")),
    ("get with a body", get!("Content-Length: 38\r\n\r\nGET /hidden HTTP/1.1\r\nHost: hidden\r\n\r\n"), Served("GET /hidden HTTP/1.1\r\nHost: hidden\r\n\r\n")),
    ("length with underscore in its name", post!("Content_Length: 3\r\n\r\n"), Served("")),
    ("trailers that name framing", chunked!("1\r\na\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: x\r\nHost: u\r\n\r\n"), Served("a")),
    // Host.
    ("no host", "GET / HTTP/1.1\r\n\r\n", Refused(400)),
    ("two hosts", "GET / HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n", Refused(400)),
    ("two different hosts", "GET / HTTP/1.1\r\nHost: t\r\nX: y\r\nhost: u\r\n\r\n", Refused(400)),
    ("two hosts in 1.0", "GET / HTTP/1.0\r\nHost: t\r\nHost: u\r\n\r\n", Refused(400)),
    ("host list", "GET / HTTP/1.1\r\nHost: t, u\r\n\r\n", Refused(400)),
    ("host with space", "GET / HTTP/1.1\r\nHost: t u\r\n\r\n", Refused(400)),
    ("host with slash", "GET / HTTP/1.1\r\nHost: t/u\r\n\r\n", Refused(400)),
    ("host with user", "GET / HTTP/1.1\r\nHost: u@t\r\n\r\n", Refused(400)),
    ("host with bad port", "GET / HTTP/1.1\r\nHost: t:x\r\n\r\n", Refused(400)),
    ("host with long port", "GET / HTTP/1.1\r\nHost: t:123456\r\n\r\n", Refused(400)),
    ("host with two ports", "GET / HTTP/1.1\r\nHost: t:1:2\r\n\r\n", Refused(400)),
    ("host is a URL", "GET / HTTP/1.1\r\nHost: http://t\r\n\r\n", Refused(400)),
    ("host bracket open", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(400)),
    ("host bracket garbage", "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", Refused(400)),
    ("host of latin-1", "GET / HTTP/1.1\r\nHost: \u{e4}\r\n\r\n", Refused(400)),
    ("bad host in 1.0", "GET / HTTP/1.0\r\nHost: a b\r\n\r\n", Refused(400)),
    ("host empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", Served("")),
    ("host of IPv6", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Served("")),
    ("space before colon of host", "GET / HTTP/1.1\r\nHost : t\r\n\r\n", Refused(400)),
    // Length and coding together: the ways to smuggle.
    ("length, then chunked", post!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("chunked, then length", post!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("chunked, then length zero", post!("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("chunked, then bad length", post!("Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("length, then chunked, odd cases", post!("content-LENGTH: 5\r\ntransfer-ENCODING: cHuNkEd\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("length far before chunked", post!("Content-Length: 5\r\nA: b\r\nC: d\r\nE: f\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("get with both", get!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("chunked in 1.0", "POST / HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    // Transfer codings other than one `chunked`.
    ("chunked twice", post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("chunked twice in a list", post!("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("gzip", post!("Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("gzip, chunked", post!("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("chunked, gzip", post!("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("gzip and chunked in two fields", post!("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("chunked and identity in two fields", post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("identity", post!("Transfer-Encoding: identity\r\n\r\n"), Refused(400)),
    ("empty coding", post!("Transfer-Encoding:\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("xchunked", post!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("chunked with parameter", post!("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("chunked with comma", post!("Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("comma, chunked", post!("Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("quoted chunked", post!("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("vertical tab before chunked", post!("Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("space before colon of coding", post!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("coding with NUL", post!("Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("vertical tab behind chunked", post!("Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("coding with tab in its name", post!("Transfer\tEncoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("coding behind a bare CR", post!("X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("coding behind a bare LF", post!("X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("coding before a space line", post!(" \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("both, with expect", post!("Expect: 100-continue\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    ("folded coding", post!("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), Refused(400)),
    // Lengths.
    ("length twice, equal", post!("Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"), Refused(400)),
    ("length twice, different", post!("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"), Refused(400)),
    ("length list, equal", post!("Content-Length: 3, 3\r\n\r\nabc"), Refused(400)),
    ("length list, different", post!("Content-Length: 3, 4\r\n\r\nabc"), Refused(400)),
    ("length negative", post!("Content-Length: -3\r\n\r\nabc"), Refused(400)),
    ("length with plus", post!("Content-Length: +3\r\n\r\nabc"), Refused(400)),
    ("length in hex", post!("Content-Length: 0x3\r\n\r\nabc"), Refused(400)),
    ("length with fraction", post!("Content-Length: 3.0\r\n\r\nabc"), Refused(400)),
    ("length with inner space", post!("Content-Length: 1 1\r\n\r\nabc"), Refused(400)),
    ("length of letters", post!("Content-Length: abc\r\n\r\nabc"), Refused(400)),
    ("length empty", post!("Content-Length:\r\n\r\n"), Refused(400)),
    ("length over 64 bits", post!("Content-Length: 18446744073709551616\r\n\r\n"), Refused(400)),
    ("length of 64 bits", post!("Content-Length: 18446744073709551615\r\n\r\n"), Refused(431)), // hyper's number for "too large"
    ("length quoted", post!("Content-Length: \"3\"\r\n\r\nabc"), Refused(400)),
    ("length with underscore", post!("Content-Length: 1_0\r\n\r\nabc"), Refused(400)),
    ("space before colon of length", post!("Content-Length : 3\r\n\r\nabc"), Refused(400)),
    // Chunks. The handler has begun by then; it sees the error.
    ("chunk size empty", chunked!("\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk size negative", chunked!("-3\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk size with 0x", chunked!("0x3\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk size with plus", chunked!("+3\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk size of letters", chunked!("xyz\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk size with underscore", chunked!("1_0\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk size before space", chunked!(" 3\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk size over 64 bits", chunked!("10000000000000003\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk size with bare LF", chunked!("3\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk size with bare CR", chunked!("3\rabc\r\n0\r\n\r\n"), Refused(400)),
    ("chunk longer than its size", chunked!("3\r\nabcd\r\n0\r\n\r\n"), Refused(400)),
    ("chunk without CRLF", chunked!("3\r\nabc0\r\n\r\n"), Refused(400)),
    ("chunk ended by LF", chunked!("3\r\nabc\n0\r\n\r\n"), Refused(400)),
    ("chunk ended by CR", chunked!("3\r\nabc\r0\r\n\r\n"), Refused(400)),
    ("chunk extension with bare CR", chunked!("3;a\rb\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("last chunk with bare CR", chunked!("3\r\nabc\r\n0\r\r\n\r\n"), Refused(400)),
    ("chunk extension with bare LF", chunked!("3;a\nabc\r\n0\r\n\r\n"), Refused(400)),
    ("last chunk ended by LF", chunked!("3\r\nabc\r\n0\n\r\n"), Refused(400)),
    ("trailers ended by LF", chunked!("3\r\nabc\r\n0\r\nX: y\n\n"), Refused(400)),
    ("trailer without colon", chunked!("3\r\nabc\r\n0\r\nXy\r\n\r\n"), Refused(400)),
    ("trailer with space in name", chunked!("3\r\nabc\r\n0\r\nX y: z\r\n\r\n"), Refused(400)),
    // Request line.
    ("no target", "GET HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("no version", "GET /\r\nHost: t\r\n\r\n", Refused(400)),
    ("empty method", " / HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("method with NUL", "G\0T / HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("method with colon", "G:T / HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("method with bracket", "G(T / HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("two spaces before version", "GET /  HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("tab in request line", "GET\t/ HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("space in target", "GET /a b HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("space after version", "GET / HTTP/1.1 \r\nHost: t\r\n\r\n", Refused(400)),
    ("space before line", " GET / HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("NUL in target", "GET /\0 HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("DEL in target", "GET /\x7f HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("bare CR in request line", "GET / HTTP/1.1\rHost: t\r\n\r\n", Refused(400)),
    ("TLS hello", "\x16\x03\x01\x02\0\x01\0\x01", Refused(400)),
    // Versions.
    ("version 2.0", "GET / HTTP/2.0\r\nHost: t\r\n\r\n", Refused(400)),
    ("version 1.2", "GET / HTTP/1.2\r\nHost: t\r\n\r\n", Refused(400)),
    ("version 0.9", "GET / HTTP/0.9\r\nHost: t\r\n\r\n", Refused(400)),
    ("version 1.10", "GET / HTTP/1.10\r\nHost: t\r\n\r\n", Refused(400)),
    ("version 1.", "GET / HTTP/1.\r\nHost: t\r\n\r\n", Refused(400)),
    ("version 11", "GET / HTTP/11\r\nHost: t\r\n\r\n", Refused(400)),
    ("version in lower case", "GET / http/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("other protocol", "GET / ICY/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("version with comma", "GET / HTTP/1,1\r\nHost: t\r\n\r\n", Refused(400)),
    // Targets.
    ("target without slash", "GET a HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("target is a host", "GET t:80 HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("target is a query", "GET ?a HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("star for get", "GET * HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("star and more", "OPTIONS *a HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("connect", "CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n", Refused(501)),
    ("connect with path", "CONNECT / HTTP/1.1\r\nHost: t\r\n\r\n", Refused(501)),
    ("ftp URL", "GET ftp://t/ HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("file URL", "GET file:///etc HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("URL without host", "GET http:///a HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("URL with user", "GET http://u@t/ HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    ("URL with bad port", "GET http://t:x/ HTTP/1.1\r\nHost: t\r\n\r\n", Refused(400)),
    // Fields.
    ("field without colon", get!("X\r\n\r\n"), Refused(400)),
    ("field without name", get!(": x\r\n\r\n"), Refused(400)),
    ("space in name", get!("X y: z\r\n\r\n"), Refused(400)),
    ("space before colon", get!("X : y\r\n\r\n"), Refused(400)),
    ("tab before colon", get!("X\t: y\r\n\r\n"), Refused(400)),
    ("folded value", get!("X: y\r\n z\r\n\r\n"), Refused(400)),
    ("folded by tab", get!("X: y\r\n\tz\r\n\r\n"), Refused(400)),
    ("space before first field", "GET / HTTP/1.1\r\n Host: t\r\n\r\n", Refused(400)),
    ("NUL in name", get!("X\0: y\r\n\r\n"), Refused(400)),
    ("NUL in value", get!("X: \0\r\n\r\n"), Refused(400)),
    ("control character in value", get!("X: \x01\r\n\r\n"), Refused(400)),
    ("DEL in value", get!("X: \x7f\r\n\r\n"), Refused(400)),
    ("bare CR in value", get!("X: a\rb\r\n\r\n"), Refused(400)),
    ("latin-1 in name", get!("\u{e4}: y\r\n\r\n"), Refused(400)),
    ("bracket in name", get!("X(: y\r\n\r\n"), Refused(400)),
    ("quote in name", get!("\"X\": y\r\n\r\n"), Refused(400)),
    ("slash in name", get!("X/Y: z\r\n\r\n"), Refused(400)),
    ("bare LF in the head", "GET / HTTP/1.1\nHost: t\n\n", Refused(400)),
    ("bare LF after the request line", "GET / HTTP/1.1\nHost: t\r\n\r\n", Refused(400)),
    ("bare LF after a field", "GET / HTTP/1.1\r\nHost: t\nX: y\r\n\r\n", Refused(400)),
    ("bare LF at the end", "GET / HTTP/1.1\r\nHost: t\r\n\n", Refused(400)),
];

async fn answer(request: framegate_http::service::Request) -> framegate_http::service::Response {
    let mut body = request.body;
    match collect(&mut body).await {
        Ok(bytes) => ok(bytes::Bytes::from(bytes)),
        Err(error) => {
            assert!(error.is_malformed() || error.is_too_large(), "{error:?}");
            let mut response = ok("bad body");
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
                .headers_mut()
                .insert(CONNECTION, "close".parse().unwrap());
            response
        }
    }
}

/// Runs one vector; returns what differs from the verdict.
async fn judge(
    bytes: &[u8],
    verdict: Verdict,
    seen: &RefCell<Vec<String>>,
    server: &TestServer,
) -> Result<(), String> {
    seen.borrow_mut().clear();
    let mut client = server.connect().await;
    let mut all = bytes.to_vec();
    all.extend_from_slice(BEHIND.as_bytes());
    client.send(&all).await;
    let first = client.reply().await;
    let behind_seen = || seen.borrow().iter().any(|target| target == "/behind");
    let (status, body) = match &first {
        Some(reply) => (
            reply.status,
            String::from_utf8_lossy(&reply.body).into_owned(),
        ),
        None => return Err(format!("no response (seen {:?})", seen.borrow())),
    };
    match verdict {
        Served(expected) => {
            if (status, body.as_str()) != (200, expected) {
                return Err(format!("{status} {body:?}"));
            }
            let second = client
                .reply()
                .await
                .ok_or("the request behind it got no response")?;
            (second.status == 200 && behind_seen())
                .then_some(())
                .ok_or_else(|| format!("behind: {}", second.status))
        }
        Last(_) | Refused(_) => {
            let expected = if let Refused(status) = verdict {
                status
            } else {
                200
            };
            if status != expected {
                return Err(format!("{status} {body:?}"));
            }
            let reply = first.unwrap();
            if reply.version == "HTTP/1.1" && reply.field("connection") != Some("close") {
                return Err("no `connection: close`".into());
            }
            if !client.is_closed().await {
                return Err("more was answered".into());
            }
            if behind_seen() {
                Err("the request behind was served".into())
            } else {
                Ok(())
            }
        }
    }
}

fn judge_all(in_pieces: bool) {
    run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let server = {
            let seen = seen.clone();
            TestServer::new(move |request| {
                seen.borrow_mut().push(request.head.uri.to_string());
                ResponseFuture::later(answer(request))
            })
        };
        let mut wrong = Vec::new();
        for (name, text, verdict) in VECTORS {
            // The vectors are text of latin-1.
            let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
            let result = if in_pieces {
                judge_in_pieces(&bytes, *verdict, &server).await
            } else {
                judge(&bytes, *verdict, &seen, &server).await
            };
            if let Err(reason) = result {
                wrong.push(format!("{name}: wanted {verdict:?}, got {reason}"));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} of {} wrong\n{}",
            wrong.len(),
            VECTORS.len(),
            wrong.join("\n")
        );
        assert!(VECTORS.len() >= 100);
    });
}

/// The same bytes, one at a time, get the same status.
async fn judge_in_pieces(
    bytes: &[u8],
    verdict: Verdict,
    server: &TestServer,
) -> Result<(), String> {
    use tokio::io::AsyncWriteExt;
    let mut client = server.connect().await;
    client.stream.set_nodelay(true).unwrap();
    for byte in bytes.iter().chain(b"\r\n\r\n") {
        // The server may have answered and closed already.
        let _ = client.stream.write_all(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    let status = client.reply().await.map(|reply| reply.status);
    let expected = match verdict {
        Served(_) | Last(_) => 200,
        Refused(status) => status,
    };
    if status == Some(expected) {
        Ok(())
    } else {
        Err(format!("{status:?}"))
    }
}

#[test]
fn table_of_vectors() {
    judge_all(false);
}

#[test]
fn table_of_vectors_byte_by_byte() {
    judge_all(true);
}

fn limited(limits: Limits) -> TestServer {
    TestServer::with(
        Config {
            limits,
            ..Config::default()
        },
        common::hello,
    )
}

async fn status_of(server: &TestServer, request: String) -> u16 {
    let mut client = server.connect().await;
    client.send(request).await;
    client.reply().await.expect("a response").status
}

#[test]
fn preface_of_http_2_is_a_close_where_only_http_1_is_spoken() {
    run(async {
        let config = Config {
            protocol: Protocol::Http1,
            ..Config::default()
        };
        let server = TestServer::with(config, common::hello);
        let mut client = server.connect().await;
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.rest().await;
        drop(client);
        server.connections_become(0).await;
        assert_eq!(server.connections.requests(), 0);
    });
}

#[test]
fn head_over_its_bytes_is_431() {
    run(async {
        let server = limited(Limits {
            head_bytes_max: 1000,
            ..Limits::default()
        });
        let head = |bytes: usize| {
            let frame = "GET / HTTP/1.1\r\nhost: t\r\nx: \r\n\r\n";
            let value = "y".repeat(bytes - frame.len());
            format!("GET / HTTP/1.1\r\nhost: t\r\nx: {value}\r\n\r\n")
        };
        assert_eq!(status_of(&server, head(1000)).await, 200);
        assert_eq!(status_of(&server, head(1001)).await, 431);
        let default = limited(Limits::default());
        assert_eq!(status_of(&default, head(64 * 1024)).await, 200);
        assert_eq!(status_of(&default, head(64 * 1024 + 1)).await, 431);
        assert_eq!(status_of(&default, head(1024 * 1024)).await, 431);
    });
}

#[test]
fn header_count_over_its_limit_is_431() {
    run(async {
        let head = |fields: usize| {
            format!(
                "GET / HTTP/1.1\r\nhost: t\r\n{}\r\n",
                "x: y\r\n".repeat(fields - 1)
            )
        };
        for limit in [10, 100, 200] {
            let server = limited(Limits {
                header_count_max: limit,
                ..Limits::default()
            });
            assert_eq!(status_of(&server, head(limit)).await, 200, "{limit}");
            assert_eq!(status_of(&server, head(limit + 1)).await, 431, "{limit}");
        }
    });
}

#[test]
fn target_over_its_bytes_is_414() {
    run(async {
        let server = limited(Limits::default());
        let head =
            |bytes: usize| format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(bytes - 1));
        assert_eq!(status_of(&server, head(16 * 1024)).await, 200);
        assert_eq!(status_of(&server, head(16 * 1024 + 1)).await, 414);
    });
}

#[test]
fn trailers_over_the_head_limit_are_refused() {
    run(async {
        let server = TestServer::new(|request| ResponseFuture::later(answer(request)));
        let body = |value: usize| {
            format!(
                "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: {}\r\n\r\n",
                "y".repeat(value)
            )
        };
        assert_eq!(status_of(&server, body(1000)).await, 200);
        assert_eq!(status_of(&server, body(100_000)).await, 400);
    });
}

#[test]
fn url_as_target_gives_its_path_and_its_host() {
    run(async {
        let server = TestServer::new(|request| {
            let host = request.head.headers["host"].to_str().unwrap();
            let hosts = request.head.headers.get_all("host").iter().count();
            ok(bytes::Bytes::from(format!(
                "{} {host} {hosts}",
                request.head.uri
            )))
            .into()
        });
        let mut client = server.connect().await;
        for (target, seen) in [
            ("http://u:81/a/b?c", "/a/b?c u:81 1"),
            ("http://u", "/ u 1"),
            ("https://u/?x", "/?x u 1"),
            ("http://u?x", "/?x u 1"),
            ("/p", "/p t 1"),
        ] {
            assert_eq!(client.get(target).await.text(), seen, "{target}");
        }
    });
}
