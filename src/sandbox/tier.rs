//! How programs are confined, which way is taken on this machine, and what is missing where none is.

use super::filter::landlock_abi;
use super::limits::Limits;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How programs are confined: a part of what a verdict means, so it goes into manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Our own: namespaces, private root, landlock, system call filter, limits.
    Native,
    /// The namespaces and root of bubblewrap, with our filter and limits.
    Bwrap,
    /// No namespaces: landlock and the filter, no child processes, no files. Only where it was asked for.
    Landlock,
    /// Limits only. Only where it was asked for, and every record says so.
    Unsandboxed,
}

impl Tier {
    /// The name in manifests and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Bwrap => "bwrap",
            Self::Landlock => "landlock",
            Self::Unsandboxed => "unsandboxed",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the caller asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program whose `main` calls [`enter`](super::enter) first: this one, unless it is a test or another host of this library.
    pub helper: PathBuf,
    /// The interpreter; see [`Python::find`](super::Python::find).
    pub python: Option<PathBuf>,
    /// Only this tier, or none.
    pub only: Option<Tier>,
    /// Where neither namespaces nor bubblewrap are there, `Tier::Landlock` will do.
    pub allow_landlock: bool,
    /// Run programs without any confinement. No fallback: it is what is done when it is set.
    pub unsandboxed: bool,
    /// Keep an interpreter with the usual modules loaded that each program is forked from.
    pub warm: bool,
    /// What a program may use where its problem says nothing else.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            helper: PathBuf::from("/proc/self/exe"),
            python: None,
            only: None,
            allow_landlock: false,
            unsandboxed: false,
            warm: true,
            limits: Limits::default(),
        }
    }
}

impl Options {
    /// The tiers to try, in order.
    pub(super) fn order(&self) -> Vec<Tier> {
        match (self.unsandboxed, self.only) {
            (true, _) => vec![Tier::Unsandboxed],
            // Without the flag of its own it is no answer to anything.
            (false, Some(Tier::Unsandboxed)) => Vec::new(),
            (false, Some(tier)) => vec![tier],
            (false, None) => {
                let last = self.allow_landlock.then_some(Tier::Landlock);
                [Tier::Native, Tier::Bwrap].into_iter().chain(last).collect()
            }
        }
    }
}

/// No sandbox, and so no program was run: what each tier wants for, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Refused {
    /// Per tier that was tried, its name and what stopped it.
    pub tried: Vec<(String, String)>,
    pub remedies: Vec<String>,
}

impl Refused {
    pub(super) fn new(tried: Vec<(Tier, String)>) -> Self {
        let tried: Vec<(String, String)> = tried.into_iter().map(|(tier, why)| (tier.name().to_owned(), why)).collect();
        let remedies = remedies(&tried);
        Self { tried, remedies }
    }

    /// What each tier wants for, without the remedies.
    pub fn why(&self) -> String {
        let tried: Vec<String> = self.tried.iter().map(|(tier, why)| format!("{tier}: {why}")).collect();
        let tried = if tried.is_empty() { "no tier may be used".to_owned() } else { tried.join("; ") };
        format!("programs cannot be confined on this machine, and none was run ({tried})")
    }

    fn text(&self) -> String {
        format!("{}. {}", self.why(), self.remedies.join(" "))
    }
}

/// What to do, from what was refused and from what the machine says of itself.
fn remedies(tried: &[(String, String)]) -> Vec<String> {
    let refused = |what: &str| tried.iter().any(|(_, why)| why.contains(what));
    let says = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let mut all = Vec::new();
    let mut say = |text: &str| all.push(text.to_owned());
    if refused("user namespaces") || refused("new process") || refused("namespace failed") {
        if says("/proc/sys/user/max_user_namespaces", "0") {
            say("User namespaces are switched off: sysctl -w user.max_user_namespaces=10000.");
        }
        if says("/proc/sys/kernel/unprivileged_userns_clone", "0") {
            say("User namespaces are closed to ordinary users: sysctl -w kernel.unprivileged_userns_clone=1.");
        }
        if says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
            say(
                "AppArmor closes user namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, a profile for this program, or \
                 install bubblewrap, which has one.",
            );
        }
        say(
            "In a container, user namespaces want --security-opt seccomp=unconfined (Docker, Podman) or a profile that allows clone, unshare, \
             mount and pivot_root.",
        );
    }
    if refused("uid 0") {
        say("Run as an ordinary user: the limit on processes does not hold for root (uid 0), and this root cannot become anybody else.");
    }
    if landlock_abi() == 0 {
        say("Landlock is missing: Linux 5.13 or later with `landlock` among the security modules (boot with lsm=landlock,…).");
    }
    if refused("seccomp") {
        say("System call filters are missing: a kernel with CONFIG_SECCOMP_FILTER, and a container that allows the call seccomp.");
    }
    if refused("bwrap is not installed") {
        say("Or install bubblewrap (bwrap).");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weaker_tiers_are_taken_only_when_asked_for() {
        let order = |only, allow_landlock, unsandboxed| Options { only, allow_landlock, unsandboxed, ..Options::default() }.order();
        assert_eq!(order(None, false, false), [Tier::Native, Tier::Bwrap]);
        assert_eq!(order(None, true, false), [Tier::Native, Tier::Bwrap, Tier::Landlock]);
        assert_eq!(order(Some(Tier::Bwrap), true, false), [Tier::Bwrap]);
        assert_eq!(order(Some(Tier::Unsandboxed), false, false), []);
        assert_eq!(order(None, true, true), [Tier::Unsandboxed]);
    }

    #[test]
    fn a_refusal_names_what_is_missing_and_what_helps() {
        let refused = Refused::new(vec![
            (Tier::Native, "user namespaces: No space left on device".into()),
            (Tier::Bwrap, "bwrap is not installed".into()),
        ]);
        let text = refused.to_string();
        for part in ["none was run", "native: user namespaces", "In a container", "install bubblewrap"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(Refused::new(vec![(Tier::Native, "uid 0: …".into())]).to_string().contains("ordinary user"));
        assert!(Refused::new(vec![(Tier::Native, "seccomp: …".into())]).to_string().contains("CONFIG_SECCOMP_FILTER"));
    }
}
