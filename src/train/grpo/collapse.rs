//! When a phase has lost what it had gained: a rule over the mean rewards of its steps, and what of them has to be remembered.
//!
//! It knows numbers only: neither what is paid for nor where models lie.

use serde::{Deserialize, Serialize};

/// When a phase is given up: where the mean reward of its last `window` steps lies below the best such mean by more than `drop` of what that had gained on the
/// first, and by more than six standard errors of the difference.
///
/// Rewards have no zero of their own and may be negative, so what was gained is counted from where the phase began; a phase that never gained anything is given
/// up where it falls below its beginning. The second condition is for noise: the best of many windows has been lucky, by some 3.5 standard errors in thousands
/// of steps, and the window that it is compared with may be as unlucky. The noise of a step is taken from the differences between neighbouring steps, which do
/// not see a trend, or from the scatter within the two windows, whichever is more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collapse {
    #[serde(default = "Collapse::twenty_steps")]
    pub window: usize,
    #[serde(default = "Collapse::a_half")]
    pub drop: f64,
}

/// Standard errors that a loss must exceed.
const STANDARD_ERRORS: f64 = 6.0;

impl Collapse {
    fn twenty_steps() -> usize {
        20
    }

    fn a_half() -> f64 {
        0.5
    }
}

/// The rewards of a window of steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Steps that were done at its end.
    pub steps: usize,
    pub mean: f64,
    /// Of the steps' rewards, around that mean.
    variance: f64,
}

/// What is remembered of a phase's rewards; part of its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rewards {
    /// Steps in a window.
    window: usize,
    /// Of the last steps, a window at most.
    recent: Vec<f64>,
    first: Option<Window>,
    best: Option<Window>,
    last: Option<Window>,
    /// Differences between neighbouring steps: how many, and the sum of their squares.
    differences: (usize, f64),
    /// The best of the windows at whose ends models were kept.
    kept: Option<Window>,
    /// Problems of the step at which the phase was given up, in words.
    problems: Option<String>,
}

impl Rewards {
    /// To go on with under these settings. Means over windows of another size cannot be compared: then only what was kept is remembered.
    pub(super) fn under(self, settings: &Collapse) -> Self {
        if self.window == settings.window { self } else { Self { window: settings.window, kept: self.kept, ..Self::default() } }
    }

    /// Takes in a step's mean reward; `steps` are done with it.
    pub(super) fn push(&mut self, reward: f64, steps: usize) {
        if let Some(before) = self.recent.last() {
            self.differences = (self.differences.0 + 1, self.differences.1 + (reward - before).powi(2));
        }
        if self.recent.len() == self.window {
            self.recent.remove(0);
        }
        self.recent.push(reward);
        if self.recent.len() < self.window {
            return;
        }
        let n = self.window as f64;
        let mean = self.recent.iter().sum::<f64>() / n;
        let variance = self.recent.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let now = Window { steps, mean, variance };
        self.first.get_or_insert(now);
        if self.best.is_none_or(|best| mean > best.mean) {
            self.best = Some(now);
        }
        self.last = Some(now);
    }

    /// The last window, where it is better than those at whose ends models were kept: it is then one of them.
    pub(super) fn keep(&mut self) -> Option<Window> {
        let last = self.last.filter(|last| self.kept.is_none_or(|kept| last.mean > kept.mean))?;
        self.kept = Some(last);
        self.kept
    }

    /// The best of the windows that `keep` gave.
    pub(super) fn kept(&self) -> Option<Window> {
        self.kept
    }

    /// How the phase has collapsed, if it has; `problems` are those of the last step, in words.
    pub(super) fn collapsed(&mut self, settings: &Collapse, problems: impl FnOnce() -> String) -> Option<Collapsed> {
        let (first, best, last) = (self.first?, self.best?, self.last?);
        let lost = best.mean - last.mean;
        let (count, squares) = self.differences;
        let noise = f64::max(squares / (2 * count.max(1)) as f64, (best.variance + last.variance) / 2.0);
        let standard_error = (2.0 * noise / self.window as f64).sqrt();
        if lost <= settings.drop * (best.mean - first.mean) || lost <= STANDARD_ERRORS * standard_error {
            return None;
        }
        let problems = self.problems.get_or_insert_with(problems).clone();
        Some(Collapsed { window: self.window, first, best, last, kept: self.kept, problems })
    }
}

/// A phase that was given up, since its reward had collapsed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the reward has collapsed at step {}: its mean over the last {window} steps is {:.3}, after {:.3} at step {} and {:.3} at the beginning; {problems}",
    .last.steps - 1, .last.mean, .best.mean, .best.steps - 1, .first.mean
)]
pub struct Collapsed {
    /// Steps in a window.
    pub window: usize,
    pub first: Window,
    pub best: Window,
    pub last: Window,
    /// The window at whose end the model was kept that is the best of those that were.
    pub kept: Option<Window>,
    /// Of the last step, in words.
    pub problems: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    const RULE: Collapse = Collapse { window: 20, drop: 0.5 };

    /// Steps done when the rule stops a series.
    fn stops(rule: &Collapse, series: impl IntoIterator<Item = f64>) -> Option<usize> {
        let mut rewards = Rewards::default().under(rule);
        series.into_iter().zip(1..).find_map(|(reward, steps)| {
            rewards.push(reward, steps);
            let collapsed = rewards.collapsed(rule, || "problems".into())?;
            assert_eq!(collapsed.last.steps, steps);
            Some(steps)
        })
    }

    /// Normal noise of a standard deviation around what `mean` says of each of so many steps.
    fn noisy(seed: u64, noise: f64, steps: usize, mean: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut stream = Key::new(seed, "rewards").stream();
        (0..steps).map(|step| mean(step) + noise * stream.normal()).collect()
    }

    fn rising(step: usize) -> f64 {
        0.2 + 0.6 * step.min(200) as f64 / 200.0
    }

    /// Up in 200 steps, down again in 50 to where it began.
    fn falling(step: usize) -> f64 {
        if step < 200 { rising(step) } else { 0.8 - 0.6 * (step - 200).min(50) as f64 / 50.0 }
    }

    #[test]
    fn what_rises_or_stays_is_not_stopped() {
        assert_eq!(stops(&RULE, vec![0.0; 500]), None);
        assert_eq!(stops(&RULE, vec![-1.0; 500]), None);
        assert_eq!(stops(&RULE, vec![0.7; 500]), None);
        // All that can be had, but for single misses after a long time.
        assert_eq!(stops(&RULE, (0..900).map(|step| if step % 300 == 299 { 0.9 } else { 1.0 })), None);
        // Nothing, but for single hits.
        assert_eq!(stops(&RULE, (0..900).map(|step| if step % 300 == 299 { 0.1 } else { 0.0 })), None);
        for window in [5, 20] {
            let rule = Collapse { window, ..RULE };
            for seed in 0..20 {
                assert_eq!(stops(&rule, noisy(seed, 0.1, 600, rising)), None, "rising, window {window}, seed {seed}");
                assert_eq!(stops(&rule, noisy(seed, 0.1, 600, |_| 0.5)), None, "flat, window {window}, seed {seed}");
                assert_eq!(stops(&rule, noisy(seed, 0.1, 600, |_| -2.0)), None, "flat below 0, window {window}, seed {seed}");
            }
        }
        // Half of a gain may go again, if no more.
        assert_eq!(stops(&RULE, noisy(1, 0.01, 600, |step| if step < 300 { rising(step) } else { 0.6 })), None);
    }

    #[test]
    fn what_falls_back_to_its_beginning_is_stopped_soon_wherever_its_zero_is() {
        for seed in 0..20 {
            for noise in [0.02, 0.1] {
                let series = noisy(seed, noise, 400, falling);
                let at = stops(&RULE, series.iter().copied()).expect("it has collapsed");
                assert!((215..=260).contains(&at), "seed {seed}, noise {noise}: {at}");
                // Rewards from -3 to 3, as some presets have them.
                let at = stops(&RULE, series.iter().map(|reward| 6.0 * reward - 3.0)).expect("it has collapsed");
                assert!((215..=260).contains(&at), "seed {seed}, noise {noise}, below 0: {at}");
            }
        }
        // From the first window on downwards there was never a gain.
        let down = stops(&RULE, noisy(1, 0.05, 400, |step| if step < 60 { 0.6 } else { 0.0 })).expect("it has collapsed");
        assert!((65..=80).contains(&down), "{down}");
        // Three quarters of a gain are more than a half of it and less than nine tenths.
        let series = || noisy(2, 0.01, 600, |step| if step < 300 { rising(step) } else { 0.35 });
        assert!(stops(&RULE, series()).is_some());
        assert_eq!(stops(&Collapse { drop: 0.9, ..RULE }, series()), None);
    }

    #[test]
    fn what_is_remembered_decides_as_if_nothing_had_been_forgotten() {
        let series = noisy(3, 0.1, 400, falling);
        let whole = stops(&RULE, series.iter().copied()).expect("it has collapsed");
        let mut rewards = Rewards::default().under(&RULE);
        for (reward, steps) in series.iter().zip(1..=whole) {
            // As at a resumption after every step.
            let stored = serde_json::to_string(&rewards).unwrap();
            rewards = serde_json::from_str::<Rewards>(&stored).unwrap().under(&RULE);
            rewards.push(*reward, steps);
            assert_eq!(rewards.collapsed(&RULE, || format!("problems of step {}", steps - 1)).is_some(), steps == whole, "{steps}");
        }
        // What was told once is told again, the problems of then with it.
        let told = rewards.collapsed(&RULE, || unreachable!()).unwrap();
        let again = serde_json::from_str::<Rewards>(&serde_json::to_string(&rewards).unwrap())
            .unwrap()
            .under(&RULE)
            .collapsed(&RULE, || unreachable!());
        assert_eq!(again.as_ref(), Some(&told));
        assert_eq!(told.problems, format!("problems of step {}", whole - 1));
        let begin = format!("the reward has collapsed at step {}: its mean over the last 20 steps is ", whole - 1);
        assert!(told.to_string().starts_with(&begin), "{told}");
        // Windows of another size begin anew.
        assert_eq!(rewards.under(&Collapse { window: 30, ..RULE }), Rewards { window: 30, ..Rewards::default() });
    }

    #[test]
    fn a_model_is_kept_where_it_is_better_than_those_that_were() {
        let rule = Collapse { window: 5, drop: 0.5 };
        let mut rewards = Rewards::default().under(&rule);
        let mut kept = Vec::new();
        for (step, reward) in [0.1, 0.1, 0.1, 0.1, 0.1, 0.5, 0.5, 0.4, 0.0, 0.0, 0.6, 0.9].into_iter().enumerate() {
            rewards.push(reward, step + 1);
            // Not at every step is there a model to keep.
            if step % 2 == 1 {
                kept.extend(rewards.keep().map(|window| window.steps));
            }
        }
        // Means after 6, 8, 10 and 12 steps: 0.18, 0.32, 0.28, 0.38; before there were not five.
        assert_eq!(kept, [6, 8, 12]);
        rewards.push(0.0, 13);
        assert_eq!((rewards.keep(), rewards.kept.unwrap().steps), (None, 12));
    }
}
