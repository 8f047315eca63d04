//! Describes a tokenizer family's special tokens, and finds their ids.

use super::added::{AddedToken, AddedTokens};
use super::declared::{Declared, Special};
use crate::{Error, Result};

/// The special tokens of a family of tokenizers.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// The role of each in transformers, and its default text.
    pub tokens: &'static [(&'static str, &'static str)],
    /// The role of the token before every text, if there is one.
    pub before: Option<&'static str>,
    /// The role of the token after every text.
    pub after: &'static str,
    /// Whether the mask token absorbs white space before it by default.
    pub mask_takes_space: bool,
}

/// The ids around a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    /// Before it.
    pub bos_id: Option<u32>,
    /// After it.
    pub eos_id: u32,
    pub pad_id: u32,
}

impl SpecialTokens {
    /// The text of the special token with this role.
    pub(super) fn text<'a>(&self, declared: &'a Declared, role: &str) -> &'a str {
        let own = || self.tokens.iter().find(|(other, _)| *other == role).map_or("", |(_, text)| text);
        declared.special.get(role).map_or_else(own, Special::text)
    }

    /// The tokens to match before the model, with their ids; `id` finds a token in the model's own vocabulary, which
    /// has `end` ids.
    ///
    /// Special tokens missing from the vocabulary get the ids after it if the files name them; the family's defaults
    /// are left out.
    pub(super) fn added_tokens(
        &self,
        declared: &Declared,
        id: impl Fn(&str) -> Option<u32>,
        end: usize,
    ) -> AddedTokens {
        let mut tokens: Vec<(AddedToken, u32)> =
            declared.tokens.iter().map(|(&id, token)| (token.clone(), id)).collect();
        let own = self.tokens.iter().map(|&(role, text)| {
            let token = declared.special.get(role).cloned();
            let lstrip = self.mask_takes_space && role == "mask_token";
            token.unwrap_or_else(|| Special::Text(text.to_owned())).token(lstrip)
        });
        let others =
            declared.special.iter().filter(|(role, _)| !self.tokens.iter().any(|(own, _)| own == *role));
        let others =
            others.map(|(_, token)| token).chain(&declared.more_special).map(|token| token.token(false));
        let mut next = tokens.iter().map(|(_, id)| *id as usize + 1).fold(end, usize::max);
        for (token, named) in own.map(|token| (token, false)).chain(others.map(|token| (token, true))) {
            if tokens.iter().any(|(other, _)| other.content == token.content) || token.content.is_empty() {
                continue;
            }
            if let Some(id) = id(&token.content) {
                tokens.push((token, id));
            } else if let Some(id) = u32::try_from(next).ok().filter(|_| named) {
                tokens.push((token, id));
                next += 1;
            }
        }
        tokens.retain(|(token, _)| !token.content.is_empty());
        AddedTokens::new(tokens)
    }

    /// The ids of the tokens before a text, after it, and for padding.
    ///
    /// # Errors
    /// If the vocabulary lacks one of them.
    pub(super) fn around(
        &self,
        declared: &Declared,
        id: impl Fn(&str) -> Option<u32>,
        name: &str,
    ) -> Result<Around> {
        let id = |role: &str| self.id(role, declared, &id, name);
        let bos_id = self.before.map(id).transpose()?;
        Ok(Around { bos_id, eos_id: id(self.after)?, pad_id: id("pad_token")? })
    }

    /// The id of the special token with this role.
    ///
    /// # Errors
    /// If the vocabulary lacks it.
    pub(super) fn id(
        &self,
        role: &str,
        declared: &Declared,
        id: impl Fn(&str) -> Option<u32>,
        name: &str,
    ) -> Result<u32> {
        let token = self.text(declared, role);
        let missing = || Error::format(name, format!("expected the special token {token}, found none"));
        id(token).ok_or_else(missing)
    }
}
