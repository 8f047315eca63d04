//! Speaks OpenAI's interface.

mod answer;
pub(super) mod draw_options;
mod drawn_size;
pub(super) mod edits;
pub(super) mod embeddings;
pub(super) mod error;
pub(super) mod events;
pub(super) mod images;
pub(super) mod models;
