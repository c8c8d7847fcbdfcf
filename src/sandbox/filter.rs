//! What a confined process may ask of the kernel: the list of system calls, the landlock rules, and the steps that put both on.
//!
//! The list says what is allowed; whatever is not on it, now or in a later kernel, answers EPERM. Allowed are the calls that an interpreter, its
//! standard library, threads and child processes use; some only with certain arguments.

use super::steps::{Arg, Step};
use anyhow::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// Allowed with any arguments.
const ALLOWED: &[i64] = &[
    // files, as far as the root, landlock and limits let them
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_umask,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_fadvise64,
    // memory
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_msync,
    libc::SYS_mincore,
    // waiting
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    // signals, which reach no further than the process namespace
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_restart_syscall,
    // processes and threads
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpgid,
    libc::SYS_setpgid,
    libc::SYS_getsid,
    libc::SYS_setsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getrusage,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_capget,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_getcpu,
    // sockets that `socket` below lets come about
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
];

/// The older spellings that this machine's kernel has besides.
#[cfg(target_arch = "x86_64")]
const ALSO_ALLOWED: &[i64] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_alarm,
    libc::SYS_pause,
    libc::SYS_time,
    libc::SYS_getpgrp,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALSO_ALLOWED: &[i64] = &[];

/// Kinds of new namespaces, in `clone`'s flags.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

const PRCTL: [i32; 7] = [
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_PDEATHSIG,
    libc::PR_GET_PDEATHSIG,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_CAPBSET_READ,
];
/// Names an anonymous mapping, as newer allocators do.
const PR_SET_VMA: i32 = 0x5356_4d41;

/// Whether the confined process may start others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forks {
    /// In its own process namespace, up to the limit.
    Allowed,
    /// Without a namespace nobody would end them, and signals would reach strangers.
    Denied,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filter as instructions of 8 bytes each.
///
/// # Errors
/// On an architecture that the filter is not written for.
pub(super) fn programs(forks: Forks) -> Result<Vec<Vec<u8>>> {
    let errno = |code: i32| SeccompAction::Errno(code.unsigned_abs());
    // glibc hides the flags of a new process behind a pointer in clone3; told that there is no such call, it uses clone. Of two filters that refuse,
    // the one that was put on last gives the error; so the list lets clone3 pass, and this one, put on before it, does not.
    let absent = compile([(libc::SYS_clone3, Vec::new())].into(), SeccompAction::Allow, errno(libc::ENOSYS))?;
    let mut list = allowed(forks)?;
    list.insert(libc::SYS_clone3, Vec::new());
    let list = compile(list, errno(libc::EPERM), SeccompAction::Allow)?;
    Ok([absent, list].iter().map(instructions).collect())
}

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().context("no system call filter for this architecture")?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).context("the system call filter")?;
    filter.try_into().context("the system call filter")
}

fn instructions(program: &BpfProgram) -> Vec<u8> {
    let bytes = |i: &seccompiler::sock_filter| {
        let [c0, c1] = i.code.to_ne_bytes();
        let [k0, k1, k2, k3] = i.k.to_ne_bytes();
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    };
    program.iter().flat_map(bytes).collect()
}

fn allowed(forks: Forks) -> Result<Rules> {
    let mut rules: Rules = ALLOWED.iter().chain(ALSO_ALLOWED).map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_prctl, one_of(0, PRCTL.into_iter().chain([PR_SET_VMA]))?);
    let terminal = [libc::TCGETS as i32, libc::TIOCGWINSZ as i32, libc::FIONREAD as i32, libc::FIONBIO as i32, libc::FIOCLEX as i32];
    rules.insert(libc::SYS_ioctl, one_of(1, terminal.into_iter())?);
    // Limits may be read, and its own lowered; those of our init not.
    rules.insert(libc::SYS_prlimit64, one_of(0, [0].into_iter())?);
    match forks {
        Forks::Allowed => {
            rules.insert(libc::SYS_socket, one_of(0, [libc::AF_UNIX].into_iter())?);
            rules.insert(libc::SYS_socketpair, one_of(0, [libc::AF_UNIX].into_iter())?);
            rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![masked(0, NAMESPACES, 0)?])?]);
            rules.extend([libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill].map(|number| (number, Vec::new())));
            #[cfg(target_arch = "x86_64")]
            rules.extend([libc::SYS_fork, libc::SYS_vfork].map(|number| (number, Vec::new())));
        }
        Forks::Denied => {
            // Threads share the fate of their process, so they are no way around its end.
            let thread = libc::CLONE_THREAD | libc::CLONE_VM;
            rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![masked(0, NAMESPACES | thread, thread)?])?]);
        }
    }
    Ok(rules)
}

/// One rule per value of the argument; its upper half is not looked at, as the kernel does not either.
fn one_of(argument: u8, values: impl Iterator<Item = i32>) -> Result<Vec<SeccompRule>> {
    let rule = |value: i32| {
        let equal = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value as u32))?;
        Ok(SeccompRule::new(vec![equal])?)
    };
    values.map(rule).collect()
}

fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition> {
    let operator = SeccompCmpOp::MaskedEq(u64::from(mask as u32));
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, u64::from(value as u32))?)
}

/// The steps that give up every privilege for good and put filter and rules on.
pub(super) fn steps(programs: &[Vec<u8>], ruleset: Option<i32>) -> Vec<Step> {
    let mut steps = vec![Step::prctl("no_new_privs", libc::PR_SET_NO_NEW_PRIVS, 1)];
    steps.extend(ruleset.map(|fd| {
        let args = vec![Arg::Number(fd.into()), Arg::Number(0)];
        Step::new("landlock_restrict_self", libc::SYS_landlock_restrict_self, args)
    }));
    // SECCOMP_SET_MODE_FILTER = 1. What one of them refuses is refused.
    steps.extend(programs.iter().map(|program| {
        let args = vec![Arg::Number(1), Arg::Number(0), Arg::Program(program.clone())];
        Step::new("seccomp", libc::SYS_seccomp, args)
    }));
    steps
}

/// Gives up the capabilities of a namespace, one by one and then all; where there are none, nothing changes.
pub(super) fn without_capabilities() -> Vec<Step> {
    // Version 3, this process; three sets of 64 bits, all empty.
    let header = [0x2008_0522u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    let mut steps: Vec<Step> = (0..=40).map(|n| Step::prctl("capabilities", libc::PR_CAPBSET_DROP, n).optional()).collect();
    steps.push(Step::new("capabilities", libc::SYS_capset, vec![Arg::Bytes(header), Arg::Bytes(vec![0; 24])]));
    steps
}

/// The number of the newest landlock interface that the kernel offers; 0 is none.
pub(super) fn landlock_abi() -> u32 {
    // SAFETY: asks for the version (flag 1) and passes no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    u32::try_from(version).unwrap_or(0)
}

/// A ruleset under which `readable` may be read and run, `writable` also written, and `devices` read and written; TCP and, where the kernel
/// can, signals and abstract sockets beyond the sandbox are closed.
///
/// # Errors
/// Where the kernel has no landlock, or a path is not there.
pub(super) fn ruleset(readable: &[&str], writable: &[&str], devices: &[&str]) -> Result<OwnedFd> {
    let abi = ABI::V6;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let read = AccessFs::from_read(abi);
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    for (paths, access) in [(readable, read), (writable, AccessFs::from_all(abi)), (devices, device)] {
        for path in paths {
            let folder = PathFd::new(path)?;
            let access = if std::path::Path::new(path).is_dir() { access } else { access & AccessFs::from_file(abi) };
            rules = rules.add_rule(PathBeneath::new(folder, access))?;
        }
    }
    Option::<OwnedFd>::from(rules).context("this kernel has no landlock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_of_a_size_that_the_kernel_takes() {
        for forks in [Forks::Allowed, Forks::Denied] {
            let programs = programs(forks).expect("this architecture has a filter");
            assert!(programs.iter().all(|p| p.len() % 8 == 0 && p.len() / 8 < 4096), "{forks:?}");
        }
    }

    #[test]
    fn what_reaches_beyond_a_process_is_not_on_the_list() {
        let forbidden = [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_memfd_create,
            libc::SYS_shmget,
            libc::SYS_msgget,
            libc::SYS_open_by_handle_at,
            libc::SYS_clone3,
            libc::SYS_seccomp,
            libc::SYS_setuid,
            libc::SYS_pidfd_getfd,
        ];
        for forks in [Forks::Allowed, Forks::Denied] {
            let rules = allowed(forks).expect("rules");
            assert!(forbidden.iter().all(|number| !rules.contains_key(number)), "{forks:?}");
            for conditional in [libc::SYS_clone, libc::SYS_prctl, libc::SYS_ioctl, libc::SYS_prlimit64] {
                assert!(!rules[&conditional].is_empty(), "{forks:?}: {conditional} is allowed with any arguments");
            }
        }
        let denied = allowed(Forks::Denied).expect("rules");
        assert!([libc::SYS_kill, libc::SYS_socket, libc::SYS_tgkill].iter().all(|number| !denied.contains_key(number)));
    }
}
