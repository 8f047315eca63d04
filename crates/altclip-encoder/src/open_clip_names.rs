//! Translates the names of a CLIP layer's weights between transformers and OpenCLIP, which holds the projections of
//! queries, keys and values in one tensor. Its parts are called `q`, `k` and `v` here, after the tensor's name.

/// The tensor of three projections, and what its parts are in transformers.
const FUSED: &str = "attn.in_proj_";
const FUSED_PARTS: [(&str, &str); 3] =
    [("self_attn.q_proj.", ".q"), ("self_attn.k_proj.", ".k"), ("self_attn.v_proj.", ".v")];
/// The other weights, in transformers and in OpenCLIP.
const OTHERS: [(&str, &str); 5] = [
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
    ("self_attn.out_proj.", "attn.out_proj."),
];

/// The name in OpenCLIP of a weight of a layer in transformers: `self_attn.q_proj.bias` is `attn.in_proj_bias.q`.
pub fn to_open_clip(name: &str) -> Option<String> {
    let fused = FUSED_PARTS.iter().find_map(|(ours, part)| Some((name.strip_prefix(ours)?, part)));
    let other =
        || OTHERS.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)));
    fused.map(|(kind, part)| format!("{FUSED}{kind}{part}")).or_else(other)
}

/// The name in transformers of a weight of a layer in OpenCLIP.
pub fn to_transformers(name: &str) -> Option<String> {
    let fused = || {
        let rest = name.strip_prefix(FUSED)?;
        FUSED_PARTS.iter().find_map(|(ours, part)| Some(format!("{ours}{}", rest.strip_suffix(part)?)))
    };
    let mut others = OTHERS.iter();
    let other = others.find_map(|(ours, theirs)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)));
    other.or_else(fused)
}

/// The names of the parts of a tensor that is several in transformers; none for others. For
/// [`Checkpoint::with_rows_split`](crate::Checkpoint::with_rows_split).
pub fn fused_parts(stored: &str) -> Vec<String> {
    let is_fused = [".attn.in_proj_weight", ".attn.in_proj_bias"].iter().any(|end| stored.ends_with(end));
    let parts = FUSED_PARTS.iter().filter(|_| is_fused);
    parts.map(|(_, part)| format!("{stored}{part}")).collect()
}
