//! One entry point per parser, for fuzzing: each takes any bytes, must neither panic nor hang, and
//! checks what must hold for all that it accepts (what parses is written back the same).

use crate::{
    Checkpoint, Receipt, ReceiptHeader, Record, Signer, VerifierKey, note,
    tile::{TILE_WIDTH, TilePath, parse_entries, parse_hashes},
};

/// Signed notes, and the checkpoints in them.
pub fn note(data: &[u8]) {
    if let Ok(signer) = Signer::from_seed("fuzz.example/log", &[1; 32]) {
        let keys = [signer.verifier_key().clone()];
        let _ = note::open(data, &keys);
        let _ = Checkpoint::open(data, &keys);
    }
}

/// Verifier keys.
pub fn verifier_key(data: &[u8]) {
    round_trip(data, str::parse::<VerifierKey>);
}

/// Checkpoint texts.
pub fn checkpoint(data: &[u8]) {
    if let Some(Ok(checkpoint)) = std::str::from_utf8(data).ok().map(Checkpoint::parse) {
        assert_eq!(checkpoint.text().as_bytes(), data, "a checkpoint is written as it was read");
    }
}

/// Tile paths.
pub fn tile_path(data: &[u8]) {
    round_trip(data, str::parse::<TilePath>);
}

/// Hash tiles; the first byte chooses the width.
pub fn hash_tile(data: &[u8]) {
    if let Some((width, tile)) = data.split_first()
        && let Ok(hashes) = parse_hashes(tile, u16::from(*width), *width == 0)
    {
        assert_eq!(hashes.len(), usize::from(*width), "a tile has as many hashes as it is wide");
    }
}

/// Entry bundles; the first byte chooses the width.
pub fn entry_bundle(data: &[u8]) {
    if let Some((width, bundle)) = data.split_first() {
        let width = if *width == 0 { TILE_WIDTH } else { u16::from(*width) };
        if let Ok(entries) = parse_entries(bundle, width) {
            let bytes: usize = entries.iter().map(|entry| entry.len() + 2).sum();
            assert_eq!(bytes, bundle.len(), "a bundle is its entries and nothing else");
        }
    }
}

/// Records.
pub fn record(data: &[u8]) {
    if let Ok(record) = Record::decode(data)
        && let Ok(entry) = record.encode()
    {
        assert!(Record::decode(&entry).is_ok(), "what is written can be read");
    }
}

/// Receipt files.
pub fn receipt(data: &[u8]) {
    if let Ok(receipt) = Receipt::parse(data) {
        assert_eq!(receipt.to_string().as_bytes(), data, "a receipt is written as it was read");
    }
}

/// The short form of receipts.
pub fn receipt_header(data: &[u8]) {
    round_trip(data, str::parse::<ReceiptHeader>);
}

fn round_trip<T: ToString, E>(data: &[u8], parse: impl Fn(&str) -> Result<T, E>) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(value) = parse(text)
    {
        assert_eq!(value.to_string(), text, "what parses is written back the same");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_pass(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for parser in [
                super::note, super::verifier_key, super::checkpoint, super::tile_path, super::hash_tile,
                super::entry_bundle, super::record, super::receipt, super::receipt_header,
            ] {
                parser(&data);
            }
        }
    }
}
