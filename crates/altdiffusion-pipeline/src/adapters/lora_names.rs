//! The names that LoRA files give to the layers they change, in the forms of the programs that write them.
//!
//! A layer is told by its path in the model with `_` for each `.`, which kohya's names are from the start, and which no two
//! layers share.

/// What a tensor of a LoRA file is to its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// From the layer's input to the rank.
    Down,
    /// Between the two, in convolutions that were split in three.
    Mid,
    /// From the rank to the layer's output.
    Up,
    /// The number that, divided by the rank, scales the change.
    Alpha,
}

/// The part of the model that a name is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    UNet,
    TextEncoder,
    /// The name does not say.
    Unknown,
}

/// The name of one tensor, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoraName {
    pub part: Part,
    /// The layer's path with `_` for `.`.
    pub layer: String,
    pub role: Role,
}

/// How names end, and the role that each ending stands for.
const ENDINGS: [(&str, Role); 13] = [
    // PEFT, and diffusers since 0.22.
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_A.default.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    // diffusers before.
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    // kohya.
    (".lora_down.weight", Role::Down),
    (".lora_mid.weight", Role::Mid),
    (".lora_up.weight", Role::Up),
    (".lora.alpha", Role::Alpha),
    (".alpha", Role::Alpha),
];

/// The first form of diffusers, which named attention processors: how names end, what the layer is called, the role.
const PROCESSOR_ENDINGS: [(&str, Role); 2] =
    [("_lora.down.weight", Role::Down), ("_lora.up.weight", Role::Up)];
const PROCESSOR: &str = ".processor.";

/// How names begin.
const BEGINNINGS: [(&str, Part); 6] = [
    ("unet.", Part::UNet),
    ("text_encoder.", Part::TextEncoder),
    ("lora_unet_", Part::UNet),
    ("lora_te_", Part::TextEncoder),
    ("base_model.model.", Part::Unknown),
    ("", Part::Unknown),
];

/// Understands the name of a tensor; `None` if no LoRA has such a name.
pub(super) fn parse(name: &str) -> Option<LoraName> {
    let (path, role) = path_and_role(name)?;
    let (part, path) = BEGINNINGS
        .iter()
        .find_map(|(beginning, part)| Some((*part, path.strip_prefix(beginning)?)))
        .filter(|(_, path)| !path.is_empty())?;
    Some(LoraName { part, layer: path.replace('.', "_"), role })
}

fn path_and_role(name: &str) -> Option<(String, Role)> {
    // Before the other forms, whose endings are a part of these.
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
        for (name, part, role) in [
            (format!("unet.{path}.to_out.0.lora_A.weight"), Part::UNet, Role::Down),
            (format!("base_model.model.{path}.to_out.0.lora_B.weight"), Part::Unknown, Role::Up),
            (format!("unet.{path}.to_out.0.lora.down.weight"), Part::UNet, Role::Down),
            (format!("unet.{path}.processor.to_out_lora.up.weight"), Part::UNet, Role::Up),
            (format!("{path}.processor.to_out_lora.down.weight"), Part::Unknown, Role::Down),
            (format!("lora_unet_{layer}.lora_up.weight"), Part::UNet, Role::Up),
            (format!("lora_unet_{layer}.lora_mid.weight"), Part::UNet, Role::Mid),
            (format!("lora_unet_{layer}.alpha"), Part::UNet, Role::Alpha),
        ] {
            assert_eq!(parse(&name), Some(LoraName { part, layer: layer.to_owned(), role }), "{name}");
        }
    }

    #[test]
    fn other_names_are_none() {
        for name in ["", ".alpha", "unet.conv_in.weight", "lora_unet_x.hada_w1_a", "lora_te_.lora_up.weight"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
