//! How much of a run is kept. Each bound makes a run stricter when it is reached: what does not fit is
//! not trusted, and values that are nowhere to be found count as seen in untrusted text.

/// Bytes of what users said that are kept; later words of a user found and ask for nothing.
pub(crate) const PROMPT_BYTES_MAX: usize = 32 << 10;
/// Bytes of trusted values that are kept, their bookkeeping included.
pub(crate) const TRUSTED_BYTES_MAX: usize = 256 << 10;
/// Bytes of values that a server vouches for; the rest counts as written by strangers.
pub(crate) const ATTESTED_BYTES_MAX: usize = 96 << 10;
/// Numbers that may bound an argument.
pub(crate) const AMOUNTS_MAX: usize = 1024;
/// Different words of untrusted text whose place is known. Seven eighths of a power of two, because
/// that is when a hash table doubles.
pub(crate) const SEEN_MAX: usize = 28 << 10;
/// Bytes of untrusted text that are kept for excerpts and for recognising it in what users paste.
pub(crate) const TEXT_BYTES_MAX: usize = 160 << 10;
/// Bytes of one text that are kept for excerpts.
pub(crate) const TEXT_EACH_MAX: usize = 16 << 10;
/// Different values and phrases that carry a confidentiality label.
pub(crate) const LABELLED_MAX: usize = 14 << 10;
/// Different labels.
pub(crate) const LABELS_MAX: usize = 256;
/// Sources (a result, a message) whose name and record are kept.
pub(crate) const SOURCES_MAX: usize = 2048;
/// Bytes of text of one result that are looked at.
pub(crate) const RESULT_BYTES_MAX: usize = 1 << 20;
/// Leaves of one result, or of the arguments of one call, that are looked at.
pub(crate) const LEAVES_MAX: usize = 50_000;
/// Depth of JSON that is looked at.
pub(crate) const DEPTH_MAX: usize = 64;
/// Records of one result that are compared with each other.
pub(crate) const RECORDS_MAX: usize = 4096;
/// Payees whose sums are kept.
pub(crate) const PAYEES_MAX: usize = 1024;
/// Calls that were held and that a person may still approve.
pub(crate) const HELD_MAX: usize = 32;
/// Marks of this run's own writing; beyond it, what trusted tools return is not learned.
pub(crate) const OWN_MARKS_MAX: usize = 7 << 10;
/// Marks of what one call wrote.
pub(crate) const MARKS_PER_CALL_MAX: usize = 256;
/// Marks that wait to be taken.
pub(crate) const MARKS_MAX: usize = 4096;
/// Findings of one judgement that are explained; the facts name all arguments.
pub(crate) const FINDINGS_MAX: usize = 32;
/// Bytes of one argument that are looked at; a longer one is unfounded.
pub(crate) const ARGUMENT_BYTES_MAX: usize = 512 << 10;
