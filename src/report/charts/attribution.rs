//! KL divergence of each part of the cache compressed alone: layers above, KV heads below.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, Chart, LINE, Marker, WIDTH, draw};
use super::heat::x_axis;
use super::key::Key;
use super::shorten;
use super::theme::{self, Color};
use crate::eval::attribution::{HeadParts, LayerParts};
use crate::report::text::one_line;
use crate::results::attribution::{Attribution, PartFigures};
use crate::results::figures::CodecFigures;
use crate::results::print::{counted, interval, minus, signed, small};

const LEFT: i32 = 70;
const RIGHT: i32 = WIDTH - 14;
/// With the heading in it.
const TOP: i32 = 30;
/// Of a codec's name and that of the y axis.
const TITLE: i32 = 44;
const LAYERS_HEIGHT: i32 = 190;
const HEADS_HEIGHT: i32 = 120;
const X_AXIS: i32 = 48;
const BLOCK: i32 = TITLE + LAYERS_HEIGHT + X_AXIS + HEADS_HEIGHT + X_AXIS;
/// Of the column of all heads, at least.
const ALL: i32 = 36;
/// Of codec names.
const NAME: usize = 50;

/// The tensors that were compressed in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compressed {
    Keys,
    Values,
    Both,
}

impl Compressed {
    const ALL: [Self; 3] = [Self::Keys, Self::Values, Self::Both];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Keys => "Keys",
            Self::Values => "Values",
            Self::Both => "Keys and values",
        }
    }

    pub(super) fn marker(self) -> Marker {
        match self {
            Self::Keys => Marker::Disc,
            Self::Values => Marker::Square,
            Self::Both => Marker::Diamond,
        }
    }

    pub(super) fn color(self) -> Color {
        theme::SERIES[self as usize]
    }
}

/// A part in its column.
pub(super) struct Mark {
    pub compressed: Compressed,
    pub kld: f64,
    pub interval: Option<[f64; 2]>,
    pub title: String,
}

/// Marks of each column, from the left.
type Columns = Vec<Vec<Mark>>;

/// Of one codec or several, one below the other on the same scales.
pub fn picture(model: &str, codecs: &[(&CodecFigures, &Attribution)]) -> Chart {
    let panels: Vec<[Columns; 2]> = codecs
        .iter()
        .map(|(whole, attribution)| [layers(attribution), heads(whole, attribution)])
        .collect();
    let [of_layers, of_heads] =
        [0, 1].map(|panel| axis(panels.iter().flat_map(|panels| panels[panel].iter().flatten())));
    let one_window = codecs.iter().all(|(whole, _)| whole.kld_mean_ci95.is_none());
    let intervals = if one_window { "" } else { ", with 95 % intervals" };
    let count = |panel: usize| panels.first().map_or(0, |panels| panels[panel].len());
    let label = format!(
        "Mean KL divergence in nats a token of each part of the KV cache compressed alone: keys \
         and values of {} and of {}, {} on {model}{intervals}",
        counted(count(0), "layer"),
        counted(count(1).saturating_sub(1), "KV head"),
        match codecs {
            [(whole, _)] => one_line(&whole.codec),
            _ => format!("{} codecs", codecs.len()),
        },
    );
    let key = Key::new(Compressed::ALL.map(|compressed| compressed.name().into()).into());
    let under = TOP + codecs.len() as i32 * BLOCK;
    draw(&label, under + key.height() + LINE + 6, |canvas| {
        canvas.heading("KL divergence by part of the cache");
        for (index, ((whole, _), [layers, heads])) in codecs.iter().zip(&panels).enumerate() {
            let top = TOP + index as i32 * BLOCK;
            let name = shorten(&one_line(&whole.codec), NAME);
            canvas.text(&name, (4, top + 10), Anchor::Left, theme::FRONT);
            let y_name = "Mean KLD, nats a token (log scale)";
            canvas.text(y_name, (4, top + 29), Anchor::Left, theme::INK);

            let top = top + TITLE;
            let panel = Panel { top, bottom: top + LAYERS_HEIGHT, y: &of_layers };
            canvas.y_axis(panel.y, [LEFT, panel.top, RIGHT, panel.bottom]);
            panel.marks(canvas, layers, [LEFT, RIGHT]);
            x_axis(canvas, [LEFT, panel.bottom, RIGHT], layers.len(), "Layer");

            let top = panel.bottom + X_AXIS;
            let panel = Panel { top, bottom: top + HEADS_HEIGHT, y: &of_heads };
            canvas.y_axis(panel.y, [LEFT, panel.top, RIGHT, panel.bottom]);
            let (all, each) = heads.split_at(1);
            let first = LEFT + ALL.max((RIGHT - LEFT) / heads.len() as i32);
            panel.marks(canvas, all, [LEFT, first]);
            panel.marks(canvas, each, [first, RIGHT]);
            let middle = (LEFT + first) / 2;
            canvas.line(&[(first, top), (first, panel.bottom)], theme::AXIS);
            canvas.line(&[(middle, panel.bottom), (middle, panel.bottom + 3)], theme::AXIS);
            canvas.text("all", (middle, panel.bottom + 11), Anchor::Middle, theme::MUTED);
            x_axis(canvas, [first, panel.bottom, RIGHT], each.len(), "KV head, all layers");
        }
        key.draw(canvas, under, |canvas, i, at| {
            canvas.marker(Compressed::ALL[i].marker(), at, 4, Compressed::ALL[i].color());
        });
        let note = match one_window {
            true => "Compressed alone, the rest exact; one window: no intervals",
            false => "Compressed alone, the rest exact; bars: 95 % intervals",
        };
        canvas.text(note, (8, under + key.height() + LINE / 2), Anchor::Left, theme::MUTED);
    })
}

fn layers(attribution: &Attribution) -> Columns {
    let column = |of: &LayerParts<PartFigures>| {
        let place = format!("layer {}", of.layer);
        vec![part(Compressed::Keys, &place, &of.key), part(Compressed::Values, &place, &of.value)]
    };
    attribution.parts.layers.iter().map(column).collect()
}

/// The first column has all heads: the whole cache, its keys and its values.
fn heads(whole: &CodecFigures, attribution: &Attribution) -> Columns {
    let parts = &attribution.parts;
    let all = "all layers and heads";
    let whole = Mark::new(
        Compressed::Both,
        all,
        (whole.kld_mean, whole.kld_mean_ci95),
        (whole.perplexity_change_percent, whole.perplexity_change_percent_ci95),
    );
    let all = vec![
        part(Compressed::Keys, all, &parts.key),
        part(Compressed::Values, all, &parts.value),
        whole,
    ];
    let column = |of: &HeadParts<PartFigures>| {
        let place = format!("KV head {}", of.head);
        vec![
            part(Compressed::Keys, &place, &of.key),
            part(Compressed::Values, &place, &of.value),
            part(Compressed::Both, &place, &of.both),
        ]
    };
    std::iter::once(all).chain(parts.heads.iter().map(column)).collect()
}

fn part(compressed: Compressed, place: &str, figures: &PartFigures) -> Mark {
    Mark::new(
        compressed,
        place,
        (figures.kld_mean, figures.kld_mean_ci95),
        (figures.perplexity_change_percent, figures.perplexity_change_percent_ci95),
    )
}

impl Mark {
    /// `kld` and `change`, in percent, with their intervals.
    fn new(
        compressed: Compressed,
        place: &str,
        (kld, kld_ends): (f64, Option<[f64; 2]>),
        (change, change_ends): (f64, Option<[f64; 2]>),
    ) -> Self {
        let figures = format!(
            "KLD {} nats a token ({})\nperplexity {} % ({})",
            small(kld),
            interval(kld_ends, small),
            signed(change),
            interval(change_ends, signed),
        );
        let title = format!("{}, {place}\n{}", compressed.name(), minus(&figures));
        Self { compressed, kld, interval: kld_ends, title }
    }
}

/// An interval that all but reaches zero is cut, so that it does not set the scale.
pub(super) fn axis<'a>(marks: impl Iterator<Item = &'a Mark>) -> Axis {
    let figures = marks.flat_map(|mark| {
        let ends = mark.interval.into_iter().flatten().filter(|end| *end > 0.0);
        ends.map(|end| end.clamp(mark.kld / 10.0, mark.kld * 10.0)).chain([mark.kld])
    });
    Axis::log(figures.collect::<Vec<_>>())
}

pub(super) struct Panel<'a> {
    pub top: i32,
    pub bottom: i32,
    pub y: &'a Axis,
}

impl Panel<'_> {
    fn y(&self, kld: f64) -> i32 {
        self.y.pixel(self.y.place(kld), [self.bottom, self.top])
    }

    /// In columns of one width from the left to the right.
    pub(super) fn marks(&self, canvas: &mut Canvas, columns: &[Vec<Mark>], ends: [i32; 2]) {
        let [left, right] = ends.map(f64::from);
        let one = (right - left) / columns.len().max(1) as f64;
        for (index, marks) in columns.iter().enumerate() {
            let middle = left + one * (index as f64 + 0.5);
            let apart = (one / (marks.len() as f64 + 0.4)).min(14.0);
            for (i, mark) in marks.iter().enumerate() {
                let off = i as f64 - 0.5 * (marks.len() - 1) as f64;
                let x = (middle + off * apart).round() as i32;
                if let Some([low, high]) = mark.interval {
                    // Caps of neighbours would touch.
                    let cap = if apart >= 9.0 { 3 } else { 0 };
                    let bar = [high, low].map(|kld| (x, self.y(kld)));
                    canvas.error_bar(bar, cap, mark.compressed.color());
                }
                let radius = match mark.compressed {
                    _ if apart >= 7.0 => 3,
                    // The smallest of its shape that is more than a dot.
                    Compressed::Values => 3,
                    _ => 2,
                };
                let at = (x, self.y(mark.kld));
                canvas.marker(mark.compressed.marker(), at, radius, mark.compressed.color());
                let half = (apart / 2.0).ceil() as i32;
                let area = [x - half, self.top, x + half, self.bottom];
                canvas.area_title("part", area, &mark.title);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::fixture;
    use roxmltree::Document;

    /// Codec, layers, KV heads and windows.
    type Shape = (&'static str, usize, usize, usize);

    /// Set `KVGAUGE_REPORT_DIR` to look at them.
    fn svg(name: &str, shapes: &[Shape]) -> String {
        let made: Vec<_> = shapes
            .iter()
            .map(|(codec, layers, heads, windows)| {
                fixture::attribution(codec, *layers, *heads, *windows)
            })
            .collect();
        let codecs: Vec<_> = made.iter().map(|(whole, parts)| (whole, parts)).collect();
        let svg = picture("a/b", &codecs).standalone();
        if let Some(folder) = std::env::var_os("KVGAUGE_REPORT_DIR") {
            std::fs::write(std::path::Path::new(&folder).join(name), &svg).unwrap();
        }
        svg
    }

    #[test]
    fn every_part_has_a_mark() {
        let cases: [(&str, &[Shape]); 5] = [
            ("attribution.svg", &[("int4-g64", 30, 3, 5)]),
            ("attribution-noise.svg", &[("int4-g64", 30, 3, 5), ("noise-int4-g64", 30, 3, 5)]),
            ("attribution-one.svg", &[("f16", 1, 1, 1)]),
            ("attribution-many.svg", &[("int4-g64", 80, 64, 20)]),
            ("attribution-hostile.svg", &[(fixture::HOSTILE, 2, 1, 3)]),
        ];
        for (name, shapes) in cases {
            let svg = svg(name, shapes);
            let document = Document::parse(&svg).unwrap_or_else(|e| panic!("{name}: {e}"));
            let titles = document
                .descendants()
                .filter(|node| node.attribute("class") == Some("part"))
                .filter_map(|node| node.first_element_child()?.text());
            // And the whole.
            let parts: usize = shapes.iter().map(|(_, l, h, _)| 2 + 2 * l + 3 * h + 1).sum();
            assert_eq!(titles.clone().count(), parts, "{name}");
            assert!(titles.clone().all(|title| title.contains("KLD ")), "{name}");
            let last = format!("Values, layer {}\n", shapes[0].1 - 1);
            assert!(titles.clone().any(|title| title.starts_with(&last)), "{name}");
            let root = document.root_element();
            let label = root.attribute("aria-label").unwrap();
            assert!(label.contains("KV head") && root.attribute("role") == Some("img"), "{label}");
            assert!(!svg.contains("NaN") && !svg.contains("<script>alert"), "{name}");
        }
    }
}
