//! Tests the emulation: it computes what a GPU does, and catches mistakes that a GPU does not.

use crate::emulator::{Buffer, Emulator, seed};
use crate::launch::description::Launch;
use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::OnceLock;

const THREADS: usize = 64;

fn emulator() -> Option<&'static Emulator> {
    static WRONG: OnceLock<Option<Emulator>> = OnceLock::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulated_kernels/wrong.cu");
    WRONG.get_or_init(|| Emulator::compile("wrong", &[source])).as_ref()
}

#[derive(Clone, Copy)]
#[repr(C)]
struct ReverseParams {
    input: u64,
    out: u64,
}

/// Runs a kernel of `wrong.cu` on the values 0, 1, 2 …; shared memory has room for as many.
fn run(emulator: &Emulator, kernel: &str, values: usize, seed: u64) -> Result<Vec<f32>, String> {
    let input: Vec<f32> = (0..values).map(|i| i as f32).collect();
    let (input, out) = (Buffer::input("in", &input), Buffer::output::<f32>("out", values));
    let launch = Launch {
        kernel: kernel.to_owned(),
        grid: [1, 1, 1],
        threads: THREADS as u32,
        shared_bytes: 4 * 4 * THREADS as u32,
        params: ReverseParams { input: input.address(), out: out.address() },
    };
    emulator.run(&launch, &[&input, &out], seed)?;
    Ok(out.to_f32::<f32>())
}

#[test]
fn right_kernels_are_right_in_any_order() -> Result<(), String> {
    let Some(emulator) = emulator() else { return Ok(()) };
    let seed = seed();
    for seed in seed..seed + 20 {
        let reversed: Vec<f32> = (0..THREADS).rev().map(|i| i as f32).collect();
        assert_eq!(run(emulator, "reverse", THREADS, seed)?, reversed);
        let rotated: Vec<f32> = (0..THREADS).map(|i| (i / 32 * 32 + (i + 1) % 32) as f32).collect();
        assert_eq!(run(emulator, "rotate_warp", THREADS, seed)?, rotated);
        let copied: Vec<f32> = (0..4 * THREADS).map(|i| i as f32).collect();
        assert_eq!(run(emulator, "copy", 4 * THREADS, seed)?, copied);
        assert_eq!(run(emulator, "ones", THREADS, seed)?, [16.; THREADS]);
    }
    Ok(())
}

#[test]
fn mistakes_are_found_and_named() {
    let Some(emulator) = emulator() else { return };
    let seed = seed();
    for (kernel, message) in [
        ("reverse_without_barrier", "a race: byte"),
        ("rotate_warp_without_barrier", "a race: byte"),
        ("copy_left_behind", "ends while asynchronous copies are under way"),
        ("read_past_the_end", "4 bytes are read at byte 256 of in, which has 256"),
        ("write_past_the_end", "4 bytes are written at byte 256 of out, which has 256"),
        ("write_an_input", "in is written, which is read-only"),
        ("read_unaligned", "not a multiple of the 16 bytes"),
        ("shared_past_the_end", "4 bytes at byte 1024 of the shared memory are accessed, which has 1024"),
        ("barrier_of_some", "thread 0 has ended"),
        ("shuffle_of_some", "waits at a shuffle"),
        ("shuffle_with_two_masks", "a shuffle with the mask"),
        ("different_operations", "waits at a barrier of the warp"),
        ("shuffle_from_outside", "a shuffle from lane"),
        ("ones_not_published", "did not publish"),
        ("ones_not_begun", "without products_begin"),
        ("ones_not_committed", "a wait for products that were not committed"),
        ("ones_not_waited_for", "ends while products are under way"),
        ("ones_with_registers_written", "written before it was waited for"),
        ("missing", "there is no kernel missing"),
    ] {
        for seed in seed..seed + 20 {
            let error = run(emulator, kernel, THREADS, seed).expect_err(kernel);
            assert!(error.contains(message), "{kernel}: {error}");
        }
    }
}

/// Memory that is arbitrary on a GPU is NaN here.
#[test]
fn memory_that_nobody_filled_is_nan() -> Result<(), String> {
    let Some(emulator) = emulator() else { return Ok(()) };
    assert!(run(emulator, "copy_without_wait", 4 * THREADS, 1)?.iter().all(|value| value.is_nan()));
    assert!(run(emulator, "shared_unwritten", THREADS, 1)?.iter().all(|value| value.is_nan()));
    Ok(())
}

#[derive(Clone, Copy)]
#[repr(C)]
struct ProductParams {
    a: u64,
    b: u64,
    out: u64,
}

#[test]
fn tensor_cores_multiply() -> Result<(), String> {
    let Some(emulator) = emulator() else { return Ok(()) };
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    // Small integers, so that every sum is exact.
    let mut random =
        |count| -> Vec<f16> { (0..count).map(|_| f16::from_f32(rng.random_range(-9i8..9).into())).collect() };
    let (a, b) = (random(256), random(128));
    let buffers = [Buffer::input("a", &a), Buffer::input("b", &b), Buffer::output::<f32>("out", 128)];
    let [left, right, out] = &buffers;
    let params = ProductParams { a: left.address(), b: right.address(), out: out.address() };
    let launch =
        Launch { kernel: "product".to_owned(), grid: [1, 1, 1], threads: 32, shared_bytes: 1024, params };
    emulator.run(&launch, &[left, right, out], 1)?;
    let product =
        |i: usize| (0..16).map(|k| a[i / 8 * 16 + k].to_f32() * b[k * 8 + i % 8].to_f32()).sum::<f32>();
    assert_eq!(out.to_f32::<f32>(), (0..128).map(product).collect::<Vec<_>>());
    Ok(())
}

#[derive(Clone, Copy)]
#[repr(C)]
struct ConvertParams {
    input: u64,
    from_f16: u64,
    from_bf16: u64,
    to_f16: u64,
    to_bf16: u64,
    count: i32,
}

/// Compares with the `half` crate: every bit pattern in one direction, numbers of every magnitude in the other.
#[test]
fn half_types_convert() -> Result<(), String> {
    let Some(emulator) = emulator() else { return Ok(()) };
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let count = 1 << 16;
    let mut values: Vec<f32> = (0..count).map(|_| f32::from_bits(rng.random())).collect();
    // Also halfway between neighbouring f16 values, where rounding decides.
    for (i, value) in values.iter_mut().enumerate().take(1 << 15) {
        *value = (f16::from_bits(i as u16).to_f32() + f16::from_bits(i as u16 + 1).to_f32()) / 2.;
    }
    let input = Buffer::input("in", &values);
    let [from_f16, from_bf16] = ["from_f16", "from_bf16"].map(|name| Buffer::output::<f32>(name, count));
    let [to_f16, to_bf16] = ["to_f16", "to_bf16"].map(|name| Buffer::output::<u16>(name, count));
    let params = ConvertParams {
        input: input.address(),
        from_f16: from_f16.address(),
        from_bf16: from_bf16.address(),
        to_f16: to_f16.address(),
        to_bf16: to_bf16.address(),
        count: count as i32,
    };
    let (kernel, threads) = ("convert".to_owned(), THREADS as u32);
    let launch = Launch { kernel, grid: [1, 1, 1], threads, shared_bytes: 0, params };
    emulator.run(&launch, &[&input, &from_f16, &from_bf16, &to_f16, &to_bf16], 1)?;
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    let (from_f16, from_bf16) = (from_f16.values::<f32>(), from_bf16.values::<f32>());
    let (to_f16, to_bf16) = (to_f16.values::<u16>(), to_bf16.values::<u16>());
    for (i, &value) in values.iter().enumerate() {
        let bits = i as u16;
        assert!(same(from_f16[i], f16::from_bits(bits).to_f32()), "f16 {bits:#x}");
        assert!(same(from_bf16[i], bf16::from_bits(bits).to_f32()), "bf16 {bits:#x}");
        assert!(same(f16::from_bits(to_f16[i]).to_f32(), f16::from_f32(value).to_f32()), "{value:e} to f16");
        assert!(
            same(bf16::from_bits(to_bf16[i]).to_f32(), bf16::from_f32(value).to_f32()),
            "{value:e} to bf16"
        );
    }
    Ok(())
}
