//! The training phases of teacher and student, and the controls: each reads a model and its data, and leaves a model folder.
//!
//! A phase's folder holds the model as `transformers` loads it, `metrics.jsonl`, `probes.jsonl` (a few held-out problems, answered greedily as
//! training goes on), `rollouts/` for GRPO, and while it runs one resumable `state/`.

use super::collect::{capacity, entry, slots};
use super::examples::{cold_start, demonstrations};
use super::filter;
use super::models::{self, Loaded, Origin};
use super::problems::{ProblemSet, evaluation};
use super::rules::{add_identity, rules};
use super::run::{Interrupted, Run, Status};
use super::sample;
use super::speaker;
use super::ui::interrupt_requested;
use crate::judge::{Case, Cost, Judge, Opinion};
use crate::key::Key;
use crate::model;
use crate::model::text::Text;
use crate::problem::{Answer, Problem};
use crate::publish::{self, Lines};
use crate::recipe::{ControlData, Grpo as GrpoPhase, Method, Model, Phase, Sft as SftPhase};
use crate::reward::RewardPreset;
use crate::rollout::{Ask, Judged, Rollout};
use crate::sampler::{LocalSampler, Sampler, SamplingParams};
use crate::shard::{Entry, Journal, Manifest, Place, SealOptions, seal};
use crate::trace::Trace;
use crate::train::{AskOpinions, Batch, Batching, Example, Grpo, Learner, LossType, Observer, Sft, State, StepRecord};
use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Held-out problems that are answered again and again while a phase trains.
const PROBES: usize = 8;

/// Trains the teacher.
pub fn teacher(run: &Run) -> Result<()> {
    run.recipe.teacher.as_ref().map_or(Ok(()), |model| phases(run, model, "teacher"))
}

/// Trains the student.
pub fn student(run: &Run) -> Result<()> {
    run.recipe.student.as_ref().map_or(Ok(()), |model| phases(run, model, "student"))
}

/// Trains the controls: the student before the corpus, with the settings of its first corpus phase, on other data.
pub fn controls(run: &Run) -> Result<()> {
    let Some(model) = &run.recipe.student else { return Ok(()) };
    for control in &run.recipe.controls {
        let phase = model.phases.iter().find(|p| p.uses_corpus()).context("a control needs a student phase on the corpus to copy")?;
        let origin = before_corpus(run, model)?.context("a control needs the student before its corpus phase")?;
        let data = match control.data {
            ControlData::Unfiltered => Data::Unfiltered,
        };
        Job { run, stage: format!("controls/{}", control.name), role: "student", model, origin, phase, data }.run()?;
    }
    Ok(())
}

/// The student as it is before its first phase on the corpus; `None` where there is no such phase or nothing before it but random weights.
pub fn before_corpus(run: &Run, model: &Model) -> Result<Option<Origin>> {
    match model.phases.iter().position(|p| p.uses_corpus()) {
        Some(0) if model.is_fresh() => Ok(None),
        Some(0) => Ok(Some(models::origin(run, model)?)),
        Some(i) => Ok(Some(Origin::Folder(run.folder(&format!("student/{}", model.phases[i - 1].name))))),
        None => Ok(None),
    }
}

fn phases(run: &Run, model: &Model, role: &'static str) -> Result<()> {
    let mut origin = models::origin(run, model)?;
    for phase in &model.phases {
        run.check_interrupt()?;
        let data = match &phase.method {
            Method::Sft(sft) if sft.data == "corpus" => Data::Corpus,
            Method::Sft(sft) if sft.data == "cold-start" => Data::ColdStart,
            Method::Sft(sft) => Data::Folder(PathBuf::from(&sft.data)),
            Method::Grpo(_) => Data::Problems,
        };
        let stage = format!("{role}/{}", phase.name);
        let folder = run.folder(&stage);
        Job { run, stage, role, model, origin, phase, data }.run()?;
        origin = Origin::Folder(folder);
    }
    Ok(())
}

/// What a phase learns from.
enum Data {
    Corpus,
    ColdStart,
    Unfiltered,
    Folder(PathBuf),
    Problems,
}

/// One phase to be trained.
struct Job<'a> {
    run: &'a Run,
    stage: String,
    role: &'static str,
    model: &'a Model,
    origin: Origin,
    phase: &'a Phase,
    data: Data,
}

impl Job<'_> {
    fn run(&self) -> Result<()> {
        let begin = Instant::now();
        let inputs = self.inputs()?;
        if self.run.status(&self.stage, &inputs, &Value::Null)? == Status::Done {
            return self.clean();
        }
        let folder = self.run.folder(&self.stage);
        let Loaded { decoder, text, .. } = models::open(self.run, self.model, &self.origin, self.role)?;
        let decoder = self.adapted(decoder)?;
        let positions = decoder.config().max_positions;
        let limit = if self.model.max_length == 0 { positions } else { self.model.max_length };
        super::run::config(if limit <= positions {
            Ok(())
        } else {
            Err(anyhow::anyhow!(
                "{}.max_length {limit} is beyond the model's {positions} positions (max_position_embeddings); choose at most {positions}",
                self.role
            ))
        })?;
        let state = State::new(folder.join("state"));
        let optimizer = match &self.phase.method {
            Method::Sft(sft) => sft.settings.optimizer(),
            Method::Grpo(grpo) => grpo.settings.optimizer(),
        };
        let execution = &self.run.recipe.execution;
        let batching = Batching { micro_batch_tokens: execution.micro_batch_tokens, recompute: execution.recompute };
        let mut learner = Learner::new(&decoder, optimizer, batching)?;
        let counts = match &self.phase.method {
            Method::Sft(sft) => {
                drop(decoder); // the learner has its own
                self.sft(sft, &mut learner, &text, &state, limit)?
            }
            Method::Grpo(grpo) => {
                let reference = (grpo.settings.beta > 0.0).then(|| decoder.without_adapter());
                drop(decoder);
                self.grpo(grpo, &mut learner, reference, &text, &state)?
            }
        };
        match learner.decoder().lora() {
            Some(_) => model::save_adapter(learner.decoder(), &models::base_name(self.run, self.model, &self.origin)?, &folder)?,
            None => model::save(learner.decoder(), &folder)?,
        }
        text.save_into(&folder)?;
        let mut record = Run::done_record(&self.stage, &inputs, &Value::Null, counts, begin);
        record["weights_hash"] = models::weights_hash(&folder)?.into();
        record["model_hash"] = models::folder_hash(&folder)?.into();
        Run::mark_done(&folder, record)?;
        self.clean()
    }

    /// The model with the adapter that the recipe asks for: that of the phase before, or a new one. Where the recipe asks for none, one that is there is worked in.
    fn adapted(&self, decoder: model::Decoder) -> Result<model::Decoder> {
        let Some(wanted) = &self.model.lora else {
            return if decoder.lora().is_some() { decoder.merged() } else { Ok(decoder) };
        };
        match decoder.lora() {
            None => decoder.with_adapter(wanted, self.key("adapter")),
            Some(there) => {
                let is_same = (there.r, there.scale(), &there.targets) == (wanted.r, wanted.scale(), &wanted.targets);
                super::run::config(if is_same {
                    Ok(decoder)
                } else {
                    Err(anyhow::anyhow!("{}.lora asks for {wanted:?}, but the adapter that is there has {there:?}", self.role))
                })
            }
        }
    }

    /// Removes what only a resumption needs: after `DONE` and never before, since a kill in between must find it.
    fn clean(&self) -> Result<()> {
        let folder = self.run.folder(&self.stage);
        State::new(folder.join("state")).clear()?;
        let journal = folder.join(Rollouts::JOURNAL);
        if journal.exists() {
            std::fs::remove_file(&journal).with_context(|| format!("cannot remove {}", journal.display()))?;
        }
        Ok(())
    }

    /// Everything that the phase's result follows from.
    fn inputs(&self) -> Result<Value> {
        let run = self.run;
        let data = match &self.data {
            Data::Corpus => json!({"corpus": Manifest::load(run.folder(filter::FOLDER))?.hash()?}),
            Data::Unfiltered => json!({
                "traces": Manifest::load(run.folder(sample::FOLDER))?.hash()?,
                "count": Manifest::load(run.folder(filter::FOLDER))?.rows,
            }),
            Data::ColdStart => {
                let cold_start = run.recipe.cold_start.as_ref().context("[cold_start] is missing")?;
                json!({"cold_start": cold_start.corruption, "traces": cold_start.traces})
            }
            Data::Folder(folder) => json!({"folder": data_hash(folder)?}),
            Data::Problems => {
                let problems = ProblemSet::training(run, &self.stage)?;
                let mut data = json!({"problems": problems.identity(), "extraction": run.recipe.problems.extraction});
                if let ProblemSet::Fixed { problems, .. } = &problems {
                    add_identity(&mut data, &rules(run)?, problems);
                }
                data
            }
        };
        let method = match &self.phase.method {
            Method::Sft(sft) => json!({"sft": sft.settings}),
            Method::Grpo(g) => {
                let mut method = json!({
                    "grpo": g.settings, "reward": g.reward, "prompt": g.prompt, "sampling": SamplingParams::at(g.temperature, g.max_tokens),
                });
                if g.settings.loss_type == LossType::Bnpo {
                    // Its denominators are those of the micro-batches.
                    method["micro_batch_tokens"] = run.recipe.execution.micro_batch_tokens.into();
                }
                if let Some(judge) = run.recipe.judge.as_ref().filter(|_| g.reward == RewardPreset::Judge) {
                    let model = models::identity(run, &models::origin(run, &judge.model)?, "judge", &judge.model)?;
                    method["judge"] = json!({"model": model, "votes": judge.votes, "sampling": judge.params});
                }
                method
            }
        };
        let model = models::identity(run, &self.origin, self.role, self.model)?;
        let mut inputs = json!({"model": model, "data": data, "method": method, "max_length": self.model.max_length, "seed": run.seed()});
        if let Some(lora) = &self.model.lora {
            inputs["lora"] = serde_json::to_value(lora)?;
        }
        Ok(inputs)
    }

    fn key(&self, purpose: &str) -> Key {
        Key::new(self.run.seed(), purpose).name(&self.stage)
    }

    fn sft(&self, phase: &SftPhase, learner: &mut Learner, text: &Arc<Text>, state: &State, limit: usize) -> Result<Value> {
        let (examples, too_long) = self.examples(text, limit)?;
        if too_long > 0 {
            self.run.ui.say(&format!("{}: {too_long} traces are longer than {limit} tokens and are left out, not cut", self.stage));
        }
        ensure!(
            too_long == 0 || !examples.is_empty(),
            "{}: every one of {too_long} traces is longer than {limit} tokens (max_length)",
            self.stage
        );
        ensure!(
            !examples.is_empty(),
            "{}: there is nothing to train on: no trace is left (distill show lists why each was dropped)",
            self.stage
        );
        let steps = phase.settings.steps_for(examples.len());
        let save_steps = self.run.recipe.execution.save_steps;
        let sft = Sft { settings: &phase.settings, examples: &examples, key: self.key("order"), state, save_steps };
        let resume = sft.resume_step()?;
        let mut watch = Watch::open(self, learner, text, (steps, save_steps), resume)?;
        let complete = sft.run(learner, &mut |record| {
            watch.metrics.append(record)?;
            watch.bar.set_message(format!("loss {:.3}  {:.0} tokens/s", record.loss, record.tokens_per_second));
            watch.after(record.step)
        })?;
        watch.bar.finish_and_clear();
        if !complete {
            bail!(Interrupted);
        }
        let targets: usize = examples.iter().map(Example::targets).sum();
        Ok(json!({"examples": examples.len(), "too_long": too_long, "target_tokens": targets, "steps": steps}))
    }

    fn grpo(
        &self,
        phase: &GrpoPhase,
        learner: &mut Learner,
        reference: Option<model::Decoder>,
        text: &Arc<Text>,
        state: &State,
    ) -> Result<Value> {
        let problems = ProblemSet::training(self.run, &self.stage)?;
        let rollout = Rollout {
            text: Some(text.clone()),
            prompt: phase.prompt,
            params: SamplingParams::at(phase.temperature, phase.max_tokens),
            verifier: rules(self.run)?,
            reward: phase.reward,
        };
        let positions = learner.decoder().config().max_positions;
        let seen = problems.len().map_or_else(|| problems.first(256, ""), |_| problems.first(0, ""))?;
        let slack = if problems.len().is_some() { 0 } else { 32 };
        rollout.verifier.ready(seen.iter().map(|problem| &**problem))?;
        let room = (capacity(&rollout, &seen, positions)? + slack).min(positions);
        let slots = slots(self.run, learner.decoder().config(), room)?;
        let mut sampler = LocalSampler::new(learner.decoder(), text.clone(), slots, room)?;
        let save_steps = self.run.recipe.execution.grpo_save_steps;
        let is_open = seen.iter().any(|problem| matches!(problem.answer, Answer::Open { .. }));
        let mut judge = if is_open { Some(Asked::open(self.run, phase, &seen)?) } else { None };
        let mut ask = |cases: &[Case]| judge.as_mut().context("[judge] is missing")?.opinions(cases);
        let grpo = Grpo {
            opinions: is_open.then(|| RefCell::new(&mut ask as &mut AskOpinions)),
            settings: &phase.settings,
            rollout: &rollout,
            problem: &|n| problems.endless(n),
            key: self.key("grpo"),
            state,
            save_steps,
        };
        let resume = grpo.resume_step()?;
        let watch = Watch::open(self, learner, text, (phase.settings.steps, save_steps), resume)?;
        let mut keeper = Keeper { watch, rollouts: Rollouts::open(self.run, &self.stage, resume)? };
        let complete = grpo.run(learner, &mut sampler, reference, &mut keeper)?;
        keeper.watch.bar.finish_and_clear();
        let missing = keeper.rollouts.missing.clone();
        if !complete {
            bail!(Interrupted);
        }
        let source = speaker::source(&rollout, self.stage.clone(), String::new(), self.run);
        let manifest = keeper.rollouts.seal(crate::shard::Source { weights_hash: None, ..source })?;
        let mut counts = json!({"steps": phase.settings.steps, "attempts": manifest.rows, "tokens": manifest.tokens()});
        if !missing.is_empty() {
            counts["steps_without_rollouts"] = missing.into();
        }
        if let Some(judge) = judge {
            counts["judge"] = serde_json::to_value(judge.cost)?;
        }
        Ok(counts)
    }

    /// The examples of an SFT phase, and how many were left out for their length.
    fn examples(&self, text: &Arc<Text>, limit: usize) -> Result<(Vec<Example>, usize)> {
        let run = self.run;
        let demonstrations = match &self.data {
            Data::Corpus => demonstrations(&run.folder(filter::FOLDER))?,
            Data::Folder(folder) => demonstrations(folder)?,
            Data::Unfiltered => {
                let count = Manifest::load(run.folder(filter::FOLDER))?.rows as usize;
                let mut all = demonstrations(&run.folder(sample::FOLDER))?;
                Key::new(run.seed(), "unfiltered").stream().shuffle(&mut all);
                all.truncate(count);
                all
            }
            Data::ColdStart => cold_start(run)?,
            Data::Problems => bail!("a GRPO phase has no examples"),
        };
        let examples = demonstrations
            .par_iter()
            .map(|demonstration| demonstration.example(text).with_context(|| format!("trace {}", demonstration.name)))
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("cannot make training rows for {}", self.stage))?;
        let all = examples.len();
        let fitting: Vec<Example> = examples.into_iter().filter(|e| e.tokens.len() <= limit).collect();
        let too_long = all - fitting.len();
        Ok((fitting, too_long))
    }
}

fn data_hash(path: &Path) -> Result<String> {
    if path.is_dir() { Manifest::load(path)?.hash() } else { publish::sha256_file(path) }
}

/// The judge of a phase on problems that no rule can check.
struct Asked {
    judge: Judge,
    sampler: Box<dyn Sampler>,
    /// Since this process began.
    cost: Cost,
}

impl Asked {
    fn open(run: &Run, phase: &GrpoPhase, problems: &[Arc<Problem>]) -> Result<Self> {
        let settings = run.recipe.judge.as_ref().context("[judge] is missing: name a model in judge.model")?;
        let origin = models::origin(run, &settings.model)?;
        let speaker = speaker::Speaker::open(run, &settings.model, &origin, "judge")?;
        let judge =
            Judge { text: speaker.text(), votes: settings.votes, params: settings.params.clone(), key: Key::new(run.seed(), "judge") };
        let case = |problem: &Arc<Problem>| Case {
            id: problem.id.0.clone(),
            question: problem.question.clone(),
            reference: Some(problem.answer.gold()).filter(|gold| !gold.is_empty()),
            answer: String::new(),
        };
        let cases: Vec<Case> = problems.iter().map(case).collect();
        // Another tokenizer may need more tokens for the same answer; what is longer still is a reply that cannot be read.
        let room = |positions: usize| Ok((judge.room(&cases, positions)? + 2 * phase.max_tokens).min(positions));
        let sampler = speaker.sampler_for(run, &settings.model, &room)?;
        Ok(Self { judge, sampler, cost: Cost::default() })
    }

    fn opinions(&mut self, cases: &[Case]) -> Result<Vec<Opinion>> {
        let mut found = BTreeMap::new();
        let cost = self.judge.run(&mut *self.sampler, cases, &mut |case, opinion| {
            found.insert(case.id.clone(), opinion);
            Ok(())
        })?;
        self.cost.requests += cost.requests;
        self.cost.prompt_tokens += cost.prompt_tokens;
        self.cost.completion_tokens += cost.completion_tokens;
        // A sampler that was told to stop leaves some out.
        cases.iter().map(|case| found.remove(&case.id).ok_or_else(|| Interrupted.into())).collect()
    }
}

/// Metrics, progress and probes of a phase.
struct Watch<'a> {
    run: &'a Run,
    metrics: Lines,
    bar: ProgressBar,
    probes: Option<Probes>,
    steps: usize,
    /// Steps between two resumable states.
    save_steps: usize,
}

struct Probes {
    rollout: Rollout,
    sampler: LocalSampler,
    problems: Vec<Arc<Problem>>,
    lines: Lines,
    every: usize,
}

impl<'a> Watch<'a> {
    fn open(job: &Job<'a>, learner: &Learner, text: &Arc<Text>, (steps, save_steps): (usize, usize), resume: usize) -> Result<Self> {
        let folder = job.run.folder(&job.stage);
        let path = folder.join("metrics.jsonl");
        let mut metrics = Lines::open(&path)?;
        if let Some(step) = first_gap(&metrics, resume)? {
            bail!(
                "{}: the line of step {step} is missing or out of its place, and the state goes on at step {resume}; restore the file, or remove {} to \
                 train the phase from its start",
                path.display(),
                folder.join("state").display()
            );
        }
        metrics.keep_lines(|line| line["step"].as_u64().is_some_and(|s| s < resume as u64))?;
        let bar = job.run.ui.bar(&job.stage, steps as u64);
        bar.set_position(resume as u64);
        bar.reset_eta();
        let mut watch = Self { run: job.run, metrics, bar, probes: probes(job, learner, text, steps, resume)?, steps, save_steps };
        if resume == 0 {
            watch.probe(0)?;
        }
        Ok(watch)
    }

    /// After a step: progress, probes when they are due, and whether to stop.
    fn after(&mut self, step: usize) -> Result<ControlFlow<()>> {
        let done = step + 1;
        self.bar.set_position(done as u64);
        if self.probes.as_ref().is_some_and(|p| done.is_multiple_of(p.every) || done == self.steps) {
            self.probe(done)?;
        }
        let stop = interrupt_requested();
        if stop || done.is_multiple_of(self.save_steps) {
            // The state that is saved next counts on these lines.
            self.metrics.sync()?;
            self.probes.as_ref().map_or(Ok(()), |p| p.lines.sync())?;
        }
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Answers the probe problems greedily with the weights as they are after `step` steps.
    fn probe(&mut self, step: usize) -> Result<()> {
        let Some(probes) = &mut self.probes else { return Ok(()) };
        let mut asks = probes.problems.iter();
        let mut answers = Vec::new();
        let key = Key::new(self.run.seed(), "probe");
        probes.rollout.run(
            &mut probes.sampler,
            key,
            &mut || Ok(asks.next().map_or(Ask::End, |p| Ask::Attempt { problem: p.clone(), attempt: 0 })),
            &mut |judged| {
                answers.push(judged.trace);
                Ok(())
            },
        )?;
        answers.sort_by(|a, b| a.problem.cmp(&b.problem));
        for trace in answers {
            probes.lines.append(&json!({"step": step, "trace": trace}))?;
        }
        Ok(())
    }
}

/// The first step before `resume` whose line is not where it belongs: there is one for each step, in order, before a state counts on it.
fn first_gap(metrics: &Lines, resume: usize) -> Result<Option<usize>> {
    let steps: Vec<Option<u64>> = metrics.values()?.iter().map(|line| line["step"].as_u64()).collect();
    let before: Vec<Option<u64>> = steps.into_iter().filter(|step| step.is_none_or(|s| s < resume as u64)).collect();
    let good = before.iter().zip(0..).take_while(|(step, i)| **step == Some(*i)).count();
    Ok((good < resume || before.len() > resume).then_some(good))
}

fn probes(job: &Job, learner: &Learner, text: &Arc<Text>, steps: usize, resume: usize) -> Result<Option<Probes>> {
    let Some(task) = job.run.recipe.evaluate.tasks.first() else { return Ok(None) };
    let mut problems = evaluation(job.run, task)?;
    problems.truncate(PROBES);
    let rollout = Rollout {
        text: Some(text.clone()),
        prompt: task.prompt,
        params: SamplingParams::at(0.0, task.params.max_tokens),
        verifier: rules(job.run)?,
        reward: RewardPreset::SimplerlZoo,
    };
    let room = capacity(&rollout, &problems, learner.decoder().config().max_positions)?;
    let sampler = LocalSampler::new(learner.decoder(), text.clone(), PROBES, room)?;
    let mut lines = Lines::open(job.run.folder(&job.stage).join("probes.jsonl"))?;
    lines.keep_lines(|line| line["step"].as_u64().is_some_and(|s| s <= resume as u64 && resume > 0))?;
    Ok(Some(Probes { rollout, sampler, problems, lines, every: (steps / 8).max(1) }))
}

/// The attempts of a GRPO phase on disk.
struct Rollouts {
    folder: PathBuf,
    journal: Journal<Entry>,
    places: Vec<Place>,
    /// Steps that were taken and whose attempts the disk has lost.
    missing: Vec<usize>,
}

impl Rollouts {
    const JOURNAL: &str = "rollouts.journal";

    /// Opens the journal and drops what belongs to steps that will be taken again.
    fn open(run: &Run, stage: &str, resume: usize) -> Result<Self> {
        let folder = run.folder(stage);
        let (mut places, mut cut, mut steps) = (Vec::new(), None, BTreeSet::new());
        let (mut journal, recovered) = Journal::open(folder.join(Self::JOURNAL), |entry: Entry, place| {
            let step = entry.trace.other.get("step").and_then(Value::as_u64).context("a rollout has its step")?;
            if step < resume as u64 {
                places.push(place);
                steps.insert(step as usize);
            } else if cut.is_none() {
                cut = Some(place);
            }
            Ok(())
        })?;
        if let Some(place) = cut {
            journal.cut_from(place)?;
        }
        let missing: Vec<usize> = (0..resume).filter(|step| !steps.contains(step)).collect();
        if !missing.is_empty() || !recovered.damaged.is_empty() {
            run.ui.say(&format!(
                "{stage}: the attempts stored before step {resume} are damaged ({} damaged ranges, {} steps without any): training goes on, and DONE will name these steps",
                recovered.damaged.len(),
                missing.len()
            ));
        }
        Ok(Self { folder, journal, places, missing })
    }

    fn append(&mut self, step: usize, batch: &Batch) -> Result<()> {
        let row = |judged: &Judged, advantage: Option<f64>| {
            let mut judged = judged.clone();
            let trace = &mut judged.trace;
            trace.id = format!("{}@{step}#{}", trace.problem, trace.attempt);
            trace.other.insert("step".to_owned(), step.into());
            trace.other.insert("advantage".to_owned(), advantage.into());
            entry(judged)
        };
        let trained = batch.judged.iter().zip(&batch.advantages).map(|(judged, advantage)| row(judged, Some(*advantage)));
        let rows: Vec<Entry> = trained.chain(batch.wasted.iter().map(|judged| row(judged, None))).collect();
        self.places.extend(self.journal.append(&rows)?);
        Ok(())
    }

    fn seal(mut self, source: crate::shard::Source) -> Result<Manifest> {
        let target = self.folder.join("rollouts");
        let (journal, places) = (&mut self.journal, &self.places);
        let manifest = publish::folder(&target, |new| {
            let mut n = 0u64;
            let count = |_: &Trace| {
                n += 1;
                n
            };
            seal(
                new,
                places.iter().map(|p| journal.read(*p)),
                count,
                &SealOptions { level: 6, ..SealOptions::new("rollouts", vec![source]) },
            )
        })?;
        Ok(manifest)
    }
}

/// The two ends of a GRPO phase.
struct Keeper<'a> {
    watch: Watch<'a>,
    rollouts: Rollouts,
}

impl Observer for Keeper<'_> {
    fn attempts(&mut self, step: usize, batch: &Batch) -> Result<()> {
        self.rollouts.append(step, batch)
    }

    fn record(&mut self, record: &StepRecord) -> Result<ControlFlow<()>> {
        self.watch.metrics.append(record)?;
        let reward = record.reward.get("total").map_or(0.0, |r| r.0);
        self.watch
            .bar
            .set_message(format!("reward {reward:.3}  correct {:.2}  {:.0} tokens/s", record.accuracy, record.sampled_per_second));
        self.watch.after(record.step)
    }
}
