//! Lines: the change along a window, and how KL divergence is distributed over tokens.

use super::axis::{Axis, Scale};
use super::canvas::{Anchor, Canvas, Chart, Frame, Marker, Point, draw};
use super::key::Key;
use super::{front_cells, shorten, theme};
use crate::report::text::one_line;
use crate::results::figures::{Histogram, PositionBin};
use crate::results::print::{counted, minus, small};
use crate::results::sweep::{CellReport, SubjectReport};

const MOST: usize = theme::SERIES.len();
/// Of a name in the key.
const NAME: usize = 46;

pub fn position(subject: &SubjectReport, limit: f64) -> (Chart, String) {
    let (cells, of) = front_cells(subject, MOST);
    let bins = |cell: &CellReport| cell.result.figures.nll_change_by_position.clone();
    let all: Vec<PositionBin> = cells.iter().flat_map(|(_, cell)| bins(cell)).collect();
    let figures = all.iter().flat_map(|bin| bin.ci95.into_iter().flatten().chain([bin.mean]));
    let y = Axis::signed(figures.collect::<Vec<_>>(), (limit / 100.0).ln_1p());
    let first = all.iter().map(|bin| bin.start).min().unwrap_or(0);
    let last = all.iter().map(|bin| bin.end).max().unwrap_or(1);
    let scale = if y.scale == Scale::Linear { "" } else { " (asinh)" };
    let frame = Frame {
        x: Axis::counted(first, last),
        y,
        x_name: "Position in the window, tokens".into(),
        y_name: format!("NLL change, nats a token{scale}"),
    };
    let middle = |bin: &PositionBin| 0.5 * (bin.start + bin.end) as f64;
    let label = format!(
        "Change of the negative log-likelihood along the window, {} on {}",
        counted(cells.len(), "codec"),
        subject.subject.model.name()
    );
    let key = key(&cells);
    let chart = draw(&label, Frame::UNDER + key.height(), |canvas| {
        canvas.frame("Change along the window", &frame);
        let zero = [frame.place(first as f64, 0.0), frame.place(last as f64, 0.0)];
        canvas.line(&zero, theme::AXIS);
        for (i, (_, cell)) in cells.iter().enumerate() {
            let ends = |end: usize| {
                bins(cell)
                    .iter()
                    .filter_map(|bin| Some(frame.place(middle(bin), bin.ci95?[end])))
                    .collect::<Vec<_>>()
            };
            let outline: Vec<_> = ends(0).into_iter().chain(ends(1).into_iter().rev()).collect();
            if outline.len() > 2 {
                canvas.band(&outline, theme::SERIES[i]);
            }
        }
        for (i, (index, cell)) in cells.iter().enumerate() {
            let points: Vec<_> =
                bins(cell).iter().map(|bin| frame.place(middle(bin), bin.mean)).collect();
            line(canvas, i, &points, 3);
            for (bin, at) in bins(cell).iter().zip(&points) {
                let interval = bin.ci95.map_or(String::new(), |[low, high]| {
                    format!("\n95 % interval {low:+.4} … {high:+.4}")
                });
                let figures = format!(
                    "targets {} to {}: {:+.4} nats a token{interval}",
                    bin.start,
                    bin.end - 1,
                    bin.mean
                );
                let title = format!("{}\n{}", cell.result.figures.codec, minus(&figures));
                canvas.hit(*at, &title, *index, true);
            }
        }
        draw_key(canvas, &key);
    });
    let caption = format!(
        "Mean change of the negative log-likelihood by place of the target in its window{}. {}",
        if subject.subject.windows < 2 { "" } else { ", bands: 95 % intervals" },
        shown(cells.len(), of)
    );
    (chart, caption)
}

pub fn distribution(subject: &SubjectReport) -> (Chart, String) {
    let (cells, of) = front_cells(subject, MOST);
    let curves: Vec<Vec<(f64, f64)>> =
        cells.iter().map(|(_, cell)| at_or_above(&cell.result.figures.kld_histogram)).collect();
    let points = || curves.iter().flatten().copied();
    let x: Vec<f64> = points().map(|(kld, _)| kld).collect();
    let y: Vec<f64> = points().map(|(_, share)| share).chain([0.1, 1.0]).collect();
    let frame = Frame {
        x: Axis::log(x),
        y: Axis::log(y),
        x_name: "KLD x, nats (log scale)".into(),
        y_name: "P(KLD ≥ x), share of tokens".into(),
    };
    let label = format!(
        "Share of tokens whose KL divergence is at least x, {} on {}",
        counted(cells.len(), "codec"),
        subject.subject.model.name()
    );
    let key = key(&cells);
    let chart = draw(&label, Frame::UNDER + key.height(), |canvas| {
        canvas.frame("KL divergence over tokens", &frame);
        if curves.iter().all(Vec::is_empty) {
            let [left, top, right, bottom] = Frame::PLOT;
            let middle = ((left + right) / 2, (top + bottom) / 2);
            canvas.text("No token's KLD is above zero", middle, Anchor::Middle, theme::MUTED);
        }
        for (i, ((index, cell), curve)) in cells.iter().zip(&curves).enumerate() {
            let places: Vec<_> = curve.iter().map(|(x, y)| frame.place(*x, *y)).collect();
            line(canvas, i, &places, 4);
            for ((kld, share), at) in curve.iter().zip(&places) {
                let title = format!(
                    "{}\n{:.3} % of tokens have a KLD of {} nats or more",
                    cell.result.figures.codec,
                    100.0 * share,
                    minus(&small(*kld))
                );
                canvas.hit(*at, &title, *index, true);
            }
        }
        draw_key(canvas, &key);
    });
    let none = curves.iter().filter(|curve| curve.is_empty()).count();
    let zero = match none {
        0 => String::new(),
        n => format!(" {n} without a line: no token's KLD is above zero."),
    };
    let caption = format!("How many tokens are damaged how much. {}{zero}", shown(cells.len(), of));
    (chart, caption)
}

/// Edge, and the share at it or above: from the last edge that all lie above, to the last that
/// any does.
fn at_or_above(histogram: &Histogram) -> Vec<(f64, f64)> {
    let total: u64 = histogram.counts.iter().sum();
    let mut left = total;
    let mut out: Vec<(f64, f64)> = Vec::new();
    for (edge, count) in histogram.edges.iter().zip(&histogram.counts) {
        if left == 0 {
            break;
        }
        let share = left as f64 / total as f64;
        if *edge > 0.0 {
            if left == total {
                out.clear();
            }
            out.push((*edge, share));
        }
        left -= count;
    }
    out
}

fn shown(shown: usize, of: usize) -> String {
    match of - shown {
        0 => format!("Codecs on a front or recommended ({of})."),
        left_out => {
            format!("{shown} of the {of} codecs on a front or recommended, {left_out} left out.")
        }
    }
}

fn key(cells: &[(usize, &CellReport)]) -> Key {
    let name =
        |(_, cell): &(usize, &CellReport)| shorten(&one_line(&cell.result.figures.codec), NAME);
    Key::new(cells.iter().map(name).collect())
}

fn draw_key(canvas: &mut Canvas, key: &Key) {
    key.draw(canvas, Frame::UNDER, |canvas, i, (x, y)| {
        canvas.series(i, &[(x - 13, y), (x + 13, y)]);
        canvas.marker(Marker::ALL[i], (x, y), 4, theme::SERIES[i]);
    });
}

/// With every `apart`-th marker, beginning at another place for each series.
fn line(canvas: &mut Canvas, i: usize, points: &[Point], apart: usize) {
    canvas.series(i, points);
    let first = if points.len() > apart { i % apart } else { 0 };
    for at in points.iter().skip(first).step_by(apart) {
        canvas.marker(Marker::ALL[i], *at, 4, theme::SERIES[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fall_from_all_to_none() {
        let histogram =
            Histogram { edges: vec![0.0, 0.1, 1.0, 10.0, 100.0], counts: vec![0, 0, 3, 1, 0] };
        assert_eq!(at_or_above(&histogram), [(1.0, 1.0), (10.0, 0.25)]);
        let zero = Histogram { edges: vec![0.0, 0.1], counts: vec![4, 0] };
        assert!(at_or_above(&zero).is_empty());
        assert!(at_or_above(&Histogram { edges: vec![], counts: vec![] }).is_empty());
    }
}
