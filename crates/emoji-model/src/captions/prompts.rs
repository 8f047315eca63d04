//! Draws prompts for evaluating a trained model.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::language;
use crate::dataset::Dataset;

/// `count` prompts in a language, each with the indices of all concepts that are a correct answer: those named by the
/// prompt's word. The same seed gives the same prompts.
///
/// Concepts are drawn without repetition while there are enough; each prompt is a phrase around the concept's name.
/// Empty if no concept has a name in that language.
pub fn evaluation_prompts(
    dataset: &Dataset,
    language: &str,
    count: usize,
    seed: u64,
) -> Vec<(String, Vec<usize>)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut named: Vec<_> =
        dataset.concepts().iter().filter(|concept| concept.name(language).is_some()).collect();
    named.shuffle(&mut rng);
    let phrases = language::language(language);
    let prompts = named.iter().cycle().take(if named.is_empty() { 0 } else { count });
    prompts
        .filter_map(|concept| {
            let name = concept.name(language)?;
            let prompt = phrases.draw_phrase(&mut rng, name, &concept.subcategory)?;
            Some((prompt, dataset.concepts_named(language, name)))
        })
        .collect()
}
