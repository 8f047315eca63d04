//! Explains invalid options in the user's language.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::catalogue;

/// The error in the locale's language, if that is not English and the error is of a common kind.
pub fn explain(error: &clap::Error) -> Option<String> {
    let catalogue = catalogue()?;
    let text = |kind: ContextKind| error.get(kind).map(shown).unwrap_or_default();
    let (argument, value) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
    let problem = match error.kind() {
        ErrorKind::UnknownArgument => format!("没有选项“{argument}”"),
        ErrorKind::InvalidSubcommand => format!("没有子命令“{}”", text(ContextKind::InvalidSubcommand)),
        ErrorKind::InvalidValue if value.is_empty() => format!("选项“{argument}”须有值"),
        ErrorKind::InvalidValue => match text(ContextKind::ValidValue) {
            valid if valid.is_empty() => format!("选项“{argument}”的值“{value}”无效"),
            valid => format!("选项“{argument}”的值“{value}”无效，可取：{valid}"),
        },
        ErrorKind::ValueValidation => {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("选项“{argument}”的值“{value}”无效：{}", catalogue.message(&cause))
        }
        ErrorKind::MissingRequiredArgument => format!("缺少：{argument}"),
        ErrorKind::ArgumentConflict => {
            format!("选项“{argument}”不能与“{}”一起使用", text(ContextKind::PriorArg))
        }
        ErrorKind::NoEquals => format!("选项“{argument}”的值须写在等号之后"),
        ErrorKind::TooManyValues => format!("选项“{argument}”的值太多：“{value}”"),
        _ => return None,
    };
    let mut lines = vec![format!("error: {problem}")];
    let suggestions =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    for suggestion in suggestions.into_iter().filter_map(|kind| error.get(kind)).map(shown) {
        lines.push(format!("  提示：是否想写“{suggestion}”？"));
    }
    if let Some(english) = error.get(ContextKind::Suggested).map(shown) {
        let tip = catalogue.message(&english);
        // Clap's own are English.
        if tip != english {
            lines.push(format!("  提示：{tip}"));
        }
    }
    lines.push("详见 --help。".to_owned());
    Some(lines.join("\n"))
}

fn shown(value: &ContextValue) -> String {
    match value {
        ContextValue::Strings(values) => values.join("、"),
        value => value.to_string(),
    }
}
