//! What a viewer asks for: coding, quality, size; and how that is said in a query.

use std::fmt;

/// How a picture is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Coding {
    Jpeg,
    Webp,
    Png,
}

impl Coding {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Jpeg, "jpeg", "image/jpeg"),
        (Self::Webp, "webp", "image/webp"),
        (Self::Png, "png", "image/png"),
    ];

    /// `jpeg`, `webp` or `png`.
    pub fn from_name(name: &str) -> Option<Self> {
        let row = Self::ALL.iter().find(|row| row.1 == name)?;
        Some(row.0)
    }

    /// The coding of a content type; parameters do not count.
    pub fn from_media_type(media_type: &[u8]) -> Option<Self> {
        let essence = media_type.split(|&byte| byte == b';').next()?;
        let essence = essence.trim_ascii();
        let row = Self::ALL
            .iter()
            .find(|row| essence.eq_ignore_ascii_case(row.2.as_bytes()))?;
        Some(row.0)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Its content type.
    pub fn media_type(self) -> &'static str {
        Self::ALL[self as usize].2
    }
}

/// What a viewer asks for. Two viewers with equal settings share what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Setting {
    pub(super) coding: Coding,
    /// 1 to 100; 0 where it means nothing.
    pub(super) quality: u8,
    /// The largest width and height; 0: as the picture is.
    width: u32,
    height: u32,
}

/// As the picture is, at a size and with a loss that the eye hardly sees.
const QUALITY: u8 = 80;

impl Setting {
    /// The picture in its own size, at the usual quality (80).
    pub fn new(coding: Coding) -> Self {
        Self {
            coding,
            quality: if coding == Coding::Png { 0 } else { QUALITY },
            width: 0,
            height: 0,
        }
    }

    /// From the parameters `quality` (1 to 100), `width` and `height` (1 to 65500) of a query; others are not looked at. The picture keeps
    /// its proportions and never becomes larger than it is.
    ///
    /// # Errors
    /// Which parameter says what it must not.
    pub fn from_query(coding: Coding, query: &str) -> Result<Self, BadSetting> {
        let mut setting = Self::new(coding);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, max): (&'static str, u32) = match name {
                "quality" => ("quality", 100),
                "width" => ("width", super::SIDE_MAX),
                "height" => ("height", super::SIDE_MAX),
                _ => continue,
            };
            // `parse` takes a sign, which is no number of a query.
            let number = value
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| value.parse::<u32>().ok())
                .flatten()
                .filter(|number| (1..=max).contains(number))
                .ok_or(BadSetting { name, max })?;
            match name {
                "width" => setting.width = number,
                "height" => setting.height = number,
                _ if coding == Coding::Png => {} // loses nothing whatever is asked for
                _ => setting.quality = number as u8,
            }
        }
        Ok(setting)
    }

    /// How the picture is coded.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Whether it asks for a size.
    pub fn is_sized(&self) -> bool {
        self.width != 0 || self.height != 0
    }

    /// A picture of this coding is what the viewer gets, as it is.
    pub fn takes(&self, coding: Coding) -> bool {
        coding == self.coding && !self.is_sized()
    }

    /// The size of a picture of this width and height for this viewer: as large as it may be in its own proportions.
    pub fn fit(&self, width: u32, height: u32) -> (u32, u32) {
        let bound = |wanted, there: u32| {
            if wanted == 0 {
                there
            } else {
                there.min(wanted)
            }
        };
        let (most_wide, most_high) = (bound(self.width, width), bound(self.height, height));
        let [wide, high, most_wide, most_high] =
            [width, height, most_wide, most_high].map(u64::from);
        // Which side binds: most_wide / wide < most_high / high?
        let rounded = |side: u64, most: u64, of: u64| ((side * most + of / 2) / of.max(1)).max(1);
        let (wide, high) = if most_wide * high <= most_high * wide {
            (most_wide, rounded(high, most_wide, wide))
        } else {
            (rounded(wide, most_high, high), most_high)
        };
        (wide as u32, high as u32)
    }
}

/// A word that no other setting has: part of an `ETag`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            quality,
            width,
            height,
            ..
        } = self;
        write!(f, "{}-{quality}-{width}x{height}", self.coding.name())
    }
}

/// A parameter of a query says what it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSetting {
    /// Which.
    pub name: &'static str,
    /// The largest number that it may be; the smallest is 1.
    pub max: u32,
}

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is a whole number from 1 to {}", self.name, self.max)
    }
}

impl std::error::Error for BadSetting {}

#[cfg(test)]
mod tests {
    use super::{BadSetting, Coding, Setting};

    #[test]
    fn query_says_quality_and_size_within_limits() {
        let setting =
            Setting::from_query(Coding::Jpeg, "view=latest&width=320&quality=100&x").unwrap();
        assert_eq!(
            (setting.quality, setting.width, setting.height),
            (100, 320, 0)
        );
        assert!(setting.is_sized());
        assert!(
            !Setting::from_query(Coding::Jpeg, "quality=1")
                .unwrap()
                .is_sized()
        );
        for (query, name, max) in [
            ("quality=0", "quality", 100),
            ("quality=101", "quality", 100),
            ("quality=+5", "quality", 100),
            ("quality=", "quality", 100),
            ("quality", "quality", 100),
            ("width=65501", "width", 65_500),
            ("height=0", "height", 65_500),
            ("height=99999999999999999999", "height", 65_500),
        ] {
            let refused = Setting::from_query(Coding::Webp, query);
            assert_eq!(refused, Err(BadSetting { name, max }), "{query}");
        }
    }

    #[test]
    fn quality_of_a_coding_that_loses_nothing_makes_no_difference() {
        let [one, other] =
            ["quality=10", "quality=20"].map(|query| Setting::from_query(Coding::Png, query));
        assert_eq!(one, other);
    }

    #[test]
    fn pictures_keep_their_proportions_and_never_grow() {
        let fit = |query, width, height| {
            Setting::from_query(Coding::Jpeg, query)
                .unwrap()
                .fit(width, height)
        };
        assert_eq!(fit("", 1920, 1080), (1920, 1080));
        assert_eq!(fit("width=960", 1920, 1080), (960, 540));
        assert_eq!(fit("height=540", 1920, 1080), (960, 540));
        assert_eq!(fit("width=960&height=100", 1920, 1080), (178, 100));
        assert_eq!(fit("width=100&height=960", 1920, 1080), (100, 56));
        assert_eq!(fit("width=4000&height=4000", 1920, 1080), (1920, 1080));
        assert_eq!(fit("width=1", 65_500, 1), (1, 1));
        assert_eq!(fit("height=1", 1, 65_500), (1, 1));
    }

    #[test]
    fn content_types_name_codings() {
        assert_eq!(Coding::from_media_type(b"image/jpeg"), Some(Coding::Jpeg));
        assert_eq!(
            Coding::from_media_type(b"Image/PNG ; a=b"),
            Some(Coding::Png)
        );
        assert_eq!(Coding::from_media_type(b"image/jpegs"), None);
        assert_eq!(Coding::from_name("webp"), Some(Coding::Webp));
        assert_eq!(Coding::Webp.media_type(), "image/webp");
    }
}
