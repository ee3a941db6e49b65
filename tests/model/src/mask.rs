//! Small sets of nodes and of entities.

/// A set: bit `n` for node `n`, or for entity `n`.
pub type Mask = u8;

/// How many nodes there can be.
pub const NODES: usize = 3;

pub fn bit(n: usize) -> Mask {
    1 << n
}

pub fn has(mask: Mask, n: usize) -> bool {
    mask & bit(n) != 0
}

/// Members of a set of nodes, lowest first.
pub fn nodes(mask: Mask) -> impl Iterator<Item = usize> {
    (0..NODES).filter(move |n| has(mask, *n))
}

/// The lowest member alone.
pub fn lowest(mask: Mask) -> Mask {
    mask & mask.wrapping_neg()
}
