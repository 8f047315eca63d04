//! `altdiffusion train concepts`: writes what the small model draws.

use anyhow::{Context, Result};
use clap::Args;
use emoji_model::dataset::{DataSplit, Dataset};
use emoji_model::{FalseAlarms, KNOWN_CONCEPTS_FILE, KnownConcepts};
use std::path::PathBuf;

use crate::shipped;
use crate::standard_streams::{print_line, print_table};

#[derive(Debug, Args)]
pub struct WriteConcepts {
    /// The data set that `train prepare` wrote.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The recipe that the model was trained with. By default that of the model inside this program.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// The model's folder.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl WriteConcepts {
    pub fn run(self) -> Result<()> {
        let coverage = shipped::recipe(self.recipe.as_deref())?.coverage();
        let data = Dataset::load(&self.data)?;
        let data = DataSplit::load(&self.data)?.training(&data);
        let data = data.context("--data: the data set has nothing that is not held out")?;
        let (known, alarms) = KnownConcepts::of(&data, &coverage)?;
        let bytes = known.save(&self.output)?;
        let header = ["language", "held-out phrases", "taken for something else"];
        let row = |of: &FalseAlarms| vec![of.language.clone(), of.phrases.to_string(), of.alarms.to_string()];
        print_table(&header, &alarms.iter().map(row).collect::<Vec<_>>(), 1..)?;
        let path = self.output.join(KNOWN_CONCEPTS_FILE);
        print_line(format!("{}: {} concepts, {bytes} bytes", path.display(), known.count()))
    }
}
