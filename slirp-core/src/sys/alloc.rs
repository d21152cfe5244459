//! The allocator of the binaries: large blocks come from the kernel and go back to it.
//!
//! Owns [`LargeAlloc`]. Small blocks are left to the system's allocator.
//!
//! A TCP flow that moves bulk data holds two rings of 256 KiB. Blocks of that size should cost only
//! the pages that were touched and be gone when the flow is dropped. glibc maps such blocks, too,
//! but it raises its threshold when the first one is freed (mallopt(3), `M_MMAP_THRESHOLD`). From
//! then on they come from a heap that hardly ever shrinks.

use core::ptr;
use std::alloc::{GlobalAlloc, Layout, System};

use nix::errno::Errno;

super::calls::system_calls! {
    SYS_mmap if super::calls::WITHOUT_EXEC => "blocks of the size of rings";
    SYS_munmap => "blocks of the size of rings";
    SYS_mremap => "blocks of the size of rings";
    SYS_madvise => "pages that go back to the kernel";
}

/// Blocks of at least this size are mapped: glibc's initial `M_MMAP_THRESHOLD`.
const LARGE: usize = 128 * 1024;

/// Blocks below this size keep to small pages: with transparent huge pages the first byte written
/// to a ring could otherwise make 2 MiB resident. It is the size of a huge page on most machines.
const HUGE_PAGE: usize = 2 * 1024 * 1024;

/// The alignment that every mapping has: the smallest page of any machine that Linux runs on.
const PAGE: usize = 4096;

/// A global allocator that maps each block of 128 KiB or more by itself (mmap(2)).
///
/// Opt in with `#[global_allocator] static ALLOCATOR: LargeAlloc = LargeAlloc;`. Each large block
/// may cost one of the process's mappings (`vm.max_map_count`, 65,530 by default); neighbours
/// share one.
#[derive(Clone, Copy, Debug, Default)]
pub struct LargeAlloc;

const fn is_mapped(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE
}

// SAFETY: every block is served by one of two allocators, and `is_mapped`, which depends on the
// layout alone, finds the same one again for each later call. A mapping of its own is aligned to
// PAGE, no shorter than asked for, zeroed, and not shared (mmap(2)).
unsafe impl GlobalAlloc for LargeAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) {
            map(layout.size())
        } else {
            // SAFETY: the caller's promise about the layout is handed on.
            unsafe { System.alloc(layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) {
            map(layout.size())
        } else {
            // SAFETY: the caller's promise about the layout is handed on.
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_mapped(layout) {
            // SAFETY: the block came from `map` with this size, and the caller gives it up.
            unsafe { unmap(block, layout.size()) }
        } else {
            // SAFETY: the block came from System with this layout.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size`, rounded up to the alignment, fits isize.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (is_mapped(layout), is_mapped(new_layout)) {
            // SAFETY: the block came from `map` with the old size, and the caller gives it up.
            (true, true) => unsafe { remap(block, layout.size(), new_size) },
            // SAFETY: the block came from System with this layout.
            (false, false) => unsafe { System.realloc(block, layout, new_size) },
            (true, false) | (false, true) => {
                // SAFETY: the layouts are valid, both blocks hold the shorter of the two lengths
                // and cannot overlap, and the old one is given up only when there is a new one.
                unsafe {
                    let moved = self.alloc(new_layout);
                    if !moved.is_null() {
                        ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

fn map(size: usize) -> *mut u8 {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing
    // that exists.
    let block = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if block == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    if size < HUGE_PAGE {
        // SAFETY: it only advises on the mapping just made; a kernel without huge pages refuses,
        // and then there is nothing to advise on.
        let _refused = unsafe { libc::madvise(block, size, libc::MADV_NOHUGEPAGE) };
    }
    block.cast()
}

/// # Safety
/// `block` came from [`map`] or [`remap`] with `size`, and it is no longer used.
unsafe fn unmap(block: *mut u8, size: usize) {
    // SAFETY: as promised by the caller; whole pages belong to this block alone.
    let done = unsafe { libc::munmap(block.cast(), size) };
    if done != 0 {
        debug_assert_eq!(Errno::last(), Errno::ENOMEM);
        // Unmapping would have split a mapping, and there is no room for another one. At least the
        // pages go back; the address range is lost. SAFETY: as above.
        let _kept = unsafe { libc::madvise(block.cast(), size, libc::MADV_DONTNEED) };
    }
}

/// # Safety
/// `block` came from [`map`] or [`remap`] with `old_size`, and the caller uses only the result
/// unless that is null.
unsafe fn remap(block: *mut u8, old_size: usize, new_size: usize) -> *mut u8 {
    // SAFETY: as promised by the caller. Both lengths are rounded up to whole pages, which belong
    // to this block alone; on failure the old mapping stays as it was (mremap(2)).
    let moved = unsafe { libc::mremap(block.cast(), old_size, new_size, libc::MREMAP_MAYMOVE) };
    if moved == libc::MAP_FAILED { ptr::null_mut() } else { moved.cast() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    fn pattern(at: usize) -> u8 {
        u8::try_from(at / 251 % 256).unwrap()
    }

    /// Fills `len` bytes so that each page differs.
    unsafe fn fill(block: *mut u8, len: usize) {
        for at in 0..len {
            // SAFETY: the caller's block is at least `len` bytes long.
            unsafe { block.add(at).write(pattern(at)) };
        }
    }

    unsafe fn is_filled(block: *const u8, len: usize) -> bool {
        // SAFETY: the caller's block is at least `len` bytes long and was filled.
        (0..len).all(|at| unsafe { block.add(at).read() } == pattern(at))
    }

    #[test]
    fn zeroed_blocks_are_zero_and_aligned_on_both_sides_of_the_threshold() {
        for size in [1, 4096, LARGE - 1, LARGE, LARGE + 1, 256 * 1024, 3 * HUGE_PAGE] {
            for align in [1, 8, 64, 4096, 65_536] {
                let layout = layout(size, align);
                // SAFETY: the size is not zero; the block is used within its length and given back
                // once with the same layout.
                unsafe {
                    let block = LargeAlloc.alloc_zeroed(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    assert!(std::slice::from_raw_parts(block, size).iter().all(|&byte| byte == 0));
                    fill(block, size);
                    assert!(is_filled(block, size));
                    LargeAlloc.dealloc(block, layout);
                }
            }
        }
    }

    #[test]
    fn content_survives_growing_and_shrinking_across_the_threshold() {
        let sizes = [1000, LARGE, 10 * LARGE, LARGE + 5, LARGE - 1, 1, LARGE + 1, 2 * HUGE_PAGE, 9];
        for align in [1, 16, 4096, 8192] {
            let mut current = layout(sizes[0], align);
            // SAFETY: sizes are not zero; each block is used within its length and only until it
            // is given up.
            unsafe {
                let mut block = LargeAlloc.alloc(current);
                fill(block, current.size());
                for size in sizes {
                    block = LargeAlloc.realloc(block, current, size);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    assert!(is_filled(block, current.size().min(size)), "{current:?} to {size}");
                    current = layout(size, align);
                    fill(block, size);
                }
                LargeAlloc.dealloc(block, current);
            }
        }
    }

    #[test]
    fn untouched_pages_of_a_large_block_are_not_resident() {
        let layout = layout(256 * 1024, 1);
        // SAFETY: the block is used within its length and given back once; mincore(2) writes one
        // byte for each page of it.
        unsafe {
            let block = LargeAlloc.alloc(layout);
            block.write(1);
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap();
            let mut resident = vec![0_u8; layout.size().div_ceil(page)];
            assert_eq!(libc::mincore(block.cast(), layout.size(), resident.as_mut_ptr()), 0);
            assert_eq!(resident.iter().filter(|&&page| page & 1 == 1).count(), 1);
            LargeAlloc.dealloc(block, layout);
        }
    }
}
