//! `verify`: pairs as they come, programs in the sandbox, stored traces again.

use super::fixture::Place;
use serde_json::{Value, json};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn pairs_come_back_in_order_with_what_was_found() {
    let place = Place::new();
    let rows = [
        json!({"id": 7, "gold": "\\frac{1}{2}", "pred": "so \\boxed{0.5}", "pred_kind": "response"}),
        json!({"gold": "0.5", "pred": "1/3", "pred_kind": "expr"}),
        json!({"gold": "5", "pred": "I do not know", "pred_kind": "response"}),
        json!({"gold": "C", "pred": "The answer: C, not A."}),
    ];
    place.write("pairs.jsonl", rows.map(|row| row.to_string()).join("\n"));
    let out = place.distill("verify --pairs pairs.jsonl --audit").ok();
    let back = lines(&out.stdout);
    let told: Vec<_> =
        back.iter().map(|row| (row["correct"].clone(), row["answer"].clone(), row["reason"].clone(), row["audit"].clone())).collect();
    assert_eq!(
        told,
        [
            (json!(true), json!("0.5"), json!(null), json!(true)),
            (json!(false), json!("1/3"), json!("different_value"), json!(false)),
            (json!(false), json!(null), json!("no_answer"), json!(null)),
            (json!(true), json!("C"), json!(null), json!(null)),
        ]
    );
    assert_eq!((&back[0]["id"], &back[0]["gold"]), (&json!(7), &json!("\\frac{1}{2}")), "what a line held comes back with it");
    assert_eq!(out.stderr.trim(), "4 lines, 2 correct");
}

#[test]
fn a_line_that_cannot_be_read_comes_back_with_its_number_and_the_others_are_judged() {
    let place = Place::new();
    place.write("pairs.jsonl", "{\"gold\": \"1\", \"pred\": \"1\", \"pred_kind\": \"expr\"}\n\n{\"gold\": 1\n{\"gold\": [], \"pred\": \"1\"}\n{\"pred\": \"1\"}\n{\"gold\": 1, \"pred\": 1, \"pred_kind\": \"text\"}\n");
    let out = place.distill("verify --pairs pairs.jsonl").exits(1);
    let back = lines(&out.stdout);
    assert_eq!((back.len(), &back[0]["correct"]), (5, &json!(true)));
    for (row, (line, part)) in back[1..].iter().zip([
        // The second line of the file is blank.
        (3, "EOF"),
        (4, "gold is [], expected text"),
        (5, "gold is missing"),
        (6, "expected \"response\" or \"expr\""),
    ]) {
        assert_eq!(row["line"], json!(line));
        assert!(row["error"].as_str().is_some_and(|error| error.contains(part)), "{row}");
    }
    assert!(out.stderr.contains("4 of 5 lines could not be read"), "{out:?}");
    place.distill("verify --pairs nowhere.jsonl").exits(78);
    place.distill("verify").exits(2);
}

#[test]
fn programs_are_run_confined_beside_other_lines() {
    let place = Place::new();
    if place.distill("doctor --json").json()["sandbox"].is_null() {
        eprintln!("skipped: this machine has no sandbox (programs as pairs)");
        return;
    }
    let program = |body: &str| json!({"task": "code", "program": format!("def f(x):\n    {body}\n"), "entry": "f", "calls": [[1], [2]], "expected": [2, 3]});
    let rows =
        [program("return x + 1"), json!({"gold": "2", "pred": "2", "pred_kind": "expr"}), program("return x"), program("while True: pass")];
    let mut rows = rows.to_vec();
    rows[3]["limits"] = json!({"cpu": 1, "wall": 2});
    place.write("pairs.jsonl", rows.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"));
    let back = lines(&place.distill("verify --pairs pairs.jsonl").ok().stdout);
    let told: Vec<_> = back.iter().map(|row| (row["correct"].clone(), row["reason"].clone())).collect();
    let expect = [(true, json!(null)), (true, json!(null)), (false, json!("wrong_answer")), (false, json!("time_limit"))];
    assert_eq!(told, expect.map(|(correct, reason)| (json!(correct), reason)));
}

#[test]
fn stored_traces_are_judged_again_and_what_changed_is_listed() {
    let place = Place::with_run();
    let same = place.distill("verify run").ok().stdout;
    assert!(same.contains("traces judged again; 0 changed"), "{same}");
    // A judge that was once mistaken: one verdict of the file is another.
    let mut rows: Vec<Value> = place.traces("run/traces").iter().map(|trace| serde_json::to_value(trace).expect("a trace")).collect();
    let at = rows.iter().position(|row| row["verdict"]["verdict"] != "correct").expect("one is not correct");
    rows[at]["verdict"] = json!({"verdict": "correct", "answer": "1"});
    place.write("old.jsonl", rows.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"));
    let told = place.distill("verify old.jsonl --strict --json --audit").ok().json();
    assert_eq!(told["changed"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!((&told["changed"][0]["id"], &told["changed"][0]["stored"]), (&rows[at]["id"], &json!("correct")));
    assert_eq!(told["audit"]["disagreements"], json!([]), "{told}");
    let text = place.distill("verify old.jsonl --strict --audit").ok().stdout;
    assert!(text.contains("1 changed") && text.contains("the second rule has an opinion on"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    // How they were judged is not guessed where a recipe says it.
    place.write("run/recipe.toml", "name = 3\n");
    let refused = place.distill("verify run").exits(78);
    assert!(refused.stderr.contains("run/recipe.toml says how these traces were judged"), "{refused:?}");
}
