//! Bounds the numbers of a run's settings, which decide how much memory and time a step takes.

use toml::{Table, Value};

/// The largest value of a setting. They are beyond what any machine trains with, and small enough that arithmetic on
/// them cannot overflow; whether there is memory for a step shows when it is taken.
const LIMITS: [(&str, i64); 4] =
    [("resolution", 1 << 14), ("rank", 1 << 16), ("batch_size", 1 << 20), ("accumulate", 1 << 20)];
/// The largest value of every other whole number.
const LARGEST: i64 = 1 << 31;
/// What may be any number.
const SEED: &str = "seed";

/// The first number that is too large: its place, and what is wrong with it.
pub(crate) fn too_large(settings: &Table) -> Option<(Vec<String>, String)> {
    settings.iter().find_map(|(name, value)| {
        let (mut place, problem) = too_large_value(name, value)?;
        place.insert(0, name.clone());
        Some((place, problem))
    })
}

fn too_large_value(name: &str, value: &Value) -> Option<(Vec<String>, String)> {
    match value {
        Value::Table(table) => too_large(table),
        Value::Array(values) => values.iter().find_map(|value| too_large_value(name, value)),
        Value::Integer(number) if name != SEED => {
            let largest =
                LIMITS.iter().find(|(limited, _)| *limited == name).map_or(LARGEST, |(_, most)| *most);
            let problem = || (Vec::new(), format!("expected at most {largest}, found {number}"));
            (*number > largest).then(problem)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_size_a_step_are_bounded() -> Result<(), toml::de::Error> {
        for (settings, expected) in [
            ("seed = 9223372036854775807\n[stage]\nresolution = 512\nsteps = 100000", None),
            ("[stage]\nresolution = 20000", Some("stage.resolution: expected at most 16384, found 20000")),
            ("[a.b]\naccumulate = 2000000", Some("a.b.accumulate: expected at most 1048576, found 2000000")),
            ("widths = [1, 4294967296]", Some("widths: expected at most 2147483648, found 4294967296")),
        ] {
            let found = too_large(&settings.parse()?)
                .map(|(place, problem)| format!("{}: {problem}", place.join(".")));
            assert_eq!(found.as_deref(), expected);
        }
        Ok(())
    }
}
