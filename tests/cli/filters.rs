//! Filtering stored traces: what if, a census, the chain of decisions on one trace, and evaluation problems that are not trained on.

use super::fixture::{Place, TEACHER};

#[test]
fn what_if_writes_nothing_and_is_the_funnel_of_the_real_run() {
    let place = Place::with_run();
    let before = place.written("run", "DONE");
    let asked = "filter run/traces --set filter.exact_duplicate=false --what-if length.max=12 --what-if correct=true";
    let said = place.distill(&format!("{asked} --json")).ok().json();
    assert!(!place.path("runs").exists(), "a question makes no run directory");
    assert_eq!(place.written("run", "DONE"), before);
    let real = "filter run/traces --out real --set filter.exact_duplicate=false";
    place.distill(real).ok();
    assert_eq!(place.json("real/corpus/DONE")["funnel"], said["now"]["funnel"]);
    place.distill(&format!("{} --set filter.length.max=12 --set filter.correct=true", real.replace("real", "then"))).ok();
    let then = &place.json("then/corpus/DONE")["funnel"];
    assert_eq!(*then, said["then"]["funnel"]);
    for step in then.as_array().expect("a funnel") {
        let buckets = step["by_pass_rate"].as_array().expect("buckets");
        assert_eq!(buckets.iter().filter_map(|n| n.as_u64()).sum::<u64>(), step["count"].as_u64().expect("a count"), "{step}");
    }
    let text = place.distill(asked).ok().stdout;
    for part in ["what if length.max=12, correct=true: nothing is written", "input", "by the pass rate of the problem", "kept then"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let wrong = place.distill("filter run/traces --what-if lenght.max=12").exits(78);
    assert!(wrong.stderr.contains("--what-if lenght.max: filter.lenght is not a key, did you mean length?"), "{wrong:?}");
}

#[test]
fn a_census_writes_nothing() {
    let place = Place::with_run();
    let text = place.distill("filter run/traces --measure-only").ok().stdout;
    assert!(text.starts_with("run/traces: nothing is written\n"), "{text}");
    assert!(place.distill("filter run/traces --measure-only --json").ok().json().is_object());
    assert!(!place.path("runs").exists());
}

#[test]
fn the_chain_tells_what_every_rule_said_about_a_trace() {
    let place = Place::with_run();
    let id = place.traces("run/corpus/dropped").first().expect("one was dropped").id.clone();
    let text = place.distill(&format!("show run --trace {id}")).ok().stdout;
    for part in [
        &*format!("── {id}"),
        "dropped; what each rule said",
        "finished",
        "finished (length, asked for stop)",
        "exact_duplicate",
        "not asked any more",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let json = place.distill(&format!("show {id} --run run --json")).ok().json();
    assert_eq!(json["decisions"][0]["rule"], "finished");
    assert_eq!((&json["state"], &json["decisions"][0]["state"]), (&"dropped".into(), &"dropped".into()));
    let kept = place.traces("run/corpus").first().map(|trace| trace.id.clone());
    if let Some(id) = kept {
        let text = place.distill(&format!("show run --trace {id}")).ok().stdout;
        assert!(text.contains("stop, one answer") && text.contains("the first of its kind"), "{text}");
    }
    let nothing = place.distill("show run --trace nothing#0").exits(1);
    assert!(nothing.stderr.contains("no trace \"nothing#0\" in run"), "{nothing:?}");
    let nowhere = place.distill("show nothing#0").exits(1);
    assert!(nowhere.stderr.contains("no run in runs/ has a trace \"nothing#0\""), "{nowhere:?}");
}

#[test]
fn evaluation_problems_are_left_out_before_training_and_listed() {
    let place = Place::with_run();
    let held = "a red jar holds twelve marbles and a blue jar holds thirty more than that, how many are in both";
    let others = (0..3).map(|i| format!("{{\"question\": \"what is {i}+2\", \"answer\": \"{}\"}}\n", i + 2)).collect::<String>();
    let paraphrase = held.replace("a red", "There is a box. A Red");
    place.write("own.jsonl", format!("{others}{{\"question\": \"{paraphrase}\", \"answer\": \"54\"}}\n"));
    place.write("held.jsonl", format!("{{\"question\": \"{held}\", \"answer\": \"54\"}}\n"));
    let short = format!(
        "name = \"clean\"\n[problems]\nfile = \"own.jsonl\"\nverify = \"number\"\ndecontaminate = [\"test\"]\n\
         [teacher]\nmodel = \"{TEACHER}\"\n[sample]\nn = 2\nmax_tokens = 24\n\
         [evaluate]\ntasks = [\"test\"]\ntest = {{ file = \"held.jsonl\" }}\n"
    );
    place.write("clean.toml", &short);
    let said = place.distill("sample clean.toml --run clean").ok();
    assert!(said.stderr.contains("1 of 4 problems hold a problem of test and are left out (the first: own/3 holds test/0)"), "{said:?}");
    let list = &place.json("clean/contaminated_problems.json")["own"];
    assert_eq!((&list[0]["problem"], &list[0]["evaluation"], &list[0]["words_in_a_row"]), (&"own/3".into(), &"test/0".into(), &13.into()));
    assert_eq!(place.traces("clean/traces").len(), 6);
    // The same again on what was said.
    place.distill("filter clean.toml --run clean").ok();
    assert!(place.path("clean/corpus/contamination.json").exists());
    // What is not here is asked for, and never passed over.
    place.write("aime.toml", short.replace("decontaminate = [\"test\"]", "decontaminate = [\"aime24\"]"));
    let missing = place.distill("sample aime.toml --run aime").exits(78);
    for part in ["decontaminate: \"aime24\"", "aime_2024.jsonl", "HuggingFaceH4/aime_2024", "DISTILL_DATA"] {
        assert!(missing.stderr.contains(part), "{part:?} is not in {missing:?}");
    }
}
