//! Collects the initial pieces: all characters, and all substrings that occur more than once.

use std::collections::HashMap;

use super::em::CandidatePiece;
use super::words::CountedWord;

/// Length of the longest piece, in characters.
pub(super) const MAX_LENGTH: usize = 16;
/// The most initial substrings.
const MAX_SEEDS: usize = 1_000_000;

/// Characters and frequent substrings, with log probabilities by frequency × length.
pub(super) fn pieces(words: &[CountedWord]) -> Vec<CandidatePiece> {
    let mut characters: HashMap<&str, u64> = HashMap::new();
    let mut substrings: HashMap<&str, u64> = HashMap::new();
    for CountedWord { text, count } in words {
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).chain([text.len()]).collect();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        for (first, start) in starts.take(ends.len()).enumerate() {
            for (length, &end) in (1..=MAX_LENGTH).zip(&ends[first..]) {
                let table = if length == 1 { &mut characters } else { &mut substrings };
                *table.entry(&text[start..end]).or_insert(0) += count;
            }
        }
    }
    let mut seeds: Vec<(&str, u64)> = substrings
        .into_iter()
        .filter(|&(_, count)| count > 1)
        .map(|(text, count)| (text, count * text.chars().count() as u64))
        .collect();
    seeds.sort_unstable_by(|(a, a_weight), (b, b_weight)| b_weight.cmp(a_weight).then_with(|| a.cmp(b)));
    seeds.truncate(MAX_SEEDS);
    let mut characters: Vec<(&str, u64)> = characters.into_iter().collect();
    characters.sort_unstable();
    characters.extend(seeds);
    let total: u64 = characters.iter().map(|(_, weight)| weight).sum();
    let log_total = (total as f64).ln();
    let to_piece = |(text, weight): (&str, u64)| CandidatePiece {
        text: text.to_owned(),
        score: (weight as f64).ln() - log_total,
    };
    characters.into_iter().map(to_piece).collect()
}
