//! Checks and builds the names of repositories, revisions and folders.

use std::path::{Component, Path};

use crate::relative_path::check_relative;

/// The prefix of models' folders.
pub(super) const FOLDER_PREFIX: &str = "models--";
/// Digits in a commit.
const COMMIT_DIGITS: usize = 40;

/// Whether `id` has the form `organisation/name`.
pub(super) fn is_repository_id(id: &str) -> bool {
    let is_part = |part: &str| {
        !part.starts_with('.')
            && !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    id.split_once('/').is_some_and(|(organisation, name)| is_part(organisation) && is_part(name))
}

/// Whether git allows this as a branch, a tag, a commit or its prefix, or a pull request such as `refs/pr/1`.
pub(super) fn is_revision(revision: &str) -> bool {
    check_relative(revision).is_ok()
        && !revision.contains(|c: char| c.is_control() || " ~^:?*[\\".contains(c))
        && !revision.contains("..")
        && !revision.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock"))
}

/// Whether a revision is a full commit, which never changes.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == COMMIT_DIGITS && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The folder of the repository `id` in a cache.
pub(super) fn folder_name(id: &str) -> String {
    format!("{FOLDER_PREFIX}{}", id.replace('/', "--"))
}

/// Whether an untrusted name can be part of a path in the cache.
pub(super) fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    check_relative(name).is_ok() && matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_an_organisation_and_a_name() {
        for good in ["BAAI/AltDiffusion-m9", "a/b", "a_b/c.d"] {
            assert!(is_repository_id(good), "{good}");
        }
        for bad in ["", "model", "/model", "org/", "a/b/c", "./a", "../a", "a/..", "org/na me", "C:/x"] {
            assert!(!is_repository_id(bad), "{bad}");
        }
        for good in ["main", "v1.0", "v1.0+cu128", "refs/pr/1", "0123abcd", "release/2.0", "版本"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in ["", "../main", "/main", "a?b", "a b", "a..b", "a/.b", "a.lock", "a\nb"] {
            assert!(!is_revision(bad), "{bad}");
        }
    }

    #[test]
    fn names_are_one_step_of_a_path() {
        for good in ["c0ffee", "0123", "a.b-c"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "..", ".", "a/b", "/a", "a\\b", "C:"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
