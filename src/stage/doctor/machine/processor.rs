//! The program as it was compiled against the processor that it runs on, and how many cores it may use.
//!
//! What the processor has is read from `/proc/cpuinfo` and not asked of the compiler's own test, which says yes to whatever a program was compiled for.

use super::super::finding::Finding;
use super::{cgroup, field, read};
use crate::model::kernels;
use std::env::consts::{ARCH, OS};
use std::path::Path;

/// Instructions that the loops gain by.
#[derive(Clone, Copy)]
struct Feature {
    arch: &'static str,
    name: &'static str,
    /// As `/proc/cpuinfo` calls it.
    flag: &'static str,
    compiled: bool,
    /// Without them the loops are slow; others are chosen by what matters when the program runs.
    matters: bool,
}

const FEATURES: [Feature; 4] = [
    Feature { arch: "x86_64", name: "AVX2", flag: "avx2", compiled: cfg!(target_feature = "avx2"), matters: true },
    Feature { arch: "x86_64", name: "FMA", flag: "fma", compiled: cfg!(target_feature = "fma"), matters: true },
    Feature { arch: "x86_64", name: "AVX-512F", flag: "avx512f", compiled: cfg!(target_feature = "avx512f"), matters: false },
    Feature { arch: "aarch64", name: "NEON", flag: "asimd", compiled: cfg!(target_feature = "neon"), matters: true },
];

const REBUILD: &str =
    "build it on this machine, where .cargo/config.toml takes what the processor has, or with RUSTFLAGS=\"-C target-cpu=…\" for it";

/// Which program this is and what it was compiled for.
pub fn program() -> Finding {
    let compiled = list(FEATURES.iter().filter(|f| f.arch == ARCH && f.compiled));
    let says = format!("distill {} for {ARCH} on {OS}, compiled with {compiled}", env!("CARGO_PKG_VERSION"));
    if cfg!(debug_assertions) {
        return Finding::warning(
            "program",
            format!("{says}, but not optimised: everything takes many times as long"),
            "build it with --release",
        );
    }
    Finding::good("program", says)
}

/// Whether the processor has what the program was compiled for, and the other way round.
pub fn processor() -> Finding {
    let features: Vec<Feature> = FEATURES.into_iter().filter(|feature| feature.arch == ARCH).collect();
    fitting(&read("/proc/cpuinfo"), &features, kernels::vectors())
}

fn fitting(cpuinfo: &str, features: &[Feature], vectors: &str) -> Finding {
    let products = format!("products are computed with {vectors}");
    let Some(flags) = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")) else {
        return Finding::note("processor", format!("what it has is not known here; {products}"));
    };
    let model = field(cpuinfo, "model name").unwrap_or("this processor");
    let has = |feature: &Feature| flags.split_whitespace().any(|flag| flag == feature.flag);
    let there = list(features.iter().filter(|f| has(f)));
    let lacking: Vec<Feature> = features.iter().filter(|f| f.compiled && !has(f)).copied().collect();
    let unused: Vec<Feature> = features.iter().filter(|f| f.matters && !f.compiled && has(f)).copied().collect();
    if !lacking.is_empty() {
        let says = format!("{model}: it has {there}; this program was compiled for {} as well, and may end at any time", list(&lacking));
        return Finding::fault("processor", says, REBUILD);
    }
    if !unused.is_empty() {
        let says = format!("{model}: it has {there}; this program was compiled without {}, and is slow for it; {products}", list(&unused));
        return Finding::warning("processor", says, REBUILD);
    }
    Finding::good("processor", format!("{model}: it has {there}; {products}"))
}

/// `AVX2, FMA`.
fn list<'a>(features: impl IntoIterator<Item = &'a Feature>) -> String {
    let names: Vec<&str> = features.into_iter().map(|feature| feature.name).collect();
    if names.is_empty() { "no vectors to speak of".into() } else { names.join(", ") }
}

/// Cores of the machine and what of them this process may use.
pub fn cores() -> Finding {
    let quota = cgroup::cores(Path::new(cgroup::ROOT), &read(cgroup::GROUPS));
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    shared(online(&read("/sys/devices/system/cpu/online")), usable, quota)
}

/// `usable` is what the affinity leaves, and the whole part of the quota.
fn shared(online: Option<usize>, usable: usize, quota: Option<f64>) -> Finding {
    match (online, quota) {
        (Some(online), Some(quota)) if quota < online as f64 => Finding::warning(
            "cores",
            format!("{usable} of {online}: a quota of the control group leaves this program {quota:.1} at a time"),
            "raise the container's quota (docker run --cpus, resources.limits.cpu in Kubernetes); more --threads would only wait for each other",
        ),
        (Some(online), _) if usable < online => {
            Finding::note("cores", format!("{usable} of {online}: this program is bound to them (taskset, or a cpuset of the container)"))
        }
        _ => Finding::good("cores", format!("{usable} to compute on")),
    }
}

/// Processors in a list such as `0-3,8-11`.
fn online(text: &str) -> Option<usize> {
    let mut all = 0;
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        all += usize::from(last.checked_sub(first)?) + 1;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::*;

    const XEON: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Processor @ 2.10GHz\ncpu MHz\t\t: 2100.000\n\
        flags\t\t: fpu vme sse sse2 ssse3 fma cx16 avx f16c avx2 bmi2 avx512f avx512dq\nbugs\t\t: spectre_v1\n\nprocessor\t: 1\nmodel name\t: another\n";
    const OLD: &str = "processor\t: 0\nmodel name\t: Intel(R) Core(TM)2 Duo CPU E8400\nflags\t\t: fpu sse sse2 ssse3 sse4_1\n";
    const ARM: &str = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd evtstrm aes\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";

    fn compiled(flags: &[&str]) -> Vec<Feature> {
        let x86 = FEATURES.into_iter().filter(|f| f.arch == "x86_64");
        x86.map(|f| Feature { compiled: flags.contains(&f.flag), ..f }).collect()
    }

    #[test]
    fn a_program_that_was_compiled_for_less_or_more_than_there_is_is_noticed() {
        let check = |cpuinfo: &str, flags: &[&str], state: State, parts: &[&str]| {
            let found = fitting(cpuinfo, &compiled(flags), "AVX-512");
            assert_eq!(found.state, state, "{found:?}");
            parts.iter().for_each(|part| assert!(found.says.contains(part), "{part} is not in {found:?}"));
        };
        let whole = "Intel(R) Xeon(R) Processor @ 2.10GHz: it has AVX2, FMA, AVX-512F; products are computed with AVX-512";
        check(XEON, &["avx2", "fma", "avx512f"], State::Good, &[whole]);
        check(XEON, &["avx2", "fma"], State::Good, &[whole]);
        check(XEON, &["avx2"], State::Warning, &["compiled without FMA,"]);
        check(XEON, &[], State::Warning, &["compiled without AVX2, FMA,"]);
        check(OLD, &[], State::Good, &["it has no vectors to speak of"]);
        check(OLD, &["avx2", "fma"], State::Fault, &["compiled for AVX2, FMA as well"]);
        check("", &["avx2"], State::Note, &["not known here"]);
        let arm = Feature { compiled: true, ..FEATURES[3] };
        assert_eq!(fitting(ARM, &[arm], "NEON").says, "this processor: it has NEON; products are computed with NEON");
    }

    #[test]
    fn cores_are_counted_and_what_is_kept_back_is_told() {
        for (text, count) in [("0\n", Some(1)), ("0-1\n", Some(2)), ("0-3,8-11,15", Some(9)), ("", None), ("3-1", None), ("0-x", None)] {
            assert_eq!(online(text), count, "{text:?}");
        }
        for (online, usable, quota, state, says) in [
            (Some(16), 16, None, State::Good, "16 to compute on"),
            (None, 8, Some(2.0), State::Good, "8 to compute on"),
            (Some(16), 16, Some(16.0), State::Good, "16 to compute on"),
            (Some(16), 1, Some(1.5), State::Warning, "1 of 16: a quota of the control group leaves this program 1.5 at a time"),
            (Some(16), 4, None, State::Note, "4 of 16: this program is bound to them (taskset, or a cpuset of the container)"),
        ] {
            let found = shared(online, usable, quota);
            assert_eq!((found.state, &*found.says), (state, says));
        }
    }
}
