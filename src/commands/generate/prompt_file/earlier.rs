//! Reads how an earlier run's images were drawn.

use altdiffusion_pipeline::image_metadata::{GenerationParameters, ParameterFields, read_parameters_text};
use anyhow::Result;

use crate::commands::generate::loaded::Plan;
use crate::commands::generate::options::Generate;
use crate::commands::generate::prepared::Prepared;
use crate::commands::generate::record::RunRecord;
use crate::commands::generate::run::WrittenImage;
use crate::standard_streams::print_json_line;

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

    /// Prints where the images are and how they were drawn, as JSON.
    ///
    /// # Errors
    /// If standard output cannot be written to, unless its reader has gone.
    pub fn print(&self, prepared: &Prepared<'_>, plan: &Plan) -> Result<()> {
        self.0.iter().enumerate().try_for_each(|(place, (text, _))| {
            let image = prepared.options.written(prepared, plan, place);
            print_json_line(&WrittenImage { parameters: Some(text.clone()), ..image })
        })
    }

    /// The seed of the batch, so that a run without a seed resumes with its earlier random one.
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
