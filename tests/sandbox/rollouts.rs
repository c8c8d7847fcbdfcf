//! Programs as answers in the loop that samples them.

use super::options;
use anyhow::{Result, ensure};
use distill::key::Key;
use distill::problem::{Answer, CodeTests, Language, Problem, ProblemId};
use distill::reward::RewardPreset;
use distill::rollout::{Ask, Judged, PromptStyle, Rollout};
use distill::sampler::{Attempt, Next, Sampler, SamplingParams, Served, Usage};
use distill::sandbox::Limits;
use distill::trace::{Completion, FinishReason};
use distill::verify::code::Code;
use distill::verify::{Extraction, Rules};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Attempt 0 is right, 1 does not end, the others are wrong.
struct Programs;

impl Sampler for Programs {
    fn run(
        &mut self,
        _: &SamplingParams,
        next: &mut dyn FnMut() -> Result<Next>,
        done: &mut dyn FnMut(Attempt) -> Result<()>,
    ) -> Result<()> {
        while let Next::Request { prompt, attempt } = next()? {
            let body = match attempt {
                0 => "return x + 1".to_owned(),
                1 => "while True: pass".to_owned(),
                n => format!("return x + {n}"),
            };
            let served =
                Served { text: format!("```python\ndef f(x):\n    {body}\n```"), prompt_tokens: 1, completion_tokens: 1, logprob: None };
            let completion = Completion { tokens: Vec::new(), logprobs: Vec::new(), finish: FinishReason::Stop };
            done(Attempt { prompt, attempt, completion, served: Some(served) })?;
        }
        Ok(())
    }

    fn stop_when(&mut self, _: fn() -> bool) {}

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

fn run(problems: usize, attempts: u32, done: &mut dyn FnMut(Judged) -> Result<()>) -> Result<()> {
    let rollout = Rollout {
        text: None,
        prompt: PromptStyle::Plain,
        params: SamplingParams::at(1.0, 64),
        // With the usual limits the programs that do not end would take a minute.
        verifier: Rules { limits: Some(Limits { wall_seconds: 0.4, ..Limits::default() }), ..Rules::new(Extraction::Strict) },
        reward: RewardPreset::SimplerlZoo,
    };
    let problem = |i: usize| {
        let tests = CodeTests::Calls { entry: "f".into(), calls: vec![format!("[{i}]")], expected: vec![(i + 1).to_string()] };
        let (id, answer) = (ProblemId(format!("t/{i}")), Answer::Code { tests });
        Arc::new(Problem { id, task: "t".into(), question: "f".into(), answer, language: Language::En, level: None })
    };
    let mut asks = (0..problems).flat_map(|i| (0..attempts).map(move |attempt| (i, attempt)));
    let mut next = || Ok(asks.next().map_or(Ask::End, |(i, attempt)| Ask::Attempt { problem: problem(i), attempt }));
    rollout.run(&mut Programs, Key::new(1, "t"), &mut next, done)
}

#[test]
fn programs_are_judged_beside_the_sampler_within_the_recipes_limits_and_each_comes_once() {
    Code::configure(options());
    if let Err(error) = Code::shared(Extraction::Strict) {
        eprintln!("skipped: a sandbox is missing ({error})");
        return;
    }
    let (mut ids, mut right, mut late) = (BTreeSet::new(), 0, 0);
    run(6, 20, &mut |Judged { trace, .. }| {
        let reason = trace.verdict.as_ref().map(|verdict| format!("{verdict:?}")).unwrap_or_default();
        right += usize::from(trace.is_correct() && trace.attempt == 0 && trace.reward() == 1.0);
        late += usize::from(reason.contains("time_limit") && trace.attempt == 1);
        assert!(trace.attempt < 2 || reason.contains("wrong_answer"), "{reason}");
        assert!(ids.insert(trace.id), "it came twice");
        Ok(())
    })
    .expect("all are judged");
    assert_eq!((ids.len(), right, late), (120, 6, 6));
    // A failure ends the sampling; what had been sampled is handed over all the same, and the failure is told.
    let mut seen = 0;
    let error = run(100, 20, &mut |_| {
        seen += 1;
        ensure!(seen != 5, "the disk is full");
        Ok(())
    });
    assert_eq!(error.expect_err("it failed").to_string(), "the disk is full");
    assert!((5..=200).contains(&seen), "{seen}");
}
