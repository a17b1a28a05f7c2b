//! C2SP tlog-checkpoint: a note that states how large a log is and what its root hash is.

use base64::{Engine, engine::general_purpose::STANDARD};
use castra_core::Digest;
use serde::Serialize;

use crate::{
    note::{self, NoteError, Signer, VerifierKey},
    tile::decimal,
};

/// What is wrong with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is not a note that one of the keys signed.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note's text is not a checkpoint.
    #[error("the signed text is not a checkpoint: {why}")]
    Malformed {
        /// Which line.
        why: &'static str,
    },
    /// Another log's key signed it.
    #[error("the checkpoint is of the log {origin:?}, but none of the keys that signed it has this name")]
    ForeignOrigin {
        /// The origin that it states.
        origin: String,
    },
}

/// The head of a log: which log, how many entries, and the root hash over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// Names the log.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root hash of the tree over all entries.
    pub root: Digest,
    /// Further lines, which nobody audits; Castra writes none.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// Opens a signed checkpoint. One of `keys` must have signed it, and its name must be the
    /// checkpoint's origin (tlog-checkpoint, "Signatures"): a key of one log does not speak for
    /// another.
    ///
    /// # Errors
    /// When it is malformed, unsigned, falsely signed, or of another log.
    pub fn open(note: &[u8], keys: &[VerifierKey]) -> Result<Self, CheckpointError> {
        let opened = note::open(note, keys)?;
        let checkpoint = Self::parse(opened.text)?;
        if opened.signers.iter().any(|key| key.name() == checkpoint.origin) {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::ForeignOrigin { origin: checkpoint.origin })
        }
    }

    /// Reads the text of a checkpoint without its signatures; nothing in it is vouched for.
    ///
    /// # Errors
    /// When a line is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let bad = |why| CheckpointError::Malformed { why };
        let mut lines = text.strip_suffix('\n').ok_or(bad("its last line does not end"))?.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(bad("it names no origin"))?;
        let size = lines.next().and_then(decimal).ok_or(bad("its second line is not a tree size"))?;
        let root = lines.next().and_then(hash_line).ok_or(bad("its third line is not a root hash"))?;
        let extensions: Vec<_> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(bad("it has an empty line"));
        }
        Ok(Self { origin: origin.to_owned(), size, root, extensions })
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0));
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Signs the checkpoint.
    ///
    /// # Errors
    /// When the origin or an extension has characters that a note cannot hold.
    pub fn sign(&self, signer: &Signer) -> Result<String, CheckpointError> {
        let text = self.text();
        // What is signed must read back as what was meant: no newline hidden in a field.
        match Self::parse(&text)? == *self {
            true => Ok(note::sign(&text, signer)?),
            false => Err(CheckpointError::Malformed { why: "a line holds a newline" }),
        }
    }
}

/// Reads a line that is one base64 SHA-256 hash, as checkpoints and proofs have them.
pub(crate) fn hash_line(line: &str) -> Option<Digest> {
    // 32 bytes are 44 characters; anything else need not be decoded.
    (line.len() == 44)
        .then(|| STANDARD.decode(line).ok())?
        .and_then(|bytes| Some(Digest(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let root = hash_line("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=").expect("hash");
        Checkpoint {
            origin: "example.com/behind-the-sofa".into(),
            size: 20_852_163,
            root,
            extensions: vec![],
        }
    }

    #[test]
    fn the_example_of_the_specification() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        assert_eq!(Checkpoint::parse(text), Ok(example()));
        assert_eq!(example().text(), text);
    }

    #[test]
    fn malformed_checkpoints_are_refused() {
        let good = example().text();
        assert!(Checkpoint::parse(&format!("{good}more\n")).is_ok_and(|c| c.extensions == ["more"]));
        for bad in [
            "".to_owned(),
            "\n".to_owned(),
            good.trim_end().to_owned(),
            good.replace("example.com/behind-the-sofa", ""),
            good.replace("20852163", "020852163"),
            good.replace("20852163", "-1"),
            good.replace("20852163", "+1"),
            good.replace("20852163", "99999999999999999999"),
            good.replace("q2I=", "q2I"),
            good.replace("q2I=", "q2J="),
            good.replace("CsUY", "Cs Y"),
            format!("{good}\n"),
            format!("{good}more\n\nmore\n"),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_speaks_for_its_own_log_only() {
        let ours = Signer::from_seed("example.com/behind-the-sofa", &[1; 32]).expect("key");
        let other = Signer::from_seed("example.com/other", &[1; 32]).expect("key");
        let keys = [ours.verifier_key().clone(), other.verifier_key().clone()];
        let signed = example().sign(&ours).expect("signs");
        assert_eq!(Checkpoint::open(signed.as_bytes(), &keys), Ok(example()));
        let signed = example().sign(&other).expect("signs");
        let opened = Checkpoint::open(signed.as_bytes(), &keys);
        assert!(matches!(opened, Err(CheckpointError::ForeignOrigin { .. })), "{opened:?}");
        let hidden = Checkpoint { origin: "a\n1".into(), ..example() };
        assert!(hidden.sign(&ours).is_err());
    }
}
