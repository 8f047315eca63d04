//! Tests the attention kernels at every shape of the models, and at lengths that no tile divides.

use crate::emulator::{Buffer, Emulator, Value, kernels, seed};
use crate::launch::attention::{AttentionOperands, RowLayout};
use crate::launch::description::Element;
use crate::rounding::{BF16_UNIT, F16_UNIT, random};
use candle_core::{Device, Tensor};
use fused_ops::reference;
use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error>;

/// Multiprocessors of the emulated device.
const MULTIPROCESSORS: usize = 132;

/// The memory layout of queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    /// One projection's output, (batch, tokens, 3 · heads · head_dim).
    Fused,
    /// Queries alone, and keys and values in one (batch, keys, 2 · heads · head_dim).
    Apart,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    head_dim: usize,
    source: Source,
    biased: bool,
    /// This many keys at the beginning are masked.
    hidden: usize,
    causal: bool,
    /// Runs only every `step`-th block: enough where all blocks do the same.
    step: u64,
}

impl Case {
    fn own(batch: usize, tokens: usize, heads: usize, head_dim: usize) -> Self {
        let (queries, keys, source) = (tokens, tokens, Source::Fused);
        let (biased, hidden, causal, step) = (false, 0, false, 1);
        Self { batch, queries, keys, heads, head_dim, source, biased, hidden, causal, step }
    }

    fn cross(batch: usize, queries: usize, keys: usize, heads: usize, head_dim: usize) -> Self {
        Self { keys, source: Source::Apart, biased: true, ..Self::own(batch, queries, heads, head_dim) }
    }
}

/// The magnitude of queries, keys and values, about as in a model.
const SIZE: f32 = 1.5;

/// Columns `begin` to `begin + width` of the rows, as an f32 tensor (batch, rows, width).
fn columns<T: Value>(
    values: &[T],
    batch: usize,
    all: usize,
    begin: usize,
    width: usize,
) -> candle_core::Result<Tensor> {
    let values: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
    Tensor::from_vec(values, (batch, (), all), &Device::Cpu)?.narrow(2, begin, width)?.contiguous()
}

/// A kernel's inputs, in f32.
struct Inputs {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: usize,
    bias: Option<Tensor>,
    causal: bool,
}

/// Compares `found` with attention over the same inputs in f32, value by value.
///
/// A kernel rounds each weight once to the type of the values and the result once more, each by at most `unit` of its
/// size; the first makes at most `unit · Σ weight · |value|`. Weights of f16 below 2⁻¹⁴ of the largest lose up to 2⁻²⁵
/// instead: with the up to 257 keys of a biased case no more than 2⁻¹⁶ for values up to 1.5, and with the more keys of
/// the others less, because there the mean weight is above 2⁻⁵. The rest is f32, sums of up to 4 096 terms and
/// exponentials of scores up to a dozen: 1e-5.
fn compare(
    what: &str,
    found: &[f32],
    inputs: &Inputs,
    unit: f32,
    ran: impl Fn(usize, usize, usize) -> bool,
) -> Result<(), Failure> {
    let Inputs { query, key, value, heads, bias, causal } = inputs;
    let (heads, bias) = (*heads, bias.as_ref());
    let attend = if *causal { reference::causal_attention } else { reference::attention };
    let expected = attend(query, key, value, heads, bias)?;
    let bound = attend(query, key, &value.abs()?, heads, bias)?;
    let (_, queries, width) = expected.dims3()?;
    let (expected, bound) =
        (expected.flatten_all()?.to_vec1::<f32>()?, bound.flatten_all()?.to_vec1::<f32>()?);
    assert_eq!(found.len(), expected.len());
    for (i, &found) in found.iter().enumerate() {
        let (batch, row, head) = (i / width / queries, i / width % queries, i % width / (width / heads));
        let place = format!("{what}: batch {batch}, query {row}, head {head}, column {}", i % width);
        if !ran(batch, row, head) {
            assert!(found.is_nan(), "{place} was written by another block");
            continue;
        }
        let allowed = (2. * unit + 1e-5) * bound[i] + 2f32.powi(-16);
        assert!(
            (found - expected[i]).abs() <= allowed,
            "{place}: {found}, expected {} ± {allowed}",
            expected[i]
        );
    }
    Ok(())
}

fn check<T: Value>(
    emulator: &Emulator,
    element: Element,
    unit: f32,
    case: Case,
    seed: u64,
) -> Result<(), Failure> {
    let Case { batch, queries, keys, heads, head_dim, source, biased, hidden, causal, step } = case;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let width = heads * head_dim;
    let name = ["query", "key_value"];
    let (columns_q, columns_kv) = if source == Source::Fused { (3 * width, 0) } else { (width, 2 * width) };
    let (first, second) = (
        random::<T>(&mut rng, batch * queries * columns_q, SIZE),
        random::<T>(&mut rng, batch * keys * columns_kv, SIZE),
    );
    let (first_buffer, second_buffer) = (Buffer::input(name[0], &first), Buffer::input(name[1], &second));
    let rows = |buffer: &Buffer, begin, tokens, columns| RowLayout {
        address: buffer.address_of::<T>(begin),
        batch_stride: tokens * columns,
        row_stride: columns,
    };
    // Mask every other sequence's last key, unless it is the only one, and let the one before stand for 56.
    let bias: Vec<f32> = (0..batch * keys)
        .map(|i| match (i / keys, keys - i % keys) {
            _ if i % keys < hidden => f32::NEG_INFINITY,
            (sequence, 1) if hidden == 0 && sequence % 2 == 0 && keys > 1 => f32::NEG_INFINITY,
            (_, 2) => 56f32.ln(),
            _ => rng.random_range(-1f32..1.),
        })
        .collect();
    let bias_buffer = Buffer::input("key_bias", &bias);
    let query = rows(&first_buffer, 0, queries, columns_q);
    let (key, value) = match source {
        Source::Fused => {
            (rows(&first_buffer, width, keys, columns_q), rows(&first_buffer, 2 * width, keys, columns_q))
        }
        Source::Apart => {
            (rows(&second_buffer, 0, keys, columns_kv), rows(&second_buffer, width, keys, columns_kv))
        }
    };
    let tensors = match source {
        Source::Fused => [0, 1, 2].map(|part| columns(&first, batch, 3 * width, part * width, width)),
        Source::Apart => [
            columns(&first, batch, width, 0, width),
            columns(&second, batch, 2 * width, 0, width),
            columns(&second, batch, 2 * width, width, width),
        ],
    };
    let [q, k, v] = tensors;
    let bias = biased.then(|| Tensor::from_vec(bias, (batch, keys), &Device::Cpu)).transpose()?;
    let inputs = Inputs { query: q?, key: k?, value: v?, heads, bias, causal };
    for hopper in [false, true] {
        let out = Buffer::output::<T>("out", batch * queries * width);
        let attention = AttentionOperands {
            element,
            batch,
            queries,
            keys,
            heads,
            head_dim,
            query,
            key,
            value,
            out: rows(&out, 0, queries, width),
            key_bias: biased.then(|| bias_buffer.address()),
            offsets: None,
            causal,
        };
        let launch = match (hopper, attention.launch_on_hopper()) {
            (false, _) => attention.launch(MULTIPROCESSORS).map_err(|reason| reason.0)?,
            (true, Ok(launch)) => launch,
            (true, Err(_)) => continue,
        };
        let what = format!("{} {case:?}", launch.kernel);
        let first_block = seed % step;
        emulator
            .run_blocks(
                &launch,
                &[&first_buffer, &second_buffer, &bias_buffer, &out],
                seed,
                first_block,
                step,
            )
            .map_err(|error| format!("{what}: {error}"))?;
        let rows_of_a_block = if step == 1 { 1 } else { attention.rows_of_a_block() };
        let ran = |batch: usize, row: usize, head: usize| {
            let [x, y, _] = launch.grid.map(u64::from);
            let block = (batch as u64 * y + head as u64) * x + (row / rows_of_a_block) as u64;
            step == 1 || block % step == first_block
        };
        compare(&what, &out.to_f32::<T>(), &inputs, unit, ran)?;
    }
    Ok(())
}

fn check_all(cases: impl IntoIterator<Item = Case>) -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let seed = seed();
    for (i, case) in cases.into_iter().enumerate() {
        let seed = seed.wrapping_add(i as u64);
        check::<f16>(emulator, Element::F16, F16_UNIT, case, seed)?;
        check::<bf16>(emulator, Element::Bf16, BF16_UNIT, case, seed)?;
    }
    Ok(())
}

const HEAD_DIMS: [usize; 4] = [40, 64, 80, 160];
const ODD_LENGTHS: [usize; 8] = [1, 2, 15, 16, 17, 63, 65, 77];

#[test]
fn self_attention_at_odd_lengths() -> Result<(), Failure> {
    check_all(HEAD_DIMS.iter().flat_map(|&dim| ODD_LENGTHS.map(|tokens| Case::own(2, tokens, 2, dim))))
}

/// The streaming kernel, where the one for few keys would do too: just past its limit, and many tiles past it.
#[test]
fn streamed_keys_at_odd_lengths() -> Result<(), Failure> {
    let lengths = [81, 95, 96, 97, 127, 128, 129, 257];
    check_all(HEAD_DIMS.iter().flat_map(|&dim| lengths.map(|keys| Case::cross(2, 17, keys, 2, dim))))
}

/// The lengths of Stable Diffusion's levels.
#[test]
fn self_attention_of_the_unet() -> Result<(), Failure> {
    check_all(HEAD_DIMS.iter().flat_map(|&dim| {
        [64, 256, 1024, 4096]
            .map(|tokens| Case { step: (tokens as u64 / 128).max(1), ..Case::own(1, tokens, 2, dim) })
    }))
}

/// n + 1 rows of a prompt with weighted padding: 21 keys, and each number that ends at another place in a tile.
#[test]
fn cross_attention_of_the_unet() -> Result<(), Failure> {
    let few = [3, 17, 21, 32, 33, 64, 77, 78, 80];
    let cases = HEAD_DIMS.iter().flat_map(|&dim| few.map(|keys| Case::cross(2, 130, keys, 2, dim)));
    // At full length every warp processes a second tile.
    check_all(cases.chain([Case::cross(2, 4096, 21, 8, 40)]))
}

/// All keys of the first tiles are masked, and only the last tile has visible ones.
#[test]
fn hidden_keys_at_the_beginning() -> Result<(), Failure> {
    let hidden = |hidden, keys, dim| Case { hidden, ..Case::cross(2, 33, keys, 2, dim) };
    check_all(HEAD_DIMS.iter().flat_map(|&dim| {
        [(1, 2), (20, 21), (64, 77), (64, 90), (130, 140)].map(|(first, keys)| hidden(first, keys, dim))
    }))
}

/// CLIP's text tower, and the causal mask on the diagonal of every kind of tile.
#[test]
fn causal_attention() -> Result<(), Failure> {
    let causal = |tokens, dim, biased| Case { causal: true, biased, ..Case::own(2, tokens, 2, dim) };
    let lengths = [1, 2, 17, 65, 77, 81, 200];
    check_all(HEAD_DIMS.iter().flat_map(|&dim| {
        lengths.into_iter().flat_map(move |tokens| [causal(tokens, dim, false), causal(tokens, dim, true)])
    }))
}

/// Packed texts of mixed lengths, as in the text encoder, each attending to itself. Short ones use the kernel for few
/// keys; with one long text among them, all use the streaming one.
#[test]
fn packed_texts() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let seed = seed();
    for lengths in [&[1, 17, 77, 2, 64, 15][..], &[16, 1, 33], &[3, 200, 65, 1, 129]] {
        for causal in [false, true] {
            packed::<f16>(emulator, Element::F16, F16_UNIT, lengths, causal, seed)?;
            packed::<bf16>(emulator, Element::Bf16, BF16_UNIT, lengths, causal, seed)?;
        }
    }
    Ok(())
}

fn packed<T: Value>(
    emulator: &Emulator,
    element: Element,
    unit: f32,
    lengths: &[usize],
    causal: bool,
    seed: u64,
) -> Result<(), Failure> {
    let (heads, head_dim) = (3, 64);
    let width = heads * head_dim;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let total = lengths.iter().sum::<usize>();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let offsets: Vec<i32> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |end, &length| {
            *end += length as i32;
            Some(*end)
        }))
        .collect();
    let values = random::<T>(&mut rng, total * 3 * width, SIZE);
    let bias: Vec<f32> = (0..total).map(|_| rng.random_range(-1f32..1.)).collect();
    let (input, out) = (Buffer::input("qkv", &values), Buffer::output::<T>("out", total * width));
    let (bias_buffer, offset_buffer) = (Buffer::input("key_bias", &bias), Buffer::input("offsets", &offsets));
    let part = |part| RowLayout {
        address: input.address_of::<T>(part * width),
        batch_stride: 0,
        row_stride: 3 * width,
    };
    let attention = AttentionOperands {
        element,
        batch: lengths.len(),
        queries: longest,
        keys: longest,
        heads,
        head_dim,
        query: part(0),
        key: part(1),
        value: part(2),
        out: RowLayout { address: out.address(), batch_stride: 0, row_stride: width },
        key_bias: Some(bias_buffer.address()),
        offsets: Some(offset_buffer.address()),
        causal,
    };
    let launch = attention.launch(MULTIPROCESSORS).map_err(|reason| reason.0)?;
    emulator.run(&launch, &[&input, &bias_buffer, &offset_buffer, &out], seed)?;
    let (found, bias) = (out.to_f32::<T>(), Tensor::from_vec(bias, (1, total), &Device::Cpu)?);
    for (&begin, &length) in offsets.iter().zip(lengths) {
        let begin = begin as usize;
        let rows = |part| columns(&values, 1, 3 * width, part * width, width)?.narrow(1, begin, length);
        let what = format!("{} {lengths:?}, causal {causal}, {length} rows at {begin}", launch.kernel);
        let found = &found[begin * width..(begin + length) * width];
        let (query, key, value) = (rows(0)?, rows(1)?, rows(2)?);
        let inputs = Inputs { query, key, value, heads, bias: Some(bias.narrow(1, begin, length)?), causal };
        compare(&what, found, &inputs, unit, |_, _, _| true)?;
    }
    Ok(())
}

/// Shapes that no kernel covers are refused and never launched.
#[test]
fn shapes_that_no_kernel_covers() {
    let rows = RowLayout { address: 64, batch_stride: 64, row_stride: 64 };
    let (query, key, value, out) = (rows, rows, rows, rows);
    let (batch, queries, keys, heads, head_dim) = (1, 1, 1, 1, 64);
    let fits = AttentionOperands {
        element: Element::F16,
        batch,
        queries,
        keys,
        heads,
        head_dim,
        query,
        key,
        value,
        out,
        key_bias: None,
        offsets: None,
        causal: false,
    };
    assert!(fits.launch(MULTIPROCESSORS).is_ok());
    assert!(AttentionOperands { head_dim: 48, ..fits }.launch(MULTIPROCESSORS).is_err());
    assert!(AttentionOperands { keys: 0, ..fits }.launch(MULTIPROCESSORS).is_err());
    assert!(AttentionOperands { queries: 0, ..fits }.launch(MULTIPROCESSORS).is_err());
    assert!(AttentionOperands { batch: 65_536, ..fits }.launch(MULTIPROCESSORS).is_err());
    let unaligned = RowLayout { row_stride: 60, ..rows };
    assert!(AttentionOperands { value: unaligned, ..fits }.launch(MULTIPROCESSORS).is_err());
    assert!(
        AttentionOperands { query: RowLayout { address: 68, ..rows }, ..fits }
            .launch(MULTIPROCESSORS)
            .is_err()
    );
}
