//! Groups texts of similar lengths, so that a batch costs its tokens and not the padding to the longest.

use crate::error::Result;
use altclip_encoder::tokenizer::{Encoding, Tokenizer};
use candle_core::Tensor;

/// Texts of similar lengths.
pub struct TextGroup {
    /// Ids and mask, (texts, tokens of the longest).
    pub texts: Encoding,
    /// Their indices in the batch.
    pub numbers: Vec<u32>,
}

/// Encodes `texts`, truncated to `max_tokens`, in groups of at most `size`, shortest first.
///
/// # Errors
/// If there is no text, or one cannot be encoded.
pub fn by_length(
    tokenizer: &Tokenizer,
    texts: &[String],
    max_tokens: usize,
    size: usize,
) -> Result<Vec<TextGroup>> {
    let all = tokenizer.encode_batch_padded(texts, max_tokens)?;
    let lengths: Vec<u32> = all.attention_mask.sum(1)?.to_vec1()?;
    let mut order: Vec<(u32, u32)> = lengths.into_iter().zip(0..).collect();
    order.sort_unstable();
    let group = |members: &[(u32, u32)]| {
        let longest = members.last().map_or(0, |&(length, _)| length as usize);
        let numbers: Vec<u32> = members.iter().map(|&(_, number)| number).collect();
        let rows = Tensor::new(numbers.as_slice(), all.input_ids.device())?;
        // Padding is on the right.
        let part = |of: &Tensor| of.index_select(&rows, 0)?.narrow(1, 0, longest)?.contiguous();
        let texts = Encoding { input_ids: part(&all.input_ids)?, attention_mask: part(&all.attention_mask)? };
        Ok(TextGroup { texts, numbers })
    };
    order.chunks(size.max(1)).map(group).collect()
}
