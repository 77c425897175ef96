//! The allocator of the programs: the system's, with the kernel advised to back large blocks with
//! huge pages.
//!
//! Every product of a model has a new block for its result, hundreds of megabytes of them a layer, and
//! the kernel maps each page when it is first written: half a million times a pass of 2048 tokens in
//! pages of 4 KiB, five hundred times less often in pages of 2 MiB (madvise(2), MADV_HUGEPAGE; systems
//! where that is switched off ignore it).

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with huge pages for large blocks.
pub struct HugePages;

// SAFETY: every block is the system allocator's, unchanged; advice says nothing about what is in it.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, here and below.
        advised(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        advised(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        advised(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

/// The block; its whole huge pages have the advice.
fn advised(block: *mut u8, size: usize) -> *mut u8 {
    #[cfg(target_os = "linux")]
    advise(block, size);
    #[cfg(not(target_os = "linux"))]
    let _ = size;
    block
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn advise(block: *mut u8, size: usize) {
    /// Blocks below this are too short for the pages to pay.
    const LEAST: usize = 4 << 20;
    /// Bytes of a huge page.
    const PAGE: usize = 2 << 20;
    if size >= LEAST && !block.is_null() {
        let skipped = block.align_offset(PAGE);
        let whole = size.saturating_sub(skipped) / PAGE * PAGE;
        // SAFETY: [skipped, skipped + whole) is inside the block, and the advice changes no contents.
        let pages = unsafe { block.add(skipped) }.cast();
        // It is no more than advice: where it is refused, pages are small.
        let _ = unsafe { rustix::mm::madvise(pages, whole, rustix::mm::Advice::LinuxHugepage) };
    }
}
