//! Runs a `tokenizer.json` through the `tokenizers` crate, and rejects files that crash it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model_files::foreign;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::normalizers::{Lowercase, Sequence};

use super::added::AddedToken;
use super::declared::{Declared, Special};
use crate::{Error, Result};

/// The crate's tokenizer, without the file's truncation, padding and post-processing.
#[derive(Debug, Clone)]
pub(super) struct JsonTokenizer {
    model: Box<tokenizers::Tokenizer>,
    /// Added tokens whose ids differ from the crate's.
    ids: BTreeMap<u32, u32>,
    /// The largest id + 1.
    end: usize,
    /// The file's name, for errors.
    name: String,
}

impl JsonTokenizer {
    /// Reads a `tokenizer.json`; `name` is the file's name in errors, and `expected` what it should be.
    ///
    /// # Errors
    /// If the file is damaged.
    pub(super) fn new(json: &[u8], name: &str, expected: &str) -> Result<Self> {
        check_rules(json).map_err(|problem| Error::format(name, format!("{expected}: {problem}")))?;
        let problem = |error| Error::format(name, format!("{expected}: {error}"));
        let mut model = foreign::parse(name, || tokenizers::Tokenizer::from_bytes(json).map_err(problem))?;
        model.with_padding(None);
        model.with_truncation(None).map_err(problem)?;
        let mut tokenizer =
            Self { model: Box::new(model), ids: BTreeMap::new(), end: 0, name: name.to_owned() };
        tokenizer.find_end();
        Ok(tokenizer)
    }

    /// Adds the tokens from the files beside it.
    ///
    /// Tokens in the file itself keep their ids, as in transformers' fast tokenizers. Others get the ids in the files
    /// beside it, as in its slow ones; the fast ones continue after the vocabulary, which is the same unless ids are
    /// skipped.
    ///
    /// # Errors
    /// If a token cannot be normalized.
    pub(super) fn add(&mut self, declared: &Declared) -> Result<()> {
        let mut tokens: Vec<AddedToken> = declared.tokens.values().cloned().collect();
        let special = declared.special.values().chain(&declared.more_special).map(Special::text);
        for text in special {
            let is_there = tokens.iter().any(|token| token.content == text)
                || self.model.get_added_vocabulary().get_vocab().contains_key(text);
            if !is_there {
                let named = declared.special.values().chain(&declared.more_special);
                tokens.extend(
                    named.filter(|token| token.text() == text).map(|token| token.token(false)).next(),
                );
            }
        }
        let new: Vec<(u32, &AddedToken)> = declared
            .tokens
            .iter()
            .filter(|(_, token)| self.model.token_to_id(&token.content).is_none())
            .map(|(&id, token)| (id, token))
            .collect();
        let name = &self.name;
        let model = &mut self.model;
        foreign::parse(name, || {
            model
                .add_tokens(tokens.into_iter().map(in_crate))
                .map(|_| ())
                .map_err(|error| Error::format(name, format!("cannot add tokens: {error}")))
        })?;
        for (id, token) in new {
            if let Some(given) = self.model.token_to_id(&token.content).filter(|&given| given != id) {
                self.ids.insert(given, id);
            }
        }
        self.model.set_encode_special_tokens(declared.as_text);
        self.find_end();
        Ok(())
    }

    /// Lower-cases text, but not added tokens, before the file's own normalization.
    ///
    /// # Errors
    /// If the model cannot be changed.
    pub(super) fn lowercase(&mut self, name: &str) -> Result<()> {
        let own = self.model.get_normalizer().cloned();
        let steps = [Lowercase.into()].into_iter().chain(own).collect();
        let model = &mut self.model;
        foreign::parse(name, || {
            model
                .with_normalizer(Some(Sequence::new(steps)))
                .map(|_| ())
                .map_err(|error| Error::format(name, format!("cannot lower-case texts: {error}")))
        })
    }

    fn find_end(&mut self) {
        let ids = self.model.get_vocab(true).into_values().map(|id| self.id(id));
        self.end = ids.max().map_or(0, |id| id as usize + 1);
    }

    fn id(&self, given: u32) -> u32 {
        self.ids.get(&given).copied().unwrap_or(given)
    }

    /// The largest id + 1.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// The id of a token.
    pub(super) fn token_id(&self, text: &str) -> Option<u32> {
        self.model.token_to_id(text).map(|id| self.id(id))
    }

    /// Each added token with its id.
    pub(super) fn added_tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        let tokens = self.model.get_added_vocabulary().get_vocab();
        tokens.iter().map(|(token, &id)| (token.as_str(), self.id(id)))
    }

    /// The token with an id.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        let given = self.ids.iter().find(|(_, own)| **own == id).map_or(id, |(given, _)| *given);
        self.model.id_to_token(given)
    }

    /// Appends the ids of a text.
    ///
    /// # Errors
    /// If a step that the file describes fails on this text.
    pub(super) fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let encoding = foreign::parse(&self.name, || {
            self.model
                .encode_fast(text, false)
                .map_err(|error| Error::Tokenizer(format!("cannot encode {text:?}: {error}")))
        })?;
        ids.extend(encoding.get_ids().iter().map(|&id| self.id(id)));
        Ok(())
    }
}

/// Converts a token to the crate's type.
fn in_crate(token: AddedToken) -> tokenizers::AddedToken {
    let AddedToken { content, single_word, lstrip, rstrip, normalized, special } = token;
    tokenizers::AddedToken { content, single_word, lstrip, rstrip, normalized, special }
}

/// Checks SentencePiece's compiled rules: the crate trusts their size before reading them, and could allocate up to
/// eight gigabytes.
fn check_rules(json: &[u8]) -> std::result::Result<(), String> {
    #[derive(Deserialize)]
    struct Steps {
        normalizer: Option<Value>,
    }

    let steps: Steps = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut left: Vec<&Value> = steps.normalizer.iter().collect();
    while let Some(value) = left.pop() {
        match value {
            Value::Array(values) => left.extend(values),
            Value::Object(fields) => {
                left.extend(fields.values());
                if let Some(rules) = fields.get("precompiled_charsmap") {
                    let text = rules.as_str().ok_or("precompiled_charsmap: expected a text in base64")?;
                    let size = leading_u32(text).ok_or("precompiled_charsmap: expected at least 4 bytes")?;
                    let bytes = text.len() / 4 * 3;
                    if size as usize > bytes {
                        return Err(format!(
                            "precompiled_charsmap: expected a trie of at most its {bytes} bytes, found {size}"
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first four bytes of a base64 text, little-endian.
fn leading_u32(text: &str) -> Option<u32> {
    let bytes = STANDARD.decode(text.as_bytes().get(..8)?).ok()?;
    bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}
