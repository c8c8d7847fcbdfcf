//! Whether what a plan asks for is there: memory for the largest stage, disk for all of them.

use super::super::plan::Needs;
use super::finding::Finding;
use crate::report::text::size;

pub(super) fn findings(needs: &Needs) -> Vec<Finding> {
    let mut all = Vec::new();
    match (&needs.largest, needs.memory) {
        (Some(stage), Some(there)) if stage.bytes > there => all.push(Finding::fault(
            "memory",
            format!("{} needs {}, and {} is free", stage.name, size(stage.bytes), size(there)),
            stage.advice,
        )),
        (Some(stage), Some(there)) => {
            let says = format!("{} needs the most, {} of {} that is free", stage.name, size(stage.bytes), size(there));
            all.push(if stage.bytes * 10 > there * 9 {
                Finding::warning("memory", format!("{says}: a tenth is not left over"), stage.advice)
            } else {
                Finding::good("memory", says)
            });
        }
        _ => all.push(Finding::note("memory", "what the stages need is not known while their models are not here")),
    }
    match (needs.disk, needs.disk_free) {
        (Some(disk), Some(there)) if disk > there => all.push(Finding::fault(
            "disk",
            format!("up to {} will be written, and {} is free where the run will be", size(disk), size(there)),
            "make room, give --run DIR on another disk, or lower sample.n, max_tokens or execution.checkpoints",
        )),
        (Some(disk), Some(there)) => {
            all.push(Finding::good(
                "disk",
                format!("up to {} will be written, of {} that is free where the run will be", size(disk), size(there)),
            ));
        }
        _ => all.push(Finding::note("disk", "what will be written is not known while models or the number of problems are not here")),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::Largest;
    use super::super::finding::State;
    use super::*;

    #[test]
    fn what_does_not_fit_is_a_fault_with_what_to_lower() {
        let needs = |bytes, disk| Needs {
            largest: Some(Largest { name: "student/sft".into(), bytes, advice: "lower execution.micro_batch_tokens" }),
            memory: Some(10 << 30),
            disk: Some(disk),
            disk_free: Some(5 << 30),
        };
        for (bytes, disk, expected) in [
            (5 << 30, 1 << 30, [State::Good, State::Good]),
            (19 << 29, 1 << 30, [State::Warning, State::Good]),
            (11 << 30, 6 << 30, [State::Fault, State::Fault]),
        ] {
            let found = findings(&needs(bytes, disk));
            assert_eq!([found[0].state, found[1].state], expected);
            assert!(found.iter().all(|finding| finding.state == State::Good || finding.remedy.is_some()));
        }
    }
}
