//! The training phases of teacher and student, and the controls: each reads a model and its data, and leaves a model folder.
//!
//! A phase's folder holds the model as `transformers` loads it, `metrics.jsonl`, `probes.jsonl` (a few held-out problems, answered greedily as
//! training goes on), `rollouts/` where the model is asked for attempts, `checkpoints/` and `best/` where they are asked for, and while it runs one resumable `state/`.

mod asking;
mod checkpoints;
mod follow;
mod given_up;
mod rollouts;
pub(super) mod taught;
mod watch;

use super::examples::{self, Corpus, Rows};
use super::models::{self, Loaded, Origin};
use super::problems::ProblemSet;
use super::rules::{add_identity, rules};
use super::run::{Interrupted, Run, Status};
use super::speaker;
use crate::judge::{Case, Cost, Judge, Opinion};
use crate::key::Key;
use crate::model::text::Text;
use crate::model::{self, Precision};
use crate::problem::{Answer, Problem};
use crate::publish;
use crate::recipe::{ControlData, Grpo as GrpoPhase, Method, Model, Phase, Sft as SftPhase};
use crate::report::text::size;
use crate::reward::RewardPreset;
use crate::sampler::{Sampler, SamplingParams};
use crate::train::memory::Setup;
use crate::train::{AskOpinions, Batching, Example, Grpo, Kd, LEAST_TOKENS, Learner, LossType, Optim, Own, Sft, SftRun, State};
use anyhow::{Context, Result, bail};
use asking::Asking;
use checkpoints::Checkpoints;
use follow::Follow;
use rollouts::{Keeper, Rollouts};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use taught::Taught;
use watch::Watch;

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
        let corpus = match control.data {
            ControlData::Unfiltered => Corpus::Unfiltered,
        };
        Job { run, stage: format!("controls/{}", control.name), role: "student", model, origin, phase, corpus }.run()?;
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
        let stage = format!("{role}/{}", phase.name);
        let folder = run.folder(&stage);
        Job { run, stage, role, model, origin, phase, corpus: Corpus::Filtered }.run()?;
        origin = Origin::Folder(folder);
    }
    Ok(())
}

/// One phase to be trained.
struct Job<'a> {
    run: &'a Run,
    stage: String,
    role: &'static str,
    model: &'a Model,
    origin: Origin,
    phase: &'a Phase,
    /// What it learns from where its data says "corpus".
    corpus: Corpus,
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
        let decoder = self.adapted(decoder)?.in_bf16(self.phase.bf16);
        let positions = decoder.config().max_positions;
        let limit = if self.model.max_length == 0 { positions } else { self.model.max_length };
        super::run::config(if limit <= positions {
            Ok(())
        } else {
            Err(anyhow::anyhow!(
                "{}.max_length {limit} is beyond the model's {positions} positions (max_position_embeddings); choose at most {positions}, or set {0}.rope_theta",
                self.role
            ))
        })?;
        let state = State::new(folder.join("state"));
        let optimizer = match &self.phase.method {
            Method::Sft(sft) => sft.settings.optimizer(),
            Method::Grpo(grpo) => grpo.settings.optimizer(),
        };
        let taught = match &self.phase.method {
            Method::Sft(sft) => sft.settings.kd.map(|kd| Taught::open(self, sft, kd, (&text, positions))).transpose()?,
            Method::Grpo(_) => None,
        };
        let batching = self.batching(decoder.config(), optimizer.optim, taught.as_ref().map(|taught| taught.teacher.config()));
        let mut learner = Learner::new(&decoder, optimizer, batching)?;
        let counts = match &self.phase.method {
            Method::Sft(sft) => {
                drop(decoder); // the learner has its own
                self.sft(sft, taught, &mut learner, &text, (&state, limit))?
            }
            Method::Grpo(grpo) => {
                let reference = (grpo.settings.beta > 0.0).then(|| decoder.without_adapter());
                drop(decoder);
                self.grpo(grpo, &mut learner, reference, &text, &state)?
            }
        };
        let ends_with_best = counts["best"]["loaded"] == true;
        if ends_with_best {
            copy_files(&folder.join(BEST), &folder)?;
        } else {
            self.save(learner.decoder(), &folder, Precision::F32)?;
            text.save_into(&folder)?;
        }
        let mut record = Run::done_record(&self.stage, &inputs, &Value::Null, counts, begin);
        record["weights_hash"] = models::weights_hash(&folder)?.into();
        record["model_hash"] = models::folder_hash(&folder)?.into();
        Run::mark_done(&folder, record)?;
        self.clean()
    }

    /// As the recipe has it, with smaller micro-batches where the memory that is free would not hold its own.
    fn batching(&self, config: &model::Config, optim: Optim, teacher: Option<&model::Config>) -> Batching {
        let execution = &self.run.recipe.execution;
        let (wanted, recompute) = (execution.micro_batch_tokens, execution.recompute);
        let (beside, is_bnpo) = match &self.phase.method {
            Method::Sft(_) => (teacher, false),
            // An adapter's reference is its own base.
            Method::Grpo(grpo) => {
                (Some(config).filter(|_| grpo.settings.beta > 0.0 && self.model.lora.is_none()), grpo.settings.loss_type == LossType::Bnpo)
            }
        };
        let setup = Setup {
            config,
            lora: self.model.lora.as_ref(),
            optim,
            tokens: wanted,
            targets: wanted,
            recompute: recompute.unwrap_or(!config.is_small()),
            beside,
        };
        // The teacher is there already. A policy that is sampled from beside the update, and its cache, are not yet.
        let there = teacher.map_or(0, |teacher| size_of::<f32>() * teacher.parameters());
        let meanwhile = match &self.phase.method {
            Method::Grpo(grpo) if grpo.settings.one_step_off_policy => {
                super::plan::sampling_bytes(config) + super::plan::cache_bytes(config, &self.run.recipe, grpo.max_tokens)
            }
            _ => 0,
        };
        let free = super::doctor::free_memory().map_or(usize::MAX, |free| free.saturating_sub(meanwhile));
        // With bnpo the size of a micro-batch has a meaning.
        let tokens = if is_bnpo { wanted } else { setup.fitted(free.saturating_add(there), LEAST_TOKENS.min(wanted)) };
        if tokens < wanted {
            let needed = setup.beside_weights() - there;
            let kept = if meanwhile > 0 { format!(" beside {} for sampling meanwhile", size(meanwhile)) } else { String::new() };
            self.run.ui.say(&format!(
                "{}: micro-batches of {tokens} tokens in place of {wanted}, which would take {} more where {} is free{kept}; a step stays what it is",
                self.stage,
                size(needed),
                size(free)
            ));
        }
        Batching { micro_batch_tokens: tokens, recompute }
    }

    /// Says what the longest micro-batch took, and how small it had to be made.
    fn rehearsed(&self, learner: &Learner, tokens: usize) {
        let peak = crate::memory::peak().map_or(String::new(), |peak| format!("; at most {} were in use", size(peak)));
        let batches = learner.micro_batch_tokens();
        self.run.ui.say(&format!("{}: tried the longest micro-batch, {tokens} tokens of at most {batches}{peak}", self.stage));
    }

    /// Writes a model, or the adapter that it has.
    fn save(&self, decoder: &model::Decoder, folder: &Path, precision: Precision) -> Result<()> {
        match decoder.lora() {
            Some(_) => model::save_adapter(decoder, &models::base_name(self.run, self.model, &self.origin)?, folder),
            None => model::save_as(decoder, folder, precision),
        }
    }

    /// Publishes a model's folder beside the phase's own.
    fn keep(&self, learner: &Learner, text: &Text, folder: &Path, precision: Precision) -> Result<()> {
        publish::folder(folder, |folder| {
            self.save(learner.decoder(), folder, precision)?;
            text.save_into(folder)
        })
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
                    Ok(decoder.with_dropout(wanted.dropout))
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
        let data = match &self.phase.method {
            Method::Sft(sft) => examples::identity(run, sft, self.corpus)?,
            Method::Grpo(_) => self.problems()?,
        };
        let method = match &self.phase.method {
            Method::Sft(sft) if sft.settings.kd.is_some() => {
                let mut method = Taught::inputs(self, sft)?;
                method["sft"] = json!(sft.settings);
                method
            }
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
        if self.phase.bf16 {
            inputs["bf16"] = true.into();
        }
        if let Some(lora) = &self.model.lora {
            inputs["lora"] = serde_json::to_value(lora)?;
        }
        Ok(inputs)
    }

    /// Which problems are asked, and how they are judged.
    fn problems(&self) -> Result<Value> {
        let problems = ProblemSet::training(self.run, &self.stage)?;
        let mut data = json!({"problems": problems.identity(), "extraction": self.run.recipe.problems.extraction});
        if let ProblemSet::Fixed { problems, .. } = &problems {
            add_identity(&mut data, &rules(self.run)?, problems);
        }
        Ok(data)
    }

    fn key(&self, purpose: &str) -> Key {
        Key::new(self.run.seed(), purpose).name(&self.stage)
    }

    fn sft(
        &self,
        phase: &SftPhase,
        taught: Option<Taught>,
        learner: &mut Learner,
        text: &Arc<Text>,
        (state, limit): (&State, usize),
    ) -> Result<Value> {
        let corpora = examples::Corpora { run: self.run, stage: &self.stage, corpus: self.corpus, limit };
        let Rows { examples, parts, held_out, counts: corpora } = corpora.read(phase, text)?;
        if let Some(taught) = &taught {
            taught.check_lengths(&examples)?;
        }
        let asking = taught.as_ref().and_then(|taught| taught.asking.as_ref());
        let problem = |n| asking.context("a phase without own attempts asks for one")?.problems.endless(n);
        let own = asking.map(|asking| -> Result<Own> {
            let sampler = RefCell::new(asking.sampler(self, learner, text)?);
            Ok(Own { rollout: &asking.rollout, problem: &problem, key: self.key("own attempts"), sampler })
        });
        let own = own.transpose()?;
        let kd = taught.as_ref().map(|taught| Kd { settings: &taught.settings, teacher: taught.teacher.clone(), own });
        let execution = &self.run.recipe.execution;
        let save_steps = if asking.is_some() { execution.grpo_save_steps } else { execution.save_steps };
        let sft = Sft {
            settings: &phase.settings,
            examples: &examples,
            parts: &parts,
            held_out: &held_out,
            key: self.key("order"),
            state,
            save_steps,
            kd,
        };
        let steps = sft.steps();
        let resume = sft.resume_step()?;
        let watch = Watch::open(self, learner, text, (steps, save_steps), resume)?;
        // What the phase may end with is written as it is; what is only kept, at half the size.
        let load_best = phase.settings.held_out.is_some_and(|held_out| held_out.load_best);
        let precision = if load_best { Precision::F32 } else { Precision::Bf16 };
        let checkpoints = Checkpoints::open(self, text, (steps, save_steps), resume)?;
        let rollouts = asking.map(|_| Rollouts::open(self.run, &self.stage, resume, |step| phase.settings.samples_at(step))).transpose()?;
        let mut observer = Follow { job: self, text, watch, precision, checkpoints, rollouts };
        let ended = sft.run(learner, &mut observer);
        observer.watch.bar.finish_and_clear();
        let ended = ended.map_err(|error| given_up::explained(self, error))?;
        let SftRun::Complete { best } = ended else { bail!(Interrupted) };
        let mut counts = corpora;
        counts["steps"] = steps.into();
        if let Some((asking, rollouts)) = asking.zip(observer.rollouts) {
            rollouts.finish(self, &asking.rollout, &mut counts)?;
        }
        if let Some(best) = best {
            counts["held_out"] = held_out.len().into();
            counts["best"] = json!({"steps": best.steps, "loss": best.loss, "loaded": load_best && best.steps < steps});
        }
        Ok(counts)
    }

    fn grpo(
        &self,
        phase: &GrpoPhase,
        learner: &mut Learner,
        reference: Option<model::Decoder>,
        text: &Arc<Text>,
        state: &State,
    ) -> Result<Value> {
        let positions = learner.decoder().config().max_positions;
        let params = SamplingParams::at(phase.temperature, phase.max_tokens);
        let asking = Asking::open(self, text, positions, (phase.prompt, params, phase.reward))?;
        let Asking { problems, seen, rollout, room } = &asking;
        let mut sampler = asking.sampler(self, learner, text)?;
        let save_steps = self.run.recipe.execution.grpo_save_steps;
        let is_open = seen.iter().any(|problem| matches!(problem.answer, Answer::Open { .. }));
        let mut judge = if is_open { Some(Asked::open(self.run, phase, seen)?) } else { None };
        let mut ask = |cases: &[Case]| judge.as_mut().context("[judge] is missing")?.opinions(cases);
        let grpo = Grpo {
            opinions: is_open.then(|| RefCell::new(&mut ask as &mut AskOpinions)),
            settings: &phase.settings,
            rollout,
            problem: &|n| problems.endless(n),
            key: self.key("grpo"),
            state,
            save_steps,
        };
        let resume = grpo.resume_step()?;
        if resume < phase.settings.steps && !learner.decoder().config().is_small() {
            let longest = Example { tokens: vec![text.end_id(); *room], completion: 1 };
            let tokens = learner.rehearse(&vec![longest; (learner.micro_batch_tokens() / room).max(1)], None)?;
            self.rehearsed(learner, tokens);
        }
        let watch = Watch::open(self, learner, text, (phase.settings.steps, save_steps), resume)?;
        let checkpoints = Checkpoints::open(self, text, (phase.settings.steps, save_steps), resume)?;
        let mut keeper = Keeper { watch, rollouts: Rollouts::open(self.run, &self.stage, resume, |_| true)?, checkpoints };
        let ended = grpo.run(learner, &mut sampler, reference, &mut keeper);
        keeper.watch.bar.finish_and_clear();
        let complete = ended.map_err(|error| given_up::explained(self, error))?;
        if !complete {
            bail!(Interrupted);
        }
        let best = grpo.best()?;
        let mut counts = json!({"steps": phase.settings.steps});
        keeper.rollouts.finish(self, rollout, &mut counts)?;
        if let Some(best) = best {
            counts["best"] = json!({"steps": best.steps, "reward": best.mean});
        }
        if let Some(judge) = judge {
            counts["judge"] = serde_json::to_value(judge.cost)?;
        }
        Ok(counts)
    }
}

/// Folder in a phase's of the model with the lowest loss on held-out examples, or the best rewards.
const BEST: &str = "best";

/// Publishes the files of a folder in another.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in from.read_dir().with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        let mut file = std::fs::File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        publish::file_with(to.join(name), |out| Ok(std::io::copy(&mut file, out)?))?;
    }
    Ok(())
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
