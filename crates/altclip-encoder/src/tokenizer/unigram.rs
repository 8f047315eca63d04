//! Splits text into its most probable pieces (unigram model).
//!
//! Kudo, "Subword Regularization" (2018): a Viterbi search over byte positions that visits each piece at each
//! position once. Scores are added in the reference's order and precision (`EncodeOptimized` in SentencePiece), since
//! the last bit of an f32 sum decides between equally probable segmentations.

use super::normalizer::character_length;
use super::sentencepiece::{ModelProto, PieceType, TrainerSpec};
use super::trie::Trie;
use crate::{Error, Result};

/// How much less than the least probable piece an unknown character scores.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The vocabulary with its scores.
#[derive(Debug, Clone)]
pub(super) struct Unigram {
    trie: Trie,
    pieces: Vec<ScoredPiece>,
    unknown: u32,
    unknown_score: f32,
    /// The piece of each byte, if unknown characters are split into bytes.
    bytes: Option<Vec<u32>>,
}

#[derive(Debug, Clone, Copy)]
struct ScoredPiece {
    score: f32,
    /// Whether text can produce this piece.
    produced: bool,
}

/// The last piece of the best segmentation up to a position.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f32,
    /// Where the piece begins; [`UNREACHED`] if no segmentation ends here.
    start: u32,
    piece: u32,
}

const UNREACHED: u32 = u32::MAX;

impl Unigram {
    /// The vocabulary of a model file; `name` is used in errors.
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
                // Enough to beat every segmentation into normal pieces.
                let length = piece.piece().len() as f32;
                ScoredPiece { score: (f64::from(length * highest) - 0.1) as f32, produced: true }
            }
            _ => ScoredPiece { score: 0.0, produced: false },
        });
        let pieces = pieces.collect();
        let bytes = match model.trainer_spec.as_ref().is_some_and(TrainerSpec::byte_fallback) {
            true => Some(byte_pieces(&trie).map_err(problem)?),
            false => None,
        };
        Ok(Self { pieces, trie, unknown, unknown_score: lowest - UNKNOWN_PENALTY, bytes })
    }

    /// Number of pieces.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The piece with this text.
    pub(super) fn piece(&self, text: &[u8]) -> Option<u32> {
        self.trie.get(text)
    }

    /// Passes the pieces of a normalized text to `found`, in order. A run of unknown characters is its bytes or, if the
    /// model has no pieces for these, a single unknown piece (or, as in the reference, the piece that the run spells
    /// although text cannot produce it).
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

    /// Reverses the chain of best pieces and reports it.
    fn trace_back(&self, text: &[u8], best: &mut [Best], found: &mut impl FnMut(u32)) {
        // The chain is walked from the end; its links are written in order into the slots it frees.
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
            if let Some(bytes) = self.bytes.as_ref().filter(|_| link.piece == self.unknown) {
                let text = &text[link.start as usize..];
                let character = text.iter().take(character_length(text));
                character.filter_map(|byte| bytes.get(usize::from(*byte))).copied().for_each(&mut *found);
                continue;
            }
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

/// The pieces `<0x00>` to `<0xFF>`.
fn byte_pieces(trie: &Trie) -> std::result::Result<Vec<u32>, String> {
    let piece = |byte: u8| {
        let text = format!("<0x{byte:02X}>");
        trie.get(text.as_bytes()).ok_or_else(|| {
            format!("expected a piece for every byte, since unknown characters are split, found no {text}")
        })
    };
    (0..=u8::MAX).map(piece).collect()
}
