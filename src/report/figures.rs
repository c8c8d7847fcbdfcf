//! Published figures of `data/reference.toml`, to be printed beside our own.

use serde::Deserialize;

const TEXT: &str = include_str!("../../data/reference.toml");

/// What somebody published about a model on a task.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Figure {
    pub model: String,
    pub task: String,
    pub metric: String,
    pub value: f64,
    pub source: String,
}

/// The published figures of a task.
pub(super) fn of(task: &str) -> Vec<Figure> {
    #[derive(Deserialize)]
    struct File {
        figure: Vec<Figure>,
    }
    let File { figure } = toml::from_str(TEXT).expect("the embedded file parses: a test reads it");
    figure.into_iter().filter(|figure| figure.task == task).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_figures_are_found_by_task() {
        let aime = of("aime24");
        assert!(!aime.is_empty() && aime.iter().all(|figure| figure.task == "aime24" && !figure.source.is_empty()));
        assert_eq!(of("no such task"), []);
    }
}
