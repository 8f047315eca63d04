//! Reads a JSON object whose fields are the long names of options.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use altdiffusion_pipeline::image_metadata::{GenerationParameters, ParameterFields};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Arg, ArgAction, Args, Command};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::commands::generate::adapters::Adapters;
use crate::commands::generate::like::{RecordedOptions, recorded_options};
use crate::commands::generate::options::{Generate, option_command, parse_options};
use crate::defaults::{hint, option_names, values};
use crate::model::ModelArgs;

/// Options that cannot differ between lines, besides those of the model and its adapters: what is loaded once, what
/// concerns the whole run, and files that every line would overwrite.
const FOR_ALL_LINES: [&str; 15] = [
    "prompts",
    "like",
    "leave-out",
    "json",
    "no-preview",
    "no-parameters",
    "low-memory",
    "no-safety-checker",
    "controlnet",
    "ip-adapter",
    "ip-encoder",
    "max-pixels",
    "save-steps",
    "save-latents",
    "timings",
];

/// The fields of an object, in order, including repeated ones.
struct Fields(Vec<(String, Value)>);

/// The field that holds the record of an image, as `--json` prints it.
const RECORD: &str = "parameters";

/// The content of an object.
pub struct Object {
    pub options: Generate,
    /// Whether it names the output.
    pub has_output: bool,
    /// The fields of its record.
    pub recorded: Option<ParameterFields>,
    pub warnings: Vec<String>,
}

/// Parses an object. Files named by its record are searched for here and beside `path`.
///
/// # Errors
/// If it is not an object, or a field is not an option, has an invalid value or applies to all lines.
pub fn parse(text: &str, path: &Path) -> Result<Object> {
    let parsed: Result<Fields, _> = serde_json::from_str(text);
    // Keep the column, but not the line number, which is reported anyway.
    let Fields(fields) = parsed.map_err(|error| {
        let problem = error.to_string().replace(" at line 1 column ", ", in column ");
        anyhow!("expected a prompt, or a JSON object of options: {problem}")
    })?;
    let command = option_command();
    let (mut arguments, mut record) = (Vec::<OsString>::new(), None);
    for (field, value) in &fields {
        match (field.as_str(), value) {
            (RECORD, Value::String(text)) => record = Some(GenerationParameters::parse(text)),
            (RECORD, Value::Null) => {}
            (RECORD, _) => bail!("{RECORD}: expected the record of an image, found {value}"),
            _ => arguments.extend(argument(&command, field, value).with_context(|| field.clone())?),
        }
    }
    let has = |name: &str| fields.iter().any(|(field, value)| field == name && !value.is_null());
    ensure!(has("prompt") || record.is_some(), "expected a field `prompt`, found none");
    if record.is_some() {
        // Stands in for a prompt, which may be in the record.
        arguments.push("--like=-".into());
    }
    let options = parse_options(&arguments).map_err(|problem| anyhow!("{problem}"))?;
    let options = Generate { like: None, ..options };
    let has_output = has("output");
    let Some(record) = record else {
        return Ok(Object { options, has_output, recorded: None, warnings: Vec::new() });
    };
    let recorded = Some(record.fields.clone());
    let given = Generate { leave_out: names_for_all_lines(&command), ..options };
    let RecordedOptions { options, warnings } = recorded_options(record, RECORD, path, &given)?;
    let options = Generate { leave_out: Vec::new(), ..given }.or(options);
    Ok(Object { options, has_output, recorded, warnings })
}

/// A field as arguments. Null and a false flag count as missing.
fn argument(command: &Command, field: &str, value: &Value) -> Result<Vec<OsString>> {
    let name = field.replace('_', "-");
    let Some(option) = find(command, &name) else {
        bail!("there is no option --{name}{}", hint(&name, &option_names(command)));
    };
    let long = option.get_long().unwrap_or_default();
    ensure!(!is_for_all_lines(long), "--{long} is for all lines, expected it on the command line");
    let is_switch = matches!(option.get_action(), ArgAction::SetTrue);
    let may_be_alone = option.get_num_args().is_some_and(|count| count.min_values() == 0);
    match value {
        Value::Null => return Ok(Vec::new()),
        Value::Bool(is_on) if is_switch || may_be_alone => {
            return Ok(is_on.then(|| format!("--{long}").into()).into_iter().collect());
        }
        _ => {}
    }
    let typed = values(option, &as_toml(value)?)?;
    Ok(typed.into_iter().map(|value| format!("--{long}={value}").into()).collect())
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let is_named = |option: &&Arg| {
        let aliases = option.get_all_aliases().unwrap_or_default();
        option.get_long() == Some(name) || aliases.contains(&name)
    };
    command.get_arguments().find(is_named)
}

fn names_for_all_lines(command: &Command) -> Vec<String> {
    let names = command.get_arguments().filter_map(Arg::get_long);
    names.filter(|long| is_for_all_lines(long)).map(str::to_owned).collect()
}

fn is_for_all_lines(long: &str) -> bool {
    let is_in = |command: Command| command.get_arguments().any(|option| option.get_long() == Some(long));
    FOR_ALL_LINES.contains(&long)
        || is_in(ModelArgs::augment_args(Command::new("")))
        || is_in(Adapters::augment_args(Command::new("")))
}

/// A value as the configuration file has it. Numbers stay as written, since a seed may be too large for TOML.
fn as_toml(value: &Value) -> Result<toml::Value> {
    Ok(match value {
        Value::Bool(value) => toml::Value::Boolean(*value),
        Value::Number(number) => toml::Value::String(number.to_string()),
        Value::String(text) => toml::Value::String(text.clone()),
        Value::Array(values) => toml::Value::Array(values.iter().map(as_toml).collect::<Result<_>>()?),
        Value::Null | Value::Object(_) => bail!("expected a text or a number, found {value}"),
    })
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_all_lines_is_an_option() {
        let command = option_command();
        for name in FOR_ALL_LINES {
            assert!(find(&command, name).is_some(), "{name}");
        }
    }

    #[test]
    fn fields_are_options_in_either_spelling() -> Result<()> {
        let Object { options, has_output, .. } = parse(
            r#"{"prompt": "-n 3", "guidance-scale": 3, "num_images": 2, "seed": 18446744073709551615,
                "timesteps": [999, 1], "prompt_weights": true, "grid": false, "width": null, "cfg_scale": null}"#,
            Path::new("prompts.txt"),
        )?;
        assert_eq!(options.prompts(), ["-n 3"]);
        assert_eq!((options.guidance_scale, options.num_images), (Some(3.0), Some(2)));
        assert_eq!((options.seed, options.width, options.step_count()), (Some(u64::MAX), None, 2));
        assert!(options.prompt_weights && !options.grid && !has_output);
        Ok(())
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, problem) in [
            ("{", "expected a prompt, or a JSON object of options: EOF while parsing an object, in column 1"),
            (r#"{"prompt": "a"} b"#, "trailing characters, in column 17"),
            ("{}", "expected a field `prompt`, found none"),
            (r#"{"prompt": "a", "stepz": 1}"#, "stepz: there is no option --stepz, did you mean steps?"),
            (r#"{"prompt": "a", "steps": "many"}"#, "steps: invalid value 'many' for '--steps"),
            (r#"{"prompt": "a", "steps": [1, 2]}"#, "steps: expected a text or a number, found"),
            (r#"{"prompt": "a", "steps": {}}"#, "steps: expected a text or a number, found {}"),
            (r#"{"prompt": "a", "grid": 1}"#, "grid: expected true or false, found"),
            (r#"{"prompt": "a", "seed": 1, "seed": 2}"#, "'--seed <N>' cannot be used multiple times"),
            (r#"{"parameters": 7}"#, "parameters: expected the record of an image, found 7"),
            (r#"{"prompt": "a", "model": "m"}"#, "model: --model is for all lines"),
            (r#"{"prompt": "a", "save_latents": "/x"}"#, "save_latents: --save-latents is for all lines"),
        ] {
            let line = parse(text, Path::new("prompts.txt"))
                .err()
                .map(|error| crate::one_line(&error))
                .unwrap_or_default();
            assert!(line.contains(problem), "{text}: {line}");
        }
    }
}
