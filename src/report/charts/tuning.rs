//! The codec of each layer's keys and values, and what each of them costs alone.

use super::attribution::{Compressed, Mark, Panel, axis};
use super::canvas::{Anchor, Canvas, Chart, LINE, WIDTH, draw};
use super::heat::x_axis;
use super::key::Key;
use super::shorten;
use super::theme::{self, Color};
use crate::eval::attribution::LayerParts;
use crate::report::text::one_line;
use crate::results::print::{counted, interval, minus, small};
use crate::results::tuning::{TunedPart, Tuning};

const LEFT: i32 = 70;
const RIGHT: i32 = WIDTH - 14;
const TOP: i32 = 34;
const ROW: i32 = 24;
const X_AXIS: i32 = 44;
/// Of the panel's heading.
const TITLE: i32 = 30;
const PANEL: i32 = 190;
const NAME: usize = 40;

/// A codec that some part got.
struct Used<'a> {
    name: &'a str,
    bits: f64,
    parts: usize,
}

/// One for keys and one for values.
type Row<'a> = (Compressed, fn(&LayerParts<TunedPart>) -> &TunedPart);

fn rows<'a>() -> [Row<'a>; 2] {
    [(Compressed::Keys, |layer| &layer.key), (Compressed::Values, |layer| &layer.value)]
}

pub fn picture(tuning: &Tuning) -> Chart {
    let layers = &tuning.layers;
    let used = used(layers);
    let label = format!(
        "Codec of the keys and of the values of {}, {}, {:.2} bits a value, on {}, and the \
         mean KL divergence of each part alone",
        counted(layers.len(), "layer"),
        counted(used.len(), "codec"),
        tuning.bits,
        one_line(tuning.subject.model.name())
    );
    let entry = |used: &Used| {
        let (name, parts) = (shorten(&one_line(used.name), NAME), used.parts);
        format!("{name}, {:.2} bits: {}", used.bits, counted(parts, "part"))
    };
    let codecs = Key::new(used.iter().map(entry).collect());
    let sides = Key::new(rows().map(|(side, _)| side.name().into()).into());
    let columns: Vec<Vec<Mark>> =
        layers.iter().map(|layer| rows().map(|(side, of)| mark(side, layer, of)).into()).collect();
    let y = axis(columns.iter().flatten());
    // Whole pixels a layer, so that columns are of one width.
    let right = match layers.len() as i32 {
        layers if layers > 0 && layers < RIGHT - LEFT => LEFT + (RIGHT - LEFT) / layers * layers,
        _ => RIGHT,
    };
    let under_map = TOP + 2 * ROW + X_AXIS;
    let panel_top = under_map + codecs.height() + TITLE;
    let under_panel = panel_top + PANEL + X_AXIS;
    draw(&label, under_panel + sides.height() + LINE + 6, |canvas| {
        canvas.heading("Codec by layer");
        for (row, (side, of)) in rows().into_iter().enumerate() {
            let top = TOP + row as i32 * ROW;
            let middle = (LEFT - 7, top + ROW / 2);
            canvas.text(side.name(), middle, Anchor::Right, theme::INK);
            for layer in layers {
                let [from, to] = [layer.layer, layer.layer + 1].map(|l| x(l, layers.len(), right));
                let color = color_of(&used, of(layer));
                let area = [from, top, to, top + ROW - 2];
                canvas.field(area, color, &mark(side, layer, of).title);
            }
        }
        x_axis(canvas, [LEFT, TOP + 2 * ROW, right], layers.len(), "Layer");
        codecs.draw(canvas, under_map, |canvas: &mut Canvas, i, (x, y)| {
            canvas.swatch([x - 9, y - 6, x + 9, y + 6], color_at(i, used.len()));
        });

        let y_name = "Mean KLD alone, nats a token (log scale)";
        canvas.text(y_name, (4, panel_top - 14), Anchor::Left, theme::INK);
        let panel = Panel { top: panel_top, bottom: panel_top + PANEL, y: &y };
        canvas.y_axis(panel.y, [LEFT, panel.top, right, panel.bottom]);
        panel.marks(canvas, &columns, [LEFT, right]);
        x_axis(canvas, [LEFT, panel.bottom, right], layers.len(), "Layer");
        sides.draw(canvas, under_panel, |canvas, i, at| {
            let (side, _) = rows()[i];
            canvas.marker(side.marker(), at, 4, side.color());
        });
        let note = "Each part alone in its codec, the rest in f16; bars: 95 % intervals";
        let at = (8, under_panel + sides.height() + LINE / 2);
        canvas.text(note, at, Anchor::Left, theme::MUTED);
    })
}

fn x(layer: usize, layers: usize, right: i32) -> i32 {
    LEFT + (f64::from(right - LEFT) * layer as f64 / layers.max(1) as f64).round() as i32
}

/// By rising bits.
fn used(layers: &[LayerParts<TunedPart>]) -> Vec<Used<'_>> {
    let mut used: Vec<Used> = Vec::new();
    for part in layers.iter().flat_map(|layer| [&layer.key.chosen, &layer.value.chosen]) {
        match used.iter_mut().find(|known| known.name == part.codec) {
            Some(known) => {
                known.bits += part.bits_per_value;
                known.parts += 1;
            }
            None => used.push(Used { name: &part.codec, bits: part.bits_per_value, parts: 1 }),
        }
    }
    used.iter_mut().for_each(|used| used.bits /= used.parts as f64);
    used.sort_by(|a, b| a.bits.total_cmp(&b.bits));
    used
}

fn color_of(used: &[Used], part: &TunedPart) -> Color {
    let place = used.iter().position(|used| used.name == part.chosen.codec);
    color_at(place.unwrap_or_default(), used.len())
}

/// Dark is few bits.
fn color_at(place: usize, of: usize) -> Color {
    theme::scale(if of < 2 { 0.5 } else { place as f64 / (of - 1) as f64 })
}

fn mark(
    side: Compressed,
    layer: &LayerParts<TunedPart>,
    of: fn(&LayerParts<TunedPart>) -> &TunedPart,
) -> Mark {
    let part = &of(layer).chosen;
    let title = format!(
        "{}, layer {}: {}, {:.2} bits\nKLD {} nats a token ({})",
        side.name(),
        layer.layer,
        one_line(&part.codec),
        part.bits_per_value,
        minus(&small(part.kld_mean)),
        interval(part.kld_mean_ci95, small)
    );
    Mark { compressed: side, kld: part.kld_mean, interval: part.kld_mean_ci95, title }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture::HOSTILE;
    use crate::results::tuning::fixture;
    use roxmltree::Document;

    /// Set `KVGAUGE_REPORT_DIR` to look at them.
    #[test]
    fn every_part_is_in_both_panels() {
        let cases = [
            ("tune.svg", "a/b", 30),
            ("tune-one.svg", "a/b", 1),
            ("tune-hostile.svg", HOSTILE, 90),
        ];
        for (name, codec, layers) in cases {
            let svg = picture(&fixture::tuning(codec, layers, 5)).standalone();
            if let Some(folder) = std::env::var_os("KVGAUGE_REPORT_DIR") {
                std::fs::write(std::path::Path::new(&folder).join(name), &svg).unwrap();
            }
            let document = Document::parse(&svg).unwrap_or_else(|e| panic!("{name}: {e}"));
            let texts = document.descendants().filter(|node| node.has_tag_name("title"));
            let texts = texts.filter_map(|node| node.text());
            for side in ["Keys", "Values"] {
                let last = format!("{side}, layer {}: ", layers - 1);
                let titles = texts.clone().filter(|text| text.starts_with(&last));
                assert_eq!(titles.count(), 2, "{name}");
            }
            assert_eq!(texts.count(), 4 * layers, "{name}");
            assert!(!svg.contains("NaN") && !svg.contains("<script>alert"), "{name}");
        }
    }
}
