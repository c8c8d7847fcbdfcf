//! One request to a server, and what its outcome means: an answer, something that may pass, or something that will not.

use super::protocol::{Answer, Ask, Extras, Listing, complaint, is_too_long, shown};
use super::{Api, Endpoint};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body};

/// The server's key. It is shown nowhere.
pub(super) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// From `DISTILL_API_KEY`, else `OPENAI_API_KEY`; `None` where neither is set.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| variable(name).map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        set("DISTILL_API_KEY").or_else(|| set("OPENAI_API_KEY")).map(Self)
    }
}

/// Why a request has brought no answer.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// Another try may fare better, after this time where the server has named one.
    Passing { what: String, after: Option<Duration> },
    /// An answer that is not of the API: tried again a few times, as a proxy may stand in for a moment.
    Odd(String),
    /// The prompt does not fit the model.
    TooLong,
    /// It does not know a key that can be left out; the next try leaves it out.
    Unknown,
    /// The same request will be refused again.
    Refused(String),
}

pub(super) struct Client {
    pub agent: Agent,
    endpoint: Endpoint,
    key: Option<Secret>,
    /// Keys that the server has refused.
    without: Without,
}

#[derive(Default)]
struct Without {
    sampling: AtomicBool,
    logprobs: AtomicBool,
}

impl Client {
    pub fn new(endpoint: Endpoint, key: Option<Secret>, deadline: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(deadline))
            .timeout_resolve(Some(Duration::from_secs(10).min(deadline)))
            .timeout_connect(Some(Duration::from_secs(10).min(deadline)))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(1024)
            .max_idle_connections_per_host(1024)
            .user_agent(concat!("distill/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), endpoint, key, without: Without::default() }
    }

    /// What may be asked of this server beyond OpenAI's keys.
    pub fn extras(&self) -> Extras {
        let known = |flag: &AtomicBool| !flag.load(Ordering::Relaxed);
        Extras { sampling: known(&self.without.sampling), logprobs: known(&self.without.logprobs) }
    }

    /// One try at completions.
    pub fn complete(&self, ask: &Ask) -> Result<Vec<Answer>, Fault> {
        let path = match self.endpoint.api {
            Api::Chat => "chat/completions",
            Api::Completion => "completions",
        };
        let body = ask.body(&self.endpoint).to_string();
        let request = self.agent.post(format!("{}/{path}", self.endpoint.base)).header("Content-Type", "application/json");
        let request = match &self.key {
            Some(Secret(key)) => request.header("Authorization", format!("Bearer {key}")),
            None => request,
        };
        let mut response = request.send(body.as_bytes()).map_err(|error| self.transport(error))?;
        if response.status().as_u16() == 200 {
            let bytes = self.bytes(&mut response, ask.limit())?;
            return ask.read(&bytes).map_err(|reason| Fault::Odd(self.redacted(&reason)));
        }
        Err(self.status(&mut response, Some(ask)))
    }

    /// What the server lists; `None` where it keeps no list.
    pub fn models(&self) -> Result<Option<Listing>, Fault> {
        let request = self.agent.get(format!("{}/models", self.endpoint.base));
        let request = match &self.key {
            Some(Secret(key)) => request.header("Authorization", format!("Bearer {key}")),
            None => request,
        };
        let mut response = request.call().map_err(|error| self.transport(error))?;
        match response.status().as_u16() {
            200 => {
                let bytes = self.bytes(&mut response, 4 << 20)?;
                Ok(serde_json::from_slice(&bytes).ok())
            }
            404 | 405 | 501 => Ok(None),
            _ => Err(self.status(&mut response, None)),
        }
    }

    fn bytes(&self, response: &mut Response<Body>, limit: u64) -> Result<Vec<u8>, Fault> {
        response.body_mut().with_config().limit(limit).read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => Fault::Odd(format!("it has more than {limit} bytes")),
            error => self.transport(error),
        })
    }

    fn transport(&self, error: ureq::Error) -> Fault {
        use ureq::Error::{BadUri, Http, InvalidProxyUrl};
        match error {
            // What it says of a header may be the key.
            Http(_) => Fault::Refused(format!("no request can be made for {}; check the address and DISTILL_API_KEY", self.endpoint.base)),
            BadUri(_) | InvalidProxyUrl => Fault::Refused(format!("{}: {error}; check the address and HTTPS_PROXY", self.endpoint.base)),
            error => Fault::Passing {
                what: format!("{} does not answer ({})", self.endpoint.base, self.redacted(&error.to_string())),
                after: None,
            },
        }
    }

    /// What a status other than 200 means.
    fn status(&self, response: &mut Response<Body>, ask: Option<&Ask>) -> Fault {
        let status = response.status().as_u16();
        let after = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
        let bytes = response.body_mut().with_config().limit(64 << 10).read_to_vec().unwrap_or_default();
        let (base, said) = (&self.endpoint.base, self.redacted(&complaint(&bytes)));
        match status {
            408 | 409 | 425 | 429 | 500.. => {
                Fault::Passing { what: format!("{base} answered {status} ({said})"), after: after.map(|s| Duration::from_secs(s.into())) }
            }
            401 if self.key.is_none() => Fault::Refused(format!("{base} wants a key (401); set DISTILL_API_KEY")),
            401 | 403 => Fault::Refused(format!("{base} does not take the key in DISTILL_API_KEY or OPENAI_API_KEY ({status})")),
            300..400 => Fault::Refused(format!("{base} answered {status}, a redirect; give the address that it leads to")),
            400 | 413 | 422 if is_too_long(&bytes) => Fault::TooLong,
            400 | 422 if ask.is_some_and(|ask| self.leave_out(ask, &said)) => Fault::Unknown,
            404 if said.to_lowercase().contains("model") => {
                Fault::Refused(format!("{base} refuses model {:?} (404): {said}", self.endpoint.model))
            }
            404 | 405 => {
                Fault::Refused(format!("{base} is not the address of an OpenAI-compatible server ({status}: {said}); it often ends in /v1"))
            }
            _ => Fault::Refused(format!("{base} refuses the request ({status}): {said}")),
        }
    }

    /// Whether a refusal is about keys that can be left out, which they are from now on.
    fn leave_out(&self, ask: &Ask, said: &str) -> bool {
        let names = |keys: &[&str]| keys.iter().any(|key| said.contains(key));
        if ask.extras.sampling && !ask.needs_sampling_extras() && names(&["top_k", "min_p", "repetition_penalty"]) {
            self.without.sampling.store(true, Ordering::Relaxed);
        } else if ask.extras.logprobs && names(&["logprobs"]) {
            self.without.logprobs.store(true, Ordering::Relaxed);
        } else {
            return false;
        }
        true
    }

    /// A text without the key, should a server repeat it.
    fn redacted(&self, text: &str) -> String {
        shown(&match &self.key {
            Some(Secret(key)) => text.replace(key.as_str(), "…"),
            None => text.to_owned(),
        })
    }
}
