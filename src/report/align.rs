//! Columns of a table for a terminal, two spaces between them.

use std::fmt::Write;

/// Spaces between two columns.
const GAP: usize = 2;

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

/// As [`align`], in blocks below each other where a row is longer than the terminal's `width`: each has
/// the first column and as many of the others as there is room for, one at least.
pub(crate) fn align_within(rows: &[Vec<String>], width: Option<usize>) -> String {
    let widths = widths(rows);
    let mut blocks: Vec<Vec<usize>> = vec![vec![0]];
    let mut used = widths.first().copied().unwrap_or(0);
    for (column, own) in widths.iter().enumerate().skip(1) {
        let full = width.is_some_and(|width| used + GAP + own > width);
        match blocks.last_mut() {
            Some(block) if !full || block.len() == 1 => block.push(column),
            _ => {
                blocks.push(vec![0, column]);
                used = widths[0];
            }
        }
        used += GAP + own;
    }
    let block = |columns: &Vec<usize>| {
        let of_row = |row: &Vec<String>| columns.iter().map(|at| row[*at].clone()).collect();
        align(&rows.iter().map(of_row).collect::<Vec<_>>())
    };
    blocks.iter().map(block).collect::<Vec<_>>().join("\n")
}

/// Characters of each column's longest cell.
fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    (0..columns).map(width).collect()
}

fn lay_out(rows: &[Vec<String>], left: usize, groups: &[usize]) -> (String, Vec<usize>) {
    let widths = widths(rows);
    let gap = |column: usize| match column {
        0 => 0,
        column if groups.contains(&column) => GAP + 1,
        _ => GAP,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_too_wide_comes_in_blocks_with_its_first_column() {
        let rows: Vec<Vec<String>> =
            [["codec", "bits", "KLD", "top-1"], ["q8_0", "8.5", "1", "99"]]
                .map(|row| row.map(String::from).to_vec())
                .to_vec();
        let whole = "codec  bits  KLD  top-1\nq8_0    8.5    1     99\n";
        assert_eq!(align_within(&rows, None), whole);
        assert_eq!(align_within(&rows, Some(23)), whole);
        let blocks = "codec  bits  KLD\nq8_0    8.5    1\n\ncodec  top-1\nq8_0      99\n";
        assert_eq!(align_within(&rows, Some(22)), blocks);
        // However narrow, no figure is lost.
        assert_eq!(align_within(&rows, Some(1)).matches("q8_0").count(), 3);
        assert_eq!(align_within(&[], Some(1)), "");
    }
}
