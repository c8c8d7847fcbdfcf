//! The interpreter that programs run on: which one it is, and which folders it needs.
//!
//! It is asked once, outside the sandbox, with nothing but our own line of code; shims and virtual environments are thereby resolved to the
//! interpreter behind them, which may lie below a private home folder.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An interpreter and what must be visible for it to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// The executable itself, no shim and no link.
    pub executable: PathBuf,
    /// `sys.base_prefix`.
    pub prefix: PathBuf,
    /// Such as `3.11.7`.
    pub version: String,
    /// Read-only folders and files, real paths, none inside another.
    pub mounts: Vec<PathBuf>,
}

/// Prints one fact per line.
const ASK: &str = "import sys, os
e = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)
print('python'); print(e); print(sys.base_prefix); print(sys.base_exec_prefix)
print('%d.%d.%d' % sys.version_info[:3])";

/// The oldest version that the driver is written for.
const OLDEST: (u32, u32) = (3, 9);

impl Python {
    /// `named`, else `DISTILL_PYTHON`, else the first `python3` on the path that answers, else the system's own.
    ///
    /// # Errors
    /// What was tried and how to name another.
    pub fn find(named: Option<&Path>) -> Result<Self, String> {
        let given = named.map(Path::to_owned).or_else(|| std::env::var_os("DISTILL_PYTHON").map(PathBuf::from));
        if let Some(given) = given {
            return Self::ask(&given);
        }
        let mut errors = Vec::new();
        for candidate in ["python3", "/usr/bin/python3", "/usr/local/bin/python3"] {
            match Self::ask(Path::new(candidate)) {
                Ok(python) => return Ok(python),
                Err(error) => errors.push(error),
            }
        }
        Err(format!("no Python 3 to run programs with ({}); install it or name one in DISTILL_PYTHON", errors.join("; ")))
    }

    fn ask(program: &Path) -> Result<Self, String> {
        let shown = program.display();
        let mut command = Command::new(program);
        command.args(["-I", "-S", "-B", "-c", ASK]).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().map_err(|e| format!("{shown}: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = text.lines().collect();
        let ["python", executable, prefix, exec_prefix, version] = lines[..] else {
            return Err(format!("{shown} does not answer as Python does"));
        };
        let mut numbers = version.split('.').map(|n| n.parse().unwrap_or(0));
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            return Err(format!("{shown} is Python {version}; {}.{} or later is needed", OLDEST.0, OLDEST.1));
        }
        let (executable, prefix) = (PathBuf::from(executable), PathBuf::from(prefix));
        let mounts = mounts(&executable, &[&prefix, Path::new(exec_prefix)]);
        Ok(Self { executable, prefix, version: version.to_owned(), mounts })
    }

    /// Where the dynamic loader looks before its own folders: there is no cache of it inside.
    pub(super) fn library_path(&self) -> String {
        format!("{0}/lib:{0}/lib64", self.prefix.display())
    }
}

/// The interpreter's own folders and the system's libraries; of a prefix like `/usr` only the libraries.
fn mounts(executable: &Path, prefixes: &[&Path]) -> Vec<PathBuf> {
    let libraries = ["/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64"].map(PathBuf::from);
    let own = prefixes.iter().flat_map(|prefix| ["lib", "lib64"].map(|name| prefix.join(name)));
    let all = libraries.into_iter().chain(own).chain([executable.to_owned()]);
    let mut real: Vec<PathBuf> = all.filter_map(|path| path.canonicalize().ok()).filter(|path| *path != Path::new("/")).collect();
    real.sort();
    let mut outer: Vec<PathBuf> = Vec::new();
    for path in real {
        if !outer.last().is_some_and(|before| path.starts_with(before)) {
            outer.push(path);
        }
    }
    outer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_interpreter_needs_is_shown() {
        let Ok(python) = Python::find(None) else {
            eprintln!("skipped: Python is missing (what it needs)");
            return;
        };
        assert!(python.executable.is_absolute() && python.executable.is_file(), "{python:?}");
        assert!(python.mounts.iter().any(|mount| python.executable.starts_with(mount)), "{python:?}");
        for private in ["/", "/usr", "/root", "/home", "/etc"] {
            assert!(!python.mounts.contains(&PathBuf::from(private)), "{python:?}");
        }
        for (i, mount) in python.mounts.iter().enumerate() {
            assert!(python.mounts.iter().enumerate().all(|(j, other)| i == j || !mount.starts_with(other)), "{python:?}");
        }
    }

    #[test]
    fn what_is_no_python_is_named() {
        let error = Python::ask(Path::new("/bin/true")).expect_err("true prints nothing");
        assert_eq!(error, "/bin/true does not answer as Python does");
        assert!(Python::ask(Path::new("no/python")).expect_err("missing").starts_with("no/python: "));
    }
}
