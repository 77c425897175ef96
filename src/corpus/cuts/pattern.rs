//! A pattern of a pre-tokeniser, read for one question: which two characters may stand side by side
//! in what a match takes or looks at?
//!
//! The pattern's atoms (a literal, a class, an escape) are its positions in the sense of Glushkov
//! (1961): a match is a walk from a first atom along pairs of followers. Where no atom that takes `a`
//! has a follower that takes `b`, no match contains `a` and `b` side by side, and none that ends at `a`
//! can tell `b` from the text's end. Look-ahead counts as if it were taken. What is not understood
//! (look-behind, back-references, anchors other than `$`) makes no pattern at all.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;
use tokenizers::utils::SysRegex;

/// A pattern's atoms and what may follow what.
pub(super) struct Pattern {
    atoms: Vec<Atom>,
    followers: BTreeSet<(usize, usize)>,
    /// Atoms each of which is a whole match, without a condition on what comes before or after.
    alone: BTreeSet<usize>,
}

enum Atom {
    Literal(char),
    /// A regular expression of one character.
    Class(SysRegex),
    /// The text's end, which every character can be told from.
    End,
}

impl Atom {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Literal(own) => *own == c,
            Self::Class(regex) => {
                let text = c.to_string();
                regex.find_iter(&text).next() == Some((0, text.len()))
            }
            Self::End => true,
        }
    }
}

/// A part of a pattern, by its atoms.
#[derive(Default)]
struct Part {
    may_be_empty: bool,
    first: BTreeSet<usize>,
    last: BTreeSet<usize>,
    /// Whether it looks beyond what it takes.
    looks: bool,
}

impl Pattern {
    /// A text that is looked for as it is.
    pub(super) fn literal(text: &str) -> Self {
        let atoms: Vec<Atom> = text.chars().map(Atom::Literal).collect();
        let followers = (1..atoms.len()).map(|next| (next - 1, next)).collect();
        let alone = (atoms.len() == 1).then_some(0).into_iter().collect();
        Self { atoms, followers, alone }
    }

    /// `None` where it has what is not understood here.
    pub(super) fn regex(source: &str) -> Option<Self> {
        let mut reader = Reader {
            rest: source.chars().peekable(),
            pattern: Self { atoms: vec![], followers: BTreeSet::new(), alone: BTreeSet::new() },
        };
        let branches = reader.branches(false)?;
        let mut pattern = reader.rest.next().is_none().then_some(reader.pattern)?;
        for branch in branches.iter().filter(|branch| !branch.looks) {
            pattern.alone.extend(branch.first.intersection(&branch.last));
        }
        Some(pattern)
    }

    /// Whether a match may contain `a` with `b` behind it, or tell `b` behind `a` from the text's end.
    pub(super) fn joins(&self, a: char, b: char) -> bool {
        let (a, b) = (self.taking(a), self.taking(b));
        self.followers.iter().any(|(left, right)| a.contains(left) && b.contains(right))
    }

    /// Whether a match may contain it, or look at it.
    pub(super) fn knows(&self, c: char) -> bool {
        !self.taking(c).is_empty()
    }

    /// Whether a match begins at `c` wherever one is looked for there.
    pub(super) fn always_takes(&self, c: char) -> bool {
        self.alone.iter().any(|atom| self.atoms[*atom].takes(c))
    }

    fn taking(&self, c: char) -> BTreeSet<usize> {
        (0..self.atoms.len()).filter(|atom| self.atoms[*atom].takes(c)).collect()
    }
}

struct Reader<'s> {
    rest: Peekable<Chars<'s>>,
    pattern: Pattern,
}

impl Reader<'_> {
    /// Alternatives, to the end of their group. `any_case`: within `(?i:`.
    fn branches(&mut self, any_case: bool) -> Option<Vec<Part>> {
        let mut branches = vec![Part { may_be_empty: true, ..Part::default() }];
        loop {
            match self.rest.peek() {
                None | Some(')') => return Some(branches),
                Some('|') => {
                    self.rest.next();
                    branches.push(Part { may_be_empty: true, ..Part::default() });
                }
                Some(_) => {
                    let part = self.one(any_case)?;
                    let part = self.repeated(part)?;
                    let before = branches.pop()?;
                    branches.push(self.one_behind_the_other(before, part));
                }
            }
        }
    }

    fn one_behind_the_other(&mut self, before: Part, mut part: Part) -> Part {
        self.follow(&before.last, &part.first);
        if before.may_be_empty {
            part.first.extend(&before.first);
        }
        if part.may_be_empty {
            part.last.extend(&before.last);
        }
        Part {
            may_be_empty: before.may_be_empty && part.may_be_empty,
            first: if before.may_be_empty { part.first } else { before.first },
            last: part.last,
            looks: before.looks || part.looks,
        }
    }

    fn follow(&mut self, left: &BTreeSet<usize>, right: &BTreeSet<usize>) {
        let pairs = left.iter().flat_map(|left| right.iter().map(|right| (*left, *right)));
        self.pattern.followers.extend(pairs);
    }

    /// A quantifier behind it, if there is one; lazy and possessive ones take no other pairs.
    fn repeated(&mut self, mut part: Part) -> Option<Part> {
        let (least, once): (usize, bool) = match self.rest.peek() {
            Some('*') => (0, false),
            Some('+') => (1, false),
            Some('?') => (0, true),
            Some('{') => {
                let mut counts = self.rest.clone();
                let counts: String = counts.by_ref().skip(1).take_while(|c| *c != '}').collect();
                let least = counts.split(',').next().unwrap_or_default();
                self.rest.nth(counts.chars().count());
                (least.parse().ok()?, false)
            }
            _ => return Some(part),
        };
        self.rest.next();
        self.rest.next_if(|c| matches!(c, '?' | '+'));
        if matches!(self.rest.peek(), Some('*' | '+' | '?' | '{')) {
            return None;
        }
        if !once {
            let (first, last) = (part.first.clone(), part.last.clone());
            self.follow(&last, &first);
        }
        part.may_be_empty |= least == 0;
        Some(part)
    }

    /// An atom or a group.
    fn one(&mut self, any_case: bool) -> Option<Part> {
        match self.rest.next()? {
            '(' => self.group(any_case),
            '$' => Some(self.looked_at(Atom::End)),
            '[' => {
                let class = self.class()?;
                self.class_atom(class, any_case)
            }
            '\\' => {
                let escape = self.escape()?;
                self.class_atom(escape, any_case)
            }
            '.' => self.class_atom(".".into(), any_case),
            '^' | '*' | '+' | '?' | '{' | ')' | '|' => None,
            c if any_case => self.class_atom(c.to_string(), any_case),
            c => Some(self.taken(Atom::Literal(c))),
        }
    }

    fn class_atom(&mut self, source: String, any_case: bool) -> Option<Part> {
        let source = if any_case { format!("(?i:{source})") } else { source };
        SysRegex::new(&source).ok().map(|regex| self.taken(Atom::Class(regex)))
    }

    fn taken(&mut self, atom: Atom) -> Part {
        let own = BTreeSet::from([self.pattern.atoms.len()]);
        self.pattern.atoms.push(atom);
        Part { may_be_empty: false, first: own.clone(), last: own, looks: false }
    }

    fn looked_at(&mut self, atom: Atom) -> Part {
        let part = self.taken(atom);
        Part { may_be_empty: true, last: BTreeSet::new(), looks: true, ..part }
    }

    fn group(&mut self, mut any_case: bool) -> Option<Part> {
        let mut looks_ahead = false;
        if self.rest.next_if_eq(&'?').is_some() {
            match self.rest.next()? {
                ':' => {}
                'i' => {
                    self.rest.next_if_eq(&':')?;
                    any_case = true;
                }
                '=' | '!' => looks_ahead = true,
                _ => return None,
            }
        }
        let mut group = Part::default();
        for branch in self.branches(any_case)? {
            group.may_be_empty |= branch.may_be_empty;
            group.first.extend(branch.first);
            group.last.extend(branch.last);
            group.looks |= branch.looks;
        }
        self.rest.next_if_eq(&')')?;
        if looks_ahead {
            group = Part { may_be_empty: true, last: BTreeSet::new(), looks: true, ..group };
        }
        Some(group)
    }

    /// Behind `\`: of one character, by its class or itself.
    fn escape(&mut self) -> Option<String> {
        let mut escape = String::from('\\');
        let kind = self.rest.next()?;
        escape.push(kind);
        match kind {
            'p' | 'P' | 'x' | 'u' => {
                let braces = self.rest.next_if_eq(&'{')?;
                escape.push(braces);
                loop {
                    let c = self.rest.next()?;
                    escape.push(c);
                    if c == '}' {
                        return Some(escape);
                    }
                }
            }
            's' | 'S' | 'd' | 'D' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'v' => Some(escape),
            c if c.is_alphanumeric() => None,
            _ => Some(escape),
        }
    }

    /// Behind `[`, to the bracket that closes it.
    fn class(&mut self) -> Option<String> {
        let mut class = String::from('[');
        let mut open = 1;
        while open > 0 {
            let c = self.rest.next()?;
            class.push(c);
            match c {
                '\\' => class.push(self.rest.next()?),
                '[' => open += 1,
                ']' => open -= 1,
                _ => {}
            }
        }
        Some(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA3: &str = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    );

    #[test]
    fn what_a_match_joins() {
        let pattern = Pattern::regex(LLAMA3).unwrap();
        let joined = ["ab", " a", ".a", "12", "..", " .", ".\n", "\n\n", " \n", "  ", "'s", "'S"];
        // The last two by the look-ahead: in `\n a` the line end is a match of its own, in `\n` at the
        // text's end too, but not by the same branch.
        for pair in joined.into_iter().chain(["\na", " 1"]) {
            let [a, b] = pair.chars().collect::<Vec<_>>()[..] else { unreachable!() };
            assert!(pattern.joins(a, b), "{pair:?}");
        }
        for pair in ["a ", "a.", "a\n", "a1", "1a", "1 ", ". ", ".1", "中，", "a'"] {
            let [a, b] = pair.chars().collect::<Vec<_>>()[..] else { unreachable!() };
            assert!(!pattern.joins(a, b), "{pair:?}");
            assert!(pattern.always_takes(b), "{b:?}");
        }
    }

    #[test]
    fn conditions_groups_and_repeats() {
        let pattern = Pattern::regex(r"a(?:b|c)*?d{2}(?=e[\]f])|g\s+$|[h-j]").unwrap();
        for pair in ["ab", "ad", "bc", "cb", "bd", "dd", "de", "ef", "e]", "  ", " x"] {
            let [a, b] = pair.chars().collect::<Vec<_>>()[..] else { unreachable!() };
            assert!(pattern.joins(a, b), "{pair:?}");
        }
        for pair in ["ae", "be", "ea", "fa", "gh", "ij", "da", "x "] {
            let [a, b] = pair.chars().collect::<Vec<_>>()[..] else { unreachable!() };
            assert!(!pattern.joins(a, b), "{pair:?}");
        }
        assert!(pattern.always_takes('i') && !pattern.always_takes('a'));
        let pattern = Pattern::regex("a(?!f)|[h-j]").unwrap();
        assert!(pattern.knows('f') && pattern.knows('i') && !pattern.knows('z'));
        // A condition is no match of its own.
        assert!(!Pattern::regex("a(?!b)").unwrap().always_takes('a'));
        assert!(!Pattern::regex("(?=a)").unwrap().always_takes('a'));
    }

    #[test]
    fn what_is_not_understood_is_no_pattern() {
        for source in [
            r"\bword",
            r"^a",
            r"(?<=a)b",
            r"(?<!a)b",
            r"(a)\1",
            r"(?i)a",
            r"(?>a)b",
            r"a\z",
            r"\Ga",
            r"(a",
            r"a)",
            r"[a",
            r"\k<n>",
            r"(?P<n>a)",
            r"\x41",
            r"a**",
            r"(?s:.)",
        ] {
            assert!(Pattern::regex(source).is_none(), "{source}");
        }
    }
}
