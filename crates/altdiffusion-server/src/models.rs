//! Describes the models that a server offers, before they are loaded.

use std::sync::Arc;

use altclip_encoder::{Embedder, PromptEncoder};
use altdiffusion_pipeline::image_metadata::ParameterFields;
use altdiffusion_pipeline::{GenerateOptions, LoadOptions, ModelParts, ModelSource};
use candle_core::DType;

type Load<M, E> = Arc<dyn Fn() -> Result<M, E> + Send + Sync>;

/// A diffusion model to offer.
#[derive(Clone)]
#[must_use]
pub struct ImageModel {
    pub(crate) name: String,
    pub(crate) parts: Load<ModelParts, altdiffusion_pipeline::Error>,
    pub(crate) prompt_encoder: Option<Load<PromptEncoder, altclip_encoder::Error>>,
    pub(crate) options: LoadOptions,
    pub(crate) steps: usize,
    pub(crate) guidance_scale: f64,
    pub(crate) size: Option<(usize, usize)>,
    pub(crate) scale: usize,
    pub(crate) recorded: ParameterFields,
}

impl ImageModel {
    /// A model called `name`, whose parts are found by `parts` and loaded with `options`.
    pub fn new(
        name: impl Into<String>,
        parts: impl Fn() -> altdiffusion_pipeline::Result<ModelParts> + Send + Sync + 'static,
        options: LoadOptions,
    ) -> Self {
        let name = name.into();
        let mut recorded = ParameterFields::default();
        recorded.add("Model", &name);
        recorded.add("Dtype", options.arithmetic_name());
        Self {
            name,
            parts: Arc::new(parts),
            prompt_encoder: None,
            options,
            steps: GenerateOptions::STEPS,
            guidance_scale: GenerateOptions::GUIDANCE_SCALE,
            size: None,
            scale: 1,
            recorded,
        }
    }

    /// A model called `name` in the folders of `source`, which also offers its hidden states.
    pub fn from_source(name: impl Into<String>, source: ModelSource, options: LoadOptions) -> Self {
        let (of_parts, device) = (source.clone(), options.device.clone());
        let model = Self::new(name, move || ModelParts::in_folders(&of_parts), options);
        model.prompt_encoder(move || PromptEncoder::from_source(&source, DType::F32, &device))
    }

    /// Sets the text encoder that answers requests for hidden states alone.
    pub fn prompt_encoder(
        mut self,
        load: impl Fn() -> altclip_encoder::Result<PromptEncoder> + Send + Sync + 'static,
    ) -> Self {
        self.prompt_encoder = Some(Arc::new(load));
        self
    }

    /// Sets the number of steps of requests that do not say; 50 by default.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Sets the guidance scale of requests that do not say; 7.5 by default.
    pub fn guidance_scale(mut self, guidance_scale: f64) -> Self {
        self.guidance_scale = guidance_scale;
        self
    }

    /// Says which width and height in pixels the model draws by default, if that is known before it is loaded.
    pub fn size(mut self, width: usize, height: usize) -> Self {
        self.size = Some((width, height));
        self
    }

    /// Sets how many times the sides of images are enlarged for requests that do not say, 1 to
    /// [`GenerateOptions::LARGEST_SCALE`]; 1 by default. With the [`size`](Self::size), requests for a multiple of that
    /// are enlarged too, as far as they then have the size that they ask for.
    pub fn scale(mut self, scale: usize) -> Self {
        self.scale = scale;
        self
    }

    /// Sets the fields that name the model in the record of an image; by default its name and dtype.
    pub fn recorded_as(mut self, fields: ParameterFields) -> Self {
        self.recorded = fields;
        self
    }
}

/// A dual encoder to offer.
#[derive(Clone)]
pub struct EmbeddingModel {
    pub(crate) name: String,
    pub(crate) load: Load<Embedder, altclip_encoder::Error>,
}

impl EmbeddingModel {
    /// A model called `name`, loaded by `load`.
    pub fn new(
        name: impl Into<String>,
        load: impl Fn() -> altclip_encoder::Result<Embedder> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), load: Arc::new(load) }
    }
}

/// The models of a server. The first of each kind answers requests that name none.
#[derive(Clone, Default)]
#[must_use]
pub struct Models {
    pub(crate) image_models: Vec<ImageModel>,
    pub(crate) embedding_models: Vec<EmbeddingModel>,
}

impl Models {
    /// No models.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a diffusion model.
    pub fn image_model(mut self, model: ImageModel) -> Self {
        self.image_models.push(model);
        self
    }

    /// Adds a dual encoder.
    pub fn embedding_model(mut self, model: EmbeddingModel) -> Self {
        self.embedding_models.push(model);
        self
    }
}
