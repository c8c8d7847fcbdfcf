//! What `distill run` prints at its end: a picture as wide as the terminal, without colours.

use super::examples::Example;
use super::figures;
use super::read::Evaluation;
use super::text::{self, column, fit, harmless, p_value, setting, thousands};
use super::{ComparisonRow, Report};
use std::cmp::Ordering;
use std::path::Path;

/// Lines of a response that are shown.
const LINES: usize = 6;
/// Published figures of a task that are shown.
const FIGURES: usize = 6;

/// What the picture is drawn on.
#[derive(Clone, Copy)]
struct Page {
    columns: usize,
    /// Cells of a bar from 0 to 100 %: equally many points in each, and the last for 100 itself.
    bar: usize,
    /// Columns of a model's name at most.
    names: usize,
}

impl Page {
    /// Narrower than 56 columns a picture cannot be.
    fn new(columns: usize) -> Self {
        let columns = columns.max(56);
        // Beside the bar: a name of 22 columns, the metric, and a rate with its interval.
        let bar = [101, 81, 41, 21].into_iter().find(|bar| bar + 57 <= columns).unwrap_or(11);
        Self { columns, bar, names: (columns - bar - 35).min(22) }
    }

    fn cell(self, rate: f64) -> usize {
        (rate.clamp(0.0, 1.0) * (self.bar - 1) as f64).round() as usize
    }

    fn names<'a>(self, names: impl Iterator<Item = &'a String>) -> usize {
        names.map(|name| text::width(name)).max().unwrap_or(0).min(self.names)
    }

    /// Lines that are longer than the page, wrapped.
    fn wrap(self, lines: impl IntoIterator<Item = String>) -> Vec<String> {
        lines.into_iter().flat_map(|line| text::wrap(&line, self.columns, 2)).collect()
    }
}

/// The picture on `columns` of a terminal; `run` is the run directory as the user named it.
pub fn terminal(report: &Report, run: &Path, columns: usize) -> String {
    let page = Page::new(columns);
    let mut lines = vec![fit(&harmless(&format!("{} · seed {}", report.recipe, report.setup.seed)), page.columns)];
    for part in [
        picture(report, page),
        forgetting(report, page),
        limits(report, page),
        funnel(report, page),
        examples(report, page),
        next(run, page),
    ] {
        if !part.is_empty() {
            lines.push(String::new());
            lines.extend(part);
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Every model's rates as bars, how close the student comes, and what others have published.
fn picture(report: &Report, page: Page) -> Vec<String> {
    let mut lines = Vec::new();
    for task in report.tasks() {
        let models = report.evaluations_of(task);
        let Some(first) = models.first() else { continue };
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let names = page.names(models.iter().map(|e| &e.model));
        let title = format!("{}: {} problems; sampled {} and greedy", fit(&harmless(task), 40), thousands(first.problems), times(first.n));
        lines.push(fit(&title, page.columns));
        lines.push(format!("{}{}", " ".repeat(names + 11), scale(page)));
        let teacher = models.iter().copied().find(|e| e.model == "teacher");
        for e in &models {
            let mark = teacher.filter(|teacher| teacher.model != e.model);
            lines.extend(bars(e, mark, names, page));
        }
        let legend = if teacher.is_some() { ", ┊ the teacher" } else { "" };
        let legend = format!("├●┤ rate and 95 % interval over problems{legend}");
        lines.push(format!("{}{legend}", " ".repeat((names + 11).min(page.columns.saturating_sub(text::width(&legend))))));
        let found = ["sampled", "greedy"].map(|metric| report.headline(task, metric)).into_iter().flatten();
        let recoveries: Vec<String> = found.map(recovery).collect();
        if !recoveries.is_empty() {
            lines.push(String::new());
            lines.extend(page.wrap(recoveries));
        }
        let published = published(report, task, page);
        if !published.is_empty() {
            lines.push(String::new());
            lines.extend(published);
        }
    }
    lines
}

/// What training took on tasks that were not trained on.
fn forgetting(report: &Report, page: Page) -> Vec<String> {
    let line = |row: &super::Forgetting| {
        format!(
            "not trained on {}: {} {:.1} % after {:.1} % before, {} points: {}",
            harmless(&row.task),
            harmless(&row.after),
            100.0 * row.rate_after,
            100.0 * row.rate_before,
            text::difference(row.difference, row.difference_ci95),
            row.finding.in_words(report.max_drop)
        )
    };
    page.wrap(report.forgetting.iter().map(line))
}

fn times(n: u32) -> String {
    if n == 1 { "once each".into() } else { format!("{n} times each") }
}

fn scale(page: Page) -> String {
    let mut cells = vec![' '; page.bar + 4];
    let step = if page.bar < 21 { 50 } else { 20 };
    for percent in (0..=100).step_by(step) {
        let label = percent.to_string();
        cells.splice(page.cell(f64::from(percent) / 100.0).., label.chars().chain(std::iter::repeat_n(' ', page.bar)));
    }
    cells.into_iter().collect::<String>().trim_end().to_owned() + " %"
}

/// The sampled bar under the model's name and the greedy one below it.
fn bars(e: &Evaluation, teacher: Option<&Evaluation>, names: usize, page: Page) -> [String; 2] {
    let name = column(&harmless(&e.model), names);
    let sampled = bar('█', e.pass_at_1, e.ci95, teacher.map(|t| t.pass_at_1), page);
    let greedy = bar('▒', e.greedy, e.greedy_ci95, teacher.map(|t| t.greedy), page);
    [
        format!("{name}  sampled  {sampled}  {}", text::rate(e.pass_at_1, e.ci95)),
        format!("{}  greedy   {greedy}  {}", " ".repeat(names), text::rate(e.greedy, e.greedy_ci95)),
    ]
}

fn bar(fill: char, rate: f64, ci95: [f64; 2], teacher: Option<f64>, page: Page) -> String {
    let [low, high] = ci95.map(|rate| page.cell(rate));
    let mut cells = vec![' '; page.bar];
    cells[..low].fill(fill);
    if let Some(teacher) = teacher {
        cells[page.cell(teacher)] = '┊';
    }
    if low < high {
        cells[low..=high].fill('─');
        (cells[low], cells[high]) = ('├', '┤');
    }
    cells[page.cell(rate)] = '●';
    cells.into_iter().collect()
}

/// Published figures of a task: those of this run's own models, then those nearest to what its last model reaches.
fn published(report: &Report, task: &str, page: Page) -> Vec<String> {
    let mut figures = figures::of(task);
    let Some(last) = report.evaluations_of(task).last().map(|e| 100.0 * e.pass_at_1) else { return Vec::new() };
    let models = [&report.setup.teacher, &report.setup.student].into_iter().flatten();
    let ours: Vec<&str> = models.filter_map(|m| m.model.split('@').next()?.rsplit('/').next()).collect();
    let is_ours =
        |model: &str| ours.iter().any(|name| model == *name || model.strip_prefix(name).is_some_and(|rest| rest.starts_with(" + ")));
    figures.sort_by(|a, b| {
        let place = |f: &figures::Figure| (!is_ours(&f.model), if is_ours(&f.model) { 0.0 } else { (f.value - last).abs() });
        let ((a_other, a_far), (b_other, b_far)) = (place(a), place(b));
        a_other.cmp(&b_other).then(a_far.total_cmp(&b_far))
    });
    let all = figures.len();
    figures.truncate(FIGURES);
    if figures.is_empty() {
        return Vec::new();
    }
    let title = format!(
        "published on {}, in percent, under each source's own protocol; none was measured here{}",
        harmless(task),
        if all > FIGURES { format!(" ({FIGURES} of {all}, all in report.md)") } else { String::new() }
    );
    let rows = figures
        .iter()
        .flat_map(|f| text::beside(&format!("  {:>5.1}  ", f.value), &format!("{}, {}: {}", f.model, f.metric, f.source), page.columns));
    page.wrap([title]).into_iter().chain(rows).collect()
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

fn limits(report: &Report, page: Page) -> Vec<String> {
    if report.evaluation.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["One run, one seed: the intervals are over problems, not over seeds.".to_owned()];
    if let Some(planted) = &report.setup.cold_start {
        lines.push(format!(
            "Planted: {} of the cold-start traces ignore precedence on purpose. GRPO amplifies the right order, which is in the other {}; it does \
             not discover arithmetic.",
            setting(planted.left_to_right),
            setting(1.0 - planted.left_to_right)
        ));
    }
    lines.iter().flat_map(|line| text::wrap(line, page.columns, 0)).collect()
}

fn funnel(report: &Report, page: Page) -> Vec<String> {
    let most = report.funnel.iter().map(|step| step.count).max().unwrap_or(0);
    let names = report.funnel.iter().map(|step| text::width(&step.step)).max().unwrap_or(0).min(page.columns - page.bar - 24).min(22);
    let mut before: Option<usize> = None;
    let line = |step: &crate::filter::Step| {
        let bar = "█".repeat((step.count * (page.bar - 1)).checked_div(most).unwrap_or(0));
        let dropped = before.map(|before| before.saturating_sub(step.count)).filter(|n| *n > 0);
        before = Some(step.count);
        let dropped = dropped.map_or(String::new(), |n| format!("  -{}", thousands(n)));
        format!("{}  {:>9}  {}{dropped}", column(&harmless(&step.step), names), thousands(step.count), column(&bar, page.bar - 1))
    };
    let lines: Vec<String> = report.funnel.iter().map(line).collect();
    if lines.is_empty() {
        return lines;
    }
    std::iter::once("traces left after each step of the filter".to_owned()).chain(lines).chain(by_pass_rate(report, names, page)).collect()
}

/// What went in and what was kept by the pass rate of the problems: whether only the easy ones are left.
fn by_pass_rate(report: &Report, names: usize, page: Page) -> Vec<String> {
    let (Some(first), Some(last)) = (report.funnel.first(), report.funnel.last()) else { return Vec::new() };
    if last.by_pass_rate.is_empty() {
        return Vec::new();
    }
    let names = names.max(8);
    let cell = ((page.columns - names) / text::PASS_RATES.len()).min(9);
    let heads: String = text::PASS_RATES.iter().map(|head| format!("{head:>cell$}")).collect();
    let cells = |counts: &[usize]| counts.iter().map(|n| format!("{:>cell$}", thousands(*n))).collect::<String>();
    let row = |name: &str, counts: &[usize]| format!("{}{}", column(name, names), cells(counts));
    let title = format!("{}by the pass rate of the problem", " ".repeat(names + 2));
    vec![title, format!("{}{heads}", " ".repeat(names)), row("input", &first.by_pass_rate), row("kept", &last.by_pass_rate)]
}

fn examples(report: &Report, page: Page) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(kept) = &report.kept {
        lines.push(fit(&harmless(&format!("kept     {}", kept.id)), page.columns));
        lines.extend(excerpt(kept, page));
    }
    if let Some(dropped) = &report.dropped {
        let reason = dropped.reason.as_ref().map_or(String::new(), |reason| format!(": {}", text::reason(reason)));
        lines.push(fit(&harmless(&format!("dropped  {}{reason}", dropped.id)).replace('\n', " "), page.columns));
        lines.extend(excerpt(dropped, page));
    }
    lines
}

/// Question and response, a few lines of each.
fn excerpt(example: &Example, page: Page) -> Vec<String> {
    let shown = |text: &str, most: usize| -> Vec<String> {
        let text = harmless(text);
        let mut lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(|line| fit(line, page.columns - 11)).collect();
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

fn next(run: &Path, page: Page) -> Vec<String> {
    let mut lines = vec![format!("report   {}", harmless(&run.join("report.md").display().to_string()))];
    let about = "your own problems, one JSON object per line, and any Hugging Face checkpoint folder as the teacher:";
    lines.extend(text::wrap(about, page.columns, 0));
    let flags =
        ["--teacher <folder>", "--problems mine.jsonl", "--fields question=question,answer=answer", "--verify number", "--out corpus/"];
    let mut line = "  distill sample".to_owned();
    for flag in flags {
        if line.len() + flag.len() + 3 > page.columns {
            lines.push(line + " \\");
            line = "   ".to_owned();
        }
        line += &format!(" {flag}");
    }
    lines.push(line);
    lines
}
