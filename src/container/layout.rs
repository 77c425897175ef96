//! Which axis of a tensor is what. A codec takes [heads, tokens, head_dim]; engines store their
//! caches in other orders, or keys and values in one tensor.

use crate::codec::Element;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The order of a tensor's last axes. What stands before them is read as more heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AxisOrder {
    /// […, heads, tokens, head_dim], as transformers has it.
    #[default]
    HeadsTokensDim,
    /// […, tokens, heads, head_dim], as vLLM has it.
    TokensHeadsDim,
}

/// How the tensors of a file are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// Of the axes without that of `kv_axis`.
    pub order: AxisOrder,
    /// The axis, of size 2, that has keys at 0 and values at 1; `None`: a tensor is one of them.
    pub kv_axis: Option<usize>,
    /// The last axis has heads one after the other, of so many values each.
    pub head_dim: Option<usize>,
}

impl AxisOrder {
    const ALL: [Self; 2] = [Self::HeadsTokensDim, Self::TokensHeadsDim];

    /// The name on a command line and in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeadsTokensDim => "heads-tokens-dim",
            Self::TokensHeadsDim => "tokens-heads-dim",
        }
    }
}

impl fmt::Display for AxisOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AxisOrder {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        if let Some(order) = Self::ALL.into_iter().find(|order| order.name() == name) {
            return Ok(order);
        }
        let lower = name.to_ascii_lowercase();
        // As engines call them: tokens are N, S or T, and the batch or the block may come first.
        let letters = lower.trim_start_matches(['b', 'l', 'p']);
        let meant = match letters {
            "hnd" | "hsd" | "htd" => Some(Self::HeadsTokensDim),
            "nhd" | "shd" | "thd" => Some(Self::TokensHeadsDim),
            _ => Self::ALL.into_iter().find(|order| {
                let known: Vec<&str> = order.name().split('-').collect();
                lower.split(|c: char| !c.is_ascii_alphanumeric()).eq(known)
            }),
        };
        let [first, second] = Self::ALL.map(Self::name);
        let error = Error::input(format!(
            "expected {first} or {second}, found {:?}",
            name.chars().take(40).collect::<String>()
        ));
        Err(match meant {
            Some(order) => error.hint(format!("did you mean {order}?")),
            None => error.hint(
                "transformers keeps heads before tokens, vLLM and LMCache tokens before heads",
            ),
        })
    }
}

impl fmt::Display for Layout {
    /// For people: `tokens-heads-dim, keys and values along axis 1, heads of 64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.order)?;
        if let Some(axis) = self.kv_axis {
            write!(f, ", keys and values along axis {axis}")?;
        }
        match self.head_dim {
            Some(head_dim) => write!(f, ", heads of {head_dim}"),
            None => Ok(()),
        }
    }
}

impl Layout {
    /// Whether a tensor is read as it lies.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it can be meant at all.
    pub fn check(&self) -> Result<()> {
        let Some(head_dim) = self.head_dim else { return Ok(()) };
        if head_dim == 0 {
            return Err(Error::input("head_dim: expected 1 or more, found 0")
                .hint("64 and 128 are usual: the model's config says it"));
        }
        if self.order != AxisOrder::TokensHeadsDim {
            return Err(Error::input(format!(
                "head_dim {head_dim}: expected layout {}, found {}",
                AxisOrder::TokensHeadsDim,
                self.order
            ))
            .hint(format!(
                "say --layout too, {}: heads that share the last axis lie behind their token",
                AxisOrder::TokensHeadsDim
            )));
        }
        Ok(())
    }

    /// The axes that are not counted, for an error.
    pub(super) fn besides(&self) -> &'static str {
        if self.kv_axis.is_some() { " besides that of keys and values" } else { "" }
    }

    /// The view through which a tensor of this shape is read.
    pub(super) fn view(&self, shape: &[usize]) -> Result<TensorView> {
        if self.is_default() {
            return Ok(TensorView { shape: shape.to_vec(), parts: Vec::new() });
        }
        let mut stride = 1usize;
        let mut axes: Vec<Axis> = Vec::with_capacity(shape.len() + 1);
        for size in shape.iter().rev() {
            axes.push(Axis { size: *size, stride });
            // Too large only where another axis is empty.
            stride = stride.saturating_mul(*size);
        }
        axes.reverse();
        let mut starts = vec![0];
        if let Some(index) = self.kv_axis {
            match axes.get(index) {
                Some(axis) if axis.size == 2 => starts.push(axes.remove(index).stride),
                found => {
                    let found = match found {
                        Some(axis) => format!("size {} in shape {shape:?}", axis.size),
                        None => format!("shape {shape:?} of {} axes", shape.len()),
                    };
                    return Err(Error::input(format!(
                        "axis {index}, counted from 0: expected one of size 2, keys and values, found {found}"
                    ))
                    .hint("--kv-axis says which it is; --exclude stores a tensor as it is"));
                }
            }
        }
        if let Some(head_dim) = self.head_dim {
            let last = axes.pop().filter(|last| last.size.is_multiple_of(head_dim));
            let Some(Axis { size, stride }) = last else {
                return Err(Error::input(format!(
                    "heads of {head_dim}: expected a multiple of that as the last axis, found shape {shape:?}"
                ))
                .hint("--head-dim is the length of one head; --exclude stores a tensor as it is"));
            };
            axes.push(Axis { size: size / head_dim, stride: stride.saturating_mul(head_dim) });
            axes.push(Axis { size: head_dim, stride });
        }
        if self.order == AxisOrder::TokensHeadsDim {
            let Some(tokens) = axes.len().checked_sub(3) else {
                let besides = self.besides();
                return Err(Error::input(format!(
                    "layout {}: expected 3 axes or more{besides}, found shape {shape:?}",
                    self.order
                ))
                .hint("--head-dim says how long the heads are that share the last axis; --exclude stores a tensor as it is"));
            };
            axes.swap(tokens, tokens + 1);
        }
        let shape = axes.iter().map(|axis| axis.size).collect();
        let part = |start| StridedView { start, axes: axes.clone() };
        Ok(TensorView { shape, parts: starts.into_iter().map(part).collect() })
    }
}

/// A tensor in the order of axes that codecs take: of keys, of values, or of both apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorView {
    /// […, heads, tokens, head_dim], of keys or values alone where it holds both.
    pub shape: Vec<usize>,
    /// Where the values lie, of keys and of values where it holds both. None: in this order.
    parts: Vec<StridedView>,
}

/// Axes with strides into a tensor's values.
#[derive(Debug, Clone, PartialEq)]
struct StridedView {
    /// Index of the first value.
    start: usize,
    /// In the order of [`TensorView::shape`].
    axes: Vec<Axis>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    size: usize,
    /// Values from one index to the next.
    stride: usize,
}

impl TensorView {
    /// Whether values are taken as they lie.
    pub fn is_plain(&self) -> bool {
        self.parts.is_empty()
    }

    /// Values of keys or values alone.
    pub fn values(&self) -> usize {
        // In this order the product may pass any number on its way to 0.
        if self.shape.contains(&0) { 0 } else { self.shape.iter().product() }
    }

    /// Takes keys (`part` 0) or values (1) out of a tensor's values.
    pub fn gather<T: Element>(&self, part: usize, tensor: &[T], out: &mut [T]) {
        match self.parts.get(part) {
            None => out.copy_from_slice(tensor),
            Some(view) => view.each(|index, place| out[index] = tensor[place]),
        }
    }

    /// The way back.
    pub fn scatter<T: Element>(&self, part: usize, values: &[T], tensor: &mut [T]) {
        match self.parts.get(part) {
            None => tensor.copy_from_slice(values),
            Some(view) => view.each(|index, place| tensor[place] = values[index]),
        }
    }
}

impl StridedView {
    /// Calls `each` with the index of every value in the order of the axes, and its place in the
    /// tensor.
    fn each(&self, mut each: impl FnMut(usize, usize)) {
        let Some((inner, outer)) = self.axes.split_last() else { return each(0, self.start) };
        if self.axes.iter().any(|axis| axis.size == 0) {
            return;
        }
        let mut at = vec![0; outer.len()];
        let (mut index, mut place) = (0, self.start);
        loop {
            for step in 0..inner.size {
                each(index + step, place + step * inner.stride);
            }
            index += inner.size;
            // The next row: as an odometer turns.
            let mut wheel = outer.len();
            loop {
                let Some(next) = wheel.checked_sub(1) else { return };
                wheel = next;
                at[wheel] += 1;
                place += outer[wheel].stride;
                if at[wheel] < outer[wheel].size {
                    break;
                }
                place -= outer[wheel].size * outer[wheel].stride;
                at[wheel] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(order: AxisOrder, kv_axis: Option<usize>, head_dim: Option<usize>) -> Layout {
        Layout { order, kv_axis, head_dim }
    }

    /// A tensor whose values are their places.
    fn places(layout: Layout, shape: &[usize]) -> (Vec<usize>, Vec<Vec<f32>>) {
        let view = layout.view(shape).unwrap();
        let tensor: Vec<f32> =
            (0..shape.iter().product()).map(|place: usize| place as f32).collect();
        let parts = if layout.kv_axis.is_some() { 2 } else { 1 };
        let mut back = vec![-1.0; tensor.len()];
        let mut out = Vec::new();
        for part in 0..parts {
            let mut values = vec![0.0; view.values()];
            view.gather(part, &tensor, &mut values);
            view.scatter(part, &values, &mut back);
            out.push(values);
        }
        assert_eq!(back, tensor, "every value has its place");
        (view.shape, out)
    }

    #[test]
    fn values_in_the_order_of_codecs() {
        use AxisOrder::*;
        let found = places(Layout::default(), &[1, 2, 2]);
        assert_eq!(found, (vec![1, 2, 2], vec![vec![0.0, 1.0, 2.0, 3.0]]));
        // Two tokens of two heads of two.
        let found = places(layout(TokensHeadsDim, None, None), &[2, 2, 2]);
        assert_eq!(found.1, [[0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]]);
        let merged = places(layout(TokensHeadsDim, None, Some(2)), &[2, 4]);
        assert_eq!(merged, found);
        // Behind a batch.
        let (shape, values) = places(layout(TokensHeadsDim, None, None), &[2, 3, 2, 1]);
        assert_eq!(shape, [2, 2, 3, 1]);
        assert_eq!(values, [[0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0]]);
        // Keys and values along each axis.
        let (_, values) = places(layout(HeadsTokensDim, Some(0), None), &[2, 2, 2]);
        assert_eq!(values, [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]);
        let (_, values) = places(layout(HeadsTokensDim, Some(1), None), &[2, 2, 2]);
        assert_eq!(values, [[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]);
        let (_, values) = places(layout(HeadsTokensDim, Some(2), None), &[2, 2, 2]);
        assert_eq!(values, [[0.0, 2.0, 4.0, 6.0], [1.0, 3.0, 5.0, 7.0]]);
        // LMCache: [layers, 2, tokens, heads · dim].
        let (shape, values) = places(layout(TokensHeadsDim, Some(1), Some(1)), &[1, 2, 3, 2]);
        assert_eq!(shape, [1, 2, 3, 1]);
        assert_eq!(values, [[0.0, 2.0, 4.0, 1.0, 3.0, 5.0], [6.0, 8.0, 10.0, 7.0, 9.0, 11.0]]);
        // One axis alone, and none.
        let (shape, values) = places(layout(HeadsTokensDim, Some(0), None), &[2]);
        assert_eq!((shape, values), (vec![], vec![vec![0.0], vec![1.0]]));
        assert_eq!(places(Layout::default(), &[]), (vec![], vec![vec![0.0]]));
        // No values, whatever the other axes say.
        let (shape, values) =
            places(layout(TokensHeadsDim, Some(1), None), &[1 << 60, 2, 1 << 60, 0, 8]);
        assert_eq!((shape, values), (vec![1 << 60, 0, 1 << 60, 8], vec![vec![], vec![]]));
    }

    #[test]
    fn axes_that_are_not_there() {
        use AxisOrder::*;
        let refused = |layout: Layout, shape: &[usize], words: &str| {
            let error = layout.view(shape).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(
            layout(HeadsTokensDim, Some(3), None),
            &[2, 5, 8],
            "found shape [2, 5, 8] of 3 axes",
        );
        refused(
            layout(HeadsTokensDim, Some(1), None),
            &[2, 5, 8],
            "found size 5 in shape [2, 5, 8]",
        );
        refused(layout(HeadsTokensDim, Some(0), None), &[], "found shape [] of 0 axes");
        refused(layout(TokensHeadsDim, None, None), &[5, 8], "3 axes or more, found shape [5, 8]");
        refused(
            layout(TokensHeadsDim, Some(0), None),
            &[2, 5, 8],
            "besides that of keys and values",
        );
        refused(layout(TokensHeadsDim, None, Some(3)), &[5, 8], "found shape [5, 8]");
        refused(layout(TokensHeadsDim, None, Some(3)), &[], "found shape []");
        assert!(layout(TokensHeadsDim, None, Some(0)).check().is_err());
        assert!(layout(HeadsTokensDim, None, Some(8)).check().is_err());
        assert!(layout(TokensHeadsDim, Some(1), Some(8)).check().is_ok());
    }

    #[test]
    fn names() {
        for order in AxisOrder::ALL {
            assert_eq!(order.to_string().parse::<AxisOrder>().unwrap(), order);
            assert_eq!(serde_json::to_value(order).unwrap(), order.name());
        }
        for (typed, meant) in [
            ("NHD", "tokens-heads-dim"),
            ("hnd", "heads-tokens-dim"),
            ("bshd", "tokens-heads-dim"),
            ("bhsd", "heads-tokens-dim"),
            ("thd", "tokens-heads-dim"),
            ("Tokens_Heads_Dim", "tokens-heads-dim"),
            ("heads,tokens,dim", "heads-tokens-dim"),
        ] {
            let error = typed.parse::<AxisOrder>().unwrap_err();
            assert_eq!(error.hint_text(), Some(&*format!("did you mean {meant}?")), "{typed}");
        }
        let error = "dim-heads".parse::<AxisOrder>().unwrap_err();
        assert!(error.hint_text().unwrap().contains("vLLM"));
    }
}
