//! Computes quantiles of a beta distribution.

/// Both shape parameters of the distribution. Most of it lies near 0 and 1.
const SHAPE: f64 = 0.6;
/// B(0.6, 0.6), the beta function at these parameters.
const BETA: f64 = 2.4153442080024723;
/// Bisections of [0, 1] that give all digits of an f64.
const HALVINGS: usize = 60;

/// The x in [0, 1] with P(X ≤ x) = `probability` for X ~ Beta(0.6, 0.6).
pub(super) fn beta_quantile(probability: f64) -> f64 {
    // The distribution is symmetric, and its continued fraction converges fast only in the lower half.
    if probability > 0.5 {
        return 1.0 - beta_quantile(1.0 - probability);
    }
    if probability <= 0.0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if distribution(middle) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// P(X ≤ x) for x ≤ ½: the regularised incomplete beta function, by the continued fraction
/// <https://dlmf.nist.gov/8.17.E22>, evaluated from its end.
fn distribution(x: f64) -> f64 {
    const TERMS: usize = 60;
    let fraction = (1..=TERMS).rev().fold(1.0, |fraction, term| {
        let m = (term / 2) as f64;
        let factor = if term % 2 == 0 {
            m * (SHAPE - m) / ((SHAPE + 2.0 * m - 1.0) * (SHAPE + 2.0 * m))
        } else {
            -(SHAPE + m) * (2.0 * SHAPE + m) / ((SHAPE + 2.0 * m) * (SHAPE + 2.0 * m + 1.0))
        };
        1.0 + factor * x / fraction
    });
    x.powf(SHAPE) * (1.0 - x).powf(SHAPE) / (SHAPE * BETA * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `scipy.stats.beta.ppf(p, 0.6, 0.6)`.
    #[test]
    fn the_quantiles_of_scipy() {
        for (probability, expected) in SCIPY {
            let found = beta_quantile(probability);
            assert!((found - expected).abs() < 1e-13, "{probability}: {found} {expected}");
        }
    }

    const SCIPY: [(f64, f64); 7] = [
        (0.0, 0.0),
        (0.001, 1.855873851745199e-05),
        (0.1, 0.03958440558878085),
        (0.3, 0.23401700387523572),
        (0.5, 0.5000000000000001),
        (0.75, 0.824319621347305),
        (1.0, 1.0),
    ];
}
