//! Parameters: text that becomes a number, a date, one of a few words, or says why it is none.
//!
//! One text per meaning, as far as that is possible: numbers are written as JSON writes them, days as RFC 3339 does. What passes here
//! can be made into the Python object without another look.

use crate::json::{Limits, Number, Value, read};

/// What the text of a parameter has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Str,
    /// An integer of any size.
    Int,
    /// A finite number.
    Float,
    /// A number whose digits are all kept.
    Decimal,
    /// `true`, `1`, `yes`, `on`, `t`, `y` or `false`, `0`, `no`, `off`, `f`, `n`, in any case: as pydantic has it.
    Bool,
    /// 32 hexadecimal digits in five groups.
    Uuid,
    /// `2026-11-21`
    Date,
    /// `12:30`, `12:30:59.25`, with or without an offset.
    Time,
    /// `2026-11-21T12:30:59Z`, with or without an offset, also with a space for the `T`.
    DateTime,
    /// One of these texts.
    Choice(Vec<String>),
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parsed<'a> {
    /// Any text.
    Str(&'a str),
    /// Of [`Kind::Int`], [`Kind::Float`] and [`Kind::Decimal`].
    Number(Number<'a>),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Uuid`].
    Uuid(u128),
    /// Of [`Kind::Date`].
    Date(Date),
    /// Of [`Kind::Time`].
    Time(Time),
    /// Of [`Kind::DateTime`].
    DateTime(Date, Time),
    /// Which one of [`Kind::Choice`].
    Choice(usize),
}

/// A day that exists, of the years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// 1 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

/// A time of a day; leap seconds have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// 0 to 999 999; finer fractions are cut.
    pub microsecond: u32,
    /// Minutes east of UTC, when the text says so.
    pub offset_minutes: Option<i16>,
}

impl Kind {
    /// The kind that a pattern names: `int` of `{id:int}`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "str" => Self::Str,
            "int" => Self::Int,
            "float" => Self::Float,
            "decimal" => Self::Decimal,
            "bool" => Self::Bool,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "time" => Self::Time,
            "datetime" => Self::DateTime,
            _ => return None,
        })
    }

    /// What the text is.
    ///
    /// # Errors
    /// It is not of the kind: what it must be.
    pub fn parse<'a>(&self, text: &'a str) -> Result<Parsed<'a>, String> {
        let parsed = match self {
            Self::Str => Some(Parsed::Str(text)),
            Self::Int => number(text)
                .filter(Number::is_written_as_integer)
                .map(Parsed::Number),
            Self::Float => number(text)
                .filter(|number| number.to_f64().is_finite())
                .map(Parsed::Number),
            Self::Decimal => number(text).map(Parsed::Number),
            Self::Bool => truth(text).map(Parsed::Bool),
            Self::Uuid => uuid(text).map(Parsed::Uuid),
            Self::Date => date(text).map(Parsed::Date),
            Self::Time => time(text).map(Parsed::Time),
            Self::DateTime => date_time(text),
            Self::Choice(texts) => texts
                .iter()
                .position(|known| known == text)
                .map(Parsed::Choice),
        };
        parsed.ok_or_else(|| self.demand())
    }

    /// What a text must be to be of this kind, as faults say it.
    fn demand(&self) -> String {
        let words = match self {
            Self::Str => "a text",
            Self::Int => "an integer",
            Self::Float | Self::Decimal => "a number",
            Self::Bool => "true or false",
            Self::Uuid => "a UUID",
            Self::Date => "a date like 2026-11-21",
            Self::Time => "a time like 12:30:59",
            Self::DateTime => "a date and time like 2026-11-21T12:30:59Z",
            Self::Choice(texts) => {
                let quoted: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
                return format!("must be one of {}", quoted.join(", "));
            }
        };
        format!("must be {words}")
    }
}

impl<'a> Parsed<'a> {
    /// As JSON, for a schema that says more about it. `text` is what it was made of.
    pub fn to_value(self, text: &'a str) -> Value<'a> {
        match self {
            Self::Number(number) => Value::Number(number),
            Self::Bool(value) => Value::Bool(value),
            Self::Str(_)
            | Self::Uuid(_)
            | Self::Date(_)
            | Self::Time(_)
            | Self::DateTime(..)
            | Self::Choice(_) => Value::String(text.into()),
        }
    }
}

/// By the reader of JSON: one grammar, one set of limits.
fn number(text: &str) -> Option<Number<'_>> {
    // The reader would skip spaces around it.
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        || text.ends_with(|last: char| last.is_ascii_whitespace())
    {
        return None;
    }
    match read(text.as_bytes(), Limits::default()) {
        Ok(Value::Number(number)) => Some(number),
        _ => None,
    }
}

fn truth(text: &str) -> Option<bool> {
    let is_any = |words: [&str; 6]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_any(["true", "1", "yes", "on", "t", "y"]) {
        Some(true)
    } else if is_any(["false", "0", "no", "off", "f", "n"]) {
        Some(false)
    } else {
        None
    }
}

fn uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
        } else {
            value = value << 4 | u128::from(char::from(*byte).to_digit(16)?);
        }
    }
    Some(value)
}

/// So many digits, and what follows them.
fn digits(text: &str, count: usize) -> Option<(u16, &str)> {
    let head = text.get(..count)?;
    if !head.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((head.parse().ok()?, &text[count..]))
}

fn date(text: &str) -> Option<Date> {
    let (found, rest) = date_of(text)?;
    rest.is_empty().then_some(found)
}

fn date_of(text: &str) -> Option<(Date, &str)> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => return None,
    };
    if year == 0 || day == 0 || day > days {
        return None;
    }
    let found = Date {
        year,
        month: month as u8,
        day: day as u8,
    };
    Some((found, rest))
}

fn time(text: &str) -> Option<Time> {
    let (hour, rest) = digits(text, 2)?;
    let (minute, mut rest) = digits(rest.strip_prefix(':')?, 2)?;
    let mut second = 0;
    let mut microsecond = 0;
    if let Some(more) = rest.strip_prefix(':') {
        (second, rest) = digits(more, 2)?;
        if let Some(fraction) = rest.strip_prefix('.') {
            let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=9).contains(&count) {
                return None;
            }
            let kept = &fraction[..count.min(6)];
            microsecond = kept.parse::<u32>().ok()? * 10_u32.pow(6 - kept.len() as u32);
            rest = &fraction[count..];
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(Time {
        hour: hour as u8,
        minute: minute as u8,
        second: second as u8,
        microsecond,
        offset_minutes: offset(rest)?,
    })
}

/// What is left behind a time; the outer `None` when that is no offset.
#[allow(clippy::option_option, reason = "an offset may be absent or wrong")]
fn offset(text: &str) -> Option<Option<i16>> {
    let (sign, rest) = match text.as_bytes().first() {
        None => return Some(None),
        Some(b'Z' | b'z') if text.len() == 1 => return Some(Some(0)),
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, rest) = digits(rest, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':')?, 2)?;
    if hours > 23 || minutes > 59 || !rest.is_empty() {
        return None;
    }
    let minutes = i16::try_from(hours * 60 + minutes).ok()?;
    Some(Some(sign * minutes))
}

fn date_time(text: &str) -> Option<Parsed<'_>> {
    let (day, rest) = date_of(text)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    Some(Parsed::DateTime(day, time(rest)?))
}

#[cfg(test)]
mod tests {
    use super::{Date, Kind, Parsed, Time};

    #[track_caller]
    fn refused(kind: &Kind, texts: &[&str]) {
        for text in texts {
            // Whatever the text was: it is not repeated.
            assert_eq!(kind.parse(text), Err(kind.demand()), "{text}");
        }
    }

    #[test]
    fn integers_have_any_size() {
        for text in ["0", "-7", "9223372036854775808", &"9".repeat(4300)] {
            let Ok(Parsed::Number(number)) = Kind::Int.parse(text) else {
                panic!("{text}");
            };
            assert_eq!(number.text(), text);
        }
        refused(
            &Kind::Int,
            &[
                "",
                " 1",
                "1 ",
                "+1",
                "01",
                "-",
                "1.0",
                "1e3",
                "1_000",
                "٣",
                &"9".repeat(4301),
            ],
        );
    }

    #[test]
    fn floats_are_finite() {
        for (text, value) in [
            ("1", 1.0),
            ("-0.5", -0.5),
            ("1e+16", 1e16),
            ("5E-324", 5e-324),
        ] {
            let Ok(Parsed::Number(number)) = Kind::Float.parse(text) else {
                panic!("{text}");
            };
            assert_eq!(number.to_f64().to_bits(), f64::to_bits(value));
        }
        let too_large = format!("1{}", "0".repeat(400));
        refused(
            &Kind::Float,
            &[
                "nan",
                "NaN",
                "inf",
                "-Infinity",
                "1e999",
                ".5",
                "5.",
                "0x1",
                &too_large,
            ],
        );
        // All digits of a Decimal count.
        assert!(Kind::Decimal.parse(&too_large).is_ok());
    }

    #[test]
    fn truths() {
        for text in ["true", "TRUE", "1", "yes", "On", "t", "y"] {
            assert_eq!(Kind::Bool.parse(text), Ok(Parsed::Bool(true)));
        }
        for text in ["false", "0", "no", "oFF", "f", "n"] {
            assert_eq!(Kind::Bool.parse(text), Ok(Parsed::Bool(false)));
        }
        refused(&Kind::Bool, &["", "2", "truee", " true"]);
    }

    #[test]
    fn uuids() {
        let text = "F81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        assert_eq!(
            Kind::Uuid.parse(text),
            Ok(Parsed::Uuid(0xf81d_4fae_7dec_11d0_a765_00a0_c91e_6bf6))
        );
        refused(
            &Kind::Uuid,
            &[
                "",
                "f81d4fae7dec11d0a76500a0c91e6bf6",
                "f81d4fae-7dec-11d0-a765-00a0c91e6bf",
                "g81d4fae-7dec-11d0-a765-00a0c91e6bf6",
                "f81d4fae-7dec-11d0-a76500a0-c91e6bf6",
            ],
        );
    }

    #[test]
    fn days_exist() {
        for (text, is_day) in [
            ("2024-02-29", true),
            ("2000-02-29", true),
            ("1900-02-29", false),
            ("2023-02-29", false),
            ("0001-01-01", true),
            ("0000-01-01", false),
            ("9999-12-31", true),
            ("2024-04-31", false),
            ("2024-13-01", false),
            ("2024-00-01", false),
            ("2024-1-01", false),
            ("2024-01-01 ", false),
            ("20240101", false),
            ("+024-01-01", false),
        ] {
            assert_eq!(Kind::Date.parse(text).is_ok(), is_day, "{text}");
        }
    }

    #[test]
    fn times_and_offsets() {
        let day = Date {
            year: 2026,
            month: 11,
            day: 21,
        };
        let at = |hour, minute, second, microsecond, offset_minutes| Time {
            hour,
            minute,
            second,
            microsecond,
            offset_minutes,
        };
        for (text, time) in [
            ("12:30", at(12, 30, 0, 0, None)),
            ("23:59:59Z", at(23, 59, 59, 0, Some(0))),
            ("00:00:00.5+05:30", at(0, 0, 0, 500_000, Some(330))),
            (
                "00:00:00.123456789-23:59",
                at(0, 0, 0, 123_456, Some(-1439)),
            ),
        ] {
            assert_eq!(Kind::Time.parse(text), Ok(Parsed::Time(time)), "{text}");
            for between in ["T", "t", " "] {
                let both = format!("2026-11-21{between}{text}");
                assert_eq!(
                    Kind::DateTime.parse(&both),
                    Ok(Parsed::DateTime(day, time)),
                    "{both}"
                );
            }
        }
        refused(
            &Kind::Time,
            &[
                "",
                "24:00",
                "12:60",
                "12:30:60",
                "12:30:00.",
                "12:30:00.1234567890",
                "12:30+24:00",
                "12:30+0530",
                "12:30Zz",
                "1:30",
                "12:30 ",
            ],
        );
        refused(
            &Kind::DateTime,
            &[
                "",
                "2026-11-21",
                "2026-11-21T",
                "2026-11-21_12:30",
                "é026-11-21T12:30",
            ],
        );
    }

    #[test]
    fn choices_are_the_texts() {
        let kind = Kind::Choice(vec!["red".into(), "7".into()]);
        assert_eq!(kind.parse("7"), Ok(Parsed::Choice(1)));
        assert_eq!(
            kind.parse("blue"),
            Err("must be one of \"red\", \"7\"".into())
        );
    }
}
