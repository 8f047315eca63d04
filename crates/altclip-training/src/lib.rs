//! The AltCLIP and AltDiffusion training recipe: data, losses, stages and metrics

pub mod emoji;
pub mod unigram;
