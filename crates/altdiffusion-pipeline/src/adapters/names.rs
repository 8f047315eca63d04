//! Parses the names of an adapter's tensors, as each program writes them.
//!
//! A layer is identified by its path in the model with `_` for `.`. kohya's names have that form already, and no two
//! layers share one.

/// The model that a name belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TargetModel {
    UNet,
    TextEncoder,
    /// Not in the name.
    Unknown,
}

/// A tensor's role in its layer. [`super::layer_tensors`] combines the roles of each kind of adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TensorRole {
    LoraDown,
    LoraMid,
    LoraUp,
    LoraUpBias,
    EmbeddingDown,
    EmbeddingUp,
    Alpha,
    /// DoRA's magnitudes, from kohya's scripts and LyCORIS.
    DoraScale,
    /// DoRA's magnitudes, from PEFT.
    MagnitudeVector,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT1,
    HadaT2,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    GloraA1,
    GloraA2,
    GloraB1,
    GloraB2,
    /// OFT's blocks.
    OftBlocks,
    /// The triangles of the blocks of PEFT's OFT.
    OftTriangles,
    /// BOFT's blocks, and its factors of outputs.
    BoftBlocks,
    BoftFactors,
    /// Factors of what OFT turned.
    Rescale,
    /// (IA)³'s factors, from PEFT.
    Ia3Factors,
    /// Whether LyCORIS' (IA)³ multiplies a layer's input.
    Ia3OnInput,
    /// The factors of LyCORIS' (IA)³, or a weight that PEFT trained as a whole.
    Weight,
    Bias,
    Difference,
    BiasDifference,
    NormDifference,
    NormBiasDifference,
}

/// The parsed name of a tensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AdapterName {
    pub target: TargetModel,
    /// The layer's path without its prefix, as PEFT's patterns match it.
    pub path: String,
    pub role: TensorRole,
}

impl AdapterName {
    /// The layer's path with `_` for `.`.
    pub(super) fn layer(&self) -> String {
        self.path.replace('.', "_")
    }
}

/// Endings of names and their roles. The first match wins, so no ending may be the tail of a later one.
const ENDINGS: [(&str, TensorRole); 49] = [
    // PEFT, and diffusers since 0.22.
    (".lora_A.weight", TensorRole::LoraDown),
    (".lora_B.weight", TensorRole::LoraUp),
    (".lora_B.bias", TensorRole::LoraUpBias),
    (".lora_embedding_A", TensorRole::EmbeddingDown),
    (".lora_embedding_B", TensorRole::EmbeddingUp),
    (".lora_magnitude_vector.weight", TensorRole::MagnitudeVector),
    (".lora_magnitude_vector", TensorRole::MagnitudeVector),
    (".ia3_l", TensorRole::Ia3Factors),
    (".oft_R.weight", TensorRole::OftTriangles),
    (".boft_R", TensorRole::BoftBlocks),
    (".boft_s", TensorRole::BoftFactors),
    // diffusers before 0.22.
    (".lora.down.weight", TensorRole::LoraDown),
    (".lora.up.weight", TensorRole::LoraUp),
    (".lora_linear_layer.down.weight", TensorRole::LoraDown),
    (".lora_linear_layer.up.weight", TensorRole::LoraUp),
    // kohya's scripts and LyCORIS.
    (".lora_down.weight", TensorRole::LoraDown),
    (".lora_mid.weight", TensorRole::LoraMid),
    (".lora_up.weight", TensorRole::LoraUp),
    (".lora.alpha", TensorRole::Alpha),
    (".alpha", TensorRole::Alpha),
    (".dora_scale", TensorRole::DoraScale),
    (".hada_w1_a", TensorRole::HadaW1A),
    (".hada_w1_b", TensorRole::HadaW1B),
    (".hada_w2_a", TensorRole::HadaW2A),
    (".hada_w2_b", TensorRole::HadaW2B),
    (".hada_t1", TensorRole::HadaT1),
    (".hada_t2", TensorRole::HadaT2),
    (".lokr_w1", TensorRole::LokrW1),
    (".lokr_w1_a", TensorRole::LokrW1A),
    (".lokr_w1_b", TensorRole::LokrW1B),
    (".lokr_w2", TensorRole::LokrW2),
    (".lokr_w2_a", TensorRole::LokrW2A),
    (".lokr_w2_b", TensorRole::LokrW2B),
    (".lokr_t2", TensorRole::LokrT2),
    (".a1.weight", TensorRole::GloraA1),
    (".a2.weight", TensorRole::GloraA2),
    (".b1.weight", TensorRole::GloraB1),
    (".b2.weight", TensorRole::GloraB2),
    (".oft_blocks", TensorRole::OftBlocks),
    (".rescale", TensorRole::Rescale),
    (".on_input", TensorRole::Ia3OnInput),
    (".diff", TensorRole::Difference),
    (".diff_b", TensorRole::BiasDifference),
    (".w_norm", TensorRole::NormDifference),
    (".b_norm", TensorRole::NormBiasDifference),
    // Trained as a whole beside PEFT's LoRA.
    (".base_layer.weight", TensorRole::Weight),
    (".base_layer.bias", TensorRole::Bias),
    // Last, because other endings end with it.
    (".weight", TensorRole::Weight),
    (".bias", TensorRole::Bias),
];

/// The infix of diffusers' first format, which named attention processors, and its endings with their roles.
const PROCESSOR: &str = ".processor.";
const PROCESSOR_ENDINGS: [(&str, TensorRole); 3] = [
    ("_lora.down.weight", TensorRole::LoraDown),
    ("_lora.up.weight", TensorRole::LoraUp),
    ("_lora.alpha", TensorRole::Alpha),
];

/// Prefixes of names and the model they belong to.
const BEGINNINGS: [(&str, TargetModel); 13] = [
    ("unet.", TargetModel::UNet),
    ("text_encoder.", TargetModel::TextEncoder),
    // ComfyUI, for the towers of Stable Diffusion 1 and 2.
    ("text_encoders.clip_l.transformer.", TargetModel::TextEncoder),
    ("text_encoders.clip_h.transformer.", TargetModel::TextEncoder),
    ("lora_unet_", TargetModel::UNet),
    ("lora_te_", TargetModel::TextEncoder),
    ("lora_te1_", TargetModel::TextEncoder),
    // kohya's OFT.
    ("oft_unet_", TargetModel::UNet),
    ("oft_te_", TargetModel::TextEncoder),
    ("lycoris_", TargetModel::Unknown),
    // The names of latent diffusion.
    ("model.diffusion_model.", TargetModel::UNet),
    ("diffusion_model.", TargetModel::UNet),
    ("", TargetModel::Unknown),
];

/// PEFT's prefix around a model, and the names for an adapter without one: PEFT's, and diffusers' for the first.
const PEFT_PREFIX: &str = "base_model.model.";
const PEFT_ADAPTERS: [&str; 2] = [".default", ".default_0"];
const PEFT_SAVED: &str = ".modules_to_save.";

/// Parses the name of a tensor; `None` if it belongs to no supported adapter.
pub(super) fn parse(name: &str) -> Option<AdapterName> {
    let name = PEFT_ADAPTERS.iter().find_map(|adapter| name.strip_suffix(adapter)).unwrap_or(name);
    let name = PEFT_ADAPTERS
        .iter()
        .fold(name.replace(PEFT_SAVED, "."), |name, adapter| name.replace(&format!("{adapter}."), "."));
    let (path, role) = path_and_role(&name)?;
    // PEFT's prefix can stand before or after diffusers'.
    let path = path.strip_prefix(PEFT_PREFIX).unwrap_or(&path);
    let (target, path) =
        BEGINNINGS.iter().find_map(|(beginning, target)| Some((*target, path.strip_prefix(beginning)?)))?;
    let path = path.strip_prefix(PEFT_PREFIX).unwrap_or(path);
    (!path.is_empty()).then(|| AdapterName { target, path: path.to_owned(), role })
}

fn path_and_role(name: &str) -> Option<(String, TensorRole)> {
    // Check this form first: the endings of the others are parts of its own.
    if let Some((block, rest)) = name.split_once(PROCESSOR)
        && let Some((layer, role)) =
            PROCESSOR_ENDINGS.iter().find_map(|(ending, role)| Some((rest.strip_suffix(ending)?, *role)))
    {
        let layer = if layer == "to_out" { "to_out.0" } else { layer };
        return Some((format!("{block}.{layer}"), role));
    }
    ENDINGS.iter().find_map(|(ending, role)| Some((name.strip_suffix(ending)?.to_owned(), *role)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_tells_the_same_layer() {
        let layer = "down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0";
        let path = "down_blocks.0.attentions.1.transformer_blocks.0.attn1";
        for (name, target, role) in [
            (format!("unet.{path}.to_out.0.lora_A.weight"), TargetModel::UNet, TensorRole::LoraDown),
            (
                format!("base_model.model.{path}.to_out.0.lora_B.weight"),
                TargetModel::Unknown,
                TensorRole::LoraUp,
            ),
            (
                format!("base_model.model.{path}.to_out.0.lora_B.default.bias"),
                TargetModel::Unknown,
                TensorRole::LoraUpBias,
            ),
            (
                format!("unet.base_model.model.{path}.to_out.0.lora_B.weight"),
                TargetModel::UNet,
                TensorRole::LoraUp,
            ),
            (
                format!("unet.{path}.to_out.0.lora_A.default_0.weight"),
                TargetModel::UNet,
                TensorRole::LoraDown,
            ),
            (
                format!("text_encoders.clip_l.transformer.{path}.to_out.0.lora_up.weight"),
                TargetModel::TextEncoder,
                TensorRole::LoraUp,
            ),
            (format!("unet.{path}.to_out.0.lora.down.weight"), TargetModel::UNet, TensorRole::LoraDown),
            (format!("unet.{path}.processor.to_out_lora.up.weight"), TargetModel::UNet, TensorRole::LoraUp),
            (
                format!("unet.{path}.to_out.0.lora_magnitude_vector.default"),
                TargetModel::UNet,
                TensorRole::MagnitudeVector,
            ),
            (format!("{path}.processor.to_out_lora.down.weight"), TargetModel::Unknown, TensorRole::LoraDown),
            (format!("lora_unet_{layer}.lora_up.weight"), TargetModel::UNet, TensorRole::LoraUp),
            (format!("lora_unet_{layer}.lora_mid.weight"), TargetModel::UNet, TensorRole::LoraMid),
            (format!("lora_unet_{layer}.alpha"), TargetModel::UNet, TensorRole::Alpha),
            (format!("lycoris_{layer}.lokr_w2_a"), TargetModel::Unknown, TensorRole::LokrW2A),
            (format!("oft_unet_{layer}.oft_blocks"), TargetModel::UNet, TensorRole::OftBlocks),
            (
                format!("base_model.model.{path}.to_out.0.oft_R.default.weight"),
                TargetModel::Unknown,
                TensorRole::OftTriangles,
            ),
            (format!("unet.{path}.to_out.0.boft_R.default"), TargetModel::UNet, TensorRole::BoftBlocks),
            (format!("lora_unet_{layer}.a1.weight"), TargetModel::UNet, TensorRole::GloraA1),
            (
                format!("{path}.to_out.0.modules_to_save.default.weight"),
                TargetModel::Unknown,
                TensorRole::Weight,
            ),
            (
                format!("base_model.model.{path}.to_out.0.base_layer.bias"),
                TargetModel::Unknown,
                TensorRole::Bias,
            ),
        ] {
            let found = parse(&name).unwrap_or_else(|| panic!("{name} is not understood"));
            assert_eq!((found.target, found.layer().as_str(), found.role), (target, layer, role), "{name}");
        }
    }

    #[test]
    fn other_names_are_none() {
        for name in ["", ".alpha", "weight", "lora_unet_x.oft_diag", "lora_te_.lora_up.weight", "difference"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    /// The first ending that matches must be the right one.
    #[test]
    fn no_ending_hides_another() {
        for (place, (ending, _)) in ENDINGS.iter().enumerate() {
            for (before, _) in ENDINGS.iter().take(place) {
                assert!(!ending.ends_with(before), "{ending} is never reached, after {before}");
            }
        }
    }
}
