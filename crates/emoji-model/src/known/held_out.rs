//! Sets the thresholds on phrases around the concepts' names that no caption has.

use std::collections::BTreeMap;

use super::words::Script;
use crate::dataset::Dataset;

/// The share of held-out phrases whose unknown letters stay within the threshold.
const WITHIN: f64 = 0.985;
/// With a smaller share of unknown letters, a prompt is known in any script.
const LEAST: f32 = 0.25;

/// Phrases that people might type, and that training does not have; `{name}` is the concept's name.
#[rustfmt::skip]
const PHRASES: &[(&str, [&str; 6])] = &[
    ("en", ["my own {name}", "{name} on a wooden table", "{name} at night", "make me {name}", "{name} drawn by a child", "{name}, but bigger"]),
    ("zh", ["桌上的{name}", "我最喜欢的{name}", "很多{name}", "给我看{name}", "夜里的{name}", "孩子画的{name}"]),
    ("ja", ["{name}の絵を描いて", "かわいい{name}", "テーブルの上の{name}", "大きな{name}", "{name}をください", "夜の{name}"]),
    ("th", ["วาดรูป{name}ให้หน่อย", "{name}น่ารัก", "{name}บนโต๊ะ", "{name}ตัวใหญ่", "อยากได้{name}", "{name}ตอนกลางคืน"]),
    ("ko", ["귀여운 {name}", "{name} 그려 줘", "책상 위의 {name}", "커다란 {name}", "{name} 사진", "밤의 {name}"]),
    ("hi", ["एक सुंदर {name}", "{name} का चित्र", "मेज़ पर {name}", "एक बड़ा {name}", "मुझे {name} चाहिए", "रात में {name}"]),
    ("uk", ["намалюй {name}", "гарний малюнок: {name}", "{name} на столі", "маленький {name}", "{name} вночі", "{name} біля вікна"]),
    ("ar", ["صورة {name}", "ارسم {name}", "{name} على الطاولة", "{name} جميل", "أريد {name}", "{name} في الليل"]),
    ("tr", ["sevimli bir {name}", "bana {name} çiz", "masanın üzerinde {name}", "kocaman {name}", "{name} resmi", "geceleyin {name}"]),
    ("vi", ["vẽ cho tôi {name}", "{name} dễ thương", "{name} trên bàn", "một {name} thật lớn", "bức tranh {name}", "{name} ban đêm"]),
    ("pl", ["narysuj mi {name}", "obrazek: {name}", "{name} na stole", "mały {name}", "{name} w nocy", "{name} przy oknie"]),
    ("nl", ["teken een {name}", "een plaatje van {name}", "{name} op tafel", "een grote {name}", "{name} in het gras", "{name} bij het raam"]),
    ("pt", ["desenhe {name}", "um desenho bonito de {name}", "{name} em cima da mesa", "{name} bem grande", "{name} de noite", "{name} perto da janela"]),
    ("it", ["disegnami {name}", "un bel disegno di {name}", "{name} sul tavolo", "{name} molto grande", "{name} di notte", "{name} vicino alla finestra"]),
    ("es", ["dibuja {name}", "un dibujo bonito de {name}", "{name} encima de la mesa", "{name} muy grande", "{name} de noche", "{name} junto a la ventana"]),
    ("de", ["zeichne mir {name}", "ein Bild mit {name}", "{name} auf dem Tisch", "{name} bei Nacht", "{name} auf einer Wiese", "{name} neben dem Fenster"]),
    ("fr", ["dessine {name}", "un joli dessin de {name}", "{name} dans le jardin", "un très grand {name}", "{name} la nuit", "{name} près de la fenêtre"]),
    ("ru", ["нарисуй {name}", "красивый рисунок: {name}", "{name} на столе", "маленький {name}", "{name} ночью", "{name} у окна"]),
];

/// How many of the held-out phrases in a language that set no threshold count as unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FalseAlarms {
    /// The language, by its code.
    pub language: String,
    /// The phrases that were judged.
    pub phrases: usize,
    /// Those that count as unknown, although they name a concept.
    pub alarms: usize,
}

/// A phrase that names a concept.
pub(super) struct HeldOutPhrase<'a> {
    pub language: &'a str,
    pub text: String,
    /// Whether it is for setting thresholds, and not for measuring false alarms.
    pub sets_threshold: bool,
}

/// A phrase around each concept's name in each language. The concepts of even folds set the thresholds.
pub(super) fn phrases<'a>(data: &Dataset, languages: &[&'a str]) -> Vec<HeldOutPhrase<'a>> {
    let mut found = Vec::new();
    for &language in languages {
        let Some((_, patterns)) = PHRASES.iter().find(|(known, _)| *known == language) else { continue };
        for (concept, pattern) in data.concepts().iter().zip(patterns.iter().cycle()) {
            if let Some(name) = concept.name(language) {
                let sets_threshold = concept.fold.is_multiple_of(2);
                let text = pattern.replace("{name}", name);
                found.push(HeldOutPhrase { language, text, sets_threshold });
            }
        }
    }
    found
}

/// The share of unknown letters within which nearly all phrases of a script stay.
pub(super) fn thresholds(shares: impl Iterator<Item = (Script, f32)>) -> BTreeMap<Script, f32> {
    let mut by_script: BTreeMap<Script, Vec<f32>> = BTreeMap::new();
    for (script, share) in shares {
        by_script.entry(script).or_default().push(share);
    }
    let threshold = |(script, mut shares): (Script, Vec<f32>)| {
        shares.sort_by(f32::total_cmp);
        let within = (WITHIN * shares.len() as f64).ceil() as usize;
        Some((script, shares.get(within.saturating_sub(1))?.max(LEAST)))
    };
    by_script.into_iter().filter_map(threshold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::LANGUAGES;

    #[test]
    fn every_language_has_phrases_around_the_name() {
        let languages: Vec<&str> = PHRASES.iter().map(|(language, _)| *language).collect();
        assert_eq!(languages, LANGUAGES);
        for (language, patterns) in PHRASES {
            assert!(patterns.iter().all(|pattern| pattern.matches("{name}").count() == 1), "{language}");
        }
    }

    #[test]
    fn nearly_all_phrases_stay_within_the_threshold() {
        let latin = (0..1000).rev().map(|number| (Script::Latin, number as f32 / 1000.0));
        let found = thresholds(latin.chain([(Script::Han, 0.5), (Script::Thai, 0.0)]));
        assert_eq!(
            found,
            BTreeMap::from([(Script::Latin, 0.984), (Script::Thai, LEAST), (Script::Han, 0.5)])
        );
        assert!(thresholds(std::iter::empty()).is_empty());
    }
}
