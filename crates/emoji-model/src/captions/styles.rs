//! Names drawing styles in captions, so that a style can be asked for.

use rand::{Rng, RngExt};

use crate::dataset::ENGLISH;

/// How a language asks for the style of a vendor.
struct Style {
    vendor: &'static str,
    /// What the style is called, in any language.
    names: &'static [&'static str],
    /// What it is called in Chinese too.
    chinese: &'static [&'static str],
}

const STYLES: &[Style] = &[
    Style { vendor: "google", names: &["Noto", "Noto emoji", "Google"], chinese: &["谷歌"] },
    Style { vendor: "twitter", names: &["Twemoji", "Twitter"], chinese: &["推特"] },
];

const ENGLISH_PATTERNS: &[&str] =
    &["{caption}, {style}", "{caption} in {style} style", "{style} {caption}", "{caption}, {style} style"];
const CHINESE_PATTERNS: &[&str] =
    &["{caption}，{style}风格", "{style}风格的{caption}", "{caption}，{style}", "{caption} {style}"];
const PATTERNS: &[&str] = &["{caption}, {style}", "{caption} {style}"];

/// The share of captions that name the style of their image. Without a name, both styles are right.
pub(super) const STYLED_SHARE: f64 = 0.3;

/// The caption with the name of a vendor's style; unchanged if the style has none.
pub(super) fn in_style(rng: &mut impl Rng, caption: &str, language: &str, vendor: &str) -> String {
    let Some(style) = STYLES.iter().find(|style| style.vendor == vendor) else {
        return caption.to_owned();
    };
    let (patterns, own) = match language {
        ENGLISH => (ENGLISH_PATTERNS, &[][..]),
        "zh" => (CHINESE_PATTERNS, style.chinese),
        _ => (PATTERNS, &[][..]),
    };
    let place = rng.random_range(0..style.names.len() + own.len());
    let name = style.names.get(place).or_else(|| own.get(place - style.names.len())).copied();
    let pattern = patterns[rng.random_range(0..patterns.len())];
    let caption = caption.trim_end_matches(['.', '!', '。', '！']);
    pattern.replace("{style}", name.unwrap_or_default()).replace("{caption}", caption)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    #[test]
    fn captions_name_the_style() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut drawn = |caption: &str, language: &str, vendor: &str| -> BTreeSet<String> {
            (0..200).map(|_| in_style(&mut rng, caption, language, vendor)).collect()
        };
        let english = drawn("a cat", "en", "twitter");
        assert_eq!(english.len(), 8, "{english:?}");
        assert!(english.contains("a cat in Twemoji style"), "{english:?}");
        assert!(drawn("一只猫", "zh", "google").contains("谷歌风格的一只猫"));
        assert!(drawn("Katze", "de", "google").contains("Katze, Noto"));
        assert!(drawn("a cat!", "en", "twitter").contains("a cat, Twitter"));
        assert_eq!(drawn("a cat", "en", "apple").into_iter().collect::<Vec<_>>(), ["a cat"]);
    }
}
