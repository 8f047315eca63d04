//! Tests the conversion of images to 8 bits.

use crate::emulator::{Buffer, Emulator, Value, kernels};
use crate::launch::description::Element;
use crate::launch::to_bytes::ToBytesOperands;
use half::{bf16, f16};

type Failure = Box<dyn std::error::Error>;

/// Every half-precision value from −2 to 2 and beyond, and a count that no vector divides.
#[test]
fn images_in_8_bits() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    fn check<T: Value>(emulator: &Emulator, element: Element, values: &[T]) -> Result<(), Failure> {
        let (x, out) = (Buffer::input("x", values), Buffer::output::<u8>("out", values.len()));
        let op = ToBytesOperands { element, count: values.len(), x: x.address(), out: out.address() };
        emulator.run(&op.launch().map_err(|reason| reason.0)?, &[&x, &out], 1)?;
        for (value, found) in values.iter().zip(out.values::<u8>()) {
            let value = value.to_f32();
            let expected = ((value / 2. + 0.5).clamp(0., 1.) * 255.).round_ties_even() as u8;
            assert_eq!(found, expected, "{value} as {element}");
        }
        Ok(())
    }
    let finite = |value: &f32| value.is_finite();
    let f16s: Vec<_> = (0..=u16::MAX).map(f16::from_bits).filter(|value| finite(&value.to_f32())).collect();
    let bf16s: Vec<_> = (0..=u16::MAX).map(bf16::from_bits).filter(|value| finite(&value.to_f32())).collect();
    check(emulator, Element::F16, &f16s[..f16s.len() - 3])?;
    check(emulator, Element::Bf16, &bf16s[..bf16s.len() - 5])
}
