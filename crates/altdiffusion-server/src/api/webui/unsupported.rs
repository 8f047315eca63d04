//! Finds the fields of a request that cannot be honoured. Clients send all fields, so only values that would change the
//! image are refused, and unknown fields are named in the answer.

use serde_json::Value;

use super::request::{CHECKPOINT, LAST_LAYERS, WebuiRequest};
use crate::problem::Problem;

/// Fields of clients that change nothing here: where images are saved, how they are sent, and what belongs to options
/// that are refused.
const WITHOUT_EFFECT: [&str; 27] = [
    "subseed",
    "do_not_save_samples",
    "do_not_save_grid",
    "s_tmax",
    "s_tmin",
    "s_noise",
    "override_settings_restore_afterwards",
    "refiner_switch_at",
    "firstpass_image",
    "comments",
    "firstphase_width",
    "firstphase_height",
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "hr_checkpoint_name",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_negative_prompt",
    "force_task_id",
    "script_args",
    "save_images",
    "infotext",
    "image_cfg_scale",
];
/// The same for images to start from.
const WITHOUT_EFFECT_ON_IMAGES: [&str; 7] = [
    "mask_blur_x",
    "mask_blur_y",
    "mask_round",
    "initial_noise_multiplier",
    "include_init_images",
    "use_deprecated_controlnet",
    "user",
];

/// Fields that change the image elsewhere, with the number that changes nothing; so do null, false and an empty text.
const WITHOUT_EFFECT_IF: [(&str, i64); 9] = [
    ("seed_resize_from_h", 0),
    ("seed_resize_from_w", 0),
    ("s_min_uncond", 0),
    ("s_churn", 0),
    ("refiner_checkpoint", 0),
    ("disable_extra_networks", 0),
    ("resize_mode", 0),
    ("latent_mask", 0),
    // Starts from the image under the mask.
    ("inpainting_fill", 1),
];

/// Settings for one request that are read, or change no image.
const KNOWN_SETTINGS: [&str; 3] = [CHECKPOINT, LAST_LAYERS, "samples_format"];
/// Names of the autoencoder that comes with the model.
const OWN_AUTOENCODER: [&str; 2] = ["Automatic", "None"];

/// The most pixels around a mask.
const MOST_PADDING: u32 = 4096;

/// Whether a value says nothing.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        // Not set, in this interface.
        other => other.as_i64() == Some(-1),
    }
}

impl WebuiRequest {
    /// Unknown fields and settings, and those whose values would change the image elsewhere.
    pub(super) fn unknown(&self) -> Vec<String> {
        let is_ignored = |name: &str, value: &Value| {
            let changes_nothing = WITHOUT_EFFECT_IF.iter().any(|(known, number)| {
                *known == name && (is_empty(value) || value.as_f64() == Some(*number as f64))
            });
            !changes_nothing && !WITHOUT_EFFECT.contains(&name) && !WITHOUT_EFFECT_ON_IMAGES.contains(&name)
        };
        let fields = self.others.iter().filter(|(name, value)| is_ignored(name, value));
        let settings = self.override_settings.iter().flatten().filter(|(name, value)| {
            let is_own =
                name.as_str() == "sd_vae" && value.as_str().is_some_and(|vae| OWN_AUTOENCODER.contains(&vae));
            !is_own && !is_empty(value) && !KNOWN_SETTINGS.contains(&name.as_str())
        });
        let settings = settings.map(|(name, _)| format!("override_settings.{name}"));
        fields.map(|(name, _)| name.clone()).chain(settings).collect()
    }

    /// Refuses what the server cannot do.
    ///
    /// # Errors
    /// If a field asks for it.
    pub(super) fn check_supported(&self) -> Result<(), Problem> {
        let refused =
            |field: &str, what: &str| Err(Problem::field(field, format!("this server cannot {what}")));
        if self.enable_hr == Some(true) {
            return refused("enable_hr", "draw a second time at a higher resolution");
        }
        if self.restore_faces == Some(true) {
            return refused("restore_faces", "restore faces");
        }
        if self.tiling == Some(true) {
            return refused("tiling", "draw tiles");
        }
        if self.subseed_strength.is_some_and(|strength| strength != 0.0) {
            return refused("subseed_strength", "mix seeds");
        }
        if self.script_name.as_deref().is_some_and(|name| !name.is_empty()) {
            return refused("script_name", "run scripts");
        }
        if self.styles.as_deref().is_some_and(|styles| !styles.is_empty()) {
            return refused("styles", "apply styles");
        }
        if self.inpaint_full_res_padding.is_some_and(|padding| padding > MOST_PADDING) {
            let problem = format!("expected at most {MOST_PADDING} pixels");
            return Err(Problem::field("inpaint_full_res_padding", problem));
        }
        let scripts = self.alwayson_scripts.iter().flatten().map(|(name, _)| name);
        match scripts.into_iter().find(|name| !name.eq_ignore_ascii_case("controlnet")) {
            Some(name) => refused(&format!("alwayson_scripts.{name}"), "run scripts other than controlnet"),
            None => Ok(()),
        }
    }
}
