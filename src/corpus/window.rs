//! Windows: the runs of tokens that are evaluated, each with its own shape.

use crate::error::{Error, Result};
use std::ops::Range;

/// The shape of a window: its length, where the compressed prefix ends, and which of its tokens
/// are scored targets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WindowShape {
    tokens: usize,
    prefix: usize,
    scored: Vec<Range<usize>>,
}

impl WindowShape {
    /// The usual shape: the first half is the prefix. Every token behind the first one after it is
    /// scored; that first one is predicted by the prefix alone, which no codec touches.
    pub fn halves(tokens: usize) -> Self {
        let prefix = tokens / 2;
        let scored = (prefix + 1).min(tokens)..tokens;
        Self { tokens, prefix, scored: vec![scored] }
    }

    /// A shape of one's own. `scored`: runs of indices of tokens, in order and apart from each
    /// other, none empty, all behind token `prefix`.
    ///
    /// # Errors
    /// Runs that overlap, are empty, reach into the prefix or beyond the window, or are none.
    pub fn new(tokens: usize, prefix: usize, scored: Vec<Range<usize>>) -> Result<Self> {
        let mut least = prefix + 1;
        for run in &scored {
            if run.is_empty() || run.start < least || run.end > tokens {
                return Err(Error::input(format!(
                    "window: expected scored targets in order within {least}..{tokens}, found {run:?}"
                )));
            }
            least = run.end;
        }
        match scored.is_empty() {
            true => Err(Error::input("window: expected scored targets, found none")),
            false => Ok(Self { tokens, prefix, scored }),
        }
    }

    /// Tokens of the window.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens of the prefix: with the protocol `prefix`, those whose cache is compressed.
    pub fn prefix(&self) -> usize {
        self.prefix
    }

    /// Indices of the scored targets, ascending.
    pub fn targets(&self) -> impl Iterator<Item = usize> + '_ {
        self.scored.iter().cloned().flatten()
    }

    /// The same with its last targets alone, `most` at most.
    pub fn with_last_targets(&self, most: usize) -> Self {
        let mut left = most;
        let last = |run: &Range<usize>| {
            let taken = run.len().min(left);
            left -= taken;
            (taken > 0).then_some(run.end - taken..run.end)
        };
        let mut scored: Vec<_> = self.scored.iter().rev().map_while(last).collect();
        scored.reverse();
        Self { scored, ..*self }
    }

    /// Number of scored targets.
    pub fn scored_len(&self) -> usize {
        self.scored.iter().map(Range::len).sum()
    }

    /// Runs of positions whose outputs predict the scored targets: each one before its target.
    pub fn predictors(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.scored.iter().map(|run| run.start - 1..run.end - 1)
    }

    /// Number of predictors at or behind a position.
    pub fn predictors_from(&self, position: usize) -> usize {
        self.predictors().map(|run| run.end.saturating_sub(position.max(run.start))).sum()
    }
}

/// A run of tokens of a text, to be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    tokens: Vec<u32>,
    shape: WindowShape,
}

impl Window {
    /// A window of the usual shape.
    pub fn halves(tokens: Vec<u32>) -> Self {
        Self { shape: WindowShape::halves(tokens.len()), tokens }
    }

    /// # Errors
    /// A shape of another length.
    pub fn new(tokens: Vec<u32>, shape: WindowShape) -> Result<Self> {
        match tokens.len() == shape.tokens {
            true => Ok(Self { tokens, shape }),
            false => Err(Error::input(format!(
                "window: expected the {} tokens of its shape, found {}",
                shape.tokens,
                tokens.len()
            ))),
        }
    }

    /// Token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that go through the model: all but the last, which is only ever a target.
    pub fn inputs(&self) -> &[u32] {
        &self.tokens[..self.tokens.len().saturating_sub(1)]
    }

    /// Ids of the scored targets, in order.
    pub fn targets(&self) -> Vec<u32> {
        self.shape.targets().map(|index| self.tokens[index]).collect()
    }

    /// Length, prefix and scored targets.
    pub fn shape(&self) -> &WindowShape {
        &self.shape
    }
}

/// The choice of windows of a text.
#[derive(Debug, Clone, Copy)]
pub struct WindowPlan {
    /// Tokens of a window.
    pub context: usize,
    /// Index of the first window.
    pub first: usize,
    /// The most windows to take; `None`: all.
    pub count: Option<usize>,
    /// Token that replaces the first of every window, as llama-perplexity does.
    pub bos: Option<u32>,
}

impl WindowPlan {
    /// Tokens of a text that it needs; `None`: all.
    pub fn tokens(&self) -> Option<usize> {
        let windows = self.count.map(|count| self.first.saturating_add(count));
        windows.map(|windows| windows.saturating_mul(self.context))
    }

    /// Cuts windows that do not overlap; fewer than asked for where the text is shorter, never
    /// none. `source`: the text's name, for errors.
    ///
    /// # Errors
    /// A text shorter than one window, or without the first window asked for.
    pub fn cut(&self, tokens: &[u32], source: &str) -> Result<Vec<Window>> {
        let available = tokens.len() / self.context;
        if available == 0 {
            return Err(Error::input(format!(
                "{source}: expected at least {} tokens, one window, found {}",
                self.context,
                tokens.len()
            ))
            .hint("use a longer text or a smaller --context"));
        }
        if self.first >= available {
            return Err(Error::input(format!(
                "--first-window: expected at most {}, the last of the text's {available} windows, found {}",
                available - 1,
                self.first
            ))
            .hint("windows are counted from 0"));
        }
        Ok(tokens
            .chunks_exact(self.context)
            .skip(self.first)
            .take(self.count.unwrap_or(usize::MAX))
            .map(|window| {
                let mut window = window.to_vec();
                if let (Some(bos), Some(first)) = (self.bos, window.first_mut()) {
                    *first = bos;
                }
                Window::halves(window)
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_targets_are_those_of_the_last_runs() {
        let shape = WindowShape::new(20, 4, vec![5..8, 10..12, 15..19]).unwrap();
        let of = |most| shape.with_last_targets(most).targets().collect::<Vec<_>>();
        assert_eq!(of(3), [16, 17, 18]);
        assert_eq!(of(5), [11, 15, 16, 17, 18]);
        assert_eq!(of(6), [10, 11, 15, 16, 17, 18]);
        assert_eq!(shape.with_last_targets(9), shape);
        assert_eq!(shape.with_last_targets(100), shape);
    }

    #[test]
    fn halves_leave_out_the_target_that_the_prefix_predicts() {
        let shape = WindowShape::halves(512);
        assert_eq!((shape.prefix(), shape.scored_len()), (256, 255));
        assert_eq!(shape.targets().next(), Some(257));
        assert_eq!(shape.predictors().collect::<Vec<_>>(), vec![256..511]);
        assert_eq!(
            [0, 256, 257, 510, 511].map(|p| shape.predictors_from(p)),
            [255, 255, 254, 1, 0]
        );
        assert_eq!(WindowShape::halves(7).targets().collect::<Vec<_>>(), [4, 5, 6]);
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init, reason = "runs, not their numbers")]
    fn a_shape_of_several_runs() {
        let shape = WindowShape::new(10, 3, vec![4..6, 8..10]).unwrap();
        assert_eq!(shape.targets().collect::<Vec<_>>(), [4, 5, 8, 9]);
        assert_eq!(shape.predictors_from(4), 3);
        let window = Window::new((10..20).collect(), shape.clone()).unwrap();
        assert_eq!(window.targets(), [14, 15, 18, 19]);
        assert_eq!(window.inputs(), (10..19).collect::<Vec<_>>());
        assert!(Window::new(vec![1; 9], shape).is_err());
        let wrong =
            [vec![], vec![3..5], vec![4..4], vec![4..6, 5..7], vec![6..8, 4..5], vec![8..11]];
        for scored in wrong {
            assert!(WindowShape::new(10, 3, scored.clone()).is_err(), "{scored:?}");
        }
    }
}
