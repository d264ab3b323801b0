//! Models of the shared-memory protocol of `cpp/src`, and of the limits that workers share: what tests cannot reach by running, all
//! orders of all steps with a death before any of them.
//!
//! | module | what |
//! |---|---|
//! | [`frames`] | loan, publish, abandon, take, release, futexes, attach, reap, reliable, resize |
//! | [`group`] | work-queue groups |
//! | [`membership`] | groups that are founded, joined, left and ended |
//! | [`retire`] | groups across a resize: when an old generation may go |
//! | [`mailbox`] | requests, replies, their slots |
//! | [`wake`] | event loops |
//! | [`counts`], [`buckets`] | the limits of all workers: what is counted, rates |
//! | [`explore`] | the search through all states; sequentially consistent |
//! | [`orderings`], [`rc11`] | the memory orders that the steps rest on, weakened one at a time |
//!
//! Each model has a list of configurations that must hold and a list of mutants: rules of the protocol that can be left
//! out. `tests/models.rs` demands that the quick configurations hold and that every mutant is noticed. The big
//! configurations take minutes and gigabytes: `cargo run -p framegate-model -- big`. The names of states and steps are
//! those of the C++ sources and of `docs/design/crash-safety.md`; whoever changes the protocol there changes it here first.

#![allow(clippy::too_many_lines)] // a step function has one arm per step, side by side
#![allow(clippy::trivially_copy_pass_by_ref)] // a configuration is `self` of a trait, small or not

pub mod buckets;
pub mod counts;
pub mod explore;
pub mod frames;
pub mod group;
pub mod mailbox;
pub mod membership;
pub mod orderings;
pub mod rc11;
pub mod retire;
pub mod wake;
