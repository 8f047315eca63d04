//! Reads the names of an adapter's tensors, in the forms of the programs that write them.
//!
//! A layer is told by its path in the model with `_` for each `.`, which kohya's names are from the start, and which no two
//! layers share.

/// The part of the model that a name is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    UNet,
    TextEncoder,
    /// The name does not say.
    Unknown,
}

/// What a tensor is to its layer. The kinds that these belong to are put together in [`super::pieces`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    LoraDown,
    LoraMid,
    LoraUp,
    LoraUpBias,
    EmbeddingDown,
    EmbeddingUp,
    Alpha,
    /// DoRA's magnitudes as kohya's scripts and LyCORIS write them.
    DoraScale,
    /// The same as PEFT writes them.
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
    /// (IA)³'s factors as PEFT writes them.
    Ia3Factors,
    /// Whether LyCORIS' (IA)³ is about a layer's input.
    Ia3OnInput,
    /// The factors of LyCORIS' (IA)³, or a weight that PEFT trained as a whole.
    Weight,
    Bias,
    Difference,
    BiasDifference,
    NormDifference,
    NormBiasDifference,
}

/// The name of one tensor, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AdapterName {
    pub part: Part,
    /// The layer's path as the file has it, without what stands before it, which PEFT's patterns are matched against.
    pub path: String,
    pub piece: Piece,
}

impl AdapterName {
    /// The layer's path with `_` for `.`.
    pub fn layer(&self) -> String {
        self.path.replace('.', "_")
    }
}

/// How names end, and the piece that each ending stands for. No ending is the end of one below it.
const ENDINGS: [(&str, Piece); 44] = [
    // PEFT, and diffusers since 0.22.
    (".lora_A.weight", Piece::LoraDown),
    (".lora_B.weight", Piece::LoraUp),
    (".lora_B.bias", Piece::LoraUpBias),
    (".lora_embedding_A", Piece::EmbeddingDown),
    (".lora_embedding_B", Piece::EmbeddingUp),
    (".lora_magnitude_vector.weight", Piece::MagnitudeVector),
    (".lora_magnitude_vector", Piece::MagnitudeVector),
    (".ia3_l", Piece::Ia3Factors),
    // diffusers before.
    (".lora.down.weight", Piece::LoraDown),
    (".lora.up.weight", Piece::LoraUp),
    (".lora_linear_layer.down.weight", Piece::LoraDown),
    (".lora_linear_layer.up.weight", Piece::LoraUp),
    // kohya's scripts and LyCORIS.
    (".lora_down.weight", Piece::LoraDown),
    (".lora_mid.weight", Piece::LoraMid),
    (".lora_up.weight", Piece::LoraUp),
    (".lora.alpha", Piece::Alpha),
    (".alpha", Piece::Alpha),
    (".dora_scale", Piece::DoraScale),
    (".hada_w1_a", Piece::HadaW1A),
    (".hada_w1_b", Piece::HadaW1B),
    (".hada_w2_a", Piece::HadaW2A),
    (".hada_w2_b", Piece::HadaW2B),
    (".hada_t1", Piece::HadaT1),
    (".hada_t2", Piece::HadaT2),
    (".lokr_w1", Piece::LokrW1),
    (".lokr_w1_a", Piece::LokrW1A),
    (".lokr_w1_b", Piece::LokrW1B),
    (".lokr_w2", Piece::LokrW2),
    (".lokr_w2_a", Piece::LokrW2A),
    (".lokr_w2_b", Piece::LokrW2B),
    (".lokr_t2", Piece::LokrT2),
    (".a1.weight", Piece::GloraA1),
    (".a2.weight", Piece::GloraA2),
    (".b1.weight", Piece::GloraB1),
    (".b2.weight", Piece::GloraB2),
    (".on_input", Piece::Ia3OnInput),
    (".diff", Piece::Difference),
    (".diff_b", Piece::BiasDifference),
    (".w_norm", Piece::NormDifference),
    (".b_norm", Piece::NormBiasDifference),
    // Trained as a whole beside a LoRA of PEFT.
    (".base_layer.weight", Piece::Weight),
    (".base_layer.bias", Piece::Bias),
    // Last, for they end others.
    (".weight", Piece::Weight),
    (".bias", Piece::Bias),
];

/// The first form of diffusers, which named attention processors: how names end, and the piece.
const PROCESSOR: &str = ".processor.";
const PROCESSOR_ENDINGS: [(&str, Piece); 3] = [
    ("_lora.down.weight", Piece::LoraDown),
    ("_lora.up.weight", Piece::LoraUp),
    ("_lora.alpha", Piece::Alpha),
];

/// How names begin.
const BEGINNINGS: [(&str, Part); 9] = [
    ("unet.", Part::UNet),
    ("text_encoder.", Part::TextEncoder),
    ("lora_unet_", Part::UNet),
    ("lora_te_", Part::TextEncoder),
    ("lora_te1_", Part::TextEncoder),
    ("lycoris_", Part::Unknown),
    // The names of latent diffusion.
    ("model.diffusion_model.", Part::UNet),
    ("diffusion_model.", Part::UNet),
    ("", Part::Unknown),
];

/// What PEFT puts around a model, and what it calls an adapter that was given no name.
const PEFT_PREFIX: &str = "base_model.model.";
const PEFT_ADAPTER: &str = ".default";
const PEFT_SAVED: &str = ".modules_to_save.";

/// Understands the name of a tensor; `None` if no adapter that can be applied has such a name.
pub(super) fn parse(name: &str) -> Option<AdapterName> {
    let name = name.strip_suffix(PEFT_ADAPTER).unwrap_or(name);
    let name = name.replace(PEFT_SAVED, ".").replace(&format!("{PEFT_ADAPTER}."), ".");
    let (path, piece) = path_and_piece(&name)?;
    // PEFT's prefix may stand before diffusers', or behind.
    let path = path.strip_prefix(PEFT_PREFIX).unwrap_or(&path);
    let (part, path) =
        BEGINNINGS.iter().find_map(|(beginning, part)| Some((*part, path.strip_prefix(beginning)?)))?;
    let path = path.strip_prefix(PEFT_PREFIX).unwrap_or(path);
    (!path.is_empty()).then(|| AdapterName { part, path: path.to_owned(), piece })
}

fn path_and_piece(name: &str) -> Option<(String, Piece)> {
    // Before the other forms, whose endings are a part of these.
    if let Some((block, rest)) = name.split_once(PROCESSOR)
        && let Some((layer, piece)) =
            PROCESSOR_ENDINGS.iter().find_map(|(ending, piece)| Some((rest.strip_suffix(ending)?, *piece)))
    {
        let layer = if layer == "to_out" { "to_out.0" } else { layer };
        return Some((format!("{block}.{layer}"), piece));
    }
    ENDINGS.iter().find_map(|(ending, piece)| Some((name.strip_suffix(ending)?.to_owned(), *piece)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_tells_the_same_layer() {
        let layer = "down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0";
        let path = "down_blocks.0.attentions.1.transformer_blocks.0.attn1";
        for (name, part, piece) in [
            (format!("unet.{path}.to_out.0.lora_A.weight"), Part::UNet, Piece::LoraDown),
            (format!("base_model.model.{path}.to_out.0.lora_B.weight"), Part::Unknown, Piece::LoraUp),
            (
                format!("base_model.model.{path}.to_out.0.lora_B.default.bias"),
                Part::Unknown,
                Piece::LoraUpBias,
            ),
            (format!("unet.base_model.model.{path}.to_out.0.lora_B.weight"), Part::UNet, Piece::LoraUp),
            (format!("unet.{path}.to_out.0.lora.down.weight"), Part::UNet, Piece::LoraDown),
            (format!("unet.{path}.processor.to_out_lora.up.weight"), Part::UNet, Piece::LoraUp),
            (
                format!("unet.{path}.to_out.0.lora_magnitude_vector.default"),
                Part::UNet,
                Piece::MagnitudeVector,
            ),
            (format!("{path}.processor.to_out_lora.down.weight"), Part::Unknown, Piece::LoraDown),
            (format!("lora_unet_{layer}.lora_up.weight"), Part::UNet, Piece::LoraUp),
            (format!("lora_unet_{layer}.lora_mid.weight"), Part::UNet, Piece::LoraMid),
            (format!("lora_unet_{layer}.alpha"), Part::UNet, Piece::Alpha),
            (format!("lycoris_{layer}.lokr_w2_a"), Part::Unknown, Piece::LokrW2A),
            (format!("lora_unet_{layer}.a1.weight"), Part::UNet, Piece::GloraA1),
            (format!("{path}.to_out.0.modules_to_save.default.weight"), Part::Unknown, Piece::Weight),
            (format!("base_model.model.{path}.to_out.0.base_layer.bias"), Part::Unknown, Piece::Bias),
        ] {
            let found = parse(&name).unwrap_or_else(|| panic!("{name} is not understood"));
            assert_eq!((found.part, found.layer().as_str(), found.piece), (part, layer, piece), "{name}");
        }
    }

    #[test]
    fn other_names_are_none() {
        for name in
            ["", ".alpha", "weight", "lora_unet_x.oft_blocks", "lora_te_.lora_up.weight", "difference"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    /// The first ending that fits is the right one.
    #[test]
    fn no_ending_hides_another() {
        for (place, (ending, _)) in ENDINGS.iter().enumerate() {
            for (before, _) in ENDINGS.iter().take(place) {
                assert!(!ending.ends_with(before), "{ending} is never reached, after {before}");
            }
        }
    }
}
