//! Where a sweep is cut into parts that take about as long: `--shards`.

use super::Request;
use crate::results::timings::{DryRun, SubjectEstimate};
use std::ops::Range;

/// Seconds of a part that are worth a task of its own: several times what starting a program, reading
/// a model and waiting in a queue take.
const WORTH_A_TASK: f64 = 600.0;
/// Tasks that are proposed, at most; Slurm's arrays end at 1000 unless they are set otherwise.
const MOST: usize = 1000;

/// What each cell of a sweep would take, in the order of its plan.
pub struct Costs {
    /// Seconds of each cell alone; of those without an estimate the mean of the others.
    own: Vec<f64>,
    /// Cells that share a model, text, context and protocol, and the seconds that they share.
    subjects: Vec<(Range<usize>, f64)>,
}

impl Costs {
    /// Of a request, by its estimate. What would fail on this machine, of too little memory perhaps,
    /// counts as the others do; all cells count alike where none has an estimate.
    pub fn new(request: &Request, estimate: Option<&DryRun>) -> Self {
        let subjects = estimate.map_or(&[][..], |estimate| &estimate.subjects);
        let known: Vec<f64> =
            subjects.iter().flat_map(|of| &of.cells).map(|cell| cell.seconds).collect();
        let mean = match known.len() {
            0 => 1.0,
            count => known.iter().sum::<f64>() / count as f64,
        };
        let mut costs = Self { own: Vec::new(), subjects: Vec::new() };
        for (settings, protocol) in request.runs() {
            let is_of = |of: &&SubjectEstimate| {
                let context = settings.context.is_none_or(|context| context == of.context);
                of.model == settings.model
                    && of.text == settings.text.to_string()
                    && of.protocol == protocol.name()
                    && context
            };
            let found = subjects.iter().find(is_of);
            let start = costs.own.len();
            costs.own.extend(settings.codec.iter().map(|codec| {
                let name = codec.value.to_string();
                let cell = found.and_then(|of| of.cells.iter().find(|cell| cell.codec == name));
                cell.map_or(mean, |cell| cell.seconds)
            }));
            let shared = found.map_or(0.0, |of| of.shared_seconds);
            costs.subjects.push((start..costs.own.len(), shared));
        }
        costs
    }

    /// As many parts as are worth a task each, no more than cells.
    pub fn worthwhile(&self) -> usize {
        let parts = (self.of(&(0..self.own.len())) / WORTH_A_TASK) as usize;
        parts.clamp(1, self.own.len().clamp(1, MOST))
    }

    /// Seconds of a part: its cells, and once what those of a subject share.
    fn of(&self, part: &Range<usize>) -> f64 {
        let overlaps = |cells: &Range<usize>| cells.start < part.end && part.start < cells.end;
        let touched = self.subjects.iter().filter(|(cells, _)| !part.is_empty() && overlaps(cells));
        self.own[part.clone()].iter().sum::<f64>() + touched.map(|(_, shared)| shared).sum::<f64>()
    }

    /// The first cells of the parts after the first, so that the longest part is as short as it can
    /// be. Parts are neighbours in the order of the plan, so that cells of one subject stay together
    /// where that makes no part longer.
    pub fn cuts(&self, parts: usize) -> Vec<usize> {
        let parts = parts.max(1);
        let cells = self.own.len();
        // The least bound that so many parts keep: every one above it is kept by no more.
        let (mut kept_not, mut kept) = (0.0, self.of(&(0..cells)));
        for _ in 0..60 {
            let bound = (kept_not + kept) / 2.0;
            match self.filled(bound).len() < parts {
                true => kept = bound,
                false => kept_not = bound,
            }
        }
        let mut cuts = self.filled(kept);
        // Parts that nothing is left for are empty, at the end.
        cuts.resize(parts - 1, cells);
        cuts
    }

    /// Cuts such that no part takes longer than the bound, but those of one cell.
    fn filled(&self, bound: f64) -> Vec<usize> {
        let (mut cuts, mut start) = (Vec::new(), 0);
        for cell in 0..self.own.len() {
            if cell > start && self.of(&(start..cell + 1)) > bound {
                cuts.push(cell);
                start = cell;
            }
        }
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(subjects: &[(&[f64], f64)]) -> Costs {
        let mut costs = Costs { own: Vec::new(), subjects: Vec::new() };
        for (cells, shared) in subjects {
            let start = costs.own.len();
            costs.own.extend(*cells);
            costs.subjects.push((start..costs.own.len(), *shared));
        }
        costs
    }

    fn longest(costs: &Costs, cuts: &[usize]) -> f64 {
        let edges: Vec<usize> =
            [0].into_iter().chain(cuts.iter().copied()).chain([costs.own.len()]).collect();
        edges.windows(2).map(|pair| costs.of(&(pair[0]..pair[1]))).fold(0.0, f64::max)
    }

    /// The longest part of the best of all cuts.
    fn best(costs: &Costs, cuts: &mut Vec<usize>, parts: usize) -> f64 {
        if parts == 1 {
            return longest(costs, cuts);
        }
        let mut least = f64::INFINITY;
        for cut in cuts.last().copied().unwrap_or(0)..=costs.own.len() {
            cuts.push(cut);
            least = least.min(best(costs, cuts, parts - 1));
            cuts.pop();
        }
        least
    }

    #[test]
    fn the_longest_part_is_as_short_as_it_can_be() {
        for subjects in [
            &[(&[1.0, 1.0, 1.0, 1.0][..], 10.0), (&[1.0, 1.0, 1.0], 10.0)][..],
            &[(&[5.0, 1.0, 1.0, 1.0, 1.0, 1.0], 0.0)],
            &[(&[1.0, 9.0], 3.0), (&[2.0, 2.0, 2.0], 1.0), (&[30.0], 2.0), (&[1.0], 0.5)],
            &[(&[0.0, 0.0], 0.0), (&[4.0], 1.0)],
        ] {
            let costs = costs(subjects);
            for parts in 1..=4 {
                let cuts = costs.cuts(parts);
                assert_eq!(cuts.len(), parts - 1);
                assert!(cuts.is_sorted() && cuts.iter().all(|cut| *cut <= costs.own.len()));
                let (found, best) = (longest(&costs, &cuts), best(&costs, &mut Vec::new(), parts));
                assert!((found - best).abs() < 1e-9, "{subjects:?} {parts}: {found} {best}");
            }
        }
    }

    #[test]
    fn cells_of_a_subject_stay_together_and_the_last_part_is_not_the_longest() {
        let two = costs(&[(&[1.0; 6], 20.0), (&[1.0; 5], 20.0)]);
        assert_eq!(two.cuts(2), [6]);
        // Three parts: one subject's prefill twice, which makes no part longer than the other subject.
        assert_eq!((longest(&two, &two.cuts(2)), longest(&two, &two.cuts(3))), (26.0, 25.0));
        let long = costs(&[(&[600.0; 7], 100.0)]);
        assert_eq!((long.worthwhile(), long.cuts(3)), (7, vec![3, 6]));
        assert_eq!((two.worthwhile(), two.cuts(1)), (1, vec![]));
        assert_eq!((costs(&[]).worthwhile(), costs(&[]).cuts(3)), (1, vec![0, 0]));
    }
}
