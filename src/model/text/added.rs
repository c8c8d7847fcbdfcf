//! Further tokens for a tokenizer that has come from elsewhere: texts that become one id each.

use super::{ADDED_TOKENS, TOKENIZER, TOKENIZER_CONFIG, Text, json_file};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;
use tokenizers::AddedToken;

impl Text {
    /// The same with these texts as tokens of their own; those that are tokens already stay what they are.
    ///
    /// They are no special tokens, so that what a model says with them is part of its answer. All files that name tokens are written anew.
    pub fn with_tokens(&self, tokens: &[String]) -> Result<Self> {
        let wanted: Vec<&String> = tokens.iter().filter(|token| self.token_id(token).is_none()).collect();
        let mut tokenizer = self.tokenizer.clone();
        let added: Vec<AddedToken> = wanted.iter().map(|token| AddedToken::from(token.as_str(), false).normalized(false)).collect();
        let count = tokenizer.add_tokens(added).map_err(|error| anyhow!("{}: tokens cannot be added: {error}", self.origin))?;
        ensure!(count == wanted.len(), "{}: {count} of {} tokens could be added: {wanted:?}", self.origin, wanted.len());
        let mut files = self.files.clone();
        if !wanted.is_empty() {
            let text = tokenizer.to_string(true).map_err(|error| anyhow!("{}: the tokenizer cannot be written: {error}", self.origin))?;
            files.insert(TOKENIZER.to_owned(), text.into_bytes());
            let mut config = json_file(&files, TOKENIZER_CONFIG, &self.origin)?.unwrap_or_else(|| json!({}));
            let mut list = json_file(&files, ADDED_TOKENS, &self.origin)?;
            for token in wanted {
                let id = tokenizer.token_to_id(token).with_context(|| format!("{token:?} was added"))?;
                if config["added_tokens_decoder"].is_object() {
                    config["added_tokens_decoder"][id.to_string()] = json!({"content": token, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": false});
                }
                if let Some(list) = &mut list {
                    list[token.as_str()] = id.into();
                }
            }
            files.insert(TOKENIZER_CONFIG.to_owned(), format!("{config:#}\n").into_bytes());
            files.extend(list.map(|list| (ADDED_TOKENS.to_owned(), format!("{list:#}\n").into_bytes())));
        }
        Ok(Self::from_files(files, &self.origin)?.with_date(self.unix_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_one_token_and_others_stay_what_they_are() {
        let text = Text::tiny();
        let before = text.encode("what is 1+2").unwrap();
        let more = text.with_tokens(&["7+7".into(), "<think>".into()]).unwrap();
        assert_eq!(text.encode("7+7").unwrap().len(), 3);
        let id = more.token_id("7+7").unwrap();
        assert_eq!(more.encode("7+7").unwrap(), [id]);
        assert_eq!(id as usize, text.vocab_size(), "behind all that there are");
        assert_eq!(more.vocab_size(), text.vocab_size() + 1, "<think> was one already");
        assert_eq!((more.encode("what is 1+2").unwrap(), more.end_id()), (before, text.end_id()));
        assert_eq!(more.decode_plain(&[id]), "7+7");
        let folder = tempfile::tempdir().unwrap();
        more.save_into(folder.path()).unwrap();
        let again = Text::from_folder(folder.path()).unwrap();
        assert_eq!((again.encode("7+7").unwrap(), again.tokenizer_hash()), (vec![id], more.tokenizer_hash()));
    }
}
