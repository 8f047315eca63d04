//! Adds text towers, from token ids to states.
//!
//! Servers give ids alone, so that padding is known by its id.

use super::graph::{Graph, Setting, TEXT};
use super::proto::DataType;
use super::weights::Weights;
use crate::bert::BertConfig;
use crate::clip_text::{ClipTextConfig, LEGACY_EOS_TOKEN_ID};
use crate::error::Result;
use crate::xlm_roberta::XlmRobertaConfig;

/// Added to the score of a hidden key: its share is 0 then, and a text of nothing but padding is still no division by 0.
const HIDDEN: f32 = -1e9;

/// The states of a text's tokens.
pub(crate) struct TextStates {
    /// (texts, tokens, width)
    pub states: String,
    /// Whether each is no padding, (texts, tokens).
    seen: String,
}

impl Graph {
    /// XLM-R without its pooler.
    pub(crate) fn xlm_roberta(&mut self, config: &XlmRobertaConfig, weights: &Weights) -> Result<TextStates> {
        let hidden = config.hidden_size;
        let (ids, seen) = self.ids_and_padding(config.pad_token_id);
        let embeddings = weights.at("embeddings");
        // Tokens count up from the padding's position, which all padding has.
        let counted = self.cast(&seen, DataType::Int64);
        let (axis, pad) = (self.integer(1), self.integer(config.pad_token_id.into()));
        let count = self.node("CumSum", &[&counted, &axis], &[]);
        let count = self.node("Mul", &[&count, &counted], &[]);
        let positions = self.node("Add", &[&count, &pad], &[]);

        let shape = [config.vocab_size, hidden];
        let words = self.rows(&embeddings.at("word_embeddings"), "weight", shape, &ids)?;
        let shape = [config.type_vocab_size, hidden];
        let token_type = self.first_row(&embeddings.at("token_type_embeddings"), shape)?;
        let shape = [config.max_position_embeddings, hidden];
        let positions = self.rows(&embeddings.at("position_embeddings"), "weight", shape, &positions)?;
        let x = self.node("Add", &[&words, &token_type], &[]);
        let x = self.node("Add", &[&x, &positions], &[]);
        let x = self.layer_norm(&x, hidden, config.layer_norm_eps, &embeddings.at("LayerNorm"))?;

        let (mut states, bias, layers) = (x, self.key_bias(&seen), weights.at("encoder.layer"));
        for layer in 0..config.num_hidden_layers {
            states = self.post_norm_layer(&states, &config.layer_shape(), &bias, &layers.at(layer))?;
        }
        Ok(TextStates { states, seen })
    }

    /// BERT without its pooler.
    pub(crate) fn bert(&mut self, config: &BertConfig, pad_id: u32, weights: &Weights) -> Result<TextStates> {
        let hidden = config.hidden_size;
        let (ids, seen) = self.ids_and_padding(pad_id);
        let embeddings = weights.at("embeddings");
        let shape = [config.vocab_size, hidden];
        let words = self.rows(&embeddings.at("word_embeddings"), "weight", shape, &ids)?;
        let shape = [config.max_position_embeddings, hidden];
        let positions = self.first_positions(&embeddings.at("position_embeddings"), shape)?;
        let shape = [config.type_vocab_size, hidden];
        let token_type = self.first_row(&embeddings.at("token_type_embeddings"), shape)?;
        let positions = self.node("Add", &[&positions, &token_type], &[]);
        let x = self.node("Add", &[&words, &positions], &[]);
        let x = self.layer_norm(&x, hidden, config.layer_norm_eps, &embeddings.at("LayerNorm"))?;

        let (mut states, bias, layers) = (x, self.key_bias(&seen), weights.at("encoder.layer"));
        for layer in 0..config.num_hidden_layers {
            states = self.post_norm_layer(&states, &config.layer_shape(), &bias, &layers.at(layer))?;
        }
        Ok(TextStates { states, seen })
    }

    /// CLIP's text tower: the state at the end of each text, (texts, width). Padding comes after the end, which does not
    /// see it.
    pub(crate) fn clip_text(&mut self, config: &ClipTextConfig, weights: &Weights) -> Result<String> {
        let hidden = config.hidden_size;
        let (ids, embeddings) = (self.cast(TEXT, DataType::Int64), weights.at("embeddings"));
        let shape = [config.vocab_size, hidden];
        let words = self.rows(&embeddings.at("token_embedding"), "weight", shape, &ids)?;
        let shape = [config.max_position_embeddings, hidden];
        let positions = self.first_positions(&embeddings.at("position_embedding"), shape)?;
        let mut x = self.node("Add", &[&words, &positions], &[]);
        let (bias, layers) = (self.causal_bias(), weights.at("encoder.layers"));
        for layer in 0..config.num_hidden_layers {
            x = self.pre_norm_layer(&x, &config.layer_shape(), Some(&bias), &layers.at(layer))?;
        }
        let x = self.layer_norm(&x, hidden, config.layer_norm_eps, &weights.at("final_layer_norm"))?;
        let is_end = match config.eos_token_id {
            LEGACY_EOS_TOKEN_ID => TEXT.to_owned(),
            id => {
                let id = self.integer(id.into());
                let is_end = self.node("Equal", &[&ids, &id], &[]);
                self.cast(&is_end, DataType::Int32)
            }
        };
        // The first of the largest.
        let settings = [("axis", Setting::Int(1)), ("keepdims", Setting::Int(1))];
        let end = self.node("ArgMax", &[&is_end], &settings);
        Ok(self.node("GatherND", &[&x, &end], &[("batch_dims", Setting::Int(1))]))
    }

    /// SigLIP's text tower: the projected state of the last position, (texts, width). Every text has all positions.
    pub(crate) fn siglip_text(
        &mut self,
        config: &ClipTextConfig,
        projection_dim: usize,
        weights: &Weights,
    ) -> Result<String> {
        let hidden = config.hidden_size;
        let (ids, embeddings) = (self.cast(TEXT, DataType::Int64), weights.at("embeddings"));
        let shape = [config.vocab_size, hidden];
        let words = self.rows(&embeddings.at("token_embedding"), "weight", shape, &ids)?;
        let shape = [config.max_position_embeddings, hidden];
        let positions = self.weight(&embeddings.at("position_embedding"), "weight", &shape)?;
        let mut x = self.node("Add", &[&words, &positions], &[]);
        let layers = weights.at("encoder.layers");
        for layer in 0..config.num_hidden_layers {
            x = self.pre_norm_layer(&x, &config.layer_shape(), None, &layers.at(layer))?;
        }
        let x = self.layer_norm(&x, hidden, config.layer_norm_eps, &weights.at("final_layer_norm"))?;
        let last = self.row(&x, -1);
        self.linear(&last, hidden, projection_dim, &weights.at("head"))
    }

    /// The mean of the states that are no padding, (texts, width).
    pub(crate) fn mean(&mut self, texts: &TextStates) -> String {
        let (rows, width) = (self.integers(&[1]), self.integers(&[2]));
        let seen = self.cast(&texts.seen, DataType::Float);
        let seen = self.node("Unsqueeze", &[&seen, &width], &[]);
        let states = self.node("Mul", &[&texts.states, &seen], &[]);
        let sum = self.node("ReduceSum", &[&states, &rows], &[("keepdims", Setting::Int(0))]);
        let count = self.node("ReduceSum", &[&seen, &rows], &[("keepdims", Setting::Int(0))]);
        self.node("Div", &[&sum, &count], &[])
    }

    /// The ids as runtimes take them for looking up, and whether each is no padding.
    fn ids_and_padding(&mut self, pad_id: u32) -> (String, String) {
        let ids = self.cast(TEXT, DataType::Int64);
        let pad = self.integer(pad_id.into());
        let is_padding = self.node("Equal", &[&ids, &pad], &[]);
        let seen = self.node("Not", &[&is_padding], &[]);
        (ids, seen)
    }

    /// The bias of each key: (texts, 1, 1, tokens).
    fn key_bias(&mut self, seen: &str) -> String {
        let (shown, hidden) = (self.float(0.), self.float(HIDDEN));
        let bias = self.node("Where", &[seen, &shown, &hidden], &[]);
        let heads_and_queries = self.integers(&[1, 2]);
        self.node("Unsqueeze", &[&bias, &heads_and_queries], &[])
    }

    /// The bias that hides later keys: (tokens, tokens).
    fn causal_bias(&mut self) -> String {
        let (tokens, hidden, first) = (self.tokens(), self.float(HIDDEN), self.integer(1));
        let shape = self.node("Concat", &[&tokens, &tokens], &[("axis", Setting::Int(0))]);
        let bias = self.node("Expand", &[&hidden, &shape], &[]);
        self.node("Trilu", &[&bias, &first], &[("upper", Setting::Int(1))])
    }

    /// The length of the texts, as a row of one number.
    fn tokens(&mut self) -> String {
        self.node("Shape", &[TEXT], &[("start", Setting::Int(1)), ("end", Setting::Int(2))])
    }

    /// The rows of a table of positions for the texts' tokens.
    fn first_positions(&mut self, weights: &Weights, shape: [usize; 2]) -> Result<String> {
        let table = self.weight(weights, "weight", &shape)?;
        let (first, tokens, axis) = (self.integers(&[0]), self.tokens(), self.integers(&[0]));
        Ok(self.node("Slice", &[&table, &first, &tokens, &axis], &[]))
    }

    fn first_row(&mut self, weights: &Weights, shape: [usize; 2]) -> Result<String> {
        let first = self.integer(0);
        self.rows(weights, "weight", shape, &first)
    }
}
