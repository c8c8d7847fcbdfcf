//! How the allocator treats memory that was freed; which allocator it is, `main.rs` says.

/// Makes mimalloc keep freed memory for a minute before the system gets it back, where it is the program's allocator.
///
/// A training step frees and asks for the same gigabytes again; a page that went back has to be cleared anew, which took a fifth of a step's time.
pub fn keep_freed() {
    const PURGE_DELAY: std::ffi::c_int = 15; // mi_option_purge_delay
    const MILLISECONDS: std::ffi::c_long = 60_000;
    // SAFETY: the option is a number that mimalloc reads when it frees; any value is a valid one.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) }
}
