//! What native routes decide before any Python runs: which handler a request belongs to, whether its parameters and its body are
//! what the handler asks for, and what the client is told when they are not.
//!
//! In the order of a request:
//!
//! 1. [`Router`] finds the route by path and method, or says what to answer instead (404, 405 with `Allow`, a redirect).
//! 2. [`parameter::Kind`] turns the text of one parameter into a number, a date, one of an enumeration, or says why it is none.
//! 3. [`json::read`] reads a body strictly, once, into a [`json::Value`] that borrows from the body.
//! 4. [`Schema`] checks the value against JSON Schema 2020-12 and collects everything that is wrong with it.
//! 5. [`Problem`] is the answer to what was refused: RFC 9457, with JSON pointers.
//!
//! The crate knows neither Python nor sockets. `examples/items.rs` puts it on `framegate-http`.

#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod json;
pub mod parameter;
pub mod pattern;
pub mod problem;
mod router;
pub mod schema;
pub mod text;

pub use problem::{Fault, Place, Problem};
pub use router::{Found, Router, TrailingSlash};
pub use schema::Schema;
