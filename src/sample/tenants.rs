use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

/// The exponent of a Zipf distribution: the tenant of rank `k` gets a share proportional to `1 / k^exponent`.
///
/// 0 is uniform, about 1 is what traffic looks like; more is steeper.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Zipf(f64);

/// A text that is no Zipf exponent.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no exponent: a number from 0 (uniform) to 10 is")]
pub struct InvalidZipf(String);

impl Zipf {
    /// What traffic looks like.
    pub const NATURAL: Self = Self(1.0);
}

impl FromStr for Zipf {
    type Err = InvalidZipf;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(Self(exponent)),
            _ => Err(InvalidZipf(text.to_owned())),
        }
    }
}

impl fmt::Display for Zipf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Draws tenants by their share, in constant time: Vose's alias method.
#[derive(Debug)]
pub(super) enum Tenants {
    Uniform(u32),
    /// One column a tenant: how likely its own tenant is kept, and who is taken otherwise.
    Skewed(Vec<(f64, u32)>),
}

impl Tenants {
    /// `count` tenants, numbered from 0, the busiest first. Without any, tenant 0 is drawn.
    pub(super) fn new(count: u32, zipf: Zipf) -> Self {
        if count < 2 || zipf.0 == 0.0 {
            return Self::Uniform(count.max(1));
        }
        let shares: Vec<f64> = (1..=count).map(|rank| f64::from(rank).powf(-zipf.0)).collect();
        let mean = shares.iter().sum::<f64>() / f64::from(count);
        // Each column is one mean high. What a small one lacks is filled up by a large one.
        let mut columns: Vec<(f64, u32)> = (0..count).zip(&shares).map(|(own, share)| (share / mean, own)).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..count).partition(|&tenant| columns[tenant as usize].0 < 1.0);
        while let (Some(&filled), Some(&donor)) = (small.last(), large.last()) {
            small.pop();
            columns[filled as usize].1 = donor;
            let rest = columns[donor as usize].0 + columns[filled as usize].0 - 1.0;
            columns[donor as usize].0 = rest;
            if rest < 1.0 {
                large.pop();
                small.push(donor);
            }
        }
        Self::Skewed(columns)
    }

    pub(super) fn draw(&self, rng: &mut Rng) -> u32 {
        match self {
            Self::Uniform(count) => rng.u32(0..*count),
            Self::Skewed(columns) => {
                let column = rng.usize(0..columns.len());
                let (keep, other) = columns[column];
                // The number of columns is a u32, so every index is.
                if rng.f64() < keep { column as u32 } else { other }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::{Tenants, Zipf};

    /// The share of each tenant that the alias table really gives.
    fn shares_of(tenants: &Tenants) -> Vec<f64> {
        let Tenants::Skewed(columns) = tenants else { panic!("uniform") };
        let mut shares = vec![0.0; columns.len()];
        for (own, &(keep, other)) in columns.iter().enumerate() {
            // What rounding left above 1 is kept for certain, and below 1 goes back to the column itself.
            let keep = keep.min(1.0);
            shares[own] += keep / columns.len() as f64;
            shares[other as usize] += (1.0 - keep) / columns.len() as f64;
        }
        shares
    }

    proptest! {
        #[test]
        fn the_alias_table_gives_every_tenant_its_zipf_share(count in 2..400_u32, exponent in 0.01..10.0_f64) {
            let shares = shares_of(&Tenants::new(count, Zipf(exponent)));
            let total: f64 = (1..=count).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for (rank, share) in (1..=count).zip(shares) {
                let wanted = f64::from(rank).powf(-exponent) / total;
                prop_assert!((share - wanted).abs() < 1e-9, "rank {rank}: {share} instead of {wanted}");
            }
        }
    }

    #[test]
    fn a_drawn_sample_follows_the_shares() {
        let tenants = Tenants::new(4, Zipf(1.0));
        let mut rng = Rng::with_seed(1);
        let mut drawn = [0_u32; 4];
        for _ in 0..100_000 {
            drawn[tenants.draw(&mut rng) as usize] += 1;
        }
        for (rank, count) in (1..).zip(drawn) {
            let wanted = 48_000.0 / f64::from(rank);
            assert!((f64::from(count) - wanted).abs() < 0.05 * wanted, "rank {rank}: {count} instead of {wanted}");
        }
    }

    #[test]
    fn exponent_0_is_uniform_and_what_is_no_exponent_is_refused() {
        assert!(matches!(Tenants::new(7, "0".parse().unwrap()), Tenants::Uniform(7)));
        for bad in ["-1", "nan", "inf", "11", "", "one"] {
            assert!(bad.parse::<Zipf>().is_err(), "{bad}");
        }
    }
}
