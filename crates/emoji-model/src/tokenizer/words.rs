//! Splits texts into words, within which pieces are sought.

use std::collections::BTreeMap;

use altclip_encoder::tokenizer::Normalizer;
use altclip_encoder::tokenizer::sentencepiece::NormalizerSpec;

use super::error::UnigramError;

/// `▁`, the space mark.
const SPACE: char = '\u{2581}';

/// A stretch of text that pieces do not cross.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CountedWord {
    pub(super) text: String,
    /// Its number of occurrences.
    pub(super) count: u64,
}

/// The distinct words of the texts, in order.
pub(super) fn count(
    texts: impl IntoIterator<Item = String>,
    rules: &NormalizerSpec,
) -> Result<Vec<CountedWord>, UnigramError> {
    let normalizer = Normalizer::from_spec(rules, "normalisation rules")?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut normalized = Vec::new();
    for text in texts {
        normalizer.normalize(&text, &mut normalized);
        for word in split(&String::from_utf8_lossy(&normalized)) {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.to_owned(), 1)),
            }
        }
    }
    Ok(counts.into_iter().map(|(text, count)| CountedWord { text, count }).collect())
}

/// Decides whether neighbouring characters can share a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CharacterKind {
    Space,
    /// Letters and marks of scripts with spaces between words.
    Spaced,
    /// Letters of scripts without.
    Unspaced,
    Digit,
    Punctuation,
}

fn kind(character: char) -> CharacterKind {
    match character {
        SPACE => CharacterKind::Space,
        '0'..='9' => CharacterKind::Digit,
        // General and CJK punctuation, with the full-width forms.
        '\u{2010}'..='\u{206F}'
        | '\u{3000}'..='\u{303F}'
        | '\u{FF01}'..='\u{FF0F}'
        | '\u{FF1A}'..='\u{FF20}' => CharacterKind::Punctuation,
        // Kana, Chinese characters and their extensions; Thai, Lao, Burmese, Khmer.
        '\u{3040}'..='\u{30FF}'
        | '\u{31F0}'..='\u{31FF}'
        | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}' => CharacterKind::Unspaced,
        '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}' => CharacterKind::Unspaced,
        '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' => {
            CharacterKind::Unspaced
        }
        character if character.is_ascii() && !character.is_ascii_alphabetic() => CharacterKind::Punctuation,
        _ => CharacterKind::Spaced,
    }
}

/// Splits a text before each space, around punctuation and where the kind of letters changes. The space mark goes
/// with the following word, except in scripts without spaces.
fn split(text: &str) -> Vec<&str> {
    let together = |before: CharacterKind, after: CharacterKind| match (before, after) {
        (_, CharacterKind::Space) | (_, CharacterKind::Punctuation) => false,
        (CharacterKind::Space, after) => after != CharacterKind::Unspaced,
        (before, after) => before == after,
    };
    let mut words = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, character) in text.char_indices() {
        let kind = kind(character);
        if before.is_some_and(|before| !together(before, kind)) {
            words.push(&text[start..at]);
            start = at;
        }
        before = Some(kind);
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_end_where_pieces_may_not_cross() {
        let expected: [(&str, &[&str]); 6] = [
            ("▁a▁red▁apple", &["▁a", "▁red", "▁apple"]),
            ("▁一只猫", &["▁", "一只猫"]),
            ("▁T恤,好", &["▁T", "恤", ",", "好"]),
            ("▁1st▁(x)!!", &["▁1", "st", "▁", "(", "x", ")", "!", "!"]),
            ("▁Ägypten", &["▁Ägypten"]),
            ("", &[]),
        ];
        for (text, words) in expected {
            assert_eq!(split(text), words);
        }
    }
}
