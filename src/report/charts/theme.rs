//! Colours of the charts, light and dark.
//!
//! Charts are drawn in the light colours; each stands for a role, so that a style sheet can
//! replace it by its dark twin through the attribute that carries it. What does not read style
//! sheets, and every printer, gets the light ones.

use plotters::style::RGBColor;
use std::fmt::Write;

pub const GROUND: RGBColor = RGBColor(0xff, 0xff, 0xff);
pub const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
pub const MUTED: RGBColor = RGBColor(0x5b, 0x63, 0x6d);
pub const AXIS: RGBColor = RGBColor(0x8a, 0x92, 0x9b);
pub const GRID: RGBColor = RGBColor(0xe4, 0xe7, 0xeb);
pub const POINT: RGBColor = RGBColor(0x7d, 0x87, 0x92);
pub const FRONT: RGBColor = RGBColor(0x0b, 0x5c, 0xad);
pub const LIMIT: RGBColor = RGBColor(0xb4, 0x23, 0x18);
pub const WITHIN: RGBColor = RGBColor(0xea, 0xf5, 0xee);
/// Beyond the scale of a heat map.
pub const ABOVE: RGBColor = RGBColor(0xb9, 0xc0, 0xc8);
/// No error at all, in heat maps.
pub const EXACT: RGBColor = RGBColor(0xe4, 0xd2, 0xea);

/// Distinguishable under the usual kinds of colour blindness at least in lightness; every
/// series has a dash pattern and a marker of its own beside it.
pub const SERIES: [RGBColor; 8] = [
    RGBColor(0x00, 0x6b, 0xb3),
    RGBColor(0xc9, 0x4a, 0x00),
    RGBColor(0x00, 0x7a, 0x58),
    RGBColor(0x9c, 0x3a, 0x8a),
    RGBColor(0x8c, 0x6a, 0x00),
    RGBColor(0x3a, 0x2f, 0x8f),
    RGBColor(0x1d, 0x8f, 0xb5),
    RGBColor(0x44, 0x44, 0x44),
];
pub const DASHES: [&str; 8] =
    ["none", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 2", "7 3 2 3 2 3"];

/// Viridis in ten steps, dark to light: even in lightness, so it reads on both grounds, in grey
/// and with any colour vision.
pub const SCALE: [RGBColor; 10] = [
    RGBColor(0x44, 0x01, 0x54),
    RGBColor(0x48, 0x28, 0x78),
    RGBColor(0x3e, 0x4a, 0x89),
    RGBColor(0x31, 0x68, 0x8e),
    RGBColor(0x26, 0x82, 0x8e),
    RGBColor(0x1f, 0x9e, 0x89),
    RGBColor(0x35, 0xb7, 0x79),
    RGBColor(0x6d, 0xcd, 0x59),
    RGBColor(0xb4, 0xde, 0x2c),
    RGBColor(0xfd, 0xe7, 0x25),
];

/// The scale at `share` (0…1), between its steps too.
pub fn scale(share: f64) -> RGBColor {
    let at = share.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let below = (at.floor() as usize).min(SCALE.len() - 2);
    let (from, to) = (SCALE[below], SCALE[below + 1]);
    let mix = |a: u8, b: u8| {
        (f64::from(a) + (at - below as f64) * (f64::from(b) - f64::from(a))).round() as u8
    };
    RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// Light colour and its dark twin.
const TWINS: [(RGBColor, RGBColor); 19] = [
    (GROUND, RGBColor(0x15, 0x18, 0x1c)),
    (INK, RGBColor(0xe6, 0xe9, 0xed)),
    (MUTED, RGBColor(0xa3, 0xac, 0xb6)),
    (AXIS, RGBColor(0x7a, 0x83, 0x8d)),
    (GRID, RGBColor(0x2a, 0x30, 0x37)),
    (POINT, RGBColor(0x8c, 0x96, 0xa1)),
    (FRONT, RGBColor(0x6c, 0xb6, 0xff)),
    (LIMIT, RGBColor(0xff, 0x8a, 0x7a)),
    (WITHIN, RGBColor(0x18, 0x2a, 0x20)),
    (ABOVE, RGBColor(0x4f, 0x57, 0x60)),
    (EXACT, RGBColor(0x4d, 0x36, 0x57)),
    (SERIES[0], RGBColor(0x5e, 0xb1, 0xff)),
    (SERIES[1], RGBColor(0xff, 0x93, 0x4d)),
    (SERIES[2], RGBColor(0x3f, 0xcb, 0x9d)),
    (SERIES[3], RGBColor(0xe8, 0x8f, 0xd8)),
    (SERIES[4], RGBColor(0xe2, 0xb8, 0x3c)),
    (SERIES[5], RGBColor(0xaa, 0xa0, 0xff)),
    (SERIES[6], RGBColor(0x8a, 0xdc, 0xf5)),
    (SERIES[7], RGBColor(0xd4, 0xd4, 0xd4)),
];

pub fn hex(color: RGBColor) -> String {
    format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2)
}

/// The style sheet of every chart.
pub fn css() -> String {
    let mut out = String::from(
        ".chart text{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"Noto Sans\",\
         sans-serif;font-variant-numeric:tabular-nums}\n\
         .chart text{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}\n\
         .chart rect{shape-rendering:crispEdges}\n",
    );
    // A halo, so that labels can be read across lines. Writing to a String cannot fail.
    let _ = writeln!(out, ".chart text{{stroke:{}}}", hex(GROUND));
    for (color, dashes) in SERIES.iter().zip(DASHES) {
        let _ = writeln!(
            out,
            ".chart polyline[stroke=\"{}\"]{{stroke-dasharray:{dashes}}}",
            hex(*color)
        );
    }
    out.push_str("@media screen and (prefers-color-scheme:dark){\n");
    let _ = writeln!(out, ".chart text{{stroke:{}}}", hex(TWINS[0].1));
    for (light, dark) in TWINS {
        let (light, dark) = (hex(light), hex(dark));
        let _ = writeln!(
            out,
            ".chart [fill=\"{light}\"]{{fill:{dark}}}.chart [stroke=\"{light}\"]{{stroke:{dark}}}"
        );
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Relative luminance of WCAG 2.
    fn luminance(color: RGBColor) -> f64 {
        let linear = |channel: u8| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(color.0) + 0.7152 * linear(color.1) + 0.0722 * linear(color.2)
    }

    fn contrast(a: RGBColor, b: RGBColor) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_role_has_a_colour_of_its_own() {
        let colors = TWINS.iter().map(|(light, _)| *light).chain(SCALE);
        let mut seen = HashSet::new();
        assert!(colors.map(hex).all(|color| seen.insert(color)));
    }

    /// WCAG AA: 4.5 for text, 3 for what is drawn.
    #[test]
    fn everything_stands_out_from_both_grounds() {
        let dark_ground = TWINS[0].1;
        for (light, dark) in &TWINS[1..] {
            if [GRID, WITHIN, ABOVE, EXACT].contains(light) {
                continue;
            }
            let needed = if [INK, MUTED, LIMIT, FRONT].contains(light) { 4.5 } else { 3.0 };
            assert!(contrast(*light, GROUND) >= needed, "{light:?}");
            assert!(contrast(*dark, dark_ground) >= needed, "{dark:?}");
        }
    }
}
