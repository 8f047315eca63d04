//! Trains a text tower contrastively on images and captions.

use super::altclip_model::TrainedAltClip;
use super::data::{read_pairs, report_skipped, report_transparent};
use super::frozen_encoder::{ImageTower, log_logit_scale, open_frozen};
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
use altclip_encoder::Family;
use altclip_encoder::altclip::normalize;
use altclip_encoder::images::Background;
use candle_core::{Device, Tensor};
use embedding_index::readers::{ImagePairs, Skipped};
use model_files::source::ModelSource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const STAGE: &str = "contrastive";

/// What the frozen image tower makes of the data.
struct ImageVectors {
    /// Of the readable images, (n, projection_dim).
    vectors: Tensor,
    /// Their rows in the data.
    kept: Vec<u32>,
    /// The logarithm of another model's logit scale, at which a model that has none begins.
    logit_scale: Option<f32>,
}

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
    /// A dual encoder of any family whose image tower gives the images' vectors. By default the model itself.
    #[serde(default)]
    pub image_model: Option<String>,
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

        let ImageVectors { vectors, kept, logit_scale: first_scale } =
            ranks.after_first(|| self.vectors(output, &data, device, observer))?;
        let mut pairs = Vec::new();
        for (row, &pair) in (0u32..).zip(&kept) {
            let captions = data.captions.get(pair as usize).into_iter().flatten();
            pairs.extend(captions.map(|caption| (caption.clone(), row)));
        }
        let model = TrainedAltClip::open(&self.model, self.seed, dtype, device, true)?;
        let (found, expected) = (vectors.dim(1)?, model.config.projection_dim);
        if found != expected {
            return Err(Error::Setting(format!(
                "image_model: its vectors have {found} values, expected {expected} as the model's"
            )));
        }
        let max_tokens = model.max_tokens(self.stage.max_tokens)?;
        model.report_fresh(observer, STAGE);
        let logit_scale = model.logit_scale(first_scale, device)?;
        let image = self.image_tower(&model)?;
        if image.is_none() {
            observer.note(STAGE, "the image tower is not CLIP's by name: the result has only texts");
        }
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
            max_tokens,
            workers: &Workers::on(device, self.stage.parts)?,
        };
        run.train(&mut optimizer, observer, &learning)?;
        if ranks.is_first() {
            model.write(output, optimizer.averages(), image.as_ref(), None)?;
        }
        Ok(())
    }
}

impl ContrastiveRecipe {
    /// The image tower that goes with the trained text tower.
    fn image_tower(&self, model: &TrainedAltClip) -> Result<Option<ImageTower>> {
        let Some(name) = &self.image_model else { return model.image_tower() };
        let source = ModelSource::open(name)?;
        ImageTower::of(&source, Family::of(&source)?, model.config.projection_dim)
    }

    /// Embeds the images, unless an earlier run did.
    fn vectors(
        &self,
        output: &Path,
        data: &ImagePairs,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<ImageVectors> {
        const VECTORS: &str = "vectors";
        const KEPT: &str = "kept";
        const LOGIT_SCALE: &str = "logit_scale";
        let (name, setting) = match &self.image_model {
            Some(name) => (name, "image_model"),
            None => (&self.model, "model"),
        };
        let on = self.background.map(|background| format!(" on {background}")).unwrap_or_default();
        let key = format!("{} images {:016x} by {name}{on}", data.captions.len(), data.key);
        let (mut skipped, mut transparent) = (Skipped::default(), 0);
        let make = || {
            let mut embedder = open_frozen(&ModelSource::open(name)?, setting, device)?;
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
            let scale = Tensor::new(log_logit_scale(embedder.model()), &Device::Cpu)?;
            let tensors = [(VECTORS, vectors), (KEPT, kept), (LOGIT_SCALE, scale)];
            Ok(BTreeMap::from(tensors.map(|(name, tensor)| (name.to_owned(), tensor))))
        };
        let cache = Cache::at(&output.join("image-vectors.safetensors"));
        let tensors = cache.of(&key, make)?;
        report_skipped(observer, STAGE, &skipped);
        report_transparent(observer, STAGE, transparent, self.background);
        Ok(ImageVectors {
            kept: cache.tensor(tensors.clone(), KEPT)?.to_vec1()?,
            logit_scale: match &self.image_model {
                Some(_) => Some(cache.tensor(tensors.clone(), LOGIT_SCALE)?.to_scalar()?),
                None => None,
            },
            vectors: cache.tensor(tensors, VECTORS)?,
        })
    }
}
