//! Names beside points: each plainly at its own, none over another thing.

use super::canvas::{Anchor, FONT};
use crate::report::text::width;

const LINE: i32 = 15;
/// From the edge of a point to its name.
const GAPS: [i32; 7] = [4, 8, 13, 20, 28, 38, 50];
/// With a wider gap a line leads from the point to its name.
const LEADER: i32 = 10;
/// A name is at least this much nearer to its own point than to any other.
const NEARER: f64 = 3.0;
/// Points this close together cannot be told apart, and have one name.
const SAME: f64 = 4.0;

/// Left, top, right, bottom.
type Box4 = [i32; 4];
pub type Segment = [(i32, i32); 2];

pub struct Label {
    pub lines: Vec<String>,
    /// What it names: one, or some that can hardly be told apart.
    pub points: Vec<(i32, i32)>,
    /// Of the mark of each.
    pub radius: i32,
}

impl Label {
    fn middle(&self) -> (i32, i32) {
        let count = self.points.len().max(1) as i32;
        let sum = self.points.iter().fold((0, 0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / count, sum.1 / count)
    }

    /// From the middle to the edges of the marks, sideways and up.
    fn reach(&self) -> (i32, i32) {
        let (x, y) = self.middle();
        let far = |by: &dyn Fn(&(i32, i32)) -> i32| self.points.iter().map(by).max().unwrap_or(0);
        (self.radius + far(&|p| (p.0 - x).abs()), self.radius + far(&|p| (p.1 - y).abs()))
    }

    fn owns(&self, point: (i32, i32)) -> bool {
        self.points.iter().any(|own| apart(*own, point) < SAME)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Placed {
    at: (i32, i32),
    pub anchor: Anchor,
    area: Box4,
    /// To see what it belongs to.
    pub leader: Option<Segment>,
}

/// What is avoided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    Full,
    /// But error bars may be written over.
    Bars,
    /// And a leader is enough to tell whose name it is, and may cross error bars.
    Led,
}

/// What is drawn beside the names.
#[derive(Default)]
pub struct Obstacles {
    /// All of them, those of the labels too.
    pub points: Vec<(i32, i32)>,
    /// Error bars: not crossed but by the names and leaders of their own points.
    pub bars: Vec<Segment>,
    /// Better kept free of names.
    pub lines: Vec<Segment>,
    /// Never touched.
    pub areas: Vec<Box4>,
}

/// Finds a place for all labels, or says which one has none: better no name than one that could be
/// another's.
pub fn place(
    labels: &[Label],
    obstacles: &Obstacles,
    plot: Box4,
    care: Care,
) -> Result<Vec<Placed>, usize> {
    let options: Vec<Vec<(i64, Placed)>> =
        labels.iter().map(|label| options(label, obstacles, plot, care)).collect();
    let mut placed: Vec<Option<Placed>> = vec![None; labels.len()];
    // Those with the least choice first; one that finds no room moves ahead of all.
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|i| options[*i].len());
    for _ in 0..=2 * labels.len() {
        placed.fill(None);
        let stuck = order.iter().position(|i| {
            placed[*i] = best(&options[*i], &placed);
            placed[*i].is_none()
        });
        let Some(stuck) = stuck else { break };
        order[..=stuck].rotate_right(1);
    }
    // With the others in place there may be a better one.
    for i in order.repeat(3) {
        placed[i].take().ok_or(i)?;
        placed[i] = best(&options[i], &placed);
    }
    (0..).zip(placed).map(|(i, placed)| placed.ok_or(i)).collect()
}

/// Joins label `i` to the nearest, unless that is farther than `farthest`.
pub fn join_nearest(
    labels: &mut Vec<Label>,
    i: usize,
    farthest: f64,
    join: impl Fn(&mut Vec<String>, Vec<String>),
) -> bool {
    let gap = |other: &Label| {
        let to = |own: &(i32, i32)| {
            other.points.iter().map(|point| apart(*own, *point)).fold(f64::INFINITY, f64::min)
        };
        labels[i].points.iter().map(to).fold(f64::INFINITY, f64::min)
    };
    let others = (0..labels.len()).filter(|other| *other != i).map(|j| (j, gap(&labels[j])));
    let Some((j, near)) = others.min_by(|a, b| a.1.total_cmp(&b.1)) else { return false };
    if near > farthest {
        return false;
    }
    let (into, from) = (i.min(j), i.max(j));
    let gone = labels.remove(from);
    unite(&mut labels[into], gone, join);
    true
}

fn unite(label: &mut Label, other: Label, join: impl Fn(&mut Vec<String>, Vec<String>)) {
    join(&mut label.lines, other.lines);
    label.radius = label.radius.max(other.radius);
    label.points.extend(other.points);
}

/// For when not all find a place: those that do.
pub fn place_some(labels: &[Label], obstacles: &Obstacles, plot: Box4) -> Vec<Option<Placed>> {
    let mut placed: Vec<Option<Placed>> = Vec::new();
    for label in labels {
        placed.push(best(&options(label, obstacles, plot, Care::Led), &placed));
    }
    placed
}

/// For a text that ends at a place on a level: over or under it.
pub fn at_the_end(text: &str, (x, y): (i32, i32), obstacles: &Obstacles) -> Option<(i32, i32)> {
    let free = |place: &(i32, i32)| {
        let area = line_area(text, *place, Anchor::Right);
        obstacles.points.iter().all(|point| to_area(*point, area) > 10.0)
            && !obstacles.bars.iter().any(|bar| crosses(*bar, area))
            && !obstacles.areas.iter().any(|other| overlap(&area, other))
    };
    [(x, y - 10), (x, y + 10)].into_iter().find(free)
}

/// Labels of points that cannot be told apart become one.
pub fn merge(labels: Vec<Label>, join: impl Fn(&mut Vec<String>, Vec<String>)) -> Vec<Label> {
    let mut merged: Vec<Label> = Vec::new();
    for label in labels {
        let meets = |other: &&mut Label| {
            let pairs = |own: &(i32, i32)| label.points.iter().any(|p| apart(*own, *p) < SAME);
            other.points.iter().any(pairs)
        };
        match merged.iter_mut().find(meets) {
            Some(other) => unite(other, label, &join),
            None => merged.push(label),
        }
    }
    merged
}

/// Of least cost among those that the placed ones leave.
fn best(options: &[(i64, Placed)], placed: &[Option<Placed>]) -> Option<Placed> {
    let fits = |a: &Placed| {
        placed.iter().flatten().all(|b| {
            let clear = |a: &Placed, b: &Placed| {
                a.leader.is_none_or(|leader| !crosses(leader, grown(b.area, 1)))
            };
            let leaders_cross =
                a.leader.zip(b.leader).is_some_and(|(one, other)| between(one, other) < 3.0);
            !overlap(&a.area, &b.area) && clear(a, b) && clear(b, a) && !leaders_cross
        })
    };
    options.iter().filter(|(_, a)| fits(a)).min_by_key(|(cost, _)| *cost).map(|(_, a)| *a)
}

/// The places that what is drawn leaves, with their costs.
fn options(label: &Label, obstacles: &Obstacles, plot: Box4, care: Care) -> Vec<(i64, Placed)> {
    let Obstacles { points, bars, lines, areas } = obstacles;
    let foreign: Vec<(i32, i32)> =
        points.iter().copied().filter(|point| !label.owns(*point)).collect();
    let own_bar = |bar: &Segment| label.points.iter().any(|own| distance(*own, *bar) < 1.5);
    let mut out = Vec::new();
    for (nearness, place) in candidates(label) {
        let area = place.area;
        let own = label.points.iter().map(|own| to_area(*own, area)).fold(1e9, f64::min);
        let others = foreign.iter().map(|point| to_area(*point, area)).fold(1e9, f64::min);
        let led = care == Care::Led && place.leader.is_some();
        let clear = |leader: Segment| {
            foreign.iter().all(|point| distance(*point, leader) > 7.0)
                && (led || bars.iter().all(|bar| own_bar(bar) || between(leader, *bar) > 2.0))
                && !areas.iter().any(|other| crosses(leader, *other))
        };
        let free = inside(&area, plot)
            && others > 6.0
            && (others >= own + NEARER || led)
            && !areas.iter().any(|other| overlap(&area, other))
            && (care != Care::Full || !bars.iter().any(|bar| !own_bar(bar) && crosses(*bar, area)))
            && place.leader.is_none_or(clear);
        if !free {
            continue;
        }
        // Near the point, but rather a step away than over lines or close to another point.
        let over = |lines: &[Segment]| lines.iter().filter(|line| crosses(**line, area)).count();
        let close = if others < own + 8.0 { 6 } else { 0 };
        let own_bars = bars.iter().filter(|bar| own_bar(bar) && crosses(**bar, area)).count();
        let foreign_bars = over(bars) - own_bars;
        let led = if place.leader.is_some() { 8 } else { 0 };
        let cost = nearness
            + led
            + 4 * own_bars as i64
            + 9 * foreign_bars as i64
            + 6 * over(lines) as i64
            + close;
        out.push((cost, place));
    }
    out
}

/// Places around the point, and how far from the best each is.
fn candidates(label: &Label) -> Vec<(i64, Placed)> {
    let ((x, y), reach) = (label.middle(), label.reach());
    let wide = label.lines.iter().map(|line| width(line, FONT)).fold(0.0, f64::max).ceil() as i32;
    let tall = LINE * label.lines.len() as i32;
    let mut out = Vec::new();
    for (step, gap) in (0..).zip(GAPS) {
        let (beside, over) = (reach.0 + gap, reach.1 + gap);
        let (slant, rise) = (beside * 7 / 10, over * 7 / 10);
        let (above, below) = (-tall / 2, tall / 2);
        // From the side where reading begins; the last two leave the middle of the name aside.
        let sides = [
            (Anchor::Left, beside, 0),
            (Anchor::Left, slant, above - rise + 4),
            (Anchor::Left, slant, below + rise - 4),
            (Anchor::Right, -beside, 0),
            (Anchor::Right, -slant, above - rise + 4),
            (Anchor::Right, -slant, below + rise - 4),
            (Anchor::Middle, 0, above - over + 2),
            (Anchor::Middle, 0, below + over - 2),
            (Anchor::Left, -8, above - over + 2),
            (Anchor::Left, -8, below + over - 2),
            (Anchor::Right, 8, above - over + 2),
            (Anchor::Right, 8, below + over - 2),
        ];
        for (turn, (anchor, dx, dy)) in (0..).zip(sides) {
            let left = match anchor {
                Anchor::Left => x + dx,
                Anchor::Middle => x - wide / 2,
                Anchor::Right => x + dx - wide,
            };
            let area = [left, y + dy + above, left + wide, y + dy + below];
            let leader = (gap > LEADER).then(|| leader(label, area));
            let at = (x + dx, y + dy);
            out.push((6 * step + turn / 3, Placed { at, anchor, area, leader }));
        }
    }
    out
}

/// From the edge of the point to just before the name.
fn leader(label: &Label, area: Box4) -> Segment {
    let own = label.points.iter().copied();
    let own = own.min_by(|a, b| to_area(*a, area).total_cmp(&to_area(*b, area)));
    let (x, y) = own.unwrap_or_else(|| label.middle());
    let end = nearest((x, y), grown(area, 1));
    let length = apart((x, y), end).max(1.0);
    let share = f64::from(label.radius + 1) / length;
    let start = (
        x + (f64::from(end.0 - x) * share).round() as i32,
        y + (f64::from(end.1 - y) * share).round() as i32,
    );
    [start, end]
}

/// Middles of a label's lines.
pub fn line_places(label: &Label, placed: &Placed) -> Vec<(i32, i32)> {
    let lines = label.lines.len() as i32;
    (0..lines).map(|i| (placed.at.0, placed.at.1 + (2 * i - lines + 1) * LINE / 2)).collect()
}

/// The room of one line of text.
pub fn line_area(text: &str, (x, y): (i32, i32), anchor: Anchor) -> Box4 {
    let wide = width(text, FONT).ceil() as i32;
    let left = match anchor {
        Anchor::Left => x,
        Anchor::Middle => x - wide / 2,
        Anchor::Right => x - wide,
    };
    [left, y - LINE / 2, left + wide, y + LINE / 2]
}

fn grown([left, top, right, bottom]: Box4, by: i32) -> Box4 {
    [left - by, top - by, right + by, bottom + by]
}

fn inside(a: &Box4, b: Box4) -> bool {
    a[0] >= b[0] && a[1] >= b[1] && a[2] <= b[2] && a[3] <= b[3]
}

pub fn overlap(a: &Box4, b: &Box4) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// The place in an area that is nearest to a point.
fn nearest((x, y): (i32, i32), area: Box4) -> (i32, i32) {
    (x.clamp(area[0], area[2]), y.clamp(area[1], area[3]))
}

fn apart(a: (i32, i32), b: (i32, i32)) -> f64 {
    f64::from(a.0 - b.0).hypot(f64::from(a.1 - b.1))
}

fn to_area(point: (i32, i32), area: Box4) -> f64 {
    apart(point, nearest(point, area))
}

fn distance((x, y): (i32, i32), [a, b]: Segment) -> f64 {
    let (dx, dy) = (f64::from(b.0 - a.0), f64::from(b.1 - a.1));
    let (px, py) = (f64::from(x - a.0), f64::from(y - a.1));
    let square = dx * dx + dy * dy;
    let along = if square > 0.0 { ((px * dx + py * dy) / square).clamp(0.0, 1.0) } else { 0.0 };
    (px - along * dx).hypot(py - along * dy)
}

fn intersect([a, b]: Segment, [c, d]: Segment) -> bool {
    let side = |a: (i32, i32), b: (i32, i32), p: (i32, i32)| {
        let cross = i64::from(b.0 - a.0) * i64::from(p.1 - a.1)
            - i64::from(b.1 - a.1) * i64::from(p.0 - a.0);
        cross.signum()
    };
    side(a, b, c) * side(a, b, d) < 0 && side(c, d, a) * side(c, d, b) < 0
}

/// Least distance of two lines.
fn between(one: Segment, other: Segment) -> f64 {
    if intersect(one, other) {
        return 0.0;
    }
    let ends = one.map(|end| distance(end, other)).into_iter();
    ends.chain(other.map(|end| distance(end, one))).fold(f64::INFINITY, f64::min)
}

/// Whether a line runs through an area.
fn crosses(line: Segment, [left, top, right, bottom]: Box4) -> bool {
    let inner = |(x, y): (i32, i32)| x > left && x < right && y > top && y < bottom;
    let diagonals = [[(left, top), (right, bottom)], [(left, bottom), (right, top)]];
    line.into_iter().any(inner) || diagonals.into_iter().any(|other| intersect(line, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLOT: Box4 = [0, 0, 400, 300];

    fn label(text: &str, point: (i32, i32)) -> Label {
        Label { lines: vec![text.into()], points: vec![point], radius: 5 }
    }

    fn beside(labels: &[Label], others: &[(i32, i32)]) -> Result<Vec<Placed>, usize> {
        let points =
            labels.iter().flat_map(|label| label.points.clone()).chain(others.iter().copied());
        place(
            labels,
            &Obstacles { points: points.collect(), ..Obstacles::default() },
            PLOT,
            Care::Full,
        )
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let labels = [label("int4-g64", (100, 100)), label("int4-g32", (106, 102))];
        let placed = beside(&labels, &[]).unwrap();
        assert!(!overlap(&placed[0].area, &placed[1].area));
    }

    #[test]
    fn no_name_is_nearer_to_another_point() {
        let others = [(118, 100), (100, 118), (84, 104), (100, 82)];
        if let Ok(placed) = beside(&[label("int4-g64", (100, 100))], &others) {
            let own = to_area((100, 100), placed[0].area);
            assert!(others.iter().all(|point| to_area(*point, placed[0].area) > own));
        }
        // A point that is walled in has no name rather than another's.
        let wall = (0..40).map(|i| (90 + i % 7 * 3, 90 + i / 7 * 4)).collect::<Vec<_>>();
        assert!(beside(&[label("int4-g64", (100, 100))], &wall).is_err());
    }

    #[test]
    fn leaders_keep_away_from_everything() {
        let labels: Vec<Label> = (0..6).map(|i| label("int4-g64", (100 + 9 * i, 100))).collect();
        for (i, a) in beside(&labels, &[]).into_iter().flatten().enumerate() {
            let Some(leader) = a.leader else { continue };
            for (j, other) in labels.iter().enumerate() {
                assert!(i == j || distance(other.points[0], leader) > 6.0);
            }
        }
    }

    #[test]
    fn lines_cross_areas() {
        assert!(crosses([(0, 5), (20, 5)], [5, 0, 10, 10]));
        assert!(!crosses([(0, 15), (20, 15)], [5, 0, 10, 10]));
        assert_eq!(between([(0, 0), (10, 0)], [(5, -5), (5, 5)]), 0.0);
        assert_eq!(between([(0, 0), (10, 0)], [(0, 4), (10, 4)]), 4.0);
    }

    #[test]
    fn points_on_one_place_have_one_name() {
        let labels = vec![label("a", (10, 10)), label("b", (11, 10)), label("c", (50, 10))];
        let merged = merge(labels, |lines, more| lines.extend(more));
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].lines, ["a", "b"]);
    }

    #[test]
    fn no_room_is_no_answer() {
        let labels = [label("int4-g64", (5, 5))];
        let obstacles = Obstacles { points: vec![(5, 5)], ..Obstacles::default() };
        assert_eq!(place(&labels, &obstacles, [0, 0, 20, 10], Care::Full).err(), Some(0));
        assert!(place_some(&labels, &obstacles, [0, 0, 20, 10])[0].is_none());
    }
}
