//! Writes Chinese captions in traditional characters.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The share of Chinese captions in traditional characters.
pub(super) const TRADITIONAL_SHARE: f64 = 0.1;

/// The traditional form of simplified characters, the more frequent one if there are several.
static FORMS: LazyLock<HashMap<char, char>> = LazyLock::new(|| {
    let pair = |line: &str| {
        let mut characters = line.chars();
        Some((characters.next()?, characters.next()?))
    };
    include_str!("../../data/traditional.txt").lines().filter_map(pair).collect()
});

/// The text with traditional characters, one for each simplified one.
pub(super) fn traditional(text: &str) -> String {
    text.chars().map(|character| FORMS.get(&character).copied().unwrap_or(character)).collect()
}

#[cfg(test)]
mod tests {
    use super::traditional;

    #[test]
    fn simplified_characters_get_their_traditional_form() {
        assert_eq!(traditional("一辆红色的消防车, a cat"), "一輛紅色的消防車, a cat");
        assert_eq!(traditional("企鹅"), "企鵝");
    }
}
