//! The emoji data set, made from npm packages of a few emoji that these tests write.

use std::fs;
use std::path::{Path, PathBuf};

use altclip_encoder::tokenizer::Tokenizer;
use altclip_training::settings::Change;
use altclip_training::{Metrics, Observer};
use emoji_model::EmojiRecipe;
use emoji_model::captions::{CaptionSampler, TeacherTexts, Translations, evaluation_prompts};
use emoji_model::dataset::{
    CONCEPTS_FILE, Concept, Dataset, HeldOutImage, HeldOutKeyword, IMAGE_BYTES, IMAGES_FILE, LANGUAGES,
    PrepareOptions, SKIN_TONES, SPLIT_FILE, Split, prepare,
};
use emoji_model::tokenizer::train_unigram;
use flate2::Compression;
use flate2::write::GzEncoder;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Code points, emoji, category, subcategory, English name and keywords, Chinese name and keywords.
type Row = (&'static str, &'static str, &'static str, &'static str, [&'static str; 4]);

const EMOJI: [Row; 7] = [
    (
        "1F929",
        "🤩",
        "Smileys & Emotion",
        "face-affection",
        ["star-struck", "face star", "好崇拜哦", "星星 脸"],
    ),
    ("1F408", "🐈", "Animals & Nature", "animal-mammal", ["cat", "animal cat pet", "猫", "宠物 猫"]),
    ("1F34E", "🍎", "Food & Drink", "food-fruit", ["red apple", "apple fruit red", "红苹果", "水果 苹果"]),
    ("1F697", "🚗", "Travel & Places", "transport-ground", ["automobile", "car vehicle", "汽车", "轿车"]),
    ("2B50", "⭐", "Travel & Places", "sky & weather", ["star", "astronomy", "星星", "五角星"]),
    ("1F550", "🕐", "Travel & Places", "time", ["one o’clock", "clock", "一点", "时钟"]),
    ("1F1EB-1F1F7", "🇫🇷", "Flags", "country-flag", ["flag: France", "flag", "法国", "旗"]),
];
/// Clock faces and flags are no concepts.
const CONCEPTS: usize = 5;

/// A PNG of one colour, half transparent.
fn png(size: u32, colour: [u8; 3]) -> Vec<u8> {
    let [r, g, b] = colour;
    let image = image::RgbaImage::from_pixel(size, size, image::Rgba([r, g, b, 128]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn write(path: PathBuf, contents: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

/// Writes the four packages as folders.
fn write_packages(folder: &Path) {
    let annotations = |name: usize, keywords: usize| {
        let entries = EMOJI.iter().map(|(_, emoji, _, _, texts)| {
            let keywords: Vec<&str> = texts[keywords].split(' ').collect();
            ((*emoji).to_owned(), json!({"tts": [texts[name]], "default": keywords}))
        });
        json!({"annotations": {"annotations": Value::Object(entries.collect())}}).to_string()
    };
    for package in ["cldr-annotations-full", "cldr-annotations-derived-full"] {
        write(folder.join(package).join("package.json"), "{}");
    }
    let basic = folder.join("cldr-annotations-full/annotations");
    write(basic.join("en/annotations.json"), annotations(0, 1));
    write(basic.join("zh/annotations.json"), annotations(2, 3));
    for (style, vendor) in ["google", "twitter"].into_iter().enumerate() {
        let package = folder.join(format!("emoji-datasource-{vendor}"));
        write(package.join("package.json"), "{}");
        let mut records = Vec::new();
        for (order, (unified, _, category, subcategory, _)) in EMOJI.iter().enumerate() {
            let file = format!("{}.png", unified.to_lowercase());
            let image = png(64, [order as u8 * 30, style as u8 * 200, 7]);
            write(package.join(format!("img/{vendor}/64/{file}")), image);
            records.push(json!({
                "unified": unified, "image": file, "category": category, "subcategory": subcategory,
                "sort_order": order,
            }));
        }
        // The order of the table does not matter.
        records.reverse();
        write(package.join("emoji.json"), Value::Array(records).to_string());
    }
}

fn options(packages: &Path, output: &Path) -> PrepareOptions {
    let languages = vec!["en".to_owned(), "zh".to_owned()];
    PrepareOptions { languages, skin_tones: false, ..PrepareOptions::new(packages, output) }
}

/// The packages, and the data set made from them.
fn prepared() -> (TempDir, Dataset) {
    let folder = TempDir::new().unwrap();
    write_packages(folder.path());
    let output = folder.path().join("data");
    prepare(&options(folder.path(), &output)).unwrap();
    (folder, Dataset::load(&output).unwrap())
}

#[test]
fn packages_become_images_on_white_with_names() {
    let folder = TempDir::new().unwrap();
    write_packages(folder.path());
    let output = folder.path().join("a/new/folder");
    let report = prepare(&options(folder.path(), &output)).unwrap();
    assert_eq!((report.concepts, report.images), (CONCEPTS, 2 * CONCEPTS));
    assert_eq!(report.categories.last(), Some(&("Travel & Places".to_owned(), 2)));

    let dataset = Dataset::load(&output).unwrap();
    let cat = &dataset.concepts()[1];
    assert_eq!((cat.id.as_str(), cat.emoji.as_str(), cat.name("zh")), ("1F408", "🐈", Some("猫")));
    assert_eq!(cat.labels["en"].keywords, ["animal", "pet"]);
    let vendors: Vec<&str> = cat.images.iter().map(|image| image.vendor.as_str()).collect();
    assert_eq!(vendors, ["google", "twitter"]);
    let twitter = dataset.image(cat.images[1].index).unwrap();
    // 30, 200 and 7 at alpha 128 of 255, on 255.
    assert_eq!((twitter.len(), &twitter[..3]), (IMAGE_BYTES, &[142, 227, 131][..]));
    assert_eq!(dataset.owners()[cat.images[1].index], 1);
    let mut files: Vec<_> = fs::read_dir(&output)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["concepts.jsonl", "held_out", "held_out.json", "images.safetensors"]);
}

#[test]
fn archives_give_the_same_bytes_as_folders() {
    let folder = TempDir::new().unwrap();
    write_packages(folder.path());
    let archives = TempDir::new().unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let package = entry.unwrap();
        let name = format!("{}-48.2.0.tgz", package.file_name().to_string_lossy());
        let file = fs::File::create(archives.path().join(name)).unwrap();
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        archive.append_dir_all("package", package.path()).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
    }
    let (from_folders, from_archives) = (folder.path().join("out"), archives.path().join("out"));
    prepare(&options(folder.path(), &from_folders)).unwrap();
    prepare(&options(archives.path(), &from_archives)).unwrap();
    for file in [IMAGES_FILE, CONCEPTS_FILE, SPLIT_FILE] {
        assert_eq!(fs::read(from_folders.join(file)).unwrap(), fs::read(from_archives.join(file)).unwrap());
    }
}

/// What a change to the packages makes `prepare` say.
fn prepare_error(change: impl Fn(&Path)) -> String {
    let folder = TempDir::new().unwrap();
    write_packages(folder.path());
    change(folder.path());
    let output = folder.path().join("data");
    let error = prepare(&options(folder.path(), &output)).unwrap_err().to_string();
    assert!(!output.join(CONCEPTS_FILE).exists());
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn damaged_packages_are_named() {
    let image = "emoji-datasource-google/img/google/64/1f408.png";
    let error = prepare_error(|folder| fs::remove_dir_all(folder.join("emoji-datasource-twitter")).unwrap());
    assert!(error.contains("expected the npm package emoji-datasource-twitter"), "{error}");
    let error = prepare_error(|folder| fs::write(folder.join(image), b"no image").unwrap());
    assert!(error.contains("1f408.png: expected a PNG image"), "{error}");
    let error = prepare_error(|folder| fs::write(folder.join(image), png(32, [0; 3])).unwrap());
    assert!(error.contains("1f408.png: expected 64 × 64 pixels, found 32 × 32"), "{error}");
    let error =
        prepare_error(|folder| fs::write(folder.join("emoji-datasource-google/emoji.json"), "[{}]").unwrap());
    assert!(error.contains("emoji.json: expected a list of emoji"), "{error}");
    let annotations = "cldr-annotations-full/annotations/zh/annotations.json";
    let error = prepare_error(|folder| fs::remove_file(folder.join(annotations)).unwrap());
    assert!(error.contains("expected the file annotations/zh/annotations.json"), "{error}");
    let error = prepare_error(|folder| {
        fs::remove_dir_all(folder.join("cldr-annotations-full")).unwrap();
        fs::write(folder.join("cldr-annotations-full-48.2.0.tgz"), b"no archive").unwrap();
    });
    assert!(error.contains("cldr-annotations-full-48.2.0.tgz"), "{error}");
}

#[test]
fn unknown_choices_are_refused() {
    let folder = TempDir::new().unwrap();
    let mut options = options(folder.path(), folder.path());
    options.vendors = vec!["apple".to_owned()];
    assert_eq!(
        prepare(&options).unwrap_err().to_string(),
        "vendors: expected some of google, twitter, found apple"
    );
    options.languages.clear();
    assert!(prepare(&options).unwrap_err().to_string().starts_with("languages: expected some of en, zh"));
}

#[test]
fn contradicting_files_are_refused() {
    let (folder, _) = prepared();
    let output = folder.path().join("data");
    let concepts = fs::read_to_string(output.join(CONCEPTS_FILE)).unwrap();
    let load_error = |concepts: &str| {
        fs::write(output.join(CONCEPTS_FILE), concepts).unwrap();
        Dataset::load(&output).unwrap_err().to_string()
    };
    let without_last: Vec<&str> = concepts.lines().take(CONCEPTS - 1).collect();
    let error = load_error(&without_last.join("\n"));
    assert!(error.ends_with("image 8 belongs to no concept"), "{error}");
    let error = load_error(&concepts.replace("\"index\":9", "\"index\":10"));
    assert!(error.ends_with("2B50 has image 10, but there are 10"), "{error}");
    let error = load_error(&concepts.replace("\"index\":9", "\"index\":2"));
    assert!(error.ends_with("1F408 and 2B50 share image 2"), "{error}");
    let error = load_error("{\n");
    assert!(error.contains("concepts.jsonl: line 1: expected an emoji concept"), "{error}");
    assert!(load_error("").contains("expected at least one emoji"));

    fs::write(output.join(CONCEPTS_FILE), &concepts).unwrap();
    let images = fs::read(output.join(IMAGES_FILE)).unwrap();
    fs::write(output.join(IMAGES_FILE), &images[..1000]).unwrap();
    let error = Dataset::load(&output).unwrap_err().to_string();
    assert!(error.contains("images.safetensors: expected a safetensors file"), "{error}");
    fs::remove_file(output.join(IMAGES_FILE)).unwrap();
    assert!(Dataset::load(&output).unwrap_err().to_string().contains("images.safetensors"));
}

#[test]
fn a_filtered_data_set_numbers_its_images_anew() {
    let (_folder, dataset) = prepared();
    let food = dataset.filtered(|concept| concept.category == "Food & Drink").unwrap();
    assert_eq!((food.concepts().len(), food.owners()), (1, &[0, 0][..]));
    let original = dataset.concepts()[2].images[1].index;
    assert_eq!(food.image(1), dataset.image(original));
    assert!(dataset.filtered(|_| false).is_none());
}

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
    // The star has that name, so the star-struck face does not get it; "cats" are no mass of "a cats".
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
    // Every concept is asked for before one is asked for again.
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

/// A folder of packages with people in all skin tones, in every language: `count` of them.
fn write_people(folder: &Path, count: u32) {
    let toned =
        |person: u32, tone: &str| (format!("{:X}-{tone}", 0x1F980 + person), format!("{person}-{tone}.png"));
    let emoji = |unified: &str| -> String {
        unified.split('-').filter_map(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?)).collect()
    };
    for language in LANGUAGES {
        let entry = |name: String, own: &str| json!({ "tts": [name], "default": ["person", format!("{own} {language}"), format!("odd {own}")] });
        let mut basic = serde_json::Map::new();
        let mut derived = serde_json::Map::new();
        for person in 0..count {
            let unified = format!("{:X}", 0x1F980 + person);
            basic.insert(
                emoji(&unified),
                entry(format!("person {person} {language}"), &format!("word {person}")),
            );
            for tone in SKIN_TONES {
                let (unified, _) = toned(person, tone);
                let name = format!("person {person}: tone {tone} {language}");
                derived.insert(emoji(&unified), entry(name, &format!("word {person} {tone}")));
            }
        }
        let file =
            |package: &str, part: &str| folder.join(format!("{package}/{part}/{language}/annotations.json"));
        let text = json!({ "annotations": { "annotations": basic } }).to_string();
        write(file("cldr-annotations-full", "annotations"), text);
        let text = json!({ "annotationsDerived": { "annotations": derived } }).to_string();
        write(file("cldr-annotations-derived-full", "annotationsDerived"), text);
    }
    for package in ["cldr-annotations-full", "cldr-annotations-derived-full"] {
        write(folder.join(package).join("package.json"), "{}");
    }
    for vendor in ["google", "twitter"] {
        let package = folder.join(format!("emoji-datasource-{vendor}"));
        write(package.join("package.json"), "{}");
        let records = (0..count).map(|person| {
            let images = SKIN_TONES.map(|tone| toned(person, tone).1);
            for image in images.iter().chain([&format!("{person}.png")]) {
                write(package.join(format!("img/{vendor}/64/{image}")), png(64, [person as u8; 3]));
            }
            let variations: serde_json::Map<String, Value> = SKIN_TONES
                .iter()
                .map(|tone| {
                    let (unified, image) = toned(person, tone);
                    ((*tone).to_owned(), json!({ "unified": unified, "image": image }))
                })
                .collect();
            json!({
                "unified": format!("{:X}", 0x1F980 + person), "image": format!("{person}.png"),
                "category": "People & Body", "subcategory": "person", "sort_order": person,
                "skin_variations": variations,
            })
        });
        write(package.join("emoji.json"), Value::Array(records.collect()).to_string());
    }
}

#[test]
fn what_is_held_out_is_not_trained_and_the_rest_is() {
    const PEOPLE: usize = 40;
    let folder = TempDir::new().unwrap();
    write_people(folder.path(), PEOPLE as u32);
    let output = folder.path().join("data");
    let options = PrepareOptions::new(folder.path(), &output);
    let report = prepare(&options).unwrap();
    assert_eq!(report.concepts, 6 * PEOPLE);
    let (data, split) = (Dataset::load(&output).unwrap(), Split::load(&output).unwrap());
    assert_eq!(split, Split::of(&data));
    let held = (split.compositions.len(), split.keywords.len(), split.images.len());
    assert_eq!(held, (report.held_out_compositions, report.held_out_keywords, report.held_out_images));
    assert!(held.0 > 5 && held.0 < PEOPLE / 2 && held.1 > 0 && held.2 > 0, "{held:?}");

    let training = split.training(&data).unwrap();
    assert_eq!(training.concepts().len(), 6 * PEOPLE - held.0);
    assert_eq!(training.image_count(), 2 * (6 * PEOPLE - held.0) - held.2);
    let find = |data: &'_ Dataset, id: &str| data.concepts().iter().find(|concept| concept.id == id).cloned();
    for id in &split.compositions {
        assert!(find(&training, id).is_none());
        // The person is there without and with four other tones, and the tone with other people.
        let composition = find(&data, id).unwrap().composition.unwrap();
        assert!(find(&training, &composition.base).is_some());
        let trained = training.concepts().iter().filter_map(|concept| concept.composition.as_ref());
        let (same_person, same_tone): (Vec<_>, Vec<_>) = trained
            .filter(|other| (other.base == composition.base) != (other.skin_tone == composition.skin_tone))
            .partition(|other| other.base == composition.base);
        assert_eq!(same_person.len(), 4);
        assert!(same_tone.len() > PEOPLE / 2);
    }
    for HeldOutKeyword { concept, language, keyword } in &split.keywords {
        let (whole, trained) = (find(&data, concept).unwrap(), find(&training, concept).unwrap());
        assert!(whole.labels[language].keywords.contains(keyword));
        assert!(!trained.labels[language].keywords.contains(keyword));
        let others = |of: &Concept| {
            of.labels
                .iter()
                .filter(|(code, _)| *code != language)
                .map(|(_, label)| label.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(others(&whole), others(&trained));
        assert_eq!(whole.labels[language].name, trained.labels[language].name);
    }
    for HeldOutImage { concept, vendor } in &split.images {
        assert_eq!(vendor, "twitter");
        let vendors: Vec<String> =
            find(&training, concept).unwrap().images.into_iter().map(|image| image.vendor).collect();
        assert_eq!(vendors, ["google"]);
    }
    assert_eq!(split.held_out_images(&data).len(), held.2);
    // What retrieval is measured on has the same images, and the names that are asked for.
    let set = |name: &str, language: &str| {
        let folder = folder.path().join("data/held_out").join(name);
        altclip_training::evaluation::CaptionedImages::read(&folder, language, usize::MAX).unwrap()
    };
    let (styles, people) = (set("styles", "en"), set("compositions", "en"));
    assert_eq!((styles.images.len(), people.images.len()), (held.2, held.0));
    let keywords: Vec<&str> = split.keywords.iter().map(|held| held.keyword.as_str()).collect();
    assert_eq!(set("keywords", "all").captions, keywords);
    let named: Vec<&str> = split
        .held_out_images(&data)
        .iter()
        .map(|(_, concept)| data.concepts()[*concept].name("en").unwrap())
        .collect();
    assert_eq!(styles.captions, named);
    let (image, _) = split.held_out_images(&data)[0];
    let written = image::open(&styles.images[0]).unwrap().into_rgb8();
    assert_eq!(Some(written.as_raw().as_slice()), data.image(image));
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
    let mut batch = altclip_training::Batch::new(1, 0);
    let (captions, targets) = altclip_training::pairs::TextRows::draw(&source, &mut batch, 2000).unwrap();
    let target = |caption: &str| {
        let at = captions.iter().position(|other| other == caption)?;
        Some(rows[targets[at] as usize][0])
    };
    assert_eq!(
        (target("猫"), target("cat"), target("一只猫")),
        (Some(row_of("cat")), Some(row_of("cat")), Some(row_of("cat")))
    );
    // The keywords 宠物 and "pet, animal" have no order: each Chinese one gets the mean of the English.
    assert_eq!(target("宠物"), Some((row_of("animal") + row_of("pet")) / 2.0));
    assert_eq!(target("pet"), Some(row_of("pet")));
}

#[derive(Default)]
struct Watch {
    /// The stages in the order in which they took steps, and how many.
    steps: Vec<(String, usize)>,
    notes: Vec<String>,
}

impl Observer for Watch {
    fn step(&mut self, stage: &str, _: &Metrics, _: usize) {
        match self.steps.last_mut() {
            Some((last, steps)) if last == stage => *steps += 1,
            _ => self.steps.push((stage.to_owned(), 1)),
        }
    }

    fn note(&mut self, stage: &str, text: &str) {
        self.notes.push(format!("{stage}: {text}"));
    }
}

/// The recipe of the model for 18 languages with every number made small.
fn small_recipe() -> EmojiRecipe {
    let shape =
        "{ hidden_size = 16, intermediate_size = 16, num_hidden_layers = 1, num_attention_heads = 2 }";
    let mut changes = vec![
        "vocab_size=700".to_owned(),
        "not_drawn=[]".to_owned(),
        "vae.block_out_channels=[8, 8]".to_owned(),
        "clip.patch_size=32".to_owned(),
        format!("clip.text={shape}"),
        format!("clip.image={shape}"),
        "contrastive.chunk_size=3".to_owned(),
        "unet.block_out_channels=[16, 16]".to_owned(),
        "base.batch_size=2".to_owned(),
        "sample.prompts=[\"a person\"]".to_owned(),
        "sample.steps=2".to_owned(),
    ];
    for stage in ["vae", "decoder", "clip", "teacher", "image", "contrastive"] {
        changes.push(format!("{stage}.batch_size=4"));
        changes.push(format!("{stage}.optimizer.steps=2"));
    }
    changes.push("base.optimizer.steps=2".to_owned());
    let changes: Vec<Change> = changes.iter().map(|change| change.parse().unwrap()).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji/recipe.toml");
    let mut recipe = EmojiRecipe::load(&path, &changes).unwrap();
    for stage in &mut recipe.realign {
        (stage.batch_size, stage.optimizer.steps) = (2, 2);
    }
    recipe
}

#[test]
fn the_recipe_for_18_languages_runs_stage_after_stage() {
    let folder = TempDir::new().unwrap();
    write_people(folder.path(), 12);
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    let options = PrepareOptions::new(folder.path(), &data);
    prepare(&options).unwrap();
    let recipe = small_recipe();
    let run = |last: Option<&str>| {
        let mut watch = Watch::default();
        recipe.train(&data, &output, last, &candle_core::Device::Cpu, &mut watch).map(|()| watch)
    };
    let steps = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 2)).collect::<Vec<_>>();
    let error = run(Some("drawing")).err().unwrap().to_string();
    assert!(error.starts_with("stage `drawing`: expected one of vae, clip, base"), "{error}");
    // What another process could train at the same time.
    assert_eq!(run(Some("teacher")).unwrap().steps, steps(&["clip", "teacher"]));
    assert_eq!(run(Some("base")).unwrap().steps, steps(&["vae", "base"]));
    assert!(!output.join("model").exists());
    let watch = run(None).unwrap();
    assert_eq!(
        watch.steps,
        steps(&["decoder", "image", "contrastive", "keys-and-values", "whole", "guidance"])
    );
    for model in ["english: ", "distilled: ", "contrastive-model: "] {
        assert!(watch.notes.iter().any(|note| note.starts_with(model)), "{:?}", watch.notes);
    }
    // All that is drawn with, by the loader of every AltDiffusion.
    let source = model_files::source::ModelSource::directory(output.join("model"));
    let pipeline = altdiffusion_pipeline::AltDiffusion::from_source(
        &source,
        candle_core::DType::F32,
        &candle_core::Device::Cpu,
    );
    let options = altdiffusion_pipeline::GenerateOptions::new("一个人").steps(2);
    assert_eq!(pipeline.unwrap().generate(&options).unwrap().images.len(), 1);
    let again = run(None).unwrap();
    assert!(again.steps.is_empty(), "{:?}", again.steps);
    // The model is enough for more of the last stages.
    let more = EmojiRecipe { start: Some(output.join("model").display().to_string()), ..recipe.clone() };
    let (output, mut watch) = (folder.path().join("more"), Watch::default());
    more.train(&data, &output, None, &candle_core::Device::Cpu, &mut watch).unwrap();
    assert_eq!(
        watch.steps,
        steps(&["decoder", "image", "contrastive", "keys-and-values", "whole", "guidance"])
    );
    assert!(output.join("model/unet/config.json").exists());
}
