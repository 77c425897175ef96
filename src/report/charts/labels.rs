//! Labels beside points, without overlaps.

use super::canvas::{Anchor, FONT};
use crate::report::text::width;

const LINE: i32 = 15;

/// Left, top, right, bottom.
type Box4 = [i32; 4];

pub struct Label {
    pub lines: Vec<String>,
    pub point: (i32, i32),
}

#[derive(Debug, Clone, Copy)]
pub struct Placed {
    pub at: (i32, i32),
    pub anchor: Anchor,
    /// A line from the point is needed to see what it belongs to.
    pub far: bool,
}

/// Finds a place for all labels, or `None`. `points`: of everything drawn; `bars`: boxes better
/// kept free.
pub fn place(
    labels: &[Label],
    points: &[(i32, i32)],
    bars: &[Box4],
    plot: Box4,
) -> Option<Vec<Placed>> {
    let mut taken: Vec<Box4> = points.iter().map(|p| around(*p, 5)).collect();
    let mut placed = Vec::new();
    for label in labels {
        let own = around(label.point, 5);
        let free = |(_, (area, _)): &(usize, (Box4, Placed))| {
            inside(area, plot) && taken.iter().all(|other| *other == own || !overlap(area, other))
        };
        // Near the point, but rather a step away than over lines.
        let cost = |(nearness, (area, _)): &(usize, (Box4, Placed))| {
            nearness + 5 * bars.iter().filter(|bar| overlap(area, bar)).count()
        };
        let candidates = candidates(label).into_iter().enumerate();
        let found = candidates.filter(free).min_by_key(cost).map(|(_, candidate)| candidate);
        let (area, place) = found?;
        taken.push(area);
        placed.push(place);
    }
    Some(placed)
}

/// Boxes around the point, near ones first.
fn candidates(label: &Label) -> Vec<(Box4, Placed)> {
    let (x, y) = label.point;
    let wide = label.lines.iter().map(|line| width(line, FONT)).fold(0.0, f64::max).ceil() as i32;
    let tall = LINE * label.lines.len() as i32;
    let mut out = Vec::new();
    for (distance, far) in [(9, false), (14, false), (26, true), (42, true), (60, true), (84, true)]
    {
        let slant = distance * 7 / 10 + tall / 2 - 4;
        let sides = [
            (Anchor::Left, distance, 0),
            (Anchor::Left, distance, -slant),
            (Anchor::Left, distance, slant),
            (Anchor::Right, -distance, 0),
            (Anchor::Right, -distance, -slant),
            (Anchor::Right, -distance, slant),
            (Anchor::Middle, 0, -distance - tall / 2),
            (Anchor::Middle, 0, distance + tall / 2),
        ];
        for (anchor, dx, dy) in sides {
            let left = match anchor {
                Anchor::Left => x + dx,
                Anchor::Middle => x - wide / 2,
                Anchor::Right => x + dx - wide,
            };
            let area = [left, y + dy - tall / 2, left + wide, y + dy + tall / 2];
            out.push((area, Placed { at: (x + dx, y + dy), anchor, far }));
        }
    }
    out
}

/// Middles of a label's lines.
pub fn line_places(label: &Label, placed: &Placed) -> Vec<(i32, i32)> {
    let lines = label.lines.len() as i32;
    (0..lines).map(|i| (placed.at.0, placed.at.1 + (2 * i - lines + 1) * LINE / 2)).collect()
}

fn around((x, y): (i32, i32), r: i32) -> Box4 {
    [x - r, y - r, x + r, y + r]
}

fn inside(a: &Box4, b: Box4) -> bool {
    a[0] >= b[0] && a[1] >= b[1] && a[2] <= b[2] && a[3] <= b[3]
}

fn overlap(a: &Box4, b: &Box4) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str, point: (i32, i32)) -> Label {
        Label { lines: vec![text.into()], point }
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let labels = [label("int4-g64", (100, 100)), label("int4-g32", (106, 102))];
        let points: Vec<_> = labels.iter().map(|label| label.point).collect();
        let placed = place(&labels, &points, &[], [0, 0, 400, 300]).unwrap();
        let boxes: Vec<Box4> = labels
            .iter()
            .zip(&placed)
            .map(|(label, placed)| {
                let all = candidates(label);
                all.iter().find(|(_, p)| p.at == placed.at && p.anchor == placed.anchor).unwrap().0
            })
            .collect();
        assert!(!overlap(&boxes[0], &boxes[1]));
    }

    #[test]
    fn no_room_is_no_answer() {
        assert!(place(&[label("int4-g64", (5, 5))], &[(5, 5)], &[], [0, 0, 20, 10]).is_none());
    }
}
