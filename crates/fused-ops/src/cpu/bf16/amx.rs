//! Multiplies with AMX's tiles of bf16.

use super::line::Pair;
use crate::cpu::lines::{Kernel, amx};

pub(super) static KERNEL: Kernel<Pair> = amx::kernel("AMX bf16");

amx::tile_group!(Pair, "tdpbf16ps", 22);
