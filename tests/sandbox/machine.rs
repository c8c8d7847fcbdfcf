//! `distill doctor` on machines that lack something, played by taking it from the process before it starts; and what is left when it is killed.

use seccompiler::{SeccompAction, SeccompFilter, apply_filter};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const DISTILL: &str = env!("CARGO_BIN_EXE_distill");

/// The program without the network, which is not looked for here.
fn distill() -> Command {
    let mut command = Command::new(DISTILL);
    command.env("HF_HUB_OFFLINE", "1");
    command
}

/// What was found.
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Asserts that there is no sandbox, that nothing was run in one, and that this part of what is missing or helps is named.
fn refused(output: &Output, part: &str) {
    let all = json(output);
    assert!(output.status.code() == Some(78) && all["sandbox"].is_null(), "{all:#}");
    let findings = all["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["check"] == "sandbox").expect("the sandbox is looked at");
    let said = format!("{} {}", found["says"], found["remedy"]);
    assert!(found["state"] == "fault" && said.contains("none was run") && said.contains(part), "{said}");
}

/// The doctor where some system calls do not exist.
fn without(calls: &[i64]) -> Output {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with filters");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, absent, arch).expect("a filter");
    let program: seccompiler::BpfProgram = filter.try_into().expect("a filter");
    let mut command = distill();
    // SAFETY: between fork and exec two system calls are made and nothing is allocated.
    unsafe {
        command.args(["doctor", "--json"]).pre_exec(move || apply_filter(&program).map_err(|_| std::io::ErrorKind::Unsupported.into()))
    };
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
    refused(&without(&[libc::SYS_seccomp]), "System call filters are missing");
    let landlock = [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
    let output = without(&landlock);
    if output.status.success() {
        assert_eq!(json(&output)["sandbox"]["tier"], "bwrap");
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
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" doctor --json";
    let output = Command::new("unshare").args(["-Ur", "sh", "-c", script, DISTILL]).env("HF_HUB_OFFLINE", "1").output();
    let Ok(output) = output.ok().filter(|output| output.status.code() == Some(78)).ok_or(()) else {
        eprintln!("skipped: unshare is missing (a machine without user namespaces)");
        return;
    };
    refused(&output, "User namespaces are switched off");
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
    let mut doctor = distill().arg("doctor").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
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
