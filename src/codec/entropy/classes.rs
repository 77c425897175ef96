//! Which places of a period share a table of frequencies.

use super::bit_fields::{BitReader, BitWriter};
use super::frequencies::{Frequencies, cost};
use super::log2::log2;

/// Tables of a block, at most.
pub const MOST_CLASSES: usize = 64;
/// Bits of the number of classes, less one.
const COUNT_BITS: u32 = 6;
/// Rounds in which places choose the class that codes them best.
const ROUNDS: usize = 3;

/// The class of each place of a period, and the table of each class.
#[derive(Debug, PartialEq, Eq)]
pub struct Classes {
    pub of_place: Vec<u8>,
    pub tables: Vec<Frequencies>,
}

/// Symbols counted, symbol by symbol.
type Counts = Vec<u32>;

impl Classes {
    /// For these symbols of `width` bits: as few classes as their tables are worth.
    pub fn choose(symbols: &[u8], width: u8, period: usize) -> Self {
        let size = 1 << width;
        let mut places = vec![0u32; period * size];
        for row in symbols.chunks(period) {
            for (counts, symbol) in places.chunks_exact_mut(size).zip(row) {
                counts[usize::from(*symbol)] += 1;
            }
        }
        let places: Vec<&[u32]> = places.chunks_exact(size).collect();
        let mut of_place = grouped(&places);
        if period > MOST_CLASSES {
            for _ in 0..ROUNDS {
                of_place = nearest(&places, &sums(&places, &of_place));
            }
        }
        close_gaps(&mut of_place);
        let counts = merge(sums(&places, &of_place), &mut of_place);
        if let [_] = counts[..] {
            of_place = vec![0];
        }
        let tables = counts.iter().map(|counts| Frequencies::of_counts(counts)).collect();
        Self { of_place, tables }
    }

    /// The number of classes, the class of each place, and the tables.
    pub fn write(&self, width: u8, fields: &mut BitWriter) {
        fields.push(self.tables.len() as u32 - 1, COUNT_BITS);
        let bits = class_bits(self.tables.len());
        self.of_place.iter().for_each(|class| fields.push((*class).into(), bits));
        self.tables.iter().for_each(|table| table.write(width, fields));
    }

    /// The way back.
    pub fn read(period: usize, width: u8, fields: &mut BitReader) -> Result<Self, &'static str> {
        let count = fields.take(COUNT_BITS)? as usize + 1;
        let mut of_place = vec![0; period];
        for class in &mut of_place {
            *class = fields.take(class_bits(count))? as u8;
            if usize::from(*class) >= count {
                return Err("a class without a table");
            }
        }
        let tables = (0..count).map(|_| Frequencies::read(width, fields));
        Ok(Self { of_place, tables: tables.collect::<Result<_, _>>()? })
    }

    /// The classes of as many symbols as whole periods and whole eights have.
    pub fn in_eights(&self) -> Vec<[u8; 8]> {
        let period = self.of_place.len();
        // The least common multiple, in eights.
        let eights = period >> period.trailing_zeros().min(3);
        let mut places = self.of_place.iter().copied().cycle();
        (0..eights).map(|_| std::array::from_fn(|_| places.next().unwrap_or(0))).collect()
    }
}

/// ⌈log₂⌉ of a number of classes.
fn class_bits(count: usize) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

/// Mean and spread are cut into as many parts each, where places are many.
const PARTS: usize = 8;

/// A first class of each place: its own, or of many places one of those with like mean and spread.
fn grouped(places: &[&[u32]]) -> Vec<u8> {
    if places.len() <= MOST_CLASSES {
        return (0..places.len() as u8).collect();
    }
    // Times 1024: mean and variance.
    let moments = |counts: &&[u32]| {
        let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let moment = |power| {
            let of =
                |(symbol, count): (usize, &u32)| (symbol as u64).pow(power) * u64::from(*count);
            1024 * counts.iter().enumerate().map(of).sum::<u64>() / all.max(1)
        };
        let mean = moment(1);
        (mean, moment(2).saturating_sub(mean * mean / 1024))
    };
    let moments: Vec<(u64, u64)> = places.iter().map(moments).collect();
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|place| (moments[*place].0, *place));
    let mut of_place = vec![0; places.len()];
    for (part, own) in order.chunks_mut(places.len().div_ceil(PARTS)).enumerate() {
        own.sort_by_key(|place| (moments[*place].1, *place));
        let count = own.len();
        for (within, place) in own.iter().enumerate() {
            of_place[*place] = (PARTS * part + within * PARTS / count) as u8;
        }
    }
    of_place
}

/// The counts of each class.
fn sums(places: &[&[u32]], of_place: &[u8]) -> Vec<Counts> {
    let classes = of_place.iter().max().map_or(0, |class| usize::from(*class) + 1);
    let mut sums = vec![vec![0; places.first().map_or(0, |counts| counts.len())]; classes];
    for (counts, class) in places.iter().zip(of_place) {
        for (sum, count) in sums[usize::from(*class)].iter_mut().zip(*counts) {
            *sum += count;
        }
    }
    sums
}

/// The class of which each place takes the fewest bits.
fn nearest(places: &[&[u32]], classes: &[Counts]) -> Vec<u8> {
    // Of a symbol that a class has not seen, a bit more than of one seen once.
    let bits = |counts: &Counts| -> Vec<u32> {
        let all: u32 = counts.iter().sum();
        let of = |count: &u32| (log2(2 * all + 2) - log2(2 * count + 1)) >> 8;
        counts.iter().map(|count| of(count) as u32).collect()
    };
    let bits: Vec<Vec<u32>> = classes.iter().map(bits).collect();
    let cost = |counts: &[u32], bits: &[u32]| -> u64 {
        counts.iter().zip(bits).map(|(count, bits)| u64::from(*count) * u64::from(*bits)).sum()
    };
    // One that has no symbols would take all for nothing.
    let has_symbols = |class: usize| classes[class].iter().any(|count| *count > 0);
    let there: Vec<usize> = (0..classes.len()).filter(|class| has_symbols(*class)).collect();
    let best = |counts: &&[u32]| {
        let costs = there.iter().map(|class| (*class, cost(counts, &bits[*class])));
        costs.min_by_key(|(_, cost)| *cost).map_or(0, |(class, _)| class as u8)
    };
    places.iter().map(best).collect()
}

/// Numbers classes anew, from 0, those that a place has.
fn close_gaps(of_place: &mut [u8]) {
    let mut used: Vec<u8> = of_place.to_vec();
    used.sort_unstable();
    used.dedup();
    for class in of_place {
        *class = used.partition_point(|other| other < class) as u8;
    }
}

/// Puts classes together, two by two, as long as that takes fewer bits, tables included.
fn merge(mut classes: Vec<Counts>, of_place: &mut [u8]) -> Vec<Counts> {
    let of_one = |counts: &Counts| cost(counts.iter().copied());
    let mut costs: Vec<u64> = classes.iter().map(of_one).collect();
    // Of each class with each of those before it.
    let of_pair = |classes: &[Counts], a: usize, b: usize| {
        cost(classes[a].iter().zip(&classes[b]).map(|(a, b)| a + b))
    };
    let mut pairs: Vec<Vec<u64>> =
        (0..classes.len()).map(|b| (0..b).map(|a| of_pair(&classes, a, b)).collect()).collect();
    loop {
        let saved = |a: usize, b: usize| (costs[a] + costs[b]) as i64 - pairs[b][a] as i64;
        let all = (0..classes.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        let best = all.map(|(a, b)| (saved(a, b), a, b)).max_by_key(|(saved, ..)| *saved);
        let Some((_, a, b)) = best.filter(|(saved, ..)| *saved > 0) else { return classes };
        let taken = classes.remove(b);
        costs.remove(b);
        pairs.remove(b);
        pairs.iter_mut().skip(b).for_each(|row| {
            row.remove(b);
        });
        classes[a].iter_mut().zip(taken).for_each(|(own, taken)| *own += taken);
        costs[a] = of_one(&classes[a]);
        for other in (0..classes.len()).filter(|other| *other != a) {
            let (low, high) = (a.min(other), a.max(other));
            pairs[high][low] = of_pair(&classes, low, high);
        }
        for class in of_place.iter_mut() {
            *class = match usize::from(*class) {
                own if own == b => a as u8,
                own if own > b => *class - 1,
                _ => *class,
            };
        }
    }
}
