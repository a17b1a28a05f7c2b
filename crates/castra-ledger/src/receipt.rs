//! Receipts: the proof that one entry is in the log, as a file that anybody can check offline, and
//! the short form that answers carry.
//!
//! The file is a C2SP tlog-proof. Its `extra` line holds the entry itself, which the specification
//! allows for "data necessary to reconstruct the record hash"; it counts for nothing until its leaf
//! hash is proven.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use castra_core::Digest;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, hash_line},
    entry::ENTRY_BYTES_MAX,
    merkle::{BadProof, PROOF_HASHES_MAX, leaf_hash, verify_inclusion},
    note::{NOTE_BYTES_MAX, VerifierKey},
    tile::decimal,
};

/// Bytes of a receipt: an entry in base64, a proof, and a checkpoint.
pub const RECEIPT_BYTES_MAX: usize = ENTRY_BYTES_MAX.div_ceil(3) * 4 + 64 * 45 + NOTE_BYTES_MAX + 256;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
const HEADER_BYTES_MAX: usize = 512;

/// What is wrong with a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not the form of a receipt.
    #[error("this is not a receipt: {why}")]
    Malformed {
        /// Which line.
        why: &'static str,
    },
    /// The checkpoint in it does not hold.
    #[error("the receipt's checkpoint does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The proof in it does not hold.
    #[error("the receipt does not prove its entry: {0}")]
    Proof(#[from] BadProof),
}

/// Proof that an entry is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where in the log.
    pub index: u64,
    /// Inclusion proof, from the leaf's sibling up.
    pub proof: Vec<Digest>,
    /// The signed checkpoint that it leads to, word for word.
    pub checkpoint: String,
    /// The entry.
    pub entry: Vec<u8>,
}

impl Receipt {
    /// Reads a receipt file. Nothing in it is proven until [`Self::verify`] says so.
    ///
    /// # Errors
    /// When it is not a tlog-proof that holds an entry.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let bad = |why| ReceiptError::Malformed { why };
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(bad("it holds no checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(bad("it does not begin as a tlog-proof of version 1"));
        }
        let extra =
            lines.next().and_then(|line| line.strip_prefix("extra ")).ok_or(bad("it holds no entry"))?;
        let entry = STANDARD.decode(extra).map_err(|_| bad("its entry is not base64"))?;
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(bad("its entry is too long"));
        }
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or(bad("it has no index line"))?;
        let proof: Option<Vec<_>> = lines.map(hash_line).collect();
        let proof = proof.ok_or(bad("a line of its proof is not a hash"))?;
        if proof.len() > PROOF_HASHES_MAX {
            return Err(bad("its proof is too long"));
        }
        Ok(Self { index, proof, checkpoint: checkpoint.to_owned(), entry })
    }

    /// Checks that one of `keys`, named like the log, signed the checkpoint, and that the entry is
    /// in the log that it stands for. Gives the checkpoint.
    ///
    /// # Errors
    /// When the checkpoint or the proof does not hold.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Checkpoint, ReceiptError> {
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), keys)?;
        verify_inclusion(
            &leaf_hash(&self.entry),
            self.index,
            checkpoint.size,
            &self.proof,
            &checkpoint.root,
        )?;
        Ok(checkpoint)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nextra {}\nindex {}", STANDARD.encode(&self.entry), self.index)?;
        for hash in &self.proof {
            writeln!(f, "{}", STANDARD.encode(hash.0))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

/// The short form that answers carry (`Castra-Receipt`): where the record will be and its leaf
/// hash, known before the log is signed. `<origin>;index=<n>;leaf=<base64>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptHeader {
    /// Names the log.
    pub origin: String,
    /// Where in it.
    pub index: u64,
    /// Leaf hash of the entry.
    pub leaf: Digest,
}

impl fmt::Display for ReceiptHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};index={};leaf={}", self.origin, self.index, STANDARD.encode(self.leaf.0))
    }
}

impl FromStr for ReceiptHeader {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        const BAD: ReceiptError =
            ReceiptError::Malformed { why: "expected <origin>;index=<n>;leaf=<base64>" };
        if text.len() > HEADER_BYTES_MAX {
            return Err(BAD);
        }
        let (rest, leaf) = text.rsplit_once(";leaf=").ok_or(BAD)?;
        let (origin, index) = rest.rsplit_once(";index=").ok_or(BAD)?;
        let (index, leaf) = (decimal(index).ok_or(BAD)?, hash_line(leaf).ok_or(BAD)?);
        if origin.is_empty() || origin.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(BAD);
        }
        Ok(Self { origin: origin.to_owned(), index, leaf })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        merkle::{inclusion_proof, perfect_root, root_at},
        note::Signer,
    };

    fn receipt(index: u64, size: u64) -> (Receipt, VerifierKey) {
        let signer = Signer::from_seed("gate.example/log", &[3; 32]).expect("key");
        let entry = |i: u64| format!("{{\"entry\":{i}}}").into_bytes();
        let leaves: Vec<_> = (0..size).map(|i| leaf_hash(&entry(i))).collect();
        let node = |height: u32, index: u64| {
            let start = (index << height) as usize;
            Ok::<_, Infallible>(perfect_root(&leaves[start..start + (1 << height)]).expect("perfect"))
        };
        let Ok(root) = root_at(size, node);
        let head = Checkpoint { origin: signer.name().to_owned(), size, root, extensions: vec![] };
        let receipt = Receipt {
            index,
            proof: inclusion_proof(index, size, node).expect("proof"),
            checkpoint: head.sign(&signer).expect("signs"),
            entry: entry(index),
        };
        (receipt, signer.verifier_key().clone())
    }

    #[test]
    fn a_receipt_is_a_tlog_proof() {
        let (receipt, key) = receipt(2, 5);
        let text = receipt.to_string();
        let lines: Vec<_> = text.split('\n').collect();
        assert_eq!(lines[0], "c2sp.org/tlog-proof@v1");
        assert_eq!(lines[1], "extra eyJlbnRyeSI6Mn0=");
        assert_eq!(lines[2], "index 2");
        assert_eq!((lines[6], lines[7], lines[8]), ("", "gate.example/log", "5"));
        assert_eq!(Receipt::parse(text.as_bytes()), Ok(receipt.clone()));
        assert_eq!(receipt.verify(std::slice::from_ref(&key)).expect("holds").size, 5);
        let other = Receipt { entry: b"{}".to_vec(), ..receipt.clone() };
        assert!(matches!(other.verify(std::slice::from_ref(&key)), Err(ReceiptError::Proof(_))));
        assert!(matches!(receipt.verify(&[]), Err(ReceiptError::Checkpoint(_))));
    }

    #[test]
    fn malformed_receipts_are_refused() {
        let good = receipt(2, 5).0.to_string();
        for bad in [
            "".to_owned(),
            good.replace("@v1", "@v2"),
            good.replace("extra eyJlbnRyeSI6Mn0=\n", ""),
            good.replace("extra e", "extra  e"),
            good.replace("index 2", "index 02"),
            good.replace("index 2\n", "index 2\nnot a hash\n"),
            good.replace("index 2\n", &format!("index 2\n{}", format!("{}\n", lines_hash()).repeat(62))),
            good.replace("\n\n", "\n"),
            good.replace('\n', "\r\n"),
            format!("{good}{}", "x".repeat(300_000)),
        ] {
            assert!(Receipt::parse(bad.as_bytes()).is_err(), "{bad:.200}");
        }
    }

    fn lines_hash() -> String {
        STANDARD.encode([0; 32])
    }

    #[test]
    fn headers_go_both_ways() {
        let header = ReceiptHeader { origin: "gate.example/log;a".into(), index: 7, leaf: leaf_hash(b"x") };
        assert_eq!(header.to_string().parse(), Ok(header.clone()));
        let good = header.to_string();
        for bad in [
            "",
            ";index=1;leaf=",
            &good.replace("=7", "=07"),
            &good[1..good.len() - 1],
            &good.replace("gate", "g ate"),
        ] {
            assert!(bad.parse::<ReceiptHeader>().is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_flipped_bit_is_noticed(size in 1_u64..40, at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let (receipt, key) = receipt(size / 2, size);
            let mut bytes = receipt.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let verified = Receipt::parse(&bytes).and_then(|receipt| receipt.verify(&[key]));
            prop_assert!(verified.is_err());
        }
    }
}
