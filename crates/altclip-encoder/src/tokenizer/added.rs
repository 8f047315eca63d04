//! Finds added tokens in a text, like transformers' slow tokenizers: special tokens, tokens added to a vocabulary
//! later, and learned words.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::trie::Trie;
use crate::{Error, Result};

/// An added token and how it is matched (transformers' `AddedToken`).
#[derive(Debug, Clone, Default)]
pub(super) struct AddedToken {
    pub content: String,
    /// Whether it only matches whole words.
    pub single_word: bool,
    /// Whether it absorbs white space before it.
    pub lstrip: bool,
    /// Whether it absorbs white space after it.
    pub rstrip: bool,
    /// Whether it is matched in normalized text.
    pub normalized: bool,
    pub special: bool,
}

impl AddedToken {
    /// A token that absorbs no white space. One that is not special is matched in normalized text.
    pub(super) fn new(content: impl Into<String>, special: bool) -> Self {
        Self { content: content.into(), special, normalized: !special, ..Self::default() }
    }
}

/// Added tokens with their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct AddedTokens {
    tokens: Vec<(AddedToken, Range<u32>)>,
    /// Their texts, with indices into the list.
    texts: Option<Trie>,
    /// Whether text is lower-cased before matching.
    lowercase: bool,
}

/// A part of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Segment<'a> {
    /// For the model to tokenize.
    Text(Cow<'a, str>),
    /// The ids of an added token.
    Token(Range<u32>),
}

impl AddedTokens {
    /// Tokens with one id each. For a repeated text, the last id counts.
    pub(super) fn new(tokens: Vec<(AddedToken, u32)>) -> Self {
        let mut seen = HashSet::new();
        let mut added = Self::default();
        for (token, id) in tokens.into_iter().rev() {
            if seen.insert(token.content.clone()) {
                // The id u32::MAX has no successor; no vocabulary reaches it.
                added.tokens.push((token, id..id.saturating_add(1)));
            }
        }
        added.tokens.reverse();
        added.index();
        added
    }

    /// Lower-cases text before matching, except for the special and normalized tokens in it.
    pub(super) fn in_lowercase(self) -> Self {
        Self { lowercase: true, ..self }
    }

    fn index(&mut self) {
        let texts: Vec<&[u8]> = self.tokens.iter().map(|(token, _)| token.content.as_bytes()).collect();
        self.texts = if texts.is_empty() { None } else { Trie::new(&texts) };
    }

    /// The largest id + 1.
    pub(super) fn end(&self) -> usize {
        self.tokens.iter().map(|(_, ids)| ids.end as usize).max().unwrap_or(0)
    }

    /// Each token with its first id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.tokens.iter().map(|(token, ids)| (token.content.as_str(), ids.start))
    }

    /// The token with an id.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.tokens.iter().find(|(_, ids)| ids.contains(&id)).map(|(token, _)| token.content.as_str())
    }

    /// The first id of a token.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.tokens.iter().find(|(token, _)| token.content == text).map(|(_, ids)| ids.start)
    }

    /// Adds a word with `count` ids from `first` on.
    ///
    /// # Errors
    /// [`Error::Input`] if the word is empty or exists already, or has no ids.
    pub(super) fn add_word(&mut self, word: &str, first: usize, count: usize) -> Result<u32> {
        if word.trim().is_empty() || count == 0 {
            return Err(Error::Input(format!(
                "added word: expected a word with tokens, found {word:?} with {count}"
            )));
        }
        if self.id(word).is_some() {
            return Err(Error::Input(format!("added word {word:?}: expected another, it is there already")));
        }
        let ids = u32::try_from(first).ok().zip(u32::try_from(first.saturating_add(count)).ok());
        let Some((first, end)) = ids else {
            return Err(Error::Input(format!("added word {word:?}: has too many tokens, {count}")));
        };
        self.tokens.push((AddedToken::new(word, false), first..end));
        self.index();
        Ok(first)
    }

    /// Splits a text at its added tokens, leftmost first and then longest.
    ///
    /// White space goes to the tokens that absorb it, and a `single_word` next to anything but a space is text
    /// (transformers' `PreTrainedTokenizer.tokenize`).
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Segment<'a>> {
        let Some(texts) = &self.texts else { return vec![Segment::Text(Cow::Borrowed(text))] };
        let mut parts = match self.lowercased(text, texts) {
            Cow::Borrowed(text) => cut(text, texts),
            Cow::Owned(text) => cut(&text, texts).into_iter().map(|part| part.into_owned().into()).collect(),
        };
        for at in 0..parts.len() {
            let Some((token, _)) = self.find(&parts[at], texts) else { continue };
            if token.rstrip
                && let Some(right) = parts.get_mut(at + 1)
            {
                *right = right.trim_start_matches(is_python_space).to_owned().into();
            }
            if token.lstrip
                && let Some(left) = at.checked_sub(1).and_then(|at| parts.get_mut(at))
            {
                *left = left.trim_end_matches(is_python_space).to_owned().into();
            }
            if token.single_word {
                let beside = |part: Option<&Cow<str>>, space: fn(&str) -> bool| {
                    part.is_some_and(|part| !part.is_empty() && !space(part))
                };
                if beside(at.checked_sub(1).and_then(|at| parts.get(at)), |left| left.ends_with(' ')) {
                    parts[at - 1].to_mut().push_str(&token.content);
                    parts[at] = Cow::Borrowed("");
                } else if beside(parts.get(at + 1), |right| right.starts_with(' ')) {
                    parts[at + 1].to_mut().insert_str(0, &token.content);
                    parts[at] = Cow::Borrowed("");
                }
            }
        }
        let segments = parts.into_iter().filter(|part| !part.is_empty());
        segments
            .map(|part| match self.find(&part, texts) {
                Some((_, ids)) => Segment::Token(ids.clone()),
                None => Segment::Text(part),
            })
            .collect()
    }

    fn find(&self, text: &str, texts: &Trie) -> Option<&(AddedToken, Range<u32>)> {
        self.tokens.get(texts.get(text.as_bytes())? as usize)
    }

    /// Lower-cases the text around tokens that keep their case, special ones before others.
    fn lowercased<'a>(&self, text: &'a str, texts: &Trie) -> Cow<'a, str> {
        if !self.lowercase || !text.chars().any(|character| character.to_lowercase().ne([character])) {
            return Cow::Borrowed(text);
        }
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let kept = texts.longest_prefix(rest.as_bytes()).and_then(|_| {
                let keeping = |special: bool| {
                    let tokens = self.tokens.iter().map(|(token, _)| token);
                    let mut kept =
                        tokens.filter(|token| token.special == special && (special || token.normalized));
                    kept.find_map(|token| {
                        rest.split_at_checked(token.content.len())
                            .filter(|(prefix, _)| *prefix == token.content)
                    })
                };
                keeping(true).or_else(|| keeping(false))
            });
            match kept {
                Some((token, after)) => {
                    result.push_str(token);
                    rest = after;
                }
                None => {
                    result.extend(character.to_lowercase());
                    rest = &rest[character.len_utf8()..];
                }
            }
        }
        result.into()
    }
}

/// Splits a text before, at and after each token.
fn cut<'a>(text: &'a str, texts: &Trie) -> Vec<Cow<'a, str>> {
    let (mut parts, mut from, mut at) = (Vec::new(), 0, 0);
    while let Some(character) = text[at..].chars().next() {
        match texts.longest_prefix(&text.as_bytes()[at..]).filter(|&length| length > 0) {
            Some(length) => {
                if from < at {
                    parts.push(Cow::Borrowed(&text[from..at]));
                }
                parts.push(Cow::Borrowed(&text[at..at + length]));
                at += length;
                from = at;
            }
            None => at += character.len_utf8(),
        }
    }
    if from < text.len() {
        parts.push(Cow::Borrowed(&text[from..]));
    }
    parts
}

/// Whether Python's `str.strip` strips it: Unicode white space, and ASCII's four separators.
pub(super) fn is_python_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_longest_token_counts() -> Result<()> {
        let mut tokens = AddedTokens::default();
        assert_eq!(tokens.add_word("<cat>", 10, 1)?, 10);
        assert_eq!(tokens.add_word("<cat>s", 11, 3)?, 11);
        assert_eq!(tokens.add_word("狗", 14, 1)?, 14);
        assert_eq!((tokens.end(), tokens.text(13), tokens.id("狗")), (15, Some("<cat>s"), Some(14)));
        let text = |text| Segment::Text(Cow::Borrowed(text));
        let found = [text("two "), Segment::Token(11..14), text(", 一只"), Segment::Token(14..15)];
        assert_eq!(tokens.split("two <cat>s, 一只狗"), found);
        assert_eq!(tokens.split("a cat"), [text("a cat")]);
        assert_eq!(tokens.split(""), []);
        for (word, count) in [("<cat>", 1), (" ", 1), ("x", 0)] {
            assert!(tokens.add_word(word, 15, count).is_err());
        }
        assert!(tokens.add_word("x", u32::MAX as usize, 1).is_err());
        Ok(())
    }
}
