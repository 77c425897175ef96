//! Products by AMX: tiles of 16 rows of 64 bytes, 16 pairs or sums, and an instruction that adds the
//! product of two of them to a third. Four tiles hold the sums of 32 rows by 32, four the operands.
//!
//! The intrinsics are not stable, so instructions stand as the assembler has them.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use tiles::{is_there, multiply, with_tiles};

/// Whether the processor and the system have it.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub fn is_there() -> bool {
    false
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles {
    #![allow(unsafe_code)]

    use super::super::{PADDING, PANEL, Piece};
    use core::arch::asm;
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    use pulp::{Arch, Simd, WithSimd};

    /// Rows of two tiles.
    const ROWS: usize = 2 * PADDING;

    /// Whether the processor has AMX for bf16, and the system lets this process use it.
    pub fn is_there() -> bool {
        const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
        const SYSTEM_SAVES_REGISTERS: u32 = 1 << 27;
        // SAFETY: every x86-64 has the instruction (and newer compilers know).
        #[allow(unused_unsafe)]
        let (leaves, first) = unsafe { (__cpuid(0).eax, __cpuid(1).ecx) };
        if leaves < 7 || first & SYSTEM_SAVES_REGISTERS == 0 {
            return false;
        }
        // SAFETY: as above.
        #[allow(unused_unsafe)]
        let features = unsafe { __cpuid_count(7, 0).edx };
        features & BF16_AND_TILES == BF16_AND_TILES && is_permitted()
    }

    /// Asks the system for room for the tiles, for all threads (Linux's `arch_prctl`, since 5.16).
    fn is_permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const TILE_DATA: u64 = 18;
        let status: i64;
        // SAFETY: the call reads two numbers, and changes no memory of this process.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => status,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") TILE_DATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack)
            );
        }
        status == 0
    }

    /// Palette 1, and of each of eight tiles bytes of a row and rows.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        first_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Runs `f` with eight tiles of 16 rows of 64 bytes on this thread. The caller has checked
    /// [`is_there`].
    pub fn with_tiles(f: impl FnOnce()) {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        row_bytes[..8].fill(64);
        rows[..8].fill(16);
        let shapes = Shapes { palette: 1, first_row: 0, reserved: [0; 14], row_bytes, rows };
        /// Also where `f` panics.
        struct Release;
        impl Drop for Release {
            fn drop(&mut self) {
                // SAFETY: the tiles are in their first state again.
                unsafe { asm!("tilerelease", options(nostack, nomem)) };
            }
        }
        // SAFETY: the processor has AMX; a configuration of 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
        let release = Release;
        f();
        drop(release);
    }

    /// Only within [`with_tiles`].
    pub fn multiply(piece: &Piece, out: &mut [&mut [f32]]) {
        let mut sums = [[0f32; PANEL]; ROWS];
        for (block, out) in out.chunks_mut(ROWS).enumerate() {
            if piece.goes_on {
                Arch::new().dispatch(Begun { piece, out, sums: &mut sums });
            }
            add(piece, &piece.left[block * ROWS * piece.stride..], &mut sums);
            Arch::new().dispatch(Done { piece, out, sums: &sums });
        }
    }

    /// Takes sums from where [`Done`] left them.
    struct Begun<'a, 'b> {
        piece: &'a Piece<'a>,
        out: &'a [&'b mut [f32]],
        sums: &'a mut [[f32; PANEL]; ROWS],
    }

    impl WithSimd for Begun<'_, '_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            for (sums, row) in self.sums.iter_mut().zip(self.out) {
                let row = &row[self.piece.columns_of(row.len())];
                match row.first_chunk() {
                    Some(row) => *sums = *row,
                    None => sums[..row.len()].copy_from_slice(row),
                }
            }
        }
    }

    /// Writes sums times the factor to their place in the product.
    struct Done<'a, 'b> {
        piece: &'a Piece<'a>,
        out: &'a mut [&'b mut [f32]],
        sums: &'a [[f32; PANEL]; ROWS],
    }

    impl WithSimd for Done<'_, '_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let factor = self.piece.factor;
            for (sums, row) in self.sums.iter().zip(self.out) {
                let columns = self.piece.columns_of(row.len());
                let row = &mut row[columns];
                match row.first_chunk_mut::<PANEL>() {
                    Some(row) => {
                        let all = simd.splat_f32s(factor);
                        let sums = S::as_simd_f32s(sums).0;
                        for (value, sum) in S::as_mut_simd_f32s(row).0.iter_mut().zip(sums) {
                            *value = simd.mul_f32s(all, *sum);
                        }
                    }
                    None => {
                        for (value, sum) in row.iter_mut().zip(sums) {
                            *value = factor * sum;
                        }
                    }
                }
            }
        }
    }

    /// Adds the products of 32 rows to sums, or to nothing where they have not begun.
    fn add(piece: &Piece, left: &[u32], sums: &mut [[f32; PANEL]; ROWS]) {
        let depth = piece.depth.next_multiple_of(PADDING);
        let stride = piece.stride;
        assert!(depth > 0 && depth <= piece.panel.len());
        assert!((ROWS - 1) * stride + depth <= left.len());
        let (upper_left, lower_left) = (left.as_ptr(), left[PADDING * stride..].as_ptr());
        let upper = sums.as_mut_ptr();
        // SAFETY: the asserts bound what is read: 32 rows of `depth` pairs, a stride apart, of the
        // left operand, and as many pairs of 32 of the right one; `sums` has 32 rows of 32. Within
        // `with_tiles`, tiles are 16 rows of 64 bytes.
        unsafe {
            asm!(
                "test {begun}, {begun}",
                "jnz 3f",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "jmp 2f",
                "3:",
                "tileloadd tmm0, [{sums} + {row}]",
                "tileloadd tmm1, [{sums} + {row} + 64]",
                "tileloadd tmm2, [{lower_sums} + {row}]",
                "tileloadd tmm3, [{lower_sums} + {row} + 64]",
                "2:",
                "tileloadd tmm4, [{left} + {stride}]",
                "tileloadd tmm6, [{right} + {row}]",
                "tileloadd tmm7, [{right} + {row} + 64]",
                "tileloadd tmm5, [{lower} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {left}, 64",
                "add {lower}, 64",
                "add {right}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 64], tmm1",
                "tilestored [{lower_sums} + {row}], tmm2",
                "tilestored [{lower_sums} + {row} + 64], tmm3",
                begun = in(reg) u64::from(piece.goes_on),
                sums = in(reg) upper,
                lower_sums = in(reg) upper.add(PADDING),
                row = in(reg) 4 * PANEL,
                left = inout(reg) upper_left => _,
                lower = inout(reg) lower_left => _,
                stride = in(reg) 4 * stride,
                right = inout(reg) piece.panel.as_ptr() => _,
                steps = inout(reg) depth / PADDING => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}
