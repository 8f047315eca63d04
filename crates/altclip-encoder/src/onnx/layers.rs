//! Adds the layers that towers have in common.

use std::f32::consts::SQRT_2;

use super::graph::{Graph, Setting, signed};
use super::weights::Weights;
use crate::activation::HiddenAct;
use crate::error::Result;
use crate::layer_shape::LayerShape;

/// √(2/π), for the approximation of GELU.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

impl Graph {
    /// `weight` and `bias`: (…, input) → (…, output).
    pub(crate) fn linear(
        &mut self,
        x: &str,
        input: usize,
        output: usize,
        weights: &Weights,
    ) -> Result<String> {
        let product = self.product(x, input, output, weights)?;
        let bias = self.weight(weights, "bias", &[output])?;
        Ok(self.node("Add", &[&product, &bias], &[]))
    }

    /// `weight` alone: (…, input) → (…, output).
    pub(crate) fn product(
        &mut self,
        x: &str,
        input: usize,
        output: usize,
        weights: &Weights,
    ) -> Result<String> {
        let weight = self.transposed(weights, "weight", [output, input])?;
        Ok(self.node("MatMul", &[x, &weight], &[]))
    }

    /// The hyperbolic tangent.
    pub(crate) fn tanh(&mut self, x: &str) -> String {
        self.node("Tanh", &[x], &[])
    }

    /// The same as [`product`](Self::product) with a weight `name` whose rows are the inputs.
    pub(crate) fn product_by_rows(
        &mut self,
        x: &str,
        input: usize,
        output: usize,
        (weights, name): (&Weights, &str),
    ) -> Result<String> {
        let weight = self.weight(weights, name, &[input, output])?;
        Ok(self.node("MatMul", &[x, &weight], &[]))
    }

    /// Normalises the last dimension, of this width.
    pub(crate) fn layer_norm(
        &mut self,
        x: &str,
        width: usize,
        eps: f64,
        weights: &Weights,
    ) -> Result<String> {
        let weight = self.weight(weights, "weight", &[width])?;
        let bias = self.weight(weights, "bias", &[width])?;
        let settings = [("axis", Setting::Int(-1)), ("epsilon", Setting::Float(eps as f32))];
        Ok(self.node("LayerNormalization", &[x, &weight, &bias], &settings))
    }

    /// One row of each text or image: (batch, rows, width) → (batch, width). −1 is the last.
    pub(crate) fn row(&mut self, x: &str, row: i64) -> String {
        let row = self.integer(row);
        self.node("Gather", &[x, &row], &[("axis", Setting::Int(1))])
    }

    /// Written such that runtimes recognize the functions and compute them at once.
    pub(crate) fn activation(&mut self, x: &str, activation: HiddenAct) -> String {
        match activation {
            HiddenAct::Gelu => {
                let root = self.float(SQRT_2);
                let scaled = self.node("Div", &[x, &root], &[]);
                let erf = self.node("Erf", &[&scaled], &[]);
                self.gated(x, &erf)
            }
            HiddenAct::GeluTanh => {
                let (coefficient, root) = (self.float(0.044_715), self.float(SQRT_2_OVER_PI));
                let square = self.node("Mul", &[x, x], &[]);
                let cube = self.node("Mul", &[&square, x], &[]);
                let cube = self.node("Mul", &[&cube, &coefficient], &[]);
                let sum = self.node("Add", &[x, &cube], &[]);
                let scaled = self.node("Mul", &[&sum, &root], &[]);
                let tanh = self.node("Tanh", &[&scaled], &[]);
                self.gated(x, &tanh)
            }
            HiddenAct::QuickGelu => {
                let factor = self.float(1.702);
                let scaled = self.node("Mul", &[x, &factor], &[]);
                let gate = self.node("Sigmoid", &[&scaled], &[]);
                self.node("Mul", &[x, &gate], &[])
            }
        }
    }

    /// x · (gate + 1) / 2
    fn gated(&mut self, x: &str, gate: &str) -> String {
        let (one, half) = (self.float(1.), self.float(0.5));
        let gate = self.node("Add", &[gate, &one], &[]);
        let product = self.node("Mul", &[x, &gate], &[]);
        self.node("Mul", &[&product, &half], &[])
    }

    /// Multi-head attention of rows of `width` values, with a bias on the scores if some keys are hidden. A query of
    /// one image stands for those of all.
    pub(super) fn attention(
        &mut self,
        [query, key, value]: [&str; 3],
        shape: &LayerShape,
        bias: Option<&str>,
    ) -> String {
        let query = self.heads(query, shape, &[0, 2, 1, 3]);
        let key = self.heads(key, shape, &[0, 2, 3, 1]);
        let value = self.heads(value, shape, &[0, 2, 1, 3]);
        let scale = self.float(((shape.hidden_size / shape.num_attention_heads) as f32).powf(-0.5));
        let scores = self.node("MatMul", &[&query, &key], &[]);
        let mut scores = self.node("Mul", &[&scores, &scale], &[]);
        if let Some(bias) = bias {
            scores = self.node("Add", &[&scores, bias], &[]);
        }
        let shares = self.node("Softmax", &[&scores], &[("axis", Setting::Int(-1))]);
        let mixed = self.node("MatMul", &[&shares, &value], &[]);
        let mixed = self.node("Transpose", &[&mixed], &[("perm", Setting::Ints(&[0, 2, 1, 3]))]);
        let joined = self.integers(&[0, 0, signed(shape.hidden_size)]);
        self.node("Reshape", &[&mixed, &joined], &[])
    }

    /// Splits (batch, rows, width) into heads, (batch, rows, heads, channels), in another order of dimensions.
    fn heads(&mut self, x: &str, shape: &LayerShape, order: &[i64]) -> String {
        let heads = shape.num_attention_heads;
        let sizes = self.integers(&[0, 0, signed(heads), signed(shape.hidden_size / heads)]);
        let split = self.node("Reshape", &[x, &sizes], &[]);
        self.node("Transpose", &[&split], &[("perm", Setting::Ints(order))])
    }

    /// A layer of XLM-R or BERT.
    pub(super) fn post_norm_layer(
        &mut self,
        x: &str,
        shape: &LayerShape,
        bias: &str,
        weights: &Weights,
    ) -> Result<String> {
        let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
        let own = weights.at("attention.self");
        let query = self.linear(x, hidden, hidden, &own.at("query"))?;
        let key = self.linear(x, hidden, hidden, &own.at("key"))?;
        let value = self.linear(x, hidden, hidden, &own.at("value"))?;
        let mixed = self.attention([&query, &key, &value], shape, Some(bias));
        let x = self.residual_norm(&mixed, hidden, x, shape, &weights.at("attention.output"))?;
        let widened = self.linear(&x, hidden, inner, &weights.at("intermediate.dense"))?;
        let widened = self.activation(&widened, shape.hidden_act);
        self.residual_norm(&widened, inner, &x, shape, &weights.at("output"))
    }

    /// `dense`, the residual and `LayerNorm`.
    fn residual_norm(
        &mut self,
        x: &str,
        width: usize,
        residual: &str,
        shape: &LayerShape,
        weights: &Weights,
    ) -> Result<String> {
        let x = self.linear(x, width, shape.hidden_size, &weights.at("dense"))?;
        let sum = self.node("Add", &[&x, residual], &[]);
        self.layer_norm(&sum, shape.hidden_size, shape.layer_norm_eps, &weights.at("LayerNorm"))
    }

    /// A layer of CLIP's or SigLIP's towers.
    pub(super) fn pre_norm_layer(
        &mut self,
        x: &str,
        shape: &LayerShape,
        bias: Option<&str>,
        weights: &Weights,
    ) -> Result<String> {
        let (hidden, eps) = (shape.hidden_size, shape.layer_norm_eps);
        let normalised = self.layer_norm(x, hidden, eps, &weights.at("layer_norm1"))?;
        let own = weights.at("self_attn");
        let query = self.linear(&normalised, hidden, hidden, &own.at("q_proj"))?;
        let key = self.linear(&normalised, hidden, hidden, &own.at("k_proj"))?;
        let value = self.linear(&normalised, hidden, hidden, &own.at("v_proj"))?;
        let mixed = self.attention([&query, &key, &value], shape, bias);
        let mixed = self.linear(&mixed, hidden, hidden, &own.at("out_proj"))?;
        let x = self.node("Add", &[&mixed, x], &[]);
        let normalised = self.layer_norm(&x, hidden, eps, &weights.at("layer_norm2"))?;
        self.mlp(&normalised, &x, shape, &weights.at("mlp"))
    }

    /// `fc1`, the activation, `fc2` and the residual.
    pub(super) fn mlp(
        &mut self,
        x: &str,
        residual: &str,
        shape: &LayerShape,
        weights: &Weights,
    ) -> Result<String> {
        let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
        let widened = self.linear(x, hidden, inner, &weights.at("fc1"))?;
        let widened = self.activation(&widened, shape.hidden_act);
        let narrowed = self.linear(&widened, inner, hidden, &weights.at("fc2"))?;
        Ok(self.node("Add", &[&narrowed, residual], &[]))
    }
}
