//! Provides class names and templates for zero-shot classification.

use std::path::Path;

use embedding_index::readers::files::files_in;

use crate::error::{Error, Result};

/// CIFAR-10's classes: their folders' names, and in Chinese.
const CIFAR10: [(&str, &str); 10] = [
    ("airplane", "飞机"),
    ("automobile", "汽车"),
    ("bird", "鸟"),
    ("cat", "猫"),
    ("deer", "鹿"),
    ("dog", "狗"),
    ("frog", "青蛙"),
    ("horse", "马"),
    ("ship", "船"),
    ("truck", "卡车"),
];

/// CLIP's templates for CIFAR-10 (Radford et al. 2021, <https://github.com/openai/CLIP/blob/main/data/prompts.md>).
const ENGLISH: [&str; 18] = [
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a black and white photo of a {}.",
    "a low contrast photo of a {}.",
    "a high contrast photo of a {}.",
    "a bad photo of a {}.",
    "a good photo of a {}.",
    "a photo of a small {}.",
    "a photo of a big {}.",
    "a photo of the {}.",
    "a blurry photo of the {}.",
    "a black and white photo of the {}.",
    "a low contrast photo of the {}.",
    "a high contrast photo of the {}.",
    "a bad photo of the {}.",
    "a good photo of the {}.",
    "a photo of the small {}.",
    "a photo of the big {}.",
];

/// Chinese versions; Chinese has no articles.
const CHINESE: [&str; 9] = [
    "一张{}的照片。",
    "一张模糊的{}的照片。",
    "一张{}的黑白照片。",
    "一张对比度低的{}的照片。",
    "一张对比度高的{}的照片。",
    "一张拍得不好的{}的照片。",
    "一张拍得很好的{}的照片。",
    "一张小{}的照片。",
    "一张大{}的照片。",
];

/// Classes, with their folders and their names in texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// By index.
    pub folders: Vec<String>,
    /// By index.
    pub names: Vec<String>,
}

/// The classes of a built-in data set: `cifar10`, in `en` or `zh`.
pub fn built_in_classes(data_set: &str, language: &str) -> Option<Classes> {
    let name: fn(&(&'static str, &'static str)) -> &'static str = match (data_set, language) {
        ("cifar10", "en") => |class| class.0,
        ("cifar10", "zh") => |class| class.1,
        _ => return None,
    };
    Some(Classes {
        folders: CIFAR10.iter().map(|class| class.0.to_owned()).collect(),
        names: CIFAR10.iter().map(|class| name(class).to_owned()).collect(),
    })
}

/// Built-in templates, in `en` or `zh`.
pub fn built_in_templates(language: &str) -> Option<Vec<String>> {
    let templates: &[&str] = match language {
        "en" => &ENGLISH,
        "zh" => &CHINESE,
        _ => return None,
    };
    Some(templates.iter().map(|template| (*template).to_owned()).collect())
}

impl Classes {
    /// Finds a class per subfolder of a folder, called like it, with spaces for underscores. Hidden ones are no classes.
    ///
    /// # Errors
    /// If the folder cannot be read, has no subfolder, or one whose name is not UTF-8.
    pub fn of_subfolders(folder: &Path) -> Result<Self> {
        let expected = |what: &str| {
            Error::Setting(format!(
                "{}: expected a folder with a subfolder for each class, found {what}",
                folder.display()
            ))
        };
        let mut folders = Vec::new();
        for path in files_in(folder)?.into_iter().filter(|path| path.is_dir()) {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| expected("a name that is not UTF-8"))?;
            if !name.starts_with('.') {
                folders.push(name.to_owned());
            }
        }
        if folders.is_empty() {
            return Err(expected("none"));
        }
        let names = folders.iter().map(|folder| folder.replace('_', " ")).collect();
        Ok(Self { folders, names })
    }

    /// Reads a class per line: its folder, a tab and its name, or a single name for both. `file` is used in errors.
    ///
    /// # Errors
    /// If there are no classes, or two with the same folder.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
        let (folders, names): (Vec<String>, Vec<String>) = lines
            .map(|line| line.split_once('\t').unwrap_or((line, line)))
            .map(|(folder, name)| (folder.trim().to_owned(), name.trim().to_owned()))
            .unzip();
        let twice = folders
            .iter()
            .enumerate()
            .find(|(place, folder)| folders.iter().take(*place).any(|f| f == *folder));
        let problem = match twice {
            Some((_, folder)) => format!("expected each class once, found {folder} twice"),
            None if folders.is_empty() => "expected a class on each line, found none".to_owned(),
            None => return Ok(Self { folders, names }),
        };
        Err(Error::Setting(format!("{}: {problem}", file.display())))
    }
}

#[cfg(test)]
mod tests {
    use altclip_encoder::embedder::LABEL_PLACE;

    use super::*;

    #[test]
    fn every_template_has_one_place() {
        for template in ENGLISH.iter().chain(&CHINESE) {
            assert_eq!(template.matches(LABEL_PLACE).count(), 1, "{template}");
        }
    }

    #[test]
    fn subfolders_are_classes() -> test_support::TestResult {
        let folder = tempfile::tempdir()?;
        let message = |error: Option<Error>| error.map(|error| error.to_string()).unwrap_or_default();
        let none = message(Classes::of_subfolders(folder.path()).err());
        assert!(none.ends_with("expected a folder with a subfolder for each class, found none"), "{none}");
        for name in ["fire_truck", "ant", ".cache"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        std::fs::write(folder.path().join("classes.txt"), "")?;
        let classes = Classes::of_subfolders(folder.path())?;
        assert_eq!(
            (classes.folders, classes.names),
            (
                vec!["ant".to_owned(), "fire_truck".to_owned()],
                vec!["ant".to_owned(), "fire truck".to_owned()],
            )
        );
        Ok(())
    }

    #[test]
    fn classes_are_read_from_lines() -> Result<()> {
        let classes = Classes::parse("cat\t猫\n\n dog \n", Path::new("classes.txt"))?;
        assert_eq!(
            (classes.folders, classes.names),
            (vec!["cat".into(), "dog".into()], vec!["猫".into(), "dog".into()])
        );
        assert!(
            Classes::parse("\n", Path::new("x")).is_err() && Classes::parse("a\na", Path::new("x")).is_err()
        );
        Ok(())
    }
}
