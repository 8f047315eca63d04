//! Translates between the names of latent diffusion and of diffusers.

/// A place in a list, as names spell it: `07` and `+7` are no other spellings of `7`.
pub(crate) fn index(segment: &str) -> Option<usize> {
    segment.parse().ok().filter(|index: &usize| index.to_string() == segment)
}

/// The other of a pair, for a layer's name that is the first of it, or begins with the first and a dot.
pub(super) fn renamed<'a>(name: &str, mut pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    pairs.find_map(|(from, to)| match name.strip_prefix(from) {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => Some(format!("{to}{rest}")),
        _ => None,
    })
}

/// Pairs the other way round.
pub(super) fn reversed<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
    pairs.iter().map(|&(first, second)| (second, first))
}
