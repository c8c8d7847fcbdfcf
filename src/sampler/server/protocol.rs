//! Requests and answers of the OpenAI-compatible API, as JSON. What a server answers is untrusted: every part of it is checked.

use super::{Api, Endpoint};
use crate::sampler::attempt::Served;
use crate::sampler::params::SamplingParams;
use crate::trace::FinishReason;
use serde::Deserialize;
use serde_json::{Value, json};

/// What a server may not know; each is left out once it has said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extras {
    /// Keys beyond OpenAI's, which keep a server from using defaults of its own.
    pub sampling: bool,
    pub logprobs: bool,
}

/// One request.
pub(super) struct Ask<'a> {
    pub prompt: &'a str,
    pub params: &'a SamplingParams,
    pub seed: u32,
    /// Completions of the prompt.
    pub n: u32,
    pub extras: Extras,
}

/// One completion.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub served: Served,
    pub finish: FinishReason,
}

impl Ask<'_> {
    /// Whether keys are set that OpenAI's own API lacks.
    pub fn needs_sampling_extras(&self) -> bool {
        self.params.top_k > 0 || self.params.min_p > 0.0
    }

    /// Log-probabilities of servers are those at temperature 1, and so those of a trace only there.
    fn wants_logprobs(&self) -> bool {
        self.extras.logprobs && self.params.temperature == 1.0
    }

    pub fn body(&self, endpoint: &Endpoint) -> Value {
        let p = self.params;
        let mut body = json!({
            "model": endpoint.model,
            "n": self.n,
            "seed": self.seed,
            "temperature": number(p.temperature),
            "top_p": number(p.top_p),
            "max_tokens": p.max_tokens,
            "stream": false,
        });
        match endpoint.api {
            Api::Chat => body["messages"] = json!([{"role": "user", "content": self.prompt}]),
            Api::Completion => body["prompt"] = self.prompt.into(),
        }
        if !p.stop.is_empty() {
            body["stop"] = json!(p.stop);
        }
        if self.wants_logprobs() && endpoint.api == Api::Chat {
            body["logprobs"] = true.into();
            body["top_logprobs"] = 1.into();
        } else if self.wants_logprobs() {
            body["logprobs"] = 1.into();
        }
        if self.extras.sampling {
            // Without these llama.cpp keeps the 40 likeliest tokens, and vLLM takes what the model's folder recommends.
            body["top_k"] = i64::try_from(p.top_k).ok().filter(|k| *k > 0).unwrap_or(-1).into();
            body["min_p"] = number(p.min_p);
            body["repetition_penalty"] = 1.0.into();
        }
        body
    }

    /// Bytes that an answer to this may have.
    pub fn limit(&self) -> u64 {
        const LARGEST: u64 = 256 << 20;
        let tokens = (self.params.max_tokens as u64).saturating_mul(u64::from(self.n));
        tokens.saturating_mul(2048).saturating_add(1 << 20).min(LARGEST)
    }

    /// Takes an answer apart; the text of an error says what is wrong with it.
    pub fn read(&self, bytes: &[u8]) -> Result<Vec<Answer>, String> {
        let body: Body = serde_json::from_slice(bytes).map_err(|error| format!("it is no such JSON ({error})"))?;
        if body.choices.len() != self.n as usize {
            return Err(format!("it has {} choices, {} were asked for", body.choices.len(), self.n));
        }
        let usage = body.usage.ok_or("it does not say its usage, so tokens cannot be counted")?;
        let n = self.n as usize;
        body.choices.into_iter().map(|choice| choice.answer(usage.prompt_tokens as usize, usage.completion_tokens as usize / n)).collect()
    }
}

/// A number as a person writes it.
fn number(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[derive(Deserialize)]
struct Body {
    choices: Vec<Choice>,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Counts {
    prompt_tokens: u32,
    completion_tokens: u32,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<Said>,
    text: Option<String>,
    finish_reason: Option<String>,
    /// The stop string that ended it (vLLM, SGLang), or the id of the token.
    #[serde(default)]
    stop_reason: Value,
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
}

/// OpenAI's form for chats, which llama.cpp uses for completions too, or its older form for completions.
#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Token>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f64>>>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
    bytes: Option<Vec<u8>>,
    logprob: f64,
}

impl Choice {
    fn answer(self, prompt_tokens: usize, completion_tokens: usize) -> Result<Answer, String> {
        let finish = match self.finish_reason.as_deref() {
            Some("stop") => FinishReason::Stop,
            // Cut by something else than the model, be it a limit or a filter.
            Some("length" | "content_filter") => FinishReason::Length,
            other => return Err(format!("finish_reason is {}", shown(other.unwrap_or("null")))),
        };
        let plain = match (self.message, self.text) {
            (Some(said), _) => said.text(),
            (None, Some(text)) => text,
            (None, None) => return Err("a choice has neither message nor text".into()),
        };
        let entries = self.logprobs.map(Logprobs::entries).unwrap_or_default();
        let logprob = sum(&entries, plain.as_bytes(), completion_tokens, finish);
        let kept = self.stop_reason.as_str().filter(|_| finish == FinishReason::Stop).unwrap_or_default();
        Ok(Answer { served: Served { text: plain + kept, prompt_tokens, completion_tokens, logprob }, finish })
    }
}

impl Said {
    /// The message as the model has written it: servers that part the reasoning from it get it back, and a think part that the server's template has
    /// opened is opened here too.
    fn text(self) -> String {
        let content = self.content.unwrap_or_default();
        let reasoning = self.reasoning_content.or(self.reasoning).unwrap_or_default();
        match content.find("</think>") {
            _ if !reasoning.is_empty() && content.is_empty() => format!("<think>\n{reasoning}"),
            _ if !reasoning.is_empty() => format!("<think>\n{reasoning}\n</think>\n\n{content}"),
            Some(close) if !content[..close].contains("<think>") => format!("<think>\n{content}"),
            _ => content,
        }
    }
}

impl Logprobs {
    /// Bytes and log-probability of each token.
    fn entries(self) -> Vec<(Vec<u8>, f64)> {
        if let Some(content) = self.content {
            return content.into_iter().map(|t| (t.bytes.unwrap_or_else(|| t.token.into_bytes()), t.logprob)).collect();
        }
        let (tokens, logprobs) = (self.tokens.unwrap_or_default(), self.token_logprobs.unwrap_or_default());
        tokens.into_iter().zip(logprobs).map(|(token, logprob)| (token.into_bytes(), logprob.unwrap_or(f64::NAN))).collect()
    }
}

/// The sum of the tokens that make up `text`, and of the end token where it is listed.
///
/// Servers list fewer entries than tokens where a token ends inside a character, so entries belong to the text only if their bytes are its bytes, and
/// their sum is the completion's only if none is missing but the end token.
fn sum(entries: &[(Vec<u8>, f64)], text: &[u8], completion_tokens: usize, finish: FinishReason) -> Option<f64> {
    let is_number = |x: f64| x.is_finite() && x <= 1e-3;
    let mut rest = text;
    let mut end = 0;
    for (bytes, logprob) in entries {
        if rest.is_empty() && !bytes.is_empty() && finish == FinishReason::Stop && end == 0 {
            end = 1; // the end token in its own spelling
        } else {
            rest = rest.strip_prefix(bytes.as_slice())?;
        }
        if !is_number(*logprob) {
            return None;
        }
    }
    let missing = completion_tokens.checked_sub(entries.len())?;
    let is_whole = rest.is_empty() && !entries.is_empty() && (missing == 0 || (missing == 1 && finish == FinishReason::Stop && end == 0));
    is_whole.then(|| entries.iter().map(|(_, logprob)| logprob).sum())
}

/// What a server says, fit for a line of a message: 300 characters at most, none that steers a terminal.
pub(super) fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(300).map(plain).collect();
    if text.chars().nth(300).is_some() {
        short.push('…');
    }
    short
}

/// The message of an error's body, in one of the forms that servers use.
pub(super) fn complaint(bytes: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return shown(String::from_utf8_lossy(&bytes[..bytes.len().min(2048)]).trim());
    };
    let texts = [&value["error"]["message"], &value["message"], &value["detail"], &value["error"]];
    texts.into_iter().find_map(Value::as_str).map_or_else(|| shown(&value.to_string()), shown)
}

/// Whether a refusal means that the prompt is too long for the model.
pub(super) fn is_too_long(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return false };
    let names = [&value["error"]["code"], &value["error"]["type"], &value["code"], &value["type"]];
    let named = names.into_iter().filter_map(Value::as_str).any(|n| ["context_length_exceeded", "exceed_context_size_error"].contains(&n));
    named || complaint(bytes).contains("maximum context length")
}

/// A model that a server lists.
#[derive(Deserialize)]
pub(super) struct Listed {
    pub id: String,
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Positions, prompt included (vLLM, SGLang).
    pub max_model_len: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct Listing {
    pub data: Vec<Listed>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[(&str, f64)]) -> Vec<(Vec<u8>, f64)> {
        list.iter().map(|(bytes, x)| (bytes.as_bytes().to_vec(), *x)).collect()
    }

    #[test]
    fn log_probabilities_are_summed_only_where_their_bytes_are_the_text() {
        use FinishReason::{Length, Stop};
        for (list, text, tokens, finish, expected) in [
            (&[("a", -1.0), ("bc", -0.5)][..], "abc", 2, Length, Some(-1.5)),
            (&[("a", -1.0), ("b", -0.5), ("", -0.25)], "ab", 3, Stop, Some(-1.75)),
            (&[("a", -1.0), ("b", -0.5), ("<|end|>", -0.25)], "ab", 3, Stop, Some(-1.75)),
            (&[("a", -1.0), ("b", -0.5)], "ab", 3, Stop, Some(-1.5)),
            // A token is missing that is not the end.
            (&[("a", -1.0), ("b", -0.5)], "ab", 3, Length, None),
            (&[("a", -1.0), ("b", -0.5)], "ab", 4, Stop, None),
            (&[("a", -1.0), ("b", -0.5), ("<|end|>", -0.25)], "ab", 4, Stop, None),
            // More entries than tokens, other bytes, bytes that are left over.
            (&[("a", -1.0), ("b", -0.5)], "ab", 1, Stop, None),
            (&[("a", -1.0), ("x", -0.5)], "ab", 2, Stop, None),
            (&[("a", -1.0)], "ab", 2, Stop, None),
            (&[("ab", -1.0), ("x", -1.0), ("y", -1.0)], "ab", 3, Stop, None),
            (&[], "", 1, Stop, None),
            (&[("a", f64::NAN)], "a", 1, Stop, None),
            (&[("a", 0.5)], "a", 1, Stop, None),
        ] {
            assert_eq!(sum(&entries(list), text.as_bytes(), tokens, finish), expected, "{list:?} {text} {tokens} {finish:?}");
        }
    }

    #[test]
    fn reasoning_comes_back_as_the_model_has_written_it() {
        for (said, expected) in [
            (r#"{"content": "4"}"#, "4"),
            (r#"{"content": "<think>\na</think>4"}"#, "<think>\na</think>4"),
            (r#"{"content": "a</think>4"}"#, "<think>\na</think>4"),
            (r#"{"content": "4", "reasoning_content": "a"}"#, "<think>\na\n</think>\n\n4"),
            (r#"{"content": "4", "reasoning": "a"}"#, "<think>\na\n</think>\n\n4"),
            (r#"{"content": null, "reasoning_content": "a"}"#, "<think>\na"),
            (r#"{"content": null}"#, ""),
        ] {
            assert_eq!(serde_json::from_str::<Said>(said).unwrap().text(), expected, "{said}");
        }
    }

    #[test]
    fn any_bytes_are_an_answer_or_a_reason() {
        let params = SamplingParams::at(1.0, 8);
        let ask = Ask { prompt: "", params: &params, seed: 0, n: 1, extras: Extras { sampling: true, logprobs: true } };
        let deep = "[".repeat(100_000);
        for (text, expected) in [
            ("", "no such JSON"),
            ("<html>", "no such JSON"),
            (deep.as_str(), "no such JSON"),
            (r#"{"choices": []}"#, "0 choices"),
            (r#"{"choices": [{}, {}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}"#, "2 choices"),
            (r#"{"choices": [{"text": "x", "finish_reason": "stop"}]}"#, "usage"),
            (
                r#"{"choices": [{"text": "x", "finish_reason": "stop"}], "usage": {"prompt_tokens": -1, "completion_tokens": 1}}"#,
                "no such JSON",
            ),
            (r#"{"choices": [{"text": "x"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}"#, "finish_reason is null"),
            (
                r#"{"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}"#,
                "neither message nor text",
            ),
        ] {
            let error = ask.read(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        proptest::proptest!(|(bytes: Vec<u8>)| { let _ = (ask.read(&bytes), complaint(&bytes), is_too_long(&bytes)); });
    }

    #[test]
    fn what_a_server_says_is_one_short_line() {
        let long = format!(r#"{{"error": {{"message": "a\u001b[31m\n{}"}}}}"#, "x".repeat(10_000));
        let text = complaint(long.as_bytes());
        assert!(text.starts_with("a [31m x") && text.chars().count() == 301 && !text.contains(char::is_control), "{text}");
    }
}
