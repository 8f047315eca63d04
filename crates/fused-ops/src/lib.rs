//! Hot operations of AltCLIP and AltDiffusion: one plain function each, fused for the CPU, with a reference in candle tensors
