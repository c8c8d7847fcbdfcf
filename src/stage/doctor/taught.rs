//! Whether a teacher can stand beside its student: one vocabulary, one template, positions enough.

use super::super::models;
use super::super::phase::taught;
use super::finding::Finding;
use super::model::Patient;
use super::recipe::{failed, or_failed};
use crate::model::Config;
use crate::model::text::Text;
use crate::recipe::Method;
use crate::report::text::thousands;
use crate::rollout::render;
use anyhow::{Context, Result};

pub(super) fn findings(patient: &Patient, text: &Text, config: &Config) -> Vec<Finding> {
    if patient.role != "student" || !patient.model.phases.iter().any(|phase| phase.is_taught()) {
        return Vec::new();
    }
    or_failed("teacher", beside(patient, text, config))
}

fn beside(patient: &Patient, text: &Text, config: &Config) -> Result<Vec<Finding>> {
    let teacher = patient.run.recipe.teacher.as_ref().context("[teacher] is missing")?;
    let origin = models::origin(patient.run, teacher)?;
    // Its head and its text half; the rest is looked at as the teacher's own.
    let theirs = Patient { role: "teacher", model: teacher, origin: &origin, ..*patient }.open(Some(1))?;
    let rows = theirs.decoder.config().vocab_size;
    if let Err(error) = taught::fits(text, &theirs.text, rows) {
        return Ok(vec![failed("teacher", &error)]);
    }
    let mut all = vec![Finding::good(
        "teacher",
        format!(
            "student and teacher share a vocabulary of {} tokens; heads of {} and {} rows",
            thousands(text.vocab_size()),
            thousands(config.vocab_size),
            thousands(rows)
        ),
    )];
    if text.template_hash() != theirs.text.template_hash() {
        all.push(Finding::warning(
            "teacher",
            "the teacher would be asked through the student's chat template, which is not its own",
            "set student.template = \"teacher\"",
        ));
    }
    let positions = theirs.decoder.config().max_positions;
    let limit = if patient.model.max_length == 0 { config.max_positions } else { patient.model.max_length };
    let taught = || {
        patient.model.phases.iter().filter_map(|phase| match &phase.method {
            Method::Sft(sft) if phase.is_taught() => Some(sft),
            _ => None,
        })
    };
    for own in taught().filter_map(|sft| sft.own.as_ref()) {
        let mut prompt = 0;
        for problem in patient.tried.iter().filter(|tried| tried.evaluation.is_none()).flat_map(|tried| &tried.problems) {
            prompt = prompt.max(render(text, own.prompt, &problem.question)?.tokens.len());
        }
        // The student's own attempts end where its positions do.
        if (prompt + own.max_tokens).min(config.max_positions) > positions {
            let says = format!(
                "the teacher has {} positions, and an own attempt may have {} tokens behind a prompt of {}",
                thousands(positions),
                thousands(own.max_tokens),
                thousands(prompt)
            );
            all.push(Finding::fault(
                "teacher",
                says,
                format!("set the phase's max_tokens to {} at most", positions.saturating_sub(prompt)),
            ));
        }
    }
    if limit > positions && taught().any(|sft| !sft.data.is_empty()) {
        let says = format!("the teacher has {} positions, and rows may have {} tokens", thousands(positions), thousands(limit));
        all.push(Finding::warning("teacher", says, format!("set student.max_length to {positions} at most, if rows are longer")));
    }
    Ok(all)
}
