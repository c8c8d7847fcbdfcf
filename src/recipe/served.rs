//! A model behind a server's address: which of its models, how it is asked, and what such a model cannot do.

use super::table::Table;
use super::{Model, Recipe, TemplateOf};
use crate::sampler::{Api, check_url, is_url};
use anyhow::Context;

/// A model behind an OpenAI-compatible server.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ServedModel {
    /// The server's name for it.
    pub name: String,
    pub api: Api,
}

pub(super) fn read(t: &mut Table, model: &str) -> Option<ServedModel> {
    if !is_url(model) {
        for key in ["name", "api"].into_iter().filter(|key| t.has(key)) {
            t.problem(format!("{}: it is for a model behind a server's address only", t.path(key)));
        }
        t.pass_over(|key, _| ["name", "api"].contains(&key));
        return None;
    }
    t.note(check_url(model).with_context(|| t.path("model")));
    let served = ServedModel { name: t.required("name", "which of the server's models?"), api: t.or("api", Api::Chat) };
    t.check("name", !served.name.is_empty() || !t.is_sound("name"), "the name of one of the server's models", "\"\"");
    Some(served)
}

/// A model behind a server is sampled from and nothing else.
pub(super) fn check(t: &Table, model: &Model) {
    if t.path("model").starts_with("student") {
        t.problem(format!("{}: a model behind a server cannot be trained; name a folder or a Hub id", t.path("model")));
    }
    let given = [
        ("phase", !model.phases.is_empty()),
        ("shape", model.shape.is_some()),
        ("revision", model.revision.is_some()),
        ("max_length", model.max_length > 0),
        ("template", model.template != TemplateOf::Own),
        ("add_tokens", !model.base.add_tokens.is_empty()),
        ("rope_theta", model.base.rope_theta.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, given)| *given) {
        t.problem(format!("{}: a model behind a server is used as it is", t.path(key)));
    }
}

/// What a teacher behind a server means for the rest: it has no template here, and renders chats itself, so that a prompt can open the response only
/// where all of the text is ours.
pub(super) fn check_whole(t: &Table, recipe: &Recipe) {
    let Some(served) = recipe.teacher.as_ref().and_then(|m| m.served.as_ref()) else { return };
    if recipe.student.as_ref().is_some_and(|m| m.template == TemplateOf::Teacher) {
        t.problem("student.template is \"teacher\", but a teacher behind a server has no template here".into());
    }
    let tasks = recipe.evaluate.tasks.iter().map(|task| (format!("evaluate.{}.prompt", task.name), task.prompt));
    let prompts = std::iter::once(("sample.prompt".to_owned(), recipe.sample.prompt)).chain(tasks);
    for (key, _) in prompts.filter(|(_, prompt)| served.api == Api::Chat && !prompt.prefill().is_empty()) {
        t.problem(format!(
            "{key}: it opens the response, which a chat with a server cannot; take plain or r1, or teacher.api = \"completion\""
        ));
    }
}
