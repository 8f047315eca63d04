//! Gives a model another autoencoder: from a file, a directory or a repository of its own.

use std::path::Path;

use model_files::checkpoint::Checkpoint;
use model_files::config::parse_json;
use model_files::source::ModelSource;

use super::vae_names::{PREFIX, VaeNames, name_of_today};
use super::{
    ModelParts, PartFiles, PrefixedTensors, SingleFile, VAE, VAE_CONFIG, inferred, inferred_config,
    own_config,
};
use crate::adapters::{Found, is_file_name, open_file};
use crate::vae::AutoencoderKlConfig;
use crate::{Error, Result};

/// diffusers' names of an autoencoder's files.
const CONFIG: &str = "config.json";
const FILE_STEM: &str = "diffusion_pytorch_model";
const FILE_NAMES: [&str; 2] = ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"];

/// A weight of every supported autoencoder, under the same name in diffusers and in latent diffusion.
const FIRST_OF_DECODER: &str = "decoder.conv_in.weight";

impl ModelParts {
    /// Replaces the autoencoder by the one called `name`: a directory or hub repository in diffusers' layout, of an
    /// autoencoder or of a whole model; a `.safetensors` file or a pickle in the naming of latent diffusion or diffusers,
    /// or the only one in a directory or repository; or a file in a repository, `org/name/file.safetensors`.
    ///
    /// What a file does not tell, the factor of latents and the groups of norms, stays as in this model. So does the
    /// [hash](Self::hasher).
    ///
    /// # Errors
    /// If there is none, if it is damaged, or if its latents have another shape than this model's.
    pub fn with_vae(self, name: &str) -> Result<Self> {
        let own: AutoencoderKlConfig = parse_json(&self.vae.config)?;
        let vae = open(name, &own)?;
        let config: AutoencoderKlConfig = parse_json(&vae.config)?;
        for (what, expected, found) in [
            ("channels of latents", own.latent_channels, config.latent_channels),
            ("levels of resolution", own.block_out_channels.len(), config.block_out_channels.len()),
            ("channels of images", own.out_channels, config.out_channels),
        ] {
            if found != expected {
                let problem =
                    format!("expected an autoencoder for this model, with {expected} {what}, found {found}");
                return Err(Error::content(name, problem));
            }
        }
        let hashed = self.hashed.clone().or_else(|| Some(self.weights()));
        let single = self.single.map(|single| SingleFile { has_vae: false, ..single });
        Ok(Self { vae, single, hashed, ..self })
    }
}

/// Finds the autoencoder called `name`, for a model with an autoencoder like `own`.
fn open(name: &str, own: &AutoencoderKlConfig) -> Result<PartFiles> {
    if is_file_name(name) {
        return in_file(name, own);
    }
    let source = ModelSource::open(name)?;
    for (config, folder) in [(VAE_CONFIG, VAE), (CONFIG, "")] {
        if let Some(config) = source.read_optional(config)? {
            let weights = Checkpoint::open(&source, folder)?;
            check_is_vae(name, weights.contains(FIRST_OF_DECODER))?;
            return Ok(PartFiles { config, weights });
        }
    }
    in_file(name, own)
}

/// Reads an autoencoder in one file: alone, or in that of a whole model.
fn in_file(name: &str, own: &AutoencoderKlConfig) -> Result<PartFiles> {
    let Found { file, beside, .. } = open_file(name, &FILE_NAMES, "an autoencoder")?;
    let file = in_latent_diffusion(&file);
    check_is_vae(name, file.contains(&format!("{PREFIX}{FIRST_OF_DECODER}")))?;
    // Beside a single file, a configuration belongs to it only if the file has diffusers' name.
    let file_name = Path::new(name).file_name().and_then(|file_name| file_name.to_str());
    let beside = beside.filter(|_| file_name.is_some_and(|file_name| file_name.starts_with(FILE_STEM)));
    let beside = beside.map(|source| source.read_optional(CONFIG)).transpose()?.flatten();
    let config = match own_config(&file, &file.metadata(), VAE_CONFIG).or(beside) {
        Some(config) => config,
        None => {
            // Shapes do not tell these two.
            let config = AutoencoderKlConfig {
                norm_num_groups: own.norm_num_groups,
                scaling_factor: own.scaling_factor,
                ..inferred::vae(&file)?
            };
            inferred_config(&file, VAE_CONFIG, &config)?
        }
    };
    let names = VaeNames::new(&parse_json(&config)?)?;
    let to_diffusers = |stored: &str| -> Vec<String> {
        let name = stored.strip_prefix(PREFIX).and_then(|name| names.to_diffusers(name));
        name.into_iter().collect()
    };
    let weights = file.part(PREFIX, |name| Some(name.to_owned())).with_rows_split(to_diffusers);
    Ok(PartFiles { config, weights })
}

/// A file's tensors under the names that they have in the file of a whole model.
fn in_latent_diffusion(file: &Checkpoint) -> Checkpoint {
    if file.names().any(|name| name.starts_with(PREFIX)) {
        return file.clone();
    }
    let tensors = PrefixedTensors { checkpoint: file, prefix: "" };
    let names = VaeNames { levels: tensors.numbers("decoder.up_blocks.").len() };
    file.with_rows_split(|stored| {
        let name = match names.levels {
            0 => Some(stored.to_owned()),
            _ => names.to_ldm(&name_of_today(stored)),
        };
        name.map(|name| format!("{PREFIX}{name}")).into_iter().collect()
    })
}

fn check_is_vae(name: &str, has_decoder: bool) -> Result<()> {
    if has_decoder {
        return Ok(());
    }
    let problem = format!(
        "expected an autoencoder of diffusers (AutoencoderKL) or latent diffusion, found no tensor {FIRST_OF_DECODER}"
    );
    Err(Error::content(name, problem))
}
