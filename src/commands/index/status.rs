//! `altdiffusion index status`: says what an index holds.

use anyhow::Result;
use clap::Args;
use indicatif::DecimalBytes;
use serde_json::json;

use super::database::DatabaseArgs;
use crate::language::translated_heading;
use crate::standard_streams::{is_for_people, print_json, print_table};

/// Show what an index holds: its model, its folders, counts and sizes.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON: an object with database, model, revision, background, width, precision, folders, images, vectors,
    /// unreadable, cells and bytes.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub fn run(self) -> Result<()> {
        let library = self.database.open()?;
        let (made_with, status) = (library.made_with(), library.status()?);
        let database = library.file().display().to_string();
        if self.json {
            return print_json(&json!({
                "database": database,
                "model": made_with.model,
                "revision": made_with.revision,
                "background": made_with.background,
                "width": made_with.width,
                "precision": made_with.precision.to_string(),
                "folders": status.folders,
                "images": status.images,
                "vectors": status.vectors,
                "unreadable": status.unreadable,
                "cells": status.cells,
                "bytes": status.bytes,
            }));
        }
        let revision = made_with.revision.clone().unwrap_or_else(|| "-".to_owned());
        let vectors = format!("{} × {} {}", status.vectors, made_with.width, made_with.precision);
        let mut rows = vec![
            ("database", database),
            ("size", DecimalBytes(status.bytes).to_string()),
            ("model", made_with.model.clone()),
            ("revision", revision),
            ("images", status.images.to_string()),
            ("unreadable", status.unreadable.to_string()),
            ("vectors", vectors),
            ("cells", status.cells.to_string()),
        ];
        rows.extend(status.folders.into_iter().map(|folder| ("folder", folder)));
        let name = |name: &str| if is_for_people() { translated_heading(name) } else { name.to_owned() };
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(field, value)| vec![name(field), value]).collect();
        print_table(&["name", "value"], &rows, 0..0)
    }
}
