//! One picture: elements of SVG, one on top of the other, in pixels from the upper left. maud
//! writes them, and escapes what they hold.

use super::axis::Axis;
use super::theme::{self, Color};
use crate::report::text::printable;
use crate::whole_file::PICTURE_MARK;
use maud::{Markup, PreEscaped, html};

/// Wide enough for two columns on a desk; on a phone 375 pixels wide its text is still 10 pixels.
pub const WIDTH: i32 = 440;
pub const FONT: f64 = 13.0;
/// Of lines of text under the plot.
pub const LINE: i32 = 18;
/// Above the plot, with the heading and the name of the y axis in it.
const HEAD: i32 = 56;
const X_AXIS: i32 = 42;
const Y_AXIS: i32 = 70;
const RIGHT: i32 = 14;
const PLOT_HEIGHT: i32 = 250;

/// The plot of a chart with axes: where figures stand is known before anything is drawn.
pub struct Frame {
    pub x: Axis,
    pub y: Axis,
    pub x_name: String,
    pub y_name: String,
}

impl Frame {
    /// Left, top, right and bottom.
    pub const PLOT: [i32; 4] = [Y_AXIS, HEAD, WIDTH - RIGHT, HEAD + PLOT_HEIGHT];
    /// Under the plot and its axis.
    pub const UNDER: i32 = HEAD + PLOT_HEIGHT + X_AXIS + 6;

    /// Pixels of figures; beyond the axes is at their ends.
    pub fn place(&self, x: f64, y: f64) -> Point {
        let [left, top, right, bottom] = Self::PLOT;
        let (x, y) = (self.x.place(x), self.y.place(y));
        (self.x.pixel(x, [left, right]), self.y.pixel(y, [bottom, top]))
    }
}

/// x and y.
pub type Point = (i32, i32);

/// A finished picture.
#[derive(Debug, Clone)]
pub struct Chart {
    /// For who cannot see it.
    label: String,
    height: i32,
    elements: String,
}

impl Chart {
    /// A file of its own.
    pub fn standalone(&self) -> String {
        let svg = html! {
            (PreEscaped(format!("<svg{PICTURE_MARK} viewBox=\"{}\" role=\"img\"", self.view_box())))
            (PreEscaped(" aria-label=\"")) (self.label) (PreEscaped("\">\n"))
            style { (PreEscaped(theme::css())) } "\n"
            rect width=(WIDTH) height=(self.height) fill=(theme::GROUND) {} "\n"
            (PreEscaped(&self.elements))
            (PreEscaped("</svg>\n"))
        };
        svg.into_string().chars().map(printable).collect()
    }

    /// Part of a page that has [`theme::css`].
    pub fn inline(&self) -> Markup {
        html! {
            svg class="chart" viewBox=(self.view_box()) role="img" aria-label=(self.label) {
                "\n" (PreEscaped(&self.elements))
            }
            "\n"
        }
    }

    fn view_box(&self) -> String {
        format!("0 0 {WIDTH} {}", self.height)
    }
}

/// The end of a text that stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Left,
    Middle,
    Right,
}

impl Anchor {
    fn word(self) -> &'static str {
        match self {
            Self::Left => "start",
            Self::Middle => "middle",
            Self::Right => "end",
        }
    }
}

/// The mark of a point: ten shapes would be too many to tell apart; eight are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    Disc,
    Square,
    Up,
    Diamond,
    Down,
    Ring,
    Times,
    Plus,
    /// Beyond the right end of an axis; not for series.
    Right,
}

impl Marker {
    pub const ALL: [Self; 8] = [
        Self::Disc,
        Self::Square,
        Self::Up,
        Self::Diamond,
        Self::Down,
        Self::Ring,
        Self::Times,
        Self::Plus,
    ];
}

/// The elements drawn so far.
pub struct Canvas {
    elements: String,
}

/// `height`: of all of it.
pub fn draw(label: &str, height: i32, draw: impl FnOnce(&mut Canvas)) -> Chart {
    let mut canvas = Canvas { elements: String::new() };
    draw(&mut canvas);
    Chart { label: label.into(), height, elements: canvas.elements }
}

fn points(points: &[Point]) -> String {
    points.iter().map(|(x, y)| format!("{x},{y}")).collect::<Vec<_>>().join(" ")
}

impl Canvas {
    fn put(&mut self, element: Markup) {
        self.elements.push_str(&element.0);
        self.elements.push('\n');
    }

    /// Heading, grid and axes with their names.
    pub fn frame(&mut self, heading: &str, frame: &Frame) {
        let [left, top, right, bottom] = Frame::PLOT;
        self.heading(heading);
        for (place, _) in &frame.x.ticks {
            let x = frame.x.pixel(*place, [left, right]);
            self.line(&[(x, top), (x, bottom)], theme::GRID);
        }
        self.y_axis(&frame.y, [left, top, right, bottom]);
        for (place, tick) in &frame.x.ticks {
            let x = frame.x.pixel(*place, [left, right]);
            self.text(tick, (x, bottom + 12), Anchor::Middle, theme::MUTED);
        }
        let middle = (left + right) / 2;
        self.text(&frame.x_name, (middle, bottom + X_AXIS - 10), Anchor::Middle, theme::INK);
        // Lying down it is read more easily, however long it is.
        self.text(&frame.y_name, (4, top - 18), Anchor::Left, theme::INK);
    }

    /// Ticks with lines across the plot, and the axes at its left and lower end.
    pub fn y_axis(&mut self, axis: &Axis, [left, top, right, bottom]: [i32; 4]) {
        for (place, tick) in &axis.ticks {
            let y = axis.pixel(*place, [bottom, top]);
            self.line(&[(left, y), (right, y)], theme::GRID);
            self.text(tick, (left - 7, y), Anchor::Right, theme::MUTED);
        }
        self.line(&[(left, top), (left, bottom), (right, bottom)], theme::AXIS);
    }

    pub fn heading(&mut self, text: &str) {
        self.write(text, (4, 10), Anchor::Left, theme::INK, (15.0, None));
    }

    /// A pixel wide.
    pub fn line(&mut self, line: &[Point], color: Color) {
        self.put(html! { polyline points=(points(line)) fill="none" stroke=(color) {} });
    }

    pub fn dotted(&mut self, line: [Point; 2], color: Color) {
        self.put(html! {
            polyline points=(points(&line)) fill="none" stroke=(color) stroke-dasharray="2 4" {}
        });
    }

    /// The line of a series, which has a colour and a pattern of dashes.
    pub fn series(&mut self, series: usize, line: &[Point]) {
        self.put(html! {
            polyline points=(points(line)) fill="none" stroke=(theme::SERIES[series])
                stroke-width="2" stroke-dasharray=(theme::DASHES[series]) {}
        });
    }

    /// From top to bottom, with caps `cap` pixels to each side.
    pub fn error_bar(&mut self, [(x, top), (_, bottom)]: [Point; 2], cap: i32, color: Color) {
        let (left, right) = (x - cap, x + cap);
        let path = format!("M{x} {top}V{bottom}M{left} {top}H{right}M{left} {bottom}H{right}");
        self.put(html! { path d=(path) fill="none" stroke=(color) {} });
    }

    /// A translucent area around a line.
    pub fn band(&mut self, outline: &[Point], color: Color) {
        self.put(html! { polygon points=(points(outline)) fill=(color) fill-opacity="0.13" {} });
    }

    pub fn rect(&mut self, area: [i32; 4], color: Color) {
        self.area(area, (Some(color), None), None, None);
    }

    /// With a thin edge.
    pub fn swatch(&mut self, area: [i32; 4], color: Color) {
        self.area(area, (Some(color), Some(theme::AXIS)), None, None);
    }

    /// A filled field; a pointer over it is told `title`.
    pub fn field(&mut self, area: [i32; 4], color: Color, title: &str) {
        self.area(area, (Some(color), None), None, Some(title));
    }

    /// An area that is not seen; a pointer over it is told `title`.
    pub fn area_title(&mut self, class: &str, area: [i32; 4], title: &str) {
        self.area(area, (None, None), Some(class), Some(title));
    }

    fn area(
        &mut self,
        [x0, y0, x1, y1]: [i32; 4],
        (fill, edge): (Option<Color>, Option<Color>),
        class: Option<&str>,
        title: Option<&str>,
    ) {
        let opacity = if fill.is_none() { Some(0) } else { None };
        self.put(html! {
            rect class=[class] x=(x0) y=(y0) width=(x1 - x0) height=(y1 - y0) fill=[fill]
                fill-opacity=[opacity] stroke=[edge] {
                @if let Some(title) = title { title { (title) } }
            }
        });
    }

    /// `at`: the middle of its height.
    pub fn text(&mut self, text: &str, at: Point, anchor: Anchor, color: Color) {
        self.write(text, at, anchor, color, (FONT, None));
    }

    /// A point's name; `cells`: the results that the point stands for.
    pub fn name(&mut self, text: &str, at: Point, anchor: Anchor, color: Color, cells: &str) {
        self.write(text, at, anchor, color, (FONT, Some(cells)));
    }

    fn write(
        &mut self,
        text: &str,
        (x, y): Point,
        anchor: Anchor,
        color: Color,
        (size, cells): (f64, Option<&str>),
    ) {
        self.put(html! {
            text class=[cells.map(|_| "point-name")] data-of=[cells] x=(x) y=(y) dy=".35em"
                text-anchor=(anchor.word()) font-family="sans-serif" font-size=(size) fill=(color)
                pointer-events="none" { (text) }
        });
    }

    /// `r`: about half its width.
    pub fn marker(&mut self, marker: Marker, (x, y): Point, r: i32, color: Color) {
        let polygon = |corners: &[Point]| {
            let at: Vec<Point> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
            html! { polygon points=(points(&at)) fill=(color) {} }
        };
        let strokes = |[a, b, c, d]: [Point; 4]| {
            let line = |from: Point, to: Point| {
                format!("M{} {}L{} {}", x + from.0, y + from.1, x + to.0, y + to.1)
            };
            html! { path d=(line(a, b) + &line(c, d)) stroke=(color) stroke-width="2" {} }
        };
        let (s, d) = (r - 1, r + 1);
        self.put(match marker {
            Marker::Disc => html! { circle cx=(x) cy=(y) r=(r) fill=(color) {} },
            Marker::Ring => html! {
                circle cx=(x) cy=(y) r=(r) fill=(theme::GROUND) stroke=(color) stroke-width="2" {}
            },
            Marker::Square => polygon(&[(-s, -s), (s, -s), (s, s), (-s, s)]),
            Marker::Up => polygon(&[(0, -d), (d, r), (-d, r)]),
            Marker::Down => polygon(&[(0, d), (d, -r), (-d, -r)]),
            Marker::Right => polygon(&[(d, 0), (-r, d), (-r, -d)]),
            Marker::Diamond => polygon(&[(0, -d), (d, 0), (0, d), (-d, 0)]),
            Marker::Times => strokes([(-s, -s), (s, s), (-s, s), (s, -s)]),
            Marker::Plus => strokes([(-r, 0), (r, 0), (0, -r), (0, r)]),
        });
    }

    pub fn ring(&mut self, (x, y): Point, r: i32, color: Color) {
        self.put(html! {
            circle cx=(x) cy=(y) r=(r) fill="none" stroke=(color) stroke-width="2" {}
        });
    }

    /// The result that a place stands for, and what a pointer over it is told. `on_line`: one of
    /// many places of the same result.
    pub fn hit(&mut self, (x, y): Point, title: &str, cell: usize, on_line: bool) {
        self.put(html! {
            circle class=(if on_line { "hit on-line" } else { "hit" }) data-cell=(cell) cx=(x)
                cy=(y) r="8" fill-opacity="0" { title { (title) } }
        });
    }
}
