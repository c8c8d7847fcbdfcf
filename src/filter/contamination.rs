//! Whether a text holds an evaluation problem: runs of 13 words, and how much of the problem runs of 8 words cover.
//!
//! A text is contaminated by an evaluation problem where they share 13 words in a row, or where the runs of 8 words that they share cover at least half of the problem's
//! words and no fewer than 13 of them (all of a shorter problem): "Find the number of positive integers n" alone is half of many a short problem. A problem of fewer than 8 words is too common to be looked for inside a text: there the whole text must be the problem, case, white space and punctuation aside.
//! Sources: 13 words, Brown et al., "Language models are few-shot learners" (2020), appendix C; 8 words and half, Lambert et al., "Tülu 3" (2024), section 3.2.

use super::shingles::{Hasher, mix};
use super::spaced::{self, BLOCK, Spaced};
use crate::key::Key;
use crate::trace::Reason;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher as StdHasher};

/// Words of a run that alone is proof.
pub const LONG: usize = 13;
/// Words of a run that counts for coverage.
pub const SHORT: usize = 8;
/// Share of a problem's words that shared runs of `SHORT` words may cover.
pub const COVERAGE: f64 = 0.5;
/// Problems that a run may stand in: what stands in more is a phrase of the task and tells none of them apart. A problem that is there twice counts once.
const MOST_ITEMS: usize = 2;
/// Words of a text that one run is quoted with.
const QUOTED: usize = 160;

/// Evaluation problems, indexed by their runs of words.
#[derive(Clone, Debug)]
pub struct Evaluations {
    hasher: Hasher,
    /// Of the words.
    key: u64,
    items: Vec<Item>,
    short: Index,
    long: Index,
    /// Problems of fewer than `SHORT` words, by all that is not layout.
    whole: Map<u32>,
    /// Runs of `SHORT` words by another hash: most texts hold none of them, and need no second look.
    runs: HashSet<u64, BuildHasherDefault<Mixed>>,
    /// Two bits for each of these: most runs of a text are passed over by one look.
    seen: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Item {
    name: String,
    words: usize,
}

/// Places by run: problem and number of its first word.
type Index = Map<Vec<(u32, u32)>>;
type Map<T> = HashMap<u64, T, BuildHasherDefault<Mixed>>;

/// The hash of a number that is one already.
#[derive(Clone, Copy, Debug, Default)]
struct Mixed(u64);

impl StdHasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// How a text is contaminated.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Name of the evaluation problem, such as `aime24/0`.
    pub item: String,
    /// Words of the longest kind of run that is shared: 13, 8, or all of a short problem.
    pub run: usize,
    /// The first such run as the text has it.
    pub text: String,
    /// Share of the problem's words inside shared runs.
    pub coverage: f64,
    /// Byte range of that run in the text.
    pub span: (usize, usize),
}

impl Hit {
    /// The reason for which a text is dropped; `place` says which text it is.
    pub fn reason(&self, place: &str) -> Reason {
        let value = format!(
            "{} in the {place}: {} words in a row ({:?}), {:.0} % of it covered",
            self.item,
            self.run,
            self.text,
            100.0 * self.coverage
        );
        let threshold = format!("fewer than {LONG} words in a row, less than {:.0} % covered by runs of {SHORT}", 100.0 * COVERAGE);
        Reason { span: (place == "response").then_some(self.span), ..Reason::measured("decontaminate", value, threshold) }
    }
}

/// 128 KiB, which stay in the cache of a core: beside 60,000 runs, every 70th foreign one is looked at again.
const SEEN_WORDS_LOG2: u32 = 14;

/// The two bits of a run, in one word of `seen`.
fn seen_at(run: u64) -> (usize, u64) {
    ((run >> (64 - SEEN_WORDS_LOG2)) as usize, 1 << (run & 63) | 1 << (run >> 6 & 63))
}

/// Runs of `SHORT` words of a text whose words come some at a time, at most `BLOCK`.
struct Runs {
    /// The last words that came, and those that come now.
    words: [u64; SHORT - 1 + BLOCK],
    held: usize,
    runs: [u64; SHORT - 1 + BLOCK],
}

impl Runs {
    fn new() -> Self {
        Self { words: [0; SHORT - 1 + BLOCK], held: 0, runs: [0; SHORT - 1 + BLOCK] }
    }

    /// The runs that end with each of these words: sums of pairs, of pairs of pairs, and of these, each rotated by another number of bits. No sum waits for that before it,
    /// as in a rolling hash.
    fn push(&mut self, words: &[u64]) -> &[u64] {
        let all = self.held + words.len();
        self.words[self.held..all].copy_from_slice(words);
        let runs = &mut self.runs[..all];
        runs.copy_from_slice(&self.words[..all]);
        let mut left = all;
        for (reach, bits) in [(1, 13), (2, 29), (4, 41)] {
            left = left.saturating_sub(reach);
            for i in 0..left {
                runs[i] = runs[i].wrapping_add(runs[i + reach].rotate_left(bits));
            }
        }
        self.held = all.min(SHORT - 1);
        self.words.copy_within(all - self.held..all, 0);
        &self.runs[..left]
    }
}

impl Evaluations {
    /// Indexes problems, each with its name.
    pub fn new(problems: impl IntoIterator<Item = (String, String)>) -> Self {
        let of = Key::new(0, "contamination");
        let (hasher, [high, low, ..]) = (Hasher::new(of.name("runs")), of.block(0, 0));
        let key = u64::from(high) << 32 | u64::from(low);
        let mut all = Self {
            hasher,
            key,
            items: Vec::new(),
            short: Map::default(),
            long: Map::default(),
            whole: Map::default(),
            runs: HashSet::default(),
            seen: vec![0; 1 << SEEN_WORDS_LOG2],
        };
        let mut known = HashSet::new();
        for (name, question) in problems {
            if !known.insert(whole(&question)) {
                continue;
            }
            let words = Spaced::of(&question, key).hashes;
            let item = all.items.len() as u32;
            if !words.is_empty() && words.len() < SHORT {
                all.whole.entry(whole(&question)).or_insert(item);
            }
            let mut runs = Runs::new();
            for run in words.chunks(BLOCK).flat_map(|some| runs.push(some).to_vec()) {
                let (word, bits) = seen_at(run);
                all.seen[word] |= bits;
                all.runs.insert(run);
            }
            for n in [SHORT, LONG].into_iter().filter(|n| words.len() >= *n) {
                for (at, run) in hasher.runs(&words, n).into_iter().enumerate() {
                    let index = if n == LONG { &mut all.long } else { &mut all.short };
                    let places = index.entry(run).or_default();
                    // One place more than may be says that there are too many.
                    if places.len() <= MOST_ITEMS && places.last().is_none_or(|(last, _)| *last != item) {
                        places.push((item, at as u32));
                    }
                }
            }
            all.items.push(Item { name, words: words.len() });
        }
        for index in [&mut all.short, &mut all.long] {
            index.retain(|_, places| places.len() <= MOST_ITEMS);
        }
        all
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The evaluation problem that `text` holds most of, if any; of equal ones the first.
    pub fn find(&self, text: &str) -> Option<Hit> {
        if self.may_hold(text) { self.look_for(text) } else { None }
    }

    /// False for nearly every text that shares no run of `SHORT` words with a problem, and is not a short problem as a whole.
    fn may_hold(&self, text: &str) -> bool {
        let (mut runs, mut found, mut words) = (Runs::new(), false, 0);
        spaced::each::<false>(text, self.key, |some, _| {
            words += some.len();
            let runs = runs.push(some);
            let any = runs.iter().fold(false, |any, run| any | self.is_seen(*run));
            found |= any && runs.iter().any(|run| self.is_seen(*run) && self.runs.contains(run));
        });
        found || words < SHORT && !self.whole.is_empty()
    }

    fn is_seen(&self, run: u64) -> bool {
        let (word, bits) = seen_at(run);
        self.seen[word] & bits == bits
    }

    fn look_for(&self, text: &str) -> Option<Hit> {
        let words = Spaced::of(text, self.key);
        if words.hashes.is_empty() {
            return None;
        }
        if words.hashes.len() < SHORT {
            let item = *self.whole.get(&whole(text))?;
            let all = 0..words.hashes.len();
            return Some(self.hit(item, all, 1.0, text, &words));
        }
        // By problem: which of its words are covered, the first shared run of either length.
        let mut covered: HashMap<u32, Shared> = HashMap::new();
        for (n, index) in [(SHORT, &self.short), (LONG, &self.long)] {
            if index.is_empty() || words.hashes.len() < n {
                continue;
            }
            for (at, run) in self.hasher.runs(&words.hashes, n).into_iter().enumerate() {
                for (item, place) in index.get(&run).into_iter().flatten() {
                    let shared = covered.entry(*item).or_insert_with(|| Shared::new(self.items[*item as usize].words));
                    shared.words[*place as usize..*place as usize + n].fill(true);
                    let first = if n == LONG { &mut shared.long } else { &mut shared.short };
                    first.get_or_insert(at);
                }
            }
        }
        let hits = covered.into_iter().filter(|(_, shared)| shared.is_contamination());
        let (item, shared) = hits.max_by(|(a, x), (b, y)| x.coverage().total_cmp(&y.coverage()).then(b.cmp(a)))?;
        let (first, n) = shared.long.map_or((shared.short.unwrap_or(0), SHORT), |first| (first, LONG));
        Some(self.hit(item, first..first + n, shared.coverage(), text, &words))
    }

    fn hit(&self, item: u32, run: std::ops::Range<usize>, coverage: f64, text: &str, words: &Spaced) -> Hit {
        let length = run.len();
        let place = words.place(text, run);
        let quoted = text[place.clone()].chars().take(QUOTED).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Hit { item: self.items[item as usize].name.clone(), run: length, text: quoted, coverage, span: (place.start, place.end) }
    }
}

/// A short text by its letters, digits and signs, parentheses and all: `2+1*3` is not `(2+1)*3`.
fn whole(text: &str) -> u64 {
    let counts = text.chars().filter(|c| !c.is_whitespace() && !"$.,:;?!".contains(*c)).flat_map(char::to_lowercase);
    counts.fold(1, |hash, c| mix(hash ^ u64::from(c).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

struct Shared {
    words: Vec<bool>,
    short: Option<usize>,
    long: Option<usize>,
}

impl Shared {
    fn new(words: usize) -> Self {
        Self { words: vec![false; words], short: None, long: None }
    }

    fn covered(&self) -> usize {
        self.words.iter().filter(|covered| **covered).count()
    }

    fn coverage(&self) -> f64 {
        self.covered() as f64 / self.words.len() as f64
    }

    fn is_contamination(&self) -> bool {
        self.long.is_some() || self.coverage() >= COVERAGE && self.covered() >= LONG.min(self.words.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JARS: &str = "A shop sells marbles in three jars. The red jar holds twice as many marbles as the blue jar, and the green jar holds five marbles fewer than \
                        the red one. If there are 95 marbles in all, how many marbles does the blue jar hold?";
    const DIVISORS: &str = "Find the number of positive integers n less than 2024 such that n has exactly six divisors.";
    const SHORT_ONE: &str = "Compute $3^7 mod 11$.";

    #[test]
    fn what_shares_long_runs_is_found_and_what_shares_a_phrase_is_not() {
        let items = [("e/0", JARS), ("e/1", DIVISORS), ("e/2", SHORT_ONE), ("e/3", "")];
        let evaluations = Evaluations::new(items.map(|(name, text)| (name.into(), text.to_owned())));
        let rows: [(&str, Option<(&str, usize)>); 12] = [
            (JARS, Some(("e/0", 13))),
            // Layout, case and punctuation make no difference.
            (
                "a SHOP sells marbles\nin three jars: **the** red jar holds twice as many marbles as the blue jar and so on",
                Some(("e/0", 13)),
            ),
            // A paraphrase that keeps 13 words, and one that keeps none of 8.
            (
                "In our town, the green jar holds five marbles fewer than the red one; if there are 95 marbles in all, guess.",
                Some(("e/0", 13)),
            ),
            ("Red jar: twice the blue one. Green jar: five fewer than red. Together 95. What is in blue?", None),
            // A common phrase of 8 words is a part of the task's language.
            ("Find the number of positive integers n less than 50 that are primes and leave remainder one.", None),
            // Runs of 12 and 11 words that cover half of it.
            (
                "In it the red jar holds twice as many marbles as the blue jar. But the green jar holds five marbles fewer than the red one. Hm.",
                Some(("e/0", 8)),
            ),
            ("In it the red jar holds twice as many marbles as the blue jar. But the green jar is empty.", None),
            // A short problem is found as a whole only.
            ("Compute 3^7 mod 11", Some(("e/2", 4))),
            ("We compute 3^7 mod 11 now, and then go on to do something else with it.", None),
            ("", None),
            ("Compute 3^7 mod 12", None),
            ("Compute (3^7) mod 11", None),
        ];
        for (text, expected) in rows {
            let found = evaluations.find(text);
            assert_eq!(found.as_ref().map(|hit| (hit.item.as_str(), hit.run)), expected, "{text:?}: {found:?}");
        }
        let text = format!("I know this one: {JARS}");
        let hit = evaluations.find(&text).expect("the same");
        assert_eq!(&text[hit.span.0..hit.span.1], "A shop sells marbles in three jars. The red jar holds twice as");
        assert_eq!((hit.coverage, hit.text.len()), (1.0, hit.span.1 - hit.span.0));
        assert!(hit.reason("response").to_string().starts_with("decontaminate (e/0 in the response: 13 words in a row (\"A shop"));
    }

    #[test]
    fn a_phrase_of_the_task_is_no_contamination_and_a_problem_that_is_named_twice_still_is() {
        let close = "where m and n are relatively prime positive integers, and then find the sum m + n.";
        let problems = ["seven red doors", "a tower of nine cubes", "eleven green frogs on a log"]
            .map(|what| format!("Count the ways to paint {what}; it is {close}"));
        let twice = problems.iter().chain(&problems).enumerate().map(|(i, text)| (format!("e/{i}"), text.clone()));
        let evaluations = Evaluations::new(twice);
        assert_eq!(evaluations.find(&format!("A quite different question about rivers, {close}")), None);
        assert_eq!(evaluations.find(&problems[1]).map(|hit| hit.item), Some("e/1".to_owned()));
    }

    #[test]
    fn no_text_makes_it_panic() {
        let evaluations = Evaluations::new([("e".to_owned(), JARS.to_owned())]);
        for text in ["a ".repeat(100_000), "数".repeat(1000), "\u{301}".repeat(99), JARS.repeat(50)] {
            evaluations.find(&text);
        }
        assert!(Evaluations::new([]).find(JARS).is_none());
    }
}
