//! Frames as messages of a recording, and back.
//!
//! Three kinds of message, all protobuf with their descriptors in the file:
//!
//! | message | for | opens as |
//! |---|---|---|
//! | `foxglove.CompressedImage` | bytes whose content type is JPEG, PNG, WebP or AVIF | picture |
//! | `foxglove.RawImage` | one array that looks like a picture | picture |
//! | `framegate.Frame` | everything else | raw message |
//!
//! The two picture messages have one field more than Foxglove's own, number 1000, which readers that do not know it skip:
//! `framegate.Facts`, what a frame is beside its pixels. With it every kind gives back the frame exactly: names, dtypes,
//! shapes, the application's time, metadata and content type. Without it (a file by somebody else) the encoding of the
//! picture says what the array is.

use framegate_shm::{Array, Dtype, Frame, FrameMeta, Loan, Value, lay_out};

use super::wire::{self, Damaged, Field, Fields, File, Type, Writer, descriptor_set, unpack};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    RawImage,
    CompressedImage,
    Frame,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::RawImage, Self::CompressedImage, Self::Frame];

    /// Name of its schema.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RawImage => "foxglove.RawImage",
            Self::CompressedImage => "foxglove.CompressedImage",
            Self::Frame => "framegate.Frame",
        }
    }

    /// Its schema as a recording carries it.
    pub(super) fn descriptors(self) -> Vec<u8> {
        match self {
            Self::RawImage => descriptor_set(&[&TIMESTAMP, &FACTS, &RAW_IMAGE]),
            Self::CompressedImage => descriptor_set(&[&TIMESTAMP, &FACTS, &COMPRESSED_IMAGE]),
            Self::Frame => descriptor_set(&[&TIMESTAMP, &FACTS, &FRAME]),
        }
    }
}

/// Name of the encoding of messages and of schemas.
pub(super) const PROTOBUF: &str = "protobuf";

/// Field of the picture messages that carries `framegate.Facts`.
const FACTS_FIELD: u32 = 1000;

/// Protobuf's own limit of a message, less room for the fields around the payload.
pub(super) const PAYLOAD_BYTES_MAX: usize = (1 << 31) - (1 << 16);

const fn field(number: u32, name: &'static str, kind: Type) -> Field {
    Field {
        number,
        name,
        kind,
        message: "",
        repeated: false,
    }
}

const fn message(number: u32, name: &'static str, message: &'static str, repeated: bool) -> Field {
    Field {
        number,
        name,
        kind: Type::Message,
        message,
        repeated,
    }
}

const SHAPE: Field = Field {
    number: 3,
    name: "shape",
    kind: Type::Uint64,
    message: "",
    repeated: true,
};

const TIMESTAMP: File<'static> = File {
    path: "google/protobuf/timestamp.proto",
    package: "google.protobuf",
    imports: &[],
    messages: &[(
        "Timestamp",
        &[
            Field {
                number: 1,
                name: "seconds",
                kind: Type::Int64,
                message: "",
                repeated: false,
            },
            Field {
                number: 2,
                name: "nanos",
                kind: Type::Int32,
                message: "",
                repeated: false,
            },
        ],
    )],
};
const FACTS: File<'static> = File {
    path: "framegate/Facts.proto",
    package: "framegate",
    imports: &[],
    messages: &[
        (
            "ArrayFacts",
            &[
                field(1, "name", Type::String),
                field(2, "dtype", Type::String),
                SHAPE,
            ],
        ),
        (
            "Facts",
            &[
                field(1, "sequence", Type::Uint64),
                // NaN: the application gave no time.
                field(2, "time", Type::Double),
                field(3, "content_type", Type::Bytes),
                field(4, "metadata", Type::Bytes),
                message(5, "arrays", ".framegate.ArrayFacts", true),
                field(6, "lost", Type::Uint64),
            ],
        ),
    ],
};
const RAW_IMAGE: File<'static> = File {
    path: "foxglove/RawImage.proto",
    package: "foxglove",
    imports: &[TIMESTAMP.path, FACTS.path],
    messages: &[(
        "RawImage",
        &[
            message(1, "timestamp", ".google.protobuf.Timestamp", false),
            field(7, "frame_id", Type::String),
            field(2, "width", Type::Fixed32),
            field(3, "height", Type::Fixed32),
            field(4, "encoding", Type::String),
            field(5, "step", Type::Fixed32),
            field(6, "data", Type::Bytes),
            message(FACTS_FIELD, "framegate", ".framegate.Facts", false),
        ],
    )],
};
const COMPRESSED_IMAGE: File<'static> = File {
    path: "foxglove/CompressedImage.proto",
    package: "foxglove",
    imports: &[TIMESTAMP.path, FACTS.path],
    messages: &[(
        "CompressedImage",
        &[
            message(1, "timestamp", ".google.protobuf.Timestamp", false),
            field(4, "frame_id", Type::String),
            field(2, "data", Type::Bytes),
            field(3, "format", Type::String),
            message(FACTS_FIELD, "framegate", ".framegate.Facts", false),
        ],
    )],
};
const FRAME: File<'static> = File {
    path: "framegate/Frame.proto",
    package: "framegate",
    imports: &[TIMESTAMP.path, FACTS.path],
    messages: &[
        (
            "Array",
            &[
                field(1, "name", Type::String),
                field(2, "dtype", Type::String),
                SHAPE,
                field(4, "data", Type::Bytes),
            ],
        ),
        (
            "Frame",
            &[
                message(1, "timestamp", ".google.protobuf.Timestamp", false),
                message(2, "arrays", ".framegate.Array", true),
                field(3, "data", Type::Bytes),
                message(4, "facts", ".framegate.Facts", false),
            ],
        ),
    ],
};

// ---- pictures

/// A picture smaller than this in either direction is rather a matrix.
const PICTURE_SIDE_MIN: u64 = 16;

/// Encodings of Foxglove and ROS: name, dtype, channels. The first that fits is what a picture is unless its metadata says
/// otherwise.
const ENCODINGS: [(&str, Dtype, u64); 15] = [
    ("mono8", Dtype::Uint8, 1),
    ("rgb8", Dtype::Uint8, 3),
    ("rgba8", Dtype::Uint8, 4),
    ("mono16", Dtype::Uint16, 1),
    ("32FC1", Dtype::Float32, 1),
    ("bgr8", Dtype::Uint8, 3),
    ("bgra8", Dtype::Uint8, 4),
    ("8UC1", Dtype::Uint8, 1),
    ("8UC3", Dtype::Uint8, 3),
    ("16UC1", Dtype::Uint16, 1),
    ("bayer_rggb8", Dtype::Uint8, 1),
    ("bayer_bggr8", Dtype::Uint8, 1),
    ("bayer_gbrg8", Dtype::Uint8, 1),
    ("bayer_grbg8", Dtype::Uint8, 1),
    ("uyvy", Dtype::Uint8, 2),
];
/// More names of the same.
const YUV: [&str; 3] = ["yuv422", "yuyv", "yuv422_yuy2"];

const FORMATS: [(&str, &str); 4] = [
    ("image/jpeg", "jpeg"),
    ("image/png", "png"),
    ("image/webp", "webp"),
    ("image/avif", "avif"),
];

struct Picture {
    encoding: &'static str,
    width: u32,
    height: u32,
    step: u32,
}

/// Encoding that the publisher named in the frame's metadata: `{"encoding": "bgr8"}`.
fn named_encoding(frame: &Frame) -> Option<String> {
    let values = frame.metadata().ok()?; // another program's own bytes are no map, and name nothing
    values.into_iter().find_map(|entry| match entry {
        ("encoding", Value::Str(name)) => Some(name.to_owned()),
        _ => None,
    })
}

fn picture_of(arrays: &[Array], named: Option<&str>, bgr: bool) -> Option<Picture> {
    let [array] = arrays else { return None };
    let dtype = array.dtype()?;
    let (height, width, channels) = match *array.shape() {
        [height, width] => (height, width, 1),
        [height, width, channels] => (height, width, channels),
        _ => return None,
    };
    let step = width
        .checked_mul(channels)?
        .checked_mul(dtype.item_bytes() as u64)?;
    let fits = |row: &&(&'static str, Dtype, u64)| row.1 == dtype && row.2 == channels;
    let named = named.and_then(|name| {
        let row = ENCODINGS.iter().find(|row| row.0 == name && fits(row));
        let yuv = YUV
            .into_iter()
            .find(|&yuv| yuv == name && dtype == Dtype::Uint8 && channels == 2);
        row.map(|row| row.0).or(yuv)
    });
    let usual = || {
        let usual = ENCODINGS[..5].iter().find(fits)?.0;
        let large = height >= PICTURE_SIDE_MIN && width >= PICTURE_SIDE_MIN;
        large.then_some(match usual {
            "rgb8" if bgr => "bgr8",
            "rgba8" if bgr => "bgra8",
            usual => usual,
        })
    };
    Some(Picture {
        encoding: named.or_else(usual)?,
        width: u32::try_from(width).ok()?,
        height: u32::try_from(height).ok()?,
        step: u32::try_from(step).ok()?,
    })
}

/// Writes the message of a frame into `out`, which is empty.
///
/// `published_unix_ns` is what the message is stamped with if the application gave no time.
pub(super) fn encode(
    frame: &Frame,
    arrays: &[Array],
    bgr: bool,
    published_unix_ns: u64,
    out: &mut Vec<u8>,
) -> Kind {
    let content_type = frame.content_type().unwrap_or_default();
    let mut out = Writer(out);
    write_timestamp(&mut out, frame.timestamp_s(), published_unix_ns);
    let format = FORMATS
        .iter()
        .find(|(media, _)| arrays.is_empty() && media.as_bytes() == content_type);
    if let Some((_, format)) = format {
        out.bytes(3, format.as_bytes());
        write_facts(&mut out, FACTS_FIELD, frame, &[]);
        out.bytes(2, frame);
        return Kind::CompressedImage;
    }
    let named = named_encoding(frame);
    if let Some(picture) = picture_of(arrays, named.as_deref(), bgr) {
        out.fixed32(2, picture.width);
        out.fixed32(3, picture.height);
        out.bytes(4, picture.encoding.as_bytes());
        out.fixed32(5, picture.step);
        write_facts(&mut out, FACTS_FIELD, frame, arrays);
        out.bytes(6, bytes_of(frame, &arrays[0]));
        return Kind::RawImage;
    }
    write_facts(&mut out, 4, frame, &[]);
    for array in arrays {
        out.message(2, Some((4, bytes_of(frame, array))), |out| {
            write_array_facts(out, array);
        });
    }
    if arrays.is_empty() {
        out.bytes(3, frame);
    }
    Kind::Frame
}

/// Bytes of an array of a frame. The library checked its place against the payload.
fn bytes_of<'a>(frame: &'a Frame, array: &Array) -> &'a [u8] {
    let begin = array.offset() as usize;
    frame
        .get(begin..begin.saturating_add(array.bytes() as usize))
        .unwrap_or_default()
}

fn write_timestamp(out: &mut Writer<'_>, time_s: Option<f64>, published_unix_ns: u64) {
    // What a Timestamp can say: the years 1 to 9999; we keep to times after 1970.
    let own = time_s.filter(|time| (0.0..253_402_300_800.0).contains(time));
    #[expect(clippy::cast_sign_loss, reason = "checked to be positive")]
    let (seconds, nanos) = match own {
        Some(time) => {
            let nanos = ((time - time.floor()) * 1e9).round() as u64;
            (
                time.floor() as u64 + nanos / 1_000_000_000,
                nanos % 1_000_000_000,
            )
        }
        None => (
            published_unix_ns / 1_000_000_000,
            published_unix_ns % 1_000_000_000,
        ),
    };
    out.message(1, None, |out| {
        out.uint(1, seconds);
        out.uint(2, nanos);
    });
}

fn write_facts(out: &mut Writer<'_>, number: u32, frame: &Frame, arrays: &[Array]) {
    out.message(number, None, |out| {
        out.uint(1, frame.sequence());
        out.double(2, frame.timestamp_s().unwrap_or(f64::NAN));
        out.bytes(3, frame.content_type().unwrap_or_default());
        out.bytes(4, frame.user_metadata());
        for array in arrays {
            out.message(5, None, |out| write_array_facts(out, array));
        }
        out.uint(6, frame.lost());
    });
}

fn write_array_facts(out: &mut Writer<'_>, array: &Array) {
    out.bytes(1, array.name().as_bytes());
    out.bytes(2, array.dtype().map_or("", Dtype::name).as_bytes());
    out.packed(3, array.shape());
}

// ---- back

/// Bytes of an array: rows of `row_bytes`, each `step` after the one before it.
struct Rows<'a> {
    data: &'a [u8],
    row_bytes: usize,
    step: usize,
}

/// A frame as a message of a recording holds it.
pub(super) struct Decoded<'a> {
    /// The application's time.
    time_s: Option<f64>,
    content_type: Option<&'a str>,
    metadata: &'a [u8],
    /// Placed by `lay_out`; empty: raw bytes.
    pub(super) arrays: Vec<Array>,
    data: Vec<Rows<'a>>,
    /// Payload bytes.
    pub(super) bytes: usize,
}

#[derive(Default)]
struct Facts<'a> {
    time_s: Option<f64>,
    content_type: &'a [u8],
    metadata: &'a [u8],
    arrays: Vec<Array>,
}

impl<'a> Decoded<'a> {
    /// Reads a message by the name of its schema and its encoding. What neither is known of becomes raw bytes.
    pub(super) fn read(schema: &str, encoding: &str, data: &'a [u8]) -> Result<Self, Damaged> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| encoding == PROTOBUF && kind.name() == schema);
        match kind {
            Some(Kind::RawImage) => Self::raw_image(data),
            Some(Kind::CompressedImage) => Self::compressed_image(data),
            Some(Kind::Frame) => Self::frame(data),
            None => {
                let facts = Facts {
                    content_type: match encoding {
                        "json" => b"application/json",
                        "protobuf" => b"application/x-protobuf",
                        "cbor" => b"application/cbor",
                        "cdr" => b"application/cdr",
                        _ => b"application/octet-stream",
                    },
                    ..Facts::default()
                };
                Self::raw(&facts, data)
            }
        }
    }

    fn raw(facts: &Facts<'a>, data: &'a [u8]) -> Result<Self, Damaged> {
        let rows = Rows {
            data,
            row_bytes: data.len(),
            step: data.len(),
        };
        Self::new(facts, Vec::new(), vec![rows])
    }

    fn new(
        facts: &Facts<'a>,
        mut arrays: Vec<Array>,
        data: Vec<Rows<'a>>,
    ) -> Result<Self, Damaged> {
        let bytes = if arrays.is_empty() {
            data.iter().map(|rows| rows.data.len()).sum()
        } else {
            usize::try_from(lay_out(&mut arrays).map_err(|_| Damaged)?).map_err(|_| Damaged)?
        };
        Ok(Self {
            time_s: facts.time_s,
            content_type: (!facts.content_type.is_empty())
                .then(|| std::str::from_utf8(facts.content_type))
                .transpose()
                .map_err(|_| Damaged)?,
            metadata: facts.metadata,
            arrays,
            data,
            bytes,
        })
    }

    fn compressed_image(data: &'a [u8]) -> Result<Self, Damaged> {
        let (mut facts, mut time_s, mut pixels, mut format) = (None, None, &[][..], "");
        for item in Fields(data) {
            match item? {
                (1, value) => time_s = read_timestamp(value)?,
                (2, value) => pixels = value.bytes(),
                (3, value) => format = value.text()?,
                (FACTS_FIELD, value) => facts = Some(read_facts(value)?),
                _ => {}
            }
        }
        let media = FORMATS.iter().find(|row| row.1 == format);
        let foreign = || Facts {
            time_s,
            content_type: media.map_or(&b"application/octet-stream"[..], |row| row.0.as_bytes()),
            ..Facts::default()
        };
        Self::raw(&facts.unwrap_or_else(foreign), pixels)
    }

    fn raw_image(data: &'a [u8]) -> Result<Self, Damaged> {
        let (mut facts, mut time_s, mut pixels, mut encoding) = (None, None, &[][..], "");
        let (mut width, mut height, mut step) = (0, 0, 0);
        for item in Fields(data) {
            match item? {
                (1, value) => time_s = read_timestamp(value)?,
                (2, value) => width = value.uint(),
                (3, value) => height = value.uint(),
                (4, value) => encoding = value.text()?,
                (5, value) => step = value.uint(),
                (6, value) => pixels = value.bytes(),
                (FACTS_FIELD, value) => facts = Some(read_facts(value)?),
                _ => {}
            }
        }
        if let Some(mut facts) = facts {
            let arrays = std::mem::take(&mut facts.arrays);
            let whole = whole(pixels, arrays.first().ok_or(Damaged)?)?;
            return Self::new(&facts, arrays, vec![whole]);
        }
        let facts = Facts {
            time_s,
            ..Facts::default()
        };
        let known = ENCODINGS.iter().find(|row| row.0 == encoding);
        let yuv = YUV.contains(&encoding).then_some((Dtype::Uint8, 2));
        let Some((dtype, channels)) = known.map(|row| (row.1, row.2)).or(yuv) else {
            return Self::raw(&facts, pixels); // an encoding of later days
        };
        let array = match channels {
            1 => Array::new("", dtype, &[height, width]),
            _ => Array::new("", dtype, &[height, width, channels]),
        };
        let row_bytes = (width * channels) as usize * dtype.item_bytes();
        let step = if step == 0 { row_bytes } else { step as usize };
        let needed = match height as usize {
            0 => 0,
            height => (height - 1).checked_mul(step).ok_or(Damaged)? + row_bytes,
        };
        if step < row_bytes || pixels.len() < needed {
            return Err(Damaged);
        }
        let rows = Rows {
            data: &pixels[..needed],
            row_bytes,
            step,
        };
        Self::new(&facts, vec![array], vec![rows])
    }

    fn frame(data: &'a [u8]) -> Result<Self, Damaged> {
        let (mut facts, mut raw) = (Facts::default(), &[][..]);
        let (mut arrays, mut parts) = (Vec::new(), Vec::new());
        for item in Fields(data) {
            match item? {
                (2, value) => {
                    let (array, bytes) = read_array(value)?;
                    parts.push(whole(bytes, &array)?);
                    arrays.push(array);
                }
                (3, value) => raw = value.bytes(),
                (4, value) => facts = read_facts(value)?,
                _ => {}
            }
        }
        if arrays.is_empty() {
            return Self::raw(&facts, raw);
        }
        Self::new(&facts, arrays, parts)
    }

    /// Copies the payload into a loan of at least `bytes`.
    pub(super) fn fill(&self, loan: &mut Loan) {
        let room = loan.as_mut_slice();
        for (i, rows) in self.data.iter().enumerate() {
            let mut at = self
                .arrays
                .get(i)
                .map_or(0, |array| array.offset() as usize);
            for row in rows.data.chunks(rows.step.max(1)) {
                let row = &row[..rows.row_bytes.min(row.len())];
                room[at..at + row.len()].copy_from_slice(row);
                at += row.len();
            }
        }
    }

    /// What travels beside the payload.
    pub(super) fn meta(&self) -> FrameMeta<'_> {
        FrameMeta {
            bytes: Some(self.bytes),
            timestamp_s: self.time_s,
            arrays: &self.arrays,
            content_type: self.content_type,
            user_metadata: self.metadata,
        }
    }
}

/// Bytes without padding; as many as the array needs.
fn whole<'a>(data: &'a [u8], array: &Array) -> Result<Rows<'a>, Damaged> {
    let rows = Rows {
        data,
        row_bytes: data.len(),
        step: data.len(),
    };
    (data.len() as u64 == array.bytes())
        .then_some(rows)
        .ok_or(Damaged)
}

fn read_timestamp(value: wire::Value<'_>) -> Result<Option<f64>, Damaged> {
    let (mut seconds, mut nanos) = (0, 0);
    for item in Fields(value.bytes()) {
        match item? {
            (1, value) => seconds = value.uint(),
            (2, value) => nanos = value.uint(),
            _ => {}
        }
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "an f64 of seconds is what a frame has"
    )]
    let time = (seconds as f64) + (nanos as f64) / 1e9;
    Ok((seconds != 0 || nanos != 0).then_some(time))
}

fn read_facts(value: wire::Value<'_>) -> Result<Facts<'_>, Damaged> {
    let mut facts = Facts::default();
    for item in Fields(value.bytes()) {
        match item? {
            (2, value) => facts.time_s = Some(value.double()).filter(|time| !time.is_nan()),
            (3, value) => facts.content_type = value.bytes(),
            (4, value) => facts.metadata = value.bytes(),
            (5, value) => facts.arrays.push(read_array(value)?.0),
            _ => {}
        }
    }
    Ok(facts)
}

fn read_array(value: wire::Value<'_>) -> Result<(Array, &[u8]), Damaged> {
    let (mut name, mut dtype, mut shape, mut data) = ("", "", Vec::new(), &[][..]);
    for item in Fields(value.bytes()) {
        match item? {
            (1, value) => name = value.text()?,
            (2, value) => dtype = value.text()?,
            (3, value) => shape.extend(unpack(value)?),
            (4, value) => data = value.bytes(),
            _ => {}
        }
    }
    let dtype = Dtype::from_name(dtype).ok_or(Damaged)?;
    Ok((Array::new(name, dtype, &shape), data))
}
