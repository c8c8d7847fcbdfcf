//! The command line: parse, dispatch, exit code; no arithmetic.

use crate::recipe::{Recipe, TINY};
use crate::stage::{self, Run, Ui, config};
use anyhow::Result;
use std::process::ExitCode;

pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run() -> Result<()> {
    stage::watch_for_interrupts()?;
    let overrides: Vec<String> = std::env::args().skip(1).collect();
    let recipe = config(Recipe::parse(TINY, &overrides))?;
    let ui = Ui { json: false, verbose: true };
    let run = Run::open(stage::default_folder(&recipe.name), recipe, false, ui)?;
    stage::run_all(&run)
}
