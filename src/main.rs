//! The command `altdiffusion`.

fn main() {}
