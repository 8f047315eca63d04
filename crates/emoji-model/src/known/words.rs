//! Splits texts into words or, in scripts without spaces, into groups of letters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A word is known by its first letters, since many languages change its end.
const STEM: usize = 6;
/// Chinese numerals, which are read as 一: captions have no other before measure words.
const NUMERALS: [char; 10] = ['二', '两', '三', '四', '五', '六', '七', '八', '九', '十'];

/// The script of a letter, as far as the languages of the data set need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Script {
    /// Of European languages, Turkish and Vietnamese.
    Latin,
    /// Of Russian and Ukrainian.
    Cyrillic,
    /// Of Arabic.
    Arabic,
    /// Of Hindi.
    Devanagari,
    /// Of Thai.
    Thai,
    /// Of Korean.
    Hangul,
    /// Of Chinese, and Japanese with its kana.
    Han,
    /// Any other.
    Other,
}

impl Script {
    /// The script of a letter.
    pub fn of(letter: char) -> Self {
        match letter {
            'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Self::Latin,
            '\u{400}'..='\u{52f}' => Self::Cyrillic,
            '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' => Self::Arabic,
            '\u{900}'..='\u{97f}' => Self::Devanagari,
            '\u{e00}'..='\u{e7f}' => Self::Thai,
            '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7af}' => Self::Hangul,
            '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' => Self::Han,
            _ => Self::Other,
        }
    }

    /// How many letters together are looked up, if there are no spaces between words.
    fn group(self) -> Option<usize> {
        match self {
            Self::Han => Some(2),
            // Has fewer letters, so that pairs of them are in all texts.
            Self::Thai => Some(3),
            _ => None,
        }
    }
}

/// A word, or the letters between two marks in a script without spaces.
struct Word {
    letters: Vec<char>,
    group: Option<usize>,
}

impl Word {
    /// The number of letters that are known.
    fn known(&self, is_known: impl Fn(&str) -> bool) -> usize {
        let Some(longest) = self.group else {
            return if is_known(&stem(&self.letters)) { self.letters.len() } else { 0 };
        };
        let mut known = vec![false; self.letters.len()];
        for length in 1..=longest {
            for (start, group) in self.letters.windows(length).enumerate() {
                if is_known(&group.iter().collect::<String>()) {
                    known.iter_mut().skip(start).take(length).for_each(|letter| *letter = true);
                }
            }
        }
        known.into_iter().filter(|letter| *letter).count()
    }
}

fn stem(word: &[char]) -> String {
    word.iter().take(STEM).collect()
}

/// Numbers are left out: they are neither known nor unknown.
fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut is_inside = false;
    for letter in text.to_lowercase().chars() {
        if !letter.is_alphanumeric() {
            is_inside = false;
            continue;
        }
        let letter = if NUMERALS.contains(&letter) { '一' } else { letter };
        let group = Script::of(letter).group();
        match words.last_mut().filter(|word| is_inside && word.group == group) {
            Some(word) => word.letters.push(letter),
            None => words.push(Word { letters: vec![letter], group }),
        }
        is_inside = true;
    }
    words.retain(|word| !word.letters.iter().all(|letter| letter.is_numeric()));
    words
}

/// What to look a text's words up by.
pub(super) fn keys(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for word in words(text) {
        match word.group {
            None => keys.push(stem(&word.letters)),
            Some(length) if word.letters.len() <= length => keys.push(word.letters.iter().collect()),
            Some(length) => {
                keys.extend(word.letters.windows(length).map(|group| group.iter().collect::<String>()))
            }
        }
    }
    keys
}

/// The script of most letters, and the share of letters in unknown words; `None` without letters.
pub(super) fn unknown_share(text: &str, is_known: impl Fn(&str) -> bool) -> Option<(Script, f32)> {
    let mut letters: BTreeMap<Script, usize> = BTreeMap::new();
    let mut known = 0;
    for word in words(text) {
        known += word.known(&is_known);
        for &letter in &word.letters {
            *letters.entry(Script::of(letter)).or_default() += 1;
        }
    }
    let all: usize = letters.values().sum();
    let (script, _) = letters.into_iter().max_by_key(|(_, count)| *count)?;
    Some((script, (all - known) as f32 / all as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_by_their_beginning_and_letters_by_their_neighbours() {
        assert_eq!(keys("Fire trucks, 3 of them!"), ["fire", "trucks", "of", "them"]);
        assert_eq!(keys("красную"), ["красну"]);
        assert_eq!(keys("一只猫 的 T恤"), ["一只", "只猫", "的", "t", "恤"]);
        assert_eq!(keys("三只狗"), keys("一只狗"));
        assert_eq!(keys("แมวดำ").first().map(String::as_str), Some("แมว"));
        assert!(keys(" 42! ").is_empty());
    }

    #[test]
    fn the_share_counts_letters_in_the_script_of_most() {
        let share = |text: &str| unknown_share(text, |key| ["a", "cat", "只猫", "的"].contains(&key));
        assert_eq!(share("a cat"), Some((Script::Latin, 0.0)));
        assert_eq!(share("a fox 7"), Some((Script::Latin, 0.75)));
        // 只 and 猫 are known together, and 的 alone.
        assert_eq!(share("一只猫的"), Some((Script::Han, 0.25)));
        assert_eq!(share("cat Ω猫狗"), Some((Script::Latin, 0.5)));
        assert_eq!(share("…"), None);
    }
}
