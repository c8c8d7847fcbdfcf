//! The stages: one file per command, wired from the floors below; the run directory, resuming, and what the person sees meanwhile.
//!
//! A stage reads only folders of earlier stages and writes one folder of its own, whose last file is `DONE`. Running the same command
//! again goes on where the last one ended. No formula lives here.

mod cache;
mod chain;
mod collect;
mod decontaminate;
pub mod doctor;
pub mod evaluate;
mod examples;
pub mod filter;
pub mod init;
pub mod judge;
pub mod merge;
pub mod models;
pub mod phase;
pub mod plan;
pub mod problems;
mod rules;
mod run;
pub mod sample;
pub mod show;
mod speaker;
mod ui;
pub mod verify;

pub use run::{ConfigError, Interrupted, Run, Status, config};
pub use ui::{Ui, colours, columns, complain, interrupt_requested, watch_for_interrupts};

use anyhow::Result;
use std::path::PathBuf;

/// The whole pipeline, skipping what is done.
pub fn run_all(run: &Run) -> Result<()> {
    let held_out = problems::held_out(run)?;
    phase::teacher(run)?;
    if run.recipe.teacher.is_some() {
        sample::stage(run)?;
        filter::stage(run, None)?;
        if run.recipe.judge.is_some() {
            judge::stage(run, &run.dir)?;
        }
    }
    phase::student(run)?;
    phase::controls(run)?;
    evaluate::measure_all(run, &held_out)?;
    crate::report::write(&run.dir)?;
    Ok(())
}

/// The shards to learn from at a path: itself, or a run's corpus or, before there is one, its traces.
pub fn training_shards(path: &std::path::Path) -> Result<PathBuf> {
    run::shards(path, [filter::FOLDER, sample::FOLDER])
}

/// The traces to look at again at a path: itself, or a run's traces or, where there are none, its corpus.
pub fn stored_shards(path: &std::path::Path) -> Result<PathBuf> {
    run::shards(path, [sample::FOLDER, filter::FOLDER])
}

/// The default folder of a run.
pub fn default_folder(name: &str) -> PathBuf {
    PathBuf::from("runs").join(name)
}
