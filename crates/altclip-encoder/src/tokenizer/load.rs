//! Loads a tokenizer from a model's files.

use std::path::Path;

use model_files::config::without_byte_order_mark;
use model_files::read_input;
use model_files::source::ModelSource;

use super::added::AddedTokens;
use super::declared::Declared;
use super::json::JsonTokenizer;
use super::model::TokenModel;
use super::siglip::SiglipTokenizer;
use super::special_tokens::SpecialTokens;
use super::xlm_roberta::XlmRobertaTokenizer;
use super::{Tokenizer, bert, clip, gemma, nllb, siglip, xlm_roberta};
use crate::{Error, Result};

pub(super) const SENTENCEPIECE_FILE: &str = "sentencepiece.bpe.model";
/// SigLIP's name for it.
pub(super) const SIGLIP_FILE: &str = "spiece.model";
pub(super) const WORDPIECE_FILE: &str = "vocab.txt";
/// Wukong's name for it.
const WUKONG_FILE: &str = "vocab_zh.txt";
pub(super) const BPE_FILE: &str = "vocab.json";
pub(super) const MERGES_FILE: &str = "merges.txt";
pub(super) const TOKENIZER_JSON_FILE: &str = "tokenizer.json";

/// The largest file read, in bytes.
const MOST_BYTES: u64 = 1 << 30;
/// What errors say about a vocabulary that the `tokenizers` crate rejects.
const MADE_OF_VOCABULARY: &str = "the vocabulary cannot be used";

impl Tokenizer {
    /// Loads the tokenizer in a model's folder (`tokenizer` in AltDiffusion's layout, "" for the root): from
    /// `sentencepiece.bpe.model` (XLM-R), `spiece.model` (SigLIP), `vocab.txt` (BERT; `vocab_zh.txt`, Wukong), `vocab.json` and `merges.txt` (CLIP), or else from
    /// `tokenizer.json`.
    ///
    /// # Errors
    /// If the folder has none of these files, or one is damaged; for all but SentencePiece, also if the feature
    /// `tokenizer-json` is off.
    pub fn from_source(source: &ModelSource, folder: &str) -> Result<Self> {
        let path = |file: &str| if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
        let declared = Declared::read(source, folder)?;
        if nllb::CLASSES.contains(&declared.class.as_str()) {
            // Its SentencePiece model is of another kind than the others'.
            let data = source.read(&path(TOKENIZER_JSON_FILE))?;
            return Self::read_tokenizer_json(&data, data.name(), &declared);
        }
        if let Some(data) = source.read_optional(&path(SENTENCEPIECE_FILE))? {
            let model = XlmRobertaTokenizer::from_bytes(&data, data.name())?;
            return Self::slow(
                TokenModel::SentencePiece(Box::new(model)),
                &xlm_roberta::SPECIAL_TOKENS,
                &declared,
                data.name(),
            );
        }
        if let Some(data) = source.read_optional(&path(SIGLIP_FILE))? {
            let lowercase = declared.wordpiece.do_lower_case;
            let model = SiglipTokenizer::from_bytes(&data, lowercase, data.name())?;
            let model = TokenModel::Siglip(Box::new(model));
            return Self::slow(model, &siglip::SPECIAL_TOKENS, &declared, data.name());
        }
        if let Some(data) = source.read_optional(&path(WORDPIECE_FILE))? {
            let json = bert::tokenizer_json(&data, &declared, data.name())?;
            let model = JsonTokenizer::new(json.to_string().as_bytes(), data.name(), MADE_OF_VOCABULARY)?;
            let mut tokenizer =
                Self::slow(TokenModel::Json(model), &bert::SPECIAL_TOKENS, &declared, data.name())?;
            if declared.wordpiece.do_lower_case {
                tokenizer.added = tokenizer.added.in_lowercase();
            }
            return Ok(tokenizer);
        }
        if let Some(data) = source.read_optional(&path(WUKONG_FILE))? {
            let json = bert::tokenizer_json(&data, &declared, data.name())?;
            let model = JsonTokenizer::new(json.to_string().as_bytes(), data.name(), MADE_OF_VOCABULARY)?;
            let mut tokenizer =
                Self::slow(TokenModel::Json(model), &bert::SPECIAL_TOKENS, &declared, data.name())?;
            tokenizer.added = bert::words_of_wukong(|token| tokenizer.model.token_id(token));
            return Ok(tokenizer);
        }
        if let Some(data) = source.read_optional(&path(BPE_FILE))? {
            let merges = source.read(&path(MERGES_FILE))?;
            let json = clip::tokenizer_json(&data, &merges, (data.name(), merges.name()))?;
            let model = JsonTokenizer::new(json.to_string().as_bytes(), data.name(), MADE_OF_VOCABULARY)?;
            return Self::fast(model, &[&clip::SPECIAL_TOKENS], &declared, data.name());
        }
        match source.read_optional(&path(TOKENIZER_JSON_FILE))? {
            Some(data) => Self::read_tokenizer_json(&data, data.name(), &declared),
            None => {
                let files = [SENTENCEPIECE_FILE, SIGLIP_FILE, WORDPIECE_FILE, WUKONG_FILE, BPE_FILE]
                    .map(path)
                    .join(", ");
                Err(source.missing(&format!("{files} or {}", path(TOKENIZER_JSON_FILE))).into())
            }
        }
    }

    /// Reads a SentencePiece unigram model.
    ///
    /// # Errors
    /// If the file cannot be read; also like [`from_sentencepiece_bytes`](Self::from_sentencepiece_bytes).
    pub fn from_sentencepiece(path: impl AsRef<Path>) -> Result<Self> {
        let (bytes, name) = read(path.as_ref())?;
        Self::from_sentencepiece_bytes(&bytes, &name)
    }

    /// Parses a SentencePiece unigram model; `name` is used in errors.
    ///
    /// # Errors
    /// If it is damaged, or not a unigram model.
    pub fn from_sentencepiece_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        let model = TokenModel::SentencePiece(Box::new(XlmRobertaTokenizer::from_bytes(bytes, name)?));
        Self::slow(model, &xlm_roberta::SPECIAL_TOKENS, &Declared::default(), name)
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be read; also like [`from_tokenizer_json_bytes`](Self::from_tokenizer_json_bytes).
    pub fn from_tokenizer_json(path: impl AsRef<Path>) -> Result<Self> {
        let (bytes, name) = read(path.as_ref())?;
        Self::from_tokenizer_json_bytes(&bytes, &name)
    }

    /// Parses a `tokenizer.json`; `name` is used in errors. Its truncation and padding are ignored in favour of the
    /// caller's.
    ///
    /// # Errors
    /// If it is damaged, or the feature `tokenizer-json` is off.
    pub fn from_tokenizer_json_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        Self::read_tokenizer_json(bytes, name, &Declared::default())
    }

    fn read_tokenizer_json(bytes: &[u8], name: &str, declared: &Declared) -> Result<Self> {
        let mut model =
            JsonTokenizer::new(without_byte_order_mark(bytes), name, "expected a tokenizer.json")?;
        if gemma::CLASSES.contains(&declared.class.as_str()) {
            // SigLIP 2 was trained on lower case; the published files leave that to the caller.
            model.lowercase(name)?;
            return Self::fast(model, &[&gemma::SPECIAL_TOKENS], declared, name);
        }
        if nllb::CLASSES.contains(&declared.class.as_str()) {
            return Self::fast(model, &[&nllb::SPECIAL_TOKENS], declared, name);
        }
        Self::fast(
            model,
            &[&xlm_roberta::SPECIAL_TOKENS, &bert::SPECIAL_TOKENS, &clip::SPECIAL_TOKENS],
            declared,
            name,
        )
    }

    /// A tokenizer that matches added tokens before its model, like transformers' slow ones.
    fn slow(model: TokenModel, family: &SpecialTokens, declared: &Declared, name: &str) -> Result<Self> {
        let added = family.added_tokens(declared, |text| model.token_id(text), model.end());
        let ids = |text: &str| added.id(text).or_else(|| model.token_id(text));
        let around = family.around(declared, ids, name)?;
        family.id("unk_token", declared, ids, name)?;
        let vocab_size = model.end().max(added.end());
        let added = if declared.as_text { AddedTokens::default() } else { added };
        let max_length = declared.max_length;
        Ok(Self { model, added, vocab_size, rows: None, max_length, around })
    }

    /// A tokenizer whose model matches added tokens itself, like transformers' fast ones.
    fn fast(
        mut model: JsonTokenizer,
        families: &[&SpecialTokens],
        declared: &Declared,
        name: &str,
    ) -> Result<Self> {
        model.add(declared)?;
        let is_there = |family: &&&SpecialTokens| {
            family.before.is_none_or(|role| model.token_id(family.text(declared, role)).is_some())
        };
        let Some(family) = families.iter().find(is_there) else {
            let tokens: Vec<&str> =
                families.iter().filter_map(|family| Some(family.text(declared, family.before?))).collect();
            return Err(Error::format(
                name,
                format!("expected one of the tokens {} before texts, found none", tokens.join(", ")),
            ));
        };
        let around = family.around(declared, |text| model.token_id(text), name)?;
        Ok(Self {
            vocab_size: model.end(),
            model: TokenModel::Json(model),
            added: AddedTokens::default(),
            rows: None,
            max_length: declared.max_length,
            around,
        })
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, String)> {
    let name = path.display().to_string();
    let bytes = read_input(path, MOST_BYTES).map_err(Error::io(name.clone()))?;
    Ok((bytes, name))
}
