//! Reads and writes the line of `Name: value` fields below the prompt, as Stable Diffusion's web interfaces do.

use std::fmt::Display;

/// The most fields read; no program writes as many.
const MOST_FIELDS: usize = 256;

/// Fields `Name: value`, in order, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParameterFields(Vec<(String, String)>);

impl ParameterFields {
    /// Adds a field at the end.
    pub fn add(&mut self, name: impl Into<String>, value: impl Display) {
        self.0.push((name.into(), value.to_string()));
    }

    /// Adds a field if there is a value.
    pub fn add_some(&mut self, name: impl Into<String>, value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Adds a field with the value `True` if `is_on`.
    pub fn add_flag(&mut self, name: impl Into<String>, is_on: bool) {
        self.add_some(name, is_on.then_some("True"));
    }

    /// Adds a field in front of another one.
    pub fn insert_before(&mut self, other: &str, name: impl Into<String>, value: impl Display) {
        let place = self.0.iter().position(|(found, _)| found == other).unwrap_or(self.0.len());
        self.0.insert(place, (name.into(), value.to_string()));
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Removes a field and returns its value.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.remove(place).1)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Formats all fields as one line.
    pub fn to_text(&self) -> String {
        let fields = self.0.iter().map(|(name, value)| format!("{name}: {}", quoted(value)));
        fields.collect::<Vec<_>>().join(", ")
    }

    /// Parses a line of fields, skipping what is not one.
    pub fn parse(line: &str) -> Self {
        let mut fields = Self::default();
        let mut rest = line;
        while !rest.is_empty() && fields.len() < MOST_FIELDS {
            let end = rest.find([',', ':']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            rest = match after.strip_prefix(':') {
                // A piece without a colon, such as the rest of an unquoted list.
                None => after.strip_prefix(',').unwrap_or(after),
                Some(value) => {
                    let (value, rest) = split_value(value.trim_start());
                    fields.add(name.trim(), value);
                    rest
                }
            };
        }
        fields
    }
}

/// Splits the first value off a text, at its comma.
fn split_value(text: &str) -> (String, &str) {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        if let Some(Ok(value)) = values.next() {
            let rest = text.get(values.byte_offset()..).unwrap_or_default().trim_start();
            if rest.is_empty() || rest.starts_with(',') {
                return (value, rest.strip_prefix(',').unwrap_or(rest));
            }
        }
    }
    let (value, rest) = text.split_once(',').unwrap_or((text, ""));
    (value.trim().to_owned(), rest)
}

/// Quotes a value as JSON where the line could not hold it otherwise.
fn quoted(value: &str) -> String {
    let is_plain = !value.contains([',', ':', '"'])
        && !value.contains(char::is_control)
        && value.trim() == value
        && !value.is_empty();
    if is_plain {
        return value.to_owned();
    }
    let json = serde_json::Value::from(value).to_string();
    // JSON leaves control characters beyond ASCII unescaped.
    let escaped = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
    json.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were() {
        for value in ["", " ", "a, b: c", "\"", "\\", "a\nb", "\u{1b}", "\"a\" b", "{\"a\": [1, 2]}", "猫"] {
            let mut fields = ParameterFields::default();
            fields.add("One", value);
            fields.add("Two", "2");
            assert_eq!(ParameterFields::parse(&fields.to_text()), fields, "{value:?}");
            let mut outer = ParameterFields::default();
            outer.add("Nested", fields.to_text());
            let nested = ParameterFields::parse(&outer.to_text()).take("Nested").unwrap_or_default();
            assert_eq!(ParameterFields::parse(&nested), fields, "{value:?}");
        }
    }
}
