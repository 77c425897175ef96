//! Codecs by layer: a base, and what other layers have in its place.
//!
//! Names say layers as indices and as places from the end; how many layers there are is known only
//! with a model or a file. Until then an assignment is kept in a normal form, so that two spellings
//! of one assignment are equal and print alike, as far as that can be said without the number.

mod layers;

pub(crate) use layers::Layers;

use super::tensor_codec::Codec;
use crate::error::Result;
use std::fmt;

/// One thing for every layer of a model: the codec or the treatment of its cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ByLayer<T> {
    base: T,
    /// Later ones win over earlier ones, and all over the base.
    others: Vec<(Layers, T)>,
}

/// The codec of a whole cache.
pub type CacheCodec = ByLayer<Codec>;

impl<T> From<T> for ByLayer<T> {
    fn from(base: T) -> Self {
        Self { base, others: Vec::new() }
    }
}

impl<T: Clone + PartialEq> ByLayer<T> {
    /// `base`, but for the layers of `others`, of which later ones win.
    pub(crate) fn new(base: T, others: Vec<(Layers, T)>) -> Self {
        let mut all = Self { base, others };
        // What is taken out or put in another order may leave less to say of the rest.
        for _ in 0..=all.others.len() {
            let mut again = Self::from(all.base.clone());
            for (layers, own) in all.others.clone() {
                again.set(layers, own);
            }
            again.others = in_order(again.others);
            if again == all {
                break;
            }
            all = again;
        }
        all
    }

    /// `base`, but for one layer.
    pub fn with_layer(base: T, layer: usize, own: T) -> Self {
        Self::new(base, vec![(Layers::of_indices([layer]), own)])
    }

    /// What each layer of a model has, in their order, under the shortest name: whichever of them is
    /// the base. `None` without layers.
    pub fn of_each(layers: &[T]) -> Option<Self>
    where
        T: fmt::Display,
    {
        let mut distinct: Vec<&T> = Vec::new();
        for own in layers {
            if !distinct.contains(&own) {
                distinct.push(own);
            }
        }
        let of = |own: &T| {
            let indices = (0..layers.len()).filter(|index| layers[*index] == *own);
            (Layers::of_indices(indices), own.clone())
        };
        let on = |base: &&T| {
            let others = distinct.iter().filter(|own| *own != base).map(|own| of(own));
            Self::new((*base).clone(), others.collect())
        };
        distinct.iter().map(on).min_by_key(|all| all.to_string().len())
    }

    /// Whether all layers have the same.
    pub fn is_uniform(&self) -> bool {
        self.others.is_empty()
    }

    /// That of the layers for which nothing else is said.
    pub fn base(&self) -> &T {
        &self.base
    }

    /// That of some layers, in the order in which later ones win.
    pub(crate) fn others(&self) -> &[(Layers, T)] {
        &self.others
    }

    /// Everything that a layer may have, the base first.
    pub fn each(&self) -> impl Iterator<Item = &T> {
        [&self.base].into_iter().chain(self.others.iter().map(|(_, own)| own))
    }

    /// That of each layer of a model of `count` layers.
    ///
    /// # Errors
    /// A layer that is named and not there.
    pub fn of_layers(&self, count: usize) -> Result<Vec<T>> {
        let mut all = vec![self.base.clone(); count];
        for (layers, own) in &self.others {
            for index in layers.indices(count)? {
                all[index] = own.clone();
            }
        }
        Ok(all)
    }

    /// The same with `f` of everything.
    pub(crate) fn map<U: Clone + PartialEq>(&self, f: impl Fn(&T) -> U) -> ByLayer<U> {
        let others = self.others.iter().map(|(layers, own)| (layers.clone(), f(own)));
        ByLayer::new(f(&self.base), others.collect())
    }

    /// The same with `f` of everything; `None` where `f` is that of one.
    pub(crate) fn try_map<U: Clone + PartialEq>(
        &self,
        f: impl Fn(&T) -> Option<U>,
    ) -> Option<ByLayer<U>> {
        let others = self.others.iter().map(|(layers, own)| Some((layers.clone(), f(own)?)));
        Some(ByLayer::new(f(&self.base)?, others.collect::<Option<Vec<_>>>()?))
    }

    /// Gives `layers` their own, over all that was said of them before.
    fn set(&mut self, layers: Layers, own: T) {
        for (earlier, _) in &mut self.others {
            *earlier = earlier.without(&layers);
        }
        self.others.retain(|(earlier, _)| !earlier.is_empty());
        if layers.is_all() {
            (self.base, self.others) = (own, Vec::new());
            return;
        }
        // Said before, with nothing between that it would have to win over.
        let over = self
            .others
            .iter()
            .rposition(|(earlier, other)| *other != own && !earlier.is_apart_from(&layers));
        let after = over.map_or(0, |over| over + 1);
        if let Some((same, _)) = self.others[after..].iter_mut().find(|(_, other)| *other == own) {
            *same = same.and(&layers);
        } else if over.is_some() || own != self.base {
            self.others.push((layers, own));
        }
    }
}

/// Sorted by their first layer, as far as later ones need not win over earlier ones.
fn in_order<T>(others: Vec<(Layers, T)>) -> Vec<(Layers, T)> {
    let over = |index: usize| -> Vec<usize> {
        let own = &others[index].0;
        (0..index).filter(|earlier| !others[*earlier].0.is_apart_from(own)).collect()
    };
    // By index: those that come before it.
    let before: Vec<Vec<usize>> = (0..others.len()).map(over).collect();
    let mut waiting: Vec<Option<(Layers, T)>> = others.into_iter().map(Some).collect();
    let mut sorted = Vec::with_capacity(waiting.len());
    loop {
        let is_free = |index: &usize| before[*index].iter().all(|own| waiting[*own].is_none());
        let free = (0..waiting.len()).filter(|index| waiting[*index].is_some()).filter(is_free);
        let layers = |index: &usize| waiting[*index].as_ref().map(|(layers, _)| layers.clone());
        let Some(next) = free.min_by_key(layers) else { return sorted };
        sorted.extend(waiting[next].take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Letters = ByLayer<char>;

    /// `a+b@0,1+c@-1`
    fn read(text: &str) -> Letters {
        let mut parts = text.split('+');
        let base = parts.next().and_then(|base| base.chars().next()).expect(text);
        let other = |part: &str| {
            let (own, layers) = part.split_once('@').expect(text);
            (Layers::parse(layers).expect(text), own.chars().next().expect(text))
        };
        Letters::new(base, parts.map(other).collect())
    }

    fn print(all: &Letters) -> String {
        let others = all.others.iter().map(|(layers, own)| format!("+{own}@{layers}"));
        others.fold(all.base.to_string(), |text, other| text + &other)
    }

    #[test]
    fn an_assignment_has_one_spelling() {
        for (typed, printed) in [
            ("a", "a"),
            ("a+b@1,0", "a+b@0-1"),
            ("a+b@0+b@1", "a+b@0-1"),
            ("a+b@-1+b@0,1", "a+b@0-1,-1"),
            ("a+c@3+b@0", "a+b@0+c@3"),
            ("a+b@0+c@2+b@1", "a+b@0-1+c@2"),
            ("a+b@0-7+c@3", "a+b@0-2,4-7+c@3"),
            ("a+b@3+c@3", "a+c@3"),
            ("a+b@0-3+c@0--1", "c"),
            ("a+a@2", "a"),
            ("a+b@0-3+a@1", "a+b@0,2-3"),
            // Whether these meet depends on the number of layers.
            ("a+b@-1+c@3", "a+b@-1+c@3"),
            ("a+c@3+b@-1", "a+c@3+b@-1"),
            ("a+b@-1+a@3", "a+b@-1+a@3"),
            ("a+b@-1+a@3+c@-1", "a+c@-1"),
            ("a+b@-1+c@3+b@-2", "a+b@-1+c@3+b@-2"),
            ("a+b@3+c@2--1", "a+c@2--1"),
            ("a+c@2--1+b@3", "a+c@2--1+b@3"),
        ] {
            assert_eq!(print(&read(typed)), printed, "{typed}");
            assert_eq!(read(printed), read(typed), "{typed}");
            assert_eq!(print(&read(printed)), printed, "{typed}");
        }
    }

    /// Thousands of assignments, held against one that is carried out layer by layer.
    #[test]
    fn the_normal_form_keeps_what_every_layer_has() {
        let sets = ["0", "1-3", "-1", "-3--2", "2--1", "0--2", "4,-4", "0--1"];
        let part = |choice: usize| {
            let own = ['a', 'b', 'c'][choice % 3];
            (own, sets[choice / 3 % sets.len()])
        };
        let each = 3 * sets.len();
        for choice in 0..each * each * each {
            let parts = [choice % each, choice / each % each, choice / each / each].map(part);
            let layers = |text: &str| Layers::parse(text).unwrap();
            let all =
                Letters::new('a', parts.iter().map(|(own, set)| (layers(set), *own)).collect());
            for count in 5..9 {
                let mut expected = vec!['a'; count];
                for (own, set) in parts {
                    let indices = layers(set).indices(count).unwrap();
                    indices.into_iter().for_each(|index| expected[index] = own);
                }
                let found = all.of_layers(count).unwrap();
                assert_eq!(found, expected, "{parts:?} of {count} layers");
            }
            assert_eq!(read(&print(&all)), all, "{parts:?}");
        }
    }

    #[test]
    fn the_base_is_what_makes_the_name_shortest() {
        for (layers, name) in [
            ("a", "a"),
            ("aaaa", "a"),
            ("abbb", "b+a@0"),
            ("aabb", "a+b@2-3"),
            ("abababab", "a+b@1,3,5,7"),
            ("abcabcabbb", "b+a@0,3,6+c@2,5"),
        ] {
            let layers: Vec<char> = layers.chars().collect();
            let found = Letters::of_each(&layers).unwrap();
            assert_eq!(
                (print(&found).as_str(), found.of_layers(layers.len()).unwrap()),
                (name, layers)
            );
        }
        assert!(Letters::of_each(&[]).is_none());
    }

    /// Every assignment of three to six layers, held against every name that a base makes.
    #[test]
    fn no_other_base_makes_a_shorter_name() {
        for choice in 0..3usize.pow(6) {
            let layers: Vec<char> =
                (0..6).map(|layer| ['a', 'b', 'c'][choice / 3usize.pow(layer) % 3]).collect();
            let found = Letters::of_each(&layers).unwrap();
            assert_eq!(found.of_layers(6).unwrap(), layers);
            for base in ['a', 'b', 'c'] {
                let mut name = base.to_string();
                for (index, own) in layers.iter().enumerate().filter(|(_, own)| **own != base) {
                    name += &format!("+{own}@{index}");
                }
                assert!(print(&found).len() <= print(&read(&name)).len(), "{name}");
            }
        }
    }

    #[test]
    fn layers_that_are_not_there_are_refused() {
        let all = read("a+b@0,30");
        assert_eq!(all.of_layers(31).unwrap()[30], 'b');
        let error = all.of_layers(30).unwrap_err().to_string();
        assert!(error.contains("layer 30: expected one of 30 layers"), "{error}");
        assert!(read("a").of_layers(0).unwrap().is_empty());
    }
}
