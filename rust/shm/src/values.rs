//! Small typed maps: user metadata of frames, metadata of topics and arrays. On the wire a subset of `MessagePack`.
#![expect(unsafe_code, reason = "the whole file is calls into the library")]

use std::ptr;

use crate::error::{Error, check};
use crate::sys;

/// One value of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Value<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
}

const BOOL: u32 = 1;
const INT: u32 = 2;
const FLOAT: u32 = 3;
const STRING: u32 = 4;
const BYTES: u32 = 5;

impl<'a> Value<'a> {
    pub(crate) fn to_raw(self, key: &'a str) -> sys::Value {
        let mut raw = sys::Value {
            key: key.as_ptr().cast(),
            key_bytes: u32::try_from(key.len()).unwrap_or(u32::MAX), // too long stays too long
            kind: 0,
            integer: 0,
            real: 0.0,
            data: ptr::null(),
            data_bytes: 0,
        };
        match self {
            Value::Bool(value) => (raw.kind, raw.integer) = (BOOL, i64::from(value)),
            Value::Int(value) => (raw.kind, raw.integer) = (INT, value),
            Value::Float(value) => (raw.kind, raw.real) = (FLOAT, value),
            Value::Str(value) => {
                raw.kind = STRING;
                raw.data = value.as_ptr().cast();
                raw.data_bytes = value.len() as u64;
            }
            Value::Bytes(value) => {
                raw.kind = BYTES;
                raw.data = value.as_ptr().cast();
                raw.data_bytes = value.len() as u64;
            }
        }
        raw
    }
}

/// Writes a map, for `FrameMeta::user_metadata`.
///
/// # Errors
///
/// `is_invalid_argument`: more than 128 values, a key that is empty, longer than 64 bytes or there twice.
pub fn encode_values(values: &[(&str, Value<'_>)]) -> Result<Vec<u8>, Error> {
    let raw: Vec<sys::Value> = values
        .iter()
        .map(|(key, value)| value.to_raw(key))
        .collect();
    let mut bytes = 0;
    // SAFETY: values and their count; nothing is written with a capacity of 0, except `bytes`.
    let asked = unsafe {
        sys::fg_values_encode(raw.as_ptr(), raw.len(), ptr::null_mut(), 0, &raw mut bytes)
    };
    if bytes == 0 {
        check(asked)?;
    }
    let mut out = vec![0; bytes];
    // SAFETY: as above; a buffer and its length.
    check(unsafe {
        sys::fg_values_encode(
            raw.as_ptr(),
            raw.len(),
            out.as_mut_ptr().cast(),
            out.len(),
            &raw mut bytes,
        )
    })?;
    Ok(out)
}

/// Reads a map of whatever origin, in the order in which it was written. No byte at all is an empty map.
///
/// # Errors
///
/// `is_invalid_argument`: the bytes are no such map; the text says where.
pub fn decode_values(bytes: &[u8]) -> Result<Vec<(&str, Value<'_>)>, Error> {
    let none = Value::Bool(false).to_raw("");
    let mut raw = [none; sys::VALUES_MAX];
    let mut count = 0;
    // SAFETY: bytes and their length; a place for as many values as a map may have.
    check(unsafe {
        sys::fg_values_decode(
            bytes.as_ptr().cast(),
            bytes.len(),
            raw.as_mut_ptr(),
            raw.len(),
            &raw mut count,
        )
    })?;
    // SAFETY: the values point into `bytes`, which outlives the result.
    Ok(unsafe { values_from_raw(&raw[..count.min(sys::VALUES_MAX)]) })
}

/// # Safety
///
/// Keys and data must point to memory that stays as it is for `'a`.
pub(crate) unsafe fn values_from_raw<'a>(raw: &[sys::Value]) -> Vec<(&'a str, Value<'a>)> {
    // SAFETY: the caller's promise.
    let slice = |data: *const u8, length: usize| unsafe {
        if length == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(data, length)
        }
    };
    // The library checked that it is UTF-8; a hostile publisher may change it since then, which costs it its text.
    let text = |data: *const u8, length: usize| {
        std::str::from_utf8(slice(data, length)).unwrap_or_default()
    };
    raw.iter()
        .map(|entry| {
            let data = entry.data.cast();
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a length inside of what was read"
            )]
            let length = entry.data_bytes as usize;
            let value = match entry.kind {
                BOOL => Value::Bool(entry.integer != 0),
                INT => Value::Int(entry.integer),
                FLOAT => Value::Float(entry.real),
                STRING => Value::Str(text(data, length)),
                _ => Value::Bytes(slice(data, length)),
            };
            (text(entry.key.cast(), entry.key_bytes as usize), value)
        })
        .collect()
}
