//! Writes captions as people type them in a hurry: with a typo, without a space, in lower or upper case.

use rand::{Rng, RngExt};

/// The share of captions with a typo.
const TYPO_SHARE: f64 = 0.05;
/// The share of captions that lack a space.
const JOINED_SHARE: f64 = 0.03;
/// The share of captions in lower case throughout, as names of places are often typed.
const LOWER_CASE_SHARE: f64 = 0.1;
/// The share of captions in capitals throughout.
const UPPER_CASE_SHARE: f64 = 0.02;
/// A typo in a shorter word makes another word of it.
const MIN_LETTERS: usize = 4;

/// Makes at most one slip of each kind.
pub(super) fn slip(rng: &mut impl Rng, mut text: String) -> String {
    if rng.random_bool(TYPO_SHARE) {
        text = mistype(rng, &text);
    }
    if rng.random_bool(JOINED_SHARE) {
        text = join(rng, &text);
    }
    if rng.random_bool(LOWER_CASE_SHARE) {
        text = text.to_lowercase();
    } else if rng.random_bool(UPPER_CASE_SHARE) {
        text = text.to_uppercase();
    }
    text
}

/// Swaps, drops or doubles a letter of a word, if a word of an alphabet is long enough. The first letter stays.
fn mistype(rng: &mut impl Rng, text: &str) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let mut places = Vec::new();
    let mut start = 0;
    for end in 0..=letters.len() {
        if letters.get(end).is_some_and(|&letter| is_typed_by_letter(letter)) {
            continue;
        }
        if end - start >= MIN_LETTERS {
            places.extend(start + 1..end);
        }
        start = end + 1;
    }
    if places.is_empty() {
        return text.to_owned();
    }
    let place = places[rng.random_range(0..places.len())];
    match rng.random_range(0..3) {
        0 if places.contains(&(place + 1)) => letters.swap(place, place + 1),
        // The last letter swaps with the one before.
        0 if places.contains(&(place - 1)) => letters.swap(place - 1, place),
        1 => letters.insert(place, letters[place]),
        _ => {
            letters.remove(place);
        }
    }
    letters.into_iter().collect()
}

/// Whether a letter has a key of its own: Latin, Greek and Cyrillic ones, not syllables or ideographs.
fn is_typed_by_letter(letter: char) -> bool {
    letter.is_alphabetic() && letter < '\u{530}'
}

/// Removes one of the spaces.
fn join(rng: &mut impl Rng, text: &str) -> String {
    let spaces: Vec<usize> = text.match_indices(' ').map(|(place, _)| place).collect();
    if spaces.is_empty() {
        return text.to_owned();
    }
    let place = spaces[rng.random_range(0..spaces.len())];
    let (before, after) = text.split_at(place);
    format!("{before}{}", after.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    #[test]
    fn a_typo_changes_one_place_of_a_long_word() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let typos: BTreeSet<String> = (0..400).map(|_| mistype(&mut rng, "a lion")).collect();
        let expected = ["a liion", "a lin", "a lino", "a lio", "a lionn", "a lioon", "a loin", "a lon"]
            .map(str::to_owned);
        assert_eq!(typos, BTreeSet::from(expected));
        for text in ["a cat", "一只大熊猫", "고양이", ""] {
            assert_eq!(mistype(&mut rng, text), text);
        }
    }

    #[test]
    fn spaces_are_removed_one_at_a_time() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let joined: BTreeSet<String> = (0..50).map(|_| join(&mut rng, "a red apple")).collect();
        assert_eq!(joined.into_iter().collect::<Vec<_>>(), ["a redapple", "ared apple"]);
        assert_eq!(join(&mut rng, "猫"), "猫");
    }

    #[test]
    fn most_captions_stay_as_they_are() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let kept =
            (0..1000).filter(|_| slip(&mut rng, "a Tokyo tower".to_owned()) == "a Tokyo tower").count();
        assert!((750..850).contains(&kept), "{kept}");
    }
}
