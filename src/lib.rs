//! `distill`: from a teacher and checkable problems to a verified trace corpus and a student, and an honest report of how close it comes.
//!
//! ARCHITECTURE.md is the map; `tests/tidy.rs` holds the floors that it names.

pub mod key;
pub mod model;
pub mod problem;
pub mod publish;
pub mod response;
pub mod trace;
