//! Spaces numbers evenly, as PyTorch does.

/// `steps` values from `start` to `end`, computed like `torch.linspace` in f32: from both ends towards the middle,
/// with fused multiply-adds.
pub(super) fn linspace(start: f64, end: f64, steps: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if steps == 1 {
        return vec![start];
    }
    let distance = (end - start) / steps.saturating_sub(1) as f32;
    (0..steps)
        .map(|step| {
            if step < steps / 2 {
                distance.mul_add(step as f32, start)
            } else {
                (-distance).mul_add((steps - step - 1) as f32, end)
            }
        })
        .collect()
}
