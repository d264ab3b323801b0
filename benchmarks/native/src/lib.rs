//! What the load generator and the limit server share.
//!
//! Neither is part of framegate: the limit shows what one thread of hyper can do with no Python at all, and the
//! load generator is ours because wrk can neither hold a rate nor speak WebSocket.

pub mod arguments;
pub mod wsframe;
