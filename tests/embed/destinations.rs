//! Writes to directories, and to databases that refuse.

use std::fs;
use std::net::TcpListener;

use tempfile::TempDir;

use crate::common::succeeded;
use crate::{embed, failure, names_in};
use test_support::TestResult;

#[test]
fn a_directory_has_the_file_of_the_same_run() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    let texts = ["--text", "一只猫", "--text", "a red apple"];
    succeeded(&embed(root, &[&texts[..], &["--output", "one.parquet"]].concat())?);
    let arguments = [&texts[..], &["--output", "vectors/"]].concat();
    assert_eq!(succeeded(&embed(root, &arguments)?), "vectors/: 2 texts\n");
    assert_eq!(names_in(root)?, ["one.parquet", "vectors"]);
    let part = root.join("vectors/part-00000.parquet");
    assert!(fs::read(&part)? == fs::read(root.join("one.parquet"))?);

    // Another run replaces it, and nothing that is not of such a run.
    succeeded(&embed(root, &["--text", "a dog", "--output", "vectors/"])?);
    let dog = fs::read(&part)?;
    assert!(dog != fs::read(root.join("one.parquet"))?);
    fs::write(root.join("vectors/notes.txt"), "mine")?;
    let error = failure(root, &arguments)?;
    assert!(error.contains("vectors/: expected a new directory, or one with nothing but"), "{error}");
    assert!(error.ends_with("in it, found notes.txt\n"), "{error}");
    assert!(fs::read(&part)? == dog);
    assert_eq!(names_in(&root.join("vectors"))?, ["notes.txt", "part-00000.parquet"]);
    let error = failure(root, &["--text", "a", "--output", "missing/vectors/"])?;
    assert!(error.contains("--output missing/vectors/: cannot be written to missing"), "{error}");
    Ok(())
}

/// Without a server: `scripts/test-databases.sh` has one.
#[test]
fn databases_that_cannot_be_are_one_line_without_the_password() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    fs::write(root.join("t.csv"), "id,text\n1,a\n")?;
    // A port that nobody listens on, because it was just free.
    let free = TcpListener::bind("127.0.0.1:0")?;
    let place = format!("127.0.0.1:{}", free.local_addr()?.port());
    drop(free);
    let url = format!("postgres://ann:secret@{place}/photos");
    let unreachable = format!("--output table embeddings of photos at {place}: error connecting to server: ");
    let named = format!("--output table search.Texts of photos at {place}: ");
    let cases: [(&[&str], &str); 8] = [
        (&["--output", &url], &unreachable),
        (&["--output", &url, "--table", "search.Texts"], &named),
        (&["--output", &url, "--table", "a.b.c"], "--table: expected the name of a table"),
        (&["--output", "postgres://ann:secret@x@db/photos"], "--output: expected a URL such as"),
        (
            &["--output", "mysql://ann:secret@db/photos"],
            "--output: expected a path, or a URL that begins with",
        ),
        (&["--output", "a.npy", "--table", "t"], "--table: expected a database as --output, found a.npy"),
        (&["--output", "a.npy", "--key-column", "id"], "--key-column: expected a database as --output"),
        (&["--output", "a/b", "--table", "t"], "--table: expected a database as --output, found a/b"),
    ];
    for (arguments, expected) in cases {
        let error = failure(root, &[&["--texts", "t.csv"], arguments].concat())?;
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(!error.contains("secret"), "{arguments:?}: {error}");
    }
    assert_eq!(names_in(root)?, ["t.csv"]);
    Ok(())
}
