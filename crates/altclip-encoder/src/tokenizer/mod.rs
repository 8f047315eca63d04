//! Tokenizes text like transformers, for every family of text towers: XLM-R's and SigLIP's SentencePiece, BERT's
//! WordPiece, CLIP's byte-level BPE and SigLIP 2's BPE. A model's files decide which.
//!
//! The published AltDiffusion repositories only have SentencePiece's own file, so the tokenizer is built from that:
//! its normalisation rules, its unigram model, and fairseq's ids on top (`<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, the
//! file's pieces from 4 on, `<mask>` last). A `tokenizer.json` is read through the `tokenizers` crate, and gives the
//! same ids except for combining characters, which that crate normalizes by grapheme.
//!
//! WordPiece, BPE and `tokenizer.json` need the feature `tokenizer-json`; SentencePiece does not.

mod added;
#[cfg(feature = "onnx")]
mod as_json;
mod bert;
mod charsmap;
mod clip;
mod declared;
mod gemma;
#[cfg(feature = "tokenizer-json")]
mod json;
#[cfg(not(feature = "tokenizer-json"))]
#[path = "without_json.rs"]
mod json;
mod load;
mod model;
mod nllb;
mod normalizer;
pub mod sentencepiece;
mod siglip;
mod special_tokens;
mod trie;
mod unigram;
mod xlm_roberta;

use candle_core::{Device, Tensor};

use self::added::{AddedTokens, Segment};
use self::model::TokenModel;
use self::siglip::LEADING_SPACE;
use self::special_tokens::Around;
use crate::{Error, Result};

#[cfg(feature = "onnx")]
pub(crate) use self::as_json::TokenizerJson;
pub use self::normalizer::Normalizer;
pub use self::trie::{Node, Trie};

/// The length of a prompt in the published pipelines, including `<s>` and `</s>`.
pub const PROMPT_TOKENS: usize = 77;

/// Tokenized texts: rows of equal length.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// (texts, tokens) u32, padded with the padding id.
    pub input_ids: Tensor,
    /// (texts, tokens) u32: 1 for a token, 0 for padding.
    pub attention_mask: Tensor,
}

/// Turns text into token ids.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    model: TokenModel,
    /// Tokens matched before the model: special and added ones, and learned words.
    added: AddedTokens,
    /// The largest id + 1, without learned words.
    vocab_size: usize,
    /// Rows of the embedding, if known.
    rows: Option<usize>,
    /// The longest text in tokens according to the model's files; a huge number if unknown.
    max_length: Option<f64>,
    around: Around,
}

impl Tokenizer {
    /// Sets the number of rows of the model's embedding. A text with a token beyond them, such as one added to the
    /// vocabulary only, is then an error that names it.
    #[must_use]
    pub fn with_embedding_rows(self, rows: usize) -> Self {
        Self { rows: Some(rows), ..self }
    }

    /// The added tokens without a row in [the embedding](Self::with_embedding_rows), by id.
    pub fn tokens_without_embedding(&self) -> Vec<String> {
        let Some(rows) = self.rows else { return Vec::new() };
        let without = |(_, id): &(&str, u32)| (rows..self.vocab_size).contains(&(*id as usize));
        let mut tokens: Vec<(&str, u32)> =
            self.model.added_tokens().into_iter().chain(self.added.iter()).filter(without).collect();
        tokens.sort_unstable_by_key(|(_, id)| *id);
        tokens.into_iter().map(|(token, _)| token.to_owned()).collect()
    }

    /// The number of ids; all are smaller.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size.max(self.added.end())
    }

    /// Sets the language of texts, for NLLB: a token of the vocabulary such as `zho_Hans`, which comes before them.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such token, or nothing comes before texts.
    pub fn with_language(mut self, language: &str) -> Result<Self> {
        let id = self.around.bos_id.and(self.model.token_id(language));
        let missing =
            || Error::Input(format!("the tokenizer has no language {language:?}, such as eng_Latn"));
        self.around.bos_id = Some(id.ok_or_else(missing)?);
        Ok(self)
    }

    /// Makes `word`, anywhere in a text, stand for `count` new tokens, as for textual inversion. Returns the id of
    /// the first; the others follow.
    ///
    /// # Errors
    /// [`Error::Input`] if the word is empty or exists already, or has no tokens.
    pub fn add_word(&mut self, word: &str, count: usize) -> Result<u32> {
        self.added.add_word(word, self.vocab_size(), count)
    }

    /// The length to truncate texts to for a model with `positions` positions: `model_max_length` in its
    /// `tokenizer_config.json`, if that is less.
    pub fn max_length(&self, positions: usize) -> usize {
        self.max_length.map_or(positions, |length| positions.min(length as usize))
    }

    /// The length to pad and truncate prompts to for a diffusion model with `positions` positions: `model_max_length`
    /// in its `tokenizer_config.json`, as in diffusers, which is [`PROMPT_TOKENS`] in published models. A value
    /// beyond the positions is ignored, since transformers writes a huge number if none was set.
    pub fn prompt_length(&self, positions: usize) -> usize {
        // Room for `<s>` and `</s>` at least.
        let possible = 2.0..=positions as f64;
        self.max_length
            .filter(|length| possible.contains(length))
            .map_or(PROMPT_TOKENS, |length| length as usize)
    }

    /// The id of padding.
    pub fn pad_id(&self) -> u32 {
        self.around.pad_id
    }

    /// The id before every text: `<s>`, `[CLS]` or `<|startoftext|>`; SigLIP has none.
    pub fn bos_id(&self) -> Option<u32> {
        self.around.bos_id
    }

    /// The id after every text: `</s>`, `[SEP]` or `<|endoftext|>`.
    pub fn eos_id(&self) -> u32 {
        self.around.eos_id
    }

    /// The ids of a text, untruncated, with `<s>` before and `</s>` after (or their counterparts).
    ///
    /// # Errors
    ///
    /// If a step of a `tokenizer.json` fails on this text, or it has a token
    /// [without an embedding](Self::with_embedding_rows).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::from_iter(self.around.bos_id);
        if let TokenModel::Siglip(_) = &self.model {
            self.encode_siglip(text, &mut ids)?;
        } else {
            self.encode_segments(&self.added.split(text), &mut ids)?;
            ids.push(self.around.eos_id);
        }
        self.check_rows(&ids)?;
        Ok(ids)
    }

    fn encode_segments(&self, segments: &[Segment], ids: &mut Vec<u32>) -> Result<()> {
        segments.iter().try_for_each(|segment| match segment {
            Segment::Token(token) => {
                ids.extend(token.clone());
                Ok(())
            }
            Segment::Text(text) => self.model.encode_into(text, ids),
        })
    }

    /// As in `SiglipTokenizer.tokenize`: a space begins the text, is dropped if a special token follows, and a text that
    /// ends with `</s>` gets no other.
    fn encode_siglip(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let text = format!("{LEADING_SPACE}{}", text.replace(LEADING_SPACE, " "));
        let mut segments = self.added.split(&text);
        if let [Segment::Text(first), Segment::Token(_), ..] = segments.as_slice()
            && first.chars().eq([LEADING_SPACE])
        {
            segments.remove(0);
        }
        self.encode_segments(&segments, ids)?;
        if ids.last() != Some(&self.around.eos_id) {
            ids.push(self.around.eos_id);
        }
        Ok(())
    }

    /// Checks that every id except learned words' has an embedding.
    fn check_rows(&self, ids: &[u32]) -> Result<()> {
        let Some(rows) = self.rows else { return Ok(()) };
        let Some(&id) = ids.iter().find(|&&id| (rows..self.vocab_size).contains(&(id as usize))) else {
            return Ok(());
        };
        let token = self.added.text(id).map(str::to_owned).or_else(|| self.model.token(id));
        Err(Error::Tokenizer(format!(
            "the token {} has the id {id}, and the model has embeddings of {rows} tokens only",
            token.map_or_else(String::new, |token| format!("{token:?}"))
        )))
    }

    /// The ids of a text, truncated to `length`: the first ones and `</s>`.
    ///
    /// # Errors
    ///
    /// Like [`encode`](Self::encode); also if `length` leaves no room for `<s>` and `</s>`.
    pub fn encode_truncated(&self, text: &str, length: usize) -> Result<Vec<u32>> {
        let least = 1 + usize::from(self.around.bos_id.is_some());
        if length < least {
            return Err(Error::Input(format!(
                "expected a length of at least {least} tokens, found {length}"
            )));
        }
        let mut ids = self.encode(text)?;
        self.cut(&mut ids, length);
        Ok(ids)
    }

    /// Truncates a row to `length` ids, at least 2: the first ones and `</s>`. Returns how many were cut off.
    pub(crate) fn cut(&self, ids: &mut Vec<u32>, length: usize) -> usize {
        let excess = ids.len().saturating_sub(length);
        if excess > 0 {
            ids.truncate(length.saturating_sub(1));
            ids.push(self.around.eos_id);
        }
        excess
    }

    /// Tokenizes texts as rows of exactly `length` tokens, truncated or padded; diffusion models take
    /// [`PROMPT_TOKENS`].
    ///
    /// # Errors
    ///
    /// Like [`encode_truncated`](Self::encode_truncated).
    pub fn encode_padded<S: AsRef<str>>(&self, texts: &[S], length: usize) -> Result<Encoding> {
        self.pad(&self.encode_all(texts, length)?, length)
    }

    /// Tokenizes texts as rows padded to the longest, of at most `length` tokens.
    ///
    /// # Errors
    ///
    /// Like [`encode_truncated`](Self::encode_truncated).
    pub fn encode_batch_padded<S: AsRef<str>>(&self, texts: &[S], length: usize) -> Result<Encoding> {
        self.pad_rows(&self.encode_all(texts, length)?)
    }

    /// Pads rows of ids to the longest.
    pub(crate) fn pad_rows<R: AsRef<[u32]>>(&self, rows: &[R]) -> Result<Encoding> {
        let longest = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
        self.pad(rows, longest)
    }

    fn encode_all<S: AsRef<str>>(&self, texts: &[S], length: usize) -> Result<Vec<Vec<u32>>> {
        texts.iter().map(|text| self.encode_truncated(text.as_ref(), length)).collect()
    }

    /// Pads rows of ids to `length`.
    pub(crate) fn pad<R: AsRef<[u32]>>(&self, rows: &[R], length: usize) -> Result<Encoding> {
        let mut ids = Vec::with_capacity(rows.len() * length);
        let mut mask = Vec::with_capacity(rows.len() * length);
        for row in rows.iter().map(AsRef::as_ref) {
            let padding = length.saturating_sub(row.len());
            ids.extend_from_slice(row);
            ids.extend(std::iter::repeat_n(self.around.pad_id, padding));
            mask.extend(std::iter::repeat_n(1u32, row.len()));
            mask.extend(std::iter::repeat_n(0u32, padding));
        }
        let shape = (rows.len(), length);
        Ok(Encoding {
            input_ids: Tensor::from_vec(ids, shape, &Device::Cpu)?,
            attention_mask: Tensor::from_vec(mask, shape, &Device::Cpu)?,
        })
    }
}
