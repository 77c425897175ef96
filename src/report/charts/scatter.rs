//! Damage against size: one point a codec, the front joined.

use super::axis::{Axis, Scale};
use super::canvas::{Anchor, Chart, Frame, Marker, draw};
use super::key::Key;
use super::{numbers, shorten, theme};
use crate::report::text::one_line;
use crate::results::print::{counted, minus, signed, small};
use crate::results::sweep::{CellReport, SubjectReport};

const BITS: &str = "Bits a value";
const BITS_LOG: &str = "Bits a value (log scale)";
/// Of a name in the key, characters.
const NAME: usize = 46;
/// With more points only the front, the recommended codec and controls are numbered.
const MOST: usize = 12;
/// Width of the column at the right edge for controls, which are not to scale.
const BEYOND: i32 = 58;

struct Point<'a> {
    cell: &'a CellReport,
    /// Among the subject's cells.
    index: usize,
    figure: f64,
    interval: Option<[f64; 2]>,
    on_front: bool,
    /// No smaller than f16: it would set the scale of both axes, far from what is compared.
    control: bool,
    title: String,
}

pub fn perplexity(subject: &SubjectReport, limit: f64) -> (Chart, String) {
    let points = points(subject, "perplexity", |cell| {
        let f = &cell.result.figures;
        let interval = f.perplexity_change_percent_ci95;
        Shown {
            figure: f.perplexity_change_percent,
            interval,
            on_front: cell.on_perplexity_front,
            text: format!("{} %", signed(f.perplexity_change_percent)),
            interval_text: interval.map(|ends| ends.map(signed)),
        }
    });
    let figures =
        compared(&points).flat_map(|p| p.interval.into_iter().flatten().chain([p.figure]));
    let axis = Axis::signed(figures.chain([limit, -limit]), limit);
    let scale = match axis.scale {
        Scale::Linear => "",
        _ => ", asinh scale",
    };
    let label = format!(
        "Perplexity change in percent against bits a value, {} on {}, with 95 % intervals",
        counted(points.len(), "codec"),
        subject.subject.model.name()
    );
    let y_name = format!("Perplexity change, %{scale}");
    let (chart, notes) = scatter(
        subject,
        &points,
        (&label, "Perplexity change against size"),
        (axis, &y_name),
        Some(limit),
    );
    let caption = format!(
        "Change of perplexity against the untouched cache{}. The line joins the \
         codecs that no other beats in both size and change. Shaded: within ± the limit of {} %.{notes}",
        bars(subject),
        limit
    );
    (chart, caption)
}

pub fn kld(subject: &SubjectReport) -> (Chart, String) {
    let points = points(subject, "mean KLD", |cell| {
        let f = &cell.result.figures;
        Shown {
            figure: f.kld_mean,
            interval: f.kld_mean_ci95,
            on_front: cell.on_kld_front,
            text: format!("{} nats", small(f.kld_mean)),
            interval_text: f.kld_mean_ci95.map(|ends| ends.map(small)),
        }
    });
    // An interval that all but reaches zero is cut, so that it does not set the scale.
    let held: Vec<f64> = compared(&points)
        .flat_map(|p| {
            let ends = p.interval.into_iter().flatten().filter(|end| *end > 0.0);
            ends.map(|end| end.clamp(p.figure / 10.0, p.figure * 10.0)).chain([p.figure])
        })
        .collect();
    let label = format!(
        "Mean KL divergence in nats a token against bits a value, {} on {}, with 95 % \
         intervals",
        counted(points.len(), "codec"),
        subject.subject.model.name()
    );
    let floors = points.iter().filter(|p| p.control).map(|p| p.figure);
    let axis = Axis::log_above(held.iter().copied(), floors);
    let y_name = "Mean KLD, nats a token (log scale)";
    let (chart, notes) =
        scatter(subject, &points, (&label, "KL divergence against size"), (axis, y_name), None);
    let caption = format!(
        "Mean KL divergence, untouched ‖ compressed{}. The line joins the codecs \
         that no other beats in both size and KLD.{}{notes}",
        bars(subject),
        if held.contains(&0.0) { " 0 stands below the scale." } else { "" }
    );
    (chart, caption)
}

/// The figure of a cell that a picture shows.
struct Shown {
    figure: f64,
    interval: Option<[f64; 2]>,
    on_front: bool,
    text: String,
    interval_text: Option<[String; 2]>,
}

fn points<'a>(
    subject: &'a SubjectReport,
    what: &str,
    shown: impl Fn(&CellReport) -> Shown,
) -> Vec<Point<'a>> {
    let saves = |cell: &CellReport| cell.result.figures.compression_ratio > 1.0;
    let any_saves = subject.cells.iter().any(saves);
    let point = |(index, cell): (usize, &'a CellReport)| {
        let Shown { figure, interval, on_front, text, interval_text } = shown(cell);
        let f = &cell.result.figures;
        let interval_text = match interval_text {
            Some([low, high]) => format!("95 % interval {low} … {high}"),
            None => "one window, no interval".into(),
        };
        let figures =
            format!("{:.3} bits a value\n{what} {text}\n{interval_text}", f.bits_per_value);
        Point {
            cell,
            index,
            figure,
            interval,
            on_front,
            control: any_saves && !saves(cell),
            title: format!("{}\n{}", f.codec, minus(&figures)),
        }
    };
    subject.cells.iter().enumerate().map(point).collect()
}

fn compared<'p>(points: &'p [Point<'p>]) -> impl Iterator<Item = &'p Point<'p>> + Clone {
    points.iter().filter(|point| !point.control)
}

fn bars(subject: &SubjectReport) -> &'static str {
    if subject.subject.windows < 2 { " (one window: no intervals)" } else { ", 95 % intervals" }
}

/// With notes for the caption.
fn scatter(
    subject: &SubjectReport,
    points: &[Point],
    (label, heading): (&str, &str),
    (y, y_name): (Axis, &str),
    limit: Option<f64>,
) -> (Chart, String) {
    let controls: Vec<&Point> = points.iter().filter(|point| point.control).collect();
    let x = match Axis::bits(compared(points).map(Point::bits)) {
        axis if controls.is_empty() => axis,
        axis => axis.leave(f64::from(BEYOND) / f64::from(Frame::PLOT[2] - Frame::PLOT[0])),
    };
    let x_name = if x.scale == Scale::Log { BITS_LOG } else { BITS };
    let frame = Frame { x, y, x_name: x_name.into(), y_name: y_name.into() };
    let [left, top, right, bottom] = Frame::PLOT;
    let scale_end = if controls.is_empty() { right } else { right - BEYOND };
    let at = |point: &Point| match frame.place(point.bits(), point.figure) {
        (_, y) if point.control => (right - BEYOND / 2, y),
        place => place,
    };
    let bar = |point: &Point| {
        let [low, high] = point.interval.filter(|_| !point.control)?;
        Some([frame.place(point.bits(), high), frame.place(point.bits(), low)])
    };
    let mut sorted: Vec<&Point> = compared(points).collect();
    sorted.sort_by(|a, b| a.bits().total_cmp(&b.bits()));
    let front: Vec<&Point> = sorted.iter().copied().filter(|point| point.on_front).collect();
    let recommended = sorted.iter().copied().find(|point| subject.recommends(point.cell));
    let all_numbered = sorted.len() <= MOST;
    let (numbered, others): (Vec<&Point>, Vec<&Point>) =
        sorted.iter().chain(&controls).copied().partition(|point| {
            all_numbered || point.control || point.on_front || subject.recommends(point.cell)
        });
    let places = |points: &[&Point]| points.iter().map(|point| at(point)).collect::<Vec<_>>();
    let numbers = numbers::place(&places(&numbered), &places(&others), Frame::PLOT);
    let key = Key::new(numbered.iter().map(|point| point.name(subject)).collect());

    let chart = draw(label, Frame::UNDER + key.height(), |canvas| {
        if let Some(limit) = limit {
            let [(_, high), (_, low)] = [limit.abs(), -limit.abs()].map(|y| frame.place(0.0, y));
            canvas.rect([left, high, right, low], theme::WITHIN);
        }
        canvas.frame(heading, &frame);
        match limit {
            Some(limit) => {
                let (_, y) = frame.place(0.0, limit);
                canvas.line(&[(left, y), (right, y)], theme::LIMIT);
            }
            // A KL divergence without compression is a floor for all sizes.
            None => {
                for (x, y) in places(&controls) {
                    canvas.dotted([(left, y), (x, y)], theme::POINT);
                }
            }
        }
        if !controls.is_empty() {
            canvas.line(&[(scale_end, top), (scale_end, bottom)], theme::AXIS);
        }
        canvas.line(&places(&front), theme::FRONT);
        let off_front = sorted.iter().filter(|point| !point.on_front);
        for (point, color, marker, radius) in off_front
            .map(|point| (point, theme::POINT, Marker::Ring, 3))
            .chain(front.iter().map(|point| (point, theme::FRONT, Marker::Disc, 4)))
        {
            if let Some(bar) = bar(point) {
                canvas.error_bar(bar, 3, color);
            }
            // A figure that no axis holds points beyond its end.
            let marker = if point.figure.is_finite() { marker } else { Marker::Up };
            canvas.marker(marker, at(point), radius, color);
        }
        for place in places(&controls) {
            canvas.marker(Marker::Right, place, 4, theme::POINT);
        }
        if let Some(point) = recommended {
            canvas.ring(at(point), 8, theme::FRONT);
        }
        for number in &numbers {
            let cells = number.points.iter().map(|i| numbered[*i].index.to_string());
            let cells = cells.collect::<Vec<_>>().join(" ");
            canvas.name(&number.text, number.at, number.anchor, theme::INK, &cells);
        }
        key.draw(canvas, Frame::UNDER, |canvas, i, at| {
            canvas.text(&format!("{}", i + 1), at, Anchor::Middle, theme::FRONT);
        });
        for point in points {
            canvas.hit(at(point), &point.title, point.index, false);
        }
    });

    let mut notes = String::new();
    if recommended.is_some() {
        notes.push_str(" ★: recommended.");
    }
    if !controls.is_empty() {
        notes.push_str(" Right of the scale: codecs that are not smaller than f16.");
        if limit.is_none() {
            notes.push_str(" Dotted: its KLD, a floor for all sizes.");
        }
    }
    if !all_numbered {
        notes.push_str(" Codecs without a number are in the table.");
    }
    (chart, notes)
}

impl Point<'_> {
    fn bits(&self) -> f64 {
        self.cell.result.figures.bits_per_value
    }

    /// In the key.
    fn name(&self, subject: &SubjectReport) -> String {
        let name = shorten(&one_line(&self.cell.result.figures.codec), NAME);
        match self.control {
            // 16, 10.13
            true => {
                let bits = format!("{:.2}", self.bits());
                format!("{name}, {} bits", bits.trim_end_matches('0').trim_end_matches('.'))
            }
            false if subject.recommends(self.cell) => name + " ★",
            false => name,
        }
    }
}
