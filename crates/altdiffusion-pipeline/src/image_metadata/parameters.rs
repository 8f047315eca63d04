//! Reads and writes generation parameters as Stable Diffusion's web interfaces do: the prompt, the negative prompt,
//! and a line of `Name: value` fields. The format is that of `create_infotext` and `parse_generation_parameters` in
//! stable-diffusion-webui.

use super::fields::ParameterFields;

/// The prefix of the negative prompt's line.
const NEGATIVE: &str = "Negative prompt:";

/// The fields for prompts that the lines above them cannot hold exactly.
const PROMPT_FIELD: &str = "Prompt";
const NEGATIVE_FIELD: &str = "Negative prompt";

/// A line with fewer fields than this belongs to the prompt, as in stable-diffusion-webui.
const FEWEST_FIELDS: usize = 3;

/// How an image was drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenerationParameters {
    /// What was to be drawn.
    pub prompt: String,
    /// The negative prompt; empty if there was none.
    pub negative_prompt: String,
    /// Everything else, such as `Steps` and `Seed`.
    pub fields: ParameterFields,
}

impl GenerationParameters {
    /// Formats the text that images hold. A prompt that its lines cannot hold exactly, such as one with a line
    /// `Negative prompt: …`, is repeated in a field, so that parsing returns the same prompt.
    pub fn to_text(&self) -> String {
        let mut fields = self.fields.clone();
        let text = self.lines(&fields);
        let read = Self::read_lines(&text);
        if read == *self {
            return text;
        }
        // So few fields are only known as such by these names.
        let few = fields.len() < FEWEST_FIELDS;
        for (name, read, text) in [
            (PROMPT_FIELD, &read.prompt, &self.prompt),
            (NEGATIVE_FIELD, &read.negative_prompt, &self.negative_prompt),
        ] {
            if few || read != text {
                fields.add(name, text);
            }
        }
        self.lines(&fields)
    }

    fn lines(&self, fields: &ParameterFields) -> String {
        // PNG text cannot hold NUL, and terminals should not see control characters.
        let plain = |text: &str| text.replace(|c: char| c.is_control() && c != '\n', " ");
        let mut text = format!("{}\n", plain(&self.prompt));
        if !self.negative_prompt.is_empty() {
            text += &format!("{NEGATIVE} {}\n", plain(&self.negative_prompt));
        }
        text + &fields.to_text()
    }

    /// Parses such a text, including those of other programs.
    pub fn parse(text: &str) -> Self {
        let mut read = Self::read_lines(text);
        if let Some(prompt) = read.fields.take(PROMPT_FIELD) {
            read.prompt = prompt;
        }
        if let Some(prompt) = read.fields.take(NEGATIVE_FIELD) {
            read.negative_prompt = prompt;
        }
        read
    }

    fn read_lines(text: &str) -> Self {
        let lines: Vec<&str> = text.trim().split('\n').map(str::trim).collect();
        // Extensions append lines after the fields, such as sd-dynamic-prompts' `Template: …`.
        let is_fields = |line: &&str| {
            let fields = ParameterFields::parse(line);
            fields.len() >= FEWEST_FIELDS
                || fields.iter().map(|(name, _)| name).eq([PROMPT_FIELD, NEGATIVE_FIELD])
        };
        let is_first = |line: &&str| line.starts_with("Steps:") && is_fields(line);
        let found = lines.iter().rposition(is_first).or_else(|| {
            let last = lines.len().checked_sub(1)?;
            lines.get(last).is_some_and(is_fields).then_some(last)
        });
        let (texts, fields) = match found {
            Some(place) => (
                lines.get(..place).unwrap_or_default(),
                lines.get(place).map(|line| ParameterFields::parse(line)).unwrap_or_default(),
            ),
            None => (&lines[..], ParameterFields::default()),
        };
        let (mut prompt, mut negative) = (Vec::new(), Vec::new());
        let mut is_negative = false;
        for line in texts {
            let mut line = *line;
            if let Some(rest) = line.strip_prefix(NEGATIVE) {
                (line, is_negative) = (rest.trim(), true);
            }
            if is_negative { negative.push(line) } else { prompt.push(line) }
        }
        Self { prompt: prompt.join("\n"), negative_prompt: negative.join("\n"), fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(prompt: &str, negative_prompt: &str, fields: &[(&str, &str)]) -> GenerationParameters {
        let mut info = GenerationParameters {
            prompt: prompt.to_owned(),
            negative_prompt: negative_prompt.to_owned(),
            ..GenerationParameters::default()
        };
        fields.iter().for_each(|(name, value)| info.fields.add(*name, *value));
        info
    }

    const FIELDS: [(&str, &str); 3] =
        [("Steps", "20"), ("Sampler", "DPM++ 2M"), ("Model", "C:\\models, mine")];

    #[test]
    fn it_reads_as_web_interfaces_write_it() {
        let text = info("一只猫", "模糊", &FIELDS).to_text();
        let expected =
            "一只猫\nNegative prompt: 模糊\nSteps: 20, Sampler: DPM++ 2M, Model: \"C:\\\\models, mine\"";
        assert_eq!(text, expected);
    }

    /// Prompts that contain the format's own syntax, or what files and terminals should not see.
    #[test]
    fn hostile_prompts_are_read_as_they_were() {
        let prompts = [
            "",
            "one\ntwo",
            "a cat\nNegative prompt: dogs\nand more",
            "Negative prompt: all of it",
            "a cat\nSteps: 1, Sampler: Euler, CFG scale: 7, Seed: 1",
            "  spaces and\ttabs \n\n",
            "\"quoted\", with: all\\ of \"it",
            "windows\r\nlines\r",
            "\0\u{1b}[2J\u{7f}\u{85}\u{2028}",
            "Prompt: another",
            "👩‍🎨 café <lora:x:1> (a:1.3), [b]",
        ];
        for prompt in prompts {
            for negative in prompts {
                let written = info(prompt, negative, &FIELDS);
                let text = written.to_text();
                assert_eq!(GenerationParameters::parse(&text), written, "{text}");
                assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
            }
        }
    }

    #[test]
    fn few_fields_are_read_as_they_were() {
        for prompt in ["", "a cat", "\u{e}\u{5}\0", "-F\nPrompt: \"-F\"", "a\nSteps: 1, Seed: 2"] {
            for fields in [&FIELDS[..0], &FIELDS[..1], &FIELDS[..2]] {
                let written = info(prompt, "", fields);
                let text = written.to_text();
                assert_eq!(GenerationParameters::parse(&text), written, "{text}");
            }
        }
    }

    /// As AUTOMATIC1111, Forge with dynamic prompts, and stable-diffusion.cpp write it.
    #[test]
    fn texts_of_other_programs_are_read() {
        let webui = "a cat,\n(fur:1.2) <lora:ink:0.7>\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M Karras, CFG \
                     scale: 7, Seed: 5, Size: 512x768, Lora hashes: \"ink: 0123456789ab, b: c\", Version: v1.9.4";
        let read = GenerationParameters::parse(webui);
        assert_eq!((&*read.prompt, &*read.negative_prompt), ("a cat,\n(fur:1.2) <lora:ink:0.7>", "blurry"));
        assert_eq!(read.fields.get("Sampler"), Some("DPM++ 2M Karras"));
        assert_eq!(read.fields.get("Lora hashes"), Some("ink: 0123456789ab, b: c"));
        assert_eq!(read.fields.get("Version"), Some("v1.9.4"));

        let forge = "a cat\nSteps: 20, Sampler: Euler, Schedule type: Simple, Seed: 1\nTemplate: a {cat|dog}";
        let read = GenerationParameters::parse(forge);
        assert_eq!((&*read.prompt, read.fields.get("Schedule type")), ("a cat", Some("Simple")));

        let cpp = "a cat\nNegative prompt: dogs\nSteps: 20, CFG scale: 7.000000, Skip layers: [7, 8, 9], Seed: 42, Size: \
                   512x512, Model: sd.ckpt, RNG: cuda, Sampler: euler_a, Version: stable-diffusion.cpp";
        let read = GenerationParameters::parse(cpp);
        assert_eq!((read.fields.get("Skip layers"), read.fields.get("Seed")), (Some("[7"), Some("42")));
    }

    #[test]
    fn what_is_no_such_text_is_a_prompt() {
        for text in ["a cat", "a cat: really, with: colons", "{\"nodes\": [1, 2]}"] {
            assert_eq!(GenerationParameters::parse(text), info(text, "", &[]));
        }
    }
}
