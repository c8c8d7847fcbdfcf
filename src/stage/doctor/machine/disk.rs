//! The disks that runs and downloads go to: what is free there, and whether this user may write, by the rights and not by trying.

use super::super::finding::Finding;
use crate::hub::Look;
use crate::report::text::size;
use crate::stage::plan::{available_disk, existing};
use rustix::fs::{Access, access};
use std::path::Path;

/// Bytes that are soon used up: a phase of a model of 0.5B keeps 2 GB, and needs six times that for its state.
const SCARCE: usize = 10_000_000_000;

/// A folder that is there or will be.
#[derive(Debug)]
struct Space {
    /// Bytes.
    free: Option<usize>,
    /// Why nothing can be made there.
    refused: Option<String>,
}

fn space(path: &Path) -> Space {
    let there = existing(path);
    let refused = if there.is_dir() {
        access(there, Access::WRITE_OK | Access::EXEC_OK).err().map(|error| error.to_string())
    } else {
        Some("it is a file".to_owned())
    };
    Space { free: available_disk(path), refused: refused.map(|why| format!("{} cannot be written to ({why})", there.display())) }
}

/// Where runs will be.
pub fn runs(run: &Path) -> Finding {
    for_runs(run, &space(run))
}

fn for_runs(run: &Path, space: &Space) -> Finding {
    let place = format!("where runs will be ({})", run.display());
    match space {
        Space { refused: Some(why), .. } => Finding::fault("disk", format!("{why}, {place}"), "give a folder of yours with --run DIR"),
        Space { free: None, .. } => Finding::note("disk", format!("what is free {place} is not known here")),
        Space { free: Some(free), .. } if *free < SCARCE => Finding::warning(
            "disk",
            format!("{} free {place}", size(*free)),
            "make room there, or give --run DIR on another disk; --plan says what a recipe needs",
        ),
        Space { free: Some(free), .. } => Finding::good("disk", format!("{} free {place}", size(*free))),
    }
}

/// Where models from the Hub are, and how many.
pub fn cache(look: &Look) -> Finding {
    for_downloads(&look.cache, look.models, &space(&look.cache))
}

fn for_downloads(cache: &Path, models: usize, space: &Space) -> Finding {
    let models = if models == 1 { "1 model".to_owned() } else { format!("{models} models") };
    let place = format!("{models} in {}", cache.display());
    const ELSEWHERE: &str = "set HF_HOME to a folder of yours on a disk with room";
    match space {
        // What lies there can be used all the same.
        Space { refused: Some(why), .. } => Finding::warning("cache", format!("{place}; nothing can be downloaded: {why}"), ELSEWHERE),
        Space { free: None, .. } => Finding::note("cache", format!("{place}; what is free there is not known here")),
        Space { free: Some(free), .. } if *free < SCARCE => {
            Finding::warning("cache", format!("{place}, where {} are free", size(*free)), format!("make room there, or {ELSEWHERE}"))
        }
        Space { free: Some(free), .. } => Finding::good("cache", format!("{place}, where {} are free", size(*free))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above_it_and_nothing_is_made() {
        let place = tempfile::tempdir().expect("a folder");
        let run = place.path().join("runs/of/mine");
        let seen = space(&run);
        assert!(seen.refused.is_none() && seen.free.is_some_and(|free| free > 0), "{seen:?}");
        assert_eq!(std::fs::read_dir(place.path()).expect("a folder").count(), 0);
        std::fs::write(place.path().join("runs"), "").expect("a file");
        let refused = space(&run).refused.expect("a file is no folder");
        assert_eq!(refused, format!("{}/runs cannot be written to (it is a file)", place.path().display()));
    }

    #[test]
    fn little_room_is_a_warning_and_no_right_to_write_a_fault_for_runs_alone() {
        let (run, cache) = (Path::new("runs"), Path::new("/home/me/.cache/huggingface/hub"));
        let closed = || Some("/ cannot be written to (Permission denied (os error 13))".to_owned());
        for (free, refused, of_runs, of_cache) in [
            (Some(61_000_000_000), None, State::Good, State::Good),
            (Some(9_999_999_999), None, State::Warning, State::Warning),
            (None, None, State::Note, State::Note),
            (Some(61_000_000_000), closed(), State::Fault, State::Warning),
        ] {
            let space = Space { free, refused };
            assert_eq!((for_runs(run, &space).state, for_downloads(cache, 3, &space).state), (of_runs, of_cache), "{space:?}");
        }
        let space = Space { free: Some(61_040_000_000), refused: None };
        assert_eq!(for_runs(run, &space).says, "61.0 GB free where runs will be (runs)");
        assert_eq!(for_downloads(cache, 1, &space).says, "1 model in /home/me/.cache/huggingface/hub, where 61.0 GB are free");
    }
}
