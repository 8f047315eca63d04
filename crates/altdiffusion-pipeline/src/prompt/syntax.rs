//! Parses the weights in a prompt.

use crate::{Error, Result};

/// The factor of a pair of round brackets.
const ROUND: f64 = 1.1;
/// The factor of a pair of square brackets.
const SQUARE: f64 = 1.0 / 1.1;
/// The word that ends a chunk.
const BREAK: &str = "BREAK";

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptSegment {
    /// Text with a weight; 1 is neutral.
    Text {
        /// The text, without the syntax.
        text: String,
        /// Its weight.
        weight: f64,
    },
    /// What follows starts a new chunk.
    Break,
}

/// Parses the weights in a prompt, with the syntax of stable-diffusion-webui's `parse_prompt_attention`
/// (<https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/master/modules/prompt_parser.py>):
///
/// * `(text)` multiplies the weight by 1.1, `[text]` divides it by 1.1, and `(text:1.3)` multiplies it by 1.3;
/// * brackets nest, and their weights multiply; an unclosed one reaches to the end;
/// * `\(`, `\)`, `\[`, `\]` and `\\` are literal characters;
/// * the word `BREAK` starts a new chunk.
///
/// The full-width characters `（）［］：` of Chinese input methods count as their ASCII forms, and can be paired with
/// them. A text without any syntax is one part of weight 1.
///
/// # Errors
/// If a weight is not a number, as in `(text:1.2.3)`.
pub fn parse_prompt(prompt: &str) -> Result<Vec<PromptSegment>> {
    let mut parts = Parts::default();
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let text = rest;
        let (sign, after) = text.split_at(first.len_utf8());
        rest = after;
        match ascii(first) {
            '\\' => {
                let escaped = after.chars().next().filter(|next| "\\()[]".contains(ascii(*next)));
                // A backslash before anything else is dropped.
                let (escaped, after) = after.split_at(escaped.map_or(0, char::len_utf8));
                parts.push_text(escaped);
                rest = after;
            }
            '(' => parts.round.push(parts.list.len()),
            '[' => parts.square.push(parts.list.len()),
            ')' if !parts.round.is_empty() => parts.close_round(ROUND),
            ']' if !parts.square.is_empty() => parts.close_square(),
            ':' if !parts.round.is_empty() => match split_weight(after) {
                Some((number, after)) => {
                    let weight = number.parse().ok().filter(|weight: &f64| weight.is_finite());
                    parts.close_round(weight.ok_or_else(|| {
                        let problem = format!("the weight {number:?} is no number, expected one such as 1.3");
                        Error::option("prompt", problem)
                    })?);
                    rest = after;
                }
                None => parts.push_text(sign),
            },
            // Closing characters without an opening one are literal.
            ')' | ']' | ':' => parts.push_text(sign),
            _ => {
                let end = text.find(|next| "\\()[]:".contains(ascii(next))).unwrap_or(text.len());
                let (run, after) = text.split_at(end);
                parts.push_with_breaks(run);
                rest = after;
            }
        }
    }
    Ok(parts.finish())
}

/// The parts so far, and where in them brackets were opened.
#[derive(Default)]
struct Parts {
    list: Vec<PromptSegment>,
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Parts {
    fn push_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.list.push(PromptSegment::Text { text: text.to_owned(), weight: 1.0 });
        }
    }

    /// Adds text, splitting it at the word BREAK and the spaces around it.
    fn push_with_breaks(&mut self, text: &str) {
        let mut rest = text;
        let mut from = 0;
        while let Some(found) = rest.get(from..).and_then(|rest| rest.find(BREAK)) {
            let (start, end) = (from + found, from + found + BREAK.len());
            let is_word =
                |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
            if is_word(rest[..start].chars().next_back()) || is_word(rest[end..].chars().next()) {
                from = end;
                continue;
            }
            self.push_text(rest[..start].trim_end());
            self.list.push(PromptSegment::Break);
            rest = rest[end..].trim_start();
            from = 0;
        }
        self.push_text(rest);
    }

    fn close_round(&mut self, weight: f64) {
        if let Some(start) = self.round.pop() {
            self.multiply(start, weight);
        }
    }

    fn close_square(&mut self) {
        if let Some(start) = self.square.pop() {
            self.multiply(start, SQUARE);
        }
    }

    fn multiply(&mut self, start: usize, factor: f64) {
        for part in self.list.iter_mut().skip(start) {
            if let PromptSegment::Text { weight, .. } = part {
                *weight *= factor;
            }
        }
    }

    /// The parts, with neighbours of equal weight joined, so that they are tokenized as one text.
    fn finish(mut self) -> Vec<PromptSegment> {
        // Brackets that were never closed.
        for start in std::mem::take(&mut self.round) {
            self.multiply(start, ROUND);
        }
        for start in std::mem::take(&mut self.square) {
            self.multiply(start, SQUARE);
        }
        let mut joined: Vec<PromptSegment> = Vec::with_capacity(self.list.len());
        for part in self.list {
            match (joined.last_mut(), part) {
                (
                    Some(PromptSegment::Text { text, weight }),
                    PromptSegment::Text { text: next, weight: next_weight },
                ) if *weight == next_weight => text.push_str(&next),
                (_, part) => joined.push(part),
            }
        }
        joined
    }
}

/// Splits a weight and its closing bracket off the start of a text.
fn split_weight(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let is_part = |(index, character): (usize, char)| {
        let character = ascii(character);
        character.is_ascii_digit() || character == '.' || (index == 0 && matches!(character, '+' | '-'))
    };
    let end = text.char_indices().find(|place| !is_part(*place)).map_or(text.len(), |(index, _)| index);
    let (number, rest) = text.split_at(end);
    let number: String = number.chars().map(ascii).collect();
    let rest = rest.trim_start();
    let bracket = rest.chars().next().filter(|sign| ascii(*sign) == ')')?;
    // A sign alone is not a weight.
    number.contains(|character: char| character != '+' && character != '-').then_some(())?;
    Some((number, &rest[bracket.len_utf8()..]))
}

/// The ASCII form of a full-width character, or the character itself.
fn ascii(character: char) -> char {
    /// Both Unicode blocks have the same order.
    const DISTANCE: u32 = '！' as u32 - '!' as u32;
    match character {
        '！'..='～' => char::from_u32(character as u32 - DISTANCE).unwrap_or(character),
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(prompt: &str) -> Vec<(String, f64)> {
        let parts = parse_prompt(prompt).unwrap_or_default();
        let pair = |part| match part {
            PromptSegment::Text { text, weight } => (text, weight),
            PromptSegment::Break => ("BREAK".to_owned(), -1.0),
        };
        parts.into_iter().map(pair).collect()
    }

    #[test]
    fn full_width_signs_mean_the_same_also_mixed() {
        let expected = parsed("一只(红色:1.3)的[大]猫");
        assert_eq!(expected.len(), 5);
        for prompt in
            ["一只（红色：1.3）的［大］猫", "一只(红色：１．３）的［大]猫", "一只（红色: 1.3 )的[大］猫"]
        {
            assert_eq!(parsed(prompt), expected, "{prompt}");
        }
        // An escaped character stays as it was typed.
        assert_eq!(parsed(r"猫\（狗\）"), [("猫（狗）".to_owned(), 1.0)]);
    }

    #[test]
    fn nested_weights_multiply() {
        for (prompt, expected) in [
            ("((a))", ROUND * ROUND),
            ("[[a]]", SQUARE * SQUARE),
            ("((a:1.5):2)", 3.0),
            ("([a:1.5]:2)", 2.0 * SQUARE),
            ("(a:-0.5)", -0.5),
            ("(a:0)", 0.0),
        ] {
            let parts = parsed(prompt);
            assert!(parts.iter().any(|(_, weight)| (weight - expected).abs() < 1e-12), "{prompt}: {parts:?}");
        }
    }

    #[test]
    fn text_without_syntax_is_left_as_it_is() {
        for prompt in ["a cat, 一只猫: two cats; ", "10:30 :)", "猫：狗 ] )", "BREAKFAST xBREAK _BREAK"]
        {
            assert_eq!(parsed(prompt), [(prompt.to_owned(), 1.0)]);
        }
        assert!(parsed("").is_empty());
    }

    #[test]
    fn a_weight_that_is_no_number_is_an_error() {
        for prompt in ["(a:1.2.3)", "(a:.)", "（a：１．２．３）"] {
            let error = parse_prompt(prompt).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains("is no number")), "{prompt}");
        }
    }

    /// No character outside the syntax is lost or added, whatever the text.
    #[test]
    fn any_text_can_be_read() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let signs: Vec<char> = r"()[]:\（）［］：1.5 aB猫".chars().chain(" BREAK ".chars()).collect();
        for _ in 0..2000 {
            let length = rng.random_range(0..20);
            let prompt: String = (0..length).map(|_| signs[rng.random_range(0..signs.len())]).collect();
            let Ok(parts) = parse_prompt(&prompt) else {
                continue;
            };
            for part in parts {
                if let PromptSegment::Text { text, weight } = part {
                    assert!(weight.is_finite() && !text.is_empty(), "{prompt:?}");
                    assert!(text.chars().all(|character| prompt.contains(character)), "{prompt:?}: {text:?}");
                }
            }
        }
    }
}
