//! A chat template: Jinja as transformers runs it, so that a rendered prompt has the same bytes.
//!
//! A template comes with a model, from anywhere: it can neither read files nor run for ever. Knows no tokens; the variables come from above.

use super::python::{Dumps, strftime};
use anyhow::{Context, Result, anyhow};
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};

/// Instructions one rendering may take, per message and for the rest. Real templates need a few hundred per message; the limit also bounds how
/// deep a hostile one can nest values, whose release is recursive.
const FUEL: u64 = 20_000;
const FUEL_PER_MESSAGE: u64 = 2_000;
const RECURSION: usize = 64;

pub(super) struct Template {
    source: String,
    environment: Environment<'static>,
}

impl Template {
    /// Compiles a template; `origin` names the file in errors.
    pub fn new(source: &str, origin: &str, unix_seconds: i64) -> Result<Self> {
        let mut environment = environment();
        environment.add_template_owned("chat", without_generation_tags(source)).map_err(|error| anyhow!("{error:#}")).with_context(
            || format!("{origin}: the chat template does not parse; correct it, or put one that does into chat_template.jinja"),
        )?;
        let mut template = Self { source: source.to_string(), environment };
        template.set_date(unix_seconds);
        Ok(template)
    }

    /// The text as it stands in its file.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What `strftime_now` shows from here on.
    pub fn set_date(&mut self, unix_seconds: i64) {
        self.environment.add_function("strftime_now", move |format: String| strftime(&format, unix_seconds));
    }

    /// Renders with these variables.
    pub fn render(&self, variables: &serde_json::Map<String, serde_json::Value>, n_messages: usize) -> Result<String> {
        // Fuel is a setting of the environment, and a copy of that is a copy of its tables only.
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_MESSAGE * n_messages as u64));
        let template = environment.get_template("chat").expect("compiled under this name in new()");
        template.render(Value::from_serialize(variables)).map_err(|error| anyhow!("the chat template failed: {error}"))
    }
}

/// Jinja with transformers' settings: blocks swallow the white space around them, `break` and `continue`, Python's string methods.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(false);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_recursion_limit(RECURSION);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment
}

/// transformers' own filter: `json.dumps` without HTML escapes.
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "tojson was given a value that is not defined"));
    }
    let value = serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let dumps = Dumps {
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: options.get("indent")?,
        separators: options
            .get::<Option<Vec<String>>>("separators")?
            .and_then(|pair| <[String; 2]>::try_from(pair).ok())
            .map(|[item, key]| (item, key)),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    Ok(dumps.dumps(&value))
}

/// The template with `{% generation %}…{% endgeneration %}` as a plain scope.
///
/// transformers marks the assistant's part with this tag of its own; it prints nothing, but white space control at its ends counts.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            return out + tag;
        };
        let inner = &tag[..end];
        let replaced = match inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => inner.replace("generation", "with"),
            "endgeneration" => inner.replace("endgeneration", "endwith"),
            _ => inner.to_string(),
        };
        out.push_str(&replaced);
        rest = &tag[end..];
    }
    out + rest
}
