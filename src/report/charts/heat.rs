//! SNR by layer and codec.

use super::canvas::{Anchor, Canvas, Chart, FONT, LINE, WIDTH, draw};
use super::{name_lines, theme};
use crate::error::Result;
use crate::report::sweep::SubjectReport;
use crate::report::text::width;

const TOP: i32 = 34;
const LEGEND: i32 = 60;
const X_AXIS: i32 = 40;
const RIGHT: i32 = 12;
const LABEL_LENGTH: usize = 22;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Key,
    Value,
}

/// Codecs with the same figures for this side are one row.
struct Row {
    name: String,
    codecs: Vec<String>,
    /// One a layer; `None`: no error at all.
    snr: Vec<Option<f64>>,
}

pub fn snr(subject: &SubjectReport, side: Side) -> Result<(Chart, String)> {
    let rows = rows(subject, side);
    let layers = rows.iter().map(|row| row.snr.len()).max().unwrap_or(0);
    let finite =
        || rows.iter().flat_map(|row| &row.snr).flatten().copied().filter(|v| v.is_finite());
    let low = finite().fold(f64::INFINITY, f64::min);
    let high = finite().fold(f64::NEG_INFINITY, f64::max);
    let exact = rows.iter().flat_map(|row| &row.snr).any(Option::is_none);
    let steps = (low <= high).then(|| Steps::new(low, high));

    let what = match side {
        Side::Key => "keys",
        Side::Value => "values",
    };
    let label = format!(
        "Signal-to-noise ratio of {what} in dB by layer and codec, {} rows, {layers} layers, on {}",
        rows.len(),
        subject.subject.model.provenance.source
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

    let chart = draw(&label, bottom + X_AXIS + LEGEND, |canvas| {
        canvas.heading(&format!("SNR of {what} by layer, dB"))?;
        let mut top = TOP;
        for ((row, lines), height) in rows.iter().zip(&names).zip(&heights) {
            for (i, line) in lines.iter().enumerate() {
                let y = top + 2 + 15 * i as i32 + 7;
                canvas.text(line, (left - 6, y), Anchor::Right, theme::INK)?;
            }
            draw_row(canvas, row, steps.as_ref(), [left, top, right, top + height - 1], layers);
            top += height;
        }
        x_axis(canvas, [left, bottom, right], layers)?;
        legend(canvas, steps.as_ref(), exact, bottom + X_AXIS)
    })?;
    let merged = subject.cells.len() - rows.len();
    let merged = match merged {
        0 => "",
        _ => " Codecs that do the same here share a row.",
    };
    let caption =
        format!("Energy of the {what} over that of their error, each layer by itself.{merged}");
    Ok((chart, caption))
}

fn rows(subject: &SubjectReport, side: Side) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for cell in &subject.cells {
        let f = &cell.result.figures;
        let snr: Vec<_> = f
            .layers
            .iter()
            .map(|layer| match side {
                Side::Key => layer.key.snr_db,
                Side::Value => layer.value.snr_db,
            })
            .collect();
        let name = own_name(&f.codec, side);
        match rows.iter_mut().find(|row| row.name == name && row.snr == snr) {
            Some(row) => row.codecs.push(f.codec.clone()),
            None => rows.push(Row { name: name.into(), codecs: vec![f.codec.clone()], snr }),
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

/// What `k:A/v:B` does to one side.
fn own_name(codec: &str, side: Side) -> &str {
    let split = codec.strip_prefix("k:").and_then(|rest| rest.split_once("/v:"));
    match (split, side) {
        (Some((key, _)), Side::Key) => key,
        (Some((_, value)), Side::Value) => value,
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
                (steps.color(*snr), format!("{snr:.1} dB"))
            }
            _ => (theme::EXACT, "no error (∞)".into()),
        };
        let title = format!("{}\nlayer {layer}: {figure}", row.codecs.join(", "));
        canvas.field([x(layer), top, x(layer + 1), bottom], color, &title);
    }
}

fn x_axis(canvas: &mut Canvas, [left, top, right]: [i32; 3], layers: usize) -> Result<()> {
    if layers > 0 {
        let widest = width(&format!("{}", layers - 1), FONT) + 10.0;
        let one = f64::from(right - left) / layers as f64;
        let step = [1, 2, 5, 10, 20, 50, 100, 200].into_iter().find(|s| *s as f64 * one >= widest);
        for layer in (0..layers).step_by(step.unwrap_or(500)) {
            let x = left + (one * (layer as f64 + 0.5)).round() as i32;
            canvas.line(vec![(x, top), (x, top + 3)], theme::AXIS, 1)?;
            canvas.text(&format!("{layer}"), (x, top + 11), Anchor::Middle, theme::MUTED)?;
        }
    }
    let middle = (left + right) / 2;
    canvas.text("Layer", (middle, top + 28), Anchor::Middle, theme::INK)
}

fn legend(canvas: &mut Canvas, steps: Option<&Steps>, exact: bool, top: i32) -> Result<()> {
    const SIZE: i32 = 26;
    let (left, y) = (20, top + 12);
    let colors = steps.map_or(0, |steps| steps.count) as i32;
    if let Some(steps) = steps {
        for i in 0..steps.count {
            let x = left + i as i32 * SIZE;
            canvas.rect([x, y, x + SIZE, y + 14], steps.step_color(i))?;
        }
        let every = if steps.widest_label() > f64::from(SIZE - 4) { 2 } else { 1 };
        for i in (0..=steps.count).step_by(every) {
            let x = left + i as i32 * SIZE;
            canvas.line(vec![(x, y + 14), (x, y + 17)], theme::AXIS, 1)?;
            canvas.text(&steps.edge_label(i), (x, y + 26), Anchor::Middle, theme::MUTED)?;
        }
        let end = left + colors * SIZE;
        canvas.text("dB", (end + 14, y + 26), Anchor::Left, theme::MUTED)?;
    }
    if exact {
        let x = left + colors * SIZE + if colors > 0 { 30 } else { 0 };
        canvas.rect([x, y, x + SIZE, y + 14], theme::EXACT)?;
        canvas.frame_rect([x, y, x + SIZE, y + 14], theme::AXIS)?;
        canvas.text("no error", (x + SIZE + 6, y + LINE / 2 - 2), Anchor::Left, theme::INK)?;
    }
    Ok(())
}

/// The colours: at most ten equal steps with round edges.
struct Steps {
    first: f64,
    step: f64,
    count: usize,
}

impl Steps {
    fn new(low: f64, high: f64) -> Self {
        let most = theme::SCALE.len();
        for step in [0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0] {
            let first = (low / step).floor();
            let count = (high / step).floor() - first + 1.0;
            if count <= most as f64 {
                return Self { first: first * step, step, count: count as usize };
            }
        }
        let step = ((high - low) / most as f64).max(1.0);
        Self { first: low, step, count: most }
    }

    /// Spread over the whole scale, few steps too.
    fn step_color(&self, i: usize) -> plotters::style::RGBColor {
        let last = theme::SCALE.len() - 1;
        let at = if self.count > 1 { i * last / (self.count - 1) } else { last / 2 };
        theme::SCALE[at.min(last)]
    }

    fn color(&self, value: f64) -> plotters::style::RGBColor {
        let i = ((value - self.first) / self.step + 1e-9).floor().max(0.0) as usize;
        self.step_color(i.min(self.count - 1))
    }

    fn edge_label(&self, i: usize) -> String {
        let edge = self.first + i as f64 * self.step;
        let decimals = usize::from(self.step < 1.0);
        format!("{edge:.decimals$}").replace('-', "−")
    }

    fn widest_label(&self) -> f64 {
        let widths = (0..=self.count).map(|i| width(&self.edge_label(i), FONT));
        widths.fold(0.0, f64::max)
    }
}
