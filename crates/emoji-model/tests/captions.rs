//! Tests captions of a few emoji: their texts and frequencies, and what training draws.

mod common;

use altclip_encoder::tokenizer::Tokenizer;
use altclip_training::Batch;
use altclip_training::text_rows::TextRows;
use common::{CONCEPTS, prepared};
use emoji_model::captions::{CaptionSampler, ImageCaptions, TeacherTexts, Translations, evaluation_prompts};
use emoji_model::tokenizer::train_unigram;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

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
    let sampler = CaptionSampler::new(&dataset);
    let texts = TeacherTexts::new(&dataset, &sampler);
    let words = texts.words();
    let vectors: Vec<Vec<f32>> = (0..words.len()).map(|row| vec![row as f32, 1.0]).collect();
    let rows = texts.rows(&vectors);
    let row_of = |word: &str| words.iter().position(|other| other == word).unwrap() as f32;
    let languages = ["en".to_owned(), "zh".to_owned()];
    let source = Translations { captions: &sampler, texts: &texts, languages: &languages };
    let mut batch = Batch::new(1, 0);
    let (captions, targets) = source.draw(&mut batch, 2000).unwrap();
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
fn few_captions_are_of_people_in_a_skin_tone() {
    let (_folder, dataset) = prepared();
    let sampler = CaptionSampler::new(&dataset);
    let languages = ["en".to_owned()];
    let concepts = |rows: std::ops::Range<u32>| -> Vec<(usize, Vec<u32>)> {
        rows.map(|row| (row as usize % CONCEPTS, vec![row])).collect()
    };
    let (images, toned, styles) = (concepts(0..40), concepts(40..80), vec![String::new(); 80]);
    let source = |toned| ImageCaptions {
        captions: &sampler,
        languages: &languages,
        images: &images,
        toned,
        styles: &styles,
    };
    let (texts, mut rows) = source(&toned).draw(&mut Batch::new(1, 0), 40).unwrap();
    assert_eq!((texts.len(), rows.len()), (40, 40));
    assert_eq!(rows.iter().filter(|&&row| row >= 40).count(), 2);
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), 40, "an image was drawn twice");
    // Where there are none, others take their places.
    let (_, rows) = source(&[]).draw(&mut Batch::new(1, 0), 40).unwrap();
    assert!(rows.len() == 40 && rows.iter().all(|&row| row < 40));
    assert!(source(&[]).draw(&mut Batch::new(1, 0), 41).is_err());
}
