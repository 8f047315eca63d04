//! Fits the probabilities of pieces by expectation maximisation, and prunes them.

use altclip_encoder::tokenizer::Trie;
use rayon::prelude::*;

use super::words::CountedWord;

/// A candidate for the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CandidatePiece {
    pub(super) text: String,
    /// Log probability.
    pub(super) score: f64,
}

impl CandidatePiece {
    fn is_character(&self) -> bool {
        self.text.chars().nth(1).is_none()
    }
}

/// The number of parts that words are divided into for threads; fixed, so that sums always have the same order.
const PARTS: usize = 16;
/// Pieces with a lower expected count are dropped.
const LEAST_EXPECTED: f64 = 0.5;
/// The share of pieces that a pruning keeps.
const KEEP: f64 = 0.75;

/// A round: the expected count of each piece, and new probabilities from that. Drops unused pieces, except
/// characters.
pub(super) fn round(words: &[CountedWord], pieces: Vec<CandidatePiece>) -> Vec<CandidatePiece> {
    let lattice = Lattice::new(&pieces);
    let mut expected = vec![0.0; pieces.len()];
    let partial: Vec<Vec<f64>> = parts(words)
        .map(|words| {
            let mut expected = vec![0.0; pieces.len()];
            for word in words {
                lattice.add_expected(word, &mut expected);
            }
            expected
        })
        .collect();
    for part in partial {
        for (sum, count) in expected.iter_mut().zip(part) {
            *sum += count;
        }
    }
    let kept: Vec<(CandidatePiece, f64)> = pieces
        .into_iter()
        .zip(expected)
        .filter(|(piece, expected)| *expected >= LEAST_EXPECTED || piece.is_character())
        .map(|(piece, expected)| (piece, expected.max(LEAST_EXPECTED)))
        .collect();
    // With a sparse Dirichlet prior, new probabilities are proportional to exp(digamma(count)).
    let total = digamma(kept.iter().map(|(_, expected)| expected).sum());
    kept.into_iter()
        .map(|(piece, expected)| CandidatePiece { score: digamma(expected) - total, ..piece })
        .collect()
}

/// Drops the pieces that cost the least likelihood, down to `enough` or a share of [`KEEP`], whichever is more.
///
/// The loss of a piece is estimated by replacing each use with its second-best segmentation.
pub(super) fn prune(
    words: &[CountedWord],
    pieces: Vec<CandidatePiece>,
    enough: usize,
) -> Vec<CandidatePiece> {
    let lattice = Lattice::new(&pieces);
    let mut uses = vec![0.0; pieces.len()];
    let partial: Vec<Vec<f64>> = parts(words)
        .map(|words| {
            let mut uses = vec![0.0; pieces.len()];
            for word in words {
                for index in lattice.best(&word.text, None) {
                    uses[index] += word.count as f64;
                }
            }
            uses
        })
        .collect();
    for part in partial {
        for (sum, count) in uses.iter_mut().zip(part) {
            *sum += count;
        }
    }
    let total: f64 = uses.iter().sum();
    let losses: Vec<Option<f64>> = pieces
        .par_iter()
        .enumerate()
        .map(|(index, piece)| {
            if piece.is_character() {
                return Some(f64::INFINITY);
            }
            if uses[index] == 0.0 {
                return None;
            }
            let instead = lattice.best(&piece.text, Some(index));
            let new_total = total + uses[index] * (instead.len() as f64 - 1.0);
            let score = (uses[index] / total).ln();
            let score_instead: f64 =
                instead.iter().map(|&other| ((uses[other] + uses[index]) / new_total).ln()).sum();
            Some(uses[index] / total * (score - score_instead))
        })
        .collect();
    let target = enough.max((pieces.len() as f64 * KEEP) as usize);
    let mut candidates: Vec<(f64, CandidatePiece)> =
        losses.into_iter().zip(pieces).filter_map(|(loss, piece)| Some((loss?, piece))).collect();
    candidates.sort_by(|(a_loss, a), (b_loss, b)| b_loss.total_cmp(a_loss).then_with(|| a.text.cmp(&b.text)));
    let characters = candidates.iter().take_while(|(loss, _)| *loss == f64::INFINITY).count();
    candidates.truncate(target.max(characters));
    candidates.into_iter().map(|(_, piece)| piece).collect()
}

fn parts(words: &[CountedWord]) -> impl IndexedParallelIterator<Item = &[CountedWord]> {
    words.par_chunks(words.len().div_ceil(PARTS).max(1))
}

/// All segmentations of a word into pieces.
struct Lattice<'a> {
    trie: Option<Trie>,
    pieces: &'a [CandidatePiece],
}

/// A piece at a position in a word.
#[derive(Clone, Copy)]
struct Edge {
    start: usize,
    end: usize,
    piece: usize,
}

impl<'a> Lattice<'a> {
    fn new(pieces: &'a [CandidatePiece]) -> Self {
        let keys: Vec<&[u8]> = pieces.iter().map(|piece| piece.text.as_bytes()).collect();
        Self { trie: Trie::new(&keys), pieces }
    }

    /// Every piece at every position of a word, by start. Pieces are whole characters, so only character boundaries
    /// count.
    fn edges(&self, word: &str) -> Vec<Edge> {
        let Some(trie) = &self.trie else { return Vec::new() };
        let mut edges = Vec::new();
        for (start, _) in word.char_indices() {
            let mut node = trie.root();
            for (end, &byte) in (start + 1..).zip(&word.as_bytes()[start..]) {
                let Some(next) = trie.step(node, byte) else { break };
                node = next;
                if let Some(piece) = trie.value(node) {
                    edges.push(Edge { start, end, piece: piece as usize });
                }
            }
        }
        edges
    }

    /// Adds each piece's expected count in a word, over all segmentations weighted by probability: the
    /// forward-backward algorithm.
    fn add_expected(&self, word: &CountedWord, expected: &mut [f64]) {
        let edges = self.edges(&word.text);
        let length = word.text.len();
        let (mut forward, mut backward) =
            (vec![f64::NEG_INFINITY; length + 1], vec![f64::NEG_INFINITY; length + 1]);
        forward[0] = 0.0;
        for edge in &edges {
            let score = forward[edge.start] + self.pieces[edge.piece].score;
            forward[edge.end] = log_add(forward[edge.end], score);
        }
        backward[length] = 0.0;
        for edge in edges.iter().rev() {
            let score = backward[edge.end] + self.pieces[edge.piece].score;
            backward[edge.start] = log_add(backward[edge.start], score);
        }
        let all = forward[length];
        if all == f64::NEG_INFINITY {
            return;
        }
        for edge in &edges {
            let score = forward[edge.start] + self.pieces[edge.piece].score + backward[edge.end];
            expected[edge.piece] += word.count as f64 * (score - all).exp();
        }
    }

    /// The most probable segmentation of a word, optionally without one of the pieces.
    fn best(&self, word: &str, without: Option<usize>) -> Vec<usize> {
        let mut best: Vec<(f64, Option<Edge>)> = vec![(f64::NEG_INFINITY, None); word.len() + 1];
        best[0].0 = 0.0;
        for edge in self.edges(word) {
            let score = best[edge.start].0 + self.pieces[edge.piece].score;
            if Some(edge.piece) != without && score > best[edge.end].0 {
                best[edge.end] = (score, Some(edge));
            }
        }
        let mut pieces = Vec::new();
        let mut end = word.len();
        while let Some(edge) = best[end].1 {
            pieces.push(edge.piece);
            end = edge.start;
        }
        pieces.reverse();
        pieces
    }
}

/// ln(exp(a) + exp(b))
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The derivative of ln Γ for x > 0: shifted up by recurrence, then the asymptotic series.
fn digamma(mut x: f64) -> f64 {
    /// From here on the series is accurate in double precision.
    const LARGE: f64 = 7.0;
    let mut result = 0.0;
    while x < LARGE {
        result -= 1.0 / x;
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    result + x.ln() - 0.5 / x - y * (1.0 / 12.0 - y * (1.0 / 120.0 - y * (1.0 / 252.0 - y / 240.0)))
}

#[cfg(test)]
mod tests {
    use super::{CandidatePiece, CountedWord, Lattice, digamma};

    #[test]
    fn digamma_has_its_known_values() {
        const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
        assert!((digamma(1.0) + EULER_GAMMA).abs() < 1e-9);
        assert!((digamma(0.5) + EULER_GAMMA + 2.0 * std::f64::consts::LN_2).abs() < 1e-9);
        assert!((digamma(100.0) - 4.600_161_852_738_087).abs() < 1e-9);
    }

    /// "ab" has two segmentations, with probabilities in the ratio of 0.5 · 0.25 to 0.25.
    #[test]
    fn expected_counts_follow_the_probabilities() {
        let piece =
            |text: &str, probability: f64| CandidatePiece { text: text.into(), score: probability.ln() };
        let pieces = [piece("a", 0.5), piece("b", 0.25), piece("ab", 0.25)];
        let mut expected = [0.0; 3];
        Lattice::new(&pieces).add_expected(&CountedWord { text: "ab".into(), count: 3 }, &mut expected);
        for (count, exact) in expected.into_iter().zip([1.0, 1.0, 2.0]) {
            assert!((count - exact).abs() < 1e-12, "{expected:?}");
        }
        assert_eq!(Lattice::new(&pieces).best("ab", None), [2]);
        assert_eq!(Lattice::new(&pieces).best("ab", Some(2)), [0, 1]);
    }
}
