//! Reads whole numbers as clients write them: `64`, or `64.0` from languages whose numbers are all floating-point.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

/// Reads an optional whole number, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// If it has a fraction, or is out of `T`'s range.
pub(crate) fn whole_number<'de, D: Deserializer<'de>, T: TryFrom<i128>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_any(WholeNumber(PhantomData))
}

struct WholeNumber<T>(PhantomData<T>);

impl<T: TryFrom<i128>> WholeNumber<T> {
    fn number<E: Error>(&self, number: i128, found: Unexpected) -> Result<Option<T>, E> {
        T::try_from(number).map(Some).map_err(|_| E::invalid_value(found, self))
    }
}

impl<T: TryFrom<i128>> Visitor<'_> for WholeNumber<T> {
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let signed = T::try_from(-1).is_ok();
        formatter.write_str(if signed { "a whole number" } else { "a whole number from 0" })
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        self.number(number.into(), Unexpected::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        self.number(number.into(), Unexpected::Signed(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        /// Up to here every whole number is an f64.
        const MOST: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;
        let found = Unexpected::Float(number);
        if number.fract() != 0.0 || number.abs() > MOST {
            return Err(E::invalid_value(found, &self));
        }
        self.number(number as i128, found)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::whole_number;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Request {
        #[serde(deserialize_with = "whole_number")]
        steps: Option<usize>,
        #[serde(deserialize_with = "whole_number")]
        seed: Option<i64>,
    }

    fn parse(text: &str) -> Result<Request, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_point_and_zeros_change_nothing() {
        let whole = parse(r#"{"steps": 20, "seed": -1}"#);
        assert_eq!(parse(r#"{"steps": 20.0, "seed": -1.0}"#), whole);
        assert_eq!(whole.map(|request| (request.steps, request.seed)), Ok((Some(20), Some(-1))));
        assert_eq!(parse(r#"{"steps": null}"#), Ok(Request::default()));
    }

    #[test]
    fn other_values_are_refused() {
        for (text, expected) in [
            (r#"{"steps": 20.5}"#, "a whole number from 0"),
            (r#"{"steps": -1.0}"#, "a whole number from 0"),
            (r#"{"steps": 1e300}"#, "a whole number from 0"),
            (r#"{"steps": "20"}"#, "a whole number from 0"),
            (r#"{"seed": 9223372036854775808}"#, "a whole number"),
            (r#"{"seed": 1.5}"#, "a whole number"),
        ] {
            let found = parse(text).expect_err(text);
            assert!(found.contains(&format!("expected {expected} at")), "{text}: {found}");
        }
    }
}
