//! Text to token ids, as transformers does it for every family of text towers: XLM-R's SentencePiece, BERT's WordPiece
//! and CLIP's byte-level BPE. Which of them a model has, its files say.
//!
//! The published AltDiffusion repositories hold nothing but SentencePiece's own file, so that is what the tokenizer is
//! built from: its normalisation rules, its unigram model, and fairseq's layout of ids on top (`<s>` 0, `<pad>` 1,
//! `</s>` 2, `<unk>` 3, the file's pieces from 4 on, `<mask>` last). A `tokenizer.json` is read through the `tokenizers`
//! crate; it gives the same ids except for combining characters, which that crate normalises a grapheme at a time.

mod added;
mod bert;
mod charsmap;
mod clip;
mod normalizer;
pub mod sentencepiece;
mod trie;
mod unigram;
mod xlm_roberta;

use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::config::parse_json;
use crate::source::ModelSource;
use crate::{Error, Result};

use added::AddedWords;
pub use normalizer::Normalizer;
pub use trie::{Node, Trie};
use xlm_roberta::XlmRobertaTokenizer;

/// Tokens of a prompt in the published pipelines, `<s>` and `</s>` counted.
pub const PROMPT_LENGTH: usize = 77;

const SENTENCEPIECE_FILE: &str = "sentencepiece.bpe.model";
const WORDPIECE_FILE: &str = "vocab.txt";
const BPE_FILE: &str = "vocab.json";
const MERGES_FILE: &str = "merges.txt";
const TOKENIZER_JSON_FILE: &str = "tokenizer.json";
const CONFIG_FILE: &str = "tokenizer_config.json";

/// What stands before a text, after it, and fills a row up, in XLM-R's, BERT's and CLIP's vocabularies.
const SPECIAL_TOKENS: [(&str, &str, &str); 3] = [
    (xlm_roberta::BOS, xlm_roberta::EOS, xlm_roberta::PAD),
    (bert::CLS, bert::SEP, bert::PAD),
    (clip::BOS, clip::EOS, clip::EOS),
];

/// Texts as ids: rows of equal length.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// (texts, tokens) u32, filled up with the padding id.
    pub input_ids: Tensor,
    /// (texts, tokens) u32: 1 for a token, 0 for padding.
    pub attention_mask: Tensor,
}

/// Turns text into token ids.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    model: Model,
    added: AddedWords,
    bos_id: u32,
    eos_id: u32,
    pad_id: u32,
}

#[derive(Debug, Clone)]
enum Model {
    SentencePiece(Box<XlmRobertaTokenizer>),
    Json(Box<tokenizers::Tokenizer>),
}

impl Tokenizer {
    /// The tokenizer in a model's folder (`tokenizer` in the layout of AltDiffusion, "" for a model's top): from
    /// `sentencepiece.bpe.model` (XLM-R), `vocab.txt` (BERT), `vocab.json` and `merges.txt` (CLIP), or from
    /// `tokenizer.json` where that is all there is.
    ///
    /// # Errors
    /// If the folder has none of these files, or one of them is damaged.
    pub fn from_source(source: &ModelSource, folder: &str) -> Result<Self> {
        let path = |file: &str| if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
        if let Some(data) = source.read_optional(&path(SENTENCEPIECE_FILE))? {
            return Self::from_sentencepiece_bytes(&data, data.name());
        }
        if let Some(data) = source.read_optional(&path(WORDPIECE_FILE))? {
            let config = source.read_optional(&path(CONFIG_FILE))?;
            let config = config.map(|file| parse_json(&file)).transpose()?.unwrap_or_default();
            return Self::from_json_value(&bert::tokenizer_json(&data, &config, data.name())?, data.name());
        }
        if let Some(data) = source.read_optional(&path(BPE_FILE))? {
            let merges = source.read(&path(MERGES_FILE))?;
            let json = clip::tokenizer_json(&data, &merges, (data.name(), merges.name()))?;
            return Self::from_json_value(&json, data.name());
        }
        match source.read_optional(&path(TOKENIZER_JSON_FILE))? {
            Some(data) => Self::from_tokenizer_json_bytes(&data, data.name()),
            None => Err(source.missing(&format!(
                "{}, {}, {} or {}",
                path(SENTENCEPIECE_FILE),
                path(WORDPIECE_FILE),
                path(BPE_FILE),
                path(TOKENIZER_JSON_FILE)
            ))),
        }
    }

    /// From a SentencePiece unigram model.
    pub fn from_sentencepiece(path: impl AsRef<Path>) -> Result<Self> {
        let (bytes, name) = read(path.as_ref())?;
        Self::from_sentencepiece_bytes(&bytes, &name)
    }

    /// From the contents of a SentencePiece unigram model; `name` is what errors call the file.
    pub fn from_sentencepiece_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        let model = XlmRobertaTokenizer::from_bytes(bytes, name)?;
        let added = AddedWords::default();
        Ok(Self { model: Model::SentencePiece(Box::new(model)), added, bos_id: 0, pad_id: 1, eos_id: 2 })
    }

    /// From a `tokenizer.json`.
    pub fn from_tokenizer_json(path: impl AsRef<Path>) -> Result<Self> {
        let (bytes, name) = read(path.as_ref())?;
        Self::from_tokenizer_json_bytes(&bytes, &name)
    }

    /// From the contents of a `tokenizer.json`; `name` is what errors call the file. Its truncation and padding are
    /// set aside: the caller's count.
    pub fn from_tokenizer_json_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        let model = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| Error::format(name, format!("expected a tokenizer.json: {error}")))?;
        Self::from_model(model, name)
    }

    /// From a `tokenizer.json` that was made of other files, of which `name` is the first.
    fn from_json_value(json: &Value, name: &str) -> Result<Self> {
        let model = tokenizers::Tokenizer::from_bytes(json.to_string())
            .map_err(|error| Error::format(name, format!("the vocabulary cannot be used: {error}")))?;
        Self::from_model(model, name)
    }

    fn from_model(mut model: tokenizers::Tokenizer, name: &str) -> Result<Self> {
        model.with_padding(None);
        model
            .with_truncation(None)
            .map_err(|error| Error::format(name, format!("cannot be used without truncation: {error}")))?;
        let id = |token: &str| {
            let missing = || Error::format(name, format!("expected the special token {token}, found none"));
            model.token_to_id(token).ok_or_else(missing)
        };
        let family = SPECIAL_TOKENS.iter().find(|(bos, ..)| model.token_to_id(bos).is_some());
        let Some((bos, eos, pad)) = family else {
            let tokens = SPECIAL_TOKENS.map(|(bos, ..)| bos).join(", ");
            return Err(Error::format(
                name,
                format!("expected one of the tokens {tokens} before texts, found none"),
            ));
        };
        let (bos_id, eos_id, pad_id) = (id(bos)?, id(eos)?, id(pad)?);
        Ok(Self { model: Model::Json(Box::new(model)), added: AddedWords::default(), bos_id, eos_id, pad_id })
    }

    /// Number of ids: all are smaller.
    pub fn vocab_size(&self) -> usize {
        self.own_vocab_size() + self.added.ids()
    }

    fn own_vocab_size(&self) -> usize {
        match &self.model {
            Model::SentencePiece(model) => model.vocab_size(),
            Model::Json(model) => model.get_vocab_size(true),
        }
    }

    /// Takes `word`, wherever it stands in a text, for `count` tokens of its own, as textual inversion wants it. Returns the
    /// id of the first; the others follow.
    ///
    /// # Errors
    /// [`Error::Input`] when the word is empty or there already, or has no tokens.
    pub fn add_word(&mut self, word: &str, count: usize) -> Result<u32> {
        self.added.add(word, self.own_vocab_size(), count)
    }

    /// The id that rows are filled up with.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The id before every text: `<s>`, `[CLS]` or `<|startoftext|>`.
    pub fn bos_id(&self) -> u32 {
        self.bos_id
    }

    /// The id after every text: `</s>`, `[SEP]` or `<|endoftext|>`.
    pub fn eos_id(&self) -> u32 {
        self.eos_id
    }

    /// The ids of a text with `<s>` before and `</s>` after (or what the family has for them), however many there are.
    ///
    /// # Errors
    ///
    /// Only where a `tokenizer.json` holds steps that fail on this text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = vec![self.bos_id];
        let mut rest = text;
        while let Some((before, word_ids, after)) = self.added.split(rest) {
            self.encode_plain(before, &mut ids)?;
            ids.extend(word_ids);
            rest = after;
        }
        self.encode_plain(rest, &mut ids)?;
        ids.push(self.eos_id);
        Ok(ids)
    }

    /// Appends the ids of a text without added words.
    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        match &self.model {
            Model::SentencePiece(model) => model.encode_into(text, ids),
            Model::Json(model) => {
                let encoding = model
                    .encode_fast(text, false)
                    .map_err(|error| Error::Tokenizer(format!("cannot encode {text:?}: {error}")))?;
                ids.extend_from_slice(encoding.get_ids());
            }
        }
        Ok(())
    }

    /// The ids of a text, of which at most `length` are kept: the first ones and `</s>`.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode), and a `length` that has no place for `<s>` and `</s>`.
    pub fn encode_truncated(&self, text: &str, length: usize) -> Result<Vec<u32>> {
        if length < 2 {
            return Err(Error::Input(format!("expected a length of at least 2 tokens, found {length}")));
        }
        let mut ids = self.encode(text)?;
        if ids.len() > length {
            ids.truncate(length - 1);
            ids.push(self.eos_id);
        }
        Ok(ids)
    }

    /// Texts as rows of exactly `length` tokens, cut or filled up; diffusion models take [`PROMPT_LENGTH`].
    ///
    /// # Errors
    ///
    /// As [`encode_truncated`](Self::encode_truncated).
    pub fn encode_padded<S: AsRef<str>>(&self, texts: &[S], length: usize) -> Result<Encoding> {
        self.pad(&self.encode_all(texts, length)?, length)
    }

    /// Texts as rows as long as the longest of them, and at most `length` tokens.
    ///
    /// # Errors
    ///
    /// As [`encode_truncated`](Self::encode_truncated).
    pub fn encode_batch_padded<S: AsRef<str>>(&self, texts: &[S], length: usize) -> Result<Encoding> {
        self.pad_rows(&self.encode_all(texts, length)?)
    }

    /// Rows of ids, filled up to the longest of them.
    pub(crate) fn pad_rows<R: AsRef<[u32]>>(&self, rows: &[R]) -> Result<Encoding> {
        let longest = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
        self.pad(rows, longest)
    }

    fn encode_all<S: AsRef<str>>(&self, texts: &[S], length: usize) -> Result<Vec<Vec<u32>>> {
        texts.iter().map(|text| self.encode_truncated(text.as_ref(), length)).collect()
    }

    fn pad<R: AsRef<[u32]>>(&self, rows: &[R], length: usize) -> Result<Encoding> {
        let mut ids = Vec::with_capacity(rows.len() * length);
        let mut mask = Vec::with_capacity(rows.len() * length);
        for row in rows.iter().map(AsRef::as_ref) {
            let padding = length.saturating_sub(row.len());
            ids.extend_from_slice(row);
            ids.extend(std::iter::repeat_n(self.pad_id, padding));
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

fn read(path: &Path) -> Result<(Vec<u8>, String)> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(Error::io(name.clone()))?;
    Ok((bytes, name))
}
