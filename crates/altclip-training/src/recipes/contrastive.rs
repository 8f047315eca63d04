//! Trains a text tower contrastively on images and captions.

use super::altclip_model::TrainedAltClip;
use super::data::{read_pairs, report_skipped, report_transparent};
use super::output::open_run;
use super::precision::Precision;
use super::recipe::TrainingRecipe;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::parallel::Communicator;
use crate::run::Observer;
use crate::stages::contrastive::{ContrastiveLearning, ContrastiveStage};
use crate::text_rows::ShuffledTexts;
use crate::workers::Workers;
use altclip_encoder::altclip::normalize;
use altclip_encoder::embedder::Embedder;
use altclip_encoder::images::Background;
use candle_core::{DType, Device, Tensor};
use embedding_index::readers::{ImagePairs, Skipped};
use model_files::source::ModelSource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const STAGE: &str = "contrastive";

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContrastiveRecipe {
    /// Seed of the data's order.
    pub seed: u64,
    /// Seconds between checkpoints.
    pub save_every: u64,
    /// The model whose text tower is trained, in AltCLIP's layout: a directory or a hub repository.
    pub model: String,
    /// The dtype that the model computes in.
    #[serde(default)]
    pub precision: Precision,
    /// Images and captions: a table, a WebDataset archive, several of those, or a folder; see [`ImagePairs::read`].
    pub data: PathBuf,
    /// The column of images in a table, or their endings elsewhere; by default `image`, or all known endings.
    #[serde(alias = "picture")]
    pub image: Option<String>,
    /// The background of transparent images: `white`, `black`, `#rrggbb`, or `none` to use the hidden colours. The
    /// default is that of the model's `preprocessor_config.json`.
    pub background: Option<Background>,
    /// The columns of captions in a table, or the endings or fields of their files elsewhere.
    pub captions: Vec<String>,
    /// The settings of the training.
    pub stage: ContrastiveStage,
}

impl TrainingRecipe for ContrastiveRecipe {
    /// Trains, resuming an earlier run, and writes the model to `output/model`. Images that cannot be read are
    /// skipped and counted.
    ///
    /// # Errors
    /// If a file cannot be read or written, a loss is not finite, or a rank is lost.
    fn train(
        &self,
        output: &Path,
        device: &Device,
        ranks: &dyn Communicator,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let dtype = self.precision.dtype(device)?;
        let run = open_run(ranks, output, STAGE, self.seed, self.save_every)?;
        let data = read_pairs(&self.data, self.image.as_deref(), &self.captions)?;
        report_skipped(observer, STAGE, &data.skipped);

        let (vectors, kept) = ranks.after_first(|| self.vectors(output, &data, device, observer))?;
        let mut pairs = Vec::new();
        for (row, &pair) in (0u32..).zip(&kept) {
            let captions = data.captions.get(pair as usize).into_iter().flatten();
            pairs.extend(captions.map(|caption| (caption.clone(), row)));
        }
        let model = TrainedAltClip::open(&self.model, self.seed, dtype, device, true)?;
        model.report_fresh(observer, STAGE);
        let logit_scale = model.logit_scale(device)?;
        let mut optimizer = Optimizer::new(self.stage.optimizer.clone(), &model.parameters)?;
        let learning = ContrastiveLearning {
            text: &model.text,
            logit_scale: &logit_scale,
            tokenizer: &model.tokenizer,
            captions: &ShuffledTexts::new(pairs, self.seed)?,
            images: &normalize(&vectors.to_device(device)?)?,
            batch_size: self.stage.batch_size,
            chunk_size: self.stage.chunk_size,
            keep_chunks: self.stage.keep_chunks,
            max_tokens: self.stage.max_tokens,
            workers: &Workers::on(device, self.stage.parts)?,
        };
        run.train(&mut optimizer, observer, &learning)?;
        if ranks.is_first() {
            model.write(output, optimizer.averages(), model.image_weights(None)?, None)?;
        }
        Ok(())
    }
}

impl ContrastiveRecipe {
    /// The vectors of the readable images, (n, projection_dim), and their rows in the data.
    fn vectors(
        &self,
        output: &Path,
        data: &ImagePairs,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<(Tensor, Vec<u32>)> {
        const VECTORS: &str = "vectors";
        const KEPT: &str = "kept";
        let on = self.background.map(|background| format!(" on {background}")).unwrap_or_default();
        let key = format!("{} images {:016x} by {}{on}", data.captions.len(), data.key, self.model);
        let (mut skipped, mut transparent) = (Skipped::default(), 0);
        let make = || {
            let mut embedder = Embedder::from_source(&ModelSource::open(&self.model)?, DType::F32, device)?;
            if let Some(background) = self.background {
                embedder = embedder.with_background(background);
            }
            let (mut values, mut kept) = (Vec::new(), Vec::new());
            let mut stream = embedder.image_stream(data.images());
            for (row, (_, vector)) in (0u32..).zip(stream.by_ref()) {
                match vector {
                    Ok(vector) => {
                        values.extend(vector);
                        kept.push(row);
                    }
                    Err(error) => skipped.add(|| error.to_string()),
                }
            }
            transparent = stream.transparent();
            if kept.is_empty() {
                return Err(Error::format(&self.data, format!("expected images: {skipped}")));
            }
            let vectors = Tensor::from_vec(values, (kept.len(), embedder.projection_dim()), &Device::Cpu)?;
            let kept = Tensor::new(kept, &Device::Cpu)?;
            Ok(BTreeMap::from([(VECTORS.to_owned(), vectors), (KEPT.to_owned(), kept)]))
        };
        let cache = Cache::at(&output.join("image-vectors.safetensors"));
        let tensors = cache.of(&key, make)?;
        report_skipped(observer, STAGE, &skipped);
        report_transparent(observer, STAGE, transparent, self.background);
        let kept = cache.tensor(tensors.clone(), KEPT)?.to_vec1()?;
        Ok((cache.tensor(tensors, VECTORS)?, kept))
    }
}
