//! JSON (RFC 8259), read strictly and once.
//!
//! A [`Value`] borrows from the text it was read from: strings without escapes and all numbers are pieces of it, so that reading
//! copies next to nothing and a number keeps every digit. Objects keep the order of their members and have each name once.

mod number;
mod reader;
mod value;
mod write;

pub use number::Number;
pub use reader::{Error, ErrorKind, Limits, read};
pub use value::{Object, Value};
pub use write::{push_float, push_string};
