//! Text for logs, appended to a buffer: numbers, times, and values that a client has chosen.
//!
//! Written by hand, because every request with a log passes here: `std::fmt` costs ten times as much for a short number.
//!
//! What a client can choose is escaped, so that one record is one line of printable ASCII and no terminal is driven by it, and cut, so
//! that one client cannot fill the log. A value that was cut ends with `...`.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

/// Printable ASCII but for the two that mean something inside of quotes.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        table[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    table
};

/// 00 to 99.
static PAIRS: [[u8; 2]; 100] = {
    let mut table = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        table[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    table
};

const HEX: &[u8; 16] = b"0123456789abcdef";
const CUT: &[u8] = b"...";

/// Appends at most `bytes_max` bytes and what tells that there was more; what is not plain as `\x..`.
pub(crate) fn escape(value: &[u8], bytes_max: usize, line: &mut Vec<u8>) {
    let end = line.len() + bytes_max;
    let mut rest = value;
    loop {
        let room = end - line.len();
        let plain = plain_bytes(rest);
        if plain > room || (plain < rest.len() && plain + 4 > room) {
            line.extend_from_slice(&rest[..plain.min(room)]);
            line.extend_from_slice(CUT);
            return;
        }
        line.extend_from_slice(&rest[..plain]);
        let Some((&byte, after)) = rest[plain..].split_first() else {
            return;
        };
        line.extend_from_slice(b"\\x");
        push_hex(byte, line);
        rest = after;
    }
}

/// The same as the content of a JSON string (RFC 8259 section 7), in ASCII.
pub(crate) fn escape_json(value: &str, bytes_max: usize, line: &mut Vec<u8>) {
    /// A pair of surrogates.
    const LONGEST: usize = 12;
    let end = line.len() + bytes_max;
    let mut rest = value;
    loop {
        let room = end - line.len();
        let plain = plain_bytes(rest.as_bytes());
        if plain > room || (plain < rest.len() && plain + LONGEST > room) {
            line.extend_from_slice(&rest.as_bytes()[..plain.min(room)]);
            line.extend_from_slice(CUT);
            return;
        }
        line.extend_from_slice(&rest.as_bytes()[..plain]);
        // What is plain is ASCII, so a character ends there.
        let mut after = rest[plain..].chars();
        let Some(character) = after.next() else {
            return;
        };
        match character {
            '"' | '\\' => line.extend_from_slice(&[b'\\', character as u8]),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    line.extend_from_slice(b"\\u");
                    for byte in unit.to_be_bytes() {
                        push_hex(byte, line);
                    }
                }
            }
        }
        rest = after.as_str();
    }
}

fn plain_bytes(bytes: &[u8]) -> usize {
    let chunks = bytes.as_chunks::<8>().0;
    let whole = chunks.iter().take_while(|chunk| is_plain(**chunk)).count() * 8;
    let rest = bytes[whole..]
        .iter()
        .position(|&byte| !PLAIN[usize::from(byte)]);
    rest.map_or(bytes.len(), |plain| whole + plain)
}

/// The same for eight bytes at once: which of them it is that is not plain is looked for only then.
fn is_plain(bytes: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let word = u64::from_ne_bytes(bytes);
    // Sets the highest bit of the lowest byte that is 0, and none if there is no such byte.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let below_space = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let backslash = zero(word ^ (ONES * u64::from(b'\\')));
    let delete = zero(word ^ (ONES * 0x7f));
    (word | below_space | quote | backslash | delete) & HIGH == 0
}

/// Appends two digits.
pub(crate) fn push_hex(byte: u8, line: &mut Vec<u8>) {
    line.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Appends a number.
pub(crate) fn push_number(number: u64, line: &mut Vec<u8>) {
    push_padded(number, 1, line);
}

/// Appends a number with at least `width` digits, at most 20.
pub(crate) fn push_padded(mut number: u64, width: usize, line: &mut Vec<u8>) {
    if number < 100 && width <= 1 {
        let pair = &PAIRS[number as usize];
        line.extend_from_slice(if number < 10 { &pair[1..] } else { pair });
        return;
    }
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
    }
    if number > 0 {
        at -= 1;
        digits[at] = b'0' + number as u8;
    }
    let from = at.min(digits.len() - width);
    line.extend_from_slice(&digits[from..]);
}

/// Appends milliseconds with three decimals.
pub(crate) fn push_milliseconds(nanoseconds: u64, line: &mut Vec<u8>) {
    let micros = nanoseconds / 1000;
    push_number(micros / 1000, line);
    let [hundreds, tens, ones] = three_digits((micros % 1000) as u32);
    line.extend_from_slice(&[b'.', hundreds, tens, ones]);
}

/// The digits of a number below 1000.
fn three_digits(number: u32) -> [u8; 3] {
    let [tens, ones] = PAIRS[(number % 100) as usize];
    [b'0' + (number / 100) as u8, tens, ones]
}

/// Times of day as text. What does not change within a second is kept.
#[derive(Debug)]
pub(crate) struct Clock {
    second: Cell<u64>,
    /// `2026-11-20T19:03:02.`
    date: Cell<[u8; 20]>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            second: Cell::new(0),
            date: Cell::new(*b"1970-01-01T00:00:00."),
        }
    }
}

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

impl Clock {
    /// RFC 3339 in UTC with milliseconds.
    pub(crate) fn push_rfc3339(&self, time: SystemTime, line: &mut Vec<u8>) {
        let since = since_1970(time);
        let second = since.as_secs();
        if self.second.replace(second) != second {
            let mut text = Vec::with_capacity(20);
            let (year, month, day) = civil(second / 86_400);
            push_padded(year, 4, &mut text);
            for (before, number) in [(b'-', month), (b'-', day), (b'T', second / 3600 % 24)] {
                text.push(before);
                push_padded(number, 2, &mut text);
            }
            for number in [second / 60 % 60, second % 60] {
                text.push(b':');
                push_padded(number, 2, &mut text);
            }
            text.push(b'.');
            if let Ok(date) = text.as_slice().try_into() {
                self.date.set(date);
            }
        }
        let [hundreds, tens, ones] = three_digits(since.subsec_millis());
        line.extend_from_slice(&self.date.get());
        line.extend_from_slice(&[hundreds, tens, ones, b'Z']);
    }
}

/// As Apache has it, in UTC: `[20/Nov/2026:19:03:02 +0000]`.
pub(crate) fn push_apache_time(time: SystemTime, line: &mut Vec<u8>) {
    let second = since_1970(time).as_secs();
    let (year, month, day) = civil(second / 86_400);
    line.push(b'[');
    push_padded(day, 2, line);
    line.push(b'/');
    line.extend_from_slice(MONTHS[(month - 1) as usize]);
    line.push(b'/');
    push_padded(year, 4, line);
    for number in [second / 3600 % 24, second / 60 % 60, second % 60] {
        line.push(b':');
        push_padded(number, 2, line);
    }
    line.extend_from_slice(b" +0000]");
}

/// Nothing before 1970: a clock that is so wrong is not set.
pub(crate) fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
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
    use std::time::{Duration, SystemTime};

    use super::{
        Clock, PLAIN, civil, escape, escape_json, is_plain, plain_bytes, push_apache_time,
        push_milliseconds, push_number, push_padded,
    };

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn what_could_drive_a_terminal_is_escaped() {
        let value = "a b\n\r\u{1b}[2J\"\\\u{7f}\u{e4}~".as_bytes();
        assert_eq!(
            text(|line| escape(value, 100, line)),
            "a b\\x0a\\x0d\\x1b[2J\\x22\\x5c\\x7f\\xc3\\xa4~"
        );
    }

    #[test]
    fn eight_bytes_are_looked_at_as_one_is() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                for other in [b' ', b'~', b'a', b'!', b'#', b'[', b']'] {
                    let mut bytes = [other; 8];
                    bytes[place] = byte;
                    assert_eq!(is_plain(bytes), PLAIN[usize::from(byte)], "{bytes:?}");
                }
            }
        }
        let mut bytes = [b'a'; 30];
        for place in 0..bytes.len() {
            bytes[place] = b'\n';
            assert_eq!(plain_bytes(&bytes), place);
            bytes[place] = b'a';
        }
    }

    #[test]
    fn json_strings_stay_on_their_line() {
        let value = "a\"\\\n\u{1b}\u{7f}\u{e4}\u{1f600}~";
        assert_eq!(
            text(|line| escape_json(value, 100, line)),
            "a\\\"\\\\\\u000a\\u001b\\u007f\\u00e4\\ud83d\\ude00~"
        );
    }

    #[test]
    fn long_values_are_cut_between_two_characters() {
        for bytes_max in 0..60 {
            let value = "ab\"\u{1f600}c".repeat(4);
            let line = text(|line| escape(value.as_bytes(), bytes_max, line));
            assert!(line.len() <= bytes_max + 3, "{line}");
            let whole = text(|line| escape(value.as_bytes(), 1000, line));
            if line != whole {
                let cut = line.strip_suffix("...").unwrap();
                assert!(whole.starts_with(cut) && !cut.ends_with('\\'), "{line}");
            }
            let line = text(|line| escape_json(&value, bytes_max, line));
            assert!(line.len() <= bytes_max + 3, "{line}");
            let whole = text(|line| escape_json(&value, 1000, line));
            let cut = line.strip_suffix("...").unwrap_or(&line);
            assert!(whole.starts_with(cut), "{line}");
            // No half of a pair.
            assert_eq!(
                cut.matches("\\ud83d").count(),
                cut.matches("\\ude00").count()
            );
        }
    }

    #[test]
    fn numbers() {
        for (number, width, expected) in [
            (0, 1, "0"),
            (0, 3, "000"),
            (7, 2, "07"),
            (123, 2, "123"),
            (u64::MAX, 1, "18446744073709551615"),
        ] {
            assert_eq!(text(|line| push_padded(number, width, line)), expected);
        }
        assert_eq!(
            text(|line| push_milliseconds(1_002_003_999, line)),
            "1002.003"
        );
        for number in (0..2000).chain([99_999, 100_000, 123_456_789, u64::MAX / 10]) {
            assert_eq!(text(|line| push_number(number, line)), number.to_string());
            let padded = format!("{number:03}");
            assert_eq!(text(|line| push_padded(number, 3, line)), padded);
        }
    }

    #[test]
    fn times() {
        let clock = Clock::default();
        for (milliseconds, rfc3339, apache) in [
            (
                7,
                "1970-01-01T00:00:00.007Z",
                "[01/Jan/1970:00:00:00 +0000]",
            ),
            (
                1_795_201_382_417,
                "2026-11-20T19:03:02.417Z",
                "[20/Nov/2026:19:03:02 +0000]",
            ),
            (
                1_795_201_382_999,
                "2026-11-20T19:03:02.999Z",
                "[20/Nov/2026:19:03:02 +0000]",
            ),
            (
                1_795_201_383_000,
                "2026-11-20T19:03:03.000Z",
                "[20/Nov/2026:19:03:03 +0000]",
            ),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
            assert_eq!(text(|line| clock.push_rfc3339(time, line)), rfc3339);
            assert_eq!(text(|line| push_apache_time(time, line)), apache);
        }
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
