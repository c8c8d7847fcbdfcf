//! `report.md`: a view of the report for people, section by section; a section without content is left out.

use super::curves::Curve;
use super::examples::Example;
use super::figures;
use super::judged;
use super::limits;
use super::read::{Evaluation, Model, Phase, Sample};
use super::text::{self, count, duration, p_value, share, thousands, three_digits};
use super::{ComparisonRow, Report};
use crate::filter::BUCKETS;
use serde_json::Value;
use std::cmp::Ordering;
use std::fmt::Write;

/// Characters of a response that are shown.
const SHOWN: usize = 2_000;

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let sections = [
        ("Result", result(report)),
        ("How it was made", setup(report)),
        ("Evaluation", evaluation(report)),
        ("Paired comparisons", comparison(report)),
        ("Tasks that were not trained on", forgetting(report)),
        ("What the numbers do not say", limits::of(report).iter().map(|point| format!("- {point}\n")).collect()),
        ("From attempts to the corpus", funnel(report)),
        ("A model as judge", judged::markdown(report.judge.as_ref())),
        ("One kept and one dropped trace", examples(report)),
        ("Training", training(report)),
        ("Stages", stages(report)),
    ];
    let mut out = format!("# {}: report\n", plain(&report.recipe));
    for (title, text) in sections.into_iter().filter(|(_, text)| !text.is_empty()) {
        out += &format!("\n## {title}\n\n{}\n", text.trim_end());
    }
    out
}

fn result(report: &Report) -> String {
    let mut out = String::new();
    for task in report.tasks() {
        let rows = ["sampled", "greedy"].map(|metric| report.headline(task, metric));
        let Some(first) = rows.into_iter().flatten().next() else { continue };
        writes(&mut out, format_args!("**{}**: {} against its teacher, on the same problems.\n\n", code(task), code(&first.student)));
        for row in rows.into_iter().flatten() {
            let rates = [&row.student, &row.teacher].map(|model| rate_of(report, row, model));
            writes(&mut out, format_args!("- {}: {} against {}, {}.\n", row.metric, rates[0], rates[1], recovery_in_words(row)));
        }
        out.push('\n');
    }
    out
}

fn rate_of(report: &Report, row: &ComparisonRow, model: &str) -> String {
    let found = report.evaluation.iter().find(|e| e.task == row.task && e.model == model);
    found.map_or("?".into(), |e| if row.metric == "greedy" { text::rate(e.greedy, e.greedy_ci95) } else { text::rate(e.pass_at_1, e.ci95) })
}

fn recovery_in_words(row: &ComparisonRow) -> String {
    let verdict = match row.shown() {
        Some(Ordering::Greater) => "above it",
        Some(_) => "below it",
        None => "a difference is not shown",
    };
    match row.recovery.zip(row.ci95) {
        Some((recovery, ci95)) => format!("a recovery of {} ({verdict}, p {})", text::rate(recovery, ci95), equals(row.p_value)),
        None => format!("no recovery stated, as the teacher's interval touches 0 ({verdict}, p {})", equals(row.p_value)),
    }
}

fn equals(p: f64) -> String {
    let text = p_value(p);
    if text.starts_with('<') { text } else { format!("= {text}") }
}

fn setup(report: &Report) -> String {
    let setup = &report.setup;
    let model = |model: &Model| {
        let phases: Vec<String> = model.phases.iter().map(Phase::name).map(code).collect();
        let then = if phases.is_empty() { ", used as it is".into() } else { format!(", then {}", phases.join(", ")) };
        format!("{}{then}", code(model.name.as_ref().unwrap_or(&model.model)))
    };
    let mut out = format!("- recipe {}, seed {}, distill {}\n", code(&report.recipe), setup.seed, plain(&report.version));
    if let Some(from) = setup.problems.as_ref().and_then(|problems| problems.file.as_ref().or(problems.task.as_ref())) {
        writes(&mut out, format_args!("- problems: {}\n", code(from)));
    }
    for (who, who_is) in [("teacher", &setup.teacher), ("student", &setup.student)] {
        if let Some(who_is) = who_is {
            writes(&mut out, format_args!("- {who}: {}\n", model(who_is)));
        }
    }
    if let Some(Sample { problems, n, temperature }) = &setup.sample {
        let problems = if *problems == 0 { "every problem".into() } else { format!("each of {} problems", thousands(*problems)) };
        let at = temperature.map_or(String::new(), |t| format!(" at temperature {}", three_digits(t)));
        writes(&mut out, format_args!("- traces: {n} attempts at {problems}{at}\n"));
    }
    if let Some(planted) = &setup.cold_start {
        let traces = thousands(planted.traces as usize);
        writes(&mut out, format_args!("- cold start: {traces} traces made by rule and corrupted on purpose (see the limits below)\n"));
    }
    out + "- again: `distill run recipe.toml` with the `recipe.toml` beside this file, which holds every setting\n\n\
           All figures come from the files of this run directory. Intervals are 95 % bootstrap intervals over problems; for a share that is the same at every problem, 0 or 100 %, exact binomial ones.\n"
}

fn evaluation(report: &Report) -> String {
    let mut out = String::new();
    for task in report.tasks() {
        let rows = report.evaluations_of(task);
        let problems = rows.first().map_or(0, |e| e.problems);
        let n = rows.iter().map(|e| e.n).max().unwrap_or(1);
        let attempts = if n == 1 { "one sampled attempt each".into() } else { format!("{n} sampled attempts each") };
        writes(&mut out, format_args!("### {}: {} problems, {attempts} and one greedy\n\n", plain(task), thousands(problems)));
        out += &evaluation_table(&rows, n);
        out += &published(task, problems);
    }
    out
}

fn evaluation_table(rows: &[&Evaluation], n: u32) -> String {
    let mut ks: Vec<u32> = rows.iter().flat_map(|e| e.pass_at_k.keys().copied()).filter(|k| *k > 1).collect();
    ks.sort_unstable();
    ks.dedup();
    let mut header = vec!["model".to_owned(), "sampled pass@1".into(), "greedy".into()];
    if n > 1 {
        header.push(format!("maj@{n}"));
        header.extend(ks.iter().map(|k| format!("pass@{k}")));
    }
    header.extend(["tokens", "truncated", "no answer", "undecided", "in language"].map(str::to_owned));
    let body = rows.iter().map(|e| {
        let maybe = |value: Option<f64>, ci95: Option<[f64; 2]>| match (value, ci95) {
            (Some(value), Some(ci95)) => text::rate(value, ci95),
            (Some(value), None) => share(value, e.problems),
            (None, _) => "-".into(),
        };
        let of_attempts = |value: f64| share(value, e.problems * e.n.max(1) as usize);
        let mut cells = vec![code(&e.model), text::rate(e.pass_at_1, e.ci95), text::rate(e.greedy, e.greedy_ci95)];
        if n > 1 {
            cells.push(maybe(e.maj_at_n, e.maj_at_n_ci95));
            cells.extend(ks.iter().map(|k| maybe(e.pass_at_k.get(k).copied(), e.pass_at_k_ci95.get(k).copied())));
        }
        cells.push(three_digits(e.mean_tokens));
        cells.extend([e.truncated, e.no_answer, e.undecided, e.language_share].map(of_attempts));
        cells
    });
    table("lr", &header, body)
}

fn published(task: &str, problems: usize) -> String {
    let figures = figures::of(task);
    if figures.is_empty() {
        return String::new();
    }
    let header = ["model", "metric", "published", "source"].map(str::to_owned);
    let rows = figures.iter().map(|f| vec![plain(&f.model), plain(&f.metric), f.value.to_string(), plain(&f.source)]);
    format!(
        "<details><summary>{} published figures for {}, in percent; none was measured here</summary>\n\n\
         They are of the whole benchmark under each source's own prompt, sampling and grader; the table above is of {} problems.\n\n{}\
         </details>\n\n",
        figures.len(),
        plain(task),
        thousands(problems),
        table("llrl", &header, rows)
    )
}

fn comparison(report: &Report) -> String {
    if report.comparison.is_empty() {
        return String::new();
    }
    let header =
        ["task", "first → second", "by", "difference in points", "second / first", "both", "first only", "second only", "neither", "p"];
    let rows = report.comparison.iter().map(|row| {
        let mut cells = vec![plain(&row.task), format!("{} → {}", code(&row.teacher), code(&row.student)), row.metric.clone()];
        cells.push(text::difference(row.difference, row.difference_ci95));
        cells.push(row.recovery.zip(row.ci95).map_or("-".into(), |(value, ci95)| text::rate(value, ci95)));
        cells.extend([row.both, row.teacher_only, row.student_only, row.neither].map(count));
        cells.push(p_value(row.p_value));
        cells
    });
    let mut out = table("lllr", &header.map(str::to_owned), rows);
    out += "Each row pairs two models on the same problems. Second / first is the recovery where the first is the teacher; it is not stated where the \
            first one's interval touches 0. p is two-sided: exact McNemar with one attempt each, else a sign-flip permutation over problems";
    if report.evaluation.iter().any(|e| e.n > 1) {
        out += "; with several attempts the four counts are expected ones";
    }
    out + ".\n"
}

fn forgetting(report: &Report) -> String {
    if report.forgetting.is_empty() {
        return String::new();
    }
    let header = ["task", "before → after", "before", "after", "difference in points", "finding"].map(str::to_owned);
    let rows = report.forgetting.iter().map(|row| {
        let mut cells = vec![plain(&row.task), format!("{} → {}", code(&row.before), code(&row.after))];
        cells.extend([row.rate_before, row.rate_after].map(|rate| format!("{:.1} %", 100.0 * rate)));
        cells.extend([text::difference(row.difference, row.difference_ci95), row.finding.in_words(report.max_drop).to_owned()]);
        cells
    });
    let gate = report.max_drop.map_or("The recipe sets no gate (`evaluate.max_drop`).".to_owned(), |drop| {
        format!("The recipe allows a drop of {} points (`evaluate.max_drop`).", 100.0 * drop)
    });
    table("llrrrl", &header, rows)
        + "Sampled attempts at the same problems before and after training. A loss is shown where the whole interval lies below what is allowed. "
        + &gate
        + "\n"
}

fn funnel(report: &Report) -> String {
    let mut before = None;
    let rows: Vec<Vec<String>> = report
        .funnel
        .iter()
        .map(|step| {
            let dropped = before.map_or("-".into(), |before: usize| thousands(before.saturating_sub(step.count)));
            before = Some(step.count);
            let first = report.funnel.first().map_or(0, |first| first.count);
            let left = if first == 0 { "-".into() } else { format!("{:.0} %", 100.0 * step.count as f64 / first as f64) };
            vec![code(&step.step), thousands(step.count), left, dropped]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    table("lr", &["step", "traces left", "of all", "dropped here"].map(str::to_owned), rows) + &by_pass_rate(report)
}

/// The funnel by the pass rate of the problems: whether only the easy ones are left.
fn by_pass_rate(report: &Report) -> String {
    if report.funnel.iter().all(|step| step.by_pass_rate.is_empty()) {
        return String::new();
    }
    let header: Vec<String> = std::iter::once("step").chain(BUCKETS).map(str::to_owned).collect();
    let rows =
        report.funnel.iter().map(|step| std::iter::once(code(&step.step)).chain(step.by_pass_rate.iter().map(|n| thousands(*n))).collect());
    format!("Traces left by the pass rate of their problem, over all attempts at it:\n\n{}", table("lr", &header, rows))
}

fn examples(report: &Report) -> String {
    let mut out = String::new();
    for (what, example) in [("Kept", &report.kept), ("Dropped", &report.dropped)] {
        let Some(example) = example else { continue };
        let why = example.reason.as_ref().map_or(String::new(), |reason| format!(", for {}", code(&text::reason(reason))));
        writes(
            &mut out,
            format_args!("{what}{why}: {} ({} tokens)\n\n{}\n", code(&example.id), example.completion_tokens, fenced(example)),
        );
    }
    out
}

/// The trace in a code block whose fence is longer than any in it.
fn fenced(example: &Example) -> String {
    let mut shown: String = example.response.chars().take(SHOWN).collect();
    if example.characters > SHOWN {
        writes(&mut shown, format_args!("\n… ({} characters in all)", thousands(example.characters)));
    }
    let text = text::harmless(&format!("{}\n\n{shown}\n\nreference: {}", example.question, example.gold));
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}\n")
}

fn training(report: &Report) -> String {
    let mut out = String::new();
    let names = report.curves.iter().map(|curve| text::width(&curve.stage)).max().unwrap_or(0);
    for curve in &report.curves {
        let Some(series) = curve.series.first() else { continue };
        let top = if series.measure == "accuracy" { 1.0 } else { series.windows.iter().copied().fold(0.0, f64::max) };
        let values: Vec<String> = series.windows.iter().map(|value| format!("{value:5.2}")).collect();
        let name = text::column(&text::harmless(&curve.stage), names);
        let line = text::sparkline(&series.windows, top);
        writes(
            &mut out,
            format_args!("{name}  {:>6} steps  {:<8}  {line:<8}  {}\n", thousands(curve.steps), series.measure, values.join(" ")),
        );
    }
    if out.is_empty() {
        return out;
    }
    let probes = probes(report);
    let reinforced: Vec<&Curve> = report.curves.iter().filter(|curve| curve.series("accuracy").is_some()).collect();
    let mut text =
        format!("Means over equal windows of steps; accuracy on the training problems as they were sampled.\n\n```text\n{out}```\n\n");
    if !reinforced.is_empty() {
        text += &reinforcement(&reinforced);
    }
    text + &probes
}

/// Share of a few held-out problems that were solved greedily as training went on.
fn probes(report: &Report) -> String {
    let with: Vec<_> = report.curves.iter().filter_map(|curve| Some((curve, curve.probes.as_ref()?))).collect();
    if with.is_empty() {
        return String::new();
    }
    let header = ["phase", "problems", "solved after so many steps"].map(str::to_owned);
    let rows = with.iter().map(|(curve, probes)| {
        let solved: Vec<String> = probes.steps.iter().zip(&probes.solved).map(|(step, n)| format!("{step}: {n}")).collect();
        vec![code(&curve.stage), probes.problems.to_string(), solved.join(", ")]
    });
    format!("\nHeld-out problems, answered greedily as training went on:\n\n{}", table("lrl", &header, rows))
}

/// First and last window of what a GRPO phase measures.
fn reinforcement(curves: &[&Curve]) -> String {
    let measures = [
        ("reward", "reward"),
        ("entropy", "entropy"),
        ("kl", "KL"),
        ("length", "tokens"),
        ("truncated", "truncated"),
        ("language", "in language"),
        ("without_spread", "groups without spread"),
        ("mismatch_mean", "trainer - sampler"),
    ];
    let header: Vec<String> = std::iter::once("first → last window").chain(measures.map(|(_, title)| title)).map(str::to_owned).collect();
    let rows = curves.iter().map(|curve| {
        let cells = measures.map(|(measure, _)| {
            let series = curve.series(measure).filter(|series| measure != "kl" || series.windows.iter().any(|kl| *kl != 0.0));
            let ends = series.and_then(|series| series.windows.first().zip(series.windows.last()));
            ends.map_or("-".into(), |(first, last)| format!("{} → {}", small(*first), small(*last)))
        });
        std::iter::once(code(&curve.stage)).chain(cells).collect()
    });
    table("lr", &header, rows)
        + "Trainer - sampler is the mean absolute difference of the two's log-probabilities of a sampled token; KL is - without a reference model.\n"
}

/// Two decimals, or the power of ten of what would round to nothing.
fn small(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.005 { format!("{value:.0e}") } else { format!("{value:.2}") }
}

fn stages(report: &Report) -> String {
    if report.stages.is_empty() {
        return String::new();
    }
    let rows = report.stages.iter().map(|stage| {
        let counts: Vec<String> = stage.counts.iter().map(|(name, value)| format!("{} {}", plain(name), number(value))).collect();
        vec![code(&stage.name), duration(stage.seconds), counts.join(", ")]
    });
    let total: f64 = report.stages.iter().map(|stage| stage.seconds).sum();
    let out = table("lrl", &["stage", "time", "counts"].map(str::to_owned), rows);
    format!("{out}{} in all, as measured on the machine that ran each stage.\n", duration(total))
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| plain(&value.to_string()), |n| thousands(n as usize))
}

/// A table; `align` has a letter per column, `l` or `r`, and its last one goes on.
fn table(align: &str, header: &[String], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> = align
        .chars()
        .chain(align.chars().last().into_iter().cycle())
        .take(header.len())
        .map(|c| if c == 'l' { "---".into() } else { "---:".into() })
        .collect();
    let body: String = rows.into_iter().map(|row| line(&row)).collect();
    format!("{}{}{body}\n", line(header), line(&rule))
}

/// Text in the run of a line or in a cell: one line, and no character that Markdown or HTML takes for its own.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text::harmless(text).chars() {
        match c {
            '\n' => out.push(' '),
            '<' => out += "&lt;",
            '|' | '`' | '*' | '\\' | '[' | ']' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// A name as code, in a cell or a line.
fn code(text: &str) -> String {
    format!("`{}`", text::harmless(text).replace('\n', " ").replace('`', "'").replace('|', "\\|"))
}

fn writes(out: &mut String, args: std::fmt::Arguments) {
    out.write_fmt(args).expect("writing to a string cannot fail");
}
