//! Allocates results without clearing them, and lets threads write disjoint parts.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A vector of `len` values that `write` fills, without clearing it first: that would take longer than computing many
/// layers.
///
/// # Safety
/// `write` must write every value.
pub(crate) unsafe fn written(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut out = Box::new_uninit_slice(len);
    write(&mut out);
    // SAFETY: the caller guarantees that they are written.
    unsafe { out.assume_init() }.into_vec()
}

/// A slice that several threads write to, each in its own part.
#[derive(Clone, Copy)]
pub(crate) struct SharedOutput<'a, T = f32> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [MaybeUninit<T>]>,
}

// SAFETY: it gives out addresses alone, and what is done with those is unsafe: whoever does it guarantees that no other thread
// touches the same part.
unsafe impl<T: Send> Send for SharedOutput<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedOutput<'_, T> {}

impl<'a, T: Copy> SharedOutput<'a, T> {
    /// Wraps uninitialized values, to be written before they are read.
    pub(crate) fn new(out: &'a mut [MaybeUninit<T>]) -> Self {
        Self { start: out.as_mut_ptr().cast(), len: out.len(), lifetime: PhantomData }
    }

    /// Wraps existing values.
    pub(crate) fn of_values(out: &'a mut [T]) -> Self {
        Self { start: out.as_mut_ptr(), len: out.len(), lifetime: PhantomData }
    }

    /// The address of the value at `offset`.
    pub(crate) fn at(self, offset: usize) -> *mut T {
        assert!(offset <= self.len, "an address {offset} in a result of {} values", self.len);
        // SAFETY: it lies within the slice, or just behind it.
        unsafe { self.start.add(offset) }
    }

    /// The `len` values from `offset` on.
    ///
    /// # Safety
    /// They have been written, and nothing else accesses them during this borrow.
    pub(crate) unsafe fn part(self, offset: usize, len: usize) -> &'a mut [T] {
        assert!(len <= self.len && offset <= self.len - len, "values outside of a result of {}", self.len);
        // SAFETY: they lie within the slice, and the caller guarantees the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }

    /// Writes values from `offset` on.
    ///
    /// # Safety
    /// Nothing else accesses these places meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(self, offset: usize, values: &[T]) {
        let len = values.len();
        assert!(len <= self.len && offset <= self.len - len, "values outside of a result of {}", self.len);
        // SAFETY: they lie within the slice, and the caller guarantees that nobody borrows them.
        unsafe { self.start.add(offset).copy_from_nonoverlapping(values.as_ptr(), len) };
    }
}
