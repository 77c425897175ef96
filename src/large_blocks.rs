//! The allocator of the programs: the system's, told how to treat large blocks.
//!
//! Every product of a model has a new block for its result, hundreds of megabytes of them a layer, and
//! the kernel maps and clears each page when it is first written.
//!
//! - Large blocks are backed with huge pages: half a million pages of 4 KiB in a pass of 2048 tokens are
//!   five hundred times fewer of 2 MiB (madvise(2), `MADV_HUGEPAGE`; systems where that is switched off
//!   ignore it).
//! - Freed ones stay with the process, for the next of their kind. glibc would have every block above
//!   32 MiB mapped anew, and give the end of its heap back as soon as it is free (mallopt(3),
//!   `M_MMAP_THRESHOLD`, `M_TRIM_THRESHOLD`); other systems' allocators go their own way. What stays is
//!   not free to the system: [`give_back`].

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with huge pages for large blocks, which stay with the process.
pub struct LargeBlocks;

// SAFETY: every block is the system allocator's, unchanged; advice says nothing about what is in it.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for LargeBlocks {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, here and below.
        advised(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        advised(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        advised(size, || unsafe { System.realloc(block, layout, size) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

/// Blocks below this are too short for huge pages to pay, bytes.
const LEAST: usize = 4 << 20;

/// What `block` gives, its whole huge pages with the advice.
fn advised(size: usize, block: impl FnOnce() -> *mut u8) -> *mut u8 {
    if size < LEAST {
        return block();
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    keep_freed();
    let block = block();
    #[cfg(target_os = "linux")]
    advise(block, size);
    block
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn keep_freed() {
    /// Bytes of a block from which on it is mapped, and unmapped when it is freed; and of what may be free
    /// at the end of the heap. With a quarter of it a pass of 2048 tokens of a model of 1.5B maps four
    /// times as many pages.
    const KEPT: i32 = 1 << 30;
    /// The largest block that older versions take.
    const OLDER: i32 = 32 << 20;
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: mallopt takes numbers, and its own lock. It gives 0 for what it does not take.
        unsafe {
            if libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT) == 0 {
                libc::mallopt(libc::M_MMAP_THRESHOLD, OLDER);
            }
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    });
}

/// Gives the system what is free, before it is asked how much that is.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: malloc_trim takes a number, and its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn advise(block: *mut u8, size: usize) {
    /// Bytes of a huge page.
    const PAGE: usize = 2 << 20;
    if !block.is_null() {
        let skipped = block.align_offset(PAGE);
        let whole = size.saturating_sub(skipped) / PAGE * PAGE;
        // SAFETY: [skipped, skipped + whole) is inside the block, and the advice changes no contents.
        let pages = unsafe { block.add(skipped) }.cast();
        // It is no more than advice: where it is refused, pages are small.
        let _ = unsafe { rustix::mm::madvise(pages, whole, rustix::mm::Advice::LinuxHugepage) };
    }
}
