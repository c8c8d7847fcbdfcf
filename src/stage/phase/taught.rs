//! The teacher beside a student, for a phase of distillation.

use super::super::models::{self, Loaded};
use super::super::run::config;
use super::Job;
use super::asking::Asking;
use crate::model::Decoder;
use crate::model::text::Text;
use crate::recipe::{Model, Sft};
use crate::reward::RewardPreset;
use crate::sampler::SamplingParams;
use crate::train::{Example, KdSettings};
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use std::sync::Arc;

/// A teacher, and what the student is asked.
pub(super) struct Taught {
    pub settings: KdSettings,
    pub teacher: Decoder,
    pub asking: Option<Asking>,
}

impl Taught {
    /// Opens the run's teacher, and holds it against the student.
    pub fn open(job: &Job, phase: &Sft, settings: KdSettings, (text, positions): (&Arc<Text>, usize)) -> Result<Self> {
        let model = teacher(job)?;
        let origin = models::last_folder(job.run, model, "teacher")?;
        let Loaded { decoder, text: theirs, .. } = models::open(job.run, model, &origin, "teacher")?;
        config(fits(text, &theirs, decoder.config().vocab_size))?;
        if text.template_hash() != theirs.template_hash() {
            job.run.ui.say(&format!(
                "{}: the teacher is asked through the student's chat template, which is not its own; student.template = \"teacher\" would take the teacher's",
                job.stage
            ));
        }
        let decoder = if decoder.lora().is_some() { decoder.merged()? } else { decoder };
        let own = phase.own.as_ref().map(|own| {
            let params = SamplingParams::at(settings.temperature, own.max_tokens);
            Asking::open(job, text, positions, (own.prompt, params, RewardPreset::SimplerlZoo))
        });
        Ok(Self { settings, teacher: decoder.in_bf16(job.phase.bf16), asking: own.transpose()? })
    }

    /// Refuses rows and attempts that the teacher has no positions for.
    pub fn check_lengths(&self, rows: &[Example]) -> Result<()> {
        let positions = self.teacher.config().max_positions;
        let rows = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        let longest = rows.max(self.asking.as_ref().map_or(0, |asking| asking.room));
        config(if longest <= positions {
            Ok(())
        } else {
            Err(anyhow!(
                "the teacher has {positions} positions, and sequences of up to {longest} tokens are learnt from; lower student.max_length or max_tokens"
            ))
        })
    }

    /// What the phase follows from beside its rows.
    pub fn inputs(job: &Job, phase: &Sft) -> Result<Value> {
        let model = teacher(job)?;
        let origin = models::last_folder(job.run, model, "teacher")?;
        let mut inputs = json!({"teacher": models::identity(job.run, &origin, "teacher", model)?});
        if let Some(own) = &phase.own {
            inputs["own"] = json!({"prompt": own.prompt, "max_tokens": own.max_tokens, "problems": job.problems()?});
        }
        Ok(inputs)
    }
}

fn teacher<'a>(job: &Job<'a>) -> Result<&'a Model> {
    job.run.recipe.teacher.as_ref().context("a phase of distillation has a teacher")
}

/// Whether a teacher's distributions are over the student's tokens; `rows` is the height of its head.
///
/// # Errors
/// An id that is another token for the teacher, or that it has none for.
pub(in crate::stage) fn fits(student: &Text, teacher: &Text, rows: usize) -> Result<()> {
    let remedy = "take a teacher of the same family, set student.template = \"teacher\" where only the names of control tokens differ, or learn from its text (method = \"sft\")";
    if let Some((id, ours, theirs)) = student.first_unlike(teacher) {
        let theirs = theirs.map_or("nothing".to_owned(), |token| format!("{token:?}"));
        return Err(anyhow!(
            "teacher and student do not share a vocabulary: id {id} is {ours:?} for the student and {theirs} for the teacher; {remedy}"
        ));
    }
    let wanted = student.vocab_size();
    if rows < wanted {
        return Err(anyhow!("the teacher's head has {rows} rows, and the student's tokenizer ids up to {wanted}; {remedy}"));
    }
    Ok(())
}
