//! What the control groups of this process leave it: containers and batch systems set their limits there, which the machine's own figures do not show.
//!
//! Both versions are read. A limit holds for all groups below, so every group up to the root is asked; in a container the path that a process is told is
//! often one of the machine outside, and then the root alone is there, with the container's own limits.

use super::read;
use std::path::{Path, PathBuf};

/// Where the groups are, and which of them this process is in.
pub const ROOT: &str = "/sys/fs/cgroup";
pub const GROUPS: &str = "/proc/self/cgroup";

/// Bytes; version 1 writes a number like 2^63 where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// A limit on memory, and what is left below it, both in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub limit: u64,
    pub free: u64,
}

/// The least room for memory in any of the groups; `None` where none has a limit. `groups` is the text of `/proc/self/cgroup`.
pub fn memory(root: &Path, groups: &str) -> Option<Room> {
    folders(root, groups, "memory").iter().filter_map(|folder| room(folder)).min_by_key(|room| room.free)
}

/// The least number of cores' worth of time in any of the groups; `None` where none has a quota.
pub fn cores(root: &Path, groups: &str) -> Option<f64> {
    let quotas = folders(root, groups, "cpu").into_iter().filter_map(|folder| {
        let first = || quota(&format!("{} {}", read(folder.join("cpu.cfs_quota_us")), read(folder.join("cpu.cfs_period_us"))));
        quota(&read(folder.join("cpu.max"))).or_else(first)
    });
    quotas.min_by(f64::total_cmp)
}

fn room(folder: &Path) -> Option<Room> {
    let number = |name: &str| read(folder.join(name)).trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT)?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes")).unwrap_or(0);
    // Files that were read and lie idle in memory are counted as used, and go when something else needs their place.
    let idle = idle(&read(folder.join("memory.stat")));
    Some(Room { limit, free: limit.saturating_sub(used.saturating_sub(idle)) })
}

/// Of `memory.stat`; version 1 counts the groups below in a line of its own.
fn idle(stat: &str) -> u64 {
    let line = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line("total_inactive_file ").or_else(|| line("inactive_file ")).unwrap_or(0)
}

/// Microseconds of computing in each period of so many, as cores: `200000 100000` are 2. `max` and -1 are no quota.
fn quota(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<u32>);
    let (quota, period) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (period > 0).then(|| f64::from(quota) / f64::from(period))
}

/// The folders of the groups of this process that may limit something, and all above them.
fn folders(root: &Path, groups: &str, controller: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let base = match controllers {
            "" => root.to_owned(), // version 2
            _ if controllers.split(',').any(|name| name == controller) => root.join(controller),
            _ => continue,
        };
        all.extend(Path::new(path.trim_start_matches('/')).ancestors().map(|above| base.join(above)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        root
    }

    #[test]
    fn a_quota_is_read_as_cores() {
        for (text, cores) in [
            ("max 100000\n", None),
            ("200000 100000\n", Some(2.0)),
            ("50000 100000", Some(0.5)),
            ("150000\n 100000\n", Some(1.5)),
            ("-1\n 100000\n", None),
            ("1 0", None),
            ("100000", None),
            (" ", None),
        ] {
            assert_eq!(quota(text), cores, "{text:?}");
        }
    }

    #[test]
    fn the_tightest_group_of_version_2_counts() {
        let root = place(&[
            ("a.slice/memory.max", "8589934592\n"),
            ("a.slice/memory.current", "3221225472\n"),
            ("a.slice/memory.stat", "anon 2147483648\nfile 1073741824\ninactive_anon 0\ninactive_file 1073741824\n"),
            ("a.slice/cpu.max", "max 100000\n"),
            ("a.slice/b.scope/memory.max", "max\n"),
            ("a.slice/b.scope/cpu.max", "150000 100000\n"),
            ("other/memory.max", "1024\n"),
        ]);
        let room = Room { limit: 8 << 30, free: 6 << 30 };
        assert_eq!(memory(root.path(), "0::/a.slice/b.scope\n"), Some(room));
        assert_eq!(cores(root.path(), "0::/a.slice/b.scope\n"), Some(1.5));
        assert_eq!((memory(root.path(), "0::/\n"), cores(root.path(), "0::/\n")), (None, None));
        assert_eq!((memory(root.path(), ""), cores(root.path(), "junk")), (None, None));
    }

    #[test]
    fn version_1_has_a_folder_for_each_controller_and_a_container_sees_the_root_of_its_own() {
        let root = place(&[
            ("memory/memory.limit_in_bytes", "2147483648\n"),
            ("memory/memory.usage_in_bytes", "1610612736\n"),
            ("memory/memory.stat", "cache 5\ninactive_file 7\ntotal_inactive_file 536870912\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("cpu/docker/0a1b/cpu.cfs_quota_us", "400000\n"),
            ("cpu/docker/0a1b/cpu.cfs_period_us", "100000\n"),
        ]);
        let groups = "12:pids:/docker/0a1b\n4:memory:/docker/0a1b\n3:cpu,cpuacct:/docker/0a1b\n0::/\n";
        assert_eq!(memory(root.path(), groups), Some(Room { limit: 2 << 30, free: 1 << 30 }));
        assert_eq!(cores(root.path(), groups), Some(4.0));
        let without = place(&[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(memory(without.path(), groups), None);
    }
}
