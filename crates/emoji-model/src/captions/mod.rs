//! Turns the names of emoji into captions that people might type, in many languages.
//!
//! A [`CaptionSampler`] builds phrases from the names and keywords of a data set, and provides the tokenizer's
//! training texts. Training stages draw from [`Translations`] and [`ImageCaptions`], and [`evaluation_prompts`] are
//! prompts for a trained model.

mod chinese;
mod english;
mod everyday;
mod language;
mod phrase;
mod prompts;
mod sampler;
mod settings;
mod slips;
mod styles;
mod text_rows;
mod traditional;
mod words;

pub(crate) use everyday::is_everyday;
pub use prompts::evaluation_prompts;
pub use sampler::{Caption, CaptionSampler, DrawnCaption};
pub use settings::CaptionSettings;
pub use text_rows::{ImageCaptions, TeacherTexts, Translations};
