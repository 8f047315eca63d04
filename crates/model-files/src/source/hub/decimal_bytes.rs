//! Formats sizes.

/// The prefixes of a thousand, a million and so on.
const PREFIXES: [char; 6] = ['k', 'M', 'G', 'T', 'P', 'E'];

/// A number of bytes, such as `15 B` or `1.50 GB`.
pub(crate) fn decimal_bytes(bytes: u64) -> String {
    let (mut number, mut prefix) = (bytes as f64, None);
    for next in PREFIXES {
        if number < 1000. {
            break;
        }
        number /= 1000.;
        prefix = Some(next);
    }
    match prefix {
        None => format!("{bytes} B"),
        Some(prefix) => format!("{number:.2} {prefix}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits_behind_the_point() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (1_500_000, "1.50 MB"),
            (1_717_986_918, "1.72 GB"),
            (1_500_000_000_000, "1.50 TB"),
            (u64::MAX, "18.45 EB"),
        ] {
            assert_eq!(decimal_bytes(bytes), text);
        }
    }
}
