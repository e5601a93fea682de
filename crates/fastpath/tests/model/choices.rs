//! Any bytes, read as the choices that make up a case; when they are used up every choice is the first one.

use std::ops::RangeInclusive;

use arbitrary::Unstructured;

pub struct Choices<'a>(Unstructured<'a>);

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        self.0.int_in_range(range).unwrap_or_default()
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.within(1..=n) == n
    }

    pub fn flag(&mut self) -> bool {
        self.one_in(2)
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.within(0..=from.len() - 1)].clone()
    }

    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn word(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn long(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// At most `most` of the bytes that are left, as they are.
    pub fn raw(&mut self, most: usize) -> Vec<u8> {
        let len = most.min(self.0.len());
        self.0.bytes(len).map(<[u8]>::to_vec).unwrap_or_default()
    }

    /// Contents that cost few choices, however many they are.
    pub fn contents(&mut self, len: usize) -> Vec<u8> {
        let mut state = u32::from(self.word()) | 0x1_0000;
        let mut step = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| step()).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
