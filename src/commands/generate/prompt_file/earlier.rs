//! Reads how an earlier run's images were drawn.

use altdiffusion_pipeline::image_metadata::{GenerationParameters, ParameterFields, read_parameters_text};

use crate::commands::generate::Generate;
use crate::commands::generate::prepared::Prepared;
use crate::commands::generate::record::RunRecord;

/// Fields that may differ between machines and versions for the same image.
const NO_SETTINGS: [&str; 2] = ["Version", "Device"];

/// The records in an earlier run's images, in file order.
pub struct Earlier(Vec<(String, GenerationParameters)>);

impl Earlier {
    /// Reads the records, if all images exist and have one.
    pub fn read(prepared: &Prepared<'_>) -> Option<Self> {
        let read = |path: &std::path::PathBuf| {
            let text = read_parameters_text(path).ok()?;
            let parameters = GenerationParameters::parse(&text);
            Some((text, parameters))
        };
        let paths = prepared.files.paths.iter();
        let images =
            paths.filter(|_| !prepared.options.no_parameters).map(read).collect::<Option<Vec<_>>>()?;
        (!images.is_empty()).then_some(Self(images))
    }

    /// The records as text.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(text, _)| text.as_str())
    }

    /// The seed of the batch, so that a run without a seed resumes with the random one of before.
    pub fn seed(&self, options: &Generate) -> Option<u64> {
        let (_, first) = self.0.first()?;
        let seed: u64 = first.fields.get("Seed")?.parse().ok()?;
        let is_of_batch = options.grid || first.fields.get("Batch pos").is_some();
        Some(if is_of_batch { seed } else { seed.wrapping_sub(options.index_at(0) as u64) })
    }

    /// Whether these options draw the same images.
    pub fn is_drawn_by(&self, options: &Generate, run: &RunRecord, fields: &ParameterFields) -> bool {
        self.0.iter().enumerate().all(|(place, (_, earlier))| {
            let now = options.record_image(fields, run, options.shown_at(place)).to_text();
            // Parsing both normalises what the text cannot hold exactly.
            settings(GenerationParameters::parse(&now)) == settings(earlier.clone())
        })
    }
}

fn settings(mut parameters: GenerationParameters) -> GenerationParameters {
    for name in NO_SETTINGS {
        parameters.fields.take(name);
    }
    parameters
}
