//! One line for one request: text in the manner of uvicorn, or a JSON object.
//!
//! ```text
//! 2026-11-20T19:03:02.417Z 127.0.0.1:53124 "GET /items?q=1 HTTP/1.1" 200 13 0.410ms
//! {"time":"2026-11-20T19:03:02.417Z","level":"info","logger":"framegate.access","client":"127.0.0.1:53124","method":"GET",
//!  "target":"/items?q=1","protocol":"HTTP/1.1","status":200,"body_bytes":13,"milliseconds":0.410,"aborted":false}
//! ```
//! (the object is one line). What a client can choose (method, target) is escaped, so that one request is one line and a
//! terminal is not driven by it.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use http::{Version, uri::PathAndQuery};

use crate::record::RequestRecord;

/// How the lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// Appends the line for `record`, with its newline, to `line`.
    pub fn write_line(self, record: &RequestRecord, line: &mut Vec<u8>) {
        match self {
            Self::Text => write_line(record, line),
            Self::Json => write_json_line(record, line),
        }
    }
}

/// Appends the line for `record` as a JSON object, with its newline, to `line`. `status` is null when no response was made.
pub fn write_json_line(record: &RequestRecord, line: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = try_write_json(record, line);
}

fn try_write_json(record: &RequestRecord, line: &mut Vec<u8>) -> io::Result<()> {
    line.extend_from_slice(b"{\"time\":\"");
    write_time(record.started_at, line)?;
    line.extend_from_slice(b"\",\"level\":\"info\",\"logger\":\"framegate.access\",\"client\":\"");
    escape_json(&record.client().to_string(), line)?;
    line.extend_from_slice(b"\",\"method\":\"");
    escape_json(record.method.as_str(), line)?;
    line.extend_from_slice(b"\",\"target\":\"");
    escape_json(
        record
            .target
            .path_and_query()
            .map_or("", PathAndQuery::as_str),
        line,
    )?;
    write!(
        line,
        "\",\"protocol\":\"{}\",\"status\":",
        version(record.version)
    )?;
    match record.status {
        Some(status) => write!(line, "{}", status.as_u16())?,
        None => line.extend_from_slice(b"null"),
    }
    let micros = record.end_ns.saturating_sub(record.start_ns) / 1000;
    writeln!(
        line,
        ",\"body_bytes\":{},\"milliseconds\":{}.{:03},\"aborted\":{}}}",
        record.body_bytes_out,
        micros / 1000,
        micros % 1000,
        record.aborted
    )
}

/// The content of a JSON string (RFC 8259 section 7). DEL too is escaped, for terminals.
fn escape_json(text: &str, line: &mut Vec<u8>) -> io::Result<()> {
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(line, "\\{character}")?,
            '\0'..='\x1f' | '\x7f' => write!(line, "\\u{:04x}", u32::from(character))?,
            _ => write!(line, "{character}")?,
        }
    }
    Ok(())
}

/// Appends the line for `record`, with its newline, to `line`: when, who, what, status, bytes of the response's body, time.
/// `-` stands for a response that was not made, and `aborted` follows when it did not reach its end.
pub fn write_line(record: &RequestRecord, line: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = try_write(record, line);
}

fn try_write(record: &RequestRecord, line: &mut Vec<u8>) -> io::Result<()> {
    write_time(record.started_at, line)?;
    write!(line, " {} \"", record.client())?;
    escape(record.method.as_str(), line)?;
    line.push(b' ');
    escape(
        record
            .target
            .path_and_query()
            .map_or("", PathAndQuery::as_str),
        line,
    )?;
    write!(line, " {}\" ", version(record.version))?;
    match record.status {
        Some(status) => write!(line, "{}", status.as_u16())?,
        None => line.push(b'-'),
    }
    let micros = record.end_ns.saturating_sub(record.start_ns) / 1000;
    write!(
        line,
        " {} {}.{:03}ms",
        record.body_bytes_out,
        micros / 1000,
        micros % 1000
    )?;
    line.extend_from_slice(if record.aborted { b" aborted\n" } else { b"\n" });
    Ok(())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Control characters, quotes, backslashes and everything that is not ASCII as `\x..`.
fn escape(text: &str, line: &mut Vec<u8>) -> io::Result<()> {
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\' {
            line.push(byte);
        } else {
            write!(line, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// RFC 3339 in UTC with milliseconds.
fn write_time(time: SystemTime, line: &mut Vec<u8>) -> io::Result<()> {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    let second = since.as_secs() % 86_400;
    write!(
        line,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// Year, month and day of a number of days since 1970. Years are counted from March, so that the leap day is the last of its
/// year (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        rc::Rc,
        time::{Duration, SystemTime},
    };

    use http::{Method, StatusCode, Version};

    use super::{civil, escape, escape_json, write_json_line, write_line};
    use crate::record::RequestRecord;
    use crate::service::{Address, ConnectionInfo};

    fn record() -> RequestRecord {
        let peer = Address::Inet(SocketAddr::from(([127, 0, 0, 1], 53124)));
        let connection = ConnectionInfo {
            peer: peer.clone(),
            local: peer,
            entry: crate::service::Entry::Plain,
            tls: None,
        };
        RequestRecord {
            connection: Rc::new(connection),
            client: crate::edge::Client::Peer,
            request_id: None,
            method: Method::GET,
            target: "/items?q=1".parse().unwrap(),
            version: Version::HTTP_11,
            status: Some(StatusCode::OK),
            start_ns: 1_000_000,
            first_byte_ns: None,
            end_ns: 1_410_000,
            started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_201_382_417),
            body_bytes_in: 0,
            body_bytes_out: 13,
            aborted: false,
        }
    }

    #[test]
    fn json_line_has_all_parts() {
        let cut = RequestRecord {
            status: None,
            aborted: true,
            ..record()
        };
        let mut line = Vec::new();
        write_json_line(&record(), &mut line);
        write_json_line(&cut, &mut line);
        let begin = "{\"time\":\"2026-11-20T19:03:02.417Z\",\"level\":\"info\",\"logger\":\"framegate.access\",\
                     \"client\":\"127.0.0.1:53124\",\"method\":\"GET\",\"target\":\"/items?q=1\",\"protocol\":\"HTTP/1.1\",";
        let end = "\"body_bytes\":13,\"milliseconds\":0.410,\"aborted\"";
        assert_eq!(
            String::from_utf8(line).unwrap(),
            format!("{begin}\"status\":200,{end}:false}}\n{begin}\"status\":null,{end}:true}}\n")
        );
    }

    #[test]
    fn json_strings_stay_on_their_line() {
        let mut line = Vec::new();
        escape_json("a\"\\\n\u{1b}\u{7f}\u{e4}~", &mut line).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "a\\\"\\\\\\u000a\\u001b\\u007f\u{e4}~"
        );
    }

    #[test]
    fn line_has_all_parts() {
        let record = record();
        let mut line = Vec::new();
        write_line(&record, &mut line);
        let cut = RequestRecord {
            status: None,
            aborted: true,
            ..record
        };
        write_line(&cut, &mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "2026-11-20T19:03:02.417Z 127.0.0.1:53124 \"GET /items?q=1 HTTP/1.1\" 200 13 0.410ms\n\
             2026-11-20T19:03:02.417Z 127.0.0.1:53124 \"GET /items?q=1 HTTP/1.1\" - 13 0.410ms aborted\n"
        );
    }

    #[test]
    fn what_could_drive_a_terminal_is_escaped() {
        let mut line = Vec::new();
        escape("a b\n\r\u{1b}[2J\"\\\u{7f}\u{e4}~", &mut line).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "a b\\x0a\\x0d\\x1b[2J\\x22\\x5c\\x7f\\xc3\\xa4~"
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_777, (2026, 11, 20)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }
}
