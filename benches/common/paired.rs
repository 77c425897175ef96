//! Two ways of the same work, in turn.

/// Figures of each way and the first over the second, all from least to most.
pub struct Paired {
    pub first: Vec<f64>,
    pub second: Vec<f64>,
    pub ratio: Vec<f64>,
}

/// Measures both in each of an odd number of rounds, after one that warms caches and the allocator.
pub fn paired<E>(
    rounds: usize,
    mut first: impl FnMut() -> Result<f64, E>,
    mut second: impl FnMut() -> Result<f64, E>,
) -> Result<Paired, E> {
    let mut paired = Paired { first: Vec::new(), second: Vec::new(), ratio: Vec::new() };
    for round in 0..=rounds {
        let (a, b) = (first()?, second()?);
        if round > 0 {
            paired.first.push(a);
            paired.second.push(b);
            paired.ratio.push(a / b);
        }
    }
    for values in [&mut paired.first, &mut paired.second, &mut paired.ratio] {
        values.sort_by(f64::total_cmp);
    }
    Ok(paired)
}

impl Paired {
    /// Medians of both.
    pub fn medians(&self) -> (f64, f64) {
        (self.first[self.first.len() / 2], self.second[self.second.len() / 2])
    }

    /// Of the ratio: median (least, most).
    pub fn ratio(&self) -> String {
        let ratio = &self.ratio;
        let (least, most) = (ratio[0], ratio[ratio.len() - 1]);
        format!("{:.2} ({least:.2}, {most:.2})", ratio[ratio.len() / 2])
    }
}
