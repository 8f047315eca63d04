//! Encodes tokens with M2M-100's encoder, which NLLB has, too.
//!
//! Beyond English-Centric Multilingual Machine Translation, <https://arxiv.org/abs/2010.11125>, and No Language Left
//! Behind, <https://arxiv.org/abs/2207.04672>; `M2M100Encoder` of transformers. Layer norms precede their blocks
//! (pre-LN), and positions are sinusoids.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::VarBuilder;
use fused_ops::{
    AttentionHeads, Epilogue, LayerNorm, Linear, LinearGroup, Sequences, compute_dtype, packed_attention,
};

use crate::activation::HiddenAct;
use crate::layer_shape::{LARGEST_WIDTH, LayerShape, MOST_LAYERS, MOST_TOKENS, check_limits};
use crate::padding::CompactPrompts;
use crate::word_table::WordTable;

const LAYER_NORM_EPS: f64 = 1e-5;
/// The longest wavelength of a position, over 2π.
const LONGEST_WAVE: f64 = 10_000.;

/// The sizes of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct M2m100Config {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width between the two linear layers of the feed-forward block.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads of each layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The longest text in tokens.
    pub max_tokens: usize,
    /// Id of `<pad>`; the first token's position is the next number.
    pub pad_token_id: u32,
}

impl M2m100Config {
    fn layer_shape(&self) -> LayerShape {
        LayerShape {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_attention_heads: self.num_attention_heads,
            // Nothing reads it: these layers always use ReLU.
            hidden_act: HiddenAct::Gelu,
            layer_norm_eps: LAYER_NORM_EPS,
        }
    }

    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Names the first invalid one, with what was expected.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        check_limits([
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("vocab_size", self.vocab_size, MOST_TOKENS),
            ("max_tokens", self.max_tokens, LARGEST_WIDTH),
        ])?;
        self.layer_shape().check()?;
        if self.hidden_size < 4 || !self.hidden_size.is_multiple_of(2) {
            return Err(format!(
                "hidden_size is {}, expected an even number of at least 4",
                self.hidden_size
            ));
        }
        match self.vocab_size > self.pad_token_id as usize {
            true => Ok(()),
            false => Err(format!("vocab_size is {}, expected more than the padding's id", self.vocab_size)),
        }
    }
}

/// Maps token ids to hidden states.
#[derive(Debug, Clone)]
pub(crate) struct M2m100Encoder {
    embed_tokens: WordTable,
    /// (pad_token_id + 1 + max_tokens, hidden_size)
    positions: Tensor,
    layers: Vec<M2m100Layer>,
    layer_norm: LayerNorm,
    config: M2m100Config,
    device: Device,
}

impl M2m100Encoder {
    /// Reads `embed_tokens.*`, `layers.*` and `layer_norm.*` under `vb`.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub(crate) fn new(config: &M2m100Config, vb: VarBuilder) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        let (hidden, layers, device) = (config.hidden_size, vb.pp("layers"), vb.device().clone());
        let positions = sinusoids(config, &device)?.to_dtype(compute_dtype(vb.dtype(), &device))?;
        Ok(Self {
            embed_tokens: WordTable::new(config.vocab_size, hidden, vb.pp("embed_tokens"))?,
            positions,
            layers: (0..config.num_hidden_layers)
                .map(|index| M2m100Layer::new(config, layers.pp(index)))
                .collect::<Result<_>>()?,
            layer_norm: LayerNorm::new(hidden, LAYER_NORM_EPS, vb.pp("layer_norm"))?,
            config: config.clone(),
            device,
        })
    }

    /// The rows of prompts after the last layer norm: (rows, hidden_size).
    ///
    /// # Errors
    /// If an id is outside the vocabulary, or a text is too long.
    pub(crate) fn encode(&self, prompts: &CompactPrompts) -> Result<Tensor> {
        let encode =
            |part: &CompactPrompts| self.forward_packed(&part.input_ids(), &part.sequences(&self.device)?);
        match prompts.parts().as_slice() {
            [all] => encode(all),
            parts => Tensor::cat(&parts.iter().map(encode).collect::<Result<Vec<_>>>()?, 0),
        }
    }

    fn forward_packed(&self, input_ids: &[u32], sequences: &Sequences) -> Result<Tensor> {
        let words = (self.embed_tokens.forward(input_ids)? * (self.config.hidden_size as f64).sqrt())?;
        let positions = Tensor::new(self.position_ids(input_ids, sequences.lengths())?, &self.device)?;
        let mut x = (words + self.positions.index_select(&positions, 0)?)?;
        for layer in &self.layers {
            x = layer.forward(&x, sequences)?;
        }
        self.layer_norm.forward(&x)
    }

    /// The position of every id: tokens count up from `pad_token_id + 1`, and all padding has `pad_token_id`.
    fn position_ids(&self, input_ids: &[u32], lengths: &[usize]) -> Result<Vec<u32>> {
        let (pad, most) = (self.config.pad_token_id, self.config.max_tokens);
        let mut positions = Vec::with_capacity(input_ids.len());
        let mut rest = input_ids;
        for &length in lengths {
            let Some((prompt, others)) = rest.split_at_checked(length) else {
                bail!("{} token ids for prompts of more rows", input_ids.len())
            };
            rest = others;
            let mut last = pad;
            for &id in prompt {
                last += u32::from(id != pad);
                positions.push(if id == pad { pad } else { last });
            }
            let count = (last - pad) as usize;
            if count > most {
                bail!("a text has {count} tokens, and the text tower has positions for {most}")
            }
        }
        Ok(positions)
    }
}

/// Rows of sines and cosines of geometrically falling frequencies; zeros for padding.
fn sinusoids(config: &M2m100Config, device: &Device) -> Result<Tensor> {
    let (width, half) = (config.hidden_size, config.hidden_size / 2);
    let padding = config.pad_token_id as usize;
    let rows = padding + 1 + config.max_tokens;
    // In f32 where the reference has it, since the phase of a high position depends on its rounding.
    let step = (LONGEST_WAVE.ln() / (half - 1) as f64) as f32;
    let mut values = Vec::with_capacity(rows * width);
    for row in 0..rows {
        let phase = |channel: usize| row as f32 * (channel as f32 * -step).exp();
        if row == padding {
            values.extend(std::iter::repeat_n(0f32, width));
            continue;
        }
        values.extend((0..half).map(|channel| phase(channel).sin()));
        values.extend((0..half).map(|channel| phase(channel).cos()));
    }
    Tensor::from_vec(values, (rows, width), &Device::Cpu)?.to_dtype(DType::F32)?.to_device(device)
}

/// `layers.N`.
#[derive(Debug, Clone)]
struct M2m100Layer {
    self_attn_layer_norm: LayerNorm,
    query_key_value: LinearGroup<3>,
    out_proj: Linear,
    heads: AttentionHeads,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl M2m100Layer {
    fn new(config: &M2m100Config, vb: VarBuilder) -> Result<Self> {
        let (hidden, inner, attention) = (config.hidden_size, config.intermediate_size, vb.pp("self_attn"));
        let norm = |name: &str| LayerNorm::new(hidden, LAYER_NORM_EPS, vb.pp(name));
        let projection = |name: &str| Linear::new(hidden, hidden, true, attention.pp(name));
        Ok(Self {
            self_attn_layer_norm: norm("self_attn_layer_norm")?,
            query_key_value: LinearGroup::new([
                projection("q_proj")?,
                projection("k_proj")?,
                projection("v_proj")?,
            ])?,
            out_proj: projection("out_proj")?,
            heads: AttentionHeads::new(config.num_attention_heads, &attention),
            final_layer_norm: norm("final_layer_norm")?,
            fc1: Linear::new(hidden, inner, true, vb.pp("fc1"))?,
            fc2: Linear::new(inner, hidden, true, vb.pp("fc2"))?,
        })
    }

    /// The rows of `sequences`, (rows, hidden_size) → the same.
    fn forward(&self, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        let [query, key, value] = self.query_key_value.forward(&self.self_attn_layer_norm.forward(x)?)?;
        let mixed = packed_attention(&query, &key, &value, self.heads, sequences)?;
        let [x, normalised] = self.out_proj.forward_then_norm(&mixed, x, &self.final_layer_norm)?;
        let inner = self.fc1.forward(&normalised)?.relu()?;
        self.fc2.forward_with(&inner, &Epilogue::residual(&x))
    }
}
