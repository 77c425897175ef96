//! Damage against size: one point a codec, the front joined.

use super::axis::{Axis, Scale};
use super::canvas::{Anchor, Canvas, Chart, Frame, Marker, draw};
use super::key::Key;
use super::labels::{self, Label};
use super::{name_lines, shorten, theme};
use crate::error::Result;
use crate::report::sweep::{CellReport, SubjectReport};
use crate::report::table::{signed, small};
use crate::report::text::one_line;

const BITS: &str = "Bits a value";
const BITS_LOG: &str = "Bits a value (log scale)";
/// Longer names are broken in two, where they are two.
const LABEL_LENGTH: usize = 20;

const KEY_LENGTH: usize = 46;

struct Point<'a> {
    cell: &'a CellReport,
    figure: f64,
    interval: Option<[f64; 2]>,
    on_front: bool,
    title: String,
}

pub fn perplexity(subject: &SubjectReport, limit: f64) -> Result<(Chart, String)> {
    let points: Vec<Point> = subject
        .cells
        .iter()
        .map(|cell| {
            let f = &cell.result.figures;
            let interval = f.perplexity_change_percent_ci95;
            Point {
                cell,
                figure: f.perplexity_change_percent,
                interval,
                on_front: cell.on_perplexity_front,
                title: title(
                    cell,
                    "perplexity",
                    &format!("{} %", signed(f.perplexity_change_percent)),
                    interval.map(|ends| ends.map(signed)),
                ),
            }
        })
        .collect();
    let figures = points.iter().flat_map(|p| p.interval.into_iter().flatten().chain([p.figure]));
    let axis = Axis::signed(figures.chain([limit, -limit]), limit);
    let scale = match axis.scale {
        Scale::Linear => "",
        _ => ", asinh scale",
    };
    let label = format!(
        "Perplexity change in percent against bits a value, {} codecs on {}, with 95 % intervals",
        points.len(),
        subject.subject.model.provenance.source
    );
    let y_name = format!("Perplexity change, %{scale}");
    let chart = scatter(
        subject,
        &points,
        (&label, "Perplexity change against size"),
        (axis, &y_name),
        Some(limit),
    )?;
    let caption = format!(
        "Change of perplexity against the untouched cache{}. Joined: no codec of as few bits or \
         fewer is nearer to zero. Shaded: within ± the limit of {limit} %.{}",
        bars(subject),
        if subject.recommended_codec().is_some() { " ★: recommended." } else { "" }
    );
    Ok((chart, caption))
}

pub fn kld(subject: &SubjectReport) -> Result<(Chart, String)> {
    let points: Vec<Point> = subject
        .cells
        .iter()
        .map(|cell| {
            let f = &cell.result.figures;
            Point {
                cell,
                figure: f.kld_mean,
                interval: f.kld_mean_ci95,
                on_front: cell.on_kld_front,
                title: title(
                    cell,
                    "mean KLD",
                    &format!("{} nats", small(f.kld_mean)),
                    f.kld_mean_ci95.map(|ends| ends.map(small)),
                ),
            }
        })
        .collect();
    // An interval that all but reaches zero is cut, so that it does not set the scale.
    let held: Vec<f64> = points
        .iter()
        .flat_map(|p| {
            let ends = p.interval.into_iter().flatten().filter(|end| *end > 0.0);
            ends.map(|end| end.clamp(p.figure / 10.0, p.figure * 10.0)).chain([p.figure])
        })
        .collect();
    let label = format!(
        "Mean KL divergence in nats a token against bits a value, {} codecs on {}, with 95 % \
         intervals",
        points.len(),
        subject.subject.model.provenance.source
    );
    let axis = Axis::log(held.iter().copied());
    let y_name = "Mean KLD, nats a token (log scale)";
    let chart =
        scatter(subject, &points, (&label, "KL divergence against size"), (axis, y_name), None)?;
    let caption = format!(
        "Mean KL divergence, untouched ‖ compressed{}. Joined: no codec of as few bits or fewer \
         has less.{}",
        bars(subject),
        if points.iter().any(|p| p.figure == 0.0) { " 0 stands below the scale." } else { "" }
    );
    Ok((chart, caption))
}

fn bars(subject: &SubjectReport) -> &'static str {
    if subject.subject.windows < 2 { " (one window: no intervals)" } else { ", 95 % intervals" }
}

fn title(cell: &CellReport, what: &str, figure: &str, interval: Option<[String; 2]>) -> String {
    let f = &cell.result.figures;
    let interval = match interval {
        Some([low, high]) => format!("95 % interval {low} … {high}"),
        None => "one window, no interval".into(),
    };
    format!("{}\n{:.3} bits a value\n{what} {figure}\n{interval}", f.codec, f.bits_per_value)
}

fn scatter(
    subject: &SubjectReport,
    points: &[Point],
    (label, heading): (&str, &str),
    (y, y_name): (Axis, &str),
    limit: Option<f64>,
) -> Result<Chart> {
    let bits = |point: &Point| point.cell.result.figures.bits_per_value;
    let x = Axis::bits(points.iter().map(bits));
    let x_name = if x.scale == Scale::Log { BITS_LOG } else { BITS };
    let frame = Frame { x, y, x_name: x_name.into(), y_name: y_name.into() };
    let at = |point: &Point| frame.place(bits(point), point.figure);
    let bar = |point: &Point| {
        let [low, high] = point.interval?;
        let (x, bottom) = frame.place(bits(point), low);
        let (_, top) = frame.place(bits(point), high);
        Some([x, top, bottom])
    };
    let mut front: Vec<&Point> = points.iter().filter(|point| point.on_front).collect();
    front.sort_by(|a, b| bits(a).total_cmp(&bits(b)));

    let names: Vec<Label> = front
        .iter()
        .map(|point| Label { lines: point.name_lines(subject), point: at(point) })
        .collect();
    let all: Vec<(i32, i32)> = points.iter().map(at).collect();
    let bars: Vec<[i32; 4]> = points
        .iter()
        .filter_map(|point| bar(point).map(|[x, top, bottom]| [x - 3, top, x + 3, bottom]))
        .chain(front.windows(2).flat_map(|pair| along(at(pair[0]), at(pair[1]))))
        .chain(limit.map(|limit| {
            let (_, y) = frame.place(f64::NAN, limit);
            [Frame::PLOT[0], y - 1, Frame::PLOT[2], y + 1]
        }))
        .collect();
    // Where names find no room they are numbers, explained under the plot.
    let (names, placed, key) = match labels::place(&names, &all, &bars, Frame::PLOT) {
        Some(placed) => (names, placed, Key::new(vec![])),
        None => {
            let numbers: Vec<Label> = (1..)
                .zip(&front)
                .map(|(i, point)| Label { lines: vec![format!("{i}")], point: at(point) })
                .collect();
            let placed = labels::place(&numbers, &all, &bars, Frame::PLOT);
            let placed = placed.or_else(|| labels::place(&numbers, &[], &[], Frame::PLOT));
            let entries = front.iter().map(|point| point.name(subject)).collect();
            (numbers, placed.unwrap_or_default(), Key::new(entries))
        }
    };

    draw(label, Frame::UNDER + key.height(), |canvas| {
        if let Some(limit) = limit {
            let [left, _, right, _] = Frame::PLOT;
            let (_, top) = frame.place(0.0, limit.abs());
            let (_, bottom) = frame.place(0.0, -limit.abs());
            canvas.rect([left, top, right, bottom], theme::WITHIN)?;
        }
        canvas.frame(heading, &frame)?;
        if let Some(limit) = limit {
            limit_line(canvas, &frame, limit)?;
        }
        for point in points.iter().filter(|point| !point.on_front) {
            error_bar(canvas, bar(point), theme::POINT)?;
            canvas.marker(point.marker(Marker::Ring), at(point), 3, theme::POINT)?;
        }
        canvas.line(front.iter().map(|point| at(point)).collect(), theme::FRONT, 1)?;
        for point in &front {
            error_bar(canvas, bar(point), theme::FRONT)?;
            canvas.marker(point.marker(Marker::Disc), at(point), 4, theme::FRONT)?;
        }
        if let Some(point) = points.iter().find(|point| subject.recommends(point.cell)) {
            canvas.ring(at(point), 8, theme::FRONT)?;
        }
        for (label, placed) in names.iter().zip(&placed) {
            if placed.far {
                canvas.line(vec![label.point, placed.at], theme::AXIS, 1)?;
            }
            for (line, at) in label.lines.iter().zip(labels::line_places(label, placed)) {
                canvas.text(line, at, placed.anchor, theme::INK)?;
            }
        }
        key.draw(canvas, Frame::UNDER, theme::INK, |canvas, i, at| {
            canvas.text(&format!("{}", i + 1), at, Anchor::Middle, theme::FRONT)
        })?;
        for (i, point) in points.iter().enumerate() {
            canvas.hit(at(point), &point.title, i);
        }
        Ok(())
    })
}

impl Point<'_> {
    /// In the key.
    fn name(&self, subject: &SubjectReport) -> String {
        let name = shorten(&one_line(&self.cell.result.figures.codec), KEY_LENGTH);
        if subject.recommends(self.cell) { name + " ★" } else { name }
    }

    /// A figure that no axis holds points beyond its end.
    fn marker(&self, usual: Marker) -> Marker {
        if self.figure.is_finite() { usual } else { Marker::Up }
    }

    fn name_lines(&self, subject: &SubjectReport) -> Vec<String> {
        let mut lines = name_lines(&self.cell.result.figures.codec, LABEL_LENGTH);
        if subject.recommends(self.cell)
            && let Some(last) = lines.last_mut()
        {
            last.push_str(" ★");
        }
        lines
    }
}

fn limit_line(canvas: &mut Canvas, frame: &Frame, limit: f64) -> Result<()> {
    let [left, _, right, _] = Frame::PLOT;
    let (_, y) = frame.place(0.0, limit);
    canvas.line(vec![(left, y), (right, y)], theme::LIMIT, 1)
}

/// Boxes along a line.
fn along(from: (i32, i32), to: (i32, i32)) -> Vec<[i32; 4]> {
    let steps = (from.0.abs_diff(to.0).max(from.1.abs_diff(to.1)) / 8).max(1) as i32;
    let between = |a: i32, b: i32, i: i32| a + (b - a) * i / steps;
    (0..=steps)
        .map(|i| (between(from.0, to.0, i), between(from.1, to.1, i)))
        .map(|(x, y)| [x - 2, y - 2, x + 2, y + 2])
        .collect()
}

/// The interval, with caps; x, top and bottom.
fn error_bar(
    canvas: &mut Canvas,
    bar: Option<[i32; 3]>,
    color: plotters::style::RGBColor,
) -> Result<()> {
    let Some([x, top, bottom]) = bar else { return Ok(()) };
    for line in
        [[(x, top), (x, bottom)], [(x - 3, top), (x + 3, top)], [(x - 3, bottom), (x + 3, bottom)]]
    {
        canvas.line(line.to_vec(), color, 1)?;
    }
    Ok(())
}
