//! Reads the options from the environment, like huggingface_hub.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::options::HubOptions;
use super::proxy::Proxies;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// The variables for certificates of OpenSSL, requests and curl.
const CERTIFICATE_VARIABLES: [&str; 4] =
    ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

impl HubOptions {
    /// Reads the options from the environment variables that all Hugging Face libraries share, with their meaning in
    /// huggingface_hub:
    ///
    /// * `HF_ENDPOINT`;
    /// * `HF_HUB_CACHE` (or `HUGGINGFACE_HUB_CACHE`), by default `hub` in `HF_HOME`, which is by default
    ///   `huggingface` in `XDG_CACHE_HOME`, by default `~/.cache`; with `~` and `$VARIABLES`;
    /// * `HF_TOKEN` (or `HUGGING_FACE_HUB_TOKEN`), by default what `hf auth login` stored in `HF_TOKEN_PATH`, by
    ///   default `token` in `HF_HOME`; neither with `HF_HUB_DISABLE_IMPLICIT_TOKEN`;
    /// * `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`), `HF_HUB_DISABLE_PROGRESS_BARS`, `HF_HUB_DISABLE_SYMLINKS`,
    ///   `HF_HUB_ETAG_TIMEOUT` and `HF_HUB_DOWNLOAD_TIMEOUT` in seconds;
    ///
    /// and the network's: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, in lower case too; and
    /// `SSL_CERT_FILE`, `SSL_CERT_DIR`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, whose certificates replace the
    /// system's.
    pub fn from_env() -> Self {
        Self::from_variables(&|name| std::env::var(name).ok(), &std::env::home_dir().unwrap_or_default())
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>, user_home: &Path) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let first = |names: &[&str]| names.iter().find_map(|name| given(name));
        let is_set = |names: &[&str]| first(names).is_some_and(|value| is_true(&value));
        let path = |text: String| PathBuf::from(expand(&text, variable, user_home));

        let home = given("HF_HOME").map(path).unwrap_or_else(|| {
            let caches = given("XDG_CACHE_HOME").map(path).unwrap_or_else(|| user_home.join(".cache"));
            caches.join("huggingface")
        });
        let cache =
            first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map(path).unwrap_or_else(|| home.join("hub"));
        let token = || {
            let file = given("HF_TOKEN_PATH").map(path).unwrap_or_else(|| home.join("token"));
            first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| stored_token(&file))
        };
        let token = if is_set(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) { None } else { token() };

        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let mut options = Self::new(endpoint.trim(), cache);
        options.token = token
            .map(|token| token.replace(['\r', '\n'], "").trim().to_owned())
            .filter(|token| !token.is_empty());
        options.offline = is_set(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]);
        options.progress = !is_set(&["HF_HUB_DISABLE_PROGRESS_BARS"]);
        options.symlinks = !is_set(&["HF_HUB_DISABLE_SYMLINKS"]);
        let seconds = |name: &str, default: Duration| match given(name) {
            None => default,
            Some(text) => match text.trim().parse::<u32>() {
                // As in huggingface_hub, zero means the default.
                Ok(0) => default,
                Ok(seconds) => Duration::from_secs(seconds.into()),
                Err(_) => {
                    tracing::warn!("{name}: expected seconds as a whole number, found {text:?}");
                    default
                }
            },
        };
        options.metadata_timeout = seconds("HF_HUB_ETAG_TIMEOUT", options.metadata_timeout);
        options.download_timeout = seconds("HF_HUB_DOWNLOAD_TIMEOUT", options.download_timeout);
        options.proxies = Proxies::from_variables(variable);
        options.authorities = CERTIFICATE_VARIABLES
            .iter()
            .filter_map(|name| given(name))
            .flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        options
    }
}

/// The token in a file; editors on Windows may write a byte order mark before it.
fn stored_token(file: &Path) -> Option<String> {
    match std::fs::read_to_string(file) {
        Ok(token) => Some(token.trim_start_matches('\u{feff}').to_owned()),
        Err(missing) if matches!(missing.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
        Err(error) => {
            tracing::warn!("{}: the token in it cannot be read: {error}", file.display());
            None
        }
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_lowercase().as_str())
}

/// Expands a leading `~`, and `$NAME` and `${NAME}` for existing variables, like Python's `expanduser` and
/// `expandvars`.
fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>, user_home: &Path) -> String {
    let text = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with(['/', std::path::MAIN_SEPARATOR]) => {
            format!("{}{rest}", user_home.display())
        }
        _ => text.to_owned(),
    };
    let (mut expanded, mut rest) = (String::new(), text.as_str());
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, next) = braced.unwrap_or_else(|| {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            after.split_at(end)
        });
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => {
                expanded.push_str(&value);
                rest = next;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> HubOptions {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        HubOptions::from_variables(&variable, Path::new("/home/me"))
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_looks() {
        for (variables, cache) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/caches")], "/caches/huggingface/hub"),
            (&[("HF_HOME", "~/models"), ("XDG_CACHE_HOME", "/caches")], "/home/me/models/hub"),
            (&[("HF_HOME", "~")], "/home/me/hub"),
            (&[("HF_HOME", "$DISK/hf"), ("DISK", "/mnt")], "/mnt/hf/hub"),
            (&[("HF_HOME", "/${DISK}s/$NONE/a$"), ("DISK", "disk")], "/disks/$NONE/a$/hub"),
            (&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HUB_CACHE", "~/new"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/home/me/new"),
            (&[("HF_HUB_CACHE", " ")], "/home/me/.cache/huggingface/hub"),
        ] {
            assert_eq!(options(variables).cache, Path::new(cache), "{variables:?}");
        }
    }

    #[test]
    fn the_token_is_what_huggingface_hub_sends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "hf_file\n").unwrap();
        // As Notepad and Windows PowerShell write them.
        let (marked, wide) = (folder.path().join("marked"), folder.path().join("wide"));
        std::fs::write(&marked, "\u{feff}hf_marked\r\n").unwrap();
        std::fs::write(&wide, b"\xff\xfeh\0f\0").unwrap();
        let (home, file) = (folder.path().to_str().unwrap(), file.to_str().unwrap());
        let (marked, wide) = (marked.to_str().unwrap(), wide.to_str().unwrap());
        for (variables, token) in [
            (&[("HF_HOME", home)][..], Some("hf_file")),
            (&[("HF_TOKEN_PATH", file)], Some("hf_file")),
            (&[("HF_TOKEN", "hf_new\r\n"), ("HUGGING_FACE_HUB_TOKEN", "hf_old")], Some("hf_new")),
            (&[("HF_TOKEN", ""), ("HUGGING_FACE_HUB_TOKEN", "hf_old")], Some("hf_old")),
            (&[("HF_TOKEN", "hf_new"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None),
            (&[("HF_HOME", "/none")], None),
            (&[("HF_TOKEN_PATH", marked)], Some("hf_marked")),
            (&[("HF_TOKEN_PATH", wide)], None),
        ] {
            assert_eq!(options(variables).token.as_deref(), token, "{variables:?}");
        }
    }

    #[test]
    fn spaces_around_urls_are_no_part_of_them() {
        // `set HF_ENDPOINT=https://hub.example && altdiffusion` has one on Windows.
        let options =
            options(&[("HF_ENDPOINT", "https://hub.example "), ("HTTPS_PROXY", "http://proxy:3128 ")]);
        assert_eq!(options.endpoint, "https://hub.example");
        assert_eq!(options.proxies.https.as_deref(), Some("http://proxy:3128"));
    }

    #[test]
    fn switches_and_limits_are_read() {
        assert!(options(&[("TRANSFORMERS_OFFLINE", "yes")]).offline);
        assert!(!options(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!options(&[("HF_HUB_DISABLE_PROGRESS_BARS", "ON")]).progress);
        let limits = options(&[("HF_HUB_ETAG_TIMEOUT", "3"), ("HF_HUB_DOWNLOAD_TIMEOUT", "x")]);
        assert_eq!(limits.metadata_timeout, Duration::from_secs(3));
        assert_eq!(limits.download_timeout, Duration::from_secs(10));
        let authorities =
            options(&[("SSL_CERT_FILE", "/a.pem"), ("REQUESTS_CA_BUNDLE", "/b.pem")]).authorities;
        assert_eq!(authorities, [Path::new("/a.pem"), Path::new("/b.pem")]);
    }
}
