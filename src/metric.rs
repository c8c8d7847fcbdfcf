//! Numbers over judged attempts: pass@k, the mean over attempts, the majority's answer, their intervals, and two models side by side.
//!
//! The unit of uncertainty is the problem: intervals resample problems, comparisons are paired by problem. Every resampling is keyed, so a report
//! is a pure function of its traces. How an attempt was judged, and what is printed, is not known here.

use crate::key::Key;
use crate::problem::ProblemId;
use crate::trace::{Group, Trace};
use crate::verify::{self, math};
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;

/// Resamples behind an interval.
pub const RESAMPLES: usize = 2_000;
/// Sign flips behind a permutation test whose flips are too many to count out.
const FLIPS: usize = 10_000;
/// Problems with a difference up to which all sign flips are counted out.
const EXACT_FLIPS: usize = 12;

/// How often one problem was tried and solved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub attempts: u32,
    pub correct: u32,
}

impl Outcome {
    /// Counts a group's correct attempts.
    pub fn of(group: &Group) -> Self {
        let correct = group.traces.iter().filter(|trace| trace.is_correct()).count();
        Self { attempts: group.traces.len() as u32, correct: correct as u32 }
    }

    /// avg@n: the share of attempts that are correct, an estimate of pass@1; 0 without attempts.
    pub fn rate(self) -> f64 {
        if self.attempts == 0 { 0.0 } else { f64::from(self.correct) / f64::from(self.attempts) }
    }

    /// Chance that at least one of `k` attempts drawn without replacement is correct; `None` where there are fewer than `k`, or k is 0.
    ///
    /// 1 - C(n-c, k) / C(n, k) = 1 - prod over i in n-c+1..=n of (1 - k/i), which needs no large number.
    /// Source: Chen et al., "Evaluating large language models trained on code" (2021), section 2.1.
    pub fn pass_at(self, k: u32) -> Option<f64> {
        let (n, c) = (self.attempts, self.correct.min(self.attempts));
        if k == 0 || k > n {
            return None;
        }
        if n - c < k {
            return Some(1.0);
        }
        Some(1.0 - (n - c + 1..=n).map(|i| 1.0 - f64::from(k) / f64::from(i)).product::<f64>())
    }
}

/// maj@n of a group: see [`majority`]. Attempts vote with the answer that their verifier extracted; answers that mean the same are one (`1/2`, `0.5`): all
/// correct ones, which equal the reference, and wrong ones by the rule that compares answers.
///
/// An undecided attempt has none, since nothing says which other answers would equal its own: it does not vote, as one without an answer does not,
/// and a problem with such attempts only counts as 0. The report has the share of undecided attempts beside this figure.
pub fn maj_at_n(group: &Group) -> f64 {
    let answer = |trace: &Trace| trace.answer.clone().or_else(|| trace.verdict.as_ref()?.answer().map(str::to_owned));
    let mut wrong: Vec<String> = Vec::new();
    let mut named = |trace: &Trace| {
        let answer = answer(trace)?;
        if trace.is_correct() {
            return Some(trace.gold.clone());
        }
        let known = wrong.iter().find(|known| **known == answer || verify::compare(known, &answer) == math::Outcome::Equal);
        let name = known.cloned().unwrap_or_else(|| answer.clone());
        if name == answer && !wrong.contains(&answer) {
            wrong.push(answer);
        }
        // A wrong answer that is spelled like the reference (judged under other rules) is still another vote.
        Some(format!("wrong: {name}"))
    };
    majority(group.traces.iter().map(|trace| (named(trace), trace.is_correct())).collect::<Vec<_>>())
}

/// Chance that the most frequent answer is correct, a tie being broken at random; 0 where no attempt has an answer.
///
/// Votes are (canonical answer, whether it is correct). Where equal answers were judged differently, their share of correct ones counts.
pub fn majority(votes: impl IntoIterator<Item = (Option<String>, bool)>) -> f64 {
    let mut counts: BTreeMap<String, Outcome> = BTreeMap::new();
    for (answer, correct) in votes {
        let Some(answer) = answer else { continue };
        let count = counts.entry(answer).or_insert(Outcome { attempts: 0, correct: 0 });
        count.attempts += 1;
        count.correct += u32::from(correct);
    }
    let most = counts.values().map(|count| count.attempts).max().unwrap_or(0);
    let top: Vec<f64> = counts.values().filter(|count| count.attempts == most).map(|count| count.rate()).collect();
    mean(&top).unwrap_or(0.0)
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation (divided by n - 1); `None` of fewer than two values.
pub fn sample_std(values: &[f64]) -> Option<f64> {
    let centre = mean(values).filter(|_| values.len() > 1)?;
    Some((values.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt())
}

/// 95 % percentile interval of the mean of one value per problem; `None` without problems.
///
/// Source: Efron and Tibshirani, "An introduction to the bootstrap" (1993), chapter 13.
pub fn ci95(values: &[f64], key: Key) -> Option<[f64; 2]> {
    let n = values.len() as f64;
    bootstrap(values.len(), key, |picks| picks.iter().map(|i| values[*i]).sum::<f64>() / n)
}

/// `ci95` of shares, each from 0 to 1. Where all are 0, or all are 1, resampling knows no spread, and the exact bound of a binomial share stands in.
///
/// Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial" (1934).
pub fn share_ci95(shares: &[f64], key: Key) -> Option<[f64; 2]> {
    let is_all = |share: f64| !shares.is_empty() && shares.iter().all(|x| *x == share);
    let far = 1.0 - 0.025f64.powf(1.0 / shares.len().max(1) as f64);
    if is_all(0.0) {
        Some([0.0, far])
    } else if is_all(1.0) {
        Some([1.0 - far, 1.0])
    } else {
        ci95(shares, key)
    }
}

/// 95 % percentile interval of `statistic`, which gets the numbers of the resampled problems; resamples without a finite value do not count.
fn bootstrap(problems: usize, key: Key, statistic: impl Fn(&[usize]) -> f64) -> Option<[f64; 2]> {
    if problems == 0 {
        return None;
    }
    let mut draw = key.name("bootstrap").stream();
    let mut picks = vec![0; problems];
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            picks.fill_with(|| draw.below(problems as u32) as usize);
            statistic(&picks)
        })
        .filter(|value| value.is_finite())
        .collect();
    values.sort_by(f64::total_cmp);
    Some([quantile(&values, 0.025)?, quantile(&values, 0.975)?])
}

/// Quantile of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let at = q * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

/// Teacher and student on the same problems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Problems that both solve. With several attempts per problem the four cells are expected counts, taking the two models' attempts as
    /// independent given the problem; their sum is the number of problems either way.
    pub both: f64,
    pub teacher_only: f64,
    pub student_only: f64,
    pub neither: f64,
    /// Two-sided, of no difference: exact McNemar with one attempt each, else a sign-flip permutation over problems.
    pub p_value: f64,
    /// Student's rate - teacher's rate, and its paired interval.
    pub difference: f64,
    pub difference_ci95: [f64; 2],
    /// Student's rate / teacher's rate, and its paired interval; `None` where the teacher's own interval touches 0.
    pub recovery: Option<f64>,
    pub ci95: Option<[f64; 2]>,
}

/// Compares the outcomes of two models, paired by problem; an error where they are not about the same problems.
pub fn compare(teacher: &BTreeMap<ProblemId, Outcome>, student: &BTreeMap<ProblemId, Outcome>, key: Key) -> Result<Comparison> {
    let missing =
        |of: &BTreeMap<ProblemId, Outcome>, from: &BTreeMap<ProblemId, Outcome>| of.keys().find(|id| !from.contains_key(id)).cloned();
    if let Some(id) = missing(teacher, student).or_else(|| missing(student, teacher)) {
        bail!(
            "a comparison needs the same problems from both: teacher has {}, student {}, and {id} only one",
            teacher.len(),
            student.len()
        );
    }
    if let Some((id, _)) = teacher.iter().chain(student).find(|(_, outcome)| outcome.attempts == 0 || outcome.correct > outcome.attempts) {
        bail!("a comparison needs at least one attempt at every problem, and no more correct ones than attempts: see {id}");
    }
    let Some(pairs) = Pairs::new(teacher.values().zip(student.values())) else { bail!("a comparison needs at least one problem") };
    Ok(pairs.compare(key))
}

/// Rates per problem, of teacher and student at the same positions; never empty.
struct Pairs {
    teacher: Vec<f64>,
    student: Vec<f64>,
    /// Whether every rate is that of one attempt, so 0 or 1.
    single: bool,
}

impl Pairs {
    fn new<'a>(outcomes: impl Iterator<Item = (&'a Outcome, &'a Outcome)> + Clone) -> Option<Self> {
        let single = outcomes.clone().all(|(t, s)| t.attempts == 1 && s.attempts == 1);
        let (teacher, student): (Vec<f64>, Vec<f64>) = outcomes.map(|(t, s)| (t.rate(), s.rate())).unzip();
        (!teacher.is_empty()).then_some(Self { teacher, student, single })
    }

    fn compare(&self, key: Key) -> Comparison {
        let n = self.teacher.len() as f64;
        let cell = |of: fn(f64, f64) -> f64| self.teacher.iter().zip(&self.student).map(|(t, s)| of(*t, *s)).sum::<f64>();
        let (teacher_only, student_only) = (cell(|t, s| t * (1.0 - s)), cell(|t, s| (1.0 - t) * s));
        let differences: Vec<f64> = self.teacher.iter().zip(&self.student).map(|(t, s)| s - t).collect();
        let p_value =
            if self.single { mcnemar(teacher_only as u64, student_only as u64) } else { sign_flip(&differences, key.name("sign flip")) };
        let (teacher, student) = (self.teacher.iter().sum::<f64>() / n, self.student.iter().sum::<f64>() / n);
        // Not empty, so the interval is there.
        let interval = |values: &[f64], name: &str| ci95(values, key.name(name)).unwrap_or([0.0; 2]);
        let measurable = interval(&self.teacher, "teacher")[0] > 0.0;
        // Under the key of the difference: on the same resamples its interval holds 1 where that of the difference holds 0.
        let ratio = |picks: &[usize]| {
            let (s, t) = picks.iter().fold((0.0, 0.0), |(s, t), i| (s + self.student[*i], t + self.teacher[*i]));
            s / t
        };
        Comparison {
            both: cell(|t, s| t * s),
            teacher_only,
            student_only,
            neither: cell(|t, s| (1.0 - t) * (1.0 - s)),
            p_value,
            difference: student - teacher,
            difference_ci95: interval(&differences, "paired"),
            recovery: measurable.then(|| student / teacher),
            ci95: measurable.then(|| bootstrap(self.teacher.len(), key.name("paired"), ratio)).flatten(),
        }
    }
}

/// Exact two-sided McNemar test on the discordant counts: twice the lower tail of Binomial(b + c, 1/2), at most 1.
fn mcnemar(b: u64, c: u64) -> f64 {
    let n = b + c;
    // In logarithms: 2^-n underflows beyond n = 1074. The term of i + 1 is the one of i times (n - i) / (i + 1).
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for i in 0..=b.min(c) {
        tail += term.exp();
        term += ((n - i) as f64 / (i + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// Two-sided permutation test of a mean difference of 0 between pairs: under it each difference is as likely with the other sign.
///
/// All flips where few differences are not 0, else a keyed sample that counts the observed one, so that p is never 0.
fn sign_flip(differences: &[f64], key: Key) -> f64 {
    let moved: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let extreme = moved.iter().sum::<f64>().abs() - 1e-9; // sums of the same numbers in another order differ in their last bits
    if moved.len() <= EXACT_FLIPS {
        let flips = 1u32 << moved.len();
        let sum = |flip: u32| moved.iter().enumerate().map(|(i, d)| if flip >> i & 1 == 1 { -d } else { *d }).sum::<f64>();
        return f64::from((0..flips).filter(|flip| sum(*flip).abs() >= extreme).count() as u32) / f64::from(flips);
    }
    let mut draw = key.stream();
    let mut flipped = || {
        let signs = moved.chunks(32).map(|chunk| {
            let bits = draw.word();
            chunk.iter().enumerate().map(|(i, d)| if bits >> i & 1 == 1 { -d } else { *d }).sum::<f64>()
        });
        signs.sum::<f64>().abs() >= extreme
    };
    (1 + (0..FLIPS).filter(|_| flipped()).count()) as f64 / (1 + FLIPS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    /// 1 - C(n-c, k) / C(n, k) in whole numbers.
    fn pass_by_counting(n: u32, c: u32, k: u32) -> f64 {
        let choose = |n: u32, k: u32| if k > n { 0 } else { (0..k).fold(1u128, |acc, i| acc * u128::from(n - i) / u128::from(i + 1)) };
        1.0 - choose(n - c, k) as f64 / choose(n, k) as f64
    }

    #[test]
    fn pass_at_k_is_the_unbiased_estimator() {
        for (n, c, k, expected) in [
            (4, 1, 1, Some(0.25)),
            (4, 1, 2, Some(0.5)),
            (4, 2, 2, Some(5.0 / 6.0)),
            (4, 3, 2, Some(1.0)),
            (4, 0, 4, Some(0.0)),
            (4, 1, 5, None),
            (4, 1, 0, None),
            (0, 0, 1, None),
        ] {
            let got = Outcome { attempts: n, correct: c }.pass_at(k);
            assert!(got.zip(expected).map_or(got == expected, |(a, b)| near(a, b)), "{n} {c} {k}: {got:?}");
        }
        for n in 1..=24 {
            for (c, k) in (0..=n).flat_map(|c| (1..=n).map(move |k| (c, k))) {
                let got = Outcome { attempts: n, correct: c }.pass_at(k).unwrap();
                assert!(near(got, pass_by_counting(n, c, k)), "{n} {c} {k}: {got}");
                assert!(k > 1 || near(got, Outcome { attempts: n, correct: c }.rate()));
            }
        }
        assert!((Outcome { attempts: 100_000, correct: 1 }.pass_at(50_000).unwrap() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_majority_counts_answers_and_shares_ties() {
        let vote = |text: &str| -> Vec<(Option<String>, bool)> {
            text.split_whitespace()
                .map(|vote| (Some(vote.trim_end_matches('+').to_owned()).filter(|v| v != "-"), vote.ends_with('+')))
                .collect()
        };
        for (votes, expected) in [
            ("7+ 7+ 3", 1.0),
            ("7+ 3 3", 0.0),
            ("7+ 3", 0.5),
            ("7+ 3 4", 1.0 / 3.0),
            ("7+ 7+ 3 3 4", 0.5),
            ("- - - 7+", 1.0),
            ("- -", 0.0),
            ("", 0.0),
            ("7+ 7 7+ 3", 2.0 / 3.0),
        ] {
            assert!(near(majority(vote(votes)), expected), "{votes}: {}", majority(vote(votes)));
        }
    }

    #[test]
    fn undecided_attempts_do_not_vote() {
        use crate::trace::{Reason, Verdict};
        let group = |verdicts: &[Verdict]| {
            let mut traces: Vec<Trace> = (0..).map(|a| crate::shard::samples::entry(1, a).trace).take(verdicts.len()).collect();
            traces.iter_mut().zip(verdicts).for_each(|(trace, verdict)| trace.verdict = Some(verdict.clone()));
            Group { problem: ProblemId("p/1".into()), traces }
        };
        let (right, undecided) = (Verdict::Correct { answer: "1".into() }, Verdict::Undecided { reason: Reason::rule("no_rule") });
        assert!(near(maj_at_n(&group(&[undecided.clone(), undecided.clone(), right])), 1.0));
        assert!(near(maj_at_n(&group(&[undecided.clone(), undecided])), 0.0));
    }

    #[test]
    fn answers_that_mean_the_same_vote_together() {
        use crate::trace::{Reason, Verdict};
        let wrong = |answer: &str| Verdict::Wrong { answer: answer.into(), reason: Reason::rule("different_value") };
        let right = |answer: &str| Verdict::Correct { answer: answer.into() };
        let check = |verdicts: &[Verdict], expected: f64| {
            let mut traces: Vec<Trace> = (0..).map(|a| crate::shard::samples::entry(1, a).trace).take(verdicts.len()).collect();
            traces.iter_mut().zip(verdicts).for_each(|(trace, verdict)| (trace.verdict, trace.answer) = (Some(verdict.clone()), None));
            let found = maj_at_n(&Group { problem: ProblemId("p/1".into()), traces });
            assert!(near(found, expected), "{verdicts:?}: {found}");
        };
        check(&[wrong("1/2"), wrong("0.5"), right("1")], 0.0);
        check(&[wrong("1/2"), wrong("0.5"), right("1"), right("1.0"), right(r"\frac22")], 1.0);
        check(&[wrong("1/2"), wrong("3"), right("1"), right("1.0")], 1.0);
        check(&[wrong("1/2"), right("1.0")], 0.5);
    }

    #[test]
    fn moments_are_those_of_the_sample() {
        assert_eq!((mean(&[]), mean(&[1.0, 2.0, 6.0])), (None, Some(3.0)));
        assert_eq!((sample_std(&[1.0]), sample_std(&[1.0, 2.0, 6.0])), (None, Some(7.0f64.sqrt())));
        assert_eq!((quantile(&[], 0.5), quantile(&[1.0, 2.0, 4.0], 0.75)), (None, Some(3.0)));
    }

    /// Closed forms of 2 * sum C(n, i) / 2^n; (5, 15) and (6, 16) worked out in whole numbers: 2 * 21700 / 2^20, 2 * 110056 / 2^22.
    #[test]
    fn mcnemar_is_the_exact_binomial_tail() {
        for (b, c, expected) in [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (0, 5, 0.0625),
            (1, 5, 14.0 / 64.0),
            (3, 3, 1.0),
            (5, 15, 43400.0 / 1048576.0),
            (16, 6, 220112.0 / 4194304.0),
        ] {
            assert!(near(mcnemar(b, c), expected) && near(mcnemar(c, b), expected), "{b} {c}: {} {expected}", mcnemar(b, c));
        }
        let p = mcnemar(5_000, 5_200); // the normal approximation with continuity correction: z = 199 / sqrt(10200), p = 0.0488
        assert!((p - 0.0488).abs() < 2e-4, "{p}");
    }

    #[test]
    fn sign_flips_are_counted_out_where_they_are_few() {
        let key = Key::new(1, "test");
        for (differences, expected) in [
            (vec![], 1.0),
            (vec![0.0, 0.0], 1.0),
            (vec![0.5; 3], 0.25),
            (vec![0.5, 0.5, 0.0, -0.5], 1.0),
            (vec![0.1, 0.2, 0.3, -0.1], 0.375),
            (vec![1.0; 12], 2.0 / 4096.0),
        ] {
            assert!(near(sign_flip(&differences, key), expected), "{differences:?}: {}", sign_flip(&differences, key));
        }
        // With differences of one size the test is McNemar's, so the sampled p has a closed form to be near to.
        let differences = [vec![0.5; 15], vec![-0.5; 5]].concat();
        assert!((sign_flip(&differences, key) - mcnemar(5, 15)).abs() < 0.006, "{}", sign_flip(&differences, key));
        assert_eq!(sign_flip(&vec![1.0; 60], key), 1.0 / 10_001.0);
    }

    fn outcomes(rows: &[(u32, u32)]) -> BTreeMap<ProblemId, Outcome> {
        rows.iter()
            .zip(0..)
            .map(|((attempts, correct), i)| (ProblemId(format!("p/{i}")), Outcome { attempts: *attempts, correct: *correct }))
            .collect()
    }

    #[test]
    fn single_attempts_give_whole_cells_and_mcnemar() {
        // 20 both, 15 teacher only, 5 student only, 10 neither
        let table = [((1, 1), (1, 1), 20), ((1, 1), (1, 0), 15), ((1, 0), (1, 1), 5), ((1, 0), (1, 0), 10)];
        let (t, s): (Vec<_>, Vec<_>) = table.iter().flat_map(|(t, s, n)| vec![(*t, *s); *n]).unzip();
        let got = compare(&outcomes(&t), &outcomes(&s), Key::new(1, "test")).unwrap();
        assert_eq!((got.both, got.teacher_only, got.student_only, got.neither), (20.0, 15.0, 5.0, 10.0));
        assert!(near(got.p_value, mcnemar(15, 5)) && near(got.difference, -0.2));
        assert!(near(got.recovery.unwrap(), 25.0 / 35.0));
        // The difference has variance (0.3 + 0.1 - 0.04) / 50, so its interval is about -0.2 -+ 1.96 * 0.085.
        let [low, high] = got.difference_ci95;
        assert!((low + 0.366).abs() < 0.03 && (high + 0.034).abs() < 0.03, "{low} {high}");
        // Delta method for the ratio: standard error 0.1076.
        let [low, high] = got.ci95.unwrap();
        assert!((low - 0.503).abs() < 0.05 && (high - 0.925).abs() < 0.05, "{low} {high}");
        assert_eq!(got, compare(&outcomes(&t), &outcomes(&s), Key::new(1, "test")).unwrap(), "the same key gives the same report");
    }

    #[test]
    fn many_attempts_give_expected_cells_and_permutations() {
        let got = compare(&outcomes(&[(4, 4), (4, 2), (4, 3)]), &outcomes(&[(2, 1), (2, 1), (2, 0)]), Key::new(1, "test")).unwrap();
        // both 1/2 + 1/4 + 0; teacher only 1/2 + 1/4 + 3/4; student only 0 + 1/4 + 0; neither 0 + 1/4 + 1/4
        assert_eq!((got.both, got.teacher_only, got.student_only, got.neither), (0.75, 1.5, 0.25, 0.5));
        assert!(near(got.p_value, 0.5), "differences -1/2, 0, -3/4: 2 of 4 flips are as far out");
        assert!(near(got.recovery.unwrap(), 1.0 / 2.25));
    }

    #[test]
    fn recovery_is_null_where_the_teacher_may_be_at_0() {
        let weak: Vec<_> = (0..30).map(|i| (1, u32::from(i == 0))).collect();
        let got = compare(&outcomes(&weak), &outcomes(&[(1, 1); 30]), Key::new(1, "test")).unwrap();
        assert_eq!((got.recovery, got.ci95), (None, None));
        assert!(serde_json::to_string(&got).unwrap().contains(r#""recovery":null,"ci95":null"#));
        let equal = compare(&outcomes(&[(1, 1); 5]), &outcomes(&[(1, 1); 5]), Key::new(1, "test")).unwrap();
        assert_eq!((equal.recovery, equal.ci95, equal.p_value), (Some(1.0), Some([1.0, 1.0]), 1.0));
    }

    #[test]
    fn only_the_same_problems_are_compared() {
        let key = Key::new(1, "test");
        for (t, s, message) in [
            (&[(1, 1)][..], &[(1, 1), (1, 0)][..], "teacher has 1, student 2, and p/1 only one"),
            (&[(0, 0)], &[(1, 1)], "at least one attempt at every problem"),
            (&[(1, 2)], &[(1, 1)], "no more correct ones than attempts: see p/0"),
            (&[], &[], "at least one problem"),
        ] {
            let error = compare(&outcomes(t), &outcomes(s), key).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    /// 400 data sets of 100 problems with rate 0.6: the interval holds the rate in about 94 % of them (binomial standard error 1.2 %).
    #[test]
    fn the_interval_covers_the_rate_as_often_as_it_says() {
        let root = Key::new(5, "coverage");
        let covered = (0..400).filter(|i| {
            let mut draw = root.number(*i).stream();
            let values: Vec<f64> = (0..100).map(|_| f64::from(draw.chance(0.6))).collect();
            let [low, high] = ci95(&values, root.number(*i)).unwrap();
            low <= 0.6 && 0.6 <= high
        });
        let covered = covered.count();
        assert!((362..=391).contains(&covered), "{covered} of 400");
    }

    #[test]
    fn an_interval_of_one_value_has_no_width() {
        let key = Key::new(1, "test");
        assert_eq!((ci95(&[], key), ci95(&[0.5; 7], key)), (None, Some([0.5, 0.5])));
        // 5 of 5 and 0 of 5 leave a rate of 48 % and of 52 % possible: 0.4782 = 0.025^(1/5).
        let [low, high] = share_ci95(&[0.0; 5], key).unwrap();
        assert!(low == 0.0 && (high - 0.5218).abs() < 1e-4, "{high}");
        let [low, high] = share_ci95(&[1.0; 5], key).unwrap();
        assert!(high == 1.0 && (low - 0.4782).abs() < 1e-4, "{low}");
        assert_eq!((share_ci95(&[], key), share_ci95(&[0.0, 1.0], key)), (None, ci95(&[0.0, 1.0], key)));
    }
}
