//! The lines of text under a plot that say which mark is which.

use super::canvas::{Anchor, Canvas, FONT, LINE, Point, WIDTH};
use super::theme;
use crate::report::text::width;

const LEFT: i32 = 8;
/// Room for the mark before the text.
const MARK: i32 = 34;

pub struct Key {
    entries: Vec<String>,
    columns: usize,
    column_width: i32,
}

impl Key {
    /// In as many columns as fit.
    pub fn new(entries: Vec<String>) -> Self {
        let longest = entries.iter().map(|entry| width(entry, FONT)).fold(0.0, f64::max);
        let column_width = (longest.ceil() as i32 + MARK + 8).min(WIDTH - 2 * LEFT);
        let columns = ((WIDTH - 2 * LEFT) / column_width).clamp(1, 3) as usize;
        let columns = columns.min(entries.len().max(1));
        Self { entries, columns, column_width }
    }

    pub fn height(&self) -> i32 {
        if self.entries.is_empty() {
            return 0;
        }
        self.entries.len().div_ceil(self.columns) as i32 * LINE + 6
    }

    /// Column by column from `top` down. `mark` draws the mark of an entry around a place, which
    /// is the middle of its room.
    pub fn draw(
        &self,
        canvas: &mut Canvas,
        top: i32,
        mut mark: impl FnMut(&mut Canvas, usize, Point),
    ) {
        let rows = self.entries.len().div_ceil(self.columns);
        for (i, entry) in self.entries.iter().enumerate() {
            let x = LEFT + (i / rows) as i32 * self.column_width;
            let y = top + (i % rows) as i32 * LINE + LINE / 2;
            mark(canvas, i, (x + MARK / 2 - 3, y));
            canvas.text(entry, (x + MARK, y), Anchor::Left, theme::INK);
        }
    }
}
