//! Axes: from a figure of any size, zero, infinite or missing, to a place and tick labels.
//!
//! A place is what the scale makes of a figure; pixels are linear in places. No range is empty,
//! infinite or reversed.

use crate::results::print::minus;

/// Ticks come no closer than this share of the axis.
const CLOSEST: f64 = 0.11;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    Linear,
    /// Positive figures.
    Log,
    /// asinh(figure / unit): linear within ± a unit, logarithmic far from it.
    Signed {
        unit: f64,
    },
}

#[derive(Debug, Clone)]
pub struct Axis {
    pub scale: Scale,
    /// Ends, after the scale.
    pub range: [f64; 2],
    /// Place after the scale, and label.
    pub ticks: Vec<(f64, String)>,
    /// Where zero stands beside a logarithmic axis.
    zero: Option<f64>,
    /// Where a logarithmic scale begins, and where what is below it stands.
    below: Option<[f64; 2]>,
}

impl Axis {
    /// Of any figures.
    pub fn linear(values: impl IntoIterator<Item = f64>) -> Self {
        let [low, high] = span(values, 0.05, 1e-6).unwrap_or([0.0, 1.0]);
        let step = nice_step((high - low) / 6.0);
        let first = (low / step).ceil() as i64;
        let ticks = (first..)
            .map(|i| i as f64 * step)
            .take(12)
            .take_while(|tick| *tick <= high)
            .map(|tick| (tick, plain(tick, step)))
            .collect();
        Self { scale: Scale::Linear, range: [low, high], ticks, zero: None, below: None }
    }

    /// Of figures from zero up; zero has a place of its own at the lower end.
    pub fn log(values: impl IntoIterator<Item = f64> + Clone) -> Self {
        Self::log_above(values, [])
    }

    /// The same, with a place for `levels` that lie below: it is at the end, without a tick.
    pub fn log_above(
        values: impl IntoIterator<Item = f64> + Clone,
        levels: impl IntoIterator<Item = f64>,
    ) -> Self {
        let zero = values.clone().into_iter().any(|value| value == 0.0);
        let logs = values.into_iter().filter(|value| *value > 0.0).map(f64::log10);
        let [mut low, high] = span(logs, 0.06, 0.5).unwrap_or([-3.5, -0.5]);
        let drawn = low;
        let mut levels = levels.into_iter().filter(|level| !zero || *level != 0.0);
        let beyond = levels.any(|level| level <= 0.0 || level.log10() < drawn);
        let below = beyond.then(|| {
            let gap = 0.13 * (high - low);
            low -= gap;
            [drawn, low + 0.35 * gap]
        });
        let zero = zero.then(|| {
            let gap = 0.12 * (high - low);
            low -= gap;
            low + 0.4 * gap
        });
        let decades = || (drawn.ceil() as i32..=high.floor() as i32).map(|d| (1.0, d));
        let between = || {
            let all = drawn.floor() as i32..=high.floor() as i32;
            all.flat_map(|d| [(2.0, d), (5.0, d)])
        };
        let coarse = decades().filter(|(_, d)| d % 3 == 0);
        let few = high - drawn < 2.5;
        let candidates: Vec<f64> = coarse
            .chain(decades())
            .chain(between().filter(|_| few))
            .map(|(digit, decade)| digit * 10f64.powi(decade))
            .collect();
        let superscripts = drawn < -3.5 || high > 4.5;
        let mut axis = Self { scale: Scale::Log, range: [low, high], ticks: vec![], zero, below };
        if let Some(place) = zero {
            axis.ticks.push((place, "0".into()));
        }
        axis.place_ticks(candidates, drawn, |tick| {
            if superscripts { power_of_ten(tick) } else { short_decimal(tick) }
        });
        axis
    }

    /// Of figures of either sign; linear where they are all within a few `unit`s. A fifth of a
    /// unit is always visible, so that rounding noise does not look like a change.
    pub fn signed(values: impl IntoIterator<Item = f64> + Clone, unit: f64) -> Self {
        let unit = if unit.is_finite() && unit.abs() > 1e-12 { unit.abs() } else { 1.0 };
        let finite = values.clone().into_iter().filter(|value| value.is_finite());
        let largest = finite.map(f64::abs).fold(0.0, f64::max);
        if largest <= 8.0 * unit {
            let mut axis = Self::linear(values.into_iter().chain([-0.2 * unit, 0.2 * unit]));
            axis.add_signs();
            return axis;
        }
        let scale = Scale::Signed { unit };
        let places = values.into_iter().chain([0.0]).map(|value| (value / unit).asinh());
        let range @ [low, _] = span(places, 0.05, 1e-6).unwrap_or([-1.0, 1.0]);
        let decades = (unit.log10().floor() as i32..=largest.log10().floor() as i32).rev();
        let mut candidates = vec![0.0];
        for digits in [&[1.0][..], &[5.0, 2.0]] {
            for decade in decades.clone() {
                for digit in digits {
                    let tick = digit * 10f64.powi(decade);
                    candidates.extend([tick, -tick]);
                }
            }
        }
        let mut axis = Self { scale, range, ticks: vec![], zero: None, below: None };
        axis.place_ticks(candidates, low, |tick| {
            if tick.abs() < 1e4 { short_decimal(tick) } else { power_of_ten(tick) }
        });
        axis.add_signs();
        axis
    }

    /// Sizes in bits: logarithmic where they differ much, since the small ones differ by less.
    pub fn bits(values: impl IntoIterator<Item = f64> + Clone) -> Self {
        let positive =
            || values.clone().into_iter().filter(|value| value.is_finite() && *value > 0.0);
        let least = positive().fold(f64::INFINITY, f64::min);
        let most = positive().fold(0.0, f64::max);
        if !least.is_finite() || most / least < 1.7 {
            return Self::linear(values);
        }
        let [low, high] = span(positive().map(f64::log10), 0.06, 0.1).unwrap_or([0.0, 1.2]);
        let mut axis =
            Self { scale: Scale::Log, range: [low, high], ticks: vec![], zero: None, below: None };
        let candidates = vec![
            4.0, 8.0, 16.0, 2.0, 1.0, 32.0, 64.0, 3.0, 6.0, 12.0, 24.0, 5.0, 10.0, 20.0, 7.0, 0.5,
            0.25,
        ];
        axis.place_ticks(candidates, low, short_decimal);
        axis
    }

    /// Leaves the last `share` of the axis to what is beyond its scale.
    pub fn leave(mut self, share: f64) -> Self {
        let [low, high] = self.range;
        self.range[1] = low + (high - low) / (1.0 - share);
        self
    }

    /// Counted from `first` to `last`, at least 1 apart.
    pub fn counted(first: usize, last: usize) -> Self {
        let (low, high) = (first as f64, last.max(first + 1) as f64);
        let step = nice_step((high - low) / 5.0).max(1.0);
        let ticks = ((low / step).ceil() as i64..=(high / step).floor() as i64)
            .map(|i| i as f64 * step)
            .map(|tick| (tick, format!("{tick}")))
            .collect();
        Self { scale: Scale::Linear, range: [low, high], ticks, zero: None, below: None }
    }

    /// Where a figure stands, after the scale: at an end of the axis if it is beyond.
    pub fn place(&self, value: f64) -> f64 {
        let [low, high] = self.range;
        let place = match (self.scale, self.zero) {
            (Scale::Log, Some(zero)) if value <= 0.0 => zero,
            (Scale::Log, _) if value <= 0.0 => self.below.map_or(low, |[_, below]| below),
            (Scale::Log, _) => match self.below {
                Some([start, below]) if value.log10() < start => below,
                _ => value.log10(),
            },
            (Scale::Linear, _) => value,
            (Scale::Signed { unit }, _) => (value / unit).asinh(),
        };
        if place.is_nan() { high } else { place.clamp(low, high) }
    }

    /// The pixel of a place, between those of the axis' ends.
    pub fn pixel(&self, place: f64, [from, to]: [i32; 2]) -> i32 {
        let [low, high] = self.range;
        let share = (place - low) / (high - low);
        (f64::from(from) + share * f64::from(to - from)).round() as i32
    }

    /// Keeps the first candidates that leave room for each other.
    fn place_ticks(&mut self, candidates: Vec<f64>, low: f64, label: impl Fn(f64) -> String) {
        let [start, end] = self.range;
        for tick in candidates {
            let place = match self.scale {
                Scale::Linear => tick,
                Scale::Log => tick.log10(),
                Scale::Signed { unit } => (tick / unit).asinh(),
            };
            let room = |taken: &(f64, String)| (taken.0 - place).abs() >= CLOSEST * (end - start);
            if place >= low && place <= end && self.ticks.iter().all(room) {
                self.ticks.push((place, label(tick)));
            }
        }
        self.ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
    }

    fn add_signs(&mut self) {
        for (place, label) in &mut self.ticks {
            if *place > 0.0 {
                label.insert(0, '+');
            }
        }
    }
}

/// Least and largest finite value with `padding` (a share) around; values that are all equal are
/// given a tenth of their size on each side, and no range is shorter than `least` each way. `None`
/// without any.
fn span(values: impl IntoIterator<Item = f64>, padding: f64, least: f64) -> Option<[f64; 2]> {
    let finite = values.into_iter().filter(|value| value.is_finite());
    // Sums of the largest numbers overflow.
    let (low, high) = finite
        .map(|value| value.clamp(-1e300, 1e300))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if low > high {
        return None;
    }
    let (middle, half) = (0.5 * (low + high), 0.5 * (high - low));
    let equal = half <= 1e-9 * middle.abs();
    let half = if equal { least.max(0.1 * middle.abs()) } else { half.max(least) };
    let half = half * (1.0 + 2.0 * padding);
    Some([middle - half, middle + half])
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let nice = [1.0, 2.0, 5.0].map(|digit| digit * power);
    nice.into_iter().find(|nice| *nice >= step * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// With the decimals that steps of this size need.
fn plain(tick: f64, step: f64) -> String {
    if tick.abs() < 1e-9 * step.max(1e-290) {
        return "0".into();
    }
    if tick.abs() >= 1e5 || (tick != 0.0 && step < 1e-4) {
        return minus(&format!("{tick:.1e}"));
    }
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    minus(&format!("{:.decimals$}", tick + 0.0))
}

/// 0.002, 5, 200
fn short_decimal(tick: f64) -> String {
    // A digit times a power of ten has noise in its last places.
    let text = format!("{tick:.6}");
    minus(text.trim_end_matches('0').trim_end_matches('.'))
}

/// 10⁻³, 2·10⁵
fn power_of_ten(tick: f64) -> String {
    let exponent = (tick.abs().log10() + 1e-9).floor() as i32;
    let digit = (tick.abs() / 10f64.powi(exponent)).round();
    let sign = if tick < 0.0 { "−" } else { "" };
    if exponent == 0 {
        return format!("{sign}{digit}");
    }
    let superscripts: String = exponent.to_string().chars().map(superscript).collect();
    if digit == 1.0 {
        format!("{sign}10{superscripts}")
    } else {
        format!("{sign}{digit}·10{superscripts}")
    }
}

fn superscript(c: char) -> char {
    match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + (digit as u32 - '0' as u32)).unwrap_or(digit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&Axis::linear([4.0, 5.0])), ["4.0", "4.2", "4.4", "4.6", "4.8", "5.0"]);
        assert_eq!(
            labels(&Axis::log([0.001, 0.1])),
            ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"]
        );
        assert_eq!(labels(&Axis::log([0.0, 1e-12, 50.0]))[..2], ["0", "10⁻¹²"]);
        assert_eq!(labels(&Axis::bits([4.25, 16.0])), ["4", "5", "6", "8", "10", "12", "16"]);
        assert_eq!(labels(&Axis::signed([-0.5, 1.0], 1.0)), ["−0.5", "0", "+0.5", "+1.0"]);
        let wide = Axis::signed([-90.0, 1e6], 1.0);
        assert!(labels(&wide).contains(&"0") && labels(&wide).contains(&"+10⁶"), "{wide:?}");
    }

    /// Whatever comes in, the range is finite and rising and everything has a place in it.
    #[test]
    fn no_figures_break_an_axis() {
        let odd = [
            vec![],
            vec![0.0],
            vec![-0.0, 0.0],
            vec![3.0],
            vec![1e-300, 1e300],
            vec![f64::MAX, f64::MIN],
            vec![5e-324],
            vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY],
            vec![1.0, 1.0 + f64::EPSILON],
            vec![-90.0, 1e6],
        ];
        for values in odd {
            let axes = [
                Axis::linear(values.clone()),
                Axis::log(values.clone()),
                Axis::signed(values.clone(), 1.0),
                Axis::signed(values.clone(), 0.0),
                Axis::bits(values.clone()),
                Axis::log_above(values.clone(), [0.0, 1e-9]),
            ];
            for axis in axes {
                let [low, high] = axis.range;
                assert!(low.is_finite() && high.is_finite() && low < high, "{values:?} {axis:?}");
                assert!(axis.ticks.len() < 14, "{axis:?}");
                for value in &values {
                    assert!((low..=high).contains(&axis.place(*value)), "{value} {axis:?}");
                }
            }
        }
    }
}
