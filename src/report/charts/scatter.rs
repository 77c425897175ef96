//! Damage against size: one point a codec, the front joined.

use super::axis::{Axis, Scale, minus};
use super::canvas::{Anchor, Canvas, Chart, Frame, Marker, draw};
use super::key::Key;
use super::labels::{self, Label, Obstacles, Placed, Segment};
use super::{name_lines, shorten, theme};
use crate::error::Result;
use crate::report::sweep::{CellReport, SubjectReport};
use crate::report::table::{signed, small};
use crate::report::text::one_line;
use plotters::style::RGBColor;

const BITS: &str = "Bits a value";
const BITS_LOG: &str = "Bits a value (log scale)";
/// Longer names are broken in two, where they are two.
const LABEL_LENGTH: usize = 20;

const KEY_LENGTH: usize = 46;

/// With more points only the front and the recommended codec are named.
const MOST_NAMES: usize = 12;

struct Point<'a> {
    cell: &'a CellReport,
    /// Among the subject's cells.
    index: usize,
    figure: f64,
    interval: Option<[f64; 2]>,
    on_front: bool,
    /// No smaller than f16: it would set the scale of both axes, far from what is compared.
    control: bool,
    /// The figure with its unit.
    text: String,
    title: String,
}

pub fn perplexity(subject: &SubjectReport, limit: f64) -> Result<(Chart, String)> {
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
        "Perplexity change in percent against bits a value, {} codecs on {}, with 95 % intervals",
        points.len(),
        subject.subject.model.provenance.source
    );
    let y_name = format!("Perplexity change, %{scale}");
    let (chart, notes) = scatter(
        subject,
        &points,
        (&label, "Perplexity change against size"),
        (axis, &y_name),
        Some(limit),
    )?;
    let caption = format!(
        "Change of perplexity against the untouched cache{}. Joined: no codec of as few bits or \
         fewer is nearer to zero. Shaded: within ± the limit of {} %.{notes}",
        bars(subject),
        minus(limit.to_string())
    );
    Ok((chart, caption))
}

pub fn kld(subject: &SubjectReport) -> Result<(Chart, String)> {
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
        "Mean KL divergence in nats a token against bits a value, {} codecs on {}, with 95 % \
         intervals",
        points.len(),
        subject.subject.model.provenance.source
    );
    let floors = points.iter().filter(|p| p.control).map(|p| p.figure);
    let axis = Axis::log_above(held.iter().copied(), floors);
    let y_name = "Mean KLD, nats a token (log scale)";
    let (chart, notes) =
        scatter(subject, &points, (&label, "KL divergence against size"), (axis, y_name), None)?;
    let caption = format!(
        "Mean KL divergence, untouched ‖ compressed{}. Joined: no codec of as few bits or fewer \
         has less.{}{notes}",
        bars(subject),
        if held.contains(&0.0) { " 0 stands below the scale." } else { "" }
    );
    Ok((chart, caption))
}

/// What a picture shows of a cell.
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
            text: minus(text),
            title: format!("{}\n{}", f.codec, minus(figures)),
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

/// With what the caption has to explain.
fn scatter(
    subject: &SubjectReport,
    points: &[Point],
    (label, heading): (&str, &str),
    (y, y_name): (Axis, &str),
    limit: Option<f64>,
) -> Result<(Chart, String)> {
    let x = Axis::bits(compared(points).map(Point::bits));
    let x_name = if x.scale == Scale::Log { BITS_LOG } else { BITS };
    let frame = Frame { x, y, x_name: x_name.into(), y_name: y_name.into() };
    let [left, _, right, _] = Frame::PLOT;
    let at = |point: &Point| match frame.place(point.bits(), point.figure) {
        (_, y) if point.control => (right - 7, y),
        place => place,
    };
    let bar = |point: &Point| {
        let [low, high] = point.interval.filter(|_| !point.control)?;
        let (x, bottom) = frame.place(point.bits(), low);
        let (_, top) = frame.place(point.bits(), high);
        Some([(x, top), (x, bottom)])
    };
    let controls: Vec<&Point> = points.iter().filter(|point| point.control).collect();
    let mut sorted: Vec<&Point> = compared(points).collect();
    sorted.sort_by(|a, b| a.bits().total_cmp(&b.bits()));
    let front: Vec<&Point> = sorted.iter().copied().filter(|point| point.on_front).collect();
    let all_named = sorted.len() <= MOST_NAMES;
    let recommended = sorted.iter().copied().find(|point| subject.recommends(point.cell));
    let named: Vec<&Point> = sorted
        .iter()
        .copied()
        .filter(|point| all_named || point.on_front || subject.recommends(point.cell))
        .collect();

    let joined = front.windows(2).map(|pair| [at(pair[0]), at(pair[1])]);
    // A KL divergence without compression is a floor for all sizes.
    let levels: Vec<Segment> = match limit {
        None => controls.iter().map(|point| [(left, at(point).1), at(point)]).collect(),
        Some(_) => vec![],
    };
    let limit_y = limit.map(|limit| frame.place(0.0, limit).1);
    let mut obstacles = Obstacles {
        points: points.iter().map(at).collect(),
        bars: sorted.iter().filter_map(|point| bar(point)).collect(),
        lines: joined
            .chain(levels.iter().copied())
            .chain(limit_y.map(|y| [(left, y), (right, y)]))
            .collect(),
        areas: vec![],
    };
    let word = if limit.is_none() { "floor " } else { "" };
    let mut control_texts = Vec::new();
    for point in &controls {
        let text = format!("{} {word}{}, {} bits →", point.short_name(), point.text, point.size());
        if let Some(place) = labels::at_the_end(&text, at(point), &obstacles, Frame::PLOT) {
            obstacles.areas.push(labels::line_area(&text, place, Anchor::Right));
            control_texts.push((text, place, point.index));
        }
    }
    let names = Names::new(subject, &named, at, &obstacles);

    let chart = draw(label, Frame::UNDER + names.key.height(), |canvas| {
        if let Some(limit) = limit {
            let (_, top) = frame.place(0.0, limit.abs());
            let (_, bottom) = frame.place(0.0, -limit.abs());
            canvas.rect([left, top, right, bottom], theme::WITHIN)?;
        }
        canvas.frame(heading, &frame)?;
        if let Some(limit) = limit {
            limit_line(canvas, &frame, limit)?;
        }
        for level in &levels {
            canvas.dotted(*level, theme::POINT);
        }
        for point in sorted.iter().filter(|point| !point.on_front) {
            error_bar(canvas, bar(point), theme::POINT)?;
            canvas.marker(point.marker(Marker::Ring), at(point), 3, theme::POINT)?;
        }
        canvas.line(front.iter().map(|point| at(point)).collect(), theme::FRONT, 1)?;
        for point in &front {
            error_bar(canvas, bar(point), theme::FRONT)?;
            canvas.marker(point.marker(Marker::Disc), at(point), 4, theme::FRONT)?;
        }
        for point in &controls {
            canvas.marker(Marker::Right, at(point), 4, theme::POINT)?;
        }
        if let Some(point) = recommended {
            canvas.ring(at(point), 8, theme::FRONT)?;
        }
        for (text, place, index) in &control_texts {
            canvas.name(text, *place, Anchor::Right, theme::MUTED, &index.to_string());
        }
        names.draw(canvas)?;
        for point in points {
            canvas.hit(at(point), &point.title, point.index);
        }
        Ok(())
    })?;

    let mut notes = String::new();
    if recommended.is_some() {
        notes.push_str(" ★: recommended.");
    }
    if !controls.is_empty() {
        notes.push_str(" ▸ at the right edge: no smaller than f16, not to scale.");
    }
    if !all_named {
        notes.push_str(" Codecs without a name are in the table.");
    }
    Ok((chart, notes))
}

/// What is written beside points, and under the plot where numbers are.
struct Names {
    labels: Vec<Name>,
    key: Key,
}

struct Name {
    label: Label,
    placed: Option<Placed>,
    ink: RGBColor,
    /// Results that it names.
    cells: String,
}

impl Names {
    fn new(
        subject: &SubjectReport,
        named: &[&Point],
        at: impl Fn(&Point) -> (i32, i32),
        obstacles: &Obstacles,
    ) -> Self {
        let label = |point: &Point, lines: Vec<String>| Label {
            lines,
            points: vec![at(point)],
            radius: if subject.recommends(point.cell) { 9 } else { 5 },
        };
        let names = named.iter().map(|point| label(point, point.name_lines(subject))).collect();
        let names = labels::merge(names, labels::SAME, |lines, more| lines.extend(more));
        let numbers = |near: f64| {
            let numbers = (1..).zip(named);
            let numbers = numbers.map(|(i, point)| label(point, vec![i.to_string()])).collect();
            labels::merge(numbers, near, |lines, more| {
                lines[0] = format!("{}, {}", lines[0], more[0]);
            })
        };
        let (labels, placed, entries) = match labels::place(&names, obstacles, Frame::PLOT) {
            Some(placed) => (names, placed.into_iter().map(Some).collect(), vec![]),
            None => {
                let entries = named.iter().map(|point| point.name(subject)).collect();
                let each = numbers(labels::SAME);
                match labels::place(&each, obstacles, Frame::PLOT) {
                    Some(placed) => (each, placed.into_iter().map(Some).collect(), entries),
                    None => {
                        let few = numbers(labels::TOUCHING);
                        let placed = match labels::place(&few, obstacles, Frame::PLOT) {
                            Some(placed) => placed.into_iter().map(Some).collect(),
                            None => labels::place_some(&few, obstacles, Frame::PLOT),
                        };
                        (few, placed, entries)
                    }
                }
            }
        };
        let labels = labels
            .into_iter()
            .zip(placed)
            .map(|(label, placed)| {
                let of = || named.iter().filter(|point| label.points.contains(&at(point)));
                let ink = if of().any(|point| point.on_front || subject.recommends(point.cell)) {
                    theme::INK
                } else {
                    theme::MUTED
                };
                let cells: Vec<String> = of().map(|point| point.index.to_string()).collect();
                Name { label, placed, ink, cells: cells.join(" ") }
            })
            .collect();
        Self { labels, key: Key::new(entries) }
    }

    fn draw(&self, canvas: &mut Canvas) -> Result<()> {
        for Name { label, placed, ink, cells } in &self.labels {
            let Some(placed) = placed else { continue };
            if let Some(leader) = placed.leader {
                canvas.leader(leader);
            }
            for (line, at) in label.lines.iter().zip(labels::line_places(label, placed)) {
                canvas.name(line, at, placed.anchor, *ink, cells);
            }
        }
        self.key.draw(canvas, Frame::UNDER, theme::INK, |canvas, i, at| {
            canvas.text(&format!("{}", i + 1), at, Anchor::Middle, theme::FRONT)
        })
    }
}

impl Point<'_> {
    fn bits(&self) -> f64 {
        self.cell.result.figures.bits_per_value
    }

    /// 16, 10.13
    fn size(&self) -> String {
        let text = format!("{:.2}", self.bits());
        text.trim_end_matches('0').trim_end_matches('.').into()
    }

    fn short_name(&self) -> String {
        shorten(&one_line(&self.cell.result.figures.codec), LABEL_LENGTH)
    }

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

/// The interval, with caps; from top to bottom.
fn error_bar(canvas: &mut Canvas, bar: Option<Segment>, color: RGBColor) -> Result<()> {
    let Some([(x, top), (_, bottom)]) = bar else { return Ok(()) };
    for line in
        [[(x, top), (x, bottom)], [(x - 3, top), (x + 3, top)], [(x - 3, bottom), (x + 3, bottom)]]
    {
        canvas.line(line.to_vec(), color, 1)?;
    }
    Ok(())
}
