//! Which model a stage works with: a fresh one, a folder, a Hub id, or what an earlier phase of this run has made.

use super::run::{Run, config};
use super::ui::{complain, interrupt_requested};
use crate::hub;
use crate::key::Key;
use crate::model::text::Text;
use crate::model::{self, BaseModel, Decoder, NewToken};
use crate::recipe::{BaseChanges, Model, TemplateOf};
use anyhow::{Context, Result, anyhow, ensure};
use candle_core::Device;
use serde_json::{Value, json};
use sha2::Digest;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// Random weights, with the embedded tokenizer.
    Fresh,
    Folder(PathBuf),
    /// It is sampled from behind the address that the recipe names.
    Server,
}

/// A model in memory.
pub struct Loaded {
    pub decoder: Decoder,
    pub text: Arc<Text>,
    /// SHA-256 of its weights; for a fresh model, of what its draw is named.
    pub hash: String,
    /// As manifests and reports name it.
    pub name: String,
}

/// The folder of the model that an adapter's folder adds to; `None` of a whole model.
///
/// # Errors
/// Where it is neither here nor to be fetched.
fn base_of(folder: &Path) -> Result<Option<PathBuf>> {
    if !model::is_adapter(folder) {
        return Ok(None);
    }
    let (_, base) = model::adapter_settings(folder)?;
    let access = hub::Access { offline: false, stopped: interrupt_requested, say: complain };
    let found = hub::model(&base.model, base.revision.as_deref(), access);
    Ok(Some(found.with_context(|| format!("{}: the base model of the adapter is not to be had", folder.display()))?))
}

/// How an adapter on a recipe's model names its base: a Hub id with its commit, or a folder's whole path.
pub fn base_name(run: &Run, model: &Model, origin: &Origin) -> Result<BaseModel> {
    let Origin::Folder(folder) = origin else { return config(Err(anyhow!("an adapter needs a checkpoint to add to"))) };
    if model::is_adapter(folder) {
        return Ok(model::adapter_settings(folder)?.1);
    }
    if let Some(commit) = hub::snapshot_revision(folder).filter(|_| !Path::new(&model.model).exists()) {
        let id = model.model.split('@').next().unwrap_or_default();
        return Ok(BaseModel { model: id.to_owned(), revision: Some(commit) });
    }
    ensure!(!folder.starts_with(&run.dir), "{}: a phase before the adapter's has trained all weights", folder.display());
    let whole = std::fs::canonicalize(folder).with_context(|| format!("cannot find {}", folder.display()))?;
    let name = whole.to_str().with_context(|| format!("{} is not valid UTF-8", whole.display()))?;
    Ok(BaseModel { model: name.to_owned(), revision: None })
}

/// Finds a recipe's model before its phases; Hub ids are looked up, and fetched where that is allowed. What a branch stood for the first time holds for the run.
pub fn origin(run: &Run, model: &Model) -> Result<Origin> {
    if model.is_fresh() {
        return Ok(Origin::Fresh);
    }
    if model.served.is_some() {
        return Ok(Origin::Server);
    }
    let access = run.access();
    if Path::new(&model.model).exists() {
        return Ok(Origin::Folder(config(hub::model(&model.model, None, access))?));
    }
    let (id, inner) = model.model.split_once('@').map_or((model.model.as_str(), None), |(id, revision)| (id, Some(revision)));
    let name = format!("{id}@{}", inner.or(model.revision.as_deref()).unwrap_or("main"));
    let kept = run.commit_of(&name)?;
    let folder = match &kept {
        Some(commit) => hub::model(id, Some(commit), access),
        None => hub::model(&model.model, model.revision.as_deref(), access),
    };
    let folder = config(folder)?;
    if let (None, Some(commit)) = (kept, hub::snapshot_revision(&folder)) {
        run.keep_commit(&name, &commit)?;
    }
    Ok(Origin::Folder(folder))
}

/// Opens a model; `role` names the draw of a fresh one.
pub fn open(run: &Run, model: &Model, origin: &Origin, role: &str) -> Result<Loaded> {
    match origin {
        Origin::Server => config(Err(anyhow!("{role}: a model behind a server has no weights here"))),
        Origin::Fresh => {
            let shape = model.shape.as_ref().context("a fresh model has a shape")?;
            let text = Arc::new(Text::tiny());
            let key = Key::new(run.seed(), "weights").name(role);
            let decoder = Decoder::fresh(shape, text.vocab_size(), text.end_id(), text.pad_id(), key, &Device::Cpu)?;
            let hash = crate::publish::hex(sha2::Sha256::new_with_prefix(fresh(run, role, model).to_string()));
            Ok(Loaded { decoder, text, hash, name: "fresh".to_owned() })
        }
        Origin::Folder(folder) => {
            let loaded = config(open_folder(folder, &Preparation::of(run, model, folder)?, run.date))?;
            let loaded = Loaded { name: name(run, model, folder), ..loaded };
            let done = if folder.starts_with(&run.dir) { crate::publish::done(folder)? } else { None };
            let written = done.as_ref().and_then(|d| d["weights_hash"].as_str());
            ensure!(
                written.is_none_or(|hash| hash == loaded.hash),
                "{}: the weights are not those that the phase wrote: damaged or exchanged; remove its DONE to train it again",
                folder.display()
            );
            Ok(loaded)
        }
    }
}

/// A model's name in manifests, without paths of this machine: its phase, its Hub id with the commit, or the folder's own name.
fn name(run: &Run, model: &Model, folder: &Path) -> String {
    if let Ok(inside) = folder.strip_prefix(&run.dir) {
        return inside.display().to_string();
    }
    let own = folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned());
    let from_hub = folder.parent().is_some_and(|parent| parent.ends_with("snapshots"));
    if from_hub { format!("{}@{own}", model.model.split('@').next().unwrap_or_default()) } else { own }
}

/// What is made of a checkpoint when it is first opened; what a phase has left in the run is so already.
#[derive(Default)]
pub(super) struct Preparation {
    template: Option<Template>,
    changes: BaseChanges,
    /// Positions that a model with another rotary base is to have, at least.
    positions: usize,
    /// How many layers are read, where not all are.
    layers: Option<usize>,
}

enum Template {
    /// Of the teacher, with control tokens where both share a vocabulary.
    Like(Box<Text>),
    Source(String),
}

impl Preparation {
    /// What the recipe asks for.
    pub fn of(run: &Run, model: &Model, folder: &Path) -> Result<Self> {
        if folder.starts_with(&run.dir) {
            return Ok(Self::default());
        }
        let template = match &model.template {
            TemplateOf::Own => None,
            TemplateOf::ChatMl => Some(Template::Source(CHATML.to_owned())),
            TemplateOf::File(path) => {
                let source = std::fs::read_to_string(path).with_context(|| format!("cannot read the chat template {}", path.display()));
                Some(Template::Source(config(source)?))
            }
            TemplateOf::Teacher => {
                let teacher = run.recipe.teacher.as_ref().context("a recipe that names its teacher's template has a teacher")?;
                Some(Template::Like(Box::new(match origin(run, teacher)? {
                    Origin::Fresh => Text::tiny(),
                    Origin::Server => return config(Err(anyhow!("student.template: a teacher behind a server has no template here"))),
                    Origin::Folder(folder) => config(Text::from_folder(&folder))?,
                })))
            }
        };
        Ok(Self { template, changes: model.base.clone(), positions: model.max_length, layers: None })
    }

    /// With the first layers alone.
    pub fn of_layers(self, layers: Option<usize>) -> Self {
        Self { layers, ..self }
    }

    fn is_none(&self) -> bool {
        self.template.is_none() && self.changes.is_none()
    }

    /// What follows from it, for a stage's inputs.
    fn identity(&self) -> Value {
        let mut identity = match &self.template {
            None => json!({}),
            Some(Template::Like(teacher)) => json!({"tokenizer": teacher.tokenizer_hash(), "template": teacher.template_hash()}),
            Some(Template::Source(source)) => json!({"template": crate::publish::sha256(source.as_bytes())}),
        };
        if !self.changes.add_tokens.is_empty() {
            identity["add_tokens"] = json!(self.changes.add_tokens);
        }
        if let Some(theta) = self.changes.rope_theta {
            identity["rope_theta"] = json!([theta, self.positions]);
        }
        identity
    }

    /// The text half, and the tokens that it has beyond those of `text`.
    fn text(&self, text: Text) -> Result<(Text, Vec<NewToken>)> {
        if self.is_none() {
            return Ok((text, Vec::new()));
        }
        let tokens = &self.changes.add_tokens;
        let templated = match (text.with_tokens(tokens)?, &self.template) {
            (text, None) => text,
            (text, Some(Template::Like(teacher))) => text.with_template_of(teacher)?,
            (text, Some(Template::Source(source))) => text.with_template(source)?,
        };
        // A teacher's tokenizer that took the place of the own one may lack some.
        let made = templated.with_tokens(tokens)?;
        let mut new = Vec::new();
        for token in tokens {
            let id = made.require_token(token)?;
            if text.token_id(token) != Some(id) {
                new.push(NewToken { id, like: text.encode(token)? });
            }
        }
        Ok((made, new))
    }

    fn decoder(&self, decoder: Decoder, text: &Text, new: &[NewToken]) -> Result<Decoder> {
        let decoder = if new.is_empty() { decoder } else { decoder.with_tokens(text.vocab_size(), new)? };
        Ok(self.changes.rope_theta.map_or(decoder.clone(), |theta| decoder.with_rope_theta(theta, self.positions)))
    }
}

/// The plain template of many models.
const CHATML: &str = include_str!("../../data/templates/chatml.jinja");

/// Opens a model folder with its tokenizer, made ready as is asked for, on this day.
pub(super) fn open_folder(folder: &Path, preparation: &Preparation, date: i64) -> Result<Loaded> {
    let base = base_of(folder)?;
    let text = Text::from_folder(text_folder(folder, base.as_deref()))?;
    let (text, new) = preparation.text(text).with_context(|| format!("{} cannot be made ready", folder.display()))?;
    let text = Arc::new(text.with_date(date));
    text.check_special()?;
    let decoder = match &base {
        Some(base) => model::load_adapter(folder, &model::load(base, &Device::Cpu)?)?,
        None => model::load_layers(folder, &Device::Cpu, preparation.layers)?,
    };
    let decoder = preparation.decoder(decoder, &text, &new)?;
    let rows = decoder.config().vocab_size;
    ensure!(
        text.vocab_size() <= rows,
        "{}: the tokenizer has ids up to {}, the model's embedding {rows} rows: they do not belong together",
        folder.display(),
        text.vocab_size()
    );
    let mut hash = weights_hash(folder)?;
    if !preparation.changes.is_none() {
        hash = crate::publish::sha256(format!("{hash} {}", preparation.identity()).as_bytes());
    }
    Ok(Loaded { decoder, text, hash, name: folder.display().to_string() })
}

/// Where a model's tokenizer is: an adapter may have one of its own.
fn text_folder<'a>(folder: &'a Path, base: Option<&'a Path>) -> &'a Path {
    base.filter(|_| !folder.join("tokenizer.json").exists()).unwrap_or(folder)
}

/// SHA-256 of a model's weights; of an adapter, of its own and those of its base.
pub fn weights_hash(folder: &Path) -> Result<String> {
    let own = model::weights_hash(folder)?;
    let Some(base) = base_of(folder)? else { return Ok(own) };
    let (settings, _) = model::adapter_settings(folder)?;
    let all = format!("{own} {} {}", serde_json::to_string(&settings)?, model::weights_hash(&base)?);
    Ok(crate::publish::sha256(all.as_bytes()))
}

/// What a model is, for a stage's inputs: of a folder the hash of weights, the numbers of its arithmetic, tokenizer, template and stop ids (a
/// finished phase has it in its `DONE`), beside it those of the text half that it takes over; of a fresh one the draw that it is.
pub fn identity(run: &Run, origin: &Origin, role: &str, model: &Model) -> Result<Value> {
    let folder = match origin {
        Origin::Fresh => return Ok(fresh(run, role, model)),
        Origin::Server => return Ok(json!({"server": model.served})),
        Origin::Folder(folder) => folder,
    };
    let done = if folder.starts_with(&run.dir) { crate::publish::done(folder)? } else { None };
    if let Some(hash) = done.as_ref().and_then(|d| d["model_hash"].as_str()) {
        return Ok(hash.into());
    }
    let hash = config(folder_hash(folder))?;
    let preparation = Preparation::of(run, model, folder)?;
    if preparation.is_none() {
        return Ok(hash.into());
    }
    let mut identity = preparation.identity();
    identity["hash"] = hash.into();
    Ok(identity)
}

/// Identity of the model in a folder. What `save_pretrained` may rewrite without changing a result (dtype, version) is no part of it.
pub fn folder_hash(folder: &Path) -> Result<String> {
    let base = base_of(folder)?;
    let text = Text::from_folder(text_folder(folder, base.as_deref()))?;
    let mut hash = sha2::Sha256::new();
    hash.update(weights_hash(folder)?);
    hash.update(model::Config::load(base.as_deref().unwrap_or(folder))?.identity());
    hash.update(text.tokenizer_hash());
    hash.update(text.template_hash().unwrap_or_default());
    hash.update(format!("{:?} {}", text.stop_ids(), text.end_id()));
    Ok(crate::publish::hex(hash))
}

fn fresh(run: &Run, role: &str, model: &Model) -> Value {
    json!({"fresh": role, "shape": model.shape, "seed": run.seed()})
}

/// Folder of the model that a role ends with: its last phase, or the model it started from.
pub fn last_folder(run: &Run, model: &Model, role: &str) -> Result<Origin> {
    match model.phases.last() {
        Some(phase) => Ok(Origin::Folder(run.folder(&format!("{role}/{}", phase.name)))),
        None => origin(run, model),
    }
}
