//! A base model made ready to be taught: rows for new tokens, and another base of the rotary frequencies.

use super::{Decoder, Matrix, rope_table};
use anyhow::{Result, ensure};
use candle_core::Tensor;
use std::sync::Arc;

/// A token that the model has no meaning for yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    pub id: u32,
    /// The tokens that its text was until now; its rows begin as the mean of theirs.
    pub like: Vec<u32>,
}

impl Decoder {
    /// With at least `vocab_size` rows in embedding and head: those of new tokens as they say, further ones the mean of all that were there.
    pub fn with_tokens(&self, vocab_size: usize, new: &[NewToken]) -> Result<Self> {
        ensure!(self.lora.is_none(), "an adapter's base has the tokens that it was trained with");
        let mut decoder = self.clone();
        let rows = vocab_size.max(self.config.vocab_size);
        decoder.config = Arc::new(self.config.with_vocab_size(rows));
        decoder.embed = Matrix::new(extended(self.embed.weight(), rows, new)?);
        decoder.head =
            if self.config.tie_embeddings { decoder.embed.clone() } else { Matrix::new(extended(self.head.weight(), rows, new)?) };
        Ok(decoder)
    }

    /// With another base of the rotary frequencies, for at least so many positions.
    pub fn with_rope_theta(&self, theta: f64, positions: usize) -> Self {
        let config = self.config.with_rope_theta(theta, positions);
        Self { rope: Arc::new(rope_table(&config)), config: Arc::new(config), ..self.clone() }
    }

    /// Rows of the embedding, in f32: (ids, D).
    pub fn embedding_rows(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
        let ids = Tensor::new(ids, &self.device)?;
        Ok(self.embed.weight().index_select(&ids, 0)?.to_vec2()?)
    }
}

/// A table (V, D) with `rows` rows.
fn extended(table: &Tensor, rows: usize, new: &[NewToken]) -> Result<Tensor> {
    let (there, width) = table.dims2()?;
    let mut numbers: Vec<f32> = table.flatten_all()?.to_vec1()?;
    let mean_of = |numbers: &[f32], ids: &mut dyn Iterator<Item = usize>| {
        let (mut sum, mut n) = (vec![0f64; width], 0usize);
        for id in ids {
            sum.iter_mut().zip(&numbers[id * width..(id + 1) * width]).for_each(|(sum, x)| *sum += f64::from(*x));
            n += 1;
        }
        sum.into_iter().map(move |sum| (sum / n.max(1) as f64) as f32).collect::<Vec<f32>>()
    };
    let means = new
        .iter()
        .map(|token| {
            let known = token.like.iter().all(|id| (*id as usize) < there) && !token.like.is_empty() && (token.id as usize) < rows;
            ensure!(known, "token {} is to begin like {:?}, of {there} rows", token.id, token.like);
            Ok((token.id as usize, mean_of(&numbers, &mut token.like.iter().map(|id| *id as usize))))
        })
        .collect::<Result<Vec<_>>>()?;
    if rows > there {
        let mean = mean_of(&numbers, &mut (0..there));
        (there..rows).for_each(|_| numbers.extend_from_slice(&mean));
    }
    for (id, mean) in means {
        numbers[id * width..(id + 1) * width].copy_from_slice(&mean);
    }
    Ok(Tensor::from_vec(numbers, (rows, width), table.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::model::{Config, Packed};
    use candle_core::Device;
    use serde_json::json;

    fn random(tied: bool) -> Decoder {
        let json = json!({
            "model_type": "qwen2", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "max_position_embeddings": 32, "rms_norm_eps": 1e-6, "tie_word_embeddings": tied, "rope_theta": 10_000.0
        });
        let config = Config::from_json(json.as_object().unwrap().clone()).unwrap();
        Decoder::random(config, Key::new(1, "weights"), &Device::Cpu).unwrap()
    }

    fn logits(decoder: &Decoder, tokens: &[u32]) -> Vec<f32> {
        let hidden = decoder.hidden(&Packed::new([tokens]).unwrap()).unwrap();
        decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_new_token_begins_as_the_mean_of_its_pieces_and_changes_nothing_else() {
        for tied in [true, false] {
            let base = random(tied);
            let extended = base.with_tokens(12, &[NewToken { id: 10, like: vec![2, 5] }]).unwrap();
            assert_eq!(extended.config().vocab_size, 12);
            assert_eq!(extended.config().to_json()["vocab_size"], 12);
            let rows = extended.embedding_rows(&[2, 5, 10]).unwrap();
            assert!((0..8).all(|i| (rows[2][i] - (rows[0][i] + rows[1][i]) / 2.0).abs() < 1e-7));
            let (before, after) = (logits(&base, &[1, 2, 3]), logits(&extended, &[1, 2, 3]));
            for (before, after) in before.chunks(10).zip(after.chunks(12)) {
                assert_eq!(before, &after[..10]);
                // A logit is linear in its row of the head.
                assert!((after[10] - (after[2] + after[5]) / 2.0).abs() < 1e-4);
            }
            assert_eq!(extended.tensors().len(), base.tensors().len());
        }
        let error = random(true).with_tokens(10, &[NewToken { id: 10, like: vec![2] }]).unwrap_err().to_string();
        assert!(error.contains("token 10"), "{error}");
    }

    #[test]
    fn another_rotary_base_bends_far_positions_and_allows_more_of_them() {
        let base = random(true);
        let stretched = base.with_rope_theta(300_000.0, 64);
        assert_eq!((stretched.config().max_positions, stretched.config().rope_theta), (64, 300_000.0));
        let json = stretched.config().to_json();
        assert_eq!((&json["rope_theta"], &json["max_position_embeddings"]), (&json!(300_000.0), &json!(64)));
        assert_eq!(Config::from_json(json.as_object().unwrap().clone()).unwrap().identity(), stretched.config().identity());
        let tokens: Vec<u32> = (0..60).map(|i| i % 10).collect();
        assert!(logits(&stretched, &tokens).iter().all(|x| x.is_finite()));
        let (a, b) = (logits(&base, &tokens[..20]), logits(&stretched, &tokens[..20]));
        assert_eq!(a[..10], b[..10], "position 0 has no angle");
        assert_ne!(a[190..], b[190..]);
        assert_eq!(base.with_rope_theta(300_000.0, 8).config().max_positions, 32, "positions are never taken away");
    }
}
