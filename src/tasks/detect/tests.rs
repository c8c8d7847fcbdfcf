use super::*;

/// A file of these lines.
fn file(lines: &[&str]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), lines.join("\n")).expect("written");
    file
}

/// Question, answer and id of a proposal, its check, and the set whose layout it has.
fn proposed(lines: &[&str]) -> Result<String, String> {
    let file = file(lines);
    let proposal = propose(file.path(), &[]).map_err(|error| error.to_string())?;
    let Fields { question, answer, id } = &proposal.fields;
    let task = proposal.task.map_or(String::new(), |task| format!(" as {task}"));
    Ok(format!("{question}/{answer}/{} {}{task}", id.as_deref().unwrap_or("-"), proposal.check))
}

#[test]
fn fields_and_kinds_of_answers_are_told() {
    let rows: [(&[&str], &str); 14] = [
        (&[r#"{"question": "q", "answer": 1}"#, r#"{"question": "q", "answer": "1,000.5"}"#], "question/answer/- number"),
        (&[r#"{"id": 7, "Problem": "q", "solution": "s", "final_answer": "\\frac{1}{2}"}"#], "Problem/final_answer/id math"),
        (&[r#"{"prompt": "q", "target": "3"}"#, r#"{"prompt": "q", "target": "x = 5"}"#], "prompt/target/- math"),
        (&[r#"{"question": "q", "label": "C"}"#, r#"{"question": "q", "label": "(A) a cat"}"#], "question/label/- choice"),
        (&[r#"{"query": "q", "gold": "Paris"}"#, r#"{"query": "q", "gold": "New York"}"#], "query/gold/- exact"),
        (&[r#"{"question": "q", "answer": "so 4+5=9\n#### 9"}"#], "question/answer/- number as gsm8k"),
        (&[r#"{"problem": "q", "solution": "so \\boxed{9}."}"#], "problem/solution/- math as math"),
        (&[r#"{"target": 98, "nums": [44, 19, 35]}"#], "question/answer/- countdown as countdown"),
        (&[r#"{"question": "q", "target": 98, "nums": [44, 19, 35]}"#], "question/answer/- countdown"),
        (&[r#"{"quiz": "q", "names": ["Ada"], "solution": [true]}"#], "quiz/answer/- knights"),
        (&[r#"{"task_id": "a/0", "prompt": "def f():", "test": "assert f()", "entry_point": "f"}"#], "prompt/answer/task_id code"),
        (&[r#"{"question": "q", "tests": 1, "answer": "assert f(1) == 2"}"#], "question/answer/- code"),
        (&[r#"{"question": "q", "answer": [{"input": "1", "output": "2"}]}"#], "question/answer/- code"),
        (&["not JSON", r#"{"text": "q", "output": "7", "id": "a"}"#], "text/output/id number"),
    ];
    for (lines, expect) in rows {
        assert_eq!(proposed(lines).as_deref(), Ok(expect), "{lines:?}");
    }
}

#[test]
fn what_cannot_be_told_is_refused_with_what_is_there() {
    let rows: [(&[&str], &str); 9] = [
        (&[r#"{"foo": "q", "answer": 1}"#], "the fields are: foo, answer; name it with --fields question=…,answer=…"),
        (&[r#"{"question": "q", "bar": 1}"#], "no field looks like an answer (answer, "),
        (
            &[r#"{"prompt": "q", "reward_model": {"style": "rule", "ground_truth": "5"}}"#],
            "the answers lie in reward_model.ground_truth, inside of another field; bring them to the top first, such as with jq -c '. + {answer: .reward_model.ground_truth}'",
        ),
        (&[r#"{"prompt": [{"role": "user", "content": "q"}], "answer": 1}"#], "no field looks like a question"),
        (&[r#"{"question": "q", "answer": {"value": 5}}"#], "the field answer is an object"),
        (&[r#"{"question": "q", "answer": ""}"#], "the field answer is empty in every line"),
        (&["[1]", "x"], "holds no JSON objects, one on each line; line 1: the line is a list"),
        (&[""], "is empty"),
        (&[r#"{"query": "q", "answer": "so\n#### 9"}"#], "with the fields question and answer the file is read as gsm8k"),
    ];
    for (lines, expect) in rows {
        let error = proposed(lines).expect_err("refused");
        assert!(error.contains(expect), "{lines:?}: {error}");
    }
    assert!(
        propose(Path::new("no/such.jsonl"), &[]).expect_err("missing").to_string().starts_with("cannot read the problems no/such.jsonl")
    );
}

#[test]
fn fields_that_are_given_are_not_guessed() {
    let file = file(&[r#"{"question": "q", "a": 5, "foo": "real", "answer": "x"}"#]);
    let given = [("question".to_owned(), "foo".to_owned()), ("answer".to_owned(), "a".to_owned())];
    let proposal = propose(file.path(), &given).expect("told");
    assert_eq!((proposal.fields.question.as_str(), proposal.fields.answer.as_str(), proposal.check), ("foo", "a", Check::Number));
}

#[test]
fn every_line_is_counted_and_what_is_wrong_is_shown_with_its_number() {
    let mut lines: Vec<String> = (0..1000).map(|n| format!(r#"{{"id": {n}, "question": "what is {n}?", "answer": {n}}}"#)).collect();
    lines[2] = r#"{"id": 2, "question": "what is it?", "answer": "about 3"}"#.into();
    lines[5] = r#"{"id": 3, "question": "twice", "answer": 3}"#.into();
    lines[7] = String::new();
    lines[9] = r#"{"id": 9, "answer": 3}"#.into();
    lines[11] = "}".into();
    lines[13] = r#"{"id": 13, "question": "几个苹果?", "answer": 3}"#.into();
    for line in &mut lines[20..30] {
        *line = line.replace("what is", "about");
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let file = file(&lines);
    let proposal =
        Proposal { fields: Fields { id: Some("id".into()), ..Fields::default() }, check: Check::Number, task: None, notes: Vec::new() };
    let census = count(file.path(), &proposal, "own", |problem| problem.question.starts_with("about").then(|| "vague".to_owned()));
    let census = census.expect("readable");
    assert_eq!((census.lines, census.usable, census.unusable_count, census.broken_count), (999, 985, 11, 3));
    let shown: Vec<(&str, &str)> = census.unusable.iter().map(|u| (u.place.as_str(), u.reason.as_str())).collect();
    assert_eq!((shown.len(), shown[0].0, shown[1]), (SHOWN, "3", ("21", "vague")));
    let broken: Vec<usize> = census.broken.iter().map(|(line, _)| *line).collect();
    assert_eq!((broken, census.broken[0].1.as_str()), (vec![6, 10, 12], "the id \"own/3\" is already that of line 4"));
    assert_eq!(census.languages.get(&Language::Zh), Some(&1));
    let places: Vec<usize> = census.examples.iter().map(|p| p.id.0[4..].parse().expect("a number")).collect();
    assert!(places.is_sorted() && places[0] == 0 && places[places.len() - 1] > 900, "{places:?}");
    assert!((SAMPLE / 2..=SAMPLE).contains(&places.len()), "{}", places.len());
}

#[test]
fn real_files_are_told_apart() {
    let Some(folder) = std::env::var_os("DISTILL_DATA").map(std::path::PathBuf::from) else {
        eprintln!("skipped: DISTILL_DATA is unset (real problem files)");
        return;
    };
    let rows = [
        ("gsm8k_train.jsonl", "number", None),
        ("math_train.jsonl", "math", None),
        ("aime_2024.jsonl", "number", None),
        ("amc_2022_2023.jsonl", "number", None),
        ("countdown.jsonl", "countdown", None),
        ("knights_knaves_train.jsonl", "knights", None),
        ("humaneval.jsonl", "code", None),
        ("mbpp_sanitized.jsonl", "code", None),
        ("olympiadbench_en_math.jsonl", "math", None),
    ];
    for (name, check, task) in rows {
        let path = folder.join(name);
        let proposal = propose(&path, &[]).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!((proposal.check.name(), proposal.task), (check, task), "{name}");
        let census = count(&path, &proposal, "own", |_| None).expect("readable");
        eprintln!("{name}: {proposal:?}: {} of {}, {:?}", census.usable, census.lines, census.unusable.first());
        assert_eq!((census.broken_count, census.usable), (0, census.lines), "{name}: {:?} {:?}", census.broken, census.unusable);
    }
}
