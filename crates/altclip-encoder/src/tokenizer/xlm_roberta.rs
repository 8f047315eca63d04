//! XLM-R's ids over a SentencePiece model: fairseq's layout, and special tokens typed in a text.

use super::normalizer::Normalizer;
use super::sentencepiece::ModelProto;
use super::unigram::Unigram;
use crate::Result;

/// Before a text.
pub(super) const BOS: &str = "<s>";
/// Fills a row up.
pub(super) const PAD: &str = "<pad>";
/// After a text.
pub(super) const EOS: &str = "</s>";
const UNK: &str = "<unk>";
const MASK: &str = "<mask>";

/// fairseq's ids of the special tokens. The pieces follow, one place later than in the file.
const BOS_ID: u32 = 0;
const PAD_ID: u32 = 1;
const EOS_ID: u32 = 2;
const UNK_ID: u32 = 3;
const FAIRSEQ_OFFSET: u32 = 1;

/// transformers' slow `XLMRobertaTokenizer`: pieces of a SentencePiece file under fairseq's ids.
#[derive(Debug, Clone)]
pub(super) struct XlmRobertaTokenizer {
    normalizer: Normalizer,
    unigram: Unigram,
    /// For each piece of the file, its id.
    ids: Vec<u32>,
    mask_id: u32,
}

impl XlmRobertaTokenizer {
    pub(super) fn from_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        let model = ModelProto::parse(bytes, name)?;
        let unigram = Unigram::new(&model, name)?;
        let mask_id = unigram.len() as u32 + FAIRSEQ_OFFSET;
        let ids = model.pieces.iter().enumerate().map(|(index, piece)| match piece.piece() {
            BOS => BOS_ID,
            PAD => PAD_ID,
            EOS => EOS_ID,
            UNK => UNK_ID,
            MASK => mask_id,
            _ if index == 0 => UNK_ID,
            _ => index as u32 + FAIRSEQ_OFFSET,
        });
        Ok(Self { normalizer: Normalizer::new(&model, name)?, ids: ids.collect(), unigram, mask_id })
    }

    /// Largest id + 1: `<mask>` comes last.
    pub(super) fn vocab_size(&self) -> usize {
        self.mask_id as usize + 1
    }

    /// Appends the ids of a text, without `<s>` and `</s>` around it.
    pub(super) fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
        let mut normalized = Vec::new();
        let mut encode_plain = |text: &str, ids: &mut Vec<u32>| {
            self.normalizer.normalize(text, &mut normalized);
            self.unigram.segment(&normalized, |piece| {
                ids.push(self.ids.get(piece as usize).copied().unwrap_or(UNK_ID));
            });
        };
        let mut rest = text;
        while let Some((before, id, after)) = self.split_at_special(rest) {
            // `<mask>` takes the white space before it along; the others leave it to the text.
            let before = if id == self.mask_id { before.trim_end_matches(is_python_space) } else { before };
            encode_plain(before, ids);
            ids.push(id);
            rest = after;
        }
        encode_plain(rest, ids);
    }

    /// The first special token that was typed in a text: what stands before it, its id, and what follows.
    fn split_at_special<'a>(&self, text: &'a str) -> Option<(&'a str, u32, &'a str)> {
        let specials = [(BOS, BOS_ID), (PAD, PAD_ID), (EOS, EOS_ID), (UNK, UNK_ID), (MASK, self.mask_id)];
        text.match_indices('<').find_map(|(at, _)| {
            let (before, from) = text.split_at(at);
            let mut candidates = specials.iter();
            candidates.find_map(|&(token, id)| Some((before, id, from.strip_prefix(token)?)))
        })
    }
}

/// What Python's `str.rstrip` strips: Unicode's white space, and the four separators of ASCII.
fn is_python_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&character)
}
