//! Embeds a column of Arrow record batches, including nulls: no text is copied, and each vector is written directly
//! into Arrow's buffer.
//!
//! ```sh
//! cargo run --release --example arrow_batches
//! cargo run --release --example arrow_batches -- BAAI/AltCLIP
//! ```

use std::sync::Arc;

use altclip_encoder::{Embedder, RowOutcome};
use anyhow::{Context, Result};
use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use candle_core::{DType, Device};

fn main() -> Result<()> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "models/emoji".to_owned());
    let embedder = Arc::new(Embedder::from_pretrained(&model, DType::F32, &Device::Cpu)?);
    let batches = [
        vec![Some("一只猫"), None, Some("a cat")],
        vec![Some(""), Some("消防车"), None, Some("a fire engine")],
    ];
    let batches: Vec<RecordBatch> =
        batches.into_iter().map(|texts| batch(StringArray::from(texts))).collect::<Result<_>>()?;

    // One batch per thread; all share the model.
    let threads = batches.iter().cloned().map(|batch| {
        let embedder = Arc::clone(&embedder);
        std::thread::spawn(move || with_vectors(&embedder, &batch, "text"))
    });
    for thread in threads.collect::<Vec<_>>() {
        let batch = thread.join().ok().context("a thread panicked")??;
        println!("{} rows, {} of them null: {:?}", batch.num_rows(), nulls(&batch), batch.schema());
    }

    // For more batches than fit into memory, a stream takes cells with keys, and fills one buffer repeatedly.
    let columns = batches.iter().map(|batch| strings(batch, "text").cloned()).collect::<Result<Vec<_>>>()?;
    let cells = columns
        .into_iter()
        .enumerate()
        .flat_map(|(number, texts)| (0..texts.len()).map(move |row| ((number, row), Cell::new(&texts, row))));
    let mut stream = embedder.row_stream(cells);
    let mut buffer = vec![0.0; 4 * embedder.projection_dim()];
    loop {
        let outcomes = stream.embed_into(&mut buffer);
        if outcomes.is_empty() {
            return Ok(());
        }
        for ((number, row), outcome) in outcomes {
            println!("batch {number}, row {row}: {outcome:?}");
        }
    }
}

/// Adds a column `vector` of fixed-size lists, null where the text is null or cannot be embedded.
fn with_vectors(embedder: &Embedder, batch: &RecordBatch, column: &str) -> Result<RecordBatch> {
    let texts = strings(batch, column)?;
    let dim = embedder.projection_dim();
    let mut vectors = vec![0.0; texts.len() * dim];
    let outcomes = embedder.embed_into(texts.iter(), &mut vectors)?;
    for (row, outcome) in outcomes.iter().enumerate() {
        if let RowOutcome::Failed(error) = outcome {
            eprintln!("row {row}: {error}");
        }
    }
    let valid = outcomes.iter().map(|outcome| matches!(outcome, RowOutcome::Embedded)).collect();
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    // Arrow takes over the buffer without a copy.
    let values = Arc::new(Float32Array::from(vectors));
    let vectors = FixedSizeListArray::try_new(item, i32::try_from(dim)?, values, Some(valid))?;
    let columns: [(&str, ArrayRef); 2] = [(column, Arc::new(texts.clone())), ("vector", Arc::new(vectors))];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn batch(texts: StringArray) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)])?)
}

fn strings<'a>(batch: &'a RecordBatch, column: &str) -> Result<&'a StringArray> {
    let column = batch.column_by_name(column).with_context(|| format!("no column {column}"))?;
    column.as_any().downcast_ref().with_context(|| format!("expected strings, found {}", column.data_type()))
}

fn nulls(batch: &RecordBatch) -> usize {
    batch.column_by_name("vector").map_or(0, |vectors| vectors.null_count())
}

/// A text in Arrow's buffer. Clones of an array share its buffers.
struct Cell {
    texts: StringArray,
    row: usize,
}

impl Cell {
    fn new(texts: &StringArray, row: usize) -> Option<Self> {
        texts.is_valid(row).then(|| Self { texts: texts.clone(), row })
    }
}

impl AsRef<str> for Cell {
    fn as_ref(&self) -> &str {
        self.texts.value(self.row)
    }
}
