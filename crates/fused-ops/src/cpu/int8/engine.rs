//! Chooses the instructions that multiply in int8.

use super::line::Line;
use super::portable;
use super::rows::{Products, Rows};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
#[cfg(target_arch = "x86_64")]
use crate::cpu::amx::{self, TileLine, Tiles};
#[cfg(target_arch = "x86_64")]
use crate::cpu::peak::on_all_threads;
use crate::settings::{Instructions, Settings};
use std::sync::OnceLock;

/// The instructions that multiply in int8. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// Rows in the form that the engine's kernel needs.
pub(super) enum Prepared<'a> {
    Rows(Rows<'a>),
    #[cfg(target_arch = "x86_64")]
    Tiles(Tiles<Line>),
}

/// The engine for layers with int8 weights.
pub(crate) fn engine() -> Engine {
    static CHOSEN: OnceLock<Engine> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let instructions = Settings::current().unwrap_or_default().instructions;
        let may_use = |engine: &Engine| match instructions {
            Instructions::Widest => true,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => matches!(engine, Engine::Avx2 | Engine::Portable),
            #[cfg(not(target_arch = "x86_64"))]
            Instructions::Avx2 => true,
            Instructions::Portable => *engine == Engine::Portable,
        };
        Engine::supported().into_iter().find(may_use).unwrap_or(Engine::Portable)
    })
}

impl Engine {
    /// The engines that this processor supports, the fastest first.
    pub(super) fn supported() -> Vec<Self> {
        let mut engines = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            engines.extend(amx::is_supported::<Line>().then_some(Self::Amx));
            engines.extend(avx512::is_supported().then_some(Self::Avx512));
            engines.extend(avx2::is_supported().then_some(Self::Avx2));
        }
        engines.push(Self::Portable);
        engines
    }

    /// The instructions' name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "AMX int8",
        }
    }

    /// The maximum operations per second of the instructions on all threads; `None` for those without dot products.
    pub(crate) fn peak_operations(self) -> Option<f64> {
        match self {
            Self::Portable => None,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => None,
            #[cfg(target_arch = "x86_64")]
            // SAFETY: engines only exist for available instructions.
            Self::Avx512 => Some(on_all_threads(|| unsafe { avx512::operations() })),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Amx => Some(on_all_threads(|| unsafe { Line::operations() })),
        }
    }

    /// Prepares rows for [`multiply`](Self::multiply).
    ///
    /// # Safety
    /// The rows must be as [`Rows`] requires while the result lives.
    pub(super) unsafe fn prepare<'a>(self, rows: Rows<'a>) -> Prepared<'a> {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller guarantees the rows.
            Self::Amx => Prepared::Tiles(unsafe { Tiles::new(rows.starts, 1, rows.lines) }),
            _ => Prepared::Rows(rows),
        }
    }

    /// Writes the products of all rows with one or two panels.
    ///
    /// # Safety
    /// The rows must be [prepared](Self::prepare) by this engine, the panels must have 16 lines for each line of a row, and
    /// `out` must have space for as many rows, rounded up to a multiple of 32.
    pub(super) unsafe fn multiply(self, left: &Prepared, right: &[&[Line]], out: &mut [Products]) {
        // SAFETY: the caller guarantees rows and panels, and engines only exist for available instructions.
        unsafe {
            match (left, self) {
                #[cfg(target_arch = "x86_64")]
                (Prepared::Tiles(tiles), _) => amx::multiply(tiles, right, out, 1),
                #[cfg(target_arch = "x86_64")]
                (Prepared::Rows(rows), Self::Avx512) => avx512::multiply(rows, right, out),
                #[cfg(target_arch = "x86_64")]
                (Prepared::Rows(rows), Self::Avx2) => avx2::multiply(rows, right, out),
                (Prepared::Rows(rows), _) => portable::multiply(rows, right, out),
            }
        }
    }
}
