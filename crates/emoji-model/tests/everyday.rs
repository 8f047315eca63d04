//! Tests the list of everyday words: each means one emoji that the built-in model draws.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use emoji_model::KnownConcepts;
use model_files::source::ModelSource;

/// Lines of a language, a word and the English name of its emoji.
const WORDS: &str = include_str!("../data/everyday.tsv");

fn lines() -> Vec<(&'static str, &'static str, &'static str)> {
    let line = |line: &'static str| match line.split('\t').collect::<Vec<_>>()[..] {
        [language, word, name] => (language, word, name),
        _ => panic!("{line}: expected a language, a word and a name"),
    };
    WORDS.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

#[test]
fn a_word_means_one_emoji() {
    let mut words = HashSet::new();
    for (language, word, _) in lines() {
        assert!(["en", "zh"].contains(&language), "{word} is in {language}");
        assert_eq!(word.trim(), word);
        assert!(words.insert((language, word.to_lowercase())), "{word} stands there twice");
    }
    assert!(words.len() >= 1500);
    for word in
        ["car", "plane", "puppy", "kitten", "bunny", "happy face", "smiley", "sad face", "bike", "phone"]
    {
        assert!(words.contains(&("en", word.to_owned())), "{word}");
    }
}

/// Models are measured with the prompts in `scripts/prompts`.
#[test]
fn no_word_is_a_prompt_of_an_evaluation() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/prompts");
    let mut prompts = HashSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        prompts.extend(text.lines().map(str::to_lowercase));
    }
    assert!(prompts.len() > 400);
    for (_, word, _) in lines() {
        assert!(!prompts.contains(&word.to_lowercase()), "{word}");
    }
}

#[test]
fn every_emoji_is_drawn_and_no_word_is_a_name_already() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji");
    let known = KnownConcepts::read(&ModelSource::directory(folder)).unwrap().unwrap();
    let names = |language: &str| -> HashMap<String, String> {
        let named = known.named(language).unwrap();
        named.map(|(emoji, name)| (name.to_lowercase(), emoji.to_owned())).collect()
    };
    let of_language = HashMap::from([("en", names("en")), ("zh", names("zh"))]);
    for (language, word, name) in lines() {
        assert!(of_language["en"].contains_key(&name.to_lowercase()), "{word}: no emoji is called {name}");
        let owner = of_language[language].get(&word.to_lowercase());
        assert!(owner.is_none(), "{word} is the name of {owner:?}");
    }
}
