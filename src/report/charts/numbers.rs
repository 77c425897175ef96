//! Numbers beside points. Points too near each other for a number each share one: `2, 5` or `2–5`.

use super::canvas::{Anchor, FONT, Point};
use crate::report::text::width;

/// Of a line of digits, pixels.
const HEIGHT: i32 = 14;
/// Points within it share a number.
const SAME: i32 = 8;
/// Numbers farther apart are not joined.
const FARTHEST: i32 = 50;
/// Between a number and any point, so that marks stay whole.
const CLEAR: i32 = 5;

/// Points numbered together: index from 0, and pixel.
type Group = Vec<(usize, Point)>;

/// A number at its place, and the indices of its points.
#[derive(Debug)]
pub struct Number {
    pub text: String,
    pub at: Point,
    pub anchor: Anchor,
    pub points: Vec<usize>,
}

/// Of `points`, counted from 1, in a plot that shows `others` too. A number that has no place
/// inside of `room` (left, top, right, bottom) is left out.
pub fn place(points: &[Point], others: &[Point], room: [i32; 4]) -> Vec<Number> {
    let mut groups: Vec<Group> = points.iter().copied().enumerate().map(|p| vec![p]).collect();
    while let Some((a, b)) = nearest(&groups, SAME) {
        join(&mut groups, a, b);
    }
    let mut placed: Vec<(Number, [i32; 4])> = Vec::new();
    let mut at = 0;
    while at < groups.len() {
        let group = &groups[at];
        let strangers = || {
            let of = groups.iter().flatten().filter(|point| !group.contains(point));
            of.map(|(_, point)| point).chain(others)
        };
        let free = candidates(group).into_iter().find(|(_, area)| {
            let own = group.iter().map(|(_, point)| apart(*point, area)).min();
            let nearer = |point: &Point| Some(apart(*point, area)) < own.map(|own| own + 2);
            room[0] <= area[0]
                && room[1] <= area[1]
                && area[2] <= room[2]
                && area[3] <= room[3]
                && !strangers().any(nearer)
                && !group.iter().any(|(_, point)| apart(*point, area) < CLEAR)
                && !placed.iter().any(|(_, other)| overlap(area, other))
        });
        match (free, neighbour(&groups, at)) {
            (Some(number), _) => {
                placed.push(number);
                at += 1;
            }
            (None, Some(other)) => {
                // All anew: another's number may have to move for the joint one.
                join(&mut groups, at.min(other), at.max(other));
                placed.clear();
                at = 0;
            }
            (None, None) => _ = groups.remove(at),
        }
    }
    placed.into_iter().map(|(number, _)| number).collect()
}

/// Left, top, right and bottom of a number at each place that it could have, the best first.
fn candidates(group: &Group) -> Vec<(Number, [i32; 4])> {
    const SIDES: [(i32, i32, Anchor); 8] = [
        (10, -9, Anchor::Left),
        (-10, -9, Anchor::Right),
        (10, 9, Anchor::Left),
        (-10, 9, Anchor::Right),
        (11, 0, Anchor::Left),
        (-11, 0, Anchor::Right),
        (0, -17, Anchor::Middle),
        (0, 17, Anchor::Middle),
    ];
    let text = text(group);
    let wide = width(&text, FONT).ceil() as i32;
    let number = |(x, y): Point, (dx, dy, anchor): (i32, i32, Anchor)| {
        let at = (x + dx, y + dy);
        let left = match anchor {
            Anchor::Left => at.0,
            Anchor::Middle => at.0 - wide / 2,
            Anchor::Right => at.0 - wide,
        };
        let area = [left, at.1 - HEIGHT / 2, left + wide, at.1 + HEIGHT / 2];
        let points = group.iter().map(|(index, _)| *index).collect();
        (Number { text: text.clone(), at, anchor, points }, area)
    };
    let sides = SIDES.into_iter();
    sides
        .flat_map(|side| group.iter().map(move |(_, point)| (*point, side)))
        .map(|(point, side)| number(point, side))
        .collect()
}

/// `3`, `2, 5` or `1–4`
fn text(group: &Group) -> String {
    let mut numbers: Vec<usize> = group.iter().map(|(index, _)| index + 1).collect();
    numbers.sort_unstable();
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).flat_map(|run| match run {
        [first, .., last] if run.len() > 2 => vec![format!("{first}–{last}")],
        few => few.iter().map(usize::to_string).collect(),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// The distance of a point from an area, the larger of both directions.
fn apart((x, y): Point, [left, top, right, bottom]: &[i32; 4]) -> i32 {
    let x = (left - x).max(x - right).max(0);
    x.max((top - y).max(y - bottom).max(0))
}

fn overlap(a: &[i32; 4], b: &[i32; 4]) -> bool {
    a[0] < b[2] + 4 && b[0] < a[2] + 4 && a[1] < b[3] && b[1] < a[3]
}

/// The least distance of two of their points.
fn between(a: &Group, b: &Group) -> i32 {
    let pairs = a.iter().flat_map(|(_, p)| b.iter().map(move |(_, q)| (p, q)));
    let far = |(p, q): (&Point, &Point)| (p.0 - q.0).abs().max((p.1 - q.1).abs());
    pairs.map(far).min().unwrap_or(i32::MAX)
}

/// Two groups no farther apart than `most`.
fn nearest(groups: &[Group], most: i32) -> Option<(usize, usize)> {
    let pairs = (0..groups.len()).flat_map(|a| (a + 1..groups.len()).map(move |b| (a, b)));
    pairs.into_iter().find(|(a, b)| between(&groups[*a], &groups[*b]) <= most)
}

/// The group nearest to that `at`, unless it is far.
fn neighbour(groups: &[Group], at: usize) -> Option<usize> {
    let far = |other: &usize| between(&groups[at], &groups[*other]);
    let nearest = (0..groups.len()).filter(|other| *other != at).min_by_key(far)?;
    (far(&nearest) <= FARTHEST).then_some(nearest)
}

/// `a` before `b`.
fn join(groups: &mut Vec<Group>, a: usize, b: usize) {
    let more = groups.remove(b);
    groups[a].extend(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: [i32; 4] = [0, 0, 400, 300];

    fn texts(points: &[Point], others: &[Point]) -> Vec<String> {
        place(points, others, ROOM).into_iter().map(|number| number.text).collect()
    }

    #[test]
    fn near_points_share_a_number() {
        assert_eq!(texts(&[(50, 50), (200, 50), (204, 53)], &[]), ["1", "2, 3"]);
        let line: Vec<Point> = (0..5).map(|i| (100 + 6 * i, 100)).collect();
        assert_eq!(texts(&line, &[]), ["1–5"]);
    }

    #[test]
    fn numbers_keep_clear_of_points_and_of_each_other() {
        let points: Vec<Point> = (0..40).map(|i| (20 + 37 * i % 360, 20 + 53 * i % 260)).collect();
        let placed = place(&points, &[(200, 150)], ROOM);
        let named: usize = placed.iter().map(|number| number.points.len()).sum();
        assert!(named > 30, "{placed:?}");
    }

    #[test]
    fn a_number_without_a_place_is_left_out() {
        assert!(place(&[(2, 2)], &[], [0, 0, 5, 5]).is_empty());
    }
}
