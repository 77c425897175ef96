//! Damage against size: one point a codec, the front joined.

use super::axis::{Axis, Scale, minus};
use super::canvas::{Anchor, Canvas, Chart, Frame, Marker, draw};
use super::key::Key;
use super::labels::{self, Care, Label, Obstacles, Placed, Segment};
use super::{name_lines, shorten, theme};
use crate::error::Result;
use crate::report::table::{signed, small};
use crate::report::text::one_line;
use crate::results::sweep::{CellReport, SubjectReport};
use plotters::style::RGBColor;

const BITS: &str = "Bits a value";
const BITS_LOG: &str = "Bits a value (log scale)";
/// Longer names are broken in two, where they are two.
const LABEL_LENGTH: usize = 20;

const KEY_LENGTH: usize = 46;

/// With more points only the front and the recommended codec are named.
const MOST_NAMES: usize = 12;

/// Of the column at the right edge for what is not to scale.
const BEYOND: i32 = 58;
/// Of a name in it.
const BEYOND_LENGTH: usize = 7;

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
    let controls: Vec<&Point> = points.iter().filter(|point| point.control).collect();
    let x = match Axis::bits(compared(points).map(Point::bits)) {
        axis if controls.is_empty() => axis,
        axis => axis.leave(f64::from(BEYOND) / f64::from(Frame::PLOT[2] - Frame::PLOT[0])),
    };
    let x_name = if x.scale == Scale::Log { BITS_LOG } else { BITS };
    let frame = Frame { x, y, x_name: x_name.into(), y_name: y_name.into() };
    let [left, top, right, bottom] = Frame::PLOT;
    let column = right - BEYOND / 2;
    let scale_end = if controls.is_empty() { right } else { right - BEYOND };
    let at = |point: &Point| match frame.place(point.bits(), point.figure) {
        (_, y) if point.control => (column, y),
        place => place,
    };
    let bar = |point: &Point| {
        let [low, high] = point.interval.filter(|_| !point.control)?;
        let (x, bottom) = frame.place(point.bits(), low);
        let (_, top) = frame.place(point.bits(), high);
        Some([(x, top), (x, bottom)])
    };
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
    let mut control_texts = Vec::new();
    for point in &controls {
        let (x, y) = at(point);
        let crossed = limit_y.is_some_and(|line| (y - 36..y - 6).contains(&line));
        let side = if y - 40 < top || crossed && y + 40 < bottom { 1 } else { -1 };
        let beside = |text: String, place| (text, place, Anchor::Middle, point.index);
        let size =
            beside(format!("{} bits", point.size()), (x, y + if side < 0 { -14 } else { 28 }));
        let name = shorten(&one_line(&point.cell.result.figures.codec), BEYOND_LENGTH);
        let name = beside(name, (x, y + if side < 0 { -28 } else { 14 }));
        let floor = match point.figure {
            0.0 => "floor 0".into(),
            _ => format!("floor {}", point.text),
        };
        let floor = levels.first().and_then(|_| {
            let place = labels::at_the_end(&floor, (scale_end - 12, y), &obstacles)?;
            Some((floor, place, Anchor::Right, point.index))
        });
        for written in floor.into_iter().chain([size, name]) {
            let (text, place, anchor, _) = &written;
            let area = labels::line_area(text, *place, *anchor);
            if !obstacles.areas.iter().any(|other| labels::overlap(&area, other)) {
                obstacles.areas.push(area);
                control_texts.push(written);
            }
        }
    }
    let names = Names::new(subject, &named, at, &obstacles, [left, top, scale_end, bottom]);

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
        if !controls.is_empty() {
            canvas.line(vec![(scale_end, top), (scale_end, bottom)], theme::AXIS, 1)?;
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
        for (text, place, anchor, index) in &control_texts {
            match anchor {
                // Of the level, not of a point.
                Anchor::Right => canvas.text(text, *place, *anchor, theme::MUTED)?,
                _ => canvas.name(text, *place, *anchor, theme::MUTED, &index.to_string(), false),
            }
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
        notes.push_str(" Right of the scale: what is no smaller than f16.");
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

/// Where a number has no room it joins its neighbour's.
fn place_numbers(
    numbers: Vec<Label>,
    obstacles: &Obstacles,
    room: [i32; 4],
) -> (Vec<Label>, Vec<Option<Placed>>) {
    let join = |lines: &mut Vec<String>, more: Vec<String>| {
        let all = format!("{}, {}", lines[0], more[0]);
        let mut all: Vec<&str> = all.split(", ").collect();
        all.sort_by_key(|number| (number.len(), number.to_string()));
        lines[0] = all.join(", ");
    };
    let mut numbers = labels::merge(numbers, join);
    // Rather together than far away, where marks touch.
    let tries = [(Care::Full, 0.0), (Care::Bars, 0.0), (Care::Bars, 9.0), (Care::Led, 0.0)];
    for (care, farthest) in tries.into_iter().chain([(Care::Led, 30.0)]) {
        loop {
            match labels::place(&numbers, obstacles, room, care) {
                Ok(placed) => return (numbers, placed.into_iter().map(Some).collect()),
                Err(stuck) if labels::join_nearest(&mut numbers, stuck, farthest, join) => {}
                Err(_) => break,
            }
        }
    }
    let placed = labels::place_some(&numbers, obstacles, room);
    (numbers, placed)
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
        room: [i32; 4],
    ) -> Self {
        let label = |point: &Point, lines: Vec<String>| Label {
            lines,
            points: vec![at(point)],
            radius: if subject.recommends(point.cell) { 9 } else { 5 },
        };
        let names = named.iter().map(|point| label(point, point.name_lines(subject))).collect();
        let names = labels::merge(names, |lines, more| lines.extend(more));
        let (labels, placed, entries) = match labels::place(&names, obstacles, room, Care::Full) {
            Ok(placed) => (names, placed.into_iter().map(Some).collect(), vec![]),
            Err(_) => {
                let numbers = (1..).zip(named);
                let numbers = numbers.map(|(i, point)| label(point, vec![i.to_string()])).collect();
                let (numbers, placed) = place_numbers(numbers, obstacles, room);
                let entries = named.iter().map(|point| point.name(subject)).collect();
                (numbers, placed, entries)
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
                canvas.name(line, at, placed.anchor, *ink, cells, placed.leader.is_some());
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
