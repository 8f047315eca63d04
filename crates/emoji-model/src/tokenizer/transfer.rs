//! Moves the embedding of one tokenizer's pieces to another tokenizer, so that a model goes on with new pieces.

use crate::error::{Error, Result};
use altclip_encoder::tokenizer::Tokenizer;
use altclip_encoder::tokenizer::sentencepiece::{ModelProto, SentencePiece};
use candle_core::Tensor;
use std::collections::HashMap;

/// SentencePiece's mark for a space.
const SPACE: &str = "▁";
/// XLM-R's ids: `<s>`, `<pad>`, `</s>` and `<unk>`, then each further piece with its index plus one, and `<mask>`.
const SPECIAL_IDS: usize = 4;

/// The embedding (new ids, width) for another tokenizer. A piece that both have keeps its row; a new piece begins with
/// the mean of the rows that it was written with.
///
/// * `embedding` (old ids, width), in f32
///
/// # Errors
/// If a tokenizer's file is damaged, or the embedding is not the old tokenizer's.
pub(crate) fn transfer(embedding: &Tensor, old: &[u8], new: &[u8]) -> Result<Tensor> {
    let tokenizer = Tokenizer::from_sentencepiece_bytes(old, "the old tokenizer")?;
    let (old, new) = (pieces(old, "the old tokenizer")?, pieces(new, "the new tokenizer")?);
    let rows = embedding.to_vec2::<f32>()?;
    let expected = SPECIAL_IDS + old.len() + 1;
    let (Some(mask), true) = (rows.last(), rows.len() == expected) else {
        let found = rows.len();
        return Err(Error::Setting(format!(
            "start: expected an embedding of {expected} rows, found {found}"
        )));
    };
    let known: HashMap<&str, usize> = old.iter().map(SentencePiece::piece).zip(SPECIAL_IDS..).collect();
    let mut moved: Vec<Vec<f32>> = rows.iter().take(SPECIAL_IDS).cloned().collect();
    for piece in new.iter().map(SentencePiece::piece) {
        let ids = match known.get(piece) {
            Some(&id) => vec![id],
            None => spelt(piece, &tokenizer, known.get(SPACE))?,
        };
        moved.push(mean(&rows, &ids));
    }
    moved.push(mask.clone());
    Ok(Tensor::new(moved, embedding.device())?)
}

/// A model's pieces without the special ones.
fn pieces(bytes: &[u8], name: &str) -> Result<Vec<SentencePiece>> {
    Ok(ModelProto::parse(bytes, name)?.pieces.into_iter().skip(SPECIAL_IDS - 1).collect())
}

/// The ids of a piece's text. `space` is the id of the mark that begins every text.
fn spelt(piece: &str, tokenizer: &Tokenizer, space: Option<&usize>) -> Result<Vec<usize>> {
    let ids = tokenizer.encode(&piece.replace(SPACE, " "))?.into_iter().map(|id| id as usize);
    let mut ids: Vec<usize> = ids.filter(|&id| id >= SPECIAL_IDS).collect();
    if ids.len() > 1 && !piece.starts_with(SPACE) && ids.first() == space {
        ids.remove(0);
    }
    Ok(ids)
}

/// The mean of these rows; zero if there are none.
fn mean(rows: &[Vec<f32>], ids: &[usize]) -> Vec<f32> {
    let mut sum = vec![0f32; rows.first().map_or(0, Vec::len)];
    for row in ids.iter().filter_map(|&id| rows.get(id)) {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / ids.len() as f32);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::train_unigram;
    use candle_core::Device;

    #[test]
    fn new_pieces_begin_with_the_mean_of_the_old_ones() -> Result<()> {
        let trained = |size: usize| train_unigram(vec!["moon cat".to_owned(); 8], size);
        // The first knows letters only: three special pieces, the space and six letters.
        let (old, new) = (trained(10)?, trained(13)?);
        let embedding = Tensor::arange(0f32, 24., &Device::Cpu)?.reshape((12, 2))?;
        let moved = transfer(&embedding, &old, &new)?.to_vec2::<f32>()?;
        let rows = embedding.to_vec2::<f32>()?;
        let letters: HashMap<String, f32> = pieces(&old, "old")?
            .iter()
            .map(|piece| piece.piece().to_owned())
            .zip(rows.iter().skip(SPECIAL_IDS).map(|row| row[0]))
            .collect();
        let new = pieces(&new, "new")?;
        assert!(new.iter().any(|piece| piece.piece().chars().count() > 1), "{new:?}");
        for (piece, row) in new.iter().map(SentencePiece::piece).zip(moved.iter().skip(SPECIAL_IDS)) {
            let own = piece.chars().map(|letter| letters[&letter.to_string()]);
            let expected = own.sum::<f32>() / piece.chars().count() as f32;
            assert!((row[0] - expected).abs() < 1e-4, "{piece}: {row:?}, expected {expected}");
        }
        assert_eq!(moved[..SPECIAL_IDS], rows[..SPECIAL_IDS]);
        assert_eq!((moved.len(), moved.last()), (SPECIAL_IDS + new.len() + 1, rows.last()));
        let other = embedding.narrow(0, 0, 3)?;
        let error = transfer(&other, &old, &trained(10)?).unwrap_err().to_string();
        assert_eq!(error, "start: expected an embedding of 12 rows, found 3");
        Ok(())
    }
}
