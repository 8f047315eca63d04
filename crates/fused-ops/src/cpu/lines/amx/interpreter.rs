//! Interprets the kernel's instructions as Intel's manual defines them, so that their order, operands and layouts are
//! tested on processors without AMX.

use super::{Block, CONFIG, TILE, TileGroup, Tiles, for_each_block};
use crate::cpu::lines::kernel::Multiply;
use crate::cpu::lines::{Kernel, Line, Products};
use crate::settings::Instructions;
use std::collections::HashMap;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// The bytes of a tile's row.
const ROW: usize = 64;
const TILES: usize = 8;

type Tile = [[u8; ROW]; TILE];

/// The kernel of these groups, interpreted.
pub(crate) const fn kernel<G: TileGroup>() -> Kernel<G> {
    Kernel {
        name: "AMX, interpreted",
        instructions: Instructions::Widest,
        is_supported: || true,
        multiply: Multiply::Tiles(multiply::<G>),
        operations: None,
    }
}

/// # Safety
/// The memory behind the tiles must still be valid.
unsafe fn multiply<G: TileGroup>(
    left: &Tiles<G>,
    right: &[&[Line<G>]],
    out: &mut [Products<G>],
    stride: usize,
) {
    for_each_block(left, right, out, stride, |block: Block<G>| {
        let registers = HashMap::from([
            ("config", (&raw const CONFIG).expose_provenance()),
            ("upper", block.upper.0.expose_provenance()),
            ("upper_row", block.upper.1),
            ("upper_step", block.upper.2),
            ("lower", block.lower.0.expose_provenance()),
            ("lower_row", block.lower.1),
            ("lower_step", block.lower.2),
            ("first", block.right[0].expose_provenance()),
            ("second", block.right[1].expose_provenance()),
            ("line", size_of::<Line<G>>()),
            ("steps", block.steps),
            ("out", block.out.expose_provenance()),
            ("row", block.out_row),
        ]);
        // SAFETY: the instructions access what the block describes.
        unsafe { Machine::new(registers).run(G::PRODUCT) };
    });
}

struct Machine {
    registers: HashMap<&'static str, usize>,
    /// The rows and the bytes of a row of each tile, while tiles are configured.
    sizes: Option<[[usize; 2]; TILES]>,
    tiles: [Tile; TILES],
}

impl Machine {
    fn new(registers: HashMap<&'static str, usize>) -> Self {
        Self { registers, sizes: None, tiles: [[[0; ROW]; TILE]; TILES] }
    }

    /// Runs a program to its end.
    ///
    /// # Safety
    /// The memory that it accesses must be valid.
    unsafe fn run(&mut self, program: &'static str) {
        let lines: Vec<&'static str> = program.lines().collect();
        let (mut next, mut is_zero) = (0, false);
        while let Some(&line) = lines.get(next) {
            next += 1;
            let (name, operands) = line.split_once(' ').unwrap_or((line, ""));
            let operands: Vec<&'static str> = operands.split(", ").collect();
            match (name, operands.as_slice()) {
                // SAFETY: the caller guarantees the memory.
                ("ldtilecfg", [from]) => unsafe { self.configure(self.address(from).0) },
                ("tilezero", [tile]) => self.tiles[self.tile(tile)] = [[0; ROW]; TILE],
                // SAFETY: as above.
                ("tileloadd", [tile, from]) => unsafe { self.load(self.tile(tile), self.address(from)) },
                // SAFETY: as above.
                ("tilestored", [to, tile]) => unsafe { self.store(self.tile(tile), self.address(to)) },
                ("tdpbf16ps", [sums, left, right]) => {
                    self.multiply([sums, left, right], |sum, left, right| {
                        let value =
                            |bytes: [u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
                        let pairs = left.as_chunks().0.iter().zip(right.as_chunks().0);
                        let products = pairs.map(|(left, right)| value(*left) * value(*right));
                        (f32::from_le_bytes(sum) + products.sum::<f32>()).to_le_bytes()
                    })
                }
                // The first factor is unsigned, the second signed, and sums wrap.
                ("tdpbusd", [sums, left, right]) => self.multiply([sums, left, right], |sum, left, right| {
                    let pairs = left.into_iter().zip(right.map(u8::cast_signed));
                    let products = pairs.map(|(left, right)| i32::from(left) * i32::from(right));
                    i32::from_le_bytes(sum).wrapping_add(products.sum()).to_le_bytes()
                }),
                ("tilerelease", _) => self.sizes = None,
                ("add", [to, more]) => *self.register(to) += self.value(more),
                ("mov", [to, value]) => *self.register(to) = self.value(value),
                ("shl", [to, bits]) => *self.register(to) <<= self.value(bits),
                ("shr", [to, bits]) => *self.register(to) >>= self.value(bits),
                ("dec", [register]) => {
                    *self.register(register) -= 1;
                    is_zero = self.value(register) == 0;
                }
                ("jnz", [label]) if is_zero => assert_eq!(*label, "2b"),
                ("jnz", ["2b"]) => next = lines.iter().position(|line| *line == "2:").expect("a label"),
                ("2:", _) => {}
                _ => panic!("unknown instruction {line}"),
            }
        }
        assert!(self.sizes.is_none(), "tiles must be released");
    }

    /// A number, or the value of a register.
    fn value(&self, operand: &str) -> usize {
        operand.parse().unwrap_or_else(|_| self.registers[operand.trim_matches(['{', '}'])])
    }

    fn register(&mut self, operand: &str) -> &mut usize {
        self.registers.get_mut(operand.trim_matches(['{', '}'])).expect("a register")
    }

    fn tile(&self, operand: &str) -> usize {
        operand.strip_prefix("tmm").and_then(|number| number.parse().ok()).expect("a tile")
    }

    /// The address of `[base + stride + displacement]`, where only the base is required, and the stride.
    fn address(&self, operand: &str) -> (usize, usize) {
        let mut parts = operand.trim_matches(['[', ']']).split(" + ").map(|part| self.value(part));
        let (base, stride) = (parts.next().expect("a base"), parts.next().unwrap_or(0));
        (base + parts.sum::<usize>(), stride)
    }

    /// # Safety
    /// 64 bytes at the address must be valid.
    unsafe fn configure(&mut self, address: usize) {
        // SAFETY: the caller guarantees it.
        let bytes = unsafe { *with_exposed_provenance::<[u8; 64]>(address) };
        assert_eq!((bytes[0], bytes[1]), (1, 0), "the only palette, from its first row");
        assert_eq!(bytes[2..16], [0; 14], "reserved");
        let row_bytes =
            bytes[16..48].as_chunks().0.iter().map(|bytes| usize::from(u16::from_le_bytes(*bytes)));
        let sizes: Vec<[usize; 2]> =
            bytes[48..].iter().zip(row_bytes).map(|(rows, bytes)| [usize::from(*rows), bytes]).collect();
        let (used, unused) = sizes.split_at(TILES);
        assert!(used.iter().all(|[rows, bytes]| *rows <= TILE && *bytes <= ROW), "{used:?}");
        assert!(unused.iter().all(|size| *size == [0, 0]), "{unused:?}");
        self.sizes = used.try_into().ok();
        self.tiles = [[[0; ROW]; TILE]; TILES];
    }

    /// The rows and the bytes of a row of a tile.
    fn size(&self, tile: usize) -> [usize; 2] {
        self.sizes.expect("configured tiles")[tile]
    }

    /// # Safety
    /// The tile's rows at the address must be valid.
    unsafe fn load(&mut self, tile: usize, (address, stride): (usize, usize)) {
        let [rows, bytes] = self.size(tile);
        self.tiles[tile] = [[0; ROW]; TILE];
        for (row, to) in self.tiles[tile].iter_mut().enumerate().take(rows) {
            let from = with_exposed_provenance::<u8>(address + row * stride);
            // SAFETY: the caller guarantees it.
            unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), bytes) };
        }
    }

    /// # Safety
    /// The tile's rows at the address must be valid.
    unsafe fn store(&self, tile: usize, (address, stride): (usize, usize)) {
        let [rows, bytes] = self.size(tile);
        for (row, from) in self.tiles[tile].iter().enumerate().take(rows) {
            let to = with_exposed_provenance_mut::<u8>(address + row * stride);
            // SAFETY: the caller guarantees it.
            unsafe { to.copy_from_nonoverlapping(from.as_ptr(), bytes) };
        }
    }

    /// Adds to each sum of 32 bits the products of its row of the second tile with its column of the third, 32 bits of
    /// each at a time.
    fn multiply(
        &mut self,
        operands: [&&'static str; 3],
        multiply_add: impl Fn([u8; 4], [u8; 4], [u8; 4]) -> [u8; 4],
    ) {
        let [sums, left, right] = operands.map(|operand| self.tile(operand));
        assert!(sums != left && sums != right && left != right, "three tiles");
        let ([rows, columns], [left_rows, depth], [right_rows, right_columns]) =
            (self.size(sums), self.size(left), self.size(right));
        assert!(rows == left_rows && columns == right_columns && depth == 4 * right_rows, "tiles that fit");
        let (left, right) = (self.tiles[left], self.tiles[right]);
        for (sums, left) in self.tiles[sums].iter_mut().zip(left).take(rows) {
            for (left, right) in left.as_chunks().0.iter().zip(right).take(right_rows) {
                let all = sums.as_chunks_mut().0.iter_mut().zip(right.as_chunks().0).take(columns / 4);
                all.for_each(|(sum, right)| *sum = multiply_add(*sum, *left, *right));
            }
        }
    }
}
