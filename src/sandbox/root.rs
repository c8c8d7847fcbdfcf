//! The root that programs see: an interpreter and the libraries it needs, read-only, four devices, and a place for files. Nothing else.
//!
//! It is built once per helper, in a mount namespace of the helper's own; each program gets a copy of that namespace and fresh memory for its files.
//! Folders that exist on every machine are there and closed, so that looking for the machine's files is answered with a refusal.

use super::python::Python;
use super::steps::{Arg, Step, c_text};
use anyhow::{Context, Result, bail};
use std::ffi::CString;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

/// Where a program's own files lie; `/tmp` leads there. Its parent carries the landlock rule, which so holds for whatever is mounted inside.
pub(super) const BOX: &str = "/box";
pub(super) const FILES: &str = "/box/tmp";
pub(super) const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
/// There, and closed.
const CLOSED: [&str; 12] = ["boot", "etc", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "var"];
/// Who programs are where this program is root: nobody.
pub(super) const NOBODY: u32 = 65534;

/// `mount_setattr`'s argument.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Puts the calling process, which must have one thread, on the new root, as a user who is not root.
///
/// # Errors
/// Names the step that the machine refused.
pub(super) fn enter(python: &Python, proc: RawFd) -> Result<()> {
    // SAFETY: no memory is passed.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    if uid == 0 && unshare(libc::CLONE_NEWNS).is_ok() {
        build(python)?;
        become_nobody();
        Ok(())
    } else {
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).context("user namespaces")?;
        carry_out(&identity(proc, (uid, gid), (uid, gid)))?;
        build(python)
    }
}

fn carry_out(steps: &[Step]) -> Result<()> {
    super::steps::carry_out(steps).map_err(|(i, errno)| {
        let error = anyhow::Error::from(std::io::Error::from_raw_os_error(errno));
        error.context(steps[i].name)
    })
}

/// The steps by which a process that is new in a user namespace has the ids `inside` there, being `outside` where it came from.
pub(super) fn identity(proc: RawFd, inside: (u32, u32), outside: (u32, u32)) -> Vec<Step> {
    let mut steps = Step::write("user namespaces", proc, "self/setgroups", "deny");
    steps.extend(Step::write("user namespaces", proc, "self/gid_map", &format!("{} {} 1", inside.1, outside.1)));
    steps.extend(Step::write("user namespaces", proc, "self/uid_map", &format!("{} {} 1", inside.0, outside.0)));
    steps
}

/// The kernel counts no processes of its own root, so no program may run as that. Where only root exists, it stays root, and the helper finds out
/// whether that is the kernel's own.
pub(super) fn become_nobody() {
    // SAFETY: ids and a flag; the process has one thread.
    unsafe {
        libc::setgroups(0, std::ptr::null());
        if libc::setresgid(NOBODY, NOBODY, NOBODY) == 0 {
            libc::setresuid(NOBODY, NOBODY, NOBODY);
        }
        // A change of user closes /proc/self to the process itself.
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
    }
}

fn build(python: &Python) -> Result<()> {
    let base = ["/tmp", "/var", "/mnt", "/usr"].into_iter().find(|path| Path::new(path).is_dir()).context("no folder to mount on")?;
    mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None).context("a private mount namespace")?;
    let options = Some("mode=0755,size=1m,nr_inodes=512");
    mount(Some("tmpfs"), base, Some("tmpfs"), libc::MS_NOSUID | libc::MS_NODEV, options).context("tmpfs")?;
    fs::create_dir(format!("{base}/old")).context("tmpfs")?;
    pivot(base, &format!("{base}/old")).context("pivot_root")?;
    std::env::set_current_dir("/").context("pivot_root")?;
    fill(python)?;
    let old = CString::new("/old")?;
    // SAFETY: a path that lives until the call returns.
    if unsafe { libc::umount2(old.as_ptr(), libc::MNT_DETACH) } != 0 {
        return Err(std::io::Error::last_os_error()).context("leaving the old root");
    }
    fs::remove_dir("/old").context("leaving the old root")?;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
    mount(None, "/", None, flags, None).context("a read-only root")
}

/// Everything on the new root, from the old one at `/old`.
fn fill(python: &Python) -> Result<()> {
    for path in &python.mounts {
        let text = path.to_str().with_context(|| format!("{}: the path is not UTF-8", path.display()))?;
        bind(text).with_context(|| format!("{text} on the new root"))?;
        read_only(text).with_context(|| format!("{text} read-only"))?;
    }
    for link in ["/lib", "/lib64", "/lib32", "/usr/lib64", "/usr/lib32"] {
        if let Ok(target) = fs::read_link(format!("/old{link}"))
            && !Path::new(link).exists()
        {
            symlink(target, link).with_context(|| format!("{link} on the new root"))?;
        }
    }
    for device in DEVICES.into_iter().filter(|path| Path::new(&format!("/old{path}")).exists()) {
        bind(device).with_context(|| format!("{device} on the new root"))?;
    }
    fs::create_dir_all(FILES).context(FILES)?;
    symlink(FILES, "/tmp").context("/tmp on the new root")?;
    for name in CLOSED {
        // A folder on the way to the interpreter is there already; closed to listing is what it can be then.
        if fs::DirBuilder::new().mode(0o000).create(format!("/{name}")).is_err() {
            let path = CString::new(format!("/{name}"))?;
            // SAFETY: a path that lives until the call returns.
            unsafe { libc::chmod(path.as_ptr(), 0o711) };
        }
    }
    Ok(())
}

/// Shows a file or folder of the old root at the same path of the new one.
fn bind(path: &str) -> Result<()> {
    let source = format!("/old{path}");
    if Path::new(&source).is_dir() {
        fs::create_dir_all(path)?;
    } else {
        fs::create_dir_all(Path::new(path).parent().unwrap_or(Path::new("/")))?;
        make_file(path)?;
    }
    mount(Some(&source), path, None, libc::MS_BIND | libc::MS_REC, None)
}

/// An empty file to mount on. It lives in the memory of the new root only, so `publish.rs` has no part in it.
fn make_file(path: &str) -> Result<()> {
    let path = CString::new(path)?;
    // SAFETY: a path that lives until the call returns; the descriptor is closed at once.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o644);
        if fd < 0 {
            bail!(std::io::Error::last_os_error());
        }
        libc::close(fd);
    }
    Ok(())
}

/// A mount and all below it: no writing, no devices, no set-user-id.
fn read_only(path: &str) -> Result<()> {
    let attributes = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        clear: 0,
        propagation: 0,
        userns: 0,
    };
    let path = CString::new(path)?;
    // SAFETY: path and structure live until the call returns, and the size passed is that of the structure.
    let result = unsafe {
        let size = std::mem::size_of::<MountAttributes>();
        libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, path.as_ptr(), libc::AT_RECURSIVE, &raw const attributes, size)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).context("mount_setattr (Linux 5.12)") }
}

fn unshare(flags: i32) -> std::io::Result<()> {
    // SAFETY: flags only.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn pivot(new: &str, old: &str) -> Result<()> {
    let (new, old) = (CString::new(new)?, CString::new(old)?);
    // SAFETY: two paths that live until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

fn mount(source: Option<&str>, target: &str, kind: Option<&str>, flags: u64, options: Option<&str>) -> Result<()> {
    let text = |text: Option<&str>| text.map(CString::new).transpose();
    let (source, kind, options) = (text(source)?, text(kind)?, text(options)?);
    let target = CString::new(target)?;
    let address = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |t| t.as_ptr());
    // SAFETY: each address is null or that of a text that lives until the call returns.
    let result = unsafe { libc::mount(address(&source), target.as_ptr(), address(&kind), flags, address(&options).cast()) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// The steps that give a program memory of its own for files, of `bytes` in all.
pub(super) fn files(bytes: u64) -> Vec<Step> {
    // Each file takes at least a page, and an inode besides.
    let options = format!("mode=0700,size={bytes},nr_inodes={}", (bytes / 4096).clamp(16, 4096));
    let flags = Arg::Number((libc::MS_NOSUID | libc::MS_NODEV) as i64);
    let args = vec![c_text("tmpfs"), c_text(FILES), c_text("tmpfs"), flags, c_text(&options)];
    vec![Step::new("tmpfs", libc::SYS_mount, args), Step::new("tmpfs", libc::SYS_chdir, vec![c_text(FILES)])]
}
