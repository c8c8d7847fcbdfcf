//! The program: parse, dispatch, exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Started by itself to confine a program: before any thread, and before anything else is set up.
    if let Some(code) = distill::sandbox::enter() {
        return code;
    }
    // A file beyond `ulimit -f` is then an error like a full disk, and not the end of the process.
    #[cfg(unix)]
    // SAFETY: nothing else runs yet, and ignoring a signal installs no handler.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    distill::cli::main()
}
