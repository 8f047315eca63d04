//! Trains the recipe's dual encoders: the English teacher, its multilingual student, and the student with images.

use super::corpus::Corpus;
use super::held_out::HeldOutReport;
use super::settings::EmojiRecipe;
use crate::captions::{ImageCaptions, TeacherTexts, Translations};
use crate::dataset::ENGLISH;
use crate::error::Result;
use crate::export::export_dual_encoder;
use crate::stages::autoencoder::TrainedVae;
use crate::stages::dual_encoder::{ClipStageInputs, TrainedDualEncoder, embed_images, images_by_concept};
use crate::stages::image_tower::ImageStageInputs;
use altclip_encoder::altclip::AltClipTextTower;
use altclip_encoder::embedder::Embedder;
use altclip_encoder::tokenizer::{PROMPT_TOKENS, Tokenizer};
use altclip_encoder::vision::ClipVisionTower;
use altclip_training::stages::contrastive::ContrastiveLearning;
use altclip_training::stages::teacher::TeacherLearning;
use altclip_training::{Cache, Observer, Optimizer, Parameters, Workers, frozen};
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::{DType, Device, Tensor};
use model_files::source::ModelSource;
use std::path::Path;

/// Folders of the intermediate models.
const ENGLISH_MODEL: &str = "english";
const DISTILLED_MODEL: &str = "distilled";
const CONTRASTIVE_MODEL: &str = "contrastive-model";

/// What all encoder stages share.
pub(super) struct EncoderStages<'a> {
    pub recipe: &'a EmojiRecipe,
    pub corpus: &'a Corpus,
    pub held_out: &'a HeldOutReport,
    pub tokenizer: &'a Tokenizer,
    pub tokenizer_bytes: &'a [u8],
    pub output: &'a Path,
}

impl EncoderStages<'_> {
    /// The teacher: an English CLIP trained on images and English captions.
    pub(super) fn train_clip(&self, observer: &mut dyn Observer) -> Result<TrainedDualEncoder> {
        let EmojiRecipe { clip, seed, .. } = self.recipe;
        let Corpus { captions, images, owners, .. } = self.corpus;
        let run = self.recipe.open_run(self.output, "clip")?;
        let languages = &[ENGLISH.to_owned()];
        let inputs = ClipStageInputs { captions, images, owners, tokenizer: self.tokenizer, languages };
        let teacher = clip.train(&inputs, &run, *seed, observer)?;
        self.keep(ENGLISH_MODEL, &teacher, observer)?;
        Ok(teacher)
    }

    /// Trains the shared image tower to recognize rough drawings.
    pub(super) fn train_image_of_both(
        &self,
        vae: &TrainedVae,
        teacher: &mut TrainedDualEncoder,
        student: &mut TrainedDualEncoder,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        self.train_image(vae, teacher, &[ENGLISH.to_owned()], observer)?;
        student.vision_weights.clone_from(&teacher.vision_weights);
        self.keep(ENGLISH_MODEL, teacher, observer)?;
        self.keep(DISTILLED_MODEL, student, observer)
    }

    /// Trains a model's image tower to recognize rough drawings, with captions in the languages that the model knows.
    pub(super) fn train_image(
        &self,
        trained_vae: &TrainedVae,
        model: &mut TrainedDualEncoder,
        languages: &[String],
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let Corpus { captions, images, owners, .. } = self.corpus;
        let vae = AutoencoderKl::new(
            &trained_vae.model.config,
            frozen(&trained_vae.model.weights, images.device()),
        )?;
        let inputs = ImageStageInputs {
            captions,
            images,
            latents: &trained_vae.latents,
            owners,
            languages,
            tokenizer: self.tokenizer,
            vae: &vae,
        };
        let run = self.recipe.open_run(self.output, "image")?;
        Ok(self.recipe.image.train(&inputs, model, &run, self.recipe.seed, observer)?)
    }

    /// The student: a text tower for all languages that learns the teacher's vectors without images, with the
    /// teacher's image tower.
    pub(super) fn train_teacher(
        &self,
        teacher: &TrainedDualEncoder,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<TrainedDualEncoder> {
        let EmojiRecipe { teacher: stage, languages, seed, .. } = self.recipe;
        let run = self.recipe.open_run(self.output, "teacher")?;
        let captions = &self.corpus.captions;
        let texts = TeacherTexts::new(&self.corpus.data, captions);
        let source = ModelSource::directory(self.output.join(ENGLISH_MODEL));
        let embedder = Embedder::from_source(&source, DType::F32, device)?;
        let words = Cache::at(&self.output.join("teacher-vectors.safetensors"))
            .vectors_of(&embedder, texts.words())?
            .to_vec2()?;
        let rows = texts.rows(&words);
        let width = embedder.projection_dim();
        let vectors = Tensor::from_vec(rows.concat(), (rows.len(), width), device)?;

        // Both have the same shape, so at least English need not be learned again.
        let parameters = Parameters::new(*seed).starting_from(frozen(&teacher.text_weights, device));
        let student = text_tower(teacher, &parameters, device)?;
        let mut optimizer = Optimizer::new(stage.optimizer.clone(), &parameters)?;
        let learning = TeacherLearning {
            student: &student,
            tokenizer: self.tokenizer,
            texts: &Translations { captions, texts: &texts, languages },
            vectors: &vectors,
            batch_size: stage.batch_size,
            max_tokens: stage.max_tokens.unwrap_or(PROMPT_TOKENS),
            workers: &Workers::on(device, stage.parts)?,
        };
        run.train(&mut optimizer, observer, &learning)?;
        // The logit scale stays the teacher's.
        let mut model = teacher.clone();
        model.text_weights.extend(optimizer.averages());
        self.keep(DISTILLED_MODEL, &model, observer)?;
        Ok(model)
    }

    /// Trains the text tower further, on images and captions in all languages.
    pub(super) fn train_contrastive(
        &self,
        model: &mut TrainedDualEncoder,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let EmojiRecipe { contrastive: stage, languages, seed, captions: settings, .. } = self.recipe;
        let Corpus { data, captions, images, owners, styles, .. } = self.corpus;
        let device = images.device();
        let run = self.recipe.open_run(self.output, "contrastive")?;
        let vision = ClipVisionTower::new(&model.vision_config, frozen(&model.vision_weights, device))?;
        let vectors = embed_images(&vision, images)?;
        let parameters = Parameters::new(*seed).starting_from(frozen(&model.text_weights, device));
        let text = text_tower(model, &parameters, device)?;
        let logit_scale = parameters.var_builder(device).get((), "logit_scale")?;
        let mut optimizer = Optimizer::new(stage.optimizer.clone(), &parameters)?;
        let of_concept = images_by_concept(owners, stage.batch_size)?;
        let with_concept = |images: Vec<usize>| {
            let concept = images.first().and_then(|&image| owners.get(image))?;
            Some((*concept, images.into_iter().map(|image| image as u32).collect()))
        };
        let images: Vec<(usize, Vec<u32>)> = of_concept.into_iter().filter_map(with_concept).collect();
        let has_tone = |concept: usize| data.concepts().get(concept).is_some_and(|c| c.composition.is_some());
        let weight = |concept: usize| if has_tone(concept) { settings.toned_weight } else { 1. };
        let weights: Vec<f64> = images.iter().map(|(concept, _)| weight(*concept)).collect();
        let learning = ContrastiveLearning {
            text: &text,
            logit_scale: &logit_scale,
            tokenizer: self.tokenizer,
            captions: &ImageCaptions { captions, languages, images: &images, weights: &weights, styles },
            images: &vectors,
            batch_size: stage.batch_size,
            chunk_size: stage.chunk_size,
            keep_chunks: stage.keep_chunks,
            max_tokens: stage.max_tokens.unwrap_or(PROMPT_TOKENS),
            workers: &Workers::on(device, stage.parts)?,
        };
        run.train(&mut optimizer, observer, &learning)?;
        model.text_weights.extend(optimizer.averages());
        self.keep(CONTRASTIVE_MODEL, model, observer)
    }

    /// Writes a model, and reports how well it finds held-out images.
    fn keep(&self, name: &str, model: &TrainedDualEncoder, observer: &mut dyn Observer) -> Result<()> {
        export_dual_encoder(&self.output.join(name), self.tokenizer_bytes, model)?;
        let shares = self.held_out.found_shares(model, self.tokenizer, &self.recipe.languages)?;
        observer.note(name, &shares);
        Ok(())
    }
}

/// A text tower in the model's shape.
fn text_tower(
    model: &TrainedDualEncoder,
    parameters: &Parameters,
    device: &Device,
) -> Result<AltClipTextTower> {
    let vb = parameters.var_builder(device);
    let projection = vb.pp("text_projection");
    let projection_dim = model.vision_config.projection_dim;
    Ok(AltClipTextTower::new(&model.text_config, projection_dim, vb, projection)?)
}
