//! Describes an embedding model, once it was loaded.

use altclip_encoder::{Embedder, Family};

/// What is known of a model that was loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Description {
    /// What it computes in, such as `f32`.
    pub(crate) arithmetic: &'static str,
    /// The length that texts are cut to, in tokens.
    pub(crate) max_tokens: usize,
    /// How the states of a text become one.
    pub(crate) pooling: Option<Pooling>,
}

/// How the states of a text become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// The first one is taken.
    First,
    /// The last one is taken.
    Last,
    /// Their mean is taken.
    Mean,
}

impl Description {
    pub(super) fn of(embedder: &Embedder) -> Self {
        Self {
            arithmetic: embedder.arithmetic_name(),
            max_tokens: embedder.max_tokens(),
            pooling: pooling_of(embedder.family()),
        }
    }
}

/// How models of a family pool texts; `None` if that differs among them.
fn pooling_of(family: Family) -> Option<Pooling> {
    match family {
        Family::AltClip | Family::AltDiffusion | Family::ChineseClip | Family::TaiyiClip | Family::R2d2 => {
            Some(Pooling::First)
        }
        Family::Clip | Family::SentenceClip | Family::Siglip | Family::Wukong => Some(Pooling::Last),
        Family::MClip | Family::DistilBertClip => Some(Pooling::Mean),
        Family::OpenClip => None,
    }
}
