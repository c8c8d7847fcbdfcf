//! `distill doctor` on machines that lack something, played by taking it from the process before it starts; and what is left when it is killed.

use seccompiler::{SeccompAction, SeccompFilter, apply_filter};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const DISTILL: &str = env!("CARGO_BIN_EXE_distill");

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The doctor where some system calls do not exist.
fn without(calls: &[i64]) -> Output {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with filters");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, absent, arch).expect("a filter");
    let program: seccompiler::BpfProgram = filter.try_into().expect("a filter");
    let mut command = Command::new(DISTILL);
    // SAFETY: between fork and exec two system calls are made and nothing is allocated.
    unsafe { command.arg("doctor").pre_exec(move || apply_filter(&program).map_err(|_| std::io::ErrorKind::Unsupported.into())) };
    command.output().expect("the program starts")
}

/// Whether this machine has all that the native tier takes; only then does a part that is taken away stand alone.
fn is_whole(what: &str) -> bool {
    let native = distill::sandbox::Options { only: Some(distill::sandbox::Tier::Native), ..crate::options() };
    let whole = distill::sandbox::Sandbox::open(native).is_ok();
    if !whole {
        eprintln!("skipped: a sandbox is missing ({what})");
    }
    whole
}

#[test]
fn what_the_kernel_lacks_is_named_and_nothing_runs() {
    if !is_whole("taking parts of it away") {
        return;
    }
    let refused = |output: &Output, part: &str| {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("none was run") && said.contains(part) && output.stdout.is_empty(), "{said}");
    };
    refused(&without(&[libc::SYS_seccomp]), "System call filters are missing");
    let landlock = [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
    let output = without(&landlock);
    if output.status.success() {
        assert!(text(&output.stdout).starts_with("sandbox  bwrap, "), "{}", text(&output.stdout));
    } else {
        refused(&output, "Landlock is missing");
    }
    refused(&without(&[libc::SYS_unshare, libc::SYS_mount]), "native: ");
}

#[test]
fn without_user_namespaces_nothing_runs() {
    if !is_whole("a machine without user namespaces") {
        return;
    }
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" doctor";
    let output = Command::new("unshare").args(["-Ur", "sh", "-c", script, DISTILL]).output();
    let Ok(output) = output.ok().filter(|output| output.status.code() == Some(78)).ok_or(()) else {
        eprintln!("skipped: unshare is missing (a machine without user namespaces)");
        return;
    };
    let said = text(&output.stderr);
    assert!(said.contains("none was run") && said.contains("User namespaces are switched off"), "{said}");
}

/// Every process below this one.
fn descendants(root: u32) -> BTreeSet<u32> {
    let parent_of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, after) = stat.rsplit_once(") ")?;
        let mut fields = after.split(' ');
        (fields.next()? != "Z").then_some(())?;
        fields.next()?.parse::<u32>().ok()
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    let pairs: Vec<(u32, u32)> = all.filter_map(|pid: u32| Some((pid, parent_of(pid)?))).collect();
    let mut found = BTreeSet::from([root]);
    while let Some((pid, _)) = pairs.iter().find(|(pid, parent)| found.contains(parent) && !found.contains(pid)) {
        found.insert(*pid);
    }
    found.remove(&root);
    found
}

#[test]
fn a_killed_program_takes_its_helpers_and_programs_with_it() {
    let mut doctor = Command::new(DISTILL).arg("doctor").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let begin = Instant::now();
    let mut below = BTreeSet::new();
    // Helper, init, program, and a warm interpreter: at least three at some moment.
    while below.len() < 3 && begin.elapsed() < Duration::from_secs(30) && doctor.try_wait().expect("a child").is_none() {
        below = descendants(doctor.id());
        std::thread::sleep(Duration::from_millis(1));
    }
    let refused = below.len() < 3;
    doctor.kill().expect("it runs or has ended");
    doctor.wait().expect("it ends");
    if refused {
        eprintln!("skipped: a sandbox is missing (killing it)");
        return;
    }
    let left =
        || below.iter().filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))).count();
    let begin = Instant::now();
    while left() > 0 && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(left(), 0, "of {below:?}");
}
