//! Tests models from the hub, served by a small hub on this machine.

mod common;
#[path = "../crates/model-files/tests/common/mock_hub/mod.rs"]
mod mock_hub;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{altdiffusion, golden_model};
use embedding_index::Index;
use mock_hub::{Fault, Hub, Manner, Redirect};
use serde_json::Value;
use tempfile::TempDir;
use test_support::{TestResult, copy_directory, golden};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LATER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
const CACHED: &str = "models--org--tiny";

/// A hub's content, and a user's home directory.
struct Place {
    root: TempDir,
    home: TempDir,
}

impl Place {
    /// A hub with the golden model as org/tiny.
    fn new() -> TestResult<Self> {
        let place = Self { root: tempfile::tempdir()?, home: tempfile::tempdir()? };
        let source = PathBuf::from(golden_model("alt_diffusion")?);
        for entry in walkdir::WalkDir::new(&source) {
            let entry = entry?;
            let to =
                place.root.path().join("org/tiny").join(COMMIT).join(entry.path().strip_prefix(&source)?);
            match entry.file_type().is_dir() {
                true => fs::create_dir_all(to)?,
                false => fs::copy(entry.path(), to).map(drop)?,
            }
        }
        fs::write(place.root.path().join("refs.json"), format!(r#"{{"org/tiny": {{"main": "{COMMIT}"}}}}"#))?;
        Ok(place)
    }

    fn hub(&self, manner: Manner) -> Hub {
        Hub::start(self.root.path(), manner)
    }

    /// The program in that home directory.
    fn command(&self, endpoint: &str, words: &[&str]) -> Command {
        let mut command = altdiffusion(self.home.path());
        command.args(words).env("HOME", self.home.path()).env("HF_ENDPOINT", endpoint);
        command.env_remove("XDG_CACHE_HOME");
        command
    }

    fn encode(&self, endpoint: &str) -> Command {
        self.command(endpoint, &["encode", "a cat", "--model", "org/tiny", "--output", "x.safetensors"])
    }

    fn default_cache(&self) -> PathBuf {
        self.home.path().join(".cache/huggingface/hub")
    }
}

/// Runs a program that must succeed.
fn works(command: &mut Command) -> TestResult {
    let output = command.output()?;
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn run(mut command: Command) -> TestResult<(Option<i32>, String, String)> {
    let output = command.output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

/// `hub-environment`.
#[test]
fn the_environment_of_the_hugging_face_libraries_is_honoured() -> TestResult {
    let place = Place::new()?;
    let hub = place.hub(Manner::default());
    let home = place.home.path();
    let elsewhere = tempfile::tempdir()?;
    let path = elsewhere.path().to_str().ok_or("a path")?;
    for (variable, value, cache) in [
        ("XDG_CACHE_HOME", path, elsewhere.path().join("huggingface/hub")),
        ("HF_HOME", "~/models", home.join("models/hub")),
        ("HF_HOME", "$HOME/of/$NONE", home.join("of/$NONE/hub")),
        ("HUGGINGFACE_HUB_CACHE", path, elsewhere.path().to_owned()),
        ("HF_HUB_CACHE", "${HOME}/cache", home.join("cache")),
        ("HF_HUB_CACHE", "", place.default_cache()),
    ] {
        let mut command = place.encode(&hub.endpoint());
        works(command.env(variable, value))?;
        assert!(cache.join(CACHED).is_dir(), "{variable}={value}: not in {}", cache.display());
        assert!(!home.join("~").exists(), "{variable}={value}");
        fs::remove_dir_all(cache.join(CACHED))?;
        assert!(!place.default_cache().join(CACHED).exists(), "{variable}={value}");
    }
    hub.require("Bearer hf_right");
    fs::write(home.join("of_mine"), "hf_right\n")?;
    for (variable, value) in
        [("HUGGING_FACE_HUB_TOKEN", "hf_right"), ("HF_TOKEN", "hf_right"), ("HF_TOKEN_PATH", "~/of_mine")]
    {
        works(place.encode(&hub.endpoint()).env(variable, value))?;
        fs::remove_dir_all(place.default_cache())?;
    }
    let mut command = place.encode(&hub.endpoint());
    command.env("HF_TOKEN", "hf_right").env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    let (code, _, errors) = run(command)?;
    assert!(code == Some(1) && errors.contains("HTTP 401") && !errors.contains("hf_right"), "{errors}");
    // Not even the most verbose log contains it.
    let mut command = place.encode(&hub.endpoint().replace("localhost", "me:secret@localhost"));
    let (_, _, errors) = run({
        command.env("HF_TOKEN", "hf_right").env("RUST_LOG", "trace");
        command
    })?;
    assert!(
        errors.lines().count() > 10 && !errors.contains("hf_right") && !errors.contains("secret"),
        "{errors}"
    );
    Ok(())
}

/// `hub-gone-all-cached`.
#[test]
fn what_is_cached_is_enough() -> TestResult {
    let place = Place::new()?;
    for manner in [Manner::default(), Manner { api: false, ..Manner::default() }] {
        let hub = place.hub(manner);
        let words =
            ["generate", "a cat", "--model", "org/tiny", "--steps", "1", "--width", "64", "--height", "64"];
        let (code, _, errors) = run(place.command(&hub.endpoint(), &words))?;
        assert_eq!(code, Some(0), "{errors}");
        // A port that is no longer in use.
        let gone = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (code, _, errors) = run(place.command(&format!("http://{gone}"), &words))?;
        let lines: Vec<_> = errors.lines().filter(|line| line.contains("in the cache")).collect();
        assert!(code == Some(0) && lines.len() == 1 && lines[0].contains("cannot reach the hub"), "{errors}");
        let mut offline = place.command(&format!("http://{gone}"), &words);
        offline.env("TRANSFORMERS_OFFLINE", "1");
        let (code, _, errors) = run(offline)?;
        assert!(code == Some(0) && !errors.contains("cannot reach"), "{errors}");
        fs::remove_dir_all(place.default_cache())?;
    }
    Ok(())
}

/// `hub-private-ca`.
#[test]
fn a_private_authority_is_named_by_any_of_the_usual_variables() -> TestResult {
    let place = Place::new()?;
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/model-files/tests/data/tls");
    let hub = Hub::start_encrypted(place.root.path(), Manner::default(), &tls);
    for variable in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        works(place.encode(&hub.endpoint()).env(variable, tls.join("authority.pem")))?;
        fs::remove_dir_all(place.default_cache())?;
    }
    let folder = tempfile::tempdir()?;
    fs::copy(tls.join("authority.pem"), folder.path().join("authority.pem"))?;
    works(place.encode(&hub.endpoint()).env("SSL_CERT_DIR", folder.path()))?;
    fs::remove_dir_all(place.default_cache())?;
    let (code, _, errors) = run(place.encode(&hub.endpoint()))?;
    assert!(code == Some(1) && errors.contains("SSL_CERT_FILE"), "{errors}");
    Ok(())
}

#[test]
fn models_are_downloaded_listed_and_removed() -> TestResult {
    let place = Place::new()?;
    let hub = place.hub(Manner::default());
    let (code, listed, errors) = run(place.command(&hub.endpoint(), &["models"]))?;
    assert_eq!((code, listed.as_str()), (Some(0), ""), "{errors}");
    let words = ["download", "org/tiny", "--revision", "main", "--json"];
    let (code, printed, errors) = run(place.command(&hub.endpoint(), &words))?;
    assert!(code == Some(0) && errors.starts_with("Downloading org/tiny@main: "), "{errors}");
    let report: Value = serde_json::from_str(&printed)?;
    assert_eq!(report[0]["commit"], COMMIT);
    let size = report[0]["size"].as_u64().ok_or("a size")?;
    assert!(size > 0 && report[0]["downloaded"] == size, "{report}");
    // Everything needed to draw is there.
    let words =
        ["generate", "a cat", "--model", "org/tiny", "--steps", "1", "--width", "64", "--height", "64"];
    let mut offline = place.command("http://hub.invalid", &words);
    works(offline.env("HF_HUB_OFFLINE", "1"))?;

    let (_, listed, _) = run(place.command(&hub.endpoint(), &["models"]))?;
    let columns: Vec<&str> = listed.trim_end().split('\t').collect();
    assert_eq!(columns[..3], ["org/tiny", COMMIT, &size.to_string()], "{listed}");
    assert!(columns.len() == 5 && columns[4].starts_with("20") && columns[4].ends_with('Z'), "{listed}");
    let (_, listed, _) = run(place.command(&hub.endpoint(), &["models", "--json"]))?;
    let listed: Value = serde_json::from_str(&listed)?;
    assert_eq!(listed[0]["revisions"], serde_json::json!(["main"]));

    let (code, _, errors) = run(place.command(&hub.endpoint(), &["models", "--remove", "org/tiny"]))?;
    assert!(code == Some(1) && errors.contains("--yes"), "{errors}");
    let (code, _, errors) =
        run(place.command(&hub.endpoint(), &["models", "--remove", "org/none", "--yes"]))?;
    assert!(code == Some(1) && errors.contains("org/none: no such model"), "{errors}");
    works(&mut place.command(&hub.endpoint(), &["models", "--remove", "org/tiny", "--yes"]))?;
    assert!(!place.default_cache().join(CACHED).exists());

    for (words, problem) in [
        (&["download", "org/tiny", "--revision", "v9"][..], "no such revision"),
        (&["download", "org/tiny@main", "--revision", "v9"], "--revision: org/tiny@main names one already"),
        (&["download", "org/none"], "no repository of this name"),
        (&["download", "."], "expected a repository on the hub"),
        (&["encode", "a", "--output", "x.safetensors", "--revision", "v9"], "--revision: is for a --model"),
    ] {
        let (code, _, errors) = run(place.command(&hub.endpoint(), words))?;
        assert!(code == Some(1) && errors.contains(problem), "{words:?}: {errors}");
    }
    Ok(())
}

/// Vectors are searched by the commit that made them.
#[test]
fn vectors_record_the_commit_of_their_model() -> TestResult {
    let place = Place::new()?;
    let model = place.root.path().join("org/clip").join(COMMIT);
    copy_directory(&golden("dual_encoders/clip"), &model)?;
    let refs = format!(r#"{{"org/clip": {{"main": "{COMMIT}"}}}}"#);
    fs::write(place.root.path().join("refs.json"), refs)?;
    let hub = place.hub(Manner::default());
    let file = place.home.path().join("x.safetensors");
    for name in ["org/clip", "org/clip@main"] {
        let words = ["embed", "--model", name, "--text", "a cat", "--output", "x.safetensors"];
        works(&mut place.command(&hub.endpoint(), &words))?;
        let index = Index::open(&file)?;
        let info = index.info().ok_or("no record")?;
        assert_eq!((info.model.as_str(), info.revision.as_deref()), (name, Some(COMMIT)));
        let words = ["search", "x.safetensors", "a cat"];
        let (code, _, errors) = run(place.command(&hub.endpoint(), &words))?;
        assert!(code == Some(0) && !errors.contains("was made with"), "{errors}");
    }
    // The branch goes on. The recorded commit is still searched with, and another one is named.
    copy_directory(&golden("dual_encoders/clip"), &place.root.path().join("org/clip").join(LATER_COMMIT))?;
    let refs = format!(r#"{{"org/clip": {{"main": "{LATER_COMMIT}"}}}}"#);
    fs::write(place.root.path().join("refs.json"), refs)?;
    let hub = place.hub(Manner::default());
    for (words, is_other) in [(&[][..], false), (&["--model", "org/clip"], true)] {
        let words = [&["search", "x.safetensors", "a cat"], words].concat();
        let (code, _, errors) = run(place.command(&hub.endpoint(), &words))?;
        let warning = format!("was made with org/clip@main at {COMMIT}");
        assert!(code == Some(0) && errors.contains(&warning) == is_other, "{words:?}: {errors}");
    }
    Ok(())
}

#[test]
fn defaults_come_from_a_file_and_the_environment() -> TestResult {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("config.toml");
    let model = golden_model("alt_diffusion")?;
    let run_with = |text: &str, variables: &[(&str, &str)], words: &[&str]| -> TestResult<_> {
        fs::write(&file, text)?;
        let mut command = altdiffusion(directory.path());
        command.args(words).env("ALTDIFFUSION_CONFIG", &file).envs(variables.iter().copied());
        run(command)
    };
    let encode = ["encode", "a cat"];
    let text = format!("model = '{model}'\n[encode]\noutput = \"from-file.safetensors\"");
    let (code, printed, errors) = run_with(&text, &[], &encode)?;
    assert!(code == Some(0) && printed.contains("from-file.safetensors"), "{errors}");
    // The command line overrides the environment, which overrides the file.
    let (code, printed, errors) =
        run_with(&text, &[], &["encode", "a cat", "--output", "typed.safetensors"])?;
    assert!(code == Some(0) && printed.contains("typed.safetensors"), "{errors}");
    let (_, _, errors) = run_with(&text, &[("ALTDIFFUSION_MODEL", "./none")], &encode)?;
    assert!(errors.contains("./none"), "{errors}");
    let (code, _, errors) =
        run_with(&text, &[("ALTDIFFUSION_MODEL", "./none")], &["encode", "a cat", "--model", &model])?;
    assert_eq!(code, Some(0), "{errors}");
    // An image records everything it was drawn with: defaults do not interfere.
    let drawn = ["generate", "a cat", "--steps", "1", "--seed", "3", "--output", "first.png"];
    let (code, _, errors) = run_with("", &[], &drawn)?;
    assert_eq!(code, Some(0), "{errors}");
    let again = ["generate", "--like", "first.png", "--output", "again.png"];
    let (code, _, errors) = run_with(
        "[generate]\nsteps = 2\nguidance-scale = 3.5\nlora = \"none.safetensors\"",
        &[("ALTDIFFUSION_MODEL", "./none")],
        &again,
    )?;
    assert_eq!(code, Some(0), "{errors}");
    let pixels = |name: &str| image::open(directory.path().join(name));
    assert_eq!(pixels("first.png")?, pixels("again.png")?);

    let name = file.to_str().ok_or("a path")?;
    for (text, problem) in [
        ("modle = 'x'", "modle: there is no option --modle, did you mean model?"),
        ("[encode]\ndtype = 'f8'", "dtype in [encode]: invalid value 'f8'"),
        ("[encode", "line 1"),
    ] {
        let (code, _, errors) = run_with(text, &[], &encode)?;
        assert!(code == Some(1) && errors.contains(name) && errors.contains(problem), "{errors}");
    }
    for words in [&["--help"][..], &["--version"]] {
        let (code, printed, _) = run_with("", &[], words)?;
        assert!(code == Some(0) && printed.contains(name), "{printed}");
    }
    Ok(())
}

/// Not to the host that files are stored at, and not into messages and logs of any detail: when all is well, when the
/// hub refuses, when it breaks down, and when it redirects for ever. A proxy is asked for tunnels without it.
#[test]
fn the_token_is_sent_to_the_hub_and_nowhere_else() -> TestResult {
    let place = Place::new()?;
    let hub = place.hub(Manner { redirect: Redirect::OtherHost, ..Manner::default() });
    let faults: [(&str, Redirect, &[Fault]); 4] = [
        ("Bearer hf_secret", Redirect::OtherHost, &[]),
        ("Bearer hf_another", Redirect::OtherHost, &[]),
        ("Bearer hf_secret", Redirect::Loop, &[]),
        ("Bearer hf_secret", Redirect::OtherHost, &[Fault::Status(403, None); 30]),
    ];
    for (required, redirect, faults) in faults {
        hub.set_manner(Manner { redirect, ..Manner::default() });
        hub.require(required);
        hub.fail(faults);
        let _ = fs::remove_dir_all(place.default_cache());
        let mut command = place.encode(&hub.endpoint());
        command.env("HF_TOKEN", "hf_secret").env("RUST_LOG", "trace").arg("--verbose");
        let (code, output, messages) = run(command)?;
        let is_well = required.ends_with("secret") && redirect == Redirect::OtherHost && faults.is_empty();
        assert_eq!(code == Some(0), is_well, "{messages}");
        let shown = format!("{output}{messages}");
        let found: Vec<&str> = shown
            .lines()
            .filter(|line| line.contains("hf_sec") || line.contains("ureq_proto::util"))
            .collect();
        assert!(messages.contains("TRACE") && found.is_empty(), "{found:?}");
    }
    let (hubs, others): (Vec<_>, Vec<_>) = hub
        .requests()
        .into_iter()
        .partition(|request| request.header("host").is_some_and(|host| host.starts_with("localhost")));
    assert!(hubs.iter().all(|request| request.header("authorization") == Some("Bearer hf_secret")));
    assert!(!others.is_empty() && !format!("{others:?}").contains("hf_secret"), "{others:?}");
    Ok(())
}
