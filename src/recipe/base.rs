//! What is done to a base model before its first phase, so that it can be taught to talk: a chat template, further tokens, another rotary base.

use super::table::Table;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;

/// Where a model's chat template comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TemplateOf {
    #[default]
    Own,
    /// Template and, where both share a vocabulary, control tokens.
    Teacher,
    /// The plain one of many models: `<|im_start|>role`, a line break, what was said, `<|im_end|>`.
    ChatMl,
    /// A file in Jinja.
    File(PathBuf),
}

impl Serialize for TemplateOf {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Own => to.serialize_str("own"),
            Self::Teacher => to.serialize_str("teacher"),
            Self::ChatMl => to.serialize_str("chatml"),
            Self::File(path) => path.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for TemplateOf {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match String::deserialize(from)?.as_str() {
            "own" => Self::Own,
            "teacher" => Self::Teacher,
            "chatml" => Self::ChatMl,
            path if path.ends_with(".jinja") => Self::File(path.into()),
            other => {
                let known = "\"own\", \"teacher\", \"chatml\", or a file that ends in .jinja";
                return Err(serde::de::Error::custom(format!("{other:?} is none of {known}")));
            }
        })
    }
}

/// What is changed in a checkpoint when it is first opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BaseChanges {
    /// Texts that become one token each, such as `<think>`; their rows begin as the mean of those of the tokens that stood for them.
    pub add_tokens: Vec<String>,
    /// Base of the rotary frequencies; with it `max_length` may be beyond the positions that the checkpoint names.
    pub rope_theta: Option<f64>,
}

impl BaseChanges {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

pub(super) fn read(t: &mut Table) -> BaseChanges {
    let changes = BaseChanges { add_tokens: t.optional("add_tokens").unwrap_or_default(), rope_theta: t.optional("rope_theta") };
    let tokens = &changes.add_tokens;
    t.check("add_tokens", tokens.iter().all(|token| !token.trim().is_empty()), "texts that are not empty", format!("{tokens:?}"));
    let twice = tokens.iter().enumerate().find(|(i, token)| tokens[..*i].contains(token));
    t.check("add_tokens", twice.is_none(), "different texts", format!("{tokens:?}"));
    t.check("rope_theta", changes.rope_theta.is_none_or(|theta| theta > 1.0), "more than 1", changes.rope_theta.unwrap_or_default());
    changes
}
