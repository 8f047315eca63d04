//! Maps a SentencePiece model's pieces to XLM-R's ids (fairseq's layout).

use super::normalizer::Normalizer;
use super::sentencepiece::ModelProto;
use super::special_tokens::SpecialTokens;
use super::unigram::Unigram;
use crate::Result;

/// Special tokens with transformers' names.
pub(super) const SPECIAL_TOKENS: SpecialTokens = SpecialTokens {
    tokens: &[
        ("bos_token", BOS),
        ("eos_token", EOS),
        ("unk_token", UNK),
        ("sep_token", EOS),
        ("pad_token", PAD),
        ("cls_token", BOS),
        ("mask_token", MASK),
    ],
    before: Some("cls_token"),
    after: "sep_token",
    mask_takes_space: true,
};

const BOS: &str = "<s>";
const PAD: &str = "<pad>";
const EOS: &str = "</s>";
const UNK: &str = "<unk>";
pub(super) const MASK: &str = "<mask>";

/// fairseq's ids of the special tokens. The pieces follow, shifted by one from the file.
const BOS_ID: u32 = 0;
const PAD_ID: u32 = 1;
const EOS_ID: u32 = 2;
pub(super) const UNK_ID: u32 = 3;
const FAIRSEQ_OFFSET: u32 = 1;
/// The special tokens that come before all pieces, by their ids.
#[cfg(feature = "onnx")]
pub(super) const SPECIAL_IDS: [(&str, u32); 4] = [(BOS, BOS_ID), (PAD, PAD_ID), (EOS, EOS_ID), (UNK, UNK_ID)];

/// transformers' slow `XLMRobertaTokenizer`: a SentencePiece file's pieces with fairseq's ids.
#[derive(Debug, Clone)]
pub(super) struct XlmRobertaTokenizer {
    normalizer: Normalizer,
    unigram: Unigram,
    /// The id of each piece of the file.
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

    /// The largest id + 1: `<mask>` comes last.
    pub(super) fn vocab_size(&self) -> usize {
        self.mask_id as usize + 1
    }

    /// The id of a piece or a special token.
    pub(super) fn token_id(&self, text: &str) -> Option<u32> {
        match text {
            BOS => Some(BOS_ID),
            PAD => Some(PAD_ID),
            EOS => Some(EOS_ID),
            UNK => Some(UNK_ID),
            MASK => Some(self.mask_id),
            _ => self.ids.get(self.unigram.piece(text.as_bytes())? as usize).copied(),
        }
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
        let mut normalized = Vec::new();
        self.normalizer.normalize(text, &mut normalized);
        self.unigram.segment(&normalized, |piece| {
            ids.push(self.ids.get(piece as usize).copied().unwrap_or(UNK_ID));
        });
    }
}
