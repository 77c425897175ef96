//! Floats of a few bits: FP8 and FP4.

use crate::lanes::TWO_23;

/// A float of a sign and a few bits of exponent and mantissa, with subnormal numbers.
#[derive(Clone, Copy)]
pub(super) struct SmallFloat {
    exponent: u32,
    mantissa: u32,
    /// What the format takes for infinities and NaN lies beyond.
    pub largest: f32,
}

impl SmallFloat {
    pub const E4M3: Self = Self { exponent: 4, mantissa: 3, largest: 448.0 };
    pub const E5M2: Self = Self { exponent: 5, mantissa: 2, largest: 57344.0 };
    pub const E2M1: Self = Self { exponent: 2, mantissa: 1, largest: 6.0 };

    #[inline(always)]
    const fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    /// The value of a code; 0 of one beyond the largest number, which no writer writes.
    fn value(self, code: u8) -> f32 {
        let Self { exponent, mantissa, largest } = self;
        let size = u32::from(code) & ((1 << (exponent + mantissa)) - 1);
        let (power, fraction) = ((size >> mantissa) as i32, size & ((1 << mantissa) - 1));
        let whole = if power > 0 { fraction + (1 << mantissa) } else { fraction };
        let scale = 2f32.powi(power.max(1) - self.bias() - mantissa as i32);
        let magnitude = whole as f32 * scale;
        let magnitude = if magnitude > largest { 0.0 } else { magnitude };
        if code >> (exponent + mantissa) == 1 { -magnitude } else { magnitude }
    }

    /// The values of all codes.
    pub fn levels(self) -> Vec<f32> {
        (0..1u32 << (1 + self.exponent + self.mantissa))
            .map(|code| self.value(code as u8))
            .collect()
    }

    /// The code of the nearest one, ties to even; what is too large becomes the largest.
    #[inline(always)]
    pub fn nearest(self, value: f32) -> u8 {
        let (bias, mantissa) = (self.bias(), self.mantissa);
        let magnitude = value.abs().min(self.largest);
        // f32 has 23 bits of mantissa: adding half of the last kept bit rounds, and the carry is
        // right.
        let dropped = 23 - mantissa;
        let bits = magnitude.to_bits();
        let rounded = bits + ((1 << (dropped - 1)) - 1) + (bits >> dropped & 1);
        let normal = (rounded >> dropped).wrapping_sub(((127 - bias) << mantissa) as u32);
        // Below the smallest normal number the steps are even.
        let step = f32::from_bits(((127 + bias - 1 + mantissa as i32) as u32) << 23);
        // 2^23 rounds, and leaves a whole number in the low bits.
        let subnormal = (magnitude * step + TWO_23).to_bits() & 0x7f_ffff;
        let smallest = f32::from_bits(((127 + 1 - bias) as u32) << 23);
        let code = if magnitude < smallest { subnormal } else { normal };
        (code | (value.to_bits() >> 31) << (self.exponent + mantissa)) as u8
    }

    /// Of a code without a sign, without a table.
    #[inline(always)]
    pub fn magnitude(self, code: u8) -> f32 {
        let (bias, mantissa) = (self.bias(), self.mantissa);
        let normal = (u32::from(code) << (23 - mantissa)) + (((127 - bias) as u32) << 23);
        let step = f32::from_bits(((127 + 1 - bias - mantissa as i32) as u32) << 23);
        let size =
            if code >> mantissa == 0 { f32::from(code) * step } else { f32::from_bits(normal) };
        if size > self.largest { 0.0 } else { size }
    }

    /// The power of two that the largest number is of.
    #[inline(always)]
    pub fn largest_power(self) -> i32 {
        (self.largest.to_bits() >> 23) as i32 - 127
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::scheme::levels::Levels;

    fn table(levels: Levels, bits: u8) -> &'static [f32] {
        levels.set(bits).points.table()
    }

    #[test]
    fn small_floats_are_those_of_the_formats() {
        // OCP 8-bit floating point specification, table of values.
        for (code, e4m3, e5m2) in [
            (0x00, 0.0, 0.0),
            (0x01, 2f32.powi(-9), 2f32.powi(-16)),
            (0x07, 7.0 * 2f32.powi(-9), 1.75 * 2f32.powi(-14)),
            (0x08, 2f32.powi(-6), 2f32.powi(-13)),
            (0x38, 1.0, 0.5),
            (0x7b, 352.0, 57344.0),
            (0x7e, 448.0, 0.0),
            (0xc0, -2.0, -2.0),
        ] {
            assert_eq!(table(Levels::E4m3, 8)[code], e4m3, "{code:#x}");
            assert_eq!(table(Levels::E5m2, 8)[code], e5m2, "{code:#x}");
        }
        // OCP Microscaling Formats specification 1.0, section 5.3.3.
        let positive = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let negative = positive.map(|x: f32| -x);
        assert_eq!(table(Levels::E2m1, 4), [positive, negative].concat());
    }

    /// Every float between two neighbours goes to the nearer one, and a tie to the even code.
    #[test]
    fn values_become_the_nearest_small_float() {
        for (levels, bits, format, finite) in [
            (Levels::E4m3, 8, SmallFloat::E4M3, 0x7e),
            (Levels::E5m2, 8, SmallFloat::E5M2, 0x7b),
            (Levels::E2m1, 4, SmallFloat::E2M1, 0x7),
        ] {
            let table = table(levels, bits);
            for code in 0..=finite {
                let value = table[usize::from(code)];
                assert_eq!(format.nearest(value), code);
                assert_eq!(format.nearest(-value), code | 1 << (bits - 1));
                assert_eq!(format.magnitude(code), value);
                if code < finite {
                    let middle = (value + table[usize::from(code) + 1]) / 2.0;
                    let even = code + code % 2;
                    assert_eq!(format.nearest(middle), even, "{middle}");
                    assert_eq!(format.nearest(middle.next_down()), code);
                    assert_eq!(format.nearest(middle.next_up()), code + 1);
                }
            }
            assert_eq!(format.nearest(1e9), finite);
            assert_eq!(format.nearest(f32::MIN_POSITIVE / 8.0), 0);
        }
    }
}
