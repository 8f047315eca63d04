//! Groups texts into batches.

/// The most tokens per batch, counting computed padding.
const TOKENS: usize = 4096;
/// Below this many tokens padding is free: reading the weights takes as long.
const FEW_TOKENS: usize = 64;
/// In larger batches, at most one token in this many may be padding.
const PADDING: usize = 8;

/// Groups texts with these token counts into batches, so that the cost of a mixed list depends on its tokens, not its
/// padding. Each batch holds indices into `lengths`, and each index is in one batch. If the model `packs` texts,
/// padding costs nothing.
pub(crate) fn batches(lengths: &[usize], packs: bool) -> Vec<Vec<usize>> {
    if packs { in_order(lengths) } else { by_length(lengths) }
}

fn in_order(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for (index, length) in lengths.iter().enumerate() {
        tokens += length;
        match batches.last_mut() {
            Some(batch) if tokens <= TOKENS => batch.push(index),
            _ => {
                batches.push(vec![index]);
                tokens = *length;
            }
        }
    }
    batches
}

fn by_length(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    let length = |index: usize| lengths.get(index).copied().unwrap_or(0);
    order.sort_by_key(|&index| length(index));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut batch = Vec::new();
    let mut tokens = 0;
    for index in order {
        // Lengths are ascending, so this is the longest.
        let area = (batch.len() + 1) * length(index);
        let padding = area - (tokens + length(index));
        if !batch.is_empty() && (area > TOKENS || (area > FEW_TOKENS && padding * PADDING > area)) {
            batches.push(std::mem::take(&mut batch));
            tokens = 0;
        }
        batch.push(index);
        tokens += length(index);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_short_texts_go_together_and_long_ones_apart() {
        assert!(by_length(&[]).is_empty());
        assert_eq!(by_length(&[9, 2, 5]), [[1, 2, 0]]);
        assert_eq!(by_length(&[77, 4, 77, 4]), [[1, 3], [0, 2]]);
        assert_eq!(by_length(&[5000, 5000]), [[0], [1]]);
    }

    #[test]
    fn a_model_that_packs_texts_gets_them_in_their_order() {
        assert!(in_order(&[]).is_empty());
        assert_eq!(in_order(&[77, 4, 77, 4]), [[0, 1, 2, 3]]);
        assert_eq!(in_order(&[5000, 4000, 96, 1]), [vec![0], vec![1, 2], vec![3]]);
    }

    proptest! {
        #[test]
        fn every_text_is_in_one_batch_and_little_is_padding(
            lengths in proptest::collection::vec(1usize..600, 0..400),
        ) {
            let batches = by_length(&lengths);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..lengths.len()));
            for batch in batches {
                let longest = batch.iter().map(|&index| lengths[index]).max().unwrap();
                let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
                let area = batch.len() * longest;
                prop_assert!(area <= TOKENS);
                prop_assert!(area <= FEW_TOKENS || (area - tokens) * PADDING <= area);
            }
        }
    }
}
