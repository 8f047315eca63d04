//! Tests captions of a few emoji: their texts and frequencies, and what training draws.

mod common;

use altclip_encoder::tokenizer::Tokenizer;
use altclip_training::Batch;
use altclip_training::text_rows::TextRows;
use common::{CONCEPTS, prepared, write_people};
use emoji_model::captions::{
    CaptionSampler, CaptionSettings, ImageCaptions, TeacherTexts, Translations, evaluation_prompts,
};
use emoji_model::dataset::{Dataset, PrepareOptions, prepare};
use emoji_model::tokenizer::train_unigram;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

#[test]
fn captions_mean_one_concept() {
    let (_folder, dataset) = prepared();
    let sampler = CaptionSampler::new(&dataset);
    let texts = |concept: usize, language: &str| -> Vec<String> {
        let captions = sampler.captions(concept, language);
        let total: f32 = captions.iter().map(|caption| caption.weight).sum();
        assert!((total - 1.0).abs() < 1e-4, "{total}");
        captions.into_iter().map(|caption| caption.text).collect()
    };
    let expected = [
        (1, "en", &["cat", "a cat", "a cute cat", "a picture of a cat", "an emoji of a cat", "cats"][..]),
        (1, "zh", &["猫", "一只猫", "一只可爱的猫", "猫的图片", "一张猫的图片", "画一只猫"]),
        (2, "en", &["a red apple", "an apple", "a bunch of red apples"]),
        (3, "en", &["a car", "an automobile", "automobile, vehicle"]),
        (3, "zh", &["一辆汽车", "一辆车", "汽车的照片"]),
        (4, "en", &["a star"]),
        (0, "zh", &["好崇拜哦的表情"]),
    ];
    for (concept, language, captions) in expected {
        let all = texts(concept, language);
        for caption in captions {
            assert!(all.iter().any(|text| text == caption), "{caption} is no caption of concept {concept}");
        }
    }
    // The star has that name, so the star-struck face does not get it.
    assert!(!texts(0, "en").iter().any(|text| text == "a star"));
    assert!(!texts(1, "en").iter().any(|text| text.contains("a cats")));
    assert!(sampler.captions(99, "en").is_empty() && sampler.captions(0, "fr").is_empty());
}

#[test]
fn sampled_captions_follow_the_seed_and_the_weights() {
    let (_folder, dataset) = prepared();
    let sampler = CaptionSampler::new(&dataset);
    let draw = |seed: u64| -> Vec<String> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..4000).map(|_| sampler.sample(&mut rng, 1, "en").unwrap()).collect()
    };
    let drawn = draw(5);
    assert_eq!(drawn, draw(5));
    assert_ne!(drawn, draw(6));
    let weight = sampler.captions(1, "en").iter().find(|caption| caption.text == "a cat").unwrap().weight;
    let share =
        drawn.iter().filter(|text| text.to_lowercase().trim_end_matches(['.', '!']) == "a cat").count();
    assert!((share as f32 / 4000.0 - weight).abs() < 0.03, "{share} of 4000, weight {weight}");
    assert_eq!(sampler.sample(&mut ChaCha8Rng::seed_from_u64(0), 99, "en"), None);
}

#[test]
fn evaluation_prompts_know_their_answers() {
    let (_folder, dataset) = prepared();
    let prompts = evaluation_prompts(&dataset, "zh", 12, 3);
    assert_eq!(prompts.len(), 12);
    assert_eq!(prompts, evaluation_prompts(&dataset, "zh", 12, 3));
    for (prompt, concepts) in &prompts {
        let name = dataset.concepts()[concepts[0]].name("zh").unwrap();
        assert!(prompt.contains(name), "{prompt} does not ask for {name}");
        assert_eq!(*concepts, dataset.concepts_named("zh", name));
    }
    // Every concept occurs before any is repeated.
    let mut first: Vec<usize> = prompts.iter().take(CONCEPTS).map(|(_, concepts)| concepts[0]).collect();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2, 3, 4]);
    assert_eq!(dataset.concepts_named("en", "CAT"), [1]);
    assert!(evaluation_prompts(&dataset, "fr", 5, 0).is_empty());
}

#[test]
fn the_tokenizer_knows_every_caption() {
    let (_folder, dataset) = prepared();
    let sampler = CaptionSampler::new(&dataset);
    let model = train_unigram(sampler.tokenizer_texts(&["en", "zh"]), 300).unwrap();
    let tokenizer = Tokenizer::from_sentencepiece_bytes(&model, "trained").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    const UNKNOWN: u32 = 3;
    for _ in 0..200 {
        for (concept, language) in (0..CONCEPTS).flat_map(|concept| [(concept, "en"), (concept, "zh")]) {
            let caption = sampler.sample(&mut rng, concept, language).unwrap();
            assert!(!tokenizer.encode(&caption).unwrap().contains(&UNKNOWN), "{caption}");
        }
    }
}

#[test]
fn translations_have_the_vectors_of_english_words() {
    let (_folder, dataset) = prepared();
    let settings = CaptionSettings { everyday_share: 0.2, keyword_share: 0.6, ..CaptionSettings::default() };
    let sampler = CaptionSampler::with_settings(&dataset, &settings).unwrap();
    let texts = TeacherTexts::new(&dataset, &sampler);
    let words = texts.words();
    let vectors: Vec<Vec<f32>> = (0..words.len()).map(|row| vec![row as f32, 1.0]).collect();
    let rows = texts.rows(&vectors);
    let row_of = |word: &str| words.iter().position(|other| other == word).unwrap() as f32;
    let languages = ["en".to_owned(), "zh".to_owned()];
    let source = Translations { captions: &sampler, texts: &texts, languages: &languages };
    let mut batch = Batch::new(1, 0);
    let (captions, targets) = source.draw(&mut batch, 8000).unwrap();
    let target = |caption: &str| {
        let at = captions.iter().position(|other| other == caption)?;
        Some(rows[targets[at] as usize][0])
    };
    assert_eq!(
        (target("猫"), target("cat"), target("一只猫")),
        (Some(row_of("cat")), Some(row_of("cat")), Some(row_of("cat")))
    );
    // The keywords 宠物 and "pet, animal" have no order: each Chinese one gets the mean of the English ones.
    assert_eq!(target("宠物"), Some((row_of("animal") + row_of("pet")) / 2.0));
    assert_eq!(target("pet"), Some(row_of("pet")));
}

#[test]
fn keywords_are_drawn_by_how_few_concepts_share_them() {
    // A language of bare words, where a caption is a word.
    let weight = |data: &Dataset, settings: &CaptionSettings, has_tone: bool, keyword: &str| -> f32 {
        let sampler = CaptionSampler::with_settings(data, settings).unwrap();
        let mut concepts = data.concepts().iter();
        let concept = concepts.position(|concept| concept.composition.is_some() == has_tone).unwrap();
        let captions = sampler.captions(concept, "de");
        captions.iter().filter(|caption| caption.text == keyword).map(|caption| caption.weight).sum()
    };
    let people = |count: u32| {
        let folder = TempDir::new().unwrap();
        write_people(folder.path(), count);
        let output = folder.path().join("data");
        prepare(&PrepareOptions::new(folder.path(), &output)).unwrap();
        Dataset::load(&output).unwrap()
    };
    let (two, four) = (people(2), people(4));
    let settings = CaptionSettings::default();
    // "person" is a keyword of two people, and the others of one.
    let (own, shared) =
        (weight(&two, &settings, false, "word 0 de"), weight(&two, &settings, false, "person"));
    assert!(own > 0.0 && (shared / own - 0.5).abs() < 1e-4, "{shared} of {own}");
    let all = own + weight(&two, &settings, false, "odd word 0") + shared;
    assert!((all - 0.94 * settings.keyword_share).abs() < 1e-4, "{all}");
    // Too many: four people, or two in all skin tones.
    assert_eq!(weight(&four, &settings, false, "person"), 0.0);
    assert_eq!(weight(&two, &settings, true, "person"), 0.0);
    let settings = CaptionSettings { max_sharers: 1, ..settings };
    assert_eq!(weight(&two, &settings, false, "person"), 0.0);
}

#[test]
fn everyday_words_have_their_share() {
    let (_folder, dataset) = prepared();
    let share = |settings: &CaptionSettings| {
        let sampler = CaptionSampler::with_settings(&dataset, settings).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let words = (0..4000).map(|_| sampler.draw(&mut rng, 3, "en").unwrap().word);
        words.filter(|word| word == "car" || word == "red car").count() as f32 / 4000.0
    };
    // A few captions combine the name and a keyword.
    let default = share(&CaptionSettings::default());
    assert!((default - 0.94 * 0.45).abs() < 0.03, "{default}");
    assert_eq!(share(&CaptionSettings { everyday_share: 0.0, ..CaptionSettings::default() }), 0.0);
}

#[test]
fn languages_with_phrases_are_drawn_more_often() {
    let (_folder, dataset) = prepared();
    let languages = ["en", "zh", "de", "fr"].map(str::to_owned);
    let share = |phrased_weight: f32| {
        let settings = CaptionSettings { phrased_weight, ..CaptionSettings::default() };
        let sampler = CaptionSampler::with_settings(&dataset, &settings).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let drawn = (0..4000).filter_map(|_| sampler.draw_language(&mut rng, &languages));
        drawn.filter(|&language| language == "zh").count() as f32 / 4000.0
    };
    for (weight, expected) in [(1.0, 0.25), (8.0, 8.0 / 18.0)] {
        let found = share(weight);
        assert!((found - expected).abs() < 0.03, "{found}");
    }
}

#[test]
fn concepts_of_little_weight_are_in_few_batches() {
    let (_folder, dataset) = prepared();
    let sampler = CaptionSampler::new(&dataset);
    let languages = ["en".to_owned()];
    let images: Vec<(usize, Vec<u32>)> =
        (0..CONCEPTS).map(|concept| (concept, vec![concept as u32])).collect();
    let styles = vec![String::new(); CONCEPTS];
    let weights = [1.0, 1.0, 1.0, 1.0, 0.1];
    let source = ImageCaptions {
        captions: &sampler,
        languages: &languages,
        images: &images,
        weights: &weights,
        styles: &styles,
    };
    let rows = |number: usize, count: usize| source.draw(&mut Batch::new(1, number), count).unwrap().1;
    let rare = (0..4000).filter(|&number| rows(number, 1) == [4]).count() as f32 / 4000.0;
    assert!((rare - 0.1 / 4.1).abs() < 0.01, "{rare}");
    // Every concept is drawn once, if there are no others.
    let mut all = rows(0, CONCEPTS);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4]);
}

#[test]
fn settings_out_of_range_are_refused() {
    let (_folder, dataset) = prepared();
    let settings = CaptionSettings::default();
    for (settings, problem) in [
        (
            CaptionSettings { phrased_weight: 0.0, ..settings.clone() },
            "captions.phrased_weight: expected a positive number, found 0",
        ),
        (
            CaptionSettings { keyword_share: -0.5, ..settings.clone() },
            "captions.keyword_share: expected a share from 0 to 1, found -0.5",
        ),
        (
            CaptionSettings { everyday_share: 0.75, keyword_share: 0.5, ..settings.clone() },
            "captions.everyday_share, keyword_share: expected at most 1 together, found 1.25",
        ),
        (
            CaptionSettings { toned_weight: 0.0, ..settings.clone() },
            "captions.toned_weight: expected a number above 0, up to 1, found 0",
        ),
    ] {
        let error = CaptionSampler::with_settings(&dataset, &settings).err().unwrap();
        assert_eq!(error.to_string(), problem);
    }
}
