//! Trains a text tower by teacher learning on parallel texts.

use super::altclip_model::TrainedAltClip;
use super::data::report_skipped;
use super::frozen_encoder::{ImageTower, log_logit_scale, open_frozen};
use super::output::open_run;
use super::precision::Precision;
use super::recipe::TrainingRecipe;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::parallel::Communicator;
use crate::run::Observer;
use crate::stages::teacher::{TeacherLearning, TeacherStage};
use crate::text_rows::ShuffledTexts;
use crate::workers::Workers;
use candle_core::Device;
use embedding_index::readers::TextTable;
use model_files::source::ModelSource;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const STAGE: &str = "teacher";

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRecipe {
    /// Seed of new weights and of the data's order.
    pub seed: u64,
    /// Seconds between checkpoints.
    pub save_every: u64,
    /// The frozen teacher, a dual encoder of any family: a directory or a hub repository.
    pub teacher: String,
    /// The language of the teacher's texts, such as `eng_Latn`, if it is an NLLB-CLIP. By default its tokenizer's.
    #[serde(default)]
    pub teacher_language: Option<String>,
    /// The model whose text tower is trained, in AltCLIP's layout. If it has no image tower, it gets the teacher's, if
    /// that is CLIP's.
    pub student: String,
    /// The dtype that the model computes in.
    #[serde(default)]
    pub precision: Precision,
    /// A file of parallel texts, `.jsonl`, `.csv`, `.tsv` or `.parquet`.
    pub data: PathBuf,
    /// The column of the teacher's texts.
    pub english: String,
    /// The columns of their translations.
    pub translations: Vec<String>,
    /// The settings of the training.
    pub stage: TeacherStage,
}

impl TrainingRecipe for TeacherRecipe {
    /// Trains, resuming an earlier run, and writes the model to `output/model`.
    ///
    /// # Errors
    /// If a file cannot be read or written, the models do not fit each other, a loss is not finite, or a rank is lost.
    fn train(
        &self,
        output: &Path,
        device: &Device,
        ranks: &dyn Communicator,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let dtype = self.precision.dtype(device)?;
        let run = open_run(ranks, output, STAGE, self.seed, self.save_every)?;
        let columns: Vec<&str> =
            std::iter::once(&self.english).chain(&self.translations).map(String::as_str).collect();
        let table = TextTable::read(&self.data, &columns)?;
        report_skipped(observer, STAGE, &table.skipped);

        let (english, pairs) = pairs(&table);
        let source = ModelSource::open(&self.teacher)?;
        let mut teacher = open_frozen(&source, "teacher", device)?;
        if let Some(language) = &self.teacher_language {
            teacher = teacher.with_language(language)?;
        }
        let cache = Cache::at(&output.join("teacher-vectors.safetensors"));
        let vectors = ranks.after_first(|| cache.vectors_of(&teacher, &english))?;
        let model = TrainedAltClip::open(&self.student, self.seed, dtype, device, false)?;
        let (found, expected) = (model.config.projection_dim, teacher.projection_dim());
        if found != expected {
            return Err(Error::Setting(format!(
                "student: its vectors have {found} values, expected {expected} as the teacher's"
            )));
        }
        model.report_fresh(observer, STAGE);
        let max_tokens = model.max_tokens(self.stage.max_tokens)?;
        let image = match model.image_tower()? {
            Some(own) => Some(own),
            None => ImageTower::of(&source, teacher.family(), expected)?,
        };
        if image.is_none() {
            observer
                .note(STAGE, "neither model has an image tower of CLIP's names: the result has only texts");
        }
        let mut optimizer = Optimizer::new(self.stage.optimizer.clone(), &model.parameters)?;
        let learning = TeacherLearning {
            student: &model.text,
            tokenizer: &model.tokenizer,
            texts: &ShuffledTexts::new(pairs, self.seed)?,
            vectors: &vectors.to_device(device)?,
            batch_size: self.stage.batch_size,
            max_tokens,
            workers: &Workers::on(device, self.stage.parts)?,
        };
        run.train(&mut optimizer, observer, &learning)?;
        if ranks.is_first() {
            let logit_scale = log_logit_scale(teacher.model());
            model.write(output, optimizer.averages(), image.as_ref(), Some(logit_scale))?;
        }
        Ok(())
    }
}

/// The distinct English texts, and every text with the row of its English version.
fn pairs(table: &TextTable) -> (Vec<String>, Vec<(String, u32)>) {
    let (mut english, mut rows, mut pairs) = (Vec::new(), HashMap::new(), Vec::new());
    for texts in &table.rows {
        let Some(first) = texts.first() else { continue };
        let row = *rows.entry(first.clone()).or_insert_with(|| {
            english.push(first.clone());
            english.len() as u32 - 1
        });
        pairs.extend(texts.iter().map(|text| (text.clone(), row)));
    }
    (english, pairs)
}
