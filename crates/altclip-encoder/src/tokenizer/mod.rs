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
mod declared;
mod family;
mod json;
mod normalizer;
pub mod sentencepiece;
mod trie;
mod unigram;
mod xlm_roberta;

use std::path::Path;

use candle_core::{Device, Tensor};
use model_files::config::without_byte_order_mark;
use model_files::source::ModelSource;

use crate::{Error, Result};

use added::{AddedTokens, Segment};
use declared::Declared;
use family::Family;
use json::JsonTokenizer;
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

/// What errors say about a vocabulary that the `tokenizers` crate refuses.
const MADE_OF_VOCABULARY: &str = "the vocabulary cannot be used";

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
    /// Tokens that are found in a text before the model sees it: special ones, added ones and learned words.
    added: AddedTokens,
    /// The largest id + 1 without learned words.
    vocab_size: usize,
    /// Rows of the embedding that ids are looked up in, where they are known.
    rows: Option<usize>,
    bos_id: u32,
    eos_id: u32,
    pad_id: u32,
}

#[derive(Debug, Clone)]
enum Model {
    SentencePiece(Box<XlmRobertaTokenizer>),
    Json(JsonTokenizer),
}

impl Model {
    fn token_id(&self, text: &str) -> Option<u32> {
        match self {
            Self::SentencePiece(model) => model.token_id(text),
            Self::Json(model) => model.token_id(text),
        }
    }

    /// The largest id + 1.
    fn end(&self) -> usize {
        match self {
            Self::SentencePiece(model) => model.vocab_size(),
            Self::Json(model) => model.end(),
        }
    }
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
        let declared = Declared::read(source, folder)?;
        if let Some(data) = source.read_optional(&path(SENTENCEPIECE_FILE))? {
            let model = XlmRobertaTokenizer::from_bytes(&data, data.name())?;
            return Self::slow(
                Model::SentencePiece(Box::new(model)),
                &xlm_roberta::FAMILY,
                &declared,
                data.name(),
            );
        }
        if let Some(data) = source.read_optional(&path(WORDPIECE_FILE))? {
            let json = bert::tokenizer_json(&data, &declared, data.name())?;
            let model = JsonTokenizer::new(json.to_string().as_bytes(), data.name(), MADE_OF_VOCABULARY)?;
            let tokenizer = Self::slow(Model::Json(model), &bert::FAMILY, &declared, data.name())?;
            return Ok(if declared.wordpiece.do_lower_case { tokenizer.in_lowercase() } else { tokenizer });
        }
        if let Some(data) = source.read_optional(&path(BPE_FILE))? {
            let merges = source.read(&path(MERGES_FILE))?;
            let json = clip::tokenizer_json(&data, &merges, (data.name(), merges.name()))?;
            let model = JsonTokenizer::new(json.to_string().as_bytes(), data.name(), MADE_OF_VOCABULARY)?;
            return Self::fast(model, &[&clip::FAMILY], &declared, data.name());
        }
        match source.read_optional(&path(TOKENIZER_JSON_FILE))? {
            Some(data) => Self::read_tokenizer_json(&data, data.name(), &declared),
            None => {
                let files = [SENTENCEPIECE_FILE, WORDPIECE_FILE, BPE_FILE].map(path).join(", ");
                Err(source.missing(&format!("{files} or {}", path(TOKENIZER_JSON_FILE))).into())
            }
        }
    }

    /// From a SentencePiece unigram model.
    pub fn from_sentencepiece(path: impl AsRef<Path>) -> Result<Self> {
        let (bytes, name) = read(path.as_ref())?;
        Self::from_sentencepiece_bytes(&bytes, &name)
    }

    /// From the contents of a SentencePiece unigram model; `name` is what errors call the file.
    pub fn from_sentencepiece_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        let model = Model::SentencePiece(Box::new(XlmRobertaTokenizer::from_bytes(bytes, name)?));
        Self::slow(model, &xlm_roberta::FAMILY, &Declared::default(), name)
    }

    /// From a `tokenizer.json`.
    pub fn from_tokenizer_json(path: impl AsRef<Path>) -> Result<Self> {
        let (bytes, name) = read(path.as_ref())?;
        Self::from_tokenizer_json_bytes(&bytes, &name)
    }

    /// From the contents of a `tokenizer.json`; `name` is what errors call the file. Its truncation and padding are
    /// set aside: the caller's count.
    pub fn from_tokenizer_json_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        Self::read_tokenizer_json(bytes, name, &Declared::default())
    }

    fn read_tokenizer_json(bytes: &[u8], name: &str, declared: &Declared) -> Result<Self> {
        let model = JsonTokenizer::new(without_byte_order_mark(bytes), name, "expected a tokenizer.json")?;
        Self::fast(model, &[&xlm_roberta::FAMILY, &bert::FAMILY, &clip::FAMILY], declared, name)
    }

    /// A tokenizer that looks for its added tokens before the model sees a text, as transformers' slow ones do.
    fn slow(model: Model, family: &Family, declared: &Declared, name: &str) -> Result<Self> {
        let added = family.added_tokens(declared, |text| model.token_id(text), model.end());
        let ids = |text: &str| added.id(text).or_else(|| model.token_id(text));
        let [bos_id, eos_id, pad_id] = family.around(declared, ids, name)?;
        family.id("unk_token", declared, ids, name)?;
        let vocab_size = model.end().max(added.end());
        let added = if declared.as_text { AddedTokens::default() } else { added };
        Ok(Self { model, added, vocab_size, rows: None, bos_id, eos_id, pad_id })
    }

    /// A tokenizer whose model looks for added tokens itself, as transformers' fast ones do.
    fn fast(mut model: JsonTokenizer, families: &[&Family], declared: &Declared, name: &str) -> Result<Self> {
        model.add(declared)?;
        let is_there = |family: &&&Family| model.token_id(family.text(declared, family.before)).is_some();
        let Some(family) = families.iter().find(is_there) else {
            let tokens: Vec<&str> =
                families.iter().map(|family| family.text(declared, family.before)).collect();
            return Err(Error::format(
                name,
                format!("expected one of the tokens {} before texts, found none", tokens.join(", ")),
            ));
        };
        let [bos_id, eos_id, pad_id] = family.around(declared, |text| model.token_id(text), name)?;
        let (vocab_size, model) = (model.end(), Model::Json(model));
        Ok(Self { model, added: AddedTokens::default(), vocab_size, rows: None, bos_id, eos_id, pad_id })
    }

    fn in_lowercase(self) -> Self {
        Self { added: self.added.in_lowercase(), ..self }
    }

    /// The same for a model whose embedding has `rows` rows. A text with a token beyond them, as one that was added to the
    /// vocabulary and not to the model, is then an error that names it.
    #[must_use]
    pub fn with_embedding_rows(self, rows: usize) -> Self {
        Self { rows: Some(rows), ..self }
    }

    /// The added tokens without a row in [the embedding](Self::with_embedding_rows), by their ids.
    pub fn tokens_without_embedding(&self) -> Vec<String> {
        let Some(rows) = self.rows else { return Vec::new() };
        let of_model: Vec<(&str, u32)> = match &self.model {
            Model::SentencePiece(_) => Vec::new(),
            Model::Json(model) => model.added_tokens().collect(),
        };
        let without = |(_, id): &(&str, u32)| (rows..self.vocab_size).contains(&(*id as usize));
        let mut tokens: Vec<(&str, u32)> =
            of_model.into_iter().chain(self.added.iter()).filter(without).collect();
        tokens.sort_unstable_by_key(|(_, id)| *id);
        tokens.into_iter().map(|(token, _)| token.to_owned()).collect()
    }

    /// Number of ids: all are smaller.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size.max(self.added.end())
    }

    /// Takes `word`, wherever it stands in a text, for `count` tokens of its own, as textual inversion wants it. Returns the
    /// id of the first; the others follow.
    ///
    /// # Errors
    /// [`Error::Input`] when the word is empty or there already, or has no tokens.
    pub fn add_word(&mut self, word: &str, count: usize) -> Result<u32> {
        self.added.add_word(word, self.vocab_size(), count)
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
    /// Where a `tokenizer.json` holds steps that fail on this text, or the text has a token
    /// [without an embedding](Self::with_embedding_rows).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = vec![self.bos_id];
        for segment in self.added.split(text) {
            match (segment, &self.model) {
                (Segment::Token(token), _) => ids.extend(token),
                (Segment::Text(text), Model::SentencePiece(model)) => model.encode_into(&text, &mut ids),
                (Segment::Text(text), Model::Json(model)) => model.encode_into(&text, &mut ids)?,
            }
        }
        ids.push(self.eos_id);
        self.check_rows(&ids)?;
        Ok(ids)
    }

    /// Every id that is no learned word's has an embedding.
    fn check_rows(&self, ids: &[u32]) -> Result<()> {
        let Some(rows) = self.rows else { return Ok(()) };
        let Some(&id) = ids.iter().find(|&&id| (rows..self.vocab_size).contains(&(id as usize))) else {
            return Ok(());
        };
        let token = self.added.text(id).map(str::to_owned).or_else(|| match &self.model {
            Model::SentencePiece(_) => None,
            Model::Json(model) => model.token(id),
        });
        Err(Error::Tokenizer(format!(
            "the token {} has the id {id}, and the model has embeddings of {rows} tokens only",
            token.map_or_else(String::new, |token| format!("{token:?}"))
        )))
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
