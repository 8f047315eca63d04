//! `altdiffusion machine`: shows what this machine computes with.

use anyhow::Result;
use clap::Args;
use fused_ops::Machine;
use serde::Serialize;

use crate::standard_streams::{print_json, print_table};

/// Show what the CPU computes with for each number type, and how fast it can be.
///
/// Arithmetic is what products are computed in: f16 and quantized weights become f32 a few at a time, and layers that int8
/// leaves out compute as with bf16.
///
/// The limit is what loops of multiplications on registers reach, measured now on all threads: no model computes
/// faster. RAYON_NUM_THREADS sets the threads, FUSED_OPS_INSTRUCTIONS and FUSED_OPS_BF16 the instructions.
#[derive(Debug, Args)]
pub struct ShowMachine {
    /// Print JSON: an object with threads and types, a list of dtype, arithmetic, instructions and gflops.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct MachineReport {
    threads: usize,
    types: Vec<NumberTypeReport>,
}

/// How models of one number type compute.
#[derive(Serialize)]
struct NumberTypeReport {
    dtype: &'static str,
    /// What products are computed in.
    arithmetic: &'static str,
    instructions: &'static str,
    gflops: f64,
}

impl ShowMachine {
    pub fn run(self) -> Result<()> {
        fused_ops::Settings::current()?;
        let machine = Machine::measure();
        let in_f32 = |dtype| NumberTypeReport {
            dtype,
            arithmetic: "f32",
            instructions: machine.instructions,
            gflops: machine.f32_operations / 1e9,
        };
        let bf16 = match (fused_ops::bf16_support(), machine.bf16_operations) {
            (Some(support), Some(operations)) => NumberTypeReport {
                dtype: "bf16",
                arithmetic: "bf16",
                instructions: support.instructions,
                gflops: operations / 1e9,
            },
            _ => in_f32("bf16"),
        };
        // Without dot products of bytes, its limit is about that of f32.
        let int8 = NumberTypeReport {
            dtype: "int8",
            arithmetic: "int8",
            instructions: fused_ops::int8_instructions(),
            gflops: machine.int8_operations.unwrap_or(machine.f32_operations) / 1e9,
        };
        let types = vec![in_f32("f32"), in_f32("f16"), bf16, int8, in_f32("quantized")];
        let report = MachineReport { threads: machine.threads, types };
        if self.json {
            return print_json(&report);
        }
        let row = |of: &NumberTypeReport| {
            let threads = report.threads.to_string();
            let gflops = format!("{:.0}", of.gflops);
            vec![of.dtype.to_owned(), of.arithmetic.to_owned(), of.instructions.to_owned(), threads, gflops]
        };
        let rows: Vec<_> = report.types.iter().map(row).collect();
        print_table(&["dtype", "arithmetic", "instructions", "threads", "GFLOP/s"], &rows, 3..)
    }
}
