//! The second tier: namespaces and root by bubblewrap, everything else by us, inside.
//!
//! For machines that keep user namespaces from ordinary programs and have a bubblewrap that may use them. It starts this program inside
//! (`inside`), which sets limits, landlock where there is any, and the same filter as the native tier, and becomes the interpreter. Bubblewrap
//! starts with the environment that the program is to have and nothing else: what it clears later can still be read from process 1.

use super::child::limits;
use super::filter::{self, Forks};
use super::helper::INSIDE;
use super::limits::Limits;
use super::python::Python;
use super::root::{DEVICES, NOBODY};
use super::steps::carry_out;
use anyhow::{Context, Result};
use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where this program is found inside.
const SELF: &str = "/.distill";

/// Where bubblewrap is installed.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]);
    folders.map(|folder| folder.join("bwrap")).find(|file| file.is_file())
}

/// The command line that runs `program` inside; each namespace is named, so that bubblewrap fails where it cannot have one.
pub(super) fn argv(bwrap: &Path, python: &Python, given: &Limits, program: Vec<String>) -> Result<Vec<String>> {
    let own = std::fs::read_link("/proc/self/exe").context("this program's own file")?;
    let own = own.to_str().context("the path of this program is not UTF-8")?;
    let mut argv = vec![bwrap.to_string_lossy().into_owned()];
    let mut add = |arguments: &[&str]| argv.extend(arguments.iter().map(|a| (*a).to_owned()));
    add(&["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]);
    add(&["--disable-userns", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "box"]);
    let id = NOBODY.to_string();
    add(&["--uid", &id, "--gid", &id]);
    for path in &python.mounts {
        let path = path.to_str().context("the interpreter's path is not UTF-8")?;
        add(&["--ro-bind", path, path]);
    }
    for link in ["/lib", "/lib64", "/lib32", "/usr/lib64", "/usr/lib32"] {
        if let Ok(target) = std::fs::read_link(link)
            && let Some(target) = target.to_str()
        {
            add(&["--symlink", target, link]);
        }
    }
    for device in DEVICES {
        add(&["--dev-bind-try", device, device]);
    }
    add(&["--ro-bind", own, SELF]);
    add(&["--size", &given.files.to_string(), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp", "--"]);
    add(&[SELF, INSIDE, &serde_json::to_string(given)?]);
    argv.extend(program);
    Ok(argv)
}

/// What this program does inside: limits, landlock, filter, interpreter. Returns only where that failed.
pub(super) fn inside(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let limits: Option<Limits> = args.next().and_then(|text| serde_json::from_str(text.to_str()?).ok());
    let argv: Option<Vec<CString>> = args.map(|text| CString::new(text.into_encoded_bytes()).ok()).collect();
    let (Some(limits), Some(argv)) = (limits, argv) else { return ExitCode::from(78) };
    if let Err(error) = confine(&limits) {
        eprintln!("{error:#}");
        return ExitCode::from(78);
    }
    let addresses: Vec<_> = argv.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect();
    if let [program, _, ..] = addresses[..] {
        unsafe extern "C" {
            static environ: *const *const libc::c_char;
        }
        // SAFETY: tables of texts that live until the call, which does not return where it works.
        unsafe { libc::execve(program, addresses.as_ptr(), environ) };
    }
    ExitCode::from(78)
}

fn confine(given: &Limits) -> Result<()> {
    let mut steps = limits(given, 1);
    let ruleset = if filter::landlock_abi() > 0 { Some(filter::ruleset(&["/"], &["/tmp"], &["/dev/null", "/dev/zero"])?) } else { None };
    steps.extend(filter::steps(&filter::programs(Forks::Allowed)?, ruleset.as_ref().map(std::os::fd::AsRawFd::as_raw_fd)));
    carry_out(&steps).map_err(|(i, errno)| anyhow::Error::from(std::io::Error::from_raw_os_error(errno)).context(steps[i].name))
}
