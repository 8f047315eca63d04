//! Small files that change a model: LoRA and textual inversion.

mod lora;
mod lora_names;
mod merge;
mod small_file;
mod textual_inversion;

pub use lora::Lora;
pub(crate) use merge::Merge;
pub use textual_inversion::TextualInversion;
