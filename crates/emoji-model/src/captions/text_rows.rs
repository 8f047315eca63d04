//! Draws captions for training, each with the row of its English vector or of its image.

use std::collections::HashMap;

use altclip_training::text_rows::TextRows;
use altclip_training::{Batch, Error, Result};
use rand::RngExt;
use rand::seq::index::sample_weighted;

use super::sampler::CaptionSampler;
use crate::dataset::{Dataset, ENGLISH};

/// English words for a teacher to encode, and which of their vectors each caption should get.
///
/// A name is a translation of the English name. Keywords are not translations of one another, but a concept's
/// keywords in one language, taken together, correspond to those in another: each gets the mean of the English
/// vectors.
pub struct TeacherTexts {
    /// English words: all rows except the means.
    words: Vec<String>,
    by_word: HashMap<(usize, String), u32>,
    /// For each concept, the rows of its English name and of the mean of its English keywords.
    of_concept: Vec<Option<(u32, u32)>>,
    /// For each mean, the rows it is taken over.
    means: Vec<Vec<u32>>,
}

impl TeacherTexts {
    /// Collects the English words of all concepts.
    pub fn new(data: &Dataset, captions: &CaptionSampler) -> Self {
        let (mut words, mut by_word) = (Vec::new(), HashMap::new());
        let mut keywords = Vec::new();
        for concept in 0..data.concepts().len() {
            let mut name = None;
            let mut others = Vec::new();
            for (word, is_name) in captions.words(concept, ENGLISH) {
                let row = words.len() as u32;
                words.push(word.to_owned());
                by_word.insert((concept, word.to_owned()), row);
                name.get_or_insert(row);
                if !is_name {
                    others.push(row);
                }
            }
            keywords.push(name.map(|name| (name, others)));
        }
        let (mut of_concept, mut means) = (Vec::new(), Vec::new());
        for rows in keywords {
            of_concept.push(rows.map(|(name, others)| {
                if others.is_empty() {
                    return (name, name);
                }
                means.push(others);
                (name, (words.len() + means.len() - 1) as u32)
            }));
        }
        Self { words, by_word, of_concept, means }
    }

    /// The English words, in row order.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Appends the means to the words' vectors.
    pub fn rows(&self, words: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mean = |of: &Vec<u32>| {
            let vectors: Vec<&Vec<f32>> = of.iter().filter_map(|&word| words.get(word as usize)).collect();
            let width = vectors.first().map_or(0, |vector| vector.len());
            let value = |i: usize| vectors.iter().filter_map(|vector| vector.get(i)).sum::<f32>();
            (0..width).map(|i| value(i) / vectors.len() as f32).collect()
        };
        words.iter().cloned().chain(self.means.iter().map(mean)).collect()
    }

    /// The row for a concept's caption around this word.
    fn row(&self, concept: usize, language: &str, word: &str, is_name: bool) -> Option<u32> {
        let (name, keywords) = (*self.of_concept.get(concept)?)?;
        let own = if language == ENGLISH { self.by_word.get(&(concept, word.to_owned())) } else { None };
        Some(own.copied().unwrap_or(if is_name { name } else { keywords }))
    }
}

/// Captions in all languages, each with the row of its teacher's vector.
pub struct Translations<'a> {
    /// Generates the captions.
    pub captions: &'a CaptionSampler,
    /// The English words.
    pub texts: &'a TeacherTexts,
    /// The captions' languages, by code.
    pub languages: &'a [String],
}

impl TextRows for Translations<'_> {
    fn draw(&self, batch: &mut Batch, count: usize) -> Result<(Vec<String>, Vec<u32>)> {
        let concepts: Vec<usize> = (0..self.texts.of_concept.len())
            .filter(|&concept| self.texts.of_concept.get(concept).is_some_and(Option::is_some))
            .collect();
        if concepts.is_empty() || self.languages.is_empty() {
            return Err(Error::Setting("data: expected concepts with English names, found none".to_owned()));
        }
        let rng = &mut batch.rng;
        let (mut texts, mut rows) = (Vec::with_capacity(count), Vec::with_capacity(count));
        while texts.len() < count {
            let concept = concepts[rng.random_range(0..concepts.len())];
            let Some(language) = self.captions.draw_language(rng, self.languages) else { continue };
            // If a concept has no name in a language, draw another; English has all.
            let language =
                if self.captions.words(concept, language).next().is_some() { language } else { ENGLISH };
            let Some(caption) = self.captions.draw(rng, concept, language) else { continue };
            if let Some(row) = self.texts.row(concept, language, &caption.word, caption.is_name) {
                texts.push(caption.text);
                rows.push(row);
            }
        }
        Ok((texts, rows))
    }
}

/// Captions of distinct concepts in all languages, each with the index of an image.
pub struct ImageCaptions<'a> {
    /// Generates the captions.
    pub captions: &'a CaptionSampler,
    /// The captions' languages, by code.
    pub languages: &'a [String],
    /// For each concept with images, its index and theirs.
    pub images: &'a [(usize, Vec<u32>)],
    /// How often each of these concepts is drawn, relative to the others: above 0.
    pub weights: &'a [f64],
    /// The drawing style of each image.
    pub styles: &'a [String],
}

impl TextRows for ImageCaptions<'_> {
    fn draw(&self, batch: &mut Batch, count: usize) -> Result<(Vec<String>, Vec<u32>)> {
        if self.images.len() < count || self.languages.is_empty() {
            let found = self.images.len();
            let problem = format!("expected at most one of each of the {found} concepts, found {count}");
            return Err(Error::Setting(format!("batch_size: {problem}")));
        }
        let rng = &mut batch.rng;
        let weight = |place: usize| self.weights.get(place).copied().unwrap_or(1.);
        let chosen = sample_weighted(rng, self.images.len(), weight, count)
            .map_err(|problem| Error::Setting(format!("weights of concepts: {problem}")))?;
        let (mut texts, mut rows) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for chosen in chosen {
            let Some((concept, images)) = self.images.get(chosen) else { continue };
            let Some(&row) = images.get(rng.random_range(0..images.len().max(1))) else { continue };
            let Some(language) = self.captions.draw_language(rng, self.languages) else { continue };
            let style = self.styles.get(row as usize).map_or("", String::as_str);
            let caption = self.captions.sample_styled(rng, *concept, language, style);
            texts.push(caption.map(|(text, _)| text).unwrap_or_default());
            rows.push(row);
        }
        Ok((texts, rows))
    }
}
