//! What a look at the Hub means: whether models can be fetched, and with which rights.

use super::super::finding::Finding;
use crate::hub::{Answer, Look};

/// Whether the Hub answers, and whether there is a token that it takes.
pub fn judged(look: &Look) -> [Finding; 2] {
    [answer(look), token(look)]
}

fn answer(look: &Look) -> Finding {
    let endpoint = &look.endpoint;
    match &look.answer {
        Answer::Offline => Finding::note("hub", "HF_HUB_OFFLINE is set: it is not asked, and models come from the cache alone"),
        Answer::Reached | Answer::TokenTaken | Answer::TokenRefused => Finding::good("hub", format!("{endpoint} answers")),
        Answer::Status(429) => Finding::warning(
            "hub",
            format!("{endpoint} has had too many requests from here (429)"),
            "try again in some minutes; HF_TOKEN raises the limit, and models in the cache go on working",
        ),
        Answer::Status(status) => Finding::warning(
            "hub",
            format!("{endpoint} answered {status}"),
            "try again later, or check HF_ENDPOINT and HTTPS_PROXY; models in the cache go on working",
        ),
        Answer::Unreachable(reason) => Finding::warning(
            "hub",
            format!("{endpoint} cannot be reached ({reason})"),
            "models in the cache go on working, with HF_HUB_OFFLINE=1 without waiting; else check the network and HTTPS_PROXY, or name a mirror in HF_ENDPOINT",
        ),
    }
}

fn token(look: &Look) -> Finding {
    let Some(place) = &look.token else {
        return Finding::note(
            "token",
            "none (HF_TOKEN, or the file that `hf auth login` writes): gated and private models cannot be fetched",
        );
    };
    match look.answer {
        Answer::TokenTaken => Finding::good("token", format!("from {place}; the Hub takes it")),
        Answer::TokenRefused => Finding::warning(
            "token",
            format!("from {place}; the Hub does not take it (401), and refuses downloads with it, of public models too"),
            "renew it (`hf auth login`, or a new HF_TOKEN), or take it away",
        ),
        _ => Finding::note("token", format!("from {place}; whether the Hub takes it was not found out")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::*;

    #[test]
    fn each_answer_of_the_hub_means_something_for_models_and_for_the_token() {
        let quiet = || Answer::Unreachable("io: Connection refused".into());
        for (answer, from, hub, token) in [
            (Answer::Offline, None, State::Note, State::Note),
            (Answer::Reached, None, State::Good, State::Note),
            (Answer::TokenTaken, Some("HF_TOKEN"), State::Good, State::Good),
            (Answer::TokenRefused, Some("/home/me/token"), State::Good, State::Warning),
            (Answer::Reached, Some("HF_TOKEN"), State::Good, State::Note),
            (Answer::Status(429), None, State::Warning, State::Note),
            (Answer::Status(503), Some("HF_TOKEN"), State::Warning, State::Note),
            (quiet(), None, State::Warning, State::Note),
        ] {
            let look = Look { endpoint: "https://mirror".into(), answer, token: from.map(str::to_owned), cache: "/c".into(), models: 0 };
            let found = judged(&look);
            assert_eq!(found.each_ref().map(|finding| finding.state), [hub, token], "{found:?}");
            assert!(from.is_none_or(|from| found[1].says.contains(from)), "{found:?}");
        }
        let look = Look { endpoint: "https://mirror".into(), answer: quiet(), token: None, cache: "/c".into(), models: 0 };
        assert_eq!(judged(&look)[0].says, "https://mirror cannot be reached (io: Connection refused)");
    }
}
