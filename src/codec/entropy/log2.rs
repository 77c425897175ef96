//! Logarithms in whole numbers, so that what is chosen by them is the same on every machine.

/// Bits behind the point.
pub const FRACTION: u32 = 16;
const STEPS: usize = 256;

/// log₂(1 + i / STEPS) · 2^FRACTION.
static OF_FRACTION: [u32; STEPS + 1] = {
    let mut table = [0; STEPS + 1];
    let mut index = 0;
    while index < STEPS {
        // Squaring a number doubles its logarithm: bit by bit.
        let mut x = ((STEPS + index) as u64) << (30 - STEPS.trailing_zeros());
        let (mut bit, mut log) = (FRACTION + 2, 0u32);
        while bit > 0 {
            bit -= 1;
            x = (x * x) >> 30;
            if x >= 2 << 30 {
                x >>= 1;
                log |= 1 << bit;
            }
        }
        table[index] = (log + 2) >> 2;
        index += 1;
    }
    table[STEPS] = 1 << FRACTION;
    table
};

/// log₂(x) · 2^FRACTION, to some 10⁻⁵; 0 of 0.
pub fn log2(x: u32) -> u64 {
    let Some(whole) = x.checked_ilog2() else { return 0 };
    // Behind the leading bit: eight bits of index, and sixteen between two entries.
    let fraction = ((u64::from(x) << (32 - whole)) as u32) >> 8;
    let (index, between) = ((fraction >> 16) as usize, u64::from(fraction & 0xffff));
    let (low, high) = (u64::from(OF_FRACTION[index]), u64::from(OF_FRACTION[index + 1]));
    (u64::from(whole) << FRACTION) + low + (((high - low) * between) >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_floats() {
        let some = (1..5000).chain((1..1000).map(|i| i * 4_294_967)).chain([u32::MAX]);
        for x in some {
            let found = log2(x) as f64 / f64::from(1 << FRACTION);
            assert!((found - f64::from(x).log2()).abs() < 3e-5, "{x}: {found}");
        }
        assert_eq!((log2(0), log2(1), log2(1 << 31)), (0, 0, 31 << FRACTION));
    }
}
