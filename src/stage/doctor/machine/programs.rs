//! Whether untrusted programs can be confined here: the sandbox is opened, and about a dozen escapes are tried in it.

use super::super::finding::Finding;
use crate::sandbox::{Check, Options, Refused, Sandbox, selftest};
use serde_json::{Value, json};

/// The finding, and for JSON the tier, the interpreter and the tries, or null where nothing was tried.
pub fn examine() -> (Finding, Value) {
    let sandbox = match Sandbox::open(Options::default()) {
        Ok(sandbox) => sandbox,
        Err(refused) => return (missing(&refused), Value::Null),
    };
    let checks = match selftest(&sandbox) {
        Ok(checks) => checks,
        Err(failed) => return (broken(&failed.to_string()), Value::Null),
    };
    let python = sandbox.python();
    let name = format!("{}, Python {} at {}", sandbox.tier(), python.version, python.executable.display());
    let one = |check: &Check| json!({"name": check.name, "held": check.held, "detail": check.detail});
    let tried: Vec<Value> = checks.iter().map(one).collect();
    let python = json!({"executable": python.executable, "version": python.version});
    (held(&name, &checks), json!({"tier": sandbox.tier(), "python": python, "checks": tried}))
}

fn missing(refused: &Refused) -> Finding {
    let mut remedies = refused.remedies.clone();
    if remedies.is_empty() {
        remedies.push("Install Python 3, or name one in DISTILL_PYTHON.".into());
    }
    remedies.push("Recipes whose answers are no programs do without.".into());
    Finding::fault("sandbox", refused.why(), remedies.join(" "))
}

fn broken(why: &str) -> Finding {
    Finding::fault("sandbox", format!("it broke while it was tried ({why})"), "try again; while this stays, run no untrusted program here")
}

fn held(name: &str, checks: &[Check]) -> Finding {
    let line = |check: &Check| format!("{}  {}: {}", if check.held { "held   " } else { "ESCAPED" }, check.name, check.detail);
    let lines = checks.iter().map(line).collect();
    let escaped = checks.iter().filter(|check| !check.held).count();
    let found = match escaped {
        0 => Finding::good("sandbox", format!("{name}; it held in all {} tries", checks.len())),
        n => Finding::fault(
            "sandbox",
            format!("{name}; it does not hold on this machine: {n} of {} tries got out", checks.len()),
            "run no untrusted program here",
        ),
    };
    found.with(lines)
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::*;

    #[test]
    fn a_missing_sandbox_is_a_fault_that_names_what_is_missing_and_what_helps() {
        let refused = |tier: &str, why: &str, remedies: &[&str]| Refused {
            tried: vec![(tier.into(), why.into())],
            remedies: remedies.iter().map(|remedy| (*remedy).to_owned()).collect(),
        };
        let found = missing(&refused("native", "user namespaces: EPERM", &["Switch them on."]));
        assert_eq!(found.state, State::Fault);
        assert_eq!(found.says, "programs cannot be confined on this machine, and none was run (native: user namespaces: EPERM)");
        assert_eq!(found.remedy.as_deref(), Some("Switch them on. Recipes whose answers are no programs do without."));
        let found = missing(&refused("python", "none", &[]));
        assert!(found.remedy.is_some_and(|remedy| remedy.starts_with("Install Python 3")));
    }

    #[test]
    fn one_escape_is_a_fault_and_every_try_is_shown() {
        let check = |name, held| Check { name, held, detail: "Permission denied".into() };
        let all = held("native", &[check("the network", true), check("mounting", true)]);
        assert_eq!((all.state, &*all.says), (State::Good, "native; it held in all 2 tries"));
        assert_eq!(all.more, ["held     the network: Permission denied", "held     mounting: Permission denied"]);
        let one = held("native", &[check("the network", true), check("mounting", false)]);
        assert_eq!((one.state, &*one.says), (State::Fault, "native; it does not hold on this machine: 1 of 2 tries got out"));
        assert_eq!(one.more[1], "ESCAPED  mounting: Permission denied");
    }
}
