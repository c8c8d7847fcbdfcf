//! Distillation: from a teacher's distributions, on rows and on own attempts.

use super::fixture::{Place, TEACHER};
use expect_test::expect;
use serde_json::{Value, json};

/// A smaller student beside the little teacher, which is a checkpoint in `m/` here.
const RECIPE: &str = r#"
name = "kd"
seed = 5

[problems]
task = "arithmetic"

[cold_start]
traces = 60

[teacher]
model = "m"

[student]
model = "fresh"
shape = { hidden_size = 16, layers = 1, heads = 2, kv_heads = 1, intermediate_size = 32, positions = 128 }

[[student.phase]]
name = "text"
method = "kd"
data = "cold-start"
epochs = 4.0
batch_size = 6
learning_rate = 1e-2

[[student.phase]]
name = "own"
method = "kd"
lmbda = 1.0
beta = 1.0
temperature = 0.9
steps = 6
batch_size = 4
max_tokens = 16
learning_rate = 1e-3

[evaluate]
tasks = ["arithmetic"]
arithmetic = { problems = 12, n = 2, max_tokens = 24 }

[execution]
grpo_save_steps = 2
"#;

fn place() -> Place {
    let place = Place::with_run();
    place.copy_model(TEACHER, "m");
    place.write("r.toml", RECIPE);
    place
}

#[test]
fn a_student_learns_its_teachers_distributions_on_text_and_on_its_own_attempts() {
    let place = place();
    place.distill("train-student r.toml --run run2").ok();
    let text = place.metrics("run2/student/text");
    assert_eq!(text.len(), 40, "four epochs of 60 rows, six at a time");
    let loss = |line: &Value| line["loss"].as_f64().expect("a loss");
    let (first, last) = (loss(&text[0]), loss(&text[39]));
    assert!(last < 0.5 * first && last > 0.0, "{first} {last}");
    assert!(text.iter().all(|line| line.get("own").is_none()));

    let own = place.metrics("run2/student/own");
    assert_eq!(own.len(), 6);
    for line in &own {
        let what = &line["own"];
        assert_eq!(what["attempts"], 4, "{line}");
        assert!(what["accuracy"].as_f64().is_some_and(|share| (0.0..=1.0).contains(&share)), "{line}");
        assert!(what["length"].as_f64().is_some_and(|tokens| tokens > 0.0 && tokens <= 16.0), "{line}");
    }
    let counts = &place.json("run2/student/own/DONE")["counts"];
    assert_eq!((&counts["steps"], &counts["attempts"]), (&json!(6), &json!(24)));
    let traces = place.traces("run2/student/own/rollouts");
    assert_eq!(traces.len(), 24);
    assert!(
        traces.iter().all(|trace| trace.verdict.is_some() && trace.other.contains_key("step") && !trace.other.contains_key("advantage"))
    );
    let problems: std::collections::BTreeSet<&str> = traces.iter().map(|trace| trace.problem.0.as_str()).collect();
    assert_eq!(problems.len(), 24, "each attempt is at another problem");

    // Stopped in the middle of own attempts, it ends with the same bytes.
    let ready = place.path("cut/student/own/state/cursor.json");
    place.stopped("train-student r.toml --run cut", || ready.exists()).exits(143);
    place.distill("train-student r.toml --run cut").ok();
    for file in ["text/model.safetensors", "own/model.safetensors", "own/rollouts/00000.jsonl.zst", "own/rollouts/manifest.json"] {
        assert!(place.read(&format!("run2/student/{file}")) == place.read(&format!("cut/student/{file}")), "{file}");
    }
    assert!(!place.path("cut/student/own/rollouts.journal").exists());

    // A step without own attempts is not one whose attempts are lost.
    let every_other = "--set student.phase[1].lmbda=0.5 --set student.phase[1].batch_size=1 --set student.phase[1].steps=60 --set student.phase[1].data=\"cold-start\"";
    place.distill(&format!("train-student r.toml --run half {every_other}")).ok();
    let ready = place.path("part/student/own/state/cursor.json");
    place.stopped(&format!("train-student r.toml --run part {every_other}"), || ready.exists()).exits(143);
    let resumed = place.distill(&format!("train-student r.toml --run part {every_other}")).ok();
    assert!(!resumed.stderr.contains("damaged"), "{resumed:?}");
    let counts = |run: &str| place.json(&format!("{run}/student/own/DONE"))["counts"].clone();
    assert_eq!((counts("half")["attempts"].as_u64(), counts("half")["examples"].as_u64()), (Some(30), Some(60)));
    assert_eq!(counts("half"), counts("part"));

    // Another teacher is another training.
    place.copy_model("run/student/base", "m2");
    let refused = place.distill("train-student r.toml --run run2 --set teacher.model=\"m2\"").exits(78);
    assert!(refused.stderr.contains("teacher.model"), "{refused:?}");
    let forced = place.distill("train-student r.toml --run run2 --set teacher.model=\"m2\" --force").ok();
    assert!(forced.stderr.contains("student/text was made from other inputs; moved to run2/superseded/0/student/text"), "{forced:?}");

    // The second phase samples all of its sequences: two operations more for each parameter and token, and in both the teacher's own.
    let plan = place.distill("train-student r.toml --run p --plan --json").ok().json();
    let stages = plan["stages"].as_array().expect("a list");
    let each = |i: usize| {
        let number = |key: &str| stages[i][key].as_f64().expect("known");
        number("seconds") / number("tokens") / number("parameters")
    };
    let teacher = distill::model::load(&place.path("m"), &candle_core::Device::Cpu).expect("a model").config().parameters() as f64;
    let beside = 2.0 * teacher / stages[0]["parameters"].as_f64().expect("known");
    assert!((each(1) / each(0) - (8.0 + beside) / (6.0 + beside)).abs() < 1e-9, "{plan}");
    assert_eq!(plan["downloads"], json!([]));
    // Of a teacher that is not here nothing is known, and so nothing of what it is beside.
    let plan = place.distill("train-student r.toml --run p --plan --json --set teacher.model=\"some/teacher\"").ok().json();
    assert_eq!(plan["downloads"], json!(["some/teacher"]));
    for stage in plan["stages"].as_array().expect("a list") {
        assert!(stage["memory_bytes"].is_null() && stage["seconds"].is_null() && stage["tokens"].is_number(), "{stage}");
    }

    let plan = place.distill("train-student r.toml --run p --plan").ok().stdout;
    assert!(
        plan.contains("kd on cold-start, 4 epochs, 6 sequences each") && plan.contains("kd on own attempts, 6 steps, 4 sequences each"),
        "{plan}"
    );
}

#[test]
fn distillation_that_cannot_be_is_a_problem_of_the_recipe() {
    let place = place();
    let wrong = RECIPE
        .replace("name = \"text\"", "name = \"text\"\nloss_type = \"dft\"\nmax_tokens = 8\nbeta = 1.5")
        .replace("steps = 6", "data = \"cold-start\"")
        .replace("[teacher]\nmodel = \"m\"\n", "");
    place.write("wrong.toml", wrong);
    place.distill("run wrong.toml").fails(expect![[r#"
        78: error: wrong.toml has 6 problems:
          student.phase[0].beta must be from 0 to 1, got 1.5
          student.phase[0].loss_type: the divergence from the teacher is the loss; leave it out
          student.phase[0].max_tokens: no attempts are asked for where lmbda is 0; leave it out
          student.phase[1].data: lmbda is 1, so every sequence is an own attempt and there are no rows; leave it out
          student.phase[1].steps is missing: where every sequence is an own attempt there are no epochs
          student.phase "text" learns from [teacher], which is missing
    "#]]);
    let served = RECIPE.replace("model = \"m\"", "model = \"http://localhost:1/v1\"\nname = \"x\"");
    place.write("served.toml", served);
    place.distill("run served.toml").fails(expect![[r#"
        78: error: served.toml: student.phase "text": a teacher behind a server gives text and no distributions; learn from its traces (method = "sft"), or name a folder or a Hub id
    "#]]);
    let own = RECIPE.replace("model = \"m\"", "model = \"m\"\n[[teacher.phase]]\nmethod = \"kd\"\ndata = \"cold-start\"");
    place.write("own.toml", own);
    place.distill("run own.toml").fails(expect![[r#"
        78: error: own.toml: teacher.phase "kd" would learn from the teacher that it makes; distillation is for the student
    "#]]);
}

/// Ids that mean something else for the teacher would be learnt as if they did not.
#[test]
fn a_teacher_of_another_vocabulary_is_refused_by_the_first_token_that_differs() {
    let place = place();
    let sound = place.distill("doctor r.toml --json");
    assert!(sound.stdout.contains("student and teacher share a vocabulary of"), "{sound:?}");
    let mut tokenizer = place.json("m/tokenizer.json");
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let (a, b) = (vocabulary["3"].clone(), vocabulary["4"].clone());
    (vocabulary["3"], vocabulary["4"]) = (b, a);
    place.write("m/tokenizer.json", tokenizer.to_string());
    let refused = place.distill("train-student r.toml --run run2").exits(78);
    assert!(refused.stderr.contains("teacher and student do not share a vocabulary: id "), "{refused:?}");
    let found = place.distill("doctor r.toml --json").exits(78).json();
    let findings = found["findings"].as_array().expect("a list");
    let fault = findings.iter().find(|finding| finding["check"] == "teacher" && finding["state"] == "fault").expect("a fault");
    assert!(fault["says"].as_str().is_some_and(|says| says.contains("do not share a vocabulary")), "{fault}");
    assert!(fault["remedy"].as_str().is_some_and(|remedy| remedy.contains("same family")), "{fault}");
}

#[test]
fn a_teacher_with_too_few_positions_is_found_out_before_the_run() {
    let place = place();
    let look = |set: &str| place.distill(&format!("doctor r.toml --json --set student.shape.positions=256{set}"));
    let of_teacher = |output: &super::fixture::Output, state: &str| -> Vec<String> {
        let all = output.json();
        let found = all["findings"].as_array().expect("a list").iter();
        found.filter(|f| f["check"] == "teacher" && f["state"] == state).map(|f| format!("{} -> {}", f["says"], f["remedy"])).collect()
    };
    let sound = look("");
    assert!(of_teacher(&sound, "fault").is_empty() && of_teacher(&sound, "warning").len() == 1, "{sound:?}");
    assert!(of_teacher(&sound, "warning")[0].contains("rows may have 256 tokens"), "{sound:?}");
    // The attempt alone would fit; with its prompt it does not.
    let beyond = look(" --set student.phase[1].max_tokens=120 --set student.max_length=128").exits(78);
    let found = of_teacher(&beyond, "fault");
    assert!(
        found.len() == 1 && found[0].contains("128 positions, and an own attempt may have 120 tokens behind a prompt of"),
        "{beyond:?}"
    );
    assert!(of_teacher(&beyond, "warning").is_empty(), "{beyond:?}");
    let run =
        place.distill("train-student r.toml --run long --set student.shape.positions=256 --set student.phase[1].max_tokens=120").exits(78);
    assert!(run.stderr.contains("the teacher has 128 positions, and sequences of up to"), "{run:?}");
    // Where the student ends there too, its attempts do.
    place.distill("doctor r.toml --json --set student.phase[1].max_tokens=120").ok();
}
