//! What a text is like: language, readability, reflection. One function each, called by reward, filter and metric alike.
//!
//! Measures do not know whether an answer is right, and set no thresholds but the documented default of `readability::is_readable`.
//! All are total and linear in the length of the text.

pub mod census;
pub mod language;
mod pieces;
pub mod readability;
pub mod reflection;
pub mod repetition;
