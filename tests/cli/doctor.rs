//! `doctor`: what it finds on this machine, in which form, and that it tells no secret.

use super::fixture::{Output, Place};
use serde_json::Value;
use std::time::Instant;

/// Every check, in its order; `swap` is there only where it is in use.
const CHECKS: [&str; 13] =
    ["program", "processor", "cores", "memory", "pages", "files", "clock", "gpu", "disk", "cache", "hub", "token", "sandbox"];
const SECRET: &str = "hf_secret_value";

/// The doctor with a token, a Hub that nobody is at, and an interpreter that is none.
fn doctor(place: &Place, args: &str) -> Output {
    let mut command = place.command();
    for name in ["HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    // The discard port, where nobody listens.
    command.env("HF_TOKEN", SECRET).env("HF_ENDPOINT", "http://me:secret@127.0.0.1:9").env("DISTILL_PYTHON", "/bin/true");
    place.output(args, command.args(args.split(' ')))
}

/// The finding of a check.
fn finding<'a>(all: &'a Value, check: &str) -> &'a Value {
    let found = all["findings"].as_array().and_then(|list| list.iter().find(|finding| finding["check"] == check));
    found.unwrap_or_else(|| panic!("no {check} in {all:#}"))
}

#[test]
fn every_check_has_its_finding_with_a_remedy_where_one_is_needed_and_no_secret_is_told() {
    let place = Place::new();
    let begin = Instant::now();
    let output = doctor(&place, "doctor --json").exits(78);
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    let all = output.json();
    let list = all["findings"].as_array().expect("a list");
    let names: Vec<&str> = list.iter().filter_map(|finding| finding["check"].as_str()).filter(|check| *check != "swap").collect();
    assert_eq!(names, CHECKS);
    for finding in list {
        let state = finding["state"].as_str().expect("a word");
        assert!(["ok", "note", "warning", "fault"].contains(&state), "{finding}");
        assert!(finding["says"].as_str().is_some_and(|says| !says.is_empty()), "{finding}");
        let remedy = finding["remedy"].as_str();
        assert_eq!(remedy.is_some_and(|remedy| !remedy.is_empty()), ["warning", "fault"].contains(&state), "{finding}");
    }
    let hub = finding(&all, "hub");
    assert_eq!(hub["state"], "warning");
    assert!(hub["says"].as_str().is_some_and(|says| says.starts_with("http://127.0.0.1:9 cannot be reached (")), "{hub}");
    assert_eq!(finding(&all, "token")["says"], "from HF_TOKEN; whether the Hub takes it was not found out");
    assert!(finding(&all, "cache")["says"].as_str().is_some_and(|says| says.starts_with("0 models in HERE/hf/hub")), "{all:#}");
    let sandbox = finding(&all, "sandbox");
    assert_eq!((&sandbox["state"], &all["sandbox"]), (&"fault".into(), &Value::Null));
    assert!(sandbox["says"].as_str().is_some_and(|says| says.contains("/bin/true does not answer as Python does")), "{sandbox}");
    assert_eq!(output.stderr, "error: 1 fault was found (sandbox); what to do is said with each\n");

    let text = doctor(&place, "doctor").exits(78);
    assert!(text.stdout.starts_with("  ok       program    distill "), "{text:?}");
    assert!(text.stdout.contains("  FAULT    sandbox    programs cannot be confined"), "{text:?}");
    for output in [&output, &text] {
        assert!(!output.stdout.contains("secret") && !output.stderr.contains("secret"), "{output:?}");
        // Not a terminal: no colours.
        assert!(!output.stdout.contains('\x1b'), "{output:?}");
    }
    assert!(!place.path("runs").exists() && !place.path("hf").exists(), "the doctor makes no folders");
}

#[test]
fn the_screen_keeps_to_the_columns_and_the_disk_is_that_of_the_run() {
    let place = Place::new();
    place.write("file", "");
    for columns in [60, 80, 140] {
        let mut command = place.command();
        command.args(["doctor", "--run", "file/run"]).env("DISTILL_PYTHON", "/bin/true").env("COLUMNS", columns.to_string());
        let output = place.output("doctor --run file/run", &mut command).exits(78);
        assert!(output.stdout.lines().all(|line| line.chars().count() <= columns), "{columns}\n{}", output.stdout);
        assert!(output.stdout.contains("file cannot be written to (it is a"), "{columns}\n{}", output.stdout);
        assert_eq!(output.stderr, "error: 2 faults were found (disk, sandbox); what to do is said with each\n");
    }
}

#[test]
fn what_was_tried_in_the_sandbox_stands_in_json() {
    let place = Place::new();
    let all = place.distill("doctor --json").json();
    assert_eq!(finding(&all, "hub")["says"], "HF_HUB_OFFLINE is set: it is not asked, and models come from the cache alone");
    let sandbox = finding(&all, "sandbox");
    if all["sandbox"].is_null() {
        assert!(sandbox["state"] == "fault" && sandbox["says"].as_str().is_some_and(|says| says.contains("none was run")), "{sandbox}");
        eprintln!("skipped: a sandbox is missing (what was tried in it)");
        return;
    }
    let checks = all["sandbox"]["checks"].as_array().expect("a list");
    assert!(checks.len() >= 10 && all["sandbox"]["tier"].is_string(), "{all:#}");
    assert!(all["sandbox"]["python"]["version"].is_string() && all["sandbox"]["python"]["executable"].is_string(), "{all:#}");
    assert!(checks.iter().all(|check| check["name"].is_string() && check["held"] == true && check["detail"].is_string()), "{all:#}");
    assert_eq!((&sandbox["state"], sandbox["more"].as_array().map(Vec::len)), (&"ok".into(), Some(checks.len())));
}
