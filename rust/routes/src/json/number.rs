//! Numbers: what was written, and what it is.

use std::cmp::Ordering;

/// A number of JSON. Integers have any size, and equality is that of the numbers, not of their texts: `1` equals `1.0` and `10e-1`.
#[derive(Clone, Copy, Debug)]
pub struct Number<'a> {
    text: &'a str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// An integer that fits.
    Small(i64),
    /// An integer that does not.
    Large,
    /// Written with a fraction or an exponent; finite.
    Float(f64),
}

impl<'a> Number<'a> {
    /// `text` is a number of JSON's grammar, and `is_integer` when it has neither fraction nor exponent. `None` when no finite
    /// float is near it.
    pub(crate) fn parse(text: &'a str, is_integer: bool) -> Option<Self> {
        let kind = if is_integer {
            text.parse().map_or(Kind::Large, Kind::Small)
        } else {
            let float: f64 = text.parse().ok()?;
            if !float.is_finite() {
                return None;
            }
            Kind::Float(float)
        };
        Some(Self { text, kind })
    }

    /// As it was written.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The integer, when it was written as one and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self.kind {
            Kind::Small(value) => Some(value),
            Kind::Large | Kind::Float(_) => None,
        }
    }

    /// The integer, when it was written as one and fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self.kind {
            Kind::Small(value) => u64::try_from(value).ok(),
            Kind::Large => self.text.parse().ok(),
            Kind::Float(_) => None,
        }
    }

    /// The float, when it was written with a fraction or an exponent.
    pub fn as_float(&self) -> Option<f64> {
        match self.kind {
            Kind::Float(value) => Some(value),
            Kind::Small(_) | Kind::Large => None,
        }
    }

    /// The nearest float; infinite for an integer beyond all of them.
    #[allow(
        clippy::cast_precision_loss,
        reason = "the nearest float is what is asked for"
    )]
    pub fn to_f64(self) -> f64 {
        match self.kind {
            Kind::Small(value) => value as f64,
            Kind::Float(value) => value,
            // Digits are a float of some size.
            Kind::Large => self.text.parse().unwrap_or(f64::INFINITY),
        }
    }

    /// Written without fraction and exponent.
    pub fn is_written_as_integer(&self) -> bool {
        !matches!(self.kind, Kind::Float(_))
    }

    /// Nothing is left behind the decimal point, however it was written.
    pub fn is_whole(&self) -> bool {
        self.is_written_as_integer() || self.canonical().power >= 0
    }

    /// Its sign, its digits without zeros at either end, and the power of ten of the last digit: the same for all texts of a number.
    fn canonical(&self) -> Canonical<'a> {
        let (is_negative, rest) = match self.text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, self.text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            // An exponent beyond this has no finite float above, and below it is told from others by its text alone.
            Some((mantissa, exponent)) => (mantissa, saturating(exponent)),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut power = exponent.saturating_sub_unsigned(fraction.len() as u64);
        let (mut whole, mut fraction) = (whole, fraction);
        fraction = {
            let kept = fraction.trim_end_matches('0');
            power = power.saturating_add_unsigned((fraction.len() - kept.len()) as u64);
            kept
        };
        if fraction.is_empty() {
            let kept = whole.trim_end_matches('0');
            power = power.saturating_add_unsigned((whole.len() - kept.len()) as u64);
            whole = kept;
        }
        whole = whole.trim_start_matches('0');
        if whole.is_empty() {
            fraction = fraction.trim_start_matches('0');
        }
        if whole.is_empty() && fraction.is_empty() {
            return Canonical {
                is_negative: false,
                power: 0,
                whole,
                fraction,
            };
        }
        Canonical {
            is_negative,
            power,
            whole,
            fraction,
        }
    }

    /// An order in which equal numbers are equal; otherwise it means nothing.
    pub(crate) fn arbitrary_cmp(&self, other: &Number<'_>) -> Ordering {
        if let (Kind::Small(left), Kind::Small(right)) = (self.kind, other.kind) {
            return left.cmp(&right);
        }
        self.canonical().cmp(&other.canonical())
    }
}

fn saturating(exponent: &str) -> i64 {
    exponent.parse().unwrap_or(if exponent.starts_with('-') {
        i64::MIN / 2
    } else {
        i64::MAX / 2
    })
}

struct Canonical<'a> {
    is_negative: bool,
    power: i64,
    whole: &'a str,
    fraction: &'a str,
}

impl Canonical<'_> {
    fn cmp(&self, other: &Canonical<'_>) -> Ordering {
        (self.is_negative, self.power)
            .cmp(&(other.is_negative, other.power))
            .then_with(|| {
                let digits = self.whole.bytes().chain(self.fraction.bytes());
                digits.cmp(other.whole.bytes().chain(other.fraction.bytes()))
            })
    }
}

impl PartialEq<Number<'_>> for Number<'_> {
    fn eq(&self, other: &Number<'_>) -> bool {
        self.arbitrary_cmp(other).is_eq()
    }
}

#[cfg(test)]
mod tests {
    use super::Number;

    fn number(text: &str) -> Number<'_> {
        let is_integer = !text.contains(['.', 'e', 'E']);
        Number::parse(text, is_integer).unwrap()
    }

    #[test]
    fn texts_of_one_number_are_equal() {
        for group in [
            &["0", "-0", "0.0", "0e9", "-0.00E-3"][..],
            &["1", "1.0", "10e-1", "0.1e1", "1e0", "1E+0", "0.0001e4"],
            &["-120", "-120.0", "-1.2e2", "-12E1"],
            &["0.5", "5e-1", "0.50", "50e-2"],
            &[
                "100000000000000000000",
                "1e20",
                "100000000000000000000.0",
                "10E19",
            ],
        ] {
            for left in group {
                for right in group {
                    assert_eq!(number(left), number(right), "{left} {right}");
                }
            }
        }
    }

    #[test]
    fn near_is_not_equal() {
        for (left, right) in [
            ("1", "-1"),
            ("9007199254740993", "9007199254740992.0"),
            ("0.1", "0.10000000000000001"),
            ("1", "10"),
            ("100000000000000000001", "1e20"),
            ("1e-400", "0"),
            ("12", "1.2"),
        ] {
            assert_ne!(number(left), number(right), "{left} {right}");
        }
    }

    #[test]
    fn integers_of_any_size_stay_what_was_written() {
        assert_eq!(number("-9223372036854775808").as_i64(), Some(i64::MIN));
        assert_eq!(number("18446744073709551615").as_u64(), Some(u64::MAX));
        let large = number("123456789012345678901234567890");
        assert_eq!((large.as_i64(), large.as_u64()), (None, None));
        assert!(large.is_written_as_integer());
        assert_eq!(large.text(), "123456789012345678901234567890");
    }
}
