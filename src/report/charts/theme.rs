//! Colours of the charts, light and dark.
//!
//! Charts are drawn in the light colours; each stands for a role, so that a style sheet can
//! replace it by its dark twin through the attribute that carries it. Viewers that do not read
//! style sheets, and every printer, get the light ones.

use std::fmt::{self, Write};

/// Red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(u8, u8, u8);

/// `#0B5CAD`
impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02X}{:02X}{:02X}", self.0, self.1, self.2)
    }
}

pub const GROUND: Color = Color(0xff, 0xff, 0xff);
pub const INK: Color = Color(0x1f, 0x23, 0x28);
pub const MUTED: Color = Color(0x5b, 0x63, 0x6d);
pub const AXIS: Color = Color(0x8a, 0x92, 0x9b);
pub const GRID: Color = Color(0xe4, 0xe7, 0xeb);
pub const POINT: Color = Color(0x7d, 0x87, 0x92);
pub const FRONT: Color = Color(0x0b, 0x5c, 0xad);
pub const LIMIT: Color = Color(0xb4, 0x23, 0x18);
pub const WITHIN: Color = Color(0xea, 0xf5, 0xee);
/// Beyond the scale of a heat map.
pub const ABOVE: Color = Color(0xb9, 0xc0, 0xc8);
/// No error at all, in heat maps.
pub const EXACT: Color = Color(0xe4, 0xd2, 0xea);

/// Distinguishable under the usual kinds of colour blindness at least in lightness; every
/// series has a dash pattern and a marker of its own beside it.
pub const SERIES: [Color; 8] = [
    Color(0x00, 0x6b, 0xb3),
    Color(0xc9, 0x4a, 0x00),
    Color(0x00, 0x7a, 0x58),
    Color(0x9c, 0x3a, 0x8a),
    Color(0x8c, 0x6a, 0x00),
    Color(0x3a, 0x2f, 0x8f),
    Color(0x1d, 0x8f, 0xb5),
    Color(0x44, 0x44, 0x44),
];
pub const DASHES: [&str; 8] =
    ["none", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 2", "7 3 2 3 2 3"];

/// Viridis in ten steps, dark to light: even in lightness, so it reads on both grounds, in grey
/// and with any colour vision.
pub const SCALE: [Color; 10] = [
    Color(0x44, 0x01, 0x54),
    Color(0x48, 0x28, 0x78),
    Color(0x3e, 0x4a, 0x89),
    Color(0x31, 0x68, 0x8e),
    Color(0x26, 0x82, 0x8e),
    Color(0x1f, 0x9e, 0x89),
    Color(0x35, 0xb7, 0x79),
    Color(0x6d, 0xcd, 0x59),
    Color(0xb4, 0xde, 0x2c),
    Color(0xfd, 0xe7, 0x25),
];

/// The scale at `share` (0…1), between its steps too.
pub fn scale(share: f64) -> Color {
    let at = share.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let below = (at.floor() as usize).min(SCALE.len() - 2);
    let (from, to) = (SCALE[below], SCALE[below + 1]);
    let mix = |a: u8, b: u8| {
        (f64::from(a) + (at - below as f64) * (f64::from(b) - f64::from(a))).round() as u8
    };
    Color(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// Light colour and its dark twin.
const TWINS: [(Color, Color); 19] = [
    (GROUND, Color(0x15, 0x18, 0x1c)),
    (INK, Color(0xe6, 0xe9, 0xed)),
    (MUTED, Color(0xa3, 0xac, 0xb6)),
    (AXIS, Color(0x7a, 0x83, 0x8d)),
    (GRID, Color(0x2a, 0x30, 0x37)),
    (POINT, Color(0x8c, 0x96, 0xa1)),
    (FRONT, Color(0x6c, 0xb6, 0xff)),
    (LIMIT, Color(0xff, 0x8a, 0x7a)),
    (WITHIN, Color(0x18, 0x2a, 0x20)),
    (ABOVE, Color(0x4f, 0x57, 0x60)),
    (EXACT, Color(0x4d, 0x36, 0x57)),
    (SERIES[0], Color(0x5e, 0xb1, 0xff)),
    (SERIES[1], Color(0xff, 0x93, 0x4d)),
    (SERIES[2], Color(0x3f, 0xcb, 0x9d)),
    (SERIES[3], Color(0xe8, 0x8f, 0xd8)),
    (SERIES[4], Color(0xe2, 0xb8, 0x3c)),
    (SERIES[5], Color(0xaa, 0xa0, 0xff)),
    (SERIES[6], Color(0x8a, 0xdc, 0xf5)),
    (SERIES[7], Color(0xd4, 0xd4, 0xd4)),
];

/// The style sheet of every chart.
pub fn css() -> String {
    let mut out = String::from(
        ".chart text{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"Noto Sans\",\
         sans-serif;font-variant-numeric:tabular-nums}\n\
         .chart text{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}\n\
         .chart rect{shape-rendering:crispEdges}\n",
    );
    // A halo, so that labels can be read across lines. Writing to a String cannot fail.
    let _ = writeln!(out, ".chart text{{stroke:{}}}", GROUND);
    out.push_str("@media screen and (prefers-color-scheme:dark){\n");
    let _ = writeln!(out, ".chart text{{stroke:{}}}", TWINS[0].1);
    for (light, dark) in TWINS {
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
    fn luminance(color: Color) -> f64 {
        let linear = |channel: u8| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(color.0) + 0.7152 * linear(color.1) + 0.0722 * linear(color.2)
    }

    fn contrast(a: Color, b: Color) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_role_has_a_colour_of_its_own() {
        let colors = TWINS.iter().map(|(light, _)| *light).chain(SCALE);
        let mut seen = HashSet::new();
        assert!(colors.map(|color| color.to_string()).all(|color| seen.insert(color)));
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
