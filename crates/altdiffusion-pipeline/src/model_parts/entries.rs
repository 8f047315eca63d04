//! Lists a model's tensors under the names they get when converted.

use std::collections::BTreeMap;

use altclip_encoder::conditioner::ConditionerConfig;
use model_files::checkpoint::{Checkpoint, NumberType, TensorToWrite};
use model_files::config::parse_json;

use super::number_types::choose;
use super::text_encoder_names::{TextEncoderNames, is_of_clip};
use super::unet_names::{self, UNetNames};
use super::vae_names::{self, VaeNames, name_of_today, shape_in_ldm};
use super::{ModelParts, PartFiles, PartKind, SAFETY_CHECKER, SingleFile, UPSCALER};
use crate::Result;
use crate::unet::UNet2DConditionConfig;

/// A tensor of a part.
pub(super) struct Entry<'a> {
    pub checkpoint: &'a Checkpoint,
    /// The name by which the part is asked for it.
    pub source: String,
    /// Its name in diffusers.
    pub name: String,
    pub shape: &'a [usize],
}

/// A tensor of a file.
pub(super) struct FileEntry<'a> {
    pub part: PartKind,
    pub entry: Entry<'a>,
    /// Its name and shape in the file.
    pub name: String,
    pub shape: Vec<usize>,
}

/// A model's tensors, by part.
pub(super) struct Entries<'a> {
    pub text_encoder: Vec<Entry<'a>>,
    pub unet: Vec<Entry<'a>>,
    pub vae: Vec<Entry<'a>>,
    pub left_out: Vec<String>,
}

impl ModelParts {
    /// All tensors under their names in a single file, and the names of those that have no place there.
    pub(super) fn single_file_entries(&self) -> Result<(Vec<FileEntry<'_>>, Vec<String>)> {
        let unet_config: UNet2DConditionConfig = parse_json(&self.unet.config)?;
        let unet_names = UNetNames::new(&unet_config)?;
        let vae_names = VaeNames::new(&parse_json(&self.vae.config)?)?;
        let Entries { text_encoder, unet, vae, mut left_out } = self.entries()?;
        let mut entries = Vec::new();
        let text_encoder_names = match ConditionerConfig::read(&self.text_encoder.config)? {
            ConditionerConfig::AltDiffusion(_) => TextEncoderNames::AltDiffusion,
            ConditionerConfig::Clip(_) | ConditionerConfig::Bert(_) => TextEncoderNames::Transformers,
        };
        for entry in text_encoder {
            match text_encoder_names.to_file(&entry.name) {
                Some(name) => {
                    let shape = entry.shape.to_vec();
                    entries.push(FileEntry { part: PartKind::TextEncoder, entry, name, shape });
                }
                None => left_out.push(format!("text_encoder: {}", entry.name)),
            }
        }
        for entry in unet {
            match unet_names.to_ldm(&entry.name) {
                Some(name) => {
                    let name = format!("{}{name}", unet_names::PREFIX);
                    let is_linear = unet_config.use_linear_projection;
                    // Latent diffusion has linear layers in the same places.
                    let shape = unet_names::shape_in_diffusers(&entry.name, entry.shape, is_linear);
                    entries.push(FileEntry { part: PartKind::UNet, entry, name, shape });
                }
                None => left_out.push(format!("unet: {}", entry.name)),
            }
        }
        for entry in vae {
            match vae_names.to_ldm(&entry.name) {
                Some(name) => {
                    let name = format!("{}{name}", vae_names::PREFIX);
                    let shape = shape_in_ldm(&entry.name, entry.shape);
                    entries.push(FileEntry { part: PartKind::Vae, entry, name, shape });
                }
                None => left_out.push(format!("vae: {}", entry.name)),
            }
        }
        // No file in this naming has an upscaler or a safety checker.
        left_out.extend(self.upscaler.as_ref().map(|_| format!("{UPSCALER}.*")));
        left_out.extend(self.safety.as_ref().map(|_| format!("{SAFETY_CHECKER}.*")));
        Ok((entries, left_out))
    }

    /// The tensors of all parts, and the names of those that belong to none.
    pub(super) fn entries(&self) -> Result<Entries<'_>> {
        let Some(SingleFile { checkpoint: single, text_encoder_names, has_vae }) = &self.single else {
            let parts = [&self.text_encoder, &self.unet, &self.vae];
            let (vae, not_of_vae) = vae_in_folder(&self.vae);
            let problems = parts.iter().flat_map(|part| unreadable(&part.weights));
            return Ok(Entries {
                text_encoder: in_folder(&self.text_encoder, str::to_owned),
                unet: in_folder(&self.unet, str::to_owned),
                vae,
                left_out: problems.chain(not_of_vae).collect(),
            });
        };
        let unet_names = UNetNames::new(&parse_json(&self.unet.config)?)?;
        let vae_names = VaeNames::new(&parse_json(&self.vae.config)?)?;
        let clip_layers = match ConditionerConfig::read(&self.text_encoder.config)? {
            ConditionerConfig::Clip(config) => Some(config.encoder.num_hidden_layers),
            ConditionerConfig::AltDiffusion(_) | ConditionerConfig::Bert(_) => None,
        };
        let mut left_out: Vec<String> = unreadable(single).collect();
        let mut vae = Vec::new();
        if !has_vae {
            let (other, not_of_vae) = vae_in_folder(&self.vae);
            vae = other;
            left_out.extend(unreadable(&self.vae.weights).chain(not_of_vae));
        }
        let mut entries = Entries { text_encoder: Vec::new(), unet: Vec::new(), vae, left_out };
        for stored in single.names() {
            let (part, list, name) = if let Some(name) = stored.strip_prefix(unet_names::PREFIX) {
                (&self.unet, &mut entries.unet, unet_names.to_diffusers(name))
            } else if let Some(name) = stored.strip_prefix(vae_names::PREFIX) {
                // Another takes its place.
                if !has_vae {
                    continue;
                }
                (&self.vae, &mut entries.vae, vae_names.to_diffusers(name))
            } else {
                let name = text_encoder_names.to_diffusers(stored);
                let name = name.filter(|name| clip_layers.is_none_or(|layers| is_of_clip(name, layers)));
                (&self.text_encoder, &mut entries.text_encoder, name)
            };
            match (name, single.shape(stored)) {
                (Some(name), Some(shape)) => {
                    list.push(Entry { checkpoint: &part.weights, source: name.clone(), name, shape });
                }
                _ => entries.left_out.push(stored.to_owned()),
            }
        }
        Ok(entries)
    }
}

impl<'a> Entry<'a> {
    fn renamed(&self, name: String, shape: Vec<usize>, dtype: Option<NumberType>) -> TensorToWrite<'a> {
        TensorToWrite { checkpoint: self.checkpoint, source: self.source.clone(), name, shape, dtype }
    }
}

impl ModelParts {
    /// Chooses each tensor's type in a file for which `dtype` was requested, and counts those that get another because
    /// their rows are not a multiple of the block size.
    pub(super) fn to_write<'a>(
        &self,
        entries: impl Iterator<Item = FileEntry<'a>>,
        dtype: Option<NumberType>,
        fell_back: &mut BTreeMap<String, usize>,
    ) -> Vec<TensorToWrite<'a>> {
        let to_write = |FileEntry { part, entry, name, shape }: FileEntry<'a>| {
            let loses_much = part == PartKind::TextEncoder && self.not_in_int8.contains(&entry.name);
            let chosen = match dtype {
                Some(NumberType::Int8) if loses_much => Some(NumberType::Bf16),
                _ => dtype,
            };
            let rules = if part == PartKind::Vae && self.quantizes_vae { PartKind::UNet } else { part };
            let chosen = chosen.map(|dtype| choose(rules, &entry.name, &shape, dtype));
            if let Some(chosen) = chosen.filter(|chosen| chosen.fell_back) {
                *fell_back.entry(chosen.number.to_string()).or_insert(0) += 1;
            }
            entry.renamed(name, shape, chosen.map(|chosen| chosen.number))
        };
        entries.map(to_write).collect()
    }
}

pub(super) fn in_folder(part: &PartFiles, name_of_today: impl Fn(&str) -> String) -> Vec<Entry<'_>> {
    let checkpoint = &part.weights;
    let entry = |stored: &str| {
        let shape = checkpoint.shape(stored)?;
        Some(Entry { checkpoint, source: stored.to_owned(), name: name_of_today(stored), shape })
    };
    checkpoint.names().filter_map(entry).collect()
}

/// The tensors of an autoencoder that is not the single file's own, and the names of those that are not part of it: a file
/// of its own may also hold the loss that it was trained with.
fn vae_in_folder(vae: &PartFiles) -> (Vec<Entry<'_>>, Vec<String>) {
    let (others, entries): (Vec<_>, Vec<_>) = in_folder(vae, name_of_today)
        .into_iter()
        // Only what has a name in diffusers lost the prefix.
        .partition(|entry| entry.name.starts_with(vae_names::PREFIX));
    (entries, others.into_iter().map(|entry| entry.name).collect())
}

/// The tensors that cannot be read, with the reason.
pub(super) fn unreadable(checkpoint: &Checkpoint) -> impl Iterator<Item = String> {
    checkpoint.unreadable().map(|(name, problem)| format!("{name} ({problem})"))
}
