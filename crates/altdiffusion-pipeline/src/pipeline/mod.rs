//! Draws images from prompts: text encoder, sampling loop and decoder in one.

mod component;
mod components;
mod control;
mod decode;
mod enlarge;
mod generate;
mod initial_state;
mod limits;
mod load;
mod load_options;
mod model;
mod size;
mod texts;

pub use components::Components;
pub use generate::{Generated, Timings};
pub use load_options::LoadOptions;
pub use model::AltDiffusion;

/// A model and its results can be shared between threads.
const _: () = {
    const fn assert_shared<T: Send + Sync>() {}
    assert_shared::<AltDiffusion>();
    assert_shared::<crate::GenerateOptions>();
    assert_shared::<Generated>();
    assert_shared::<crate::Error>();
};
