//! Measures how long a library searches, exactly and approximately, and how many of the ten best the approximate search
//! finds.
//!
//! ```sh
//! cargo run --release -p embedding-index --example library_latency -- 100000 768 [FOLDER]
//! ```
//!
//! In the folder it leaves what `scripts/measure-index.py` needs to search the same with another library: `vectors.f16`
//! and `queries.f32`, row by row, and `measured.json`, with the times and the ten best of each query.
//!
//! The vectors are a mixture of groups in 64 dimensions, mapped to the width and moved away from the origin, as the vectors
//! of CLIP models are. Queries are others of the same kind.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use altclip_encoder::embedder::Embedder;
use candle_core::{DType, Device, Tensor};
use embedding_index::library::{ImageLibrary, LibrarySearch, MadeWith, Precision};
use half::f16;
use model_files::Temporary;
use rusqlite::{Connection, params};
use serde_json::json;

/// Dimensions in which the vectors differ.
const DIMENSIONS: usize = 64;
const GROUPS: usize = 2000;
const BATCH: usize = 10_000;
const QUERIES: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().ok_or("expected the number of vectors")?.parse()?;
    let width: usize = arguments.next().unwrap_or_else(|| "768".to_owned()).parse()?;
    let kept = arguments.next().map(PathBuf::from);
    let folder = Temporary::folder(&std::env::temp_dir())?;
    let file = folder.path().join("index.db");
    let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji").display().to_string();
    let embedder = Embedder::from_pretrained(&emoji, DType::F32, &Device::Cpu)?;
    drop(ImageLibrary::create(&file, MadeWith::new(&embedder, emoji, None, Precision::F16)?)?);

    let mut vectors = Vectors::new(width)?;
    fill(&file, &mut vectors, count, width, kept.as_deref())?;
    let images = folder.path().join("images");
    std::fs::create_dir(&images)?;
    let begun = Instant::now();
    let mut library = ImageLibrary::open_to_change(&file)?;
    let plan = library.plan(&[images])?;
    library.apply(plan, None, &mut ())?;
    let sorting = begun.elapsed();
    drop(library);

    let library = ImageLibrary::open(&file)?;
    let status = library.status()?;
    println!(
        "{count} vectors of {width}: {} bytes, {} cells, sorted in {sorting:.1?}",
        status.bytes, status.cells
    );
    let queries = vectors.next(QUERIES)?;
    let (mut found, mut measured) = (Vec::new(), Vec::new());
    for exact in [true, false] {
        let search = LibrarySearch { exact, ..LibrarySearch::default() };
        library.search(&queries[0], &search)?;
        let mut times = Vec::new();
        let mut paths: Vec<Vec<String>> = Vec::new();
        for query in &queries {
            let begun = Instant::now();
            let hits = library.search(query, &search)?;
            times.push(begun.elapsed());
            paths.push(hits.into_iter().map(|hit| hit.image.path).collect());
        }
        times.sort();
        let name = if exact { "exact" } else { "approximate" };
        let (middle, slow) = (times[QUERIES / 2], times[QUERIES * 99 / 100]);
        println!("{name}: p50 {middle:.1?}, p99 {slow:.1?}");
        measured.push(json!({ "search": name, "p50": milliseconds(middle), "p99": milliseconds(slow) }));
        found.push(paths);
    }
    let (total, both) = found[0].iter().zip(&found[1]).fold((0, 0), |(total, both), (exact, approximate)| {
        (total + exact.len(), both + exact.iter().filter(|path| approximate.contains(path)).count())
    });
    let recall = both as f64 / total as f64;
    println!("recall at 10: {recall:.4}");
    if let Some(kept) = kept {
        let values = queries.iter().flatten().flat_map(|x| x.to_le_bytes());
        std::fs::write(kept.join("queries.f32"), values.collect::<Vec<u8>>())?;
        let result = json!({
            "bytes": status.bytes, "cells": status.cells, "sorting": sorting.as_secs_f64(),
            "searches": measured, "recall": recall, "exact": found[0],
        });
        std::fs::write(kept.join("measured.json"), result.to_string())?;
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.
}

/// Adds files that are not there, with these vectors, which are copied to the other folder too.
fn fill(
    file: &Path,
    vectors: &mut Vectors,
    count: usize,
    width: usize,
    kept: Option<&Path>,
) -> Result<(), Box<dyn Error>> {
    let copy = kept.map(|folder| File::create(folder.join("vectors.f16"))).transpose()?;
    let mut copy = copy.map(BufWriter::new);
    let mut connection = Connection::open(file)?;
    connection.execute("UPDATE model SET width = ?1", [width])?;
    for first in (0..count).step_by(BATCH) {
        let transaction = connection.transaction()?;
        {
            let mut content = transaction.prepare(
                "INSERT INTO contents (id, hash, cell, width, height) VALUES (?1, ?2, 0, 640, 480)",
            )?;
            let mut path = transaction.prepare(
                "INSERT INTO files (path, size, modified, content) VALUES (?1, 100000, 1700000000000000000, ?2)",
            )?;
            let mut place = transaction.prepare("INSERT INTO vectors (place, vector) VALUES (?1, ?2)")?;
            for (id, vector) in (first + 1..).zip(vectors.next(BATCH.min(count - first))?) {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&(id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
                let bytes: Vec<u8> = vector.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
                if let Some(copy) = &mut copy {
                    copy.write_all(&bytes)?;
                }
                content.execute(params![id, hash])?;
                path.execute(params![format!("/measured/{id}.jpg"), id])?;
                place.execute(params![id, bytes])?;
            }
        }
        transaction.commit()?;
    }
    if let Some(mut copy) = copy {
        copy.flush()?;
    }
    Ok(())
}

/// A source of vectors of length 1.
struct Vectors {
    seed: u64,
    groups: Vec<[f32; DIMENSIONS]>,
    map: Tensor,
    offset: Tensor,
}

impl Vectors {
    fn new(width: usize) -> candle_core::Result<Self> {
        let mut vectors = Self {
            seed: 1,
            groups: Vec::new(),
            map: Tensor::zeros((DIMENSIONS, width), DType::F32, &Device::Cpu)?,
            offset: Tensor::zeros((1, width), DType::F32, &Device::Cpu)?,
        };
        vectors.groups = (0..GROUPS).map(|_| std::array::from_fn(|_| vectors.normal())).collect();
        let map: Vec<f32> = (0..DIMENSIONS * width).map(|_| vectors.normal()).collect();
        vectors.map = Tensor::from_vec(map, (DIMENSIONS, width), &Device::Cpu)?;
        let offset: Vec<f32> = (0..width).map(|_| 8. * vectors.normal()).collect();
        vectors.offset = Tensor::from_vec(offset, (1, width), &Device::Cpu)?;
        Ok(vectors)
    }

    fn next(&mut self, count: usize) -> candle_core::Result<Vec<Vec<f32>>> {
        let mut positions = Vec::with_capacity(count * DIMENSIONS);
        for _ in 0..count {
            let group = self.uniform() as usize % GROUPS;
            let group = self.groups[group];
            positions.extend(group.map(|center| center + 0.6 * self.normal()));
        }
        let positions = Tensor::from_vec(positions, (count, DIMENSIONS), &Device::Cpu)?;
        let vectors = positions.matmul(&self.map)?.broadcast_add(&self.offset)?;
        let lengths = vectors.sqr()?.sum_keepdim(1)?.sqrt()?;
        vectors.broadcast_div(&lengths)?.to_vec2()
    }

    fn uniform(&mut self) -> u32 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as u32
    }

    /// About normally distributed.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform() as f32 / (1_u32 << 31) as f32).sum::<f32>() - 6.
    }
}
