//! SNR by layer and codec.

use super::canvas::{Anchor, Canvas, Chart, FONT, WIDTH, draw};
use super::name_lines;
use super::theme::{self, Color};
use crate::report::text::width;
use crate::results::print::minus;
use crate::results::sweep::SubjectReport;

const TOP: i32 = 34;
const LEGEND: i32 = 60;
/// For what has no place on the scale.
const SWATCHES: i32 = 24;
const X_AXIS: i32 = 40;
const RIGHT: i32 = 12;
const LABEL_LENGTH: usize = 22;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tensor {
    Key,
    Value,
}

/// Codecs with the same figures for this tensor are one row.
struct Row {
    name: String,
    codecs: Vec<String>,
    /// Not a control.
    compressed: bool,
    /// One a layer; `None`: no error at all.
    snr: Vec<Option<f64>>,
}

pub fn snr(subject: &SubjectReport, tensor: Tensor) -> (Chart, String) {
    let rows = rows(subject, tensor);
    let layers = rows.iter().map(|row| row.snr.len()).max().unwrap_or(0);
    let steps = Steps::of(subject);
    let figures = || rows.iter().flat_map(|row| &row.snr);
    let beyond = Beyond {
        above: steps
            .as_ref()
            .is_some_and(|steps| figures().flatten().any(|snr| steps.color(*snr) == theme::ABOVE)),
        exact: figures().any(Option::is_none),
    };

    let what = match tensor {
        Tensor::Key => "keys",
        Tensor::Value => "values",
    };
    let label = format!(
        "Signal-to-noise ratio of {what} in dB by layer and codec, {} rows, {layers} layers, on {}",
        rows.len(),
        subject.subject.model.name()
    );
    let names: Vec<Vec<String>> =
        rows.iter().map(|row| name_lines(&row.name, LABEL_LENGTH)).collect();
    let widest = names.iter().flatten().map(|line| width(line, FONT)).fold(30.0, f64::max);
    let left = (widest.ceil() as i32 + 12).min(WIDTH * 6 / 10);
    // Whole pixels a layer, so that columns are of one width.
    let room = WIDTH - RIGHT - left;
    let right = match layers as i32 {
        0 => left,
        layers if layers < room => left + (room / layers).min(60) * layers,
        _ => WIDTH - RIGHT,
    };
    let heights: Vec<i32> = names.iter().map(|lines| 4 + 15 * lines.len() as i32).collect();
    let bottom = TOP + heights.iter().sum::<i32>();

    let swatches = if beyond.above || beyond.exact { SWATCHES } else { 0 };
    let chart = draw(&label, bottom + X_AXIS + LEGEND + swatches, |canvas| {
        canvas.heading(&format!("SNR of {what} by layer, dB"));
        let mut top = TOP;
        for ((row, lines), height) in rows.iter().zip(&names).zip(&heights) {
            for (i, line) in lines.iter().enumerate() {
                let y = top + 2 + 15 * i as i32 + 7;
                canvas.text(line, (left - 6, y), Anchor::Right, theme::INK);
            }
            draw_row(canvas, row, steps.as_ref(), [left, top, right, top + height - 1], layers);
            top += height;
        }
        x_axis(canvas, [left, bottom, right], layers, "Layer");
        legend(canvas, steps.as_ref(), &beyond, bottom + X_AXIS);
    });
    let merged = subject.cells.len() - rows.len();
    let merged = match merged {
        0 => "",
        _ => " Codecs that do the same here share a row.",
    };
    let caption = format!(
        "Energy of the {what} over that of their error, each layer by itself; colours as for the \
         other side of the cache.{merged}"
    );
    (chart, caption)
}

fn rows(subject: &SubjectReport, tensor: Tensor) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for cell in &subject.cells {
        let f = &cell.result.figures;
        let snr: Vec<_> = f
            .layers
            .iter()
            .map(|layer| match tensor {
                Tensor::Key => layer.key.snr_db,
                Tensor::Value => layer.value.snr_db,
            })
            .collect();
        let name = own_name(&f.codec, tensor);
        match rows.iter_mut().find(|row| row.name == name && row.snr == snr) {
            Some(row) => row.codecs.push(f.codec.clone()),
            None => rows.push(Row {
                name: name.into(),
                codecs: vec![f.codec.clone()],
                compressed: name != "f16",
                snr,
            }),
        }
    }
    // The same name with other figures: only the whole name says which.
    let shared: Vec<bool> =
        rows.iter().map(|row| rows.iter().filter(|r| r.name == row.name).count() > 1).collect();
    for (row, shared) in rows.iter_mut().zip(shared) {
        if shared {
            row.name = row.codecs[0].clone();
        }
    }
    rows
}

/// The codec of keys or of values in `k:A/v:B`.
fn own_name(codec: &str, tensor: Tensor) -> &str {
    let split = codec.strip_prefix("k:").and_then(|rest| rest.split_once("/v:"));
    match (split, tensor) {
        (Some((key, _)), Tensor::Key) => key,
        (Some((_, value)), Tensor::Value) => value,
        (None, _) => codec,
    }
}

fn draw_row(
    canvas: &mut Canvas,
    row: &Row,
    steps: Option<&Steps>,
    [left, top, right, bottom]: [i32; 4],
    layers: usize,
) {
    let x = |layer: usize| {
        left + (f64::from(right - left) * layer as f64 / layers.max(1) as f64).round() as i32
    };
    for (layer, snr) in row.snr.iter().enumerate() {
        let (color, figure) = match (snr, steps) {
            (Some(snr), Some(steps)) if snr.is_finite() => {
                (steps.color(*snr), minus(&format!("{snr:.1} dB")))
            }
            _ => (theme::EXACT, "no error (∞)".into()),
        };
        let title = format!("{}\nlayer {layer}: {figure}", row.codecs.join(", "));
        canvas.field([x(layer), top, x(layer + 1), bottom], color, &title);
    }
    // Each run of layers without error says so.
    let mut layer = 0;
    for run in row.snr.chunk_by(|a, b| a.is_none() == b.is_none()) {
        let (from, to) = (x(layer), x(layer + run.len()));
        if run[0].is_none() && to - from > 16 {
            let middle = ((from + to) / 2, (top + bottom) / 2);
            canvas.text("∞", middle, Anchor::Middle, theme::INK);
        }
        layer += run.len();
    }
}

/// Columns of one width, counted from 0.
pub(super) fn x_axis(
    canvas: &mut Canvas,
    [left, top, right]: [i32; 3],
    columns: usize,
    name: &str,
) {
    if columns > 0 {
        let widest = width(&format!("{}", columns - 1), FONT) + 10.0;
        let one = f64::from(right - left) / columns as f64;
        let step = [1, 2, 5, 10, 20, 50, 100, 200].into_iter().find(|s| *s as f64 * one >= widest);
        for column in (0..columns).step_by(step.unwrap_or(500)) {
            let x = left + (one * (column as f64 + 0.5)).round() as i32;
            canvas.line(&[(x, top), (x, top + 3)], theme::AXIS);
            canvas.text(&format!("{column}"), (x, top + 11), Anchor::Middle, theme::MUTED);
        }
    }
    let middle = (left + right) / 2;
    canvas.text(name, (middle, top + 28), Anchor::Middle, theme::INK);
}

/// Figures that a picture has beside the scale.
struct Beyond {
    above: bool,
    exact: bool,
}

fn legend(canvas: &mut Canvas, steps: Option<&Steps>, beyond: &Beyond, top: i32) {
    const SIZE: i32 = 18;
    let (left, mut y) = (24, top + 12);
    let mut swatches = Vec::new();
    if let Some(steps) = steps {
        for i in 0..steps.count {
            let x = left + i as i32 * SIZE;
            canvas.rect([x, y, x + SIZE, y + 14], steps.color_of(i));
        }
        let end = left + steps.count as i32 * SIZE;
        let room = f64::from(SIZE);
        let every = (1..).find(|n| *n as f64 * room > steps.widest_label() + 8.0).unwrap_or(1);
        for i in (0..=steps.count).step_by(every) {
            let x = left + i as i32 * SIZE;
            canvas.line(&[(x, y + 14), (x, y + 18)], theme::AXIS);
            canvas.text(&steps.edge_label(i), (x, y + 27), Anchor::Middle, theme::MUTED);
        }
        canvas.text("dB", (end + 6, y + 7), Anchor::Left, theme::MUTED);
        y += 44;
        if beyond.above {
            let edge = steps.edge_label(steps.count);
            swatches.push((theme::ABOVE, format!("{edge} dB and more, above the scale")));
        }
    }
    if beyond.exact {
        swatches.push((theme::EXACT, "∞, no error".into()));
    }
    let mut x = left;
    for (color, text) in swatches {
        canvas.swatch([x, y, x + SIZE, y + 14], color);
        canvas.text(&text, (x + SIZE + 5, y + 7), Anchor::Left, theme::INK);
        x += SIZE + 17 + width(&text, FONT).ceil() as i32;
    }
}

/// The colours: equal steps with round edges.
#[derive(Debug)]
struct Steps {
    first: f64,
    step: f64,
    count: usize,
}

impl Steps {
    const MOST: usize = 12;

    /// One scale for keys and values, so that their pictures can be compared: that of codecs that
    /// save something. A control such as f16 is far above, and would leave one colour for all the
    /// others. `None` without figures.
    fn of(subject: &SubjectReport) -> Option<Self> {
        let both = [Tensor::Key, Tensor::Value].map(|tensor| rows(subject, tensor));
        let finite = |compressed: bool| -> Vec<f64> {
            let rows = both.iter().flatten().filter(|row| row.compressed || !compressed);
            rows.flat_map(|row| &row.snr).flatten().copied().filter(|snr| snr.is_finite()).collect()
        };
        Self::new(&finite(true)).or_else(|| Self::new(&finite(false)))
    }

    fn new(figures: &[f64]) -> Option<Self> {
        let low = figures.iter().copied().reduce(f64::min)?;
        let high = figures.iter().copied().reduce(f64::max)?;
        let rounds = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
        let edges = |step: f64| {
            let first = (low / step).floor();
            (first * step, step, (high / step).floor() - first + 1.0)
        };
        let fits = |(_, _, count): &(f64, f64, f64)| *count <= Self::MOST as f64;
        let coarse = (low, ((high - low) / (Self::MOST - 1) as f64).max(1.0), Self::MOST as f64);
        let (first, step, count) = rounds.map(edges).into_iter().find(fits).unwrap_or(coarse);
        Some(Self { first, step, count: count as usize })
    }

    fn color_of(&self, i: usize) -> Color {
        let last = self.count.saturating_sub(1);
        theme::scale(if last == 0 { 0.5 } else { i as f64 / last as f64 })
    }

    fn color(&self, snr: f64) -> Color {
        let i = ((snr - self.first) / self.step + 1e-9).floor().max(0.0) as usize;
        if i < self.count { self.color_of(i) } else { theme::ABOVE }
    }

    fn edge_label(&self, i: usize) -> String {
        let edge = self.first + i as f64 * self.step;
        let decimals = usize::from(self.step < 1.0);
        minus(&format!("{edge:.decimals$}"))
    }

    fn widest_label(&self) -> f64 {
        let widths = (0..=self.count).map(|i| width(&self.edge_label(i), FONT));
        widths.fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_scale_has_its_colours() {
        let figures = [-3.2, 8.0, 23.9, 24.0];
        let steps = Steps::new(&figures).unwrap();
        assert!(figures.iter().all(|snr| steps.color(*snr) != theme::ABOVE), "{steps:?}");
        assert_eq!(steps.color(74.0), theme::ABOVE);
        assert!(Steps::new(&[]).is_none());
        let huge = Steps::new(&[-9000.0, 9000.0]).unwrap();
        assert!(huge.color(9000.0) != theme::ABOVE && huge.color(-9000.0) != theme::ABOVE);
    }
}
