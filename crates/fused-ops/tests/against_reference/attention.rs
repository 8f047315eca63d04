//! Tests attention.

use crate::compare;
use candle_core::{Device, Result, Tensor};
use fused_ops::{Sequences, attention, causal_attention, packed_attention, reference};
use test_support::{Random, assert_close};

#[test]
fn attention_and_its_gradients() -> Result<()> {
    let mut random = Random::new(5);
    for (batch, queries, keys, heads, head_dim) in [
        (1, 1, 1, 1, 1),
        (2, 15, 16, 2, 40),
        (1, 64, 77, 8, 80),
        (2, 17, 300, 1, 160),
        (1, 65, 257, 3, 64),
        (3, 2, 4, 2, 20),
    ] {
        let q = random.variable(&[batch, queries, heads * head_dim]);
        let k = random.variable(&[batch, keys, heads * head_dim]);
        let v = random.variable(&[batch, keys, heads * head_dim]);
        let bias = random.uniform(&[batch, keys]);
        for bias in [None, Some(&bias)] {
            let what = format!("attention {batch}×{queries}×{keys}, {heads} heads of {head_dim}");
            let fused = || attention(&q, &k, &v, heads, bias);
            let reference = || reference::attention(&q, &k, &v, heads, bias);
            compare(&what, &mut random, &[&q, &k, &v], fused, reference)?;
            let fused = || causal_attention(&q, &k, &v, heads, bias);
            let reference = || reference::causal_attention(&q, &k, &v, heads, bias);
            compare(&format!("causal {what}"), &mut random, &[&q, &k, &v], fused, reference)?;
        }
    }
    Ok(())
}

/// Later keys change nothing, in this tile of keys or the next.
#[test]
fn causal_attention_does_not_look_ahead() -> Result<()> {
    let mut random = Random::new(11);
    let all = random.uniform(&[1, 300, 32]);
    let expected = causal_attention(&all, &all, &all, 4, None)?;
    for rows in [1, 7, 48, 49, 257] {
        let first = all.narrow(1, 0, rows)?;
        let found = causal_attention(&first, &first, &first, 4, None)?;
        assert_close("first rows", &found, &expected.narrow(1, 0, rows)?, 1e-6);
    }
    let alone = expected.narrow(1, 0, 1)?;
    assert_close("the first row is its own value", &alone, &all.narrow(1, 0, 1)?, 1e-6);
    Ok(())
}

/// A masked key changes nothing, and a key biased by ln m counts as m keys. With and without a bias; an empty
/// sequence is as good as none.
#[test]
fn packed_sequences_attend_to_themselves_alone() -> Result<()> {
    let mut random = Random::new(13);
    let lengths = vec![3, 1, 17, 0, 6];
    let [query, key, value] =
        [random.variable(&[27, 32]), random.variable(&[27, 32]), random.variable(&[27, 32])];
    let bias = random.variable(&[27]);
    for bias in [None, Some(bias.as_tensor())] {
        let sequences = Sequences::new(lengths.clone(), bias, &Device::Cpu)?;
        let found = packed_attention(&query, &key, &value, 4, &sequences)?;
        let mut first = 0;
        for &length in lengths.iter().filter(|&&length| length > 0) {
            let part = |x: &Tensor| x.narrow(0, first, length)?.unsqueeze(0);
            let bias = bias.map(part).transpose()?;
            let alone = attention(&part(&query)?, &part(&key)?, &part(&value)?, 4, bias.as_ref())?;
            assert_close(&format!("{length} rows at {first}"), &part(&found)?, &alone, 0.);
            first += length;
        }
        compare(
            "packed attention",
            &mut random,
            &[&query, &key, &value],
            || packed_attention(&query, &key, &value, 4, &sequences),
            || reference::packed_attention(&query, &key, &value, 4, &sequences),
        )?;
    }
    let error = |lengths: &[usize], heads| {
        let sequences = Sequences::new(lengths.to_vec(), None, &Device::Cpu)?;
        packed_attention(&query, &key, &value, heads, &sequences)
    };
    assert!(error(&[27, 1], 4).is_err());
    assert!(error(&[27], 5).is_err());
    assert!(Sequences::new(vec![26], Some(bias.as_tensor()), &Device::Cpu).is_err());
    Ok(())
}

#[test]
fn key_bias_hides_and_repeats() -> Result<()> {
    let mut random = Random::new(6);
    let q = random.uniform(&[1, 9, 32]);
    let (k, v) = (random.uniform(&[1, 6, 32]), random.uniform(&[1, 6, 32]));
    let repeat = |x: &Tensor| -> Result<Tensor> {
        let last = x.narrow(1, 4, 1)?;
        Tensor::cat(&[&x.narrow(1, 0, 5)?, &last, &last], 1)
    };
    let expected = attention(&q, &repeat(&k)?, &repeat(&v)?, 4, None)?;
    let bias = Tensor::new(&[[0f32, 0., 0., 0., 3f32.ln(), f32::NEG_INFINITY]], &Device::Cpu)?;
    assert_close("bias", &attention(&q, &k, &v, 4, Some(&bias))?, &expected, 1e-6);
    Ok(())
}
