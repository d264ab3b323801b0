//! What is said of a frame beside its bytes, and how HTTP says it.
//!
//! | field | means | grammar |
//! |---|---|---|
//! | `Frame-Dtype` | type of the items, with numpy's name | `uint8`, `float32`, ... |
//! | `Frame-Shape` | lengths of the dimensions, C order | 1 to 8 numbers with commas between: `1080, 1920, 3` |
//! | `Frame-Timestamp` | the application's own time, in seconds | a decimal number |
//! | `Frame-Sequence` | number of the frame in its topic, 1 upwards; in answers | digits |
//! | `Frame-Published` | when it was published, in seconds since 1970; in answers | digits with nine decimals |
//! | `Content-Type` | what the bytes are | RFC 9110, section 8.3 |
//!
//! Dtype and shape go together, or neither is there: the frame is raw bytes then, or what the schema of the topic says.

use std::fmt::Write as _;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use super::board::Frame;
use super::problem::{Code, Problem};

/// `Frame-Dtype`
pub const DTYPE: HeaderName = HeaderName::from_static("frame-dtype");
/// `Frame-Shape`
pub const SHAPE: HeaderName = HeaderName::from_static("frame-shape");
/// `Frame-Timestamp`
pub const TIMESTAMP: HeaderName = HeaderName::from_static("frame-timestamp");
/// `Frame-Sequence`
pub const SEQUENCE: HeaderName = HeaderName::from_static("frame-sequence");
/// `Frame-Published`
pub const PUBLISHED: HeaderName = HeaderName::from_static("frame-published");

/// Dimensions of an array; the shared memory has room for as many.
pub const DIMENSIONS_MAX: usize = 8;
/// Bytes of a content type that goes with a frame; the shared memory has room for as many.
pub const CONTENT_TYPE_BYTES_MAX: usize = 64;

/// Type of the items of an array, with numpy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Dtype {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float16,
    Float32,
    Float64,
    Complex64,
    Complex128,
    Bfloat16,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Bool,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Float16,
        Self::Float32,
        Self::Float64,
        Self::Complex64,
        Self::Complex128,
        Self::Bfloat16,
    ];

    /// The dtype of a name such as `"float32"`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Numpy's name, for example `"float32"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Float16 => "float16",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Complex64 => "complex64",
            Self::Complex128 => "complex128",
            Self::Bfloat16 => "bfloat16",
        }
    }

    /// Bytes of one item.
    pub fn item_bytes(self) -> u64 {
        match self {
            Self::Bool | Self::Int8 | Self::Uint8 => 1,
            Self::Int16 | Self::Uint16 | Self::Float16 | Self::Bfloat16 => 2,
            Self::Int32 | Self::Uint32 | Self::Float32 => 4,
            Self::Int64 | Self::Uint64 | Self::Float64 | Self::Complex64 => 8,
            Self::Complex128 => 16,
        }
    }
}

/// Dtype and shape of a frame that is one array in C order. Its size fits into a `u64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayHead {
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: u64,
}

impl ArrayHead {
    /// `None` if there are more than [`DIMENSIONS_MAX`] dimensions, or more bytes than a number has room for.
    pub fn new(dtype: Dtype, shape: Vec<u64>) -> Option<Self> {
        if shape.len() > DIMENSIONS_MAX {
            return None;
        }
        let bytes = shape
            .iter()
            .try_fold(dtype.item_bytes(), |total, &length| {
                total.checked_mul(length)
            })?;
        Some(Self {
            dtype,
            shape,
            bytes,
        })
    }

    /// Type of the items.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Lengths of the dimensions.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Bytes of the whole array.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What travels with a frame beside its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameHead {
    /// What the bytes are, if they are one array.
    pub array: Option<ArrayHead>,
    /// The application's own time in seconds; finite.
    pub timestamp: Option<f64>,
    /// What the bytes are, if they are something else: `image/jpeg`. At most [`CONTENT_TYPE_BYTES_MAX`] bytes.
    pub content_type: Option<String>,
    /// Width and height of an encoded picture, if its own head says so.
    pub picture: Option<(u32, u32)>,
    /// How the pixels of the array lie, if the publisher says so: `bgr8`.
    pub encoding: Option<String>,
}

/// What the body of a request is, by its `Content-Type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The payload of one frame.
    Raw,
    /// A file of numpy.
    Npy,
}

/// The bytes are what they are: no type of their own goes with the frame. `curl --data-binary` sends the second one.
const PLAIN_TYPES: [&str; 2] = [
    "application/octet-stream",
    "application/x-www-form-urlencoded",
];
/// What files of numpy are called; none of the names is registered.
const NPY_TYPES: [&str; 3] = [
    "application/x-npy",
    "application/npy",
    "application/x-numpy",
];
/// What an answer in that form says.
pub(crate) const NPY: HeaderValue = HeaderValue::from_static("application/x-npy");
/// What an answer says of bytes without a type of their own.
pub(crate) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// How mail writes bytes that are not changed (RFC 2045, section 6.2).
const PLAIN_ENCODINGS: [&str; 4] = ["identity", "binary", "8bit", "7bit"];
/// Of a part, as in mail; it means nothing in a request (RFC 9112, appendix B.5).
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// Checks that the bytes of a request, or of one part of it, are not written as something else.
///
/// # Errors
/// [`Code::UnsupportedType`]
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    for name in [CONTENT_ENCODING, TRANSFER_ENCODING] {
        for value in headers.get_all(&name) {
            let is = |plain: &str| value.as_bytes().eq_ignore_ascii_case(plain.as_bytes());
            if !PLAIN_ENCODINGS.into_iter().any(is) {
                return Err(Problem::new(
                    Code::UnsupportedType,
                    format!("a body with {name} is not decoded: send the bytes as they are"),
                ));
            }
        }
    }
    Ok(())
}

/// Reads the fields of a request, or of one part of it.
///
/// # Errors
/// [`Code::FrameHead`] if one of them means nothing, [`Code::UnsupportedType`].
pub(crate) fn read(headers: &HeaderMap) -> Result<(Form, FrameHead), Problem> {
    check_encoding(headers)?;
    let (form, content_type) = form(headers)?;
    let timestamp = match single(headers, &TIMESTAMP)? {
        None => None,
        Some(text) => Some(timestamp(text)?),
    };
    let array = match (single(headers, &DTYPE)?, single(headers, &SHAPE)?) {
        (None, None) => None,
        (Some(dtype), Some(shape)) => Some(array(dtype, shape)?),
        _ => {
            return Err(Problem::new(
                Code::FrameHead,
                "Frame-Dtype and Frame-Shape go together, or neither for raw bytes",
            ));
        }
    };
    if array.is_some() && form == Form::Npy {
        return Err(Problem::new(
            Code::FrameHead,
            "a .npy file says dtype and shape itself: send no Frame-Dtype and Frame-Shape",
        ));
    }
    let head = FrameHead {
        array,
        timestamp,
        content_type,
        picture: None,
        encoding: None,
    };
    Ok((form, head))
}

fn form(headers: &HeaderMap) -> Result<(Form, Option<String>), Problem> {
    let Some(value) = single(headers, &CONTENT_TYPE)? else {
        return Ok((Form::Raw, None));
    };
    let essence = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if PLAIN_TYPES.contains(&&*essence) {
        return Ok((Form::Raw, None));
    }
    if NPY_TYPES.contains(&&*essence) {
        return Ok((Form::Npy, None));
    }
    if essence.starts_with("multipart/") {
        return Err(Problem::new(
            Code::UnsupportedType,
            "a multipart body is no frame: multipart/form-data, mixed and x-mixed-replace are published part by part",
        ));
    }
    let is_type = essence.split_once('/').is_some_and(|(kind, sub)| {
        !kind.is_empty() && !sub.is_empty() && essence.bytes().all(|byte| byte.is_ascii_graphic())
    });
    if !is_type || value.len() > CONTENT_TYPE_BYTES_MAX {
        return Err(Problem::new(
            Code::UnsupportedType,
            format!(
                "the Content-Type of a frame is type/subtype, at most {CONTENT_TYPE_BYTES_MAX} bytes"
            ),
        ));
    }
    Ok((Form::Raw, Some(value.to_owned())))
}

/// The value of a field that may be there once, as text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.trim())),
        _ => Err(Problem::new(
            Code::FrameHead,
            format!("{name} is there twice, or is no text"),
        )),
    }
}

fn timestamp(text: &str) -> Result<f64, Problem> {
    text.parse()
        .ok()
        .filter(|seconds: &f64| seconds.is_finite())
        .ok_or_else(|| {
            Problem::new(
                Code::FrameHead,
                "Frame-Timestamp is a decimal number of seconds",
            )
        })
}

/// Whether `text` is digits and nothing else; `parse` would also take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn array(dtype: &str, shape: &str) -> Result<ArrayHead, Problem> {
    let dtype = Dtype::from_name(dtype).ok_or_else(|| {
        Problem::new(
            Code::FrameHead,
            "Frame-Dtype is no dtype: take one of numpy's names such as uint8 or float32",
        )
    })?;
    shape
        .split(',')
        .map(|length| number(length.trim()))
        .take(DIMENSIONS_MAX + 1)
        .collect::<Option<Vec<_>>>()
        .and_then(|shape| ArrayHead::new(dtype, shape))
        .ok_or_else(|| {
            Problem::new(
                Code::FrameHead,
                format!("Frame-Shape is 1 to {DIMENSIONS_MAX} numbers such as 1080, 1920, 3"),
            )
        })
}

/// Puts what is known of a frame into the head of an answer, but for its content type.
pub(crate) fn write(frame: &Frame, headers: &mut HeaderMap) {
    headers.insert(SEQUENCE, HeaderValue::from(frame.sequence));
    let published = format!(
        "{}.{:09}",
        frame.published_ns / 1_000_000_000,
        frame.published_ns % 1_000_000_000
    );
    headers.insert(PUBLISHED, visible(published));
    if let Some(array) = &frame.head.array {
        headers.insert(DTYPE, HeaderValue::from_static(array.dtype.name()));
        headers.insert(SHAPE, visible(shape_text(array.shape())));
    }
    if let Some(timestamp) = frame.head.timestamp {
        headers.insert(TIMESTAMP, visible(timestamp.to_string()));
    }
}

/// `1080, 1920, 3`
pub(crate) fn shape_text(shape: &[u64]) -> String {
    let mut text = String::new();
    for (index, length) in shape.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{length}");
    }
    text
}

fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("numbers, commas and points are visible ASCII")
}
