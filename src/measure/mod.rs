//! What a text is like: language, readability, repetition, behaviours, what it does behind its first answer. One function each, called by reward,
//! filter and metric alike; `census` runs all of them over many texts.
//!
//! Measures do not know whether an answer is right, and set no thresholds but the documented defaults of `readability::is_readable` and
//! `repetition::is_repetitive`. All are total and linear in the length of the text.

pub mod after_answer;
pub mod behaviours;
pub(crate) mod bytes;
pub mod census;
pub mod language;
mod phrases;
mod pieces;
pub mod readability;
pub mod reflection;
pub mod repetition;

#[cfg(test)]
mod tests;
