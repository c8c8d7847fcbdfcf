//! Untrusted programs against the real sandbox, through the real binary as its helper.
//!
//! `programs.rs` holds the rows: hostile and well-meaning programs with the verdict each must get, in every tier that this machine offers. Where it
//! offers none, these tests say that they were skipped; that the sandbox then refuses is tested all the same.

mod data;
mod machine;
mod programs;
mod refusal;
mod rollouts;
mod verdicts;

use distill::sandbox::{Options, Sandbox, Tier};
use distill::verify::Extraction;
use distill::verify::code::Code;
use std::path::PathBuf;

/// The program as a helper: in these tests `/proc/self/exe` is the test.
pub fn options() -> Options {
    Options { helper: PathBuf::from(env!("CARGO_BIN_EXE_distill")), ..Options::default() }
}

/// The verifier with these options, or a line that says why there is none here.
pub fn code(options: Options) -> Option<Code> {
    match Code::open(options, Extraction::Strict) {
        Ok(code) => Some(code),
        Err(error) => {
            eprintln!("skipped: a sandbox is missing ({error})");
            None
        }
    }
}

/// Cold and warm interpreters in our own namespaces, and bubblewrap where it is installed.
pub fn tiers() -> Vec<(&'static str, Options)> {
    vec![
        ("native, cold", Options { only: Some(Tier::Native), warm: false, ..options() }),
        ("native, warm", Options { only: Some(Tier::Native), warm: true, ..options() }),
        ("bwrap", Options { only: Some(Tier::Bwrap), ..options() }),
    ]
}

#[test]
fn the_tier_that_is_taken_is_the_strongest_one() {
    let Some(code) = code(options()) else { return };
    let native = Sandbox::open(Options { only: Some(Tier::Native), ..options() }).is_ok();
    assert_eq!(code.tier(), if native { Tier::Native } else { Tier::Bwrap });
}

#[test]
fn every_escape_of_the_self_test_is_held() {
    for (name, options) in tiers() {
        let Some(code) = code(options) else { continue };
        let checks = distill::sandbox::selftest(code.sandbox()).expect("it runs");
        assert!(checks.len() >= 10, "{} checks", checks.len());
        for check in checks {
            assert!(check.held, "{name}: {}: {}", check.name, check.detail);
        }
    }
}
