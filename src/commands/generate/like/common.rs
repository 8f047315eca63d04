//! Reads the fields that our images and other programs' share.

use altdiffusion_pipeline::image_metadata::ParameterFields;

use super::found::ImageOptions;

/// Our fields that are options with the same value.
const VALUES: [(&str, &str); 11] = [
    ("CFG scale", "guidance-scale"),
    ("Eta", "eta"),
    ("Guidance rescale", "guidance-rescale"),
    ("Timestep spacing", "timestep-spacing"),
    ("Timesteps", "timesteps"),
    ("Sigmas", "sigmas"),
    ("Scale", "scale"),
    ("Background", "background"),
    ("Revision", "revision"),
    ("Variant", "variant"),
    ("Dtype", "dtype"),
];

impl ImageOptions<'_> {
    /// Reads the fields that our images and others' share.
    pub(super) fn read_common(&mut self, fields: &mut ParameterFields, is_ours: bool) {
        let has_list = fields.get("Timesteps").or(fields.get("Sigmas")).is_some();
        if let Some(steps) = fields.take("Steps")
            && !has_list
        {
            self.value("Steps", "steps", &steps);
        }
        if let Some(seed) = fields.take("Seed") {
            self.value("Seed", "seed", &seed);
        }
        if let Some(size) = fields.take("Size") {
            match size.split_once('x') {
                Some((width, height)) => {
                    self.value("Size", "width", width);
                    self.value("Size", "height", height);
                }
                None => self.not_used("Size", &size),
            }
        }
        if let Some(skip) = fields.take("Clip skip") {
            match skip.parse::<usize>().ok().and_then(|skip| skip.checked_sub(1)) {
                Some(skip) => self.value("Clip skip", "clip-skip", &skip.to_string()),
                None => self.not_used("Clip skip", &skip),
            }
        }
        if let Some(strength) = fields.take("Denoising strength") {
            // Other programs record it even without the image it belongs to.
            match is_ours || self.options.from_image.has_image() {
                true => self.value("Denoising strength", "strength", &strength),
                false => self.not_used("Denoising strength", &strength),
            }
        }
        if let Some(rng) = fields.take("RNG") {
            self.value("RNG", "rng", &rng);
        }
        // Our images say so if they are enlarged, and a model's default may be to do that.
        if is_ours && fields.get("Scale").is_none() {
            self.value("Scale", "scale", "1");
        }
        for (field, option) in VALUES {
            if let Some(value) = fields.take(field) {
                self.value(field, option, &value);
            }
        }
    }
}
