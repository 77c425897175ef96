//! One picture: plotters draws it into a string, and what plotters' SVG has no word for (names
//! for readers and pointers, a view box instead of a size) is written around it.

use super::axis::Axis;
use super::theme;
use crate::error::{Error, Result};
use crate::report::text::{escape, printable};
use crate::whole_file::PICTURE_MARK;
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{
    Circle, Cross, Drawable, PathElement, PointCollection, Polygon, Rectangle, Text,
};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, RGBColor, TextStyle};
use std::fmt::Write;

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

/// Of the plot itself.
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
    pub fn place(&self, x: f64, y: f64) -> (i32, i32) {
        let [left, top, right, bottom] = Self::PLOT;
        let (x, y) = (self.x.place(x), self.y.place(y));
        (self.x.map(&x, (left, right)), self.y.map(&y, (bottom, top)))
    }
}

/// A finished picture.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What it shows, for who cannot see it.
    label: String,
    height: i32,
    elements: String,
}

impl Chart {
    /// A file of its own.
    pub fn standalone(&self) -> String {
        let ground = theme::hex(theme::GROUND);
        format!(
            "{}<style>\n{}</style>\n<rect width=\"{WIDTH}\" height=\"{}\" fill=\"{ground}\"/>\n{}\
             </svg>\n",
            self.open(PICTURE_MARK),
            theme::css(),
            self.height,
            self.elements
        )
    }

    /// Part of a page that has [`theme::css`].
    pub fn inline(&self) -> String {
        format!("{}{}</svg>\n", self.open(" class=\"chart\""), self.elements)
    }

    fn open(&self, attributes: &str) -> String {
        format!(
            "<svg{attributes} viewBox=\"0 0 {WIDTH} {}\" role=\"img\" \
             aria-label=\"{}\">\n",
            self.height,
            escape(&self.label)
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Left,
    Middle,
    Right,
}

/// Ten shapes would be too many to tell apart; eight are not.
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

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What a picture is drawn on, in pixels from the upper left.
pub struct Canvas<'a> {
    area: Area<'a>,
    height: i32,
    extra: String,
}

/// `height`: all of it. What `draw` writes is what is seen.
pub fn draw(
    label: &str,
    height: i32,
    draw: impl FnOnce(&mut Canvas) -> Result<()>,
) -> Result<Chart> {
    let mut svg = String::new();
    let extra = {
        let backend = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32));
        let mut canvas = Canvas { area: backend.into_drawing_area(), height, extra: String::new() };
        draw(&mut canvas)?;
        canvas.area.present().map_err(failed)?;
        canvas.extra
    };
    // The first line opens the svg element, the last closes it.
    let elements = svg.split_once('\n').map_or("", |(_, rest)| rest);
    let elements = elements.trim_end().trim_end_matches("</svg>");
    Ok(Chart { label: label.into(), height, elements: format!("{elements}{extra}") })
}

/// Drawing into a string cannot fail, but plotters' interface can say so.
fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    Error::system(format!("drawing a chart: {error}"))
}

fn font(size: f64, color: RGBColor, anchor: Anchor, middle: bool) -> TextStyle<'static> {
    // plotters divides by 1.24 on its way to the font-size attribute.
    let size = size * 1.24;
    let h_pos = match anchor {
        Anchor::Left => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::Right => HPos::Right,
    };
    let v_pos = if middle { VPos::Center } else { VPos::Top };
    let mut style = TextStyle::from(FontDesc::from(("sans-serif", size)));
    style.color = color.to_backend_color();
    style.pos(Pos::new(h_pos, v_pos))
}

impl<'a> Canvas<'a> {
    /// Axes, grid and heading.
    pub fn frame(&mut self, heading: &str, frame: &Frame) -> Result<()> {
        self.heading(heading)?;
        let Frame { x, y, x_name, y_name } = frame;
        let mut chart = ChartBuilder::on(&self.area)
            .margin_top(HEAD)
            .margin_right(RIGHT)
            .margin_bottom(self.height - (HEAD + PLOT_HEIGHT + X_AXIS))
            .x_label_area_size(X_AXIS)
            .y_label_area_size(Y_AXIS)
            .build_cartesian_2d(x.clone(), y.clone())
            .map_err(failed)?;
        chart
            .configure_mesh()
            .bold_line_style(theme::GRID)
            .light_line_style(theme::GRID.mix(0.0))
            .axis_style(theme::AXIS)
            .label_style(font(FONT, theme::MUTED, Anchor::Left, true))
            .axis_desc_style(font(FONT, theme::INK, Anchor::Left, true))
            .x_desc(x_name)
            .draw()
            .map_err(failed)?;
        // Lying down it is read more easily, however long it is.
        self.text(y_name, (4, HEAD - 18), Anchor::Left, theme::INK)
    }

    pub fn heading(&mut self, text: &str) -> Result<()> {
        self.put(&Text::new(text.to_string(), (4, 4), {
            font(15.0, theme::INK, Anchor::Left, false)
        }))
    }

    pub fn line(&mut self, points: Vec<(i32, i32)>, color: RGBColor, width: u32) -> Result<()> {
        self.put(&PathElement::new(points, color.stroke_width(width)))
    }

    /// A translucent area around a line.
    pub fn band(&mut self, outline: Vec<(i32, i32)>, color: RGBColor) -> Result<()> {
        self.put(&Polygon::new(outline, color.mix(0.13)))
    }

    pub fn rect(&mut self, [x0, y0, x1, y1]: [i32; 4], color: RGBColor) -> Result<()> {
        self.put(&Rectangle::new([(x0, y0), (x1, y1)], color.filled()))
    }

    pub fn frame_rect(&mut self, [x0, y0, x1, y1]: [i32; 4], color: RGBColor) -> Result<()> {
        self.put(&Rectangle::new([(x0, y0), (x1, y1)], color.stroke_width(1)))
    }

    /// `at`: the middle of its height.
    pub fn text(
        &mut self,
        text: &str,
        at: (i32, i32),
        anchor: Anchor,
        color: RGBColor,
    ) -> Result<()> {
        let text: String = text.chars().map(printable).collect();
        self.put(&Text::new(text, at, font(FONT, color, anchor, true)))
    }

    pub fn marker(
        &mut self,
        marker: Marker,
        (x, y): (i32, i32),
        r: i32,
        color: RGBColor,
    ) -> Result<()> {
        let filled = color.filled();
        let shape = |points: &[(i32, i32)]| -> Vec<(i32, i32)> {
            points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect()
        };
        match marker {
            Marker::Disc => self.put(&Circle::new((x, y), r, filled)),
            Marker::Ring => {
                self.put(&Circle::new((x, y), r, theme::GROUND.filled()))?;
                self.put(&Circle::new((x, y), r, color.stroke_width(2)))
            }
            Marker::Square => {
                let r = r - 1;
                self.put(&Rectangle::new([(x - r, y - r), (x + r, y + r)], filled))
            }
            Marker::Up => {
                self.put(&Polygon::new(shape(&[(0, -r - 1), (r + 1, r), (-r - 1, r)]), filled))
            }
            Marker::Down => {
                self.put(&Polygon::new(shape(&[(0, r + 1), (r + 1, -r), (-r - 1, -r)]), filled))
            }
            Marker::Right => {
                self.put(&Polygon::new(shape(&[(r + 1, 0), (-r, r + 1), (-r, -r - 1)]), filled))
            }
            Marker::Diamond => {
                let r = r + 1;
                self.put(&Polygon::new(shape(&[(0, -r), (r, 0), (0, r), (-r, 0)]), filled))
            }
            Marker::Times => self.put(&Cross::new((x, y), r - 1, color.stroke_width(2))),
            Marker::Plus => {
                self.rect([x - r, y - 1, x + r, y + 1], color)?;
                self.rect([x - 1, y - r, x + 1, y + r], color)
            }
        }
    }

    pub fn ring(&mut self, at: (i32, i32), r: i32, color: RGBColor) -> Result<()> {
        self.put(&Circle::new(at, r, color.stroke_width(2)))
    }

    /// What a pointer over a place is told, and the result that this place stands for.
    pub fn hit(&mut self, at: (i32, i32), title: &str, cell: usize) {
        self.spot("hit", at, title, cell);
    }

    /// The same for one of many places of a line.
    pub fn hit_on_line(&mut self, at: (i32, i32), title: &str, cell: usize) {
        self.spot("hit on-line", at, title, cell);
    }

    fn spot(&mut self, class: &str, (x, y): (i32, i32), title: &str, cell: usize) {
        let title = escape(title);
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.extra,
            "<circle class=\"{class}\" data-cell=\"{cell}\" cx=\"{x}\" cy=\"{y}\" r=\"8\" \
             fill-opacity=\"0\"><title>{title}</title></circle>"
        );
    }

    /// A point's name; `cells`: the results that the point stands for;
    /// `led`: a leader says so.
    pub fn name(
        &mut self,
        text: &str,
        (x, y): (i32, i32),
        anchor: Anchor,
        color: RGBColor,
        cells: &str,
        led: bool,
    ) {
        let anchor = match anchor {
            Anchor::Left => "start",
            Anchor::Middle => "middle",
            Anchor::Right => "end",
        };
        let (color, text) = (theme::hex(color), escape(text));
        let led = if led { " led" } else { "" };
        let _ = writeln!(
            self.extra,
            "<text class=\"point-name{led}\" data-of=\"{cells}\" x=\"{x}\" y=\"{y}\" dy=\"0.7ex\" \
             text-anchor=\"{anchor}\" font-family=\"sans-serif\" font-size=\"{FONT}\" \
             fill=\"{color}\" pointer-events=\"none\">{text}</text>"
        );
    }

    /// From a point to its name.
    pub fn leader(&mut self, [from, to]: [(i32, i32); 2]) {
        self.thin_line("leader", [from, to], theme::AXIS, "none");
    }

    pub fn dotted(&mut self, line: [(i32, i32); 2], color: RGBColor) {
        self.thin_line("level", line, color, "2 4");
    }

    /// An interval, without the dashes that lines of its colour have.
    pub fn whisker(&mut self, line: [(i32, i32); 2], color: RGBColor) {
        self.thin_line("whisker", line, color, "none");
    }

    fn thin_line(&mut self, class: &str, line: [(i32, i32); 2], color: RGBColor, dashes: &str) {
        let [(x1, y1), (x2, y2)] = line;
        let color = theme::hex(color);
        let _ = writeln!(
            self.extra,
            "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" \
             stroke=\"{color}\" stroke-dasharray=\"{dashes}\"/>"
        );
    }

    /// In the middle of a field.
    pub fn field_text(&mut self, text: &str, (x, y): (i32, i32)) {
        let (ink, text) = (theme::hex(theme::INK), escape(text));
        let _ = writeln!(
            self.extra,
            "<text x=\"{x}\" y=\"{y}\" dy=\"0.5ex\" text-anchor=\"middle\" font-family=\"sans-serif\" \
             font-size=\"{FONT}\" fill=\"{ink}\" pointer-events=\"none\">{text}</text>"
        );
    }

    /// A filled field with a title.
    pub fn field(&mut self, [x0, y0, x1, y1]: [i32; 4], color: RGBColor, title: &str) {
        let _ = writeln!(
            self.extra,
            "<rect x=\"{x0}\" y=\"{y0}\" width=\"{}\" height=\"{}\" fill=\"{}\">\
             <title>{}</title></rect>",
            x1 - x0,
            y1 - y0,
            theme::hex(color),
            escape(title)
        );
    }

    /// What a pointer over an area is told; nothing is seen of it.
    pub fn area_title(&mut self, class: &str, [x0, y0, x1, y1]: [i32; 4], title: &str) {
        let _ = writeln!(
            self.extra,
            "<rect class=\"{class}\" x=\"{x0}\" y=\"{y0}\" width=\"{}\" height=\"{}\" \
             fill-opacity=\"0\"><title>{}</title></rect>",
            x1 - x0,
            y1 - y0,
            escape(title)
        );
    }

    fn put<'b, E>(&self, element: &'b E) -> Result<()>
    where
        &'b E: PointCollection<'b, (i32, i32)>,
        E: Drawable<SVGBackend<'a>>,
    {
        self.area.draw(element).map_err(failed)
    }
}
