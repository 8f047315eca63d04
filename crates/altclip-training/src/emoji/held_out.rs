//! What is held out from training as data sets that retrieval is measured on: PNG files, and for each language a JSONL file
//! of pictures and captions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Cursor;
use std::path::Path;

use altdiffusion_pipeline::write_whole;
use image::{ImageFormat, RgbImage};
use serde_json::json;

use super::dataset::{Concept, Dataset};
use super::error::{Error, Result};
use super::pictures::PICTURE_SIZE;
use super::split::Split;

/// The folder beside the data set's files.
const FOLDER: &str = "held_out";
const PICTURES: &str = "pictures";
/// What stands for the language of captions in several.
const ALL: &str = "all";

/// A data set: by language, the numbers of pictures with their captions.
type Captions = BTreeMap<String, Vec<(usize, Vec<String>)>>;

impl Split {
    /// Writes what is held out into folders of `directory/held_out`, which
    /// [`CaptionedPictures`](crate::evaluation::CaptionedPictures) reads:
    ///
    /// * `styles`: pictures in a drawing style that was not trained, with the concepts' names;
    /// * `compositions`: people in a skin tone, with names that were not trained;
    /// * `keywords`: pictures of concepts, each with a keyword that was not trained, in whichever language it is; they are
    ///   few, and stand together as the language `all`.
    pub(super) fn write_for_retrieval(&self, data: &Dataset, directory: &Path) -> Result<()> {
        let names = |pictures: &[(usize, &Concept)]| {
            let mut captions = Captions::new();
            for (picture, concept) in pictures {
                for (language, label) in &concept.labels {
                    let of_language = captions.entry(language.clone()).or_default();
                    of_language.push((*picture, vec![label.name.clone()]));
                }
            }
            captions
        };
        let styles: Vec<(usize, &Concept)> = self
            .held_out_pictures(data)
            .into_iter()
            .filter_map(|(picture, concept)| Some((picture, data.concepts().get(concept)?)))
            .collect();
        let is_held_out: BTreeSet<&str> = self.compositions.iter().map(String::as_str).collect();
        let people = data.concepts().iter().filter(|concept| is_held_out.contains(concept.id.as_str()));
        let people: Vec<(usize, &Concept)> = people.filter_map(first_picture).collect();
        let by_id: BTreeMap<&str, &Concept> =
            data.concepts().iter().map(|concept| (concept.id.as_str(), concept)).collect();
        let mut keywords = Captions::new();
        for held in &self.keywords {
            if let Some((picture, _)) = by_id.get(held.concept.as_str()).copied().and_then(first_picture) {
                keywords.entry(ALL.to_owned()).or_default().push((picture, vec![held.keyword.clone()]));
            }
        }
        let directory = directory.join(FOLDER);
        write(data, &directory.join("styles"), &names(&styles))?;
        write(data, &directory.join("compositions"), &names(&people))?;
        write(data, &directory.join("keywords"), &keywords)
    }
}

fn first_picture(concept: &Concept) -> Option<(usize, &Concept)> {
    Some((concept.pictures.first()?.index, concept))
}

fn write(data: &Dataset, folder: &Path, captions: &Captions) -> Result<()> {
    let pictures = folder.join(PICTURES);
    fs::create_dir_all(&pictures).map_err(Error::io(&pictures))?;
    let shown: BTreeSet<usize> = captions.values().flatten().map(|(picture, _)| *picture).collect();
    for picture in shown {
        let path = pictures.join(file_name(picture));
        let side = PICTURE_SIZE as u32;
        let pixels = data.picture(picture).map(<[u8]>::to_vec);
        let Some(image) = pixels.and_then(|pixels| RgbImage::from_raw(side, side, pixels)) else {
            return Err(Error::data(&path, format!("expected picture {picture}, found none")));
        };
        let mut png = Cursor::new(Vec::new());
        image
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|error| Error::data(&path, format!("cannot be written: {error}")))?;
        write_whole(&path, |temporary| fs::write(temporary, png.get_ref()))?;
    }
    for (language, captions) in captions {
        let line = |(picture, captions): &(usize, Vec<String>)| {
            let image = format!("{PICTURES}/{}", file_name(*picture));
            json!({ "image": image, "captions": captions }).to_string() + "\n"
        };
        let lines: String = captions.iter().map(line).collect();
        write_whole(&folder.join(format!("{language}.jsonl")), |temporary| fs::write(temporary, &lines))?;
    }
    Ok(())
}

fn file_name(picture: usize) -> String {
    format!("{picture:05}.png")
}
