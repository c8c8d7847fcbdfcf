//! How the allocator treats memory that was freed (which allocator it is, `main.rs` says), and memory in large pages.

use std::ops::{Deref, DerefMut};

/// Makes mimalloc keep freed memory for a minute before the system gets it back, where it is the program's allocator.
///
/// A training step frees and asks for the same gigabytes again; a page that went back has to be cleared anew, which took a fifth of a step's time.
pub fn keep_freed() {
    const PURGE_DELAY: std::ffi::c_int = 15; // mi_option_purge_delay
    const MILLISECONDS: std::ffi::c_long = 60_000;
    // SAFETY: the option is a number that mimalloc reads when it frees; any value is a valid one.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) }
}

/// Bytes that this process has had in use at once; `None` where the system does not say.
pub fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? * 1024)
}

/// Numbers that are written once and read again and again; many of them lie in large pages, where the system has these.
///
/// A processor that goes through gigabytes in small pages spends as long on finding them as on reading them: 7 and 11 GB/s were measured.
#[derive(Debug)]
pub enum Buffer {
    Heap(Vec<f32>),
    #[cfg(target_os = "linux")]
    Mapped(Mapping),
}

impl Buffer {
    /// `n` zeros.
    pub fn zeros(n: usize) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(mapping) = Mapping::new(n) {
            return Self::Mapped(mapping);
        }
        Self::Heap(vec![0.0; n])
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Heap(data) => data,
            #[cfg(target_os = "linux")]
            // SAFETY: the mapping holds `len` numbers from `data` on for as long as it lives.
            Self::Mapped(mapping) => unsafe { std::slice::from_raw_parts(mapping.data, mapping.len) },
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Heap(data) => data,
            #[cfg(target_os = "linux")]
            // SAFETY: as above, and it is borrowed mutably.
            Self::Mapped(mapping) => unsafe { std::slice::from_raw_parts_mut(mapping.data, mapping.len) },
        }
    }
}

/// Memory of our own from the system, in large pages if it likes.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Mapping {
    data: *mut f32,
    len: usize,
    start: *mut libc::c_void,
    bytes: usize,
}

#[cfg(target_os = "linux")]
impl Mapping {
    const PAGE: usize = 2 << 20;

    /// `n` zeros; `None` where they do not fill a large page, or the system has none to give.
    fn new(n: usize) -> Option<Self> {
        let size = n.checked_mul(size_of::<f32>()).filter(|size| *size >= Self::PAGE)?;
        let bytes = size.next_multiple_of(Self::PAGE).checked_add(Self::PAGE)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address that the system chooses touches no other memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        let data = start.wrapping_byte_add(start.align_offset(Self::PAGE));
        // SAFETY: the range lies inside the mapping, which is one page longer. Advice changes how it is backed, not what it holds, and may be refused.
        unsafe { libc::madvise(data, size.next_multiple_of(Self::PAGE), libc::MADV_HUGEPAGE) };
        Some(Self { data: data.cast(), len: n, start, bytes })
    }
}

#[cfg(target_os = "linux")]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}

// SAFETY: the memory belongs to the mapping alone, and access goes by the borrows of `Buffer`.
#[cfg(target_os = "linux")]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[cfg(target_os = "linux")]
unsafe impl Sync for Mapping {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_of_any_size_is_zeros_that_can_be_written() {
        for n in [0, 1, (1 << 19) - 1, 1 << 19, (1 << 20) + 7] {
            let mut buffer = Buffer::zeros(n);
            assert!(buffer.len() == n && buffer.iter().all(|x| *x == 0.0), "{n}");
            buffer.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
            assert!(buffer.iter().enumerate().all(|(i, x)| *x == i as f32), "{n}");
        }
    }
}
