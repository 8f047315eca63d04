//! Expands numbered file names.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Expands `name-{000..012}.tar` to `name-000.tar` up to `name-012.tar`, as in bash. Without a range, or if a file of
/// exactly this name exists, it is that file.
///
/// # Errors
/// If the braces do not hold a range of numbers, or a file is missing.
pub(super) fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    let text = path.to_str().filter(|_| !path.exists());
    let Some((before, rest)) = text.and_then(|text| text.split_once('{')) else {
        return Ok(vec![path.to_owned()]);
    };
    let bounds = rest.split_once('}').and_then(|(range, after)| Some((range.split_once("..")?, after)));
    let range = bounds.and_then(|((first, last), after)| {
        let (from, to) = (number(first)?, number(last)?);
        (from <= to).then(|| (from..=to, width(first, last), after))
    });
    let Some((numbers, width, after)) = range else {
        return Err(Error::format(path, "expected a range such as {000..012} in the braces"));
    };
    let file = |number: u32| {
        let file = PathBuf::from(format!("{before}{number:0width$}{after}"));
        // Each file is checked before the next, so that no range is too long.
        std::fs::metadata(&file).map_err(Error::io(&file))?;
        Ok(file)
    };
    numbers.map(file).collect()
}

fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The width to pad numbers to, if one of the bounds has a leading zero.
fn width(first: &str, last: &str) -> usize {
    let is_filled = [first, last].iter().any(|bound| bound.len() > 1 && bound.starts_with('0'));
    if is_filled { first.len().max(last.len()) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stand_for_their_files() -> Result<()> {
        let folder = tempfile::tempdir().map_err(Error::io("."))?;
        let names = ["a-08.tar", "a-09.tar", "a-10.tar", "b9.tar", "b10.tar", "c{1..2}.tar"];
        for name in names {
            std::fs::write(folder.path().join(name), "").map_err(Error::io(name))?;
        }
        let expanded = |name: &str| -> Result<Vec<String>> {
            let files = expand(&folder.path().join(name))?;
            Ok(files.iter().filter_map(|file| Some(file.file_name()?.to_str()?.to_owned())).collect())
        };
        assert_eq!(expanded("a-{08..10}.tar")?, names[..3]);
        assert_eq!(expanded("b{9..10}.tar")?, names[3..5]);
        assert_eq!(expanded("c{1..2}.tar")?, names[5..]);
        assert_eq!(expanded("none.tar")?, ["none.tar"]);
        let error = |name: &str| expanded(name).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(
            error("a-{08..4000000000}.tar").contains("a-0000000008.tar: "),
            "{}",
            error("a-{08..4000000000}.tar")
        );
        for name in
            ["a-{10..08}.tar", "a-{x..y}.tar", "a-{08}.tar", "a-{08..10.tar", "a-{+8..10}.tar", "a-{..}.tar"]
        {
            assert!(error(name).ends_with("expected a range such as {000..012} in the braces"), "{name}");
        }
        Ok(())
    }
}
