//! Running untrusted Python programs, or refusing to.
//!
//! A program runs in namespaces of its own, on a root that holds an interpreter and nothing else, behind landlock and a system call filter,
//! within limits; or it does not run at all. What it gives back is plain text that was made inside, to be judged outside. This module knows no
//! problem and no right answer: those stay with the caller, so nothing a program can read, patch or print says what was expected.
//!
//! The processes, each watching the one above it: this program → a helper (this same program, started again, `enter`) → an init of our own,
//! process 1 of the new namespaces → the user's program. The helper is a fresh start and no fork: a process with threads may hardly do
//! anything between `fork` and `exec`, and a fork of one that holds a model would copy its page tables for every program.

mod bwrap;
mod child;
mod driver;
mod filter;
mod helper;
mod launch;
mod limits;
mod lines;
mod python;
mod root;
mod selftest;
mod steps;
mod tier;
mod warm;
mod watch;

pub use driver::{Job, text};
pub use helper::enter;
pub use launch::{Failed, Outcome, Sandbox};
pub use limits::{Fault, Limits};
pub use python::Python;
pub use selftest::{Check, selftest};
pub use tier::{Options, Refused, Tier};
