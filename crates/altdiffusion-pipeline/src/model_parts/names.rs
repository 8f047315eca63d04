//! Translates names between latent diffusion and diffusers.

/// Parses an index in a name, in its only spelling: `07` and `+7` are not `7`.
pub(crate) fn index(segment: &str) -> Option<usize> {
    segment.parse().ok().filter(|index: &usize| index.to_string() == segment)
}

/// Replaces the first of a pair by the second, in a layer's name that equals the first or begins with it and a dot.
pub(super) fn renamed<'a>(name: &str, mut pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    pairs.find_map(|(from, to)| match name.strip_prefix(from) {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => Some(format!("{to}{rest}")),
        _ => None,
    })
}

/// Swaps each pair.
pub(super) fn reversed<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
    pairs.iter().map(|&(first, second)| (second, first))
}
