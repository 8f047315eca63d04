//! Writes held-out data as retrieval data sets: PNG files, and per language a JSONL file of images and captions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use altclip_training::save_png;
use image::RgbImage;
use model_files::write_whole;
use serde_json::json;

use super::concept::Concept;
use super::images::IMAGE_SIZE;
use super::prepared::Dataset;
use super::split::DataSplit;
use crate::error::{Error, Result};

/// The folder beside the data set's files.
const FOLDER: &str = "held_out";
const IMAGES: &str = "images";
/// The pseudo-language of captions in several languages.
const ALL: &str = "all";

/// A data set: by language, image indices with their captions.
type CaptionsByLanguage = BTreeMap<String, Vec<(usize, Vec<String>)>>;

/// Writes held-out data into folders of `directory/held_out`, for
/// [`CaptionedImages`](altclip_training::evaluation::CaptionedImages):
///
/// * `styles`: images in a drawing style not trained, with the concepts' names;
/// * `compositions`: people in a skin tone, with names not trained;
/// * `keywords`: images of concepts, each with a keyword not trained; since they are few, all languages are combined
///   as `all`.
pub(super) fn write_retrieval_sets(split: &DataSplit, data: &Dataset, directory: &Path) -> Result<()> {
    let names = |image_folder: &[(usize, &Concept)]| {
        let mut captions = CaptionsByLanguage::new();
        for (image, concept) in image_folder {
            for (language, label) in &concept.labels {
                let of_language = captions.entry(language.clone()).or_default();
                of_language.push((*image, vec![label.name.clone()]));
            }
        }
        captions
    };
    let styles: Vec<(usize, &Concept)> = split
        .held_out_images(data)
        .into_iter()
        .filter_map(|(image, concept)| Some((image, data.concepts().get(concept)?)))
        .collect();
    let is_held_out: BTreeSet<&str> = split.compositions.iter().map(String::as_str).collect();
    let people = data.concepts().iter().filter(|concept| is_held_out.contains(concept.id.as_str()));
    let people: Vec<(usize, &Concept)> = people.filter_map(first_image).collect();
    let by_id: BTreeMap<&str, &Concept> =
        data.concepts().iter().map(|concept| (concept.id.as_str(), concept)).collect();
    let mut keywords = CaptionsByLanguage::new();
    for held in &split.keywords {
        if let Some((image, _)) = by_id.get(held.concept.as_str()).copied().and_then(first_image) {
            keywords.entry(ALL.to_owned()).or_default().push((image, vec![held.keyword.clone()]));
        }
    }
    let directory = directory.join(FOLDER);
    write(data, &directory.join("styles"), &names(&styles))?;
    write(data, &directory.join("compositions"), &names(&people))?;
    write(data, &directory.join("keywords"), &keywords)
}

fn first_image(concept: &Concept) -> Option<(usize, &Concept)> {
    Some((concept.images.first()?.index, concept))
}

fn write(data: &Dataset, folder: &Path, captions: &CaptionsByLanguage) -> Result<()> {
    let image_folder = folder.join(IMAGES);
    fs::create_dir_all(&image_folder).map_err(Error::io(&image_folder))?;
    let shown: BTreeSet<usize> = captions.values().flatten().map(|(number, _)| *number).collect();
    for number in shown {
        let path = image_folder.join(file_name(number));
        let side = IMAGE_SIZE as u32;
        let pixels = data.image(number).map(<[u8]>::to_vec);
        let Some(image) = pixels.and_then(|pixels| RgbImage::from_raw(side, side, pixels)) else {
            return Err(Error::data(&path, format!("expected image {number}, found none")));
        };
        save_png(&path, &image)?;
    }
    for (language, captions) in captions {
        let line = |(number, captions): &(usize, Vec<String>)| {
            let image = format!("{IMAGES}/{}", file_name(*number));
            json!({ "image": image, "captions": captions }).to_string() + "\n"
        };
        let lines: String = captions.iter().map(line).collect();
        write_whole(&folder.join(format!("{language}.jsonl")), |temporary| fs::write(temporary, &lines))?;
    }
    Ok(())
}

fn file_name(image: usize) -> String {
    format!("{image:05}.png")
}
