//! Splits text into its most probable pieces: the unigram model.
//!
//! Kudo, "Subword Regularization" (2018), with a Viterbi search over byte positions that visits each piece at each
//! place once. Scores are added in the order and precision of the reference (`EncodeOptimized` in SentencePiece), since
//! the last bit of a 32-bit sum decides between segmentations that are equally probable.

use super::normalizer::character_length;
use super::sentencepiece::{ModelProto, PieceType};
use super::trie::Trie;
use crate::{Error, Result};

/// An unknown character scores this much less than the least probable piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The vocabulary with its scores.
#[derive(Debug, Clone)]
pub(super) struct Unigram {
    trie: Trie,
    pieces: Vec<ScoredPiece>,
    unknown: u32,
    unknown_score: f32,
}

#[derive(Debug, Clone, Copy)]
struct ScoredPiece {
    score: f32,
    /// Whether text can become this piece.
    produced: bool,
}

/// How the best segmentation of the text up to a place ends.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f32,
    /// Where its last piece begins; [`UNREACHED`] where no segmentation ends.
    start: u32,
    piece: u32,
}

const UNREACHED: u32 = u32::MAX;

impl Unigram {
    /// The vocabulary of a model file, which `name` is what errors call.
    pub(super) fn new(model: &ModelProto, name: &str) -> Result<Self> {
        let problem = |problem: String| Error::format(name, problem);
        let mut unknown = None;
        let (mut lowest, mut highest) = (f32::MAX, f32::MIN_POSITIVE);
        for (index, piece) in model.pieces.iter().enumerate() {
            if piece.piece().is_empty() {
                return Err(problem(format!("piece {index}: expected a text, found none")));
            }
            if !piece.score().is_finite() {
                return Err(problem(format!(
                    "piece {index}: expected a finite score, found {}",
                    piece.score()
                )));
            }
            match piece.r#type() {
                PieceType::Unknown if unknown.is_some() => {
                    return Err(problem(format!(
                        "piece {index}: expected one unknown piece, found a second"
                    )));
                }
                PieceType::Unknown => unknown = Some(index as u32),
                PieceType::Normal => {
                    lowest = lowest.min(piece.score());
                    highest = highest.max(piece.score());
                }
                _ => {}
            }
        }
        let unknown = unknown.ok_or_else(|| problem("expected an unknown piece, found none".to_owned()))?;
        let keys: Vec<&[u8]> = model.pieces.iter().map(|piece| piece.piece().as_bytes()).collect();
        let trie = Trie::new(&keys).ok_or_else(|| problem("too many bytes in pieces".to_owned()))?;
        if let Some(index) = trie.repeated() {
            let text = model.pieces.get(index as usize).map_or("", |piece| piece.piece());
            return Err(problem(format!("piece {index}: expected every piece once, found {text} again")));
        }
        let pieces = model.pieces.iter().map(|piece| match piece.r#type() {
            PieceType::Normal => ScoredPiece { score: piece.score(), produced: true },
            PieceType::UserDefined => {
                // Enough to win against every segmentation into normal pieces.
                let length = piece.piece().len() as f32;
                ScoredPiece { score: (f64::from(length * highest) - 0.1) as f32, produced: true }
            }
            _ => ScoredPiece { score: 0.0, produced: false },
        });
        Ok(Self { pieces: pieces.collect(), trie, unknown, unknown_score: lowest - UNKNOWN_PENALTY })
    }

    /// Number of pieces.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The piece with this text.
    pub(super) fn piece(&self, text: &[u8]) -> Option<u32> {
        self.trie.get(text)
    }

    /// Gives the pieces of a normalised text to `found`, in order. A run of unknown characters is one unknown piece
    /// (or, as in the reference, the piece that the run spells although text cannot become it).
    pub(super) fn segment(&self, text: &[u8], mut found: impl FnMut(u32)) {
        let reached = Best { score: 0.0, start: 0, piece: 0 };
        let mut best = vec![Best { score: 0.0, start: UNREACHED, piece: 0 }; text.len() + 1];
        best[0] = reached;
        let mut start = 0;
        while start < text.len() {
            let until_here = best[start].score;
            let character = character_length(&text[start..]);
            let mut has_character = false;
            let mut node = self.trie.root();
            for (length, &byte) in (1..).zip(&text[start..]) {
                let Some(next) = self.trie.step(node, byte) else { break };
                node = next;
                let Some(index) = self.trie.value(node) else { continue };
                let piece = self.pieces[index as usize];
                if !piece.produced {
                    continue;
                }
                let score = piece.score + until_here;
                let end = &mut best[start + length];
                if end.start == UNREACHED || score > end.score {
                    *end = Best { score, start: start as u32, piece: index };
                }
                has_character |= length == character;
            }
            if !has_character {
                let score = self.unknown_score + until_here;
                let end = &mut best[start + character];
                if end.start == UNREACHED || score > end.score {
                    *end = Best { score, start: start as u32, piece: self.unknown };
                }
            }
            start += character;
        }
        self.trace_back(text, &mut best, &mut found);
    }

    /// Turns the chain of best ends around and reports it.
    fn trace_back(&self, text: &[u8], best: &mut [Best], found: &mut impl FnMut(u32)) {
        // The chain is walked from the end; its links are written in order into the places that it leaves free.
        let mut free = text.len();
        let mut end = text.len();
        while end > 0 {
            let link = best[end];
            let begin = link.start as usize;
            if begin >= end {
                break;
            }
            best[free] = Best { start: begin as u32, ..link };
            free -= 1;
            end = begin;
        }
        let mut unknown_from = None;
        for link in best.iter().skip(free + 1) {
            if link.piece == self.unknown {
                unknown_from.get_or_insert(link.start);
                continue;
            }
            if let Some(from) = unknown_from.take() {
                found(self.unknown_run(&text[from as usize..link.start as usize]));
            }
            found(link.piece);
        }
        if let Some(from) = unknown_from {
            found(self.unknown_run(&text[from as usize..]));
        }
    }

    fn unknown_run(&self, text: &[u8]) -> u32 {
        self.trie.get(text).unwrap_or(self.unknown)
    }
}
