//! Metadata of a topic and of its arrays: read at any time, appended while the topic runs.
#![expect(unsafe_code, reason = "the whole file is calls into the library")]

use crate::error::{Error, check};
use crate::sys;
use crate::topic::Topic;
use crate::values::{Value, values_from_raw};

const OF_TOPIC: u32 = u32::MAX;
const EMPTY: sys::Status = 12;

/// A copy of all metadata at one generation.
#[derive(Clone, Debug)]
pub struct Metadata {
    generation: u32,
    bytes: Vec<u8>,
}

impl Metadata {
    pub(crate) fn read(topic: &Topic) -> Result<Self, Error> {
        let mut bytes = vec![0_u8; topic.metadata_bytes()?];
        let mut used = 0;
        let mut generation = 0;
        // SAFETY: the handle is live; a buffer and its length, places for the numbers.
        check(unsafe {
            sys::fg_topic_metadata(
                topic.as_ptr(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                &raw mut used,
                &raw mut generation,
            )
        })?;
        bytes.truncate(used);
        let metadata = Self { generation, bytes };
        metadata.records()?; // so that no later look can fail
        Ok(metadata)
    }

    /// Grows with every append.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// What is said about the topic under this key; of several the latest.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.find(OF_TOPIC, key).last()
    }

    /// What is said about array `index` of the schema under this key; of several the latest.
    pub fn of_array(&self, index: u32, key: &str) -> Option<Value<'_>> {
        self.find(index, key).last()
    }

    /// Units of array `index` of the schema; they never change.
    pub fn units(&self, index: u32) -> Option<&str> {
        self.find(index, "units").find_map(|value| match value {
            Value::Str(units) => Some(units),
            _ => None,
        })
    }

    fn find<'a>(&'a self, array: u32, key: &str) -> impl Iterator<Item = Value<'a>> {
        self.records()
            .unwrap_or_default()
            .into_iter()
            .filter(move |record| record.0 == array && record.1 == key)
            .map(|record| record.2)
    }

    fn records(&self) -> Result<Vec<(u32, &str, Value<'_>)>, Error> {
        let mut records = Vec::new();
        let mut position = 0;
        loop {
            let mut raw = [Value::Bool(false).to_raw(""); sys::VALUES_MAX];
            let mut count = 0;
            let mut array = 0;
            // SAFETY: bytes and their length; places for as many values as a map may have and for the numbers.
            let status = unsafe {
                sys::fg_metadata_next(
                    self.bytes.as_ptr().cast(),
                    self.bytes.len(),
                    &raw mut position,
                    &raw mut array,
                    raw.as_mut_ptr(),
                    raw.len(),
                    &raw mut count,
                )
            };
            if status == EMPTY {
                return Ok(records);
            }
            check(status)?;
            // SAFETY: the values point into `self.bytes`, which outlives the result.
            let values = unsafe { values_from_raw(&raw[..count.min(raw.len())]) };
            records.extend(values.into_iter().map(|(key, value)| (array, key, value)));
        }
    }
}

pub(crate) fn append(topic: &Topic, values: &[(&str, Value<'_>)]) -> Result<u32, Error> {
    let raw: Vec<sys::Value> = values
        .iter()
        .map(|(key, value)| value.to_raw(key))
        .collect();
    let metadata = sys::Metadata {
        array: OF_TOPIC,
        value_count: u32::try_from(raw.len()).unwrap_or(u32::MAX), // too many stay too many
        values: raw.as_ptr(),
    };
    let mut generation = 0;
    // SAFETY: the handle is live; the values outlive the call.
    check(unsafe {
        sys::fg_topic_append_metadata(topic.as_ptr(), &raw const metadata, &raw mut generation)
    })?;
    Ok(generation)
}

pub(crate) fn generation(topic: &Topic) -> u32 {
    // SAFETY: the handle is live.
    unsafe { sys::fg_topic_metadata_generation(topic.as_ptr()) }
}
