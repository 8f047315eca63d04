//! Tests the split of held-out data, and the data sets made from it.

mod common;

use altclip_training::evaluation::CaptionedImages;
use common::write_people;
use emoji_model::dataset::{
    Concept, DataSplit, Dataset, HeldOutImage, HeldOutKeyword, PrepareOptions, prepare,
};
use tempfile::TempDir;

#[test]
fn what_is_held_out_is_not_trained_and_the_rest_is() {
    const PEOPLE: usize = 40;
    let folder = TempDir::new().unwrap();
    write_people(folder.path(), PEOPLE as u32);
    let output = folder.path().join("data");
    let options = PrepareOptions::new(folder.path(), &output);
    let report = prepare(&options).unwrap();
    assert_eq!(report.concepts, 6 * PEOPLE);
    let (data, split) = (Dataset::load(&output).unwrap(), DataSplit::load(&output).unwrap());
    assert_eq!(split, DataSplit::of(&data));
    let held = (split.compositions.len(), split.keywords.len(), split.images.len());
    assert_eq!(held, (report.held_out_compositions, report.held_out_keywords, report.held_out_images));
    assert!(held.0 > 5 && held.0 < PEOPLE / 2 && held.1 > 0 && held.2 > 0, "{held:?}");

    let training = split.training(&data).unwrap();
    assert_eq!(training.concepts().len(), 6 * PEOPLE - held.0);
    assert_eq!(training.image_count(), 2 * (6 * PEOPLE - held.0) - held.2);
    let find = |data: &'_ Dataset, id: &str| data.concepts().iter().find(|concept| concept.id == id).cloned();
    for id in &split.compositions {
        assert!(find(&training, id).is_none());
        // The person is trained without and with four other tones, and the tone with other people.
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
    // The retrieval sets have the same images, with the names to search for.
    let set = |name: &str, language: &str| {
        let folder = folder.path().join("data/held_out").join(name);
        CaptionedImages::read(&folder, language, usize::MAX).unwrap()
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
