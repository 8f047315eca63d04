//! Multiplies with AMX's tiles of int8.

use super::line::Quad;
use crate::cpu::lines::{Kernel, amx};

pub(super) static KERNEL: Kernel<Quad> = amx::kernel("AMX int8");

amx::tile_group!(Quad, "tdpbusd", 25);
