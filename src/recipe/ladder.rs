//! What a ladder of contexts must be like beside the other keys of its phase.

use super::table::Table;
use crate::train::GrpoSettings;

/// Notes what is wrong with `context_ladder` in a phase whose attempts end up at `max_tokens`.
pub(super) fn check(t: &Table, settings: &GrpoSettings, max_tokens: usize) {
    let mut below = 0;
    for (i, rung) in settings.context_ladder.iter().enumerate() {
        t.check(&format!("context_ladder[{i}].steps"), rung.steps > 0, "at least 1", 0);
        let must = match below {
            0 => format!("at least 1, and below the phase's max_tokens, {max_tokens}"),
            _ => format!("more than the rung's before it, {below}, and below the phase's max_tokens, {max_tokens}"),
        };
        t.check(
            &format!("context_ladder[{i}].max_tokens"),
            rung.max_tokens > below && rung.max_tokens < max_tokens,
            &must,
            rung.max_tokens,
        );
        below = rung.max_tokens;
    }
    let taken = settings.context_ladder.iter().fold(0usize, |sum, rung| sum.saturating_add(rung.steps));
    let must = format!("rungs of fewer steps than the phase's {}, so that some are left for max_tokens", settings.steps);
    t.check("context_ladder", settings.context_ladder.is_empty() || taken < settings.steps, &must, format!("{taken} steps"));
    if let (Some(rung), Some(penalty)) = (settings.context_ladder.first(), settings.overlong_penalty) {
        let must = format!("at most the lowest rung's max_tokens, {}", rung.max_tokens);
        t.check("overlong_penalty.buffer", penalty.buffer <= rung.max_tokens, &must, penalty.buffer);
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::{Method, Recipe};
    use crate::train::{Collapse, Rung};

    const TINY: &str = include_str!("../../tests/support/tiny-tiny.toml");

    /// The tiny recipe's GRPO phase, of 50 steps and 24 tokens, with these pairs of key and value over it.
    fn recipe(pairs: &[&str]) -> anyhow::Result<Recipe> {
        let pairs = ["steps=50"].iter().chain(pairs).map(|pair| format!("teacher.phase[1].{pair}"));
        Recipe::parse(TINY, &pairs.collect::<Vec<_>>())
    }

    fn settings(recipe: &Recipe) -> &crate::train::GrpoSettings {
        match &recipe.teacher.as_ref().unwrap().phases[1].method {
            Method::Grpo(grpo) => &grpo.settings,
            Method::Sft(_) => panic!("the second phase is GRPO"),
        }
    }

    #[test]
    fn a_ladder_is_read_and_what_it_cannot_be_is_told() {
        let ladder = "context_ladder=[{steps=10,max_tokens=8},{steps=20,max_tokens=16}]";
        let good = recipe(&[ladder, "overlong_penalty={buffer=8,factor=1.0}"]).unwrap();
        assert_eq!(settings(&good).context_ladder, [Rung { steps: 10, max_tokens: 8 }, Rung { steps: 20, max_tokens: 16 }]);
        let again = Recipe::parse(&good.to_toml(), &[]).unwrap();
        assert_eq!((settings(&again), &again.resolved), (settings(&good), &good.resolved));
        for (pairs, expected) in [
            (&["context_ladder=[{steps=0,max_tokens=8}]"][..], "context_ladder[0].steps must be at least 1, got 0"),
            (
                &["context_ladder=[{steps=1,max_tokens=0}]"][..],
                "context_ladder[0].max_tokens must be at least 1, and below the phase's max_tokens, 24, got 0",
            ),
            (
                &["context_ladder=[{steps=1,max_tokens=24}]"][..],
                "context_ladder[0].max_tokens must be at least 1, and below the phase's max_tokens, 24, got 24",
            ),
            (
                &["context_ladder=[{steps=1,max_tokens=8},{steps=1,max_tokens=8}]"][..],
                "context_ladder[1].max_tokens must be more than the rung's before it, 8, and below the phase's max_tokens, 24, got 8",
            ),
            (
                &["context_ladder=[{steps=30,max_tokens=8},{steps=20,max_tokens=16}]"][..],
                "context_ladder must be rungs of fewer steps than the phase's 50, so that some are left for max_tokens, got 50 steps",
            ),
            (
                &[ladder, "overlong_penalty={buffer=9,factor=1.0}"][..],
                "overlong_penalty.buffer must be at most the lowest rung's max_tokens, 8, got 9",
            ),
            (&["context_ladder=[{steps=1,max_token=8}]"][..], "context_ladder[0].max_token is not a key, did you mean max_tokens?"),
            (&["context_ladder=[{steps=1}]"][..], "context_ladder[0].max_tokens is missing"),
            (&["context_ladder=8192"][..], "context_ladder must be a list, got 8192"),
        ] {
            let error = recipe(pairs).unwrap_err().to_string();
            assert!(error.contains(&format!("teacher.phase[1].{expected}")) && error.lines().count() == 1, "{pairs:?}: {error}");
        }
    }

    #[test]
    fn a_rule_for_a_collapse_is_read_with_its_defaults_and_is_no_part_of_the_inputs() {
        let of = |pair: &str| recipe(&[pair]).map(|recipe| settings(&recipe).collapse);
        assert_eq!(of("collapse={}").unwrap(), Some(Collapse { window: 20, drop: 0.5 }));
        assert_eq!(of("collapse={window=5,drop=1.0}").unwrap(), Some(Collapse { window: 5, drop: 1.0 }));
        assert_eq!(recipe(&[]).map(|recipe| settings(&recipe).collapse).unwrap(), None);
        for (pair, expected) in [
            ("collapse={window=4}", "collapse.window must be at least 5, and less than steps, got 4"),
            ("collapse={window=50}", "collapse.window must be at least 5, and less than steps, got 50"),
            ("collapse={drop=0.0}", "collapse.drop must be above 0 and at most 1, got 0"),
            ("collapse={drop=1.5}", "collapse.drop must be above 0 and at most 1, got 1.5"),
            ("collapse={dorp=0.5}", "collapse.dorp is not a key, did you mean drop?"),
        ] {
            let error = of(pair).unwrap_err().to_string();
            assert!(error.contains(&format!("teacher.phase[1].{expected}")), "{pair}: {error}");
        }
        // What was begun before these keys were there is still the same.
        let inputs = |pairs: &[&str]| serde_json::to_value(settings(&recipe(pairs).unwrap())).unwrap();
        assert_eq!(inputs(&["collapse={}"]), inputs(&[]));
        assert!(inputs(&[]).get("context_ladder").is_none() && inputs(&[]).get("collapse").is_none());
        assert!(inputs(&["context_ladder=[{steps=1,max_tokens=8}]"]).get("context_ladder").is_some());
    }
}
