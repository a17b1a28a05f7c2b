//! The journal's bytes: a segment begins with a header, then come frames, one per record.
//!
//! ```text
//! segment  "castra-journal-1" | first index u64 | zero u32 | CRC-32C of these 28 bytes u32
//! frame    magic u32 | entry bytes u32 | payload bytes u32 | index u64 | group u64
//!          | CRC-32C of these 28 bytes, entry and payload u32 | entry | payload
//! ```
//! Numbers are little-endian. `group` is the index of the first record that was written and synced
//! together with this one. A record of a later group proves that all earlier groups had reached the
//! disk, which is how damage to acknowledged records is told from a torn last write.

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEAD: usize = 32;
/// Bytes of a frame before its entry.
pub(super) const FRAME_HEAD: usize = 32;
/// Bytes of a sealed payload: an upstream's whole answer (32 MiB by default) twice over.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

const SEGMENT_MAGIC: &[u8; 16] = b"castra-journal-1";
// Not UTF-8, so that no entry, which is JSON, can hold it.
const FRAME_MAGIC: [u8; 4] = [0xc5, 0xff, b'J', b'r'];

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) entry_bytes: usize,
    pub(super) payload_bytes: usize,
    pub(super) index: u64,
    pub(super) group: u64,
    checksum: u32,
}

impl FrameHead {
    /// Bytes of the whole frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        (FRAME_HEAD + self.entry_bytes + self.payload_bytes) as u64
    }
}

/// Writes a segment's header.
pub(super) fn push_segment_head(out: &mut Vec<u8>, first: u64) {
    let mut head = [0; SEGMENT_HEAD - 4];
    let fields = SEGMENT_MAGIC.iter().chain(&first.to_le_bytes()).copied().collect::<Vec<_>>();
    for (slot, byte) in head.iter_mut().zip(fields) {
        *slot = byte;
    }
    out.extend_from_slice(&head);
    out.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
}

/// Reads a segment's header: the index of its first record.
pub(super) fn parse_segment_head(bytes: &[u8; SEGMENT_HEAD]) -> Option<u64> {
    let (head, checksum) = bytes.split_last_chunk::<4>()?;
    let good = crc32c::crc32c(head) == u32::from_le_bytes(*checksum) && head.starts_with(SEGMENT_MAGIC);
    if good { number(head, 16).map(u64::from_le_bytes) } else { None }
}

/// Writes a frame.
pub(super) fn push_frame(out: &mut Vec<u8>, index: u64, group: u64, entry: &[u8], payload: &[u8]) {
    let mut head = [0; FRAME_HEAD - 4];
    let lengths = [entry.len() as u32, payload.len() as u32];
    let fields = FRAME_MAGIC
        .into_iter()
        .chain(lengths.into_iter().flat_map(u32::to_le_bytes))
        .chain([index, group].into_iter().flat_map(u64::to_le_bytes));
    for (slot, byte) in head.iter_mut().zip(fields) {
        *slot = byte;
    }
    out.extend_from_slice(&head);
    out.extend_from_slice(&checksum(&head, entry, payload).to_le_bytes());
    out.extend_from_slice(entry);
    out.extend_from_slice(payload);
}

/// Reads the fixed part of a frame; its checksum is not checked yet.
pub(super) fn parse_head(bytes: &[u8; FRAME_HEAD]) -> Option<FrameHead> {
    let entry_bytes = number(bytes, 4).map(u32::from_le_bytes)? as usize;
    let payload_bytes = number(bytes, 8).map(u32::from_le_bytes)? as usize;
    let index = number(bytes, 12).map(u64::from_le_bytes)?;
    let group = number(bytes, 20).map(u64::from_le_bytes)?;
    let checksum = number(bytes, 28).map(u32::from_le_bytes)?;
    let good = bytes.starts_with(&FRAME_MAGIC)
        && entry_bytes <= castra_ledger::ENTRY_BYTES_MAX
        && payload_bytes <= PAYLOAD_BYTES_MAX
        && group <= index;
    good.then_some(FrameHead { entry_bytes, payload_bytes, index, group, checksum })
}

/// Takes a frame's entry and payload apart, and checks them.
pub(super) fn parse_body<'a>(
    head: &FrameHead,
    head_bytes: &[u8; FRAME_HEAD],
    body: &'a [u8],
) -> Option<(&'a [u8], &'a [u8])> {
    let (entry, payload) = body.split_at_checked(head.entry_bytes)?;
    let (checked, _) = head_bytes.split_last_chunk::<4>()?;
    let good = payload.len() == head.payload_bytes && checksum(checked, entry, payload) == head.checksum;
    good.then_some((entry, payload))
}

/// Looks for an intact frame anywhere in `bytes` that a later group than that of the record
/// `index` wrote; gives where it is.
pub(super) fn find_later_group(bytes: &[u8], index: u64) -> Option<usize> {
    let (magic, _) = FRAME_MAGIC.split_first()?;
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.iter().position(|byte| byte == magic)?;
        if let Some(head) = intact_frame(bytes.get(at..)?)
            && head.group > index
        {
            return Some(at);
        }
        at += 1;
    }
}

/// The head of the frame that `bytes` begin with, if all of the frame is there and intact.
pub(super) fn intact_frame(bytes: &[u8]) -> Option<FrameHead> {
    let (head_bytes, rest) = bytes.split_first_chunk::<FRAME_HEAD>()?;
    let head = parse_head(head_bytes)?;
    let body = rest.get(..head.entry_bytes + head.payload_bytes)?;
    parse_body(&head, head_bytes, body)?;
    Some(head)
}

fn checksum(head: &[u8], entry: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(head), entry), payload)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

/// For fuzzing: any bytes as a journal segment; must neither panic nor hang.
pub fn fuzz_segment(data: &[u8]) {
    let Some((head, mut rest)) = data.split_first_chunk::<SEGMENT_HEAD>() else { return };
    let _ = parse_segment_head(head);
    while let Some(head) = intact_frame(rest) {
        rest = rest.get(head.frame_bytes() as usize..).unwrap_or_default();
    }
    let _ = find_later_group(rest, 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_go_both_ways(index: u64, back in 0_u64..1000, entry: Vec<u8>, payload: Vec<u8>, at: prop::sample::Index, bit in 0_u32..8) {
            let group = index.saturating_sub(back);
            let mut bytes = Vec::new();
            push_frame(&mut bytes, index, group, &entry, &payload);
            let head = intact_frame(&bytes).expect("intact");
            prop_assert_eq!((head.index, head.group, head.frame_bytes() as usize), (index, group, bytes.len()));
            let (head_bytes, body) = bytes.split_first_chunk().expect("long enough");
            prop_assert_eq!(parse_body(&head, head_bytes, body), Some((&entry[..], &payload[..])));

            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(intact_frame(&bytes), None);
            prop_assert_eq!(intact_frame(&bytes[..at]), None);
        }

        #[test]
        fn segment_heads_go_both_ways(first: u64, at in 0_usize..SEGMENT_HEAD, bit in 0_u32..8) {
            let mut bytes = Vec::new();
            push_segment_head(&mut bytes, first);
            let mut head: [u8; SEGMENT_HEAD] = bytes.try_into().expect("length");
            prop_assert_eq!(parse_segment_head(&head), Some(first));
            head[at] ^= 1 << bit;
            prop_assert_eq!(parse_segment_head(&head), None);
        }

        #[test]
        fn any_bytes_pass(data: Vec<u8>) {
            fuzz_segment(&data);
        }
    }

    #[test]
    fn later_groups_are_found_behind_damage() {
        let mut bytes = b"damage \xc5\xc5\xffJr".to_vec();
        push_frame(&mut bytes, 8, 5, b"of the group of record 5", b"");
        let end = bytes.len();
        push_frame(&mut bytes, 9, 9, b"later", b"");
        assert_eq!(find_later_group(&bytes, 4), Some(12));
        assert_eq!(find_later_group(&bytes, 5), Some(end));
        assert_eq!(find_later_group(&bytes, 9), None);
    }
}
