//! How a model talks: its template, its end of turn, and tokens that it has hardly ever seen.

use super::super::models::Loaded;
use super::finding::Finding;
use crate::model::Decoder;
use crate::model::text::Text;
use crate::recipe::Model;
use crate::trace::Message;
use anyhow::Result;
use serde_json::Map;

/// Rows of the embedding that stand for those that were trained.
const SAMPLED: usize = 512;

pub(super) fn findings(model: &Model, role: &'static str, loaded: &Loaded) -> Vec<Finding> {
    let text = &loaded.text;
    let mut all = vec![template(text, role)];
    if text.pad_id() == text.end_id() {
        all.push(Finding::warning(
            "template",
            format!("{role}: the pad token is the end token {:?}; no mask is made from it here, so the end token stays in the loss", text.decode(&[text.end_id()])),
            "if other programs train on this corpus or model, give the tokenizer a pad token of its own: those that mask padding by its id never teach to stop",
        ));
    }
    let pieces = text.encode("<think>").map_or(0, |ids| ids.len());
    if pieces > 1 && !model.is_fresh() {
        all.push(Finding::note(
            "template",
            format!("{role}: <think> is {pieces} tokens; add_tokens = [\"<think>\", \"</think>\"] makes it one, at the price of rows that must be trained"),
        ));
    }
    all.extend(rows(model, role, text, &loaded.decoder).unwrap_or_else(|error| vec![super::recipe::failed("rows", &error)]));
    all
}

/// Whether think text of an assistant's turn survives the template.
fn template(text: &Text, role: &str) -> Finding {
    if !text.has_template() {
        return Finding::note("template", format!("{role}: no chat template; prompts are the question as it stands"));
    }
    const THOUGHT: &str = "distill-thought";
    let said = |n: usize| {
        let turn = [Message::user("a"), Message::assistant(format!("<think>\n{THOUGHT}\n</think>\n\nb"))];
        let turns: Vec<Message> = turn.iter().cycle().take(2 * n).cloned().collect();
        text.render(&turns, false, &Map::new()).map(|rendered| rendered.matches(THOUGHT).count())
    };
    match (said(1), said(2)) {
        (Ok(1), Ok(2)) => Finding::good("template", format!("{role}: it keeps think text in every turn")),
        (Ok(1), Ok(_)) => {
            Finding::note("template", format!("{role}: it keeps think text in the last turn and strips it from earlier ones"))
        }
        (Ok(_), _) => Finding::warning(
            "template",
            format!(
                "{role}: it strips think text from what an assistant said; training here does not put the response through it, so the text stays"
            ),
            "if other programs train on this corpus, give them a template that keeps think text: with this one they would teach answers without reasoning",
        ),
        (Err(error), _) => Finding::warning(
            "template",
            format!("{role}: it refuses a conversation that ends with an answer: {error:#}"),
            "set student.template = \"chatml\" or a template of your own",
        ),
    }
}

/// Whether the border of prompt and completion is one of tokens; where it is not, sampling and training still agree, since both keep it.
pub(super) fn border(text: &Text, name: &str, prompt: &[u32], targets: &[u32]) -> Result<Option<Finding>> {
    let said = &targets[..targets.len() - 1];
    let both = text.decode(prompt) + &text.decode(said);
    let whole = text.encode(&both)?;
    let apart = [prompt, said].concat();
    if whole == apart {
        return Ok(None);
    }
    let at = whole.iter().zip(&apart).take_while(|(a, b)| a == b).count();
    let here = |ids: &[u32]| text.decode(&ids[at.saturating_sub(1)..ids.len().min(at + 2)]);
    Ok(Some(Finding::warning(
        "border",
        format!(
            "{name}: prompt and completion are {} tokens, both as one text {}; they part at {:?} and {:?}",
            apart.len(),
            whole.len(),
            here(&apart),
            here(&whole)
        ),
        "nothing, if a token reaches across the border: what is sampled begins at it. A program that tokenizes both as one text would train on other tokens",
    )))
}

/// Whether the tokens that a turn is made of look as if they had been trained.
fn rows(model: &Model, role: &str, text: &Text, decoder: &Decoder) -> Result<Vec<Finding>> {
    if model.is_fresh() || model.phases.is_empty() {
        return Ok(Vec::new());
    }
    let marks: Vec<u32> = marks(text);
    let hardly = hardly_trained(decoder, text.vocab_size(), &marks)?;
    if hardly.is_empty() {
        return Ok(vec![Finding::good("rows", format!("{role}: the {} tokens that mark turns have rows like other tokens", marks.len()))]);
    }
    let names: Vec<String> = hardly.iter().map(|id| format!("{:?}", text.decode(&[*id]))).collect();
    let says = format!("{role}: the rows of {} look like rows that were never trained, as in a base model", names.join(", "));
    let tied = if decoder.config().tie_embeddings { " (tied with the head)" } else { "" };
    Ok(vec![if model.lora.is_some() {
        let remedy = format!(
            "train all weights, or take a model that has been taught to chat: an adapter leaves the embeddings{tied} as they are, and it could not learn to stop"
        );
        Finding::fault("rows", says, remedy)
    } else {
        Finding::note("rows", format!("{says}; all weights are trained, so these are too"))
    }])
}

/// The tokens that a rendered turn adds to what was said, and the end token.
fn marks(text: &Text) -> Vec<u32> {
    let rendered = text.render(&[Message::user("a"), Message::assistant("b")], true, &Map::new()).unwrap_or_default();
    let special = |id: &u32| text.decode_plain(&[*id]).is_empty() && !text.decode(&[*id]).is_empty();
    let mut marks: Vec<u32> = text.encode(&rendered).unwrap_or_default().into_iter().filter(special).collect();
    marks.push(text.end_id());
    marks.sort_unstable();
    marks.dedup();
    marks
}

/// Those of `ids` whose rows in the embedding are like the rows that belong to no token, or where there are none, hardly longer than nothing.
///
/// A row counts as such where it is nearer to the mean of the unused rows than half of the way that a middling row is from it; without unused rows, where its norm is
/// below a quarter of the middling one. This is a rule of thumb, not a published one.
fn hardly_trained(decoder: &Decoder, used: usize, ids: &[u32]) -> Result<Vec<u32>> {
    let rows = decoder.config().vocab_size;
    let spread = |from: usize, to: usize| -> Vec<u32> {
        let n = (to - from).min(SAMPLED);
        (0..n).map(|i| (from + i * (to - from) / n.max(1)) as u32).collect()
    };
    let unused = decoder.embedding_rows(&spread(used.min(rows), rows))?;
    let middling = decoder.embedding_rows(&spread(0, used.min(rows)))?;
    let width = decoder.config().hidden_size;
    let centre: Vec<f32> = if unused.len() < 8 {
        vec![0.0; width]
    } else {
        (0..width).map(|i| unused.iter().map(|row| row[i]).sum::<f32>() / unused.len() as f32).collect()
    };
    let far = |row: &Vec<f32>| row.iter().zip(&centre).map(|(x, c)| f64::from(x - c).powi(2)).sum::<f64>().sqrt();
    let mut distances: Vec<f64> = middling.iter().map(far).collect();
    distances.sort_by(f64::total_cmp);
    let middle = distances.get(distances.len() / 2).copied().unwrap_or(0.0);
    let near = middle * if unused.len() < 8 { 0.25 } else { 0.5 };
    let of = decoder.embedding_rows(ids)?;
    Ok(ids.iter().zip(&of).filter(|(_, row)| far(row) < near).map(|(id, _)| *id).collect())
}
