//! Columns of a table for a terminal, two spaces between them.

use std::fmt::Write;

/// The first column to the left, the others to the right. Every row has as many cells.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    lay_out(rows, 1, &[]).0
}

/// The first `left` columns to the left, the others to the right.
pub(crate) fn align_left(rows: &[Vec<String>], left: usize) -> String {
    lay_out(rows, left, &[]).0
}

/// As [`align`], with one more space before each column of `groups`, and where those begin.
pub(crate) fn align_groups(rows: &[Vec<String>], groups: &[usize]) -> (String, Vec<usize>) {
    lay_out(rows, 1, groups)
}

fn lay_out(rows: &[Vec<String>], left: usize, groups: &[usize]) -> (String, Vec<usize>) {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let gap = |column: usize| match column {
        0 => 0,
        column if groups.contains(&column) => 3,
        _ => 2,
    };
    let start =
        |column: &usize| (0..*column).map(|c| gap(c) + widths[c]).sum::<usize>() + gap(*column);
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(gap(column));
            // Writing to a String cannot fail.
            let _ = match column < left {
                true => write!(line, "{gap}{cell:<width$}"),
                false => write!(line, "{gap}{cell:>width$}"),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    (out, groups.iter().map(start).collect())
}
