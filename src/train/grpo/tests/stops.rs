//! Rungs of a ladder of contexts, and what ends a phase before its last step: numbers that are not finite, a reward that collapses.

use super::*;
use crate::model::Parameter;

fn weights(learner: &Learner) -> Vec<f32> {
    let of = |p: &Parameter| p.var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    learner.optimizer().parameters().iter().flat_map(of).collect()
}

/// A model and a sampler for another run of a phase.
fn anew(grpo: &Grpo, start: &Decoder) -> (Learner, LocalSampler) {
    let learner = Learner::new(start, grpo.settings.optimizer(), Batching { micro_batch_tokens: 64, recompute: None }).unwrap();
    let sampler = LocalSampler::new(learner.decoder(), grpo.rollout.text.clone().unwrap(), 8, 64).unwrap();
    (learner, sampler)
}

#[test]
fn attempts_grow_with_the_ladder_and_are_paid_by_their_rung() {
    let ladder = vec![Rung { steps: 1, max_tokens: 3 }, Rung { steps: 1, max_tokens: 5 }];
    let penalty = Some(OverlongPenalty { buffer: 2, factor: 1.0 });
    // Hardly learning anything, so that lengths stay what they are.
    let flat = GrpoSettings { learning_rate: 1e-6, ..settings() };
    let whole = GrpoSettings { overlong_penalty: penalty, ..flat.clone() };
    let on_ladder = GrpoSettings { context_ladder: ladder.clone(), ..whole.clone() };
    let dapo = GrpoSettings { context_ladder: ladder, ..flat };
    let (trained, without) = (train(&on_ladder, RewardPreset::SimplerlZoo), train(&whole, RewardPreset::SimplerlZoo));
    let by_preset = train(&dapo, RewardPreset::Dapo);
    for (step, most) in [3, 5, 12, 12].into_iter().enumerate() {
        assert_eq!((trained.records[step].max_tokens, without.records[step].max_tokens), (Some(most), None));
        for (batch, buffer) in [(&trained.batches[step], 2), (&by_preset.batches[step], most / 5)] {
            let longest = batch.judged.iter().map(|j| j.completion.tokens.len()).max();
            assert_eq!(longest, Some(most), "step {step}: some attempts have all the tokens of their rung, and none has more");
            for judged in &batch.judged {
                let expected = crate::reward::overlong_penalty(judged.completion.tokens.len(), most, buffer, 1.0);
                assert_eq!(judged.trace.rewards["overlong"].as_f64(), Some(expected), "step {step}");
            }
        }
    }
    // An attempt is the same as without a ladder, as far as it goes.
    for (short, long) in trained.batches[0].judged.iter().zip(&without.batches[0].judged) {
        let (short, long) = (&short.completion.tokens, &long.completion.tokens);
        assert_eq!(short[..], long[..long.len().min(3)]);
    }
    // Dr. GRPO divides by the tokens that are allowed: 3 in place of 12 at the first step.
    let judged = trained.batches[0].judged.clone();
    let batch = Batch { advantages: (0..judged.len()).map(|i| i as f64 - 5.5).collect(), judged, ..Batch::default() };
    let of = |settings: &GrpoSettings| gradient(&GrpoSettings { loss_type: LossType::DrGrpo, ..settings.clone() }, &batch).0;
    let (short, long) = (of(&on_ladder), of(&whole));
    let largest = short.iter().fold(0f32, |most, g| most.max(g.abs()));
    assert!(largest > 0.0 && short.iter().zip(&long).all(|(short, long)| (short - 4.0 * long).abs() < 1e-5 * largest));
}

#[test]
fn a_rung_follows_from_the_step_alone() {
    let context_ladder = vec![Rung { steps: 2, max_tokens: 8 }, Rung { steps: 3, max_tokens: 16 }];
    let settings = GrpoSettings { steps: 9, context_ladder, ..settings() };
    let all: Vec<usize> = (0..9).map(|step| settings.max_tokens_at(step, 24)).collect();
    assert_eq!(all, [8, 8, 16, 16, 16, 24, 24, 24, 24]);
    assert_eq!(settings.tokens_of_all_steps(24), all.iter().sum::<usize>());
    let none = GrpoSettings { context_ladder: Vec::new(), ..settings };
    assert_eq!((none.max_tokens_at(0, 24), none.tokens_of_all_steps(24)), (24, 9 * 24));
}

/// Stores as `Trained` does, and damages a weight after a step.
struct Damage {
    trained: Trained,
    after: usize,
    weight: Parameter,
    synced: usize,
}

impl Observer for Damage {
    fn attempts(&mut self, step: usize, batch: &Batch) -> Result<()> {
        self.trained.attempts(step, batch)
    }

    fn record(&mut self, record: &StepRecord) -> Result<ControlFlow<()>> {
        if record.step == self.after {
            self.weight.var.set(&(self.weight.var.as_tensor() * f64::NAN)?)?;
        }
        self.trained.record(record)
    }

    fn sync(&mut self) -> Result<()> {
        self.synced += 1;
        Ok(())
    }
}

/// A reference that is damaged in the middle makes a loss, or a reward, that is no number.
#[test]
fn a_step_that_is_not_finite_is_named_and_nothing_before_it_is_lost() {
    for (kl, kl_in, what) in [
        (KlEstimator::K3, KlPlacement::Loss, "the derivative of the loss"),
        (KlEstimator::K1, KlPlacement::Reward, "the reference's log-probability of a token is NaN"),
    ] {
        let overlong_penalty = Some(OverlongPenalty { buffer: 12, factor: 1.0 });
        let settings = GrpoSettings { beta: 0.1, kl, kl_in, overlong_penalty, ..settings() };
        let whole = phase(&settings, RewardPreset::SimplerlZoo, |grpo, learner, sampler, start| {
            assert!(grpo.run(learner, sampler, Some(start.clone()), &mut Trained::default()).unwrap());
            assert!(weights(learner) != weights(&anew(grpo, start).0), "something was learnt");
            weights(learner)
        });
        let resumed = phase(&settings, RewardPreset::SimplerlZoo, |grpo, learner, sampler, start| {
            let (reference, parameters) = start.trainable().unwrap();
            let weight = parameters.into_iter().find(|p| p.name == "model.norm.weight").unwrap();
            let mut observer = Damage { trained: Trained::default(), after: 1, weight, synced: 0 };
            let error = grpo.run(learner, sampler, Some(reference), &mut observer).unwrap_err();
            let broken = error.downcast_ref::<Broken>().unwrap_or_else(|| panic!("{error:#}"));
            assert_eq!((broken.step, broken.not_saved.as_deref(), observer.synced), (2, None, 1));
            assert!(broken.what.starts_with(what), "{broken}");
            // Problems 8 to 11 of five that come again and again.
            let ids = [3, 4, 0, 1].map(|n| format!("arithmetic/train/{n}")).join(", ");
            assert_eq!(broken.batch, format!("its problems are {ids}"));
            assert_eq!((observer.trained.records.len(), observer.trained.batches.len()), (2, 3), "its attempts are stored");
            let cursor = grpo.state.cursor::<serde_json::Value>().unwrap().unwrap();
            assert_eq!((cursor["step"].as_u64(), cursor["asked"].as_u64()), (Some(2), Some(8)));
            // With what was wrong put right, the phase goes on as if nothing had happened.
            let (mut learner, mut sampler) = anew(grpo, start);
            let mut trained = Trained::default();
            assert!(grpo.run(&mut learner, &mut sampler, Some(start.clone()), &mut trained).unwrap());
            assert_eq!((trained.records[0].step, trained.records.len()), (2, 2));
            weights(&learner)
        });
        assert!(whole == resumed, "{kl_in:?}");
    }
}

#[test]
fn the_first_problems_of_a_batch_are_named_and_the_others_counted() {
    let mut judged = train(&GrpoSettings { steps: 1, ..settings() }, RewardPreset::Tiny).batches.remove(0).judged;
    let one = judged.remove(0);
    let named = |ids: &[usize]| {
        let of = |n: &usize| {
            let mut judged = one.clone();
            judged.trace.problem = crate::problem::ProblemId(format!("p{n}"));
            judged
        };
        in_words(&Batch { judged: ids.iter().map(of).collect(), ..Batch::default() })
    };
    assert_eq!(named(&[2, 2, 1, 2]), "its problems are p2, p1");
    assert_eq!(named(&[0, 1, 2, 3, 4, 5, 6, 7, 7]), "its problems are p0, p1, p2, p3, p4, p5, p6, p7");
    assert_eq!(named(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]), "its problems are p0, p1, p2, p3, p4, p5, p6, p7 and 2 more");
}

/// What a phase asked to be kept, and after how many of its steps; it is told to stop after some of them.
#[derive(Default)]
struct Kept {
    trained: Trained,
    best: Vec<usize>,
    after: Vec<usize>,
    synced: usize,
    stops: Option<usize>,
}

impl Observer for Kept {
    fn attempts(&mut self, step: usize, batch: &Batch) -> Result<()> {
        self.trained.attempts(step, batch)
    }

    fn record(&mut self, record: &StepRecord) -> Result<ControlFlow<()>> {
        let stop = self.stops == Some(record.step + 1);
        let _ = self.trained.record(record)?;
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn best(&mut self, _: &Learner, window: &Window) -> Result<()> {
        self.best.push(window.steps);
        Ok(())
    }

    fn after(&mut self, _: &Learner, steps: usize) -> Result<()> {
        self.after.push(steps);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.synced += 1;
        Ok(())
    }
}

/// Thirty steps of a phase on problems that a judge pays: little, much after 5 steps, nearly nothing after 15. In each group one attempt is paid a little more and one a
/// little less, so that there is something to learn.
fn paid(grpo: &Grpo, rule: Option<Collapse>, start: &Decoder, observer: &mut Kept) -> (Result<bool>, Vec<f32>) {
    let settings = GrpoSettings { steps: 30, prompts_per_step: 2, learning_rate: 1e-3, collapse: rule, ..settings() };
    let problem = |n: u64| {
        let ruled = arithmetic::problem(Key::new(11, "open"), "train", n % 5);
        Ok(Arc::new(Problem { answer: Answer::Open { reference: String::new() }, ..ruled }))
    };
    let mut ask = |cases: &[Case]| {
        let score = |case: &Case| {
            let (id, step) = case.id.rsplit_once('@').unwrap();
            let attempt: usize = id.rsplit_once('#').unwrap().1.parse().unwrap();
            let pay = match step.parse::<usize>().unwrap() {
                0..5 => 0.2,
                5..15 => 0.8,
                _ => 0.1,
            };
            pay + 0.05 * ((attempt % 3) as f64 - 1.0)
        };
        Ok(cases.iter().map(|case| Opinion { score: Some(score(case)), ..Opinion::default() }).collect())
    };
    let (mut learner, mut sampler) = anew(grpo, start);
    let opinions = Some(RefCell::new(&mut ask as &mut AskOpinions));
    let grpo =
        Grpo { problem: &problem, opinions, settings: &settings, rollout: grpo.rollout, key: grpo.key, state: grpo.state, save_steps: 4 };
    let ended = grpo.run(&mut learner, &mut sampler, None, observer);
    (ended, weights(&learner))
}

#[test]
fn a_collapse_ends_the_phase_again_and_again_until_the_rule_is_another() {
    let rule = Collapse { window: 5, drop: 0.5 };
    let told = "the reward has collapsed at step 19: its mean over the last 5 steps is 0.100, after 0.800 at step 9 and 0.200 at the beginning; \
                its problems are arithmetic/train/3, arithmetic/train/4";
    let whole = phase(&settings(), RewardPreset::Judge, |grpo, _, _, start| {
        let mut observer = Kept::default();
        let (ended, weights) = paid(grpo, None, start, &mut observer);
        assert!(ended.unwrap() && observer.best.is_empty() && observer.synced == 0);
        assert_eq!(observer.after, (1..=30).collect::<Vec<_>>());
        weights
    });
    let stopped_before = |stops: Option<usize>| {
        phase(&settings(), RewardPreset::Judge, |grpo, _, _, start| {
            let mut observer = Kept { stops, ..Kept::default() };
            if stops.is_some() {
                assert!(!paid(grpo, Some(rule), start, &mut observer).0.unwrap());
                observer.stops = None;
            }
            let error = paid(grpo, Some(rule), start, &mut observer).0.unwrap_err();
            assert_eq!(error.to_string(), told);
            let collapsed = error.downcast_ref::<Collapsed>().unwrap();
            assert_eq!((collapsed.kept.map(|kept| kept.steps), collapsed.last.steps), (Some(12), 20));
            assert_eq!((&observer.best[..], observer.synced), (&[8, 12][..], 1));
            assert_eq!((observer.after.len(), observer.trained.records.len()), (20, 20));
            // The same again is the same error at once: nothing is sampled, nothing is kept.
            let mut again = Kept::default();
            assert_eq!(paid(grpo, Some(rule), start, &mut again).0.unwrap_err().to_string(), told);
            assert!(again.trained.batches.is_empty() && again.best.is_empty() && again.after.is_empty());
            let mut rest = Kept::default();
            let (ended, weights) = paid(grpo, None, start, &mut rest);
            assert!(ended.unwrap() && rest.trained.records[0].step == 20 && rest.after.len() == 10);
            weights
        })
    };
    assert!(whole == stopped_before(None), "a rule that is taken away has changed nothing");
    assert!(whole == stopped_before(Some(10)), "and remembers across a stop what it has seen");
}

/// What is sampled while an update is computed is from the policy before it; stopped and resumed, such a phase is the same one.
#[test]
fn one_step_off_policy_each_batch_is_from_the_policy_before_the_last_update() {
    let overlong_penalty = Some(OverlongPenalty { buffer: 12, factor: 1.0 });
    let ahead = GrpoSettings { overlong_penalty, one_step_off_policy: true, ..settings() };
    let still = GrpoSettings { learning_rate: 1e-30, one_step_off_policy: false, ..ahead.clone() };
    let tokens = |trained: &Trained, step: usize| -> Vec<Vec<u32>> {
        trained.batches[step].judged.iter().map(|judged| judged.completion.tokens.clone()).collect()
    };
    let (moving, fixed) = (train(&ahead, RewardPreset::SimplerlZoo), train(&still, RewardPreset::SimplerlZoo));
    for step in 0..2 {
        assert_eq!(tokens(&moving, step), tokens(&fixed, step), "step {step} was sampled from the first policy");
    }
    assert_ne!(tokens(&moving, 2), tokens(&fixed, 2), "and the next one from the policy after one update");
    assert!(moving.records[0].mismatch_max.is_some_and(|most| most < 1e-4));
    let behind = &moving.records[1..];
    assert!(behind.iter().all(|record| record.mismatch_max.is_none()), "{behind:?}");
    // The group of step 1 has no spread here.
    assert!(behind[1..].iter().all(|record| record.grad_norm.is_some() && record.clip_low.is_some()), "{behind:?}");
    assert_eq!(moving.batches.iter().map(|batch| batch.is_behind).collect::<Vec<_>>(), [false, true, true, true]);

    let whole = phase(&ahead, RewardPreset::SimplerlZoo, |grpo, learner, sampler, _| {
        assert!(grpo.run(learner, sampler, None, &mut Trained::default()).unwrap());
        weights(learner)
    });
    let resumed = phase(&ahead, RewardPreset::SimplerlZoo, |grpo, learner, sampler, start| {
        let mut stop = StopAfter { step: 1, trained: Trained::default() };
        assert!(!grpo.run(learner, sampler, None, &mut stop).unwrap());
        let (mut learner, mut sampler) = anew(grpo, start);
        assert!(grpo.run(&mut learner, &mut sampler, None, &mut Trained::default()).unwrap());
        weights(&learner)
    });
    assert!(whole == resumed);
}

/// Breaks off after a step.
struct StopAfter {
    step: usize,
    trained: Trained,
}

impl Observer for StopAfter {
    fn attempts(&mut self, step: usize, batch: &Batch) -> Result<()> {
        self.trained.attempts(step, batch)
    }

    fn record(&mut self, record: &StepRecord) -> Result<ControlFlow<()>> {
        let _ = self.trained.record(record)?;
        Ok(if record.step == self.step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

/// A first update that throws the weights far away leaves nothing finite for the second on the same attempts: what was before it is no longer there to be saved.
#[test]
fn a_later_update_of_a_step_that_is_not_finite_says_that_the_state_before_it_is_gone() {
    let overlong_penalty = Some(OverlongPenalty { buffer: 12, factor: 1.0 });
    let settings = GrpoSettings { num_iterations: 2, learning_rate: 1e38, overlong_penalty, ..settings() };
    phase(&settings, RewardPreset::SimplerlZoo, |grpo, learner, sampler, _| {
        let error = grpo.run(learner, sampler, None, &mut Trained::default()).unwrap_err();
        let broken = error.downcast_ref::<Broken>().unwrap_or_else(|| panic!("{error:#}"));
        assert_eq!((broken.step, learner.optimizer().steps()), (0, 1));
        assert!(broken.to_string().contains("the state before the step is not saved (1 of its updates were made before"), "{broken}");
        assert!(grpo.state.cursor::<serde_json::Value>().unwrap().is_none());
    });
}
