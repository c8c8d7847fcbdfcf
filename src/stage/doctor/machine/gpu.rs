//! GPUs, as the kernel tells of them; no library of a driver is loaded.
//!
//! This program computes on the CPU alone. So nothing hangs on what is found here, and a GPU is there to be told of that.

use super::super::finding::Finding;
use super::{field, read};
use rustix::fs::{Access, access};
use std::path::Path;

/// What NVIDIA's driver tells of itself and its GPUs.
const NVIDIA: &str = "/proc/driver/nvidia";
/// What programs reach NVIDIA's driver by.
const CONTROL: &str = "/dev/nvidiactl";
/// What programs reach AMD's driver by.
const AMD: &str = "/dev/kfd";

#[derive(Debug, Default)]
struct Seen {
    /// Version of NVIDIA's driver.
    driver: Option<String>,
    /// Names of NVIDIA's GPUs.
    models: Vec<String>,
    /// Why the driver is not open to this user.
    closed: Option<String>,
    amd: bool,
}

/// Whether there is one.
pub fn gpu() -> Finding {
    let nvidia = Path::new(NVIDIA);
    let entries = std::fs::read_dir(nvidia.join("gpus")).into_iter().flatten().flatten();
    let mut models: Vec<String> = entries.filter_map(|entry| model(&read(entry.path().join("information")))).collect();
    models.sort();
    let closed = access(CONTROL, Access::READ_OK).err().map(|error| format!("{CONTROL}: {error}"));
    judged(&Seen { driver: driver(&read(nvidia.join("version"))), models, closed, amd: Path::new(AMD).exists() })
}

/// The first word of the driver's own line that is a version: where it stands differs between the two kernel modules.
fn driver(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("NVRM version:"))?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

fn model(information: &str) -> Option<String> {
    field(information, "Model").filter(|model| !model.is_empty()).map(str::to_owned)
}

fn judged(seen: &Seen) -> Finding {
    let driver = seen.driver.as_ref().map(|version| format!("NVIDIA's driver {version}"));
    if !seen.models.is_empty() {
        let driver = driver.unwrap_or_else(|| "the version of the driver is not known".into());
        let found = Finding::warning(
            "gpu",
            format!("{} ({driver}), not used: this build computes on the CPU", counted(&seen.models)),
            "reckon with the time that --plan says; a teacher can have the GPU behind a server of its own (teacher.model = \"http://HOST:PORT/v1\")",
        );
        return found.with(seen.closed.iter().cloned().collect());
    }
    let none = "computing is on the CPU";
    match (driver, seen.amd) {
        (Some(driver), _) => Finding::note("gpu", format!("{driver}, and no GPU that it tells of; {none}")),
        (None, true) => Finding::note("gpu", format!("one of AMD ({AMD}), not used; {none}")),
        (None, false) => Finding::note("gpu", format!("none was found; {none}")),
    }
}

/// `2 x NVIDIA H200, NVIDIA L4`, of a list in order.
fn counted(models: &[String]) -> String {
    let groups = models.chunk_by(|a, b| a == b);
    let named = groups.map(|group| if group.len() > 1 { format!("{} x {}", group.len(), group[0]) } else { group[0].clone() });
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::*;

    const CLOSED: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n\
        GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)\n";
    const OPEN: &str = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (dvs-builder@U22-A23-20-3)  Wed Feb 26 02:16:57 UTC 2025\n\
        GCC version:  gcc version 12.3.0\n";
    const INFORMATION: &str = "Model: \t\t NVIDIA H200\nIRQ:   \t\t 412\nGPU UUID: \t GPU-5b3ae1f1-aaaa-bbbb-cccc-0123456789ab\nVideo BIOS: \t 96.00.a0.00.03\n\
        Bus Type: \t PCIe\nDMA Size: \t 52 bits\nBus Location: \t 0000:0f:00.0\nDevice Minor: \t 0\nGPU Excluded:\t No\n";

    #[test]
    fn drivers_and_names_are_read_from_what_the_kernel_tells() {
        for (text, version) in [
            (CLOSED, Some("535.104.05")),
            (OPEN, Some("570.124.06")),
            ("", None),
            ("NVRM version: unknown\n", None),
            ("GCC version: 12.3.0", None),
        ] {
            assert_eq!(driver(text).as_deref(), version, "{text}");
        }
        assert_eq!(model(INFORMATION).as_deref(), Some("NVIDIA H200"));
        assert_eq!((model(""), model("Model: \t\t \n")), (None, None));
    }

    #[test]
    fn a_gpu_that_is_there_is_said_not_to_be_used() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let seen = Seen {
            driver: driver(OPEN),
            models: names(&["NVIDIA H200", "NVIDIA H200", "NVIDIA L4"]),
            closed: Some("/dev/nvidiactl: Permission denied (os error 13)".into()),
            amd: false,
        };
        let found = judged(&seen);
        assert_eq!(found.state, State::Warning);
        assert_eq!(found.says, "2 x NVIDIA H200, NVIDIA L4 (NVIDIA's driver 570.124.06), not used: this build computes on the CPU");
        assert_eq!(found.more, ["/dev/nvidiactl: Permission denied (os error 13)"]);
        for (driver, amd, part) in
            [(Some("535.1"), false, "NVIDIA's driver 535.1, and no GPU"), (None, true, "of AMD"), (None, false, "none was found")]
        {
            let found = judged(&Seen { driver: driver.map(str::to_owned), amd, ..Seen::default() });
            assert!(found.state == State::Note && found.says.contains(part), "{found:?}");
        }
    }
}
