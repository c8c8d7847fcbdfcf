//! `distill`: from a teacher and checkable problems to a verified trace corpus and a student, and an honest report of how close it comes.
//!
//! ARCHITECTURE.md is the map; `tests/tidy.rs` holds the floors that it names.

pub mod cli;
pub mod filter;
pub mod hub;
pub mod judge;
pub mod key;
pub mod lanes;
pub mod measure;
pub mod memory;
pub mod metric;
pub mod model;
pub mod problem;
pub mod publish;
pub mod recipe;
pub mod report;
pub mod response;
pub mod reward;
pub mod rollout;
pub mod sampler;
pub mod sandbox;
pub mod shard;
pub mod stage;
pub mod tasks;
pub mod trace;
pub mod train;
pub mod verify;
