//! Builds English phrases with articles and plurals.

use super::phrase::Of::{Any, Expression, Plural, Thing};
use super::phrase::Phrase;

/// `{name}` is the word, `{a}` the word with its article, `{plural}` its plural.
#[rustfmt::skip]
pub(super) const PHRASES: &[Phrase] = &[
    Phrase { of: Any, weight: 5.0, pattern: "{name}" },
    Phrase { of: Any, weight: 5.0, pattern: "{a}" },
    Phrase { of: Any, weight: 2.5, pattern: "a picture of {a}" },
    Phrase { of: Any, weight: 0.7, pattern: "a picture of {name}" },
    Phrase { of: Any, weight: 0.7, pattern: "picture of {a}" },
    Phrase { of: Any, weight: 1.2, pattern: "an image of {a}" },
    Phrase { of: Any, weight: 1.2, pattern: "a photo of {a}" },
    Phrase { of: Any, weight: 0.4, pattern: "a photo of {name}" },
    Phrase { of: Any, weight: 1.2, pattern: "an emoji of {a}" },
    Phrase { of: Any, weight: 0.4, pattern: "an icon of {a}" },
    Phrase { of: Any, weight: 1.0, pattern: "{name} emoji" },
    Phrase { of: Any, weight: 0.6, pattern: "{name} icon" },
    Phrase { of: Any, weight: 1.0, pattern: "a drawing of {a}" },
    Phrase { of: Any, weight: 0.4, pattern: "a painting of {a}" },
    Phrase { of: Any, weight: 0.4, pattern: "an illustration of {a}" },
    Phrase { of: Any, weight: 0.6, pattern: "draw {a}" },
    Phrase { of: Any, weight: 0.3, pattern: "draw me {a}" },
    Phrase { of: Any, weight: 0.3, pattern: "please draw {a}" },
    Phrase { of: Any, weight: 0.3, pattern: "show me {a}" },
    Phrase { of: Any, weight: 0.3, pattern: "I want {a}" },
    Phrase { of: Any, weight: 0.3, pattern: "this is {a}" },
    Phrase { of: Any, weight: 0.2, pattern: "can you draw {a}" },
    Phrase { of: Any, weight: 0.2, pattern: "pls draw {a}" },
    Phrase { of: Any, weight: 0.2, pattern: "generate {a}" },
    Phrase { of: Any, weight: 0.2, pattern: "create an image of {a}" },
    Phrase { of: Any, weight: 0.2, pattern: "make {a}" },
    Phrase { of: Any, weight: 0.2, pattern: "{a} please" },
    Phrase { of: Any, weight: 0.2, pattern: "a sticker of {a}" },
    Phrase { of: Any, weight: 0.4, pattern: "{a} on a white background" },
    Phrase { of: Thing, weight: 0.6, pattern: "the {name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "one {name}" },
    Phrase { of: Thing, weight: 1.0, pattern: "a cute {name}" },
    Phrase { of: Thing, weight: 0.5, pattern: "cute {name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "a beautiful {name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "a small {name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "a big {name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "a cartoon {name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "a little {name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "a nice {name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "a lovely {name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "an adorable {name}" },
    Phrase { of: Thing, weight: 0.2, pattern: "a funny {name}" },
    Phrase { of: Thing, weight: 0.2, pattern: "a simple {name}" },
    Phrase { of: Thing, weight: 0.2, pattern: "a cute little {name}" },
    Phrase { of: Thing, weight: 0.2, pattern: "a photo of a cute {name}" },
    Phrase { of: Thing, weight: 0.2, pattern: "a single {name}" },
    Phrase { of: Thing, weight: 0.2, pattern: "my {name}" },
    Phrase { of: Expression, weight: 0.8, pattern: "{name} expression" },
    Phrase { of: Expression, weight: 0.5, pattern: "someone with {a}" },
    Phrase { of: Plural, weight: 1.5, pattern: "{plural}" },
    Phrase { of: Plural, weight: 0.7, pattern: "a bunch of {plural}" },
    Phrase { of: Plural, weight: 0.5, pattern: "some {plural}" },
    Phrase { of: Plural, weight: 0.4, pattern: "a picture of {plural}" },
];

pub(super) fn slot(slot: &str, word: &str, _subcategory: &str) -> Vec<String> {
    vec![match slot {
        "a" => with_article(word),
        "plural" => plural(word),
        _ => word.to_owned(),
    }]
}

/// The word with `a` or `an`; unchanged if it is a plural.
fn with_article(word: &str) -> String {
    /// Spelt with a vowel, but pronounced like "you" or "one".
    const CONSONANT_SOUNDS: &[&str] = &["uni", "eu", "one", "use", "ute", "u-"];
    /// Spelt with a consonant, but pronounced with a vowel.
    const VOWEL_SOUNDS: &[&str] = &["hour", "x-ray", "mri", "sos"];
    if is_plural(word) {
        return word.to_owned();
    }
    let lower = word.to_lowercase();
    let starts_with = |sounds: &[&str]| sounds.iter().any(|sound| lower.starts_with(sound));
    let vowel = lower.starts_with(['a', 'e', 'i', 'o', 'u']) && !starts_with(CONSONANT_SOUNDS);
    if vowel || starts_with(VOWEL_SOUNDS) { format!("an {word}") } else { format!("a {word}") }
}

/// Whether the word is a plural already: "grapes", but not "bus", "glass", "cactus" or "tennis".
fn is_plural(word: &str) -> bool {
    word.ends_with('s') && !["ss", "us", "is", "os"].iter().any(|ending| word.ends_with(ending))
}

/// The plural of the last word.
fn plural(word: &str) -> String {
    /// Nouns with irregular or unchanged plurals.
    const IRREGULAR: &[(&str, &str)] = &[
        ("mouse", "mice"),
        ("goose", "geese"),
        ("ox", "oxen"),
        ("wolf", "wolves"),
        ("leaf", "leaves"),
        ("fish", "fish"),
        ("deer", "deer"),
        ("moose", "moose"),
        ("bison", "bison"),
        ("sheep", "sheep"),
        ("shrimp", "shrimp"),
        ("squid", "squid"),
    ];
    if is_plural(word) {
        return word.to_owned();
    }
    let (before, last) = word.rsplit_once(' ').map_or(("", word), |(before, last)| (before, last));
    let irregular = IRREGULAR.iter().find(|(singular, _)| *singular == last);
    let last = match irregular {
        Some((_, plural)) => (*plural).to_owned(),
        None if ["s", "x", "z", "ch", "sh", "ato", "ango"].iter().any(|end| last.ends_with(end)) => {
            format!("{last}es")
        }
        None => match last.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
            _ => format!("{last}s"),
        },
    };
    if before.is_empty() { last } else { format!("{before} {last}") }
}

#[cfg(test)]
mod tests {
    use super::{plural, with_article};

    #[test]
    fn articles_follow_the_sound() {
        let expected = [
            ("cat", "a cat"),
            ("red apple", "a red apple"),
            ("orange", "an orange"),
            ("unicorn", "a unicorn"),
            ("x-ray", "an x-ray"),
            ("grapes", "grapes"),
            ("bus", "a bus"),
            ("octopus", "an octopus"),
        ];
        for (word, text) in expected {
            assert_eq!(with_article(word), text);
        }
    }

    #[test]
    fn plurals_follow_the_ending() {
        let expected = [
            ("banana", "bananas"),
            ("red apple", "red apples"),
            ("cherries", "cherries"),
            ("strawberry", "strawberries"),
            ("monkey", "monkeys"),
            ("potato", "potatoes"),
            ("peach", "peaches"),
            ("fox", "foxes"),
            ("mouse", "mice"),
        ];
        for (word, text) in expected {
            assert_eq!(plural(word), text);
        }
    }
}
