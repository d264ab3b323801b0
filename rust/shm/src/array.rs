//! Named arrays in a frame: dtype, shape and place.

use crate::error::{Error, check};
use crate::sys;

/// Type of the items of an array, with numpy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Dtype {
    Bool = 1,
    Int8 = 2,
    Int16 = 3,
    Int32 = 4,
    Int64 = 5,
    Uint8 = 6,
    Uint16 = 7,
    Uint32 = 8,
    Uint64 = 9,
    Float16 = 10,
    Float32 = 11,
    Float64 = 12,
    Complex64 = 13,
    Complex128 = 14,
    Bfloat16 = 15,
}

impl Dtype {
    const ALL: [(Self, &'static str, usize); 15] = [
        (Self::Bool, "bool", 1),
        (Self::Int8, "int8", 1),
        (Self::Int16, "int16", 2),
        (Self::Int32, "int32", 4),
        (Self::Int64, "int64", 8),
        (Self::Uint8, "uint8", 1),
        (Self::Uint16, "uint16", 2),
        (Self::Uint32, "uint32", 4),
        (Self::Uint64, "uint64", 8),
        (Self::Float16, "float16", 2),
        (Self::Float32, "float32", 4),
        (Self::Float64, "float64", 8),
        (Self::Complex64, "complex64", 8),
        (Self::Complex128, "complex128", 16),
        (Self::Bfloat16, "bfloat16", 2),
    ];

    /// The dtype of a name such as `"float32"`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Numpy's name, e.g. `"float32"`.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize - 1].1
    }

    /// Bytes of one item.
    pub fn item_bytes(self) -> usize {
        Self::ALL[self as usize - 1].2
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .get(usize::from(code).checked_sub(1)?)
            .map(|row| row.0)
    }
}

/// Descriptor of one array of a frame or of a topic's schema: C order, at an offset of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Array(pub(crate) sys::Array);

impl Array {
    /// In a schema: this dimension may have any length.
    pub const DIMENSION_ANY: u64 = sys::DIMENSION_ANY;

    /// Describes an array at offset 0; several are placed by [`lay_out`].
    ///
    /// `name` may be empty. A name over 36 bytes or more than 8 dimensions are an invalid argument later, where
    /// the descriptor is used.
    pub fn new(name: &str, dtype: Dtype, shape: &[u64]) -> Self {
        let mut raw = sys::Array {
            name: [0; sys::ARRAY_NAME_BYTES_MAX],
            // Out-of-range lengths are kept out of range, so that the library refuses them with its text.
            name_bytes: u8::try_from(name.len()).unwrap_or(u8::MAX),
            dtype: dtype as u8,
            dimension_count: u8::try_from(shape.len()).unwrap_or(u8::MAX),
            flags: 0,
            shape: [0; sys::ARRAY_DIMENSIONS_MAX],
            offset: 0,
            bytes: 0,
            record_bytes: 0,
            record_dimensions: 0,
        };
        let copied = name.len().min(raw.name.len());
        raw.name[..copied].copy_from_slice(&name.as_bytes()[..copied]);
        let dimensions = shape.len().min(raw.shape.len());
        raw.shape[..dimensions].copy_from_slice(&shape[..dimensions]);
        raw.bytes = shape
            .iter()
            .try_fold(dtype.item_bytes() as u64, |total, &length| {
                total.checked_mul(length)
            })
            .unwrap_or(u64::MAX);
        Self(raw)
    }

    /// Describes a field of records, as of an array of C structs of `record_bytes` each: its first
    /// `record_dimensions` dimensions count records, and it lies at `offset` in each of them.
    ///
    /// Either all arrays of a frame are fields of the same records, or none is.
    #[must_use]
    pub fn in_records(mut self, offset: u64, record_bytes: u32, record_dimensions: u32) -> Self {
        self.0.flags = 1;
        self.0.offset = offset;
        self.0.record_bytes = record_bytes;
        self.0.record_dimensions = record_dimensions;
        self
    }

    /// Bytes from one record to the next and the number of dimensions that count records; `None` if the array is no
    /// field of records.
    pub fn record(&self) -> Option<(u32, u32)> {
        (self.0.flags == 1).then_some((self.0.record_bytes, self.0.record_dimensions))
    }

    /// Name; lossy if the publisher did not write UTF-8.
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        let bytes = usize::from(self.0.name_bytes).min(self.0.name.len());
        String::from_utf8_lossy(&self.0.name[..bytes])
    }

    /// Type of the items; `None` for a code of a later version.
    pub fn dtype(&self) -> Option<Dtype> {
        Dtype::from_code(self.0.dtype)
    }

    /// Lengths of the dimensions.
    pub fn shape(&self) -> &[u64] {
        &self.0.shape[..usize::from(self.0.dimension_count).min(self.0.shape.len())]
    }

    /// Where the array begins in the payload.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }
}

/// Places arrays one after the other at multiples of 64 and returns the payload bytes that they need.
///
/// # Errors
///
/// `is_invalid_argument` for a bad name, too many dimensions or an overflow.
#[expect(unsafe_code, reason = "one call into the library")]
pub fn lay_out(arrays: &mut [Array]) -> Result<u64, Error> {
    let mut payload_bytes = 0;
    // SAFETY: `Array` is a transparent `sys::Array`; the library writes inside of `len` of them.
    check(unsafe {
        sys::fg_arrays_lay_out(
            arrays.as_mut_ptr().cast(),
            arrays.len(),
            &raw mut payload_bytes,
        )
    })?;
    Ok(payload_bytes)
}
