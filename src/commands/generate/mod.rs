//! `altdiffusion generate`: turns a text into images.

mod adapters;
mod batch;
mod control;
mod draw;
mod drawn_concepts;
mod files;
mod from_image;
mod image_prompt;
mod like;
mod loaded;
mod merge;
mod options;
mod prepared;
mod prompt_file;
mod record;
mod run;
mod sampling;

use std::time::Instant;

use anyhow::Result;

pub use self::options::Generate;

impl Generate {
    pub fn run(mut self) -> Result<()> {
        let start = Instant::now();
        if let Some(path) = self.prompt_file.take() {
            return self.draw_prompt_file(&path, start);
        }
        self.read_prompts()?;
        let (options, model_hash) = like::with_image_options(self)?;
        options.draw(start, model_hash)
    }
}
