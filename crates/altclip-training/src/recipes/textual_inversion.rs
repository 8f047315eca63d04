//! Trains textual inversion (Gal et al., arXiv 2208.01618): embeddings of a new word for what a few images show. The
//! model is not changed.

use super::diffusion_model::DiffusionModel;
use super::encoded_pairs::EncodedPairs;
use super::fine_tuning::{FineTuning, FineTuningStage};
use super::output::open_run;
use super::precision::Precision;
use super::recipe::TrainingRecipe;
use crate::error::{Error, Result};
use crate::parallel::Communicator;
use crate::parameters::Parameters;
use crate::run::{Objective, Observer};
use crate::stages::realign::{ConditioningRows, ConditioningSource, Realignment};
use crate::stages::sheet::{DrawingParts, SampleSheet};
use crate::tensor_file::save_weights;
use altclip_encoder::conditioner::Conditioner;
use altclip_encoder::images::Background;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::PROMPT_TOKENS;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use candle_core::{DType, Device, Tensor};
use candle_nn::Init;
use embedding_index::readers::ImagePairs;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const STAGE: &str = "textual-inversion";
/// The file name that diffusers and this project look for.
const FILE: &str = "learned_embeds.safetensors";
/// The name of the trained tensor.
const VECTORS: &str = "vectors";
/// The placeholder for the word in a template.
const PLACE: &str = "{}";

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextualInversionRecipe {
    /// Seed of all random draws.
    pub seed: u64,
    /// Seconds between checkpoints.
    pub save_every: u64,
    /// The model, in diffusers' layout: a directory or a hub repository.
    pub model: String,
    /// The dtype that the model computes in.
    #[serde(default)]
    pub precision: Precision,
    /// The images: a folder, or anything that [`ImagePairs::read`] accepts.
    #[serde(alias = "pictures")]
    pub images: PathBuf,
    /// The background of transparent images: `white`, `black`, `#rrggbb`, or `none` to use the hidden colours. The
    /// default is that of the model's `preprocessor_config.json`.
    pub background: Option<Background>,
    /// The new word, such as `<my-cat>`.
    pub word: String,
    /// The number of the word's embeddings.
    pub vectors: usize,
    /// The initial embeddings, such as `cat`: those of its tokens, in turn.
    pub begin_with: String,
    /// Prompts with `{}` for the word.
    pub templates: Vec<String>,
    /// The settings of the training.
    pub stage: FineTuningStage,
    /// Images drawn during training.
    pub sample: Option<SampleSheet>,
}

impl TrainingRecipe for TextualInversionRecipe {
    /// Trains, resuming an earlier run, and writes `output/learned_embeds.safetensors`, which diffusers reads too.
    /// Images that cannot be read are skipped and counted.
    ///
    /// # Errors
    /// If a file cannot be read or written, a setting does not fit the model, a loss is not finite, or a rank is lost.
    fn train(
        &self,
        output: &Path,
        device: &Device,
        ranks: &dyn Communicator,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let dtype = self.precision.dtype(device)?;
        let templates = self.templates()?;
        let run = open_run(ranks, output, STAGE, self.seed, self.save_every)?;
        // Captions are encoded on the fly, since the word's embeddings change.
        let pairs = ImagePairs::read(&self.images, None, &[])?;
        let model = DiffusionModel::open(&self.model, self.background, device)?;
        let resolution = self.stage.resolution;
        let EncodedPairs { latents, .. } =
            ranks.after_first(|| EncodedPairs::of(&pairs, resolution, &model, (output, ""), observer))?;

        let parameters = Parameters::new(self.seed);
        let width = model.text_encoder.spec().embedding_width;
        let init = Init::Const(0.);
        let vectors = parameters.var_builder(device).get_with_hints((self.vectors, width), VECTORS, init)?;
        parameters.load(&BTreeMap::from([(VECTORS.to_owned(), self.beginning(&model)?)]))?;
        let mut tokenizer = model.tokenizer.clone();
        let first = tokenizer.add_word(&self.word, self.vectors)?;
        let text_encoder = model.text_encoder.with_added_embeddings(first, &vectors)?;

        let unet = UNet2DConditionModel::new(&model.unet_config, model.unet_weights(dtype)?)?;
        let prompts = Prompts { templates: &templates, tokenizer: &tokenizer, text_encoder: &*text_encoder };
        let realignment =
            Realignment::new(self.stage.batches(), &unet, &model.scheduler, &latents, &prompts, 1)?;
        let (vae, scheduler) = (&model.vae, &model.scheduler);
        let tuning = FineTuning {
            run: &run,
            stage: &self.stage,
            parameters: &parameters,
            unet: &unet,
            drawing_parts: DrawingParts {
                tokenizer: &tokenizer,
                text_encoder: &*text_encoder,
                vae,
                scheduler,
            },
            sample: self.sample.as_ref(),
            latents: &latents,
            seed: self.seed,
        };
        let trained = tuning.train(|batch| realignment.gradients(batch), observer)?;
        if ranks.is_first() {
            // Only the vectors are trained.
            let of_word = trained.into_values().map(|vectors| (self.word.clone(), vectors)).collect();
            save_weights(&output.join(FILE), &of_word)?;
        }
        Ok(())
    }
}

impl TextualInversionRecipe {
    /// The templates with the word filled in.
    fn templates(&self) -> Result<Vec<String>> {
        if self.templates.is_empty() {
            return Err(Error::Setting("templates: expected at least one, found none".to_owned()));
        }
        let with_word = |template: &String| {
            let has_place = template.contains(PLACE);
            has_place.then(|| template.replace(PLACE, &self.word)).ok_or_else(|| {
                Error::Setting(format!("templates: expected {PLACE} for the word, found {template:?}"))
            })
        };
        self.templates.iter().map(with_word).collect()
    }

    /// The word's initial embeddings, (vectors, hidden_size).
    fn beginning(&self, model: &DiffusionModel) -> Result<Tensor> {
        let ids = model.tokenizer.encode(&self.begin_with)?;
        // Without begin and end tokens.
        let own = ids.get(1..ids.len().saturating_sub(1)).filter(|own| !own.is_empty());
        let Some(own) = own else {
            return Err(Error::Setting("begin_with: expected a word, found none".to_owned()));
        };
        let chosen: Vec<u32> = own.iter().copied().cycle().take(self.vectors).collect();
        Ok(model.text_encoder.word_embeddings(&chosen)?.to_dtype(DType::F32)?)
    }
}

/// A template per image.
struct Prompts<'a> {
    templates: &'a [String],
    tokenizer: &'a Tokenizer,
    /// Its embeddings of the word are trained.
    text_encoder: &'a dyn Conditioner,
}

impl ConditioningSource for Prompts<'_> {
    fn draw(&self, rng: &mut ChaCha8Rng, _: &[u32], is_dropped: &[bool]) -> Result<ConditioningRows> {
        let mut prompt = |&is_dropped: &bool| {
            let template = self.templates.get(rng.random_range(0..self.templates.len().max(1)));
            template.filter(|_| !is_dropped).cloned().unwrap_or_default()
        };
        let prompts: Vec<String> = is_dropped.iter().map(&mut prompt).collect();
        let encoding = self.tokenizer.encode_padded(&prompts, PROMPT_TOKENS)?;
        let states = self.text_encoder.encode_compact(&encoding.input_ids, &encoding.attention_mask)?;
        Ok(ConditioningRows { rows: states.rows, key_bias: states.key_bias, sides: Vec::new() })
    }
}
