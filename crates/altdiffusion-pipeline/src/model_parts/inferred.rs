//! Configurations of a single file that has none, from the shapes of its tensors.
//!
//! What no shape tells is as in all models that were published in this form: 8 heads in the UNets of Stable Diffusion 1,
//! and heads of 64 channels in those of Stable Diffusion 2 and in XLM-R; 32 groups; latents scaled by 0.18215.

use std::collections::BTreeSet;

use altclip_encoder::text_encoder::TextEncoderConfig;
use altclip_encoder::xlm_roberta::XlmRobertaConfig;
use model_files::checkpoint::Checkpoint;
use serde_json::{Value, json};

use super::controlnet::Naming;
use super::names::index;
use super::{TEXT_ENCODER_PREFIX, unet_names, vae_names};
use crate::controlnet::ControlNetConfig;
use crate::unet::UNet2DConditionConfig;
use crate::vae::AutoencoderKlConfig;
use crate::{Error, PerBlock, Result};

/// Heads of every level in Stable Diffusion 1.
const SD1_HEADS: usize = 8;
/// Channels of every head in Stable Diffusion 2.
const SD2_HEAD_CHANNELS: usize = 64;
/// Channels of every head in XLM-R, base and large.
const XLM_R_HEAD_CHANNELS: usize = 64;
/// Sides of the latents that the models were trained on.
const SAMPLE_SIZE: usize = 64;

/// The one tensor by which trainers mark a model that predicts velocities, and the one for noise schedules that end
/// without signal. Their values do not matter.
const PREDICTS_V: &str = "v_pred";
const ZERO_TERMINAL_SNR: &str = "ztsnr";

/// The tensors of a part, by their names without its prefix.
struct Part<'a> {
    checkpoint: &'a Checkpoint,
    prefix: &'static str,
}

impl Part<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.checkpoint.names().filter_map(|name| name.strip_prefix(self.prefix))
    }

    fn has(&self, name: &str) -> bool {
        self.checkpoint.contains(&format!("{}{name}", self.prefix))
    }

    /// One side of a tensor.
    fn size(&self, name: &str, dimension: usize) -> Result<usize> {
        let name = format!("{}{name}", self.prefix);
        let missing = || model_files::Error::MissingTensor {
            name: name.clone(),
            file: self.checkpoint.file_name().to_owned(),
            nearest: None,
        };
        let shape = self.checkpoint.shape(&name).ok_or_else(missing)?;
        shape.get(dimension).copied().ok_or_else(|| {
            let problem = format!("tensor {name} has shape {shape:?}, expected more dimensions");
            Error::content(self.checkpoint.file_name(), problem)
        })
    }

    /// The first sides of tensors, up to the first that is not there.
    fn sizes(&self, names: impl Iterator<Item = String>) -> Result<Vec<usize>> {
        names.take_while(|name| self.has(name)).map(|name| self.size(&name, 0)).collect()
    }

    fn rank(&self, name: &str) -> Option<usize> {
        self.checkpoint.shape(&format!("{}{name}", self.prefix)).map(<[usize]>::len)
    }

    /// The numbers that stand between `before` and a dot in the tensors' names.
    fn numbers(&self, before: &str) -> BTreeSet<usize> {
        let rest = self.names().filter_map(|name| name.strip_prefix(before));
        rest.filter_map(|rest| index(rest.split('.').next()?)).collect()
    }

    fn error(&self, problem: String) -> Error {
        Error::content(self.checkpoint.file_name(), problem)
    }

    /// How many heads of `channels` channels share a width.
    fn heads(&self, what: &str, width: usize, channels: usize) -> Result<usize> {
        if width == 0 || !width.is_multiple_of(channels) {
            return Err(self.error(format!(
                "the number of heads of {what} cannot be told from its width {width}, expected a multiple of \
                 {channels}, or a configuration beside the file"
            )));
        }
        Ok(width / channels)
    }
}

/// `unet/config.json` of the UNet in a single file.
pub(super) fn unet(checkpoint: &Checkpoint) -> Result<UNet2DConditionConfig> {
    let part = Part { checkpoint, prefix: unet_names::PREFIX };
    let down = WayDown::in_latent_diffusion(&part)?;
    let up_attends =
        |level: usize| part.has(&format!("output_blocks.{}.1.norm.weight", level * (down.layers + 1)));
    let up_type = |level| if up_attends(level) { "CrossAttnUpBlock2D" } else { "UpBlock2D" }.to_owned();
    Ok(UNet2DConditionConfig {
        sample_size: Some(PerBlock::Same(SAMPLE_SIZE)),
        in_channels: part.size("input_blocks.0.0.weight", 1)?,
        out_channels: part.size("out.2.weight", 0)?,
        down_block_types: down.block_types(),
        up_block_types: (0..down.channels.len()).map(up_type).collect(),
        layers_per_block: PerBlock::Same(down.layers),
        cross_attention_dim: PerBlock::Same(down.cross_attention_dim),
        transformer_layers_per_block: down.transformer_layers(),
        attention_head_dim: down.heads(&part, "the UNet")?,
        use_linear_projection: down.use_linear_projection,
        block_out_channels: down.channels,
        ..Default::default()
    })
}

/// `config.json` of a ControlNet in a single file, in whichever naming.
pub(super) fn controlnet(
    checkpoint: &Checkpoint,
    prefix: &'static str,
    naming: Naming,
) -> Result<ControlNetConfig> {
    let part = Part { checkpoint, prefix };
    let (down, conv_in, embedding) = match naming {
        // Every fourth is a convolution that changes the channels; between them are others, and activations.
        Naming::LatentDiffusion => (
            WayDown::in_latent_diffusion(&part)?,
            "input_blocks.0.0.weight",
            part.sizes((0..).step_by(4).map(|layer| format!("input_hint_block.{layer}.weight")))?,
        ),
        Naming::Diffusers => {
            let halving = |block| format!("controlnet_cond_embedding.blocks.{block}.weight");
            let first = "controlnet_cond_embedding.conv_in.weight".to_owned();
            let names = std::iter::once(first).chain((1..).step_by(2).map(halving));
            (WayDown::in_diffusers(&part)?, "conv_in.weight", part.sizes(names)?)
        }
    };
    Ok(ControlNetConfig {
        in_channels: part.size(conv_in, 1)?,
        conditioning_embedding_out_channels: embedding,
        down_block_types: down.block_types(),
        layers_per_block: down.layers,
        cross_attention_dim: down.cross_attention_dim,
        transformer_layers_per_block: down.transformer_layers(),
        attention_head_dim: down.heads(&part, "the ControlNet")?,
        use_linear_projection: down.use_linear_projection,
        block_out_channels: down.channels,
        ..Default::default()
    })
}

/// What the tensors of the way down and of the middle tell, which a UNet and a ControlNet have both.
struct WayDown {
    /// Residual blocks of each level.
    layers: usize,
    /// Channels of each level, highest resolution first.
    channels: Vec<usize>,
    attends: Vec<bool>,
    /// Transformer blocks after each residual block; where there is no transformer, as many as in the middle.
    transformers: Vec<usize>,
    use_linear_projection: bool,
    cross_attention_dim: usize,
}

impl WayDown {
    fn in_latent_diffusion(part: &Part) -> Result<Self> {
        let inputs = part.numbers("input_blocks.");
        let is_halving = |block: &usize| part.has(&format!("input_blocks.{block}.0.op.weight"));
        let halvings: Vec<usize> = inputs.iter().copied().filter(is_halving).collect();
        // The first block is a convolution; a halving ends each level but the last.
        let blocks = inputs.last().copied().unwrap_or(0);
        let layers = halvings.first().map_or(blocks, |halving| halving.saturating_sub(1));
        let levels = halvings.len() + 1;
        // Where no block is missing there are no more than tensors, and the products below are small.
        let is_regular = layers > 0
            && inputs.len() == blocks.saturating_add(1)
            && inputs.len() == levels * (layers + 1)
            && halvings.iter().zip(1..).all(|(halving, level)| *halving == level * (layers + 1));
        if !is_regular {
            return Err(part.error(format!(
                "expected as many residual blocks on each level, found {blocks} input blocks with halvings at \
                 {halvings:?}"
            )));
        }
        let first = |level: usize| format!("input_blocks.{}", 1 + level * (layers + 1));
        let names = (0..levels)
            .map(|level| (format!("{}.0.out_layers.3.weight", first(level)), format!("{}.1", first(level))));
        Self::of_levels(part, layers, names, "middle_block.1")
    }

    fn in_diffusers(part: &Part) -> Result<Self> {
        let levels = part.numbers("down_blocks.").len();
        let names = (0..levels).map(|level| {
            let block = format!("down_blocks.{level}");
            (format!("{block}.resnets.0.conv2.weight"), format!("{block}.attentions.0"))
        });
        let layers = part.numbers("down_blocks.0.resnets.").len();
        Self::of_levels(part, layers, names, "mid_block.attentions.0")
    }

    /// From the names of each level's last convolution and of its transformer, and that of the middle's transformer.
    fn of_levels(
        part: &Part,
        layers: usize,
        names: impl Iterator<Item = (String, String)>,
        middle: &str,
    ) -> Result<Self> {
        let transformer_blocks = |name: &str| part.numbers(&format!("{name}.transformer_blocks.")).len();
        let (mut channels, mut attends, mut transformers) = (vec![], vec![], vec![]);
        for (convolution, transformer) in names {
            channels.push(part.size(&convolution, 0)?);
            let here = part.has(&format!("{transformer}.norm.weight"));
            attends.push(here);
            transformers.push(transformer_blocks(if here { &transformer } else { middle }));
        }
        let context = format!("{middle}.transformer_blocks.0.attn2.to_k.weight");
        Ok(Self {
            layers,
            channels,
            attends,
            transformers,
            use_linear_projection: part.rank(&format!("{middle}.proj_in.weight")) == Some(2),
            cross_attention_dim: part.size(&context, 1)?,
        })
    }

    fn block_types(&self) -> Vec<String> {
        let name = |attends: &bool| if *attends { "CrossAttnDownBlock2D" } else { "DownBlock2D" }.to_owned();
        self.attends.iter().map(name).collect()
    }

    fn heads(&self, part: &Part, what: &str) -> Result<PerBlock<usize>> {
        if !self.use_linear_projection {
            return Ok(PerBlock::Same(SD1_HEADS));
        }
        let heads = |width: &usize| part.heads(what, *width, SD2_HEAD_CHANNELS);
        Ok(PerBlock::Each(self.channels.iter().map(heads).collect::<Result<_>>()?))
    }

    fn transformer_layers(&self) -> PerBlock<usize> {
        match self.transformers.as_slice() {
            [first, rest @ ..] if rest.iter().all(|count| count == first) => PerBlock::Same(*first),
            _ => PerBlock::Each(self.transformers.clone()),
        }
    }
}

/// `vae/config.json` of the autoencoder in a single file.
pub(super) fn vae(checkpoint: &Checkpoint) -> Result<AutoencoderKlConfig> {
    let part = Part { checkpoint, prefix: vae_names::PREFIX };
    let levels = part.numbers("encoder.down.").len();
    let channels =
        (0..levels).map(|level| part.size(&format!("encoder.down.{level}.block.0.conv1.weight"), 0));
    Ok(AutoencoderKlConfig {
        in_channels: part.size("encoder.conv_in.weight", 1)?,
        out_channels: part.size("decoder.conv_out.weight", 0)?,
        down_block_types: vec!["DownEncoderBlock2D".to_owned(); levels],
        up_block_types: vec!["UpDecoderBlock2D".to_owned(); levels],
        block_out_channels: channels.collect::<Result<_>>()?,
        layers_per_block: part.numbers("encoder.down.0.block.").len(),
        latent_channels: part.size("decoder.conv_in.weight", 1)?,
        use_quant_conv: part.has("quant_conv.weight"),
        use_post_quant_conv: part.has("post_quant_conv.weight"),
        mid_block_add_attention: part.has("decoder.mid.attn_1.q.weight"),
        ..Default::default()
    })
}

/// `text_encoder/config.json` of the text encoder in a single file.
pub(super) fn text_encoder(checkpoint: &Checkpoint) -> Result<TextEncoderConfig> {
    let part = Part { checkpoint, prefix: TEXT_ENCODER_PREFIX };
    let vocab_size = part.size("roberta.embeddings.word_embeddings.weight", 0)?;
    let hidden_size = part.size("roberta.embeddings.word_embeddings.weight", 1)?;
    let has_pre_transformation = part.has("transformation_pre.weight");
    let projection =
        if has_pre_transformation { "transformation_pre.weight" } else { "transformation.weight" };
    Ok(TextEncoderConfig {
        encoder: XlmRobertaConfig {
            vocab_size,
            hidden_size,
            num_hidden_layers: part.numbers("roberta.encoder.layer.").len(),
            num_attention_heads: part.heads("the text encoder", hidden_size, XLM_R_HEAD_CHANNELS)?,
            intermediate_size: part.size("roberta.encoder.layer.0.intermediate.dense.weight", 0)?,
            max_position_embeddings: part.size("roberta.embeddings.position_embeddings.weight", 0)?,
            type_vocab_size: part.size("roberta.embeddings.token_type_embeddings.weight", 0)?,
            ..XlmRobertaConfig::large()
        },
        project_dim: part.size(projection, 0)?,
        use_attention_mask: true,
        has_pre_transformation,
    })
}

/// `scheduler/scheduler_config.json` of a single file: what all published models have.
///
/// Whether the UNet predicts noise or velocities no shape tells. It is noise in every published AltDiffusion, and in the
/// others where no tensor says otherwise.
pub(super) fn scheduler(checkpoint: &Checkpoint) -> Value {
    let prediction = if checkpoint.contains(PREDICTS_V) { "v_prediction" } else { "epsilon" };
    json!({
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction,
        "rescale_betas_zero_snr": checkpoint.contains(ZERO_TERMINAL_SNR),
        "clip_sample": false,
        "set_alpha_to_one": false,
        "steps_offset": 1,
    })
}
