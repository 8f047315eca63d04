//! Says so if a prompt is about something that the model does not draw.

use altclip_encoder::embedder::Embedder;
use anyhow::{Context, Result};
use candle_core::{DType, Device};
use emoji_model::KnownConcepts;

use super::options::Generate;
use crate::language;
use crate::model::ModelArgs;
use crate::progress::{is_quiet, note};

/// How many of the nearest concepts are named.
const NEAREST: usize = 3;
/// How much of a prompt is repeated, in characters.
const LONGEST: usize = 40;

/// What the model draws, if it says so.
pub struct DrawnConcepts {
    known: Option<KnownConcepts>,
    /// Computed when the first prompt is about something else.
    vectors: Option<ConceptVectors>,
}

/// The model as a dual encoder, and the vectors of its concepts' names.
struct ConceptVectors {
    embedder: Embedder,
    names: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

impl DrawnConcepts {
    /// # Errors
    /// If the model's file about them is damaged.
    pub fn of(model: &ModelArgs) -> Result<Self> {
        Ok(Self { known: model.known_concepts()?, vectors: None })
    }

    /// Notes which prompts are about something else, and what is nearest to them; `place` says where they are.
    pub fn note_unknown(&mut self, options: &Generate, place: &str) {
        let Some(known) = self.known.as_ref().filter(|_| !options.json && !is_quiet()) else { return };
        let separator = if language::code() == "zh" { "、" } else { ", " };
        for prompt in options.prompts().iter().filter(|prompt| known.is_unknown(prompt)) {
            let only = format!("{place}this model knows {} emoji only", known.count());
            match nearest(&mut self.vectors, known, &options.model, prompt) {
                Ok(names) => {
                    note(&format!("{only}; nearest to \"{}\": {}", shortened(prompt), names.join(separator)));
                }
                // Without an image encoder, it is no dual encoder.
                Err(error) => {
                    tracing::debug!("nearest concepts: {error:#}");
                    note(&only);
                }
            }
        }
    }
}

/// The names of the concepts nearest to a prompt, by the model's text encoder.
fn nearest(
    vectors: &mut Option<ConceptVectors>,
    known: &KnownConcepts,
    model: &ModelArgs,
    prompt: &str,
) -> Result<Vec<String>> {
    let concepts = match vectors {
        Some(concepts) => concepts,
        None => vectors.insert(ConceptVectors::compute(known, model)?),
    };
    concepts.nearest_to(prompt)
}

impl ConceptVectors {
    fn compute(known: &KnownConcepts, model: &ModelArgs) -> Result<Self> {
        let embedder = Embedder::from_source(&model.source()?, DType::F32, &Device::Cpu)?;
        let language = language::code();
        let named = known.named(language).with_context(|| format!("there are no names in {language}"))?;
        let names: Vec<String> = named.map(|(_, name)| name.to_owned()).collect();
        let vectors = embedder.embed_texts(&names)?.to_vec2()?;
        Ok(Self { embedder, names, vectors })
    }

    fn nearest_to(&self, prompt: &str) -> Result<Vec<String>> {
        let prompt = self.embedder.embed_texts(&[prompt])?.flatten_all()?.to_vec1::<f32>()?;
        let cosine = |vector: &Vec<f32>| {
            let dot: f32 = vector.iter().zip(&prompt).map(|(a, b)| a * b).sum();
            let square: f32 = vector.iter().map(|a| a * a).sum();
            // The prompt's own length does not change the order.
            dot / square.sqrt().max(f32::MIN_POSITIVE)
        };
        let mut ranked: Vec<(f32, &String)> = self.vectors.iter().map(cosine).zip(&self.names).collect();
        ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        Ok(ranked.into_iter().take(NEAREST).map(|(_, name)| name.clone()).collect())
    }
}

/// The beginning of a prompt, on one line.
fn shortened(prompt: &str) -> String {
    let line = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = line.char_indices().nth(LONGEST).map(|(end, _)| end);
    match end {
        Some(end) => format!("{}…", &line[..end]),
        None => line,
    }
}
