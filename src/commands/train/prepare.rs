//! `altdiffusion train prepare`: builds the emoji data set.

use anyhow::Result;
use clap::Args;
use emoji_model::dataset::{PrepareOptions, prepare};
use std::path::PathBuf;

use crate::standard_streams::print_line;

#[derive(Debug, Args)]
pub struct Prepare {
    /// The folder with the packages.
    #[arg(long, value_name = "DIR")]
    packages: PathBuf,
    /// Output folder: images.safetensors, concepts.jsonl, held_out.json (what training leaves out), and held_out
    /// with the same as data sets for eval retrieval.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Language codes of the names. By default the 18 of AltDiffusion-m18.
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    languages: Vec<String>,
    /// Drawing styles: google, twitter. By default both.
    #[arg(long, value_name = "VENDOR", value_delimiter = ',')]
    vendors: Vec<String>,
}

impl Prepare {
    pub fn run(self) -> Result<()> {
        let mut options = PrepareOptions::new(self.packages, &self.output);
        if !self.languages.is_empty() {
            options.languages = self.languages;
        }
        if !self.vendors.is_empty() {
            options.vendors = self.vendors;
        }
        let report = prepare(&options)?;
        for (category, concepts) in &report.categories {
            print_line(format!("{concepts:5} {category}"))?;
        }
        let (concepts, images) = (report.concepts, report.images);
        print_line(format!("{concepts} concepts, {images} images in {}", self.output.display()))?;
        print_line(format!(
            "held out from training: {} people in a skin tone, {} keywords in one language, {} images",
            report.held_out_compositions, report.held_out_keywords, report.held_out_images
        ))
    }
}
