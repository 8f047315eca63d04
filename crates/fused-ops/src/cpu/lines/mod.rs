//! Multiplies numbers of fewer than 32 bits: bf16 and int8.
//!
//! Both factors are stored in *lines* of 64 bytes, whose groups of 32 bits are what a dot-product instruction multiplies
//! and adds to one sum; 16 lines are a matrix tile. Weights are packed once, left factors once per layer. An
//! [`Encoding`] says how numbers become a line's values and sums become numbers, and a [`Kernel`] multiplies.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod kernel;
mod left;
mod line;
pub(crate) mod portable;
mod product;
pub(crate) mod registers;
mod weight;

pub(crate) use kernel::{Kernel, Products, Rows};
pub(crate) use line::{Group, Line};
pub(crate) use product::{linear_geglu, product, two_products};
pub(crate) use weight::{Encoding, LineWeight};
