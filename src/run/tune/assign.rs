//! One choice for each of several parts, the least sum of damages within a budget: the
//! multiple-choice knapsack problem, solved exactly.
//!
//! Part after part, every sum of costs and damages that no other beats in both is kept (dynamic
//! programming over Pareto fronts). A sum is dropped when what the parts to come must at least add,
//! by the linear relaxation (Sinha & Zoltners 1979), is more than an assignment that is known
//! already: so few are kept, and never the best is lost.

/// One way to store a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// What it takes of the budget, 0 or more.
    pub cost: f64,
    /// What is to be least, 0 or more.
    pub damage: f64,
}

/// Sums that differ by less, relative to the budget or the damage, are equal: they are rounded.
const ROUNDING: f64 = 1e-9;

/// The index of each part's choice: of all assignments whose costs sum up to at most `budget`, the
/// one of the least damage, and of these the cheapest. `None`: the cheapest choices cost more.
pub fn assign(parts: &[Vec<Choice>], budget: f64) -> Option<Vec<usize>> {
    let budget = budget + ROUNDING * budget.abs();
    let fronts: Vec<Vec<(usize, Choice)>> = parts.iter().map(|part| front(part)).collect();
    let rest = Rest::of_all(&fronts);
    let first = State { cost: 0.0, damage: 0.0, from: None };
    let mut known = rest[0].completed(budget)?.whole;
    // Of each part, the sums up to it; `from` is an index in those of the part before.
    let mut sums: Vec<Vec<State>> = vec![vec![first]];
    for (front, rest) in fronts.iter().zip(&rest[1..]) {
        let before = sums.last().map_or(&[][..], Vec::as_slice);
        let mut next = Vec::with_capacity(before.len() * front.len());
        for (index, state) in before.iter().enumerate() {
            for (choice, own) in front {
                let cost = state.cost + own.cost;
                let damage = state.damage + own.damage;
                let Some(ends) = rest.completed(budget - cost) else { continue };
                known = known.min(damage + ends.whole);
                let from = Some((index, *choice));
                next.push((State { cost, damage, from }, damage + ends.least));
            }
        }
        let most = known + ROUNDING * known.abs();
        let next = next.into_iter().filter(|(_, least)| *least <= most).map(|(state, _)| state);
        sums.push(undominated(next.collect()));
    }
    let mut at = (0..sums.last()?.len()).min_by(|a, b| {
        let [a, b] = [a, b].map(|index| sums[sums.len() - 1][*index]);
        a.damage.total_cmp(&b.damage).then(a.cost.total_cmp(&b.cost))
    })?;
    let mut chosen = Vec::with_capacity(parts.len());
    for states in sums[1..].iter().rev() {
        let (before, choice) = states[at].from?;
        chosen.push(choice);
        at = before;
    }
    chosen.reverse();
    Some(chosen)
}

/// The least sum of costs, whatever the damage.
pub fn least_cost(parts: &[Vec<Choice>]) -> f64 {
    let least = |part: &Vec<Choice>| part.iter().map(|c| c.cost).fold(f64::INFINITY, f64::min);
    parts.iter().map(least).sum()
}

/// The choices of some parts, added up.
#[derive(Debug, Clone, Copy)]
struct State {
    cost: f64,
    damage: f64,
    /// The state it continues, and the choice of the last part.
    from: Option<(usize, usize)>,
}

/// Those that no other beats in cost and damage at once, by rising cost and falling damage.
fn undominated(mut states: Vec<State>) -> Vec<State> {
    states.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.damage.total_cmp(&b.damage)));
    let mut kept: Vec<State> = Vec::with_capacity(states.len());
    for state in states {
        if kept.last().is_none_or(|last| state.damage < last.damage) {
            kept.push(state);
        }
    }
    kept
}

/// The same of a part's choices, with their indices.
fn front(part: &[Choice]) -> Vec<(usize, Choice)> {
    let mut sorted: Vec<(usize, Choice)> = part.iter().copied().enumerate().collect();
    sorted.sort_by(|(_, a), (_, b)| a.cost.total_cmp(&b.cost).then(a.damage.total_cmp(&b.damage)));
    let mut kept: Vec<(usize, Choice)> = Vec::with_capacity(sorted.len());
    for (index, choice) in sorted {
        if kept.last().is_none_or(|(_, last)| choice.damage < last.damage) {
            kept.push((index, choice));
        }
    }
    kept
}

/// A step from a choice to the next on the lower convex hull of a part.
#[derive(Debug, Clone, Copy)]
struct Step {
    part: usize,
    cost: f64,
    gain: f64,
}

impl Step {
    fn of(part: usize, from: Choice, to: Choice) -> Self {
        Self { part, cost: to.cost - from.cost, gain: from.damage - to.damage }
    }

    fn efficiency(&self) -> f64 {
        self.gain / self.cost
    }
}

/// The parts from one on: what they cost and add at least.
struct Rest {
    cost: f64,
    damage: f64,
    /// Sums over the steps of their hulls, the most efficient first, from no step on.
    costs: Vec<f64>,
    gains: Vec<f64>,
}

/// What the rest adds to the damage within what is left of the budget.
struct Completed {
    /// At least, by the linear relaxation.
    least: f64,
    /// By whole steps: an assignment that there is.
    whole: f64,
}

impl Rest {
    /// Of the parts from each on, and last of no part.
    fn of_all(fronts: &[Vec<(usize, Choice)>]) -> Vec<Self> {
        let mut steps: Vec<Step> =
            fronts.iter().enumerate().flat_map(|(part, front)| hull(part, front)).collect();
        // Stable: steps of one part keep their order, which is by falling efficiency.
        steps.sort_by(|a, b| b.efficiency().total_cmp(&a.efficiency()));
        let of = |first: usize| {
            let cheapest = fronts[first..].iter().filter_map(|front| front.first());
            let (cost, damage) = cheapest
                .fold((0.0, 0.0), |(cost, damage), (_, c)| (cost + c.cost, damage + c.damage));
            let (mut costs, mut gains) = (vec![0.0], vec![0.0]);
            let (mut all_costs, mut all_gains) = (0.0, 0.0);
            for step in steps.iter().filter(|step| step.part >= first) {
                all_costs += step.cost;
                all_gains += step.gain;
                costs.push(all_costs);
                gains.push(all_gains);
            }
            Self { cost, damage, costs, gains }
        };
        (0..=fronts.len()).map(of).collect()
    }

    /// `None`: the cheapest choices cost more than `left`.
    fn completed(&self, left: f64) -> Option<Completed> {
        let spare = left - self.cost;
        if spare < 0.0 {
            return None;
        }
        // The first has cost 0.
        let last = self.costs.partition_point(|cost| *cost <= spare) - 1;
        let whole = self.damage - self.gains[last];
        let part = match self.costs.get(last + 1) {
            Some(next) => {
                let share = (spare - self.costs[last]) / (next - self.costs[last]);
                share * (self.gains[last + 1] - self.gains[last])
            }
            None => 0.0,
        };
        Some(Completed { least: whole - part, whole })
    }
}

/// Steps along the lower convex hull of a front, by falling efficiency.
fn hull(part: usize, front: &[(usize, Choice)]) -> Vec<Step> {
    let mut corners: Vec<Choice> = Vec::new();
    for (_, next) in front {
        while let [.., before, last] = corners[..]
            && Step::of(part, before, last).efficiency() <= Step::of(part, last, *next).efficiency()
        {
            corners.pop();
        }
        corners.push(*next);
    }
    corners.windows(2).map(|pair| Step::of(part, pair[0], pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(parts: &[Vec<Choice>], chosen: &[usize]) -> Choice {
        let own = parts.iter().zip(chosen).map(|(part, choice)| part[*choice]);
        let add =
            |a: Choice, b: Choice| Choice { cost: a.cost + b.cost, damage: a.damage + b.damage };
        own.fold(Choice { cost: 0.0, damage: 0.0 }, add)
    }

    /// Every assignment there is.
    fn by_trying_all(parts: &[Vec<Choice>], budget: f64) -> Option<f64> {
        let mut best: Option<f64> = None;
        let count: usize = parts.iter().map(Vec::len).product();
        for mut number in 0..count {
            let choice = |part: &Vec<Choice>| {
                let own = number % part.len();
                number /= part.len();
                own
            };
            let chosen: Vec<usize> = parts.iter().map(choice).collect();
            let Choice { cost, damage } = sums(parts, &chosen);
            if cost <= budget + 1e-9 * budget {
                best = Some(best.map_or(damage, |best| best.min(damage)));
            }
        }
        best
    }

    /// Numbers from 0 to `below`.
    fn random(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (*state >> 33) % below
    }

    /// Few distinct costs with ties and zeros, as codecs of fixed sizes have, and sizes that are all
    /// different, as entropy coders make.
    #[test]
    fn the_best_of_all_assignments_is_found() {
        let mut state = 1;
        for case in 0..3000 {
            let (parts, fine) = (1 + case % 6, case % 2 == 1);
            let mut part = |_| -> Vec<Choice> {
                let choices = 1 + random(&mut state, 4);
                let of = |_| {
                    let cost = random(&mut state, 9) as f64 * 0.25;
                    let finer = if fine { random(&mut state, 1000) as f64 * 1e-4 } else { 0.0 };
                    let damage = random(&mut state, 12) as f64;
                    let damage = if fine { damage * damage * 0.37 } else { damage };
                    Choice { cost: cost + finer, damage }
                };
                (0..choices).map(of).collect()
            };
            let parts: Vec<Vec<Choice>> = (0..parts).map(&mut part).collect();
            let least = least_cost(&parts);
            for budget in [least, least + 0.5, least + 1.3, least + 3.0, least * 0.9 - 0.1, 100.0] {
                let expected = by_trying_all(&parts, budget);
                let found = assign(&parts, budget).map(|chosen| sums(&parts, &chosen));
                assert_eq!(found.is_some(), expected.is_some(), "{parts:?} within {budget}");
                if let (Some(found), Some(expected)) = (found, expected) {
                    let off = (found.damage - expected).abs();
                    assert!(off < 1e-8 && found.cost <= budget + 1e-8, "{parts:?} within {budget}");
                }
            }
        }
    }

    /// The step of most gain for its cost first leaves nothing for the two that fit together.
    #[test]
    fn it_is_no_greedy_guess() {
        let part = |cost: f64, gain: f64| {
            vec![Choice { cost: 0.0, damage: 10.0 }, Choice { cost, damage: 10.0 - gain }]
        };
        let parts = [part(3.0, 9.0), part(2.0, 5.5), part(2.0, 5.5)];
        assert_eq!(assign(&parts, 4.0), Some(vec![0, 1, 1]));
    }

    /// As many parts and choices as a large model has, in no time; no worse than anything one
    /// exchange away.
    #[test]
    fn many_parts_take_no_time() {
        let mut state = 7;
        let mut part = |_| -> Vec<Choice> {
            let scale = 1.0 + random(&mut state, 1000) as f64;
            let bits = [2.25, 3.0, 3.25, 4.25, 4.27, 4.5, 5.5, 8.5];
            let of = |bits: f64| {
                let noise = 0.5 + random(&mut state, 1000) as f64 * 1e-3;
                let finer = random(&mut state, 1000) as f64 * 1e-6;
                Choice { cost: bits + finer, damage: scale * noise * (-1.4 * bits).exp() }
            };
            bits.map(of).into()
        };
        let parts: Vec<Vec<Choice>> = (0..160).map(&mut part).collect();
        let budget = 3.5 * parts.len() as f64;
        let chosen = assign(&parts, budget).unwrap();
        let found = sums(&parts, &chosen);
        assert!(found.cost <= budget * (1.0 + 1e-8), "{found:?}");
        for (i, part) in parts.iter().enumerate() {
            for j in 0..parts.len() {
                for own in 0..part.len() {
                    for other in 0..parts[j].len() {
                        let (a, b) = (part[chosen[i]], parts[j][chosen[j]]);
                        let (c, d) = (part[own], parts[j][other]);
                        let more = c.damage - a.damage + d.damage - b.damage;
                        let cost = found.cost + c.cost - a.cost + d.cost - b.cost;
                        let is_better = i != j && more < -1e-12 && cost <= budget;
                        assert!(!is_better, "{i} {own} {j} {other}");
                    }
                }
            }
        }
    }
}
