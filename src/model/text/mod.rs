//! Where text meets tokens: `Text` is a tokenizer, the chat template that came with it, and the tokens that end a response.
//!
//! Everything is read from the files of a model folder as transformers reads them, and is written back unchanged, so that a folder stays complete.
//! Knows no weights, no Problem and no prompts: what to say to a model is decided above.

mod added;
mod python;
mod template;

use crate::publish;
use crate::trace::Message;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use template::Template;
use tokenizers::Tokenizer;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";

/// What an assistant says where a template is looked at.
const SAID: &str = "distill-probe";

/// Files that make a folder's text half complete for transformers; `config.json` belongs to the weights.
const FILES: [&str; 11] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    TEMPLATE,
    GENERATION_CONFIG,
    SPECIAL_TOKENS,
    ADDED_TOKENS,
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
];

/// What stands between text and token ids for one model.
pub struct Text {
    /// Names the folder in errors.
    origin: String,
    /// By name, as they were read.
    files: BTreeMap<String, Vec<u8>>,
    tokenizer: Tokenizer,
    template: Option<Template>,
    /// `bos_token`, `eos_token` and so on, as templates see them.
    special: Map<String, Value>,
    /// What a prompt without a template begins with: the first token, or nothing.
    first: Vec<u32>,
    stop: BTreeSet<u32>,
    end: u32,
    pad: u32,
    /// What `strftime_now` shows.
    unix_seconds: i64,
}

impl Text {
    /// Reads the tokenizer and the template of a model folder.
    ///
    /// # Errors
    /// A missing `tokenizer.json` or `tokenizer_config.json`, a file that does not parse, or no token that ends a response.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for name in FILES.into_iter().chain([CONFIG]) {
            let path = folder.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => _ = files.insert(name.to_string(), bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("{}: cannot be read", path.display())),
            }
        }
        Self::from_files(files, &folder.display().to_string())
    }

    /// The tokenizer of the embedded arithmetic recipe: phrases, integers 0..99, single characters.
    pub fn tiny() -> Self {
        let files = [
            (TOKENIZER, include_str!("../../../data/tiny/tokenizer.json")),
            (TOKENIZER_CONFIG, include_str!("../../../data/tiny/tokenizer_config.json")),
        ];
        let files = files.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
        Self::from_files(files.into(), "data/tiny").expect("the embedded files are read by a test")
    }

    fn from_files(files: BTreeMap<String, Vec<u8>>, origin: &str) -> Result<Self> {
        let tokenizer = tokenizer(&files, origin)?;
        let config = json_file(&files, TOKENIZER_CONFIG, origin)?.with_context(|| {
            format!("{origin}: no {TOKENIZER_CONFIG}, which names the end token; copy it from the model that the tokenizer belongs to")
        })?;
        let special = special_tokens(&config, json_file(&files, SPECIAL_TOKENS, origin)?.as_ref());
        let mut text = Self {
            origin: origin.to_string(),
            tokenizer,
            template: None,
            special,
            first: Vec::new(),
            stop: BTreeSet::new(),
            end: 0,
            pad: 0,
            unix_seconds: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64),
            files,
        };
        if let Some((source, name)) = template_source(&text.files, &config, origin)? {
            text.template = Some(Template::new(&source, &format!("{origin}/{name}"), text.unix_seconds)?);
        }
        text.first = text.before_a_prompt();
        text.find_ends()?;
        Ok(text)
    }

    /// A base model's text half, taught to talk like its teacher.
    ///
    /// Where both share a vocabulary (R1-Distill-Qwen and Qwen2.5 do; they differ in the names of control tokens) the student takes over the teacher's
    /// files as they are; otherwise it keeps its tokenizer and takes the template only.
    ///
    /// # Errors
    /// A teacher without a template, or a template whose end of turn is no token of this tokenizer: the student could not learn to stop.
    pub fn with_template_of(self, teacher: &Text) -> Result<Self> {
        let template = teacher.template.as_ref().with_context(|| format!("{}: has no chat template to take over", teacher.origin))?;
        let mut files = if self.shares_vocabulary(teacher) { teacher.files.clone() } else { self.files.clone() };
        for name in [CONFIG, GENERATION_CONFIG] {
            files.remove(name);
            files.extend(self.files.get(name).map(|bytes| (name.to_string(), bytes.clone())));
        }
        let text = Self::templated(files, template.source(), &self)?;
        if teacher.end_of_turn().is_some() && text.end_of_turn().is_none() {
            let end = teacher.decode(&[teacher.end]);
            bail!(
                "{}: the chat template of {} ends a turn with {end:?}, which is no token here; name it in add_tokens, or take a teacher of the same family",
                self.origin,
                teacher.origin
            );
        }
        Ok(text)
    }

    /// The same with another chat template.
    ///
    /// # Errors
    /// A template that does not parse, or that ends a turn with what is no token here.
    pub fn with_template(self, source: &str) -> Result<Self> {
        let text = Self::templated(self.files.clone(), source, &self)?;
        let said = text.render(&[Message::user("probe"), Message::assistant(SAID)], false, &Map::new())?;
        let after = said.rsplit_once(SAID).map_or("", |(_, after)| after).trim();
        ensure!(
            after.is_empty() || text.end_of_turn().is_some(),
            "{}: the chat template ends a turn with {after:?}, which is no token here: the model could not learn to stop; name it in add_tokens",
            self.origin
        );
        Ok(text)
    }

    fn templated(mut files: BTreeMap<String, Vec<u8>>, source: &str, from: &Self) -> Result<Self> {
        files.insert(TEMPLATE.to_string(), source.as_bytes().to_vec());
        let mut text = Self::from_files(files, &from.origin)?.with_date(from.unix_seconds);
        // Whoever samples from the model's folder later stops where the template does.
        let mut generation = json_file(&text.files, GENERATION_CONFIG, &text.origin)?.unwrap_or_else(|| json!({}));
        generation["eos_token_id"] = json!(text.stop);
        text.files.insert(GENERATION_CONFIG.to_string(), format!("{generation:#}\n").into_bytes());
        Ok(text)
    }

    /// Whether every ordinary token has the same id in the other tokenizer; control tokens may differ.
    pub fn shares_vocabulary(&self, other: &Text) -> bool {
        let theirs = other.tokenizer.get_vocab(false);
        let added = self.tokenizer.get_added_tokens_decoder();
        let mut ours = self.tokenizer.get_vocab(false).into_iter().filter(|(_, id)| !added.contains_key(id));
        ours.all(|(token, id)| theirs.get(&token) == Some(&id))
    }

    /// The first of these ids that is another token for `teacher`, or none: with the token here, and there.
    ///
    /// A teacher may have tokens beyond ours, but not the other way round: it could say nothing of them.
    pub fn first_unlike(&self, teacher: &Text) -> Option<(u32, String, Option<String>)> {
        let unlike = |(token, id): (String, u32)| {
            let there = teacher.tokenizer.id_to_token(id);
            (there.as_ref() != Some(&token)).then_some((id, token, there))
        };
        self.tokenizer.get_vocab(true).into_iter().filter_map(unlike).min_by_key(|(id, ..)| *id)
    }

    /// Sets the date that templates print with `strftime_now`: a run renders all its prompts with the date of its first day.
    pub fn with_date(mut self, unix_seconds: i64) -> Self {
        self.unix_seconds = unix_seconds;
        if let Some(template) = &mut self.template {
            template.set_date(unix_seconds);
        }
        self
    }

    /// The ids of a text; special tokens that stand in it are recognised, none is added.
    ///
    /// # Errors
    /// A text that the tokenizer has no tokens for, not even an unknown token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| anyhow!("{}: {TOKENIZER} cannot encode a text: {error}", self.origin))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a prompt that goes through no template: those of the text, after the first token where the tokenizer has one.
    ///
    /// As in transformers 5 the post-processor in `tokenizer.json` decides, and `add_bos_token` says nothing.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        Ok([self.first.clone(), self.encode(text)?].concat())
    }

    /// The text of these ids, special tokens included; half a character becomes U+FFFD, an id without a token nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decode_with(ids, false)
    }

    /// The text of these ids without the special tokens among them.
    pub fn decode_plain(&self, ids: &[u32]) -> String {
        self.decode_with(ids, true)
    }

    fn decode_with(&self, ids: &[u32], skip_special: bool) -> String {
        // Sampled ids are untrusted: where a decoder refuses them, the tokens stand for themselves.
        let tokens = || ids.iter().filter_map(|&id| self.tokenizer.id_to_token(id)).collect();
        self.tokenizer.decode(ids, skip_special).unwrap_or_else(|_| tokens())
    }

    /// The prompt that a conversation becomes; `extra` holds further variables of the template, such as `enable_thinking`.
    ///
    /// # Errors
    /// No template, or a template that fails, refuses the conversation, or does not come to an end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool, extra: &Map<String, Value>) -> Result<String> {
        let template = self.template.as_ref().with_context(|| {
            format!("{}: no chat template ({TEMPLATE}, or chat_template in {TOKENIZER_CONFIG}); take a prompt without chat or the teacher's template", self.origin)
        })?;
        let mut variables = self.special.clone();
        variables.insert("messages".into(), json!(messages));
        variables.insert("tools".into(), Value::Null);
        variables.insert("documents".into(), Value::Null);
        variables.insert("add_generation_prompt".into(), add_generation_prompt.into());
        variables.extend(extra.clone());
        template.render(&variables, messages.len()).with_context(|| self.origin.clone())
    }

    /// The part of a response that a rendered prompt has already opened: `<think>` and the white space after it, or nothing.
    pub fn prefill<'p>(&self, rendered: &'p str) -> &'p str {
        let opened = rendered.trim_end().strip_suffix("<think>");
        opened.map_or("", |before| &rendered[before.len()..])
    }

    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// Every token that ends a response, from all configuration files and the template, ascending.
    pub fn stop_ids(&self) -> Vec<u32> {
        self.stop.iter().copied().collect()
    }

    /// The one token that training puts after a response.
    pub fn end_id(&self) -> u32 {
        self.end
    }

    /// What fills the short rows of a batch; may be an end token, so no mask is made from it.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// One more than the highest id; the rows of the embedding may be more.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The id of a token that something relies on.
    pub fn require_token(&self, token: &str) -> Result<u32> {
        self.token_id(token).with_context(|| {
            format!(
                "{}: the tokenizer has no token {token:?}; take a model that has it, or a prompt or template that does without it",
                self.origin
            )
        })
    }

    /// Checks that the end token and the marks that the template writes, such as `<|im_start|>`, are tokens here and not plain characters.
    pub fn check_special(&self) -> Result<()> {
        let end = self.special.get("eos_token").and_then(Value::as_str);
        let rendered = self.render(&[Message::user("probe"), Message::assistant("probe")], true, &Map::new()).unwrap_or_default();
        let marks = rendered.match_indices("<|").filter_map(|(from, _)| {
            let to = rendered[from..].find("|>")? + from + 2;
            Some(&rendered[from..to]).filter(|mark| mark.len() <= 64 && !mark.contains(char::is_whitespace))
        });
        end.into_iter().chain(marks).try_for_each(|token| self.require_token(token).map(drop))
    }

    /// SHA-256 of `tokenizer.json`, in hexadecimal.
    pub fn tokenizer_hash(&self) -> String {
        publish::sha256(self.files.get(TOKENIZER).map_or(&[], Vec::as_slice))
    }

    /// SHA-256 of the template's text, in hexadecimal.
    pub fn template_hash(&self) -> Option<String> {
        self.template.as_ref().map(|template| publish::sha256(template.source().as_bytes()))
    }

    /// The files that a model folder needs besides weights and `config.json`, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().filter(|(name, _)| *name != CONFIG).map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Writes [`Self::files`] into a folder, with a generation_config.json that names every stop id.
    pub fn save_into(&self, folder: &Path) -> Result<()> {
        self.files().try_for_each(|(name, bytes)| publish::file(folder.join(name), bytes))?;
        let mut generation = json_file(&self.files, GENERATION_CONFIG, &self.origin)?.unwrap_or_else(|| json!({}));
        generation["eos_token_id"] = json!(self.stop);
        publish::file(folder.join(GENERATION_CONFIG), format!("{generation:#}\n").as_bytes())
    }

    /// What the post-processor puts before a text. What it puts after one would end the prompt, and is left out.
    fn before_a_prompt(&self) -> Vec<u32> {
        const PROBE: &str = "1";
        let ids = |special| self.tokenizer.encode_fast(PROBE, special).map(|encoding| encoding.get_ids().to_vec());
        let (Ok(mut all), Ok(own)) = (ids(true), ids(false)) else { return Vec::new() };
        let start = all.windows(own.len().max(1)).position(|window| window == own);
        all.truncate(start.unwrap_or(0));
        all
    }

    /// Collects the tokens that end a response.
    fn find_ends(&mut self) -> Result<()> {
        let token_of = |name: &str| self.special.get(name).and_then(Value::as_str).and_then(|token| self.token_id(token));
        let generation = self.eos_of(GENERATION_CONFIG)?;
        let config = self.eos_of(CONFIG)?;
        let turn = self.end_of_turn();
        let eos = token_of("eos_token");
        let pad = token_of("pad_token");
        self.end = turn.or(eos).or_else(|| generation.first().or(config.first()).copied()).with_context(|| {
            format!("{}: no end token; name one as eos_token in {TOKENIZER_CONFIG} or as eos_token_id in {GENERATION_CONFIG}", self.origin)
        })?;
        self.stop = generation.into_iter().chain(config).chain(turn).chain(eos).collect();
        self.pad = pad.unwrap_or(self.end);
        Ok(())
    }

    /// `eos_token_id` of a configuration file: one id, several, or none.
    fn eos_of(&self, name: &str) -> Result<Vec<u32>> {
        let Some(config) = json_file(&self.files, name, &self.origin)? else { return Ok(Vec::new()) };
        let ids = match &config["eos_token_id"] {
            Value::Null => Vec::new(),
            Value::Array(ids) => ids.clone(),
            id => vec![id.clone()],
        };
        let id_of = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        ids.iter()
            .map(|id| id_of(id).with_context(|| format!("{}/{name}: eos_token_id must hold token ids, got {id}", self.origin)))
            .collect()
    }

    /// The added token that the template writes after what an assistant said, if it writes one.
    fn end_of_turn(&self) -> Option<u32> {
        let rendered = self.render(&[Message::user("probe"), Message::assistant(SAID)], false, &Map::new()).ok()?;
        let (_, after) = rendered.rsplit_once(SAID)?;
        let after = after.trim_start_matches(' ');
        let added = self.tokenizer.get_added_tokens_decoder();
        let ends = added.iter().filter(|(_, token)| !token.content.is_empty() && after.starts_with(&token.content));
        ends.max_by_key(|(_, token)| token.content.len()).map(|(id, _)| *id)
    }
}

fn tokenizer(files: &BTreeMap<String, Vec<u8>>, origin: &str) -> Result<Tokenizer> {
    let bytes = files.get(TOKENIZER).with_context(|| {
        format!("{origin}: no {TOKENIZER}; write one with AutoTokenizer.from_pretrained(…).save_pretrained(…) in transformers")
    })?;
    let mut tokenizer =
        Tokenizer::from_bytes(bytes).map_err(|error| anyhow!("{origin}/{TOKENIZER}: not a tokenizer that this version reads: {error}"))?;
    // Both may be left over from the training of the tokenizer's first model.
    tokenizer.with_truncation(None).map_err(|error| anyhow!("{origin}/{TOKENIZER}: {error}"))?.with_padding(None);
    Ok(tokenizer)
}

/// The template's text and the file it is from: a file of its own wins over the configuration.
fn template_source(files: &BTreeMap<String, Vec<u8>>, config: &Value, origin: &str) -> Result<Option<(String, &'static str)>> {
    if let Some(bytes) = files.get(TEMPLATE) {
        let source = String::from_utf8(bytes.clone()).with_context(|| format!("{origin}/{TEMPLATE}: not UTF-8"))?;
        return Ok(Some((source, TEMPLATE)));
    }
    let source = match &config["chat_template"] {
        Value::Null => return Ok(None),
        Value::String(source) => source,
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default").or(named.first().filter(|_| named.len() == 1));
            default.and_then(|entry| entry["template"].as_str()).with_context(|| {
                let names: Vec<_> = named.iter().filter_map(|entry| entry["name"].as_str()).collect();
                format!(
                    "{origin}/{TOKENIZER_CONFIG}: none of the chat templates ({}) is named default; put one into {TEMPLATE}",
                    names.join(", ")
                )
            })?
        }
        other => bail!("{origin}/{TOKENIZER_CONFIG}: chat_template must be a text or a list of named texts, got {other}"),
    };
    Ok(Some((source.to_string(), TOKENIZER_CONFIG)))
}

/// The entries `*_token` as plain text, which transformers hands to every template.
///
/// Those of `special_tokens_map.json` stand in where `tokenizer_config.json` has none; they win, as in transformers, where that is of the
/// older kind without `added_tokens_decoder`.
fn special_tokens(config: &Value, map: Option<&Value>) -> Map<String, Value> {
    let entries = |file: &Value| -> Map<String, Value> {
        let entries = file.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
        entries.filter_map(|(name, token)| Some((name.clone(), token.as_str().or(token["content"].as_str())?.into()))).collect()
    };
    let (mut weak, mut strong) = (map.map(entries).unwrap_or_default(), entries(config));
    if config["added_tokens_decoder"].is_null() {
        std::mem::swap(&mut weak, &mut strong);
    }
    weak.extend(strong);
    weak
}

fn json_file(files: &BTreeMap<String, Vec<u8>>, name: &str, origin: &str) -> Result<Option<Value>> {
    let Some(bytes) = files.get(name) else { return Ok(None) };
    let value: Value = serde_json::from_slice(bytes).with_context(|| format!("{origin}/{name}: not JSON"))?;
    if !value.is_object() {
        bail!("{origin}/{name}: must hold a JSON object");
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests;
