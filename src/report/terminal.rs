//! What `distill run` prints at its end: a picture of at most 100 columns, without colours.

use super::examples::Example;
use super::read::Evaluation;
use super::text::{self, column, fit, harmless, p_value, setting, thousands};
use super::{ComparisonRow, Report};
use std::cmp::Ordering;
use std::path::Path;

/// Columns of the whole picture.
const WIDTH: usize = 100;
/// Columns of a bar from 0 to 100 %: one per 2.5 points, and the last for 100 itself.
const BAR: usize = 41;
/// Lines of a response that are shown.
const LINES: usize = 6;

/// The picture; `run` is the run directory as the user named it.
pub fn terminal(report: &Report, run: &Path) -> String {
    let mut lines = vec![fit(&harmless(&format!("{} · seed {}", report.recipe, report.setup.seed)), WIDTH)];
    for part in [picture(report), limits(report), funnel(report), examples(report), next(run)] {
        if !part.is_empty() {
            lines.push(String::new());
            lines.extend(part);
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Every model's rates as bars, and how close the student comes.
fn picture(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for task in report.tasks() {
        let models = report.evaluations_of(task);
        let Some(first) = models.first() else { continue };
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let names = models.iter().map(|e| text::width(&e.model)).max().unwrap_or(0).min(22);
        lines.push(format!("{}: {} problems; sampled {} and greedy", fit(&harmless(task), 40), thousands(first.problems), times(first.n)));
        lines.push(format!("{}{}", " ".repeat(names + 11), scale()));
        let teacher = models.iter().copied().find(|e| e.model == "teacher");
        for e in &models {
            let mark = teacher.filter(|teacher| teacher.model != e.model);
            lines.extend(bars(e, mark, names));
        }
        lines.push(format!(
            "{}├●┤ rate and 95 % interval over problems{}",
            " ".repeat(names + 11),
            if teacher.is_some() { ", ┊ the teacher" } else { "" }
        ));
        let found = ["sampled", "greedy"].map(|metric| report.headline(task, metric)).into_iter().flatten();
        let recoveries: Vec<String> = found.map(recovery).collect();
        if !recoveries.is_empty() {
            lines.push(String::new());
            lines.extend(recoveries);
        }
    }
    lines
}

fn times(n: u32) -> String {
    if n == 1 { "once each".into() } else { format!("{n} times each") }
}

fn scale() -> String {
    let mut cells = vec![' '; BAR + 4];
    for percent in [0, 20, 40, 60, 80, 100] {
        let label = percent.to_string();
        cells.splice(cell(f64::from(percent) / 100.0).., label.chars().chain(std::iter::repeat_n(' ', 9)));
    }
    cells.into_iter().collect::<String>().trim_end().to_owned() + " %"
}

fn cell(rate: f64) -> usize {
    (rate.clamp(0.0, 1.0) * (BAR - 1) as f64).round() as usize
}

/// The sampled bar under the model's name and the greedy one below it.
fn bars(e: &Evaluation, teacher: Option<&Evaluation>, names: usize) -> [String; 2] {
    let name = column(&harmless(&e.model), names);
    let sampled = bar('█', e.pass_at_1, e.ci95, teacher.map(|t| t.pass_at_1));
    let greedy = bar('▒', e.greedy, e.greedy_ci95, teacher.map(|t| t.greedy));
    [
        format!("{name}  sampled  {sampled}  {}", text::rate(e.pass_at_1, e.ci95)),
        format!("{}  greedy   {greedy}  {}", " ".repeat(names), text::rate(e.greedy, e.greedy_ci95)),
    ]
}

fn bar(fill: char, rate: f64, ci95: [f64; 2], teacher: Option<f64>) -> String {
    let [low, high] = ci95.map(cell);
    let mut cells = [' '; BAR];
    cells[..low].fill(fill);
    if let Some(teacher) = teacher {
        cells[cell(teacher)] = '┊';
    }
    if low < high {
        cells[low..=high].fill('─');
        (cells[low], cells[high]) = ('├', '┤');
    }
    cells[cell(rate)] = '●';
    cells.into_iter().collect()
}

fn recovery(row: &ComparisonRow) -> String {
    let shown = match row.shown() {
        Some(Ordering::Greater) => "above the teacher",
        Some(_) => "below the teacher",
        None => "no difference shown",
    };
    let p = p_value(row.p_value);
    let p = if p.starts_with('<') { format!("p {p}") } else { format!("p = {p}") };
    match row.recovery.zip(row.ci95) {
        Some((recovery, ci95)) => {
            format!(
                "{} recovers {} of its teacher, {} ({shown}, paired {p})",
                fit(&harmless(&row.student), 22),
                text::rate(recovery, ci95),
                row.metric
            )
        }
        None => format!("no recovery stated, {}: the teacher's interval touches 0 ({shown}, paired {p})", row.metric),
    }
}

fn limits(report: &Report) -> Vec<String> {
    if report.evaluation.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["One run, one seed: the intervals are over problems, not over seeds.".to_owned()];
    if let Some(planted) = &report.setup.cold_start {
        lines.push(format!(
            "Planted: {} of the cold-start traces ignore precedence on purpose. GRPO amplifies the right",
            setting(planted.left_to_right)
        ));
        lines.push(format!("order, which is in the other {}; it does not discover arithmetic.", setting(1.0 - planted.left_to_right)));
    }
    lines
}

fn funnel(report: &Report) -> Vec<String> {
    let most = report.funnel.iter().map(|step| step.count).max().unwrap_or(0);
    let names = report.funnel.iter().map(|step| text::width(&step.step)).max().unwrap_or(0).min(22);
    let mut before: Option<usize> = None;
    let line = |step: &crate::filter::Step| {
        let bar = "█".repeat((step.count * (BAR - 1)).checked_div(most).unwrap_or(0));
        let dropped = before.map(|before| before.saturating_sub(step.count)).filter(|n| *n > 0);
        before = Some(step.count);
        let dropped = dropped.map_or(String::new(), |n| format!("  -{}", thousands(n)));
        format!("{}  {:>9}  {}{dropped}", column(&harmless(&step.step), names), thousands(step.count), column(&bar, BAR - 1))
    };
    let lines: Vec<String> = report.funnel.iter().map(line).collect();
    if lines.is_empty() { lines } else { std::iter::once("traces left after each step of the filter".to_owned()).chain(lines).collect() }
}

fn examples(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(kept) = &report.kept {
        lines.push(fit(&harmless(&format!("kept     {}", kept.id)), WIDTH));
        lines.extend(excerpt(kept));
    }
    if let Some(dropped) = &report.dropped {
        let reason = dropped.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        lines.push(fit(&harmless(&format!("dropped  {}{reason}", dropped.id)).replace('\n', " "), WIDTH));
        lines.extend(excerpt(dropped));
    }
    lines
}

/// Question and response, a few lines of each.
fn excerpt(example: &Example) -> Vec<String> {
    let shown = |text: &str, most: usize| -> Vec<String> {
        let text = harmless(text);
        let mut lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(|line| fit(line, WIDTH - 11)).collect();
        if lines.len() > most {
            let hidden = lines.len() - (most - 1);
            // The end of a response holds its answer.
            let last = lines.pop().unwrap_or_default();
            lines.truncate(most - 2);
            lines.extend([format!("… ({hidden} more lines)"), last]);
        }
        lines
    };
    let question = shown(&example.question, 3).into_iter().map(|line| format!("         ? {line}"));
    let response = shown(&example.response, LINES).into_iter().map(|line| format!("         │ {line}"));
    question.chain(response).collect()
}

fn next(run: &Path) -> Vec<String> {
    vec![
        format!("report   {}", harmless(&run.join("report.md").display().to_string())),
        "your own problems, one JSON object per line, and any Hugging Face checkpoint folder as the teacher:".into(),
        "  distill sample --teacher <folder> --problems mine.jsonl --fields question=question,answer=answer \\".into(),
        "    --verify number --out corpus/".into(),
    ]
}
