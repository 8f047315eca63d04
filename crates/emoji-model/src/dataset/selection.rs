//! Selects the emoji that become concepts: those recognizable in a small image and nameable in a phrase.
//!
//! Excluded are flags, letters and buttons, signs whose meaning is text, and images too similar to others at 64 × 64
//! pixels (clock faces, moon phases, loudness levels …). Skin tones are separate concepts if requested.

use serde::Deserialize;
use std::collections::BTreeMap;

/// An entry of `emoji.json` in the `emoji-datasource` packages.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct EmojiRecord {
    /// Code points in hexadecimal, joined by `-`.
    pub(super) unified: String,
    /// File name of the image.
    pub(super) image: String,
    pub(super) category: String,
    pub(super) subcategory: String,
    /// Position in Unicode's order.
    pub(super) sort_order: u32,
    /// Variants in skin tones, keyed by modifiers: one, or one for each of two people.
    #[serde(default)]
    pub(super) skin_variations: BTreeMap<String, SkinVariation>,
}

/// An emoji with a skin tone.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SkinVariation {
    pub(super) unified: String,
    pub(super) image: String,
}

/// The modifiers of the five skin tones, from light to dark.
pub const SKIN_TONES: [&str; 5] = ["1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"];

impl EmojiRecord {
    /// The emoji in each skin tone, if it shows one person.
    pub(super) fn in_skin_tones(&self) -> impl Iterator<Item = (&'static str, EmojiRecord)> {
        SKIN_TONES.into_iter().filter_map(|tone| {
            let SkinVariation { unified, image } = self.skin_variations.get(tone)?.clone();
            Some((tone, EmojiRecord { unified, image, skin_variations: BTreeMap::new(), ..self.clone() }))
        })
    }
}

/// From `Symbols`, only images rather than text or buttons.
#[rustfmt::skip]
const KEPT_SYMBOLS: &[&str] = &[
    "267B-FE0F", "26A0-FE0F", "2622-FE0F", "2623-FE0F", "262F-FE0F", "262E-FE0F", "271D-FE0F", "2721-FE0F",
    "262A-FE0F", "269B-FE0F", "1F54E", "267F", "26D4", "1F6AB", "2705", "274C", "2753", "2757", "2795", "267E-FE0F",
    "1F531", "269C-FE0F", "1F4F6", "1F6AD",
    // Circles, squares, diamonds and triangles in their colours.
    "1F534", "1F7E0", "1F7E1", "1F7E2", "1F535", "1F7E3", "1F7E4", "26AB", "26AA",
    "1F7E5", "1F7E7", "1F7E8", "1F7E9", "1F7E6", "1F7EA", "1F7EB", "2B1B",
    "1F536", "1F537", "1F53A", "1F53B",
];

/// Near-duplicates of a selected image, and images that are mostly text.
#[rustfmt::skip]
const LEFT_OUT: &[&str] = &[
    // Moon phases: the full and crescent moons are kept, and the two full faces.
    "1F311", "1F312", "1F313", "1F314", "1F316", "1F317", "1F318", "1F31B", "1F31C",
    // Hands that are mirrored or rotated slightly; the middle finger.
    "1F91A", "1FAF1", "1FAF2", "1FAF3", "1FAF4", "1FAF7", "1FAF8", "1F91B", "1F91C", "1F595",
    // Loudness levels, mailbox states, the second magnifying glass, calendar, telephone and ticket.
    "1F508", "1F509", "1F4EA", "1F4EC", "1F4ED", "1F50E", "1F4C6", "1F4F2", "1F39F-FE0F", "1F507",
    // Speech bubbles beside the plain one; the suit of hearts beside the red heart.
    "1F5E8-FE0F", "1F441-FE0F-200D-1F5E8-FE0F", "2665-FE0F",
    // Couples that only differ by gender, and states of a person.
    "1F46D", "1F46C", "1FAC3", "1FAC4", "1F9D1-200D-1F37C",
];

/// The code points of the 24 clock faces.
const CLOCK_FACES: std::ops::RangeInclusive<u32> = 0x1F550..=0x1F567;
/// Joins several emoji; most joined ones are variants of a person.
const JOINER: &str = "-200D-";
/// An adult with an occupation's object: the gender-neutral form of an occupation.
const NEUTRAL_ROLE: &str = "1F9D1-200D-";

/// Whether an emoji becomes a concept.
pub(super) fn is_concept(record: &EmojiRecord) -> bool {
    let unified = record.unified.as_str();
    if LEFT_OUT.contains(&unified) {
        return false;
    }
    let first = unified.split('-').next().and_then(|code| u32::from_str_radix(code, 16).ok());
    if first.is_some_and(|code| CLOCK_FACES.contains(&code)) {
        return false;
    }
    match record.category.as_str() {
        "Flags" | "Component" => false,
        "Symbols" => KEPT_SYMBOLS.contains(&unified),
        "People & Body" if unified.contains(JOINER) => {
            record.subcategory == "person-role" && unified.starts_with(NEUTRAL_ROLE)
        }
        _ => true,
    }
}

/// The emoji for its code points; `None` if they are invalid.
pub(super) fn emoji_text(unified: &str) -> Option<String> {
    unified.split('-').map(|code| u32::from_str_radix(code, 16).ok().and_then(char::from_u32)).collect()
}
