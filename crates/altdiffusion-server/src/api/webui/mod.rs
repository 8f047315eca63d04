//! Speaks stable-diffusion-webui's interface, as far as its clients use it.

mod controlnet;
mod draw;
mod info;
mod lists;
mod memory;
mod options;
mod png_info;
pub(super) mod problem;
mod progress;
mod request;
mod unsupported;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::Shared;

/// What its paths begin with.
const PREFIXES: [&str; 2] = ["/sdapi/", controlnet::PREFIX];

/// Whether a path belongs to this interface.
pub(super) fn has_path(path: &str) -> bool {
    PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(draw::txt2img))
        .routes(routes!(draw::img2img))
        .routes(routes!(progress::progress))
        .routes(routes!(progress::interrupt))
        .routes(routes!(progress::skip))
        .routes(routes!(options::options, options::set_options))
        .routes(routes!(lists::sd_models))
        .routes(routes!(lists::refresh_checkpoints))
        .routes(routes!(lists::samplers))
        .routes(routes!(lists::schedulers))
        .routes(routes!(lists::loras))
        .routes(routes!(lists::refresh_loras))
        .routes(routes!(lists::embeddings))
        .routes(routes!(lists::refresh_embeddings))
        .routes(routes!(lists::upscalers))
        .routes(routes!(lists::latent_upscale_modes))
        .routes(routes!(lists::sd_vae))
        .routes(routes!(lists::prompt_styles))
        .routes(routes!(lists::hypernetworks))
        .routes(routes!(lists::face_restorers))
        .routes(routes!(lists::realesrgan_models))
        .routes(routes!(lists::scripts))
        .routes(routes!(lists::script_info))
        .routes(routes!(lists::extensions))
        .routes(routes!(lists::cmd_flags))
        .routes(routes!(controlnet::version))
        .routes(routes!(controlnet::model_list))
        .routes(routes!(controlnet::module_list))
        .routes(routes!(controlnet::control_types))
        .routes(routes!(controlnet::settings))
        .routes(routes!(png_info::png_info))
        .routes(routes!(memory::memory))
}
