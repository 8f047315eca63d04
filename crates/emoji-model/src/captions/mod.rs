//! Puts the names of emoji into what people type, in many languages.
//!
//! A [`CaptionSampler`] wraps the names and keywords of a data set in phrases, and gives the texts for the tokenizer;
//! [`Translations`] and [`ImageCaptions`] are what training stages draw from it, and [`evaluation_prompts`] asks a trained
//! model for what it has learned.

mod chinese;
mod english;
mod everyday;
mod language;
mod phrase;
mod prompts;
mod sampler;
mod text_rows;
mod words;

pub use prompts::evaluation_prompts;
pub use sampler::{Caption, CaptionSampler, DrawnCaption};
pub use text_rows::{ImageCaptions, TeacherTexts, Translations};
