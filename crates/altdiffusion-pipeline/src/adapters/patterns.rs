//! Looks up a layer in PEFT's `rank_pattern` and `alpha_pattern`.

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// The most patterns accepted; the largest supported model has fewer than 1 000 layers.
const MOST_PATTERNS: usize = 10_000;
/// The most regular expressions accepted among them, since they are slower to match than names.
const MOST_EXPRESSIONS: usize = 256;
/// The length limit of a regular expression, and the size limit of a compiled one, in bytes.
const LONGEST_EXPRESSION: usize = 1_000;
const LARGEST_EXPRESSION: usize = 1 << 18;

/// Values by pattern, in matching order.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns<T>(Vec<(Pattern, T)>);

/// How a pattern matches a layer's path. PEFT matches `(.*\.)?(PATTERN)$`.
#[derive(Debug, Clone)]
enum Pattern {
    /// Equals the path, or ends it after a dot.
    End(String),
    /// Equals the path.
    Whole(String),
    Expression(Regex),
}

impl<T: Copy> Patterns<T> {
    /// Parses the object in the field `field` of a configuration. `value` parses a value, or says what was expected.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn parse(
        field: &str,
        patterns: &Map<String, Value>,
        value: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<Self, String> {
        if patterns.len() > MOST_PATTERNS {
            return Err(format!(
                "`{field}`: expected at most {MOST_PATTERNS} patterns, found {}",
                patterns.len()
            ));
        }
        let mut expressions = 0;
        let mut parsed = Vec::with_capacity(patterns.len());
        for (key, given) in patterns {
            let pattern = Pattern::parse(key).map_err(|problem| format!("`{field}`: {problem}"))?;
            expressions += usize::from(matches!(pattern, Pattern::Expression(_)));
            if expressions > MOST_EXPRESSIONS {
                return Err(format!(
                    "`{field}`: expected at most {MOST_EXPRESSIONS} regular expressions, found more"
                ));
            }
            parsed.push((pattern, value(given).map_err(|problem| format!("`{field}`: {key:?}: {problem}"))?));
        }
        Ok(Self(parsed))
    }

    /// The value of the first pattern that matches a layer's path.
    pub(super) fn get(&self, path: &str) -> Option<T> {
        self.0.iter().find_map(|(pattern, value)| pattern.matches(path).then_some(*value))
    }
}

impl Pattern {
    fn parse(key: &str) -> Result<Self, String> {
        // Nearly all patterns are plain names, whose dots stand for themselves even in a regular expression.
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        if is_name(key) {
            return Ok(Self::End(key.to_owned()));
        }
        if let Some(name) = key.strip_prefix('^').filter(|name| is_name(name)) {
            return Ok(Self::Whole(name.to_owned()));
        }
        if key.len() > LONGEST_EXPRESSION {
            let found = key.len();
            return Err(format!(
                "expected patterns of at most {LONGEST_EXPRESSION} bytes, found one of {found}"
            ));
        }
        let expression = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{key})$"))
            .size_limit(LARGEST_EXPRESSION)
            .dfa_size_limit(LARGEST_EXPRESSION)
            .build();
        expression.map(Self::Expression).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim().to_owned();
            format!("expected names of layers or regular expressions, found {key:?} ({reason})")
        })
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::End(name) => {
                path.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Whole(name) => path == name,
            Self::Expression(expression) => expression.is_match(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn get(patterns: Value, path: &str) -> Result<Option<u64>, String> {
        let patterns = patterns.as_object().cloned().unwrap_or_default();
        let value = |value: &Value| value.as_u64().ok_or_else(|| "expected a number".to_owned());
        Ok(Patterns::parse("rank_pattern", &patterns, value)?.get(path))
    }

    #[test]
    fn patterns_match_as_in_peft() {
        let path = "up_blocks.1.resnets.0.conv1";
        for (pattern, matches) in [
            ("conv1", true),
            ("resnets.0.conv1", true),
            (path, true),
            ("^up_blocks.1.resnets.0.conv1", true),
            ("onv1", false),
            ("^conv1", false),
            ("conv", false),
            (r"conv\d", true),
            (r"up_.*\.conv[12]", true),
            (r"conv1|conv2", true),
            (r"^up_blocks\.\d+\..*", true),
            (r"esnets\.0\.conv1", false),
            (r"onv\d", false),
        ] {
            assert_eq!(get(json!({ pattern: 4 }), path), Ok(matches.then_some(4)), "{pattern}");
        }
    }

    #[test]
    fn hostile_patterns_are_refused() {
        let many: Map<String, Value> = (0..=MOST_PATTERNS).map(|n| (format!("layer{n}"), json!(1))).collect();
        let expressions: Map<String, Value> =
            (0..=MOST_EXPRESSIONS).map(|n| (format!("a*{n}"), json!(1))).collect();
        for (patterns, problem) in [
            (Value::Object(many), "at most 10000 patterns"),
            (Value::Object(expressions), "at most 256 regular expressions"),
            (json!({ "(a{1000}){1000}": 1 }), "found \"(a{1000}){1000}\""),
            (json!({ "a*".repeat(600): 1 }), "at most 1000 bytes"),
            (json!({ "(?<=x)y": 1 }), "look-around"),
            (json!({ "(": 1 }), "unclosed group"),
            (json!({ "a": "b" }), "`rank_pattern`: \"a\": expected a number"),
        ] {
            let error = get(patterns, "a").err().unwrap_or_default();
            assert!(error.contains(problem), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
