//! A confinement as data: the list of system calls that lead into it.
//!
//! The same list is carried out by our init (`child.rs`) and by a Python process that has forked (`warm.rs`), so that there is one place that says
//! what a program may do. Each step must succeed or the program does not run.

use std::ffi::CString;

/// An argument of a system call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Arg {
    Number(i64),
    /// The address of these bytes.
    Bytes(Vec<u8>),
    /// The address of a `struct sock_fprog` over these instructions.
    Program(Vec<u8>),
    /// What the last step that `opens` returned.
    Opened,
}

/// One system call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// What it is for, in messages.
    pub name: &'static str,
    pub number: i64,
    pub args: Vec<Arg>,
    /// Its result is a descriptor that the next steps use.
    pub opens: bool,
    /// A failure is passed over: the step tidies, it does not confine.
    pub optional: bool,
}

impl Step {
    pub(super) fn new(name: &'static str, number: i64, args: Vec<Arg>) -> Self {
        Self { name, number, args, opens: false, optional: false }
    }

    pub(super) fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Opens a file below `folder`, writes `text` to it and closes it.
    pub(super) fn write(name: &'static str, folder: i32, path: &str, text: &str) -> Vec<Self> {
        let open = [Arg::Number(folder.into()), c_text(path), Arg::Number(libc::O_WRONLY.into())];
        let write = [Arg::Opened, Arg::Bytes(text.as_bytes().to_vec()), Arg::Number(text.len() as i64)];
        vec![
            Self { opens: true, ..Self::new(name, libc::SYS_openat, open.to_vec()) },
            Self::new(name, libc::SYS_write, write.to_vec()),
            Self::new(name, libc::SYS_close, vec![Arg::Opened]),
        ]
    }

    /// Sets soft and hard limit of a resource.
    pub(super) fn limit(name: &'static str, resource: u32, soft: u64, hard: u64) -> Self {
        let value = [soft.to_ne_bytes(), hard.to_ne_bytes()].concat();
        let args = vec![Arg::Number(0), Arg::Number(resource.into()), Arg::Bytes(value), Arg::Number(0)];
        Self::new(name, libc::SYS_prlimit64, args)
    }

    pub(super) fn prctl(name: &'static str, option: i32, value: u64) -> Self {
        Self::new(name, libc::SYS_prctl, [i64::from(option), value as i64, 0, 0, 0].map(Arg::Number).to_vec())
    }
}

/// A text with its closing zero; paths and options of ours hold none inside.
pub(super) fn c_text(text: &str) -> Arg {
    Arg::Bytes(CString::new(text).unwrap_or_default().into_bytes_with_nul())
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    filter: *const u8,
}

/// Carries the steps out in order. The error is the index of the step that failed and its errno.
///
/// To be called in a process of one thread. After the filter is on, only what it allows may follow.
pub(super) fn carry_out(steps: &[Step]) -> Result<(), (usize, i32)> {
    let mut opened = -1;
    for (i, step) in steps.iter().enumerate() {
        let mut values = [0i64; 6];
        let mut program = std::mem::MaybeUninit::uninit();
        for (value, arg) in values.iter_mut().zip(&step.args) {
            *value = match arg {
                Arg::Number(number) => *number,
                Arg::Bytes(bytes) => bytes.as_ptr() as i64,
                Arg::Opened => opened,
                Arg::Program(instructions) => {
                    let length = (instructions.len() / 8) as u16;
                    std::ptr::from_mut(program.write(Program { length, filter: instructions.as_ptr() })) as i64
                }
            };
        }
        let [a, b, c, d, e, f] = values;
        // SAFETY: the addresses are those of bytes that `steps` owns and of `program`, all alive until the call returns.
        let result = unsafe { libc::syscall(step.number, a, b, c, d, e, f) };
        if result < 0 && !step.optional {
            return Err((i, std::io::Error::last_os_error().raw_os_error().unwrap_or(0)));
        }
        if step.opens {
            opened = result;
        }
    }
    Ok(())
}

/// The steps as a Python literal: a list of (number, arguments, opens, optional), an argument being a number, bytes, `None` for `Opened`, or a
/// tuple of bytes for a filter.
pub(super) fn python(steps: &[Step]) -> String {
    let arg = |arg: &Arg| match arg {
        Arg::Number(number) => number.to_string(),
        Arg::Bytes(bytes) => bytes_literal(bytes),
        Arg::Program(bytes) => format!("({},)", bytes_literal(bytes)),
        Arg::Opened => "None".to_owned(),
    };
    let step = |step: &Step| {
        let args: String = step.args.iter().map(|a| arg(a) + ",").collect();
        format!("({},({args}),{},{}),", step.number, u8::from(step.opens), u8::from(step.optional))
    };
    format!("[{}]", steps.iter().map(step).collect::<String>())
}

fn bytes_literal(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("b\"{hex}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_is_named_and_an_optional_one_passed_over() {
        let bad = Step::new("bad", libc::SYS_close, vec![Arg::Number(-1)]);
        let good = Step::new("good", libc::SYS_getpid, Vec::new());
        assert_eq!(carry_out(&[good.clone(), bad.clone()]), Err((1, libc::EBADF)));
        assert_eq!(carry_out(&[bad.optional(), good]), Ok(()));
    }

    #[test]
    fn a_file_is_opened_written_and_closed() {
        let steps = Step::write("null", libc::AT_FDCWD, "/dev/null", "text");
        assert_eq!(carry_out(&steps), Ok(()));
        assert!(python(&steps).starts_with("[(257,(-100,b\"\\x2f\\x64") || cfg!(not(target_arch = "x86_64")), "{}", python(&steps));
        assert_eq!(carry_out(&Step::write("none", libc::AT_FDCWD, "/no/such", "text")), Err((0, libc::ENOENT)));
    }
}
