//! The Merkle tree of RFC 6962, section 2.1, with SHA-256: hashes, a frontier that only grows, and
//! inclusion and consistency proofs. A *node* is a perfect subtree, named by its height (0 is a
//! leaf) and its index among the nodes of that height; whoever makes a proof is handed a way to
//! read nodes, so that tiles, memory and tests serve alike.

use aws_lc_rs::digest::{self, Context, SHA256};
use castra_core::Digest;

/// A proof has at most one hash per level of a tree of 2^64 leaves.
pub const PROOF_HASHES_MAX: usize = 64;

/// Why a proof does not hold. Deliberately without detail: a proof is good or it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} proof does not lead from the hashes that it starts with to the signed root")]
pub struct BadProof(pub(crate) &'static str);

/// Why a proof could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProofError<E> {
    /// The leaf or the smaller tree lies outside the tree.
    #[error("{what} {position} is not in a tree of {size} entries")]
    OutOfRange {
        /// "entry" or "tree size".
        what: &'static str,
        /// Which one was asked for.
        position: u64,
        /// Size of the tree.
        size: u64,
    },
    /// A node could not be read.
    #[error(transparent)]
    Node(#[from] E),
}

/// Hash of an entry (RFC 6962, section 2.1: `SHA-256(0x00 || entry)`).
pub fn leaf_hash(entry: &[u8]) -> Digest {
    hash(&[&[0], entry])
}

/// Hash of two subtrees (RFC 6962, section 2.1: `SHA-256(0x01 || left || right)`).
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut joined = [1; 65];
    if let Some((l, r)) = joined.get_mut(1..).and_then(|both| both.split_at_mut_checked(32)) {
        l.copy_from_slice(&left.0);
        r.copy_from_slice(&right.0);
    }
    taken(&digest::digest(&SHA256, &joined))
}

/// Root of the tree without leaves: the hash of nothing.
pub fn empty_root() -> Digest {
    hash(&[])
}

pub(crate) fn hash(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    taken(&context.finish())
}

fn taken(hash: &digest::Digest) -> Digest {
    let mut out = [0; 32];
    // SHA-256 gives 32 bytes, so that all of them are taken.
    for (slot, byte) in out.iter_mut().zip(hash.as_ref()) {
        *slot = *byte;
    }
    Digest(out)
}

/// The right edge of a tree: the roots of the perfect subtrees that its leaves make up, largest
/// first, one for each bit that is set in the size. All that appending needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Digest>,
}

impl Frontier {
    /// The frontier of the tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up a tree where it was left: `nodes` as [`Self::nodes`] gave them for `size`.
    pub fn from_nodes(size: u64, nodes: Vec<Digest>) -> Option<Self> {
        (nodes.len() == size.count_ones() as usize).then_some(Self { size, nodes })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, largest first.
    pub fn nodes(&self) -> &[Digest] {
        &self.nodes
    }

    /// Adds a leaf.
    pub fn append(&mut self, leaf: Digest) {
        self.append_seeing(leaf, |_, _| ());
    }

    /// Adds a leaf and shows every node that it completes, with its height, lowest first; the
    /// leaf itself (height 0) comes first of all.
    pub fn append_seeing(&mut self, leaf: Digest, mut see: impl FnMut(u32, Digest)) {
        let mut node = leaf;
        see(0, node);
        for height in 0..self.size.trailing_ones() {
            let Some(left) = self.nodes.pop() else { break };
            node = node_hash(&left, &node);
            see(height + 1, node);
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// Root of the tree.
    pub fn root(&self) -> Digest {
        let mut nodes = self.nodes.iter().rev();
        match nodes.next() {
            None => empty_root(),
            Some(last) => nodes.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

/// Root of a perfect subtree from its leaves, whose number is a power of two.
pub fn perfect_root(leaves: &[Digest]) -> Option<Digest> {
    if !leaves.len().is_power_of_two() {
        return None;
    }
    let mut row = leaves.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).filter_map(|pair| Some(node_hash(pair.first()?, pair.last()?))).collect();
    }
    row.first().copied()
}

/// Root of the tree's first `size` leaves.
///
/// `node(height, index)` gives the root of the perfect subtree over the leaves
/// `index << height .. (index + 1) << height`; only complete ones are asked for.
pub fn root_at<E>(size: u64, mut node: impl FnMut(u32, u64) -> Result<Digest, E>) -> Result<Digest, E> {
    range_root(0, size, &mut node)
}

/// Proof that the leaf at `index` is in the tree of `size` leaves: RFC 6962, section 2.1.1, from
/// the leaf's sibling up. For `node` see [`root_at`].
///
/// # Errors
/// When `index` is not below `size`, or a node cannot be read.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    mut node: impl FnMut(u32, u64) -> Result<Digest, E>,
) -> Result<Vec<Digest>, ProofError<E>> {
    if index >= size {
        return Err(ProofError::OutOfRange { what: "entry", position: index, size });
    }
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(range_root(middle, end, &mut node)?);
            end = middle;
        } else {
            proof.push(range_root(start, middle, &mut node)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Checks an inclusion proof (RFC 9162, section 2.1.3.2, which spells out RFC 6962).
///
/// # Errors
/// [`BadProof`] when it does not lead from `leaf` to `root`.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), BadProof> {
    const BAD: BadProof = BadProof("inclusion");
    if index >= size || proof.len() > PROOF_HASHES_MAX {
        return Err(BAD);
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(BAD);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(BAD) }
}

/// Proof that the tree of `old` leaves is the beginning of the tree of `new` leaves: RFC 6962,
/// section 2.1.2. For `node` see [`root_at`].
///
/// # Errors
/// When `old` is 0 or above `new`, or a node cannot be read.
pub fn consistency_proof<E>(
    old: u64,
    new: u64,
    mut node: impl FnMut(u32, u64) -> Result<Digest, E>,
) -> Result<Vec<Digest>, ProofError<E>> {
    if old == 0 || old > new {
        return Err(ProofError::OutOfRange { what: "tree size", position: old, size: new });
    }
    let (mut start, mut end, mut proof) = (0, new, Vec::new());
    // Whether the old tree's edge is still the whole of what is left, so that its root is known.
    let mut whole = true;
    while end != old {
        let middle = start + split(end - start);
        if old <= middle {
            proof.push(range_root(middle, end, &mut node)?);
            end = middle;
        } else {
            proof.push(range_root(start, middle, &mut node)?);
            start = middle;
            whole = false;
        }
    }
    if !whole {
        proof.push(range_root(start, end, &mut node)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks a consistency proof (RFC 9162, section 2.1.4.2).
///
/// # Errors
/// [`BadProof`] when it does not join the two roots.
pub fn verify_consistency(
    old: u64,
    old_root: &Digest,
    new: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), BadProof> {
    const BAD: BadProof = BadProof("consistency");
    if old == 0 || old > new || proof.len() > PROOF_HASHES_MAX {
        return Err(BAD);
    }
    if old == new {
        return if proof.is_empty() && old_root == new_root { Ok(()) } else { Err(BAD) };
    }
    let (mut at, mut last) = (old - 1, new - 1);
    let up = at.trailing_ones();
    at = at.checked_shr(up).unwrap_or(0);
    last = last.checked_shr(up).unwrap_or(0);
    // An old tree that is perfect is itself the first node, and the proof leaves it out.
    let (first, rest) = match proof.split_first() {
        None => return Err(BAD),
        Some(_) if old.is_power_of_two() => (old_root, proof),
        Some(split) => split,
    };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(BAD);
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last == 0 && old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(BAD) }
}

/// The largest power of two below `n`, for `n` of at least 2 (RFC 6962 calls it k).
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Root over the leaves `start..end`, where `start` is a multiple of the size of the largest
/// perfect subtree within; that holds for every range that a split gives.
fn range_root<E>(
    start: u64,
    end: u64,
    node: &mut impl FnMut(u32, u64) -> Result<Digest, E>,
) -> Result<Digest, E> {
    let (mut at, mut roots) = (start, Vec::new());
    while at < end {
        let height = (end - at).ilog2();
        roots.push(node(height, at >> height)?);
        at += 1 << height;
    }
    let mut roots = roots.iter().rev();
    Ok(match roots.next() {
        None => empty_root(),
        Some(last) => roots.fold(*last, |right, left| node_hash(left, &right)),
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// RFC 6962's own definition of the tree, word for word.
    fn naive(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let (left, right) = many.split_at(split(many.len() as u64) as usize);
                node_hash(&naive(left), &naive(right))
            }
        }
    }

    fn leaves(n: u64) -> Vec<Digest> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn reader(leaves: &[Digest]) -> impl FnMut(u32, u64) -> Result<Digest, Infallible> + '_ {
        |height, index| {
            let start = (index << height) as usize;
            Ok(perfect_root(&leaves[start..start + (1 << height)]).expect("perfect"))
        }
    }

    #[test]
    fn known_hashes() {
        // SHA-256 of nothing, and of a single 0x00 (RFC 6962 trees of zero and one empty leaf).
        assert_eq!(empty_root().to_hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(
            leaf_hash(b"").to_hex(),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
    }

    #[test]
    fn every_pair_of_small_trees_agrees_with_the_definition() {
        let all = leaves(70);
        let mut frontier = Frontier::new();
        for size in 0..=70_u64 {
            let part = &all[..size as usize];
            let root = naive(part);
            assert_eq!(frontier.root(), root);
            assert_eq!(root_at(size, reader(part)), Ok(root));
            assert_eq!(Frontier::from_nodes(size, frontier.nodes().to_vec()), Some(frontier.clone()));
            for index in 0..size {
                let proof = inclusion_proof(index, size, reader(part)).expect("proof");
                assert_eq!(verify_inclusion(&all[index as usize], index, size, &proof, &root), Ok(()));
            }
            for old in 1..=size {
                let proof = consistency_proof(old, size, reader(part)).expect("proof");
                let old_root = naive(&all[..old as usize]);
                assert_eq!(verify_consistency(old, &old_root, size, &root, &proof), Ok(()), "{old} {size}");
            }
            if let Some(leaf) = all.get(size as usize) {
                frontier.append(*leaf);
            }
        }
        assert!(inclusion_proof(3, 3, reader(&all)).is_err());
        assert!(consistency_proof(0, 3, reader(&all)).is_err());
        assert!(consistency_proof(4, 3, reader(&all)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_changed_proof_does_not_hold(size in 2_u64..400, a in any::<u64>(), b in any::<u64>(), bit in 0_usize..256) {
            let all = leaves(size);
            let root = naive(&all);
            let index = a % size;
            let leaf = all[index as usize];
            let good = inclusion_proof(index, size, reader(&all)).expect("proof");
            prop_assert!(verify_inclusion(&leaf, index, size, &good, &root).is_ok());

            let mut flipped = good.clone();
            let at = (b % good.len() as u64) as usize;
            flipped[at].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_inclusion(&leaf, index, size, &flipped, &root).is_err());
            prop_assert!(verify_inclusion(&leaf, index, size, &good[1..], &root).is_err());
            let longer = [&good[..], &[root]].concat();
            prop_assert!(verify_inclusion(&leaf, index, size, &longer, &root).is_err());
            let elsewhere = b % size;
            if elsewhere != index {
                prop_assert!(verify_inclusion(&leaf, elsewhere, size, &good, &root).is_err());
            }

            let old = 1 + b % (size - 1);
            let old_root = naive(&all[..old as usize]);
            let good = consistency_proof(old, size, reader(&all)).expect("proof");
            prop_assert!(verify_consistency(old, &old_root, size, &root, &good).is_ok());
            prop_assert!(verify_consistency(old, &root, size, &root, &good).is_err());
            prop_assert!(verify_consistency(old, &old_root, size, &root, &good[1..]).is_err());
            let mut flipped = good.clone();
            let at = (a % good.len() as u64) as usize;
            flipped[at].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_consistency(old, &old_root, size, &root, &flipped).is_err());
        }

        #[test]
        fn proofs_of_absurd_trees_end(index in any::<u64>(), size in any::<u64>(), n in 0_usize..70) {
            let proof = leaves(n as u64);
            let any = empty_root();
            prop_assert!(verify_inclusion(&any, index, size, &proof, &any).is_err());
            let _ = verify_consistency(index, &any, size, &any, &proof);
        }
    }
}
