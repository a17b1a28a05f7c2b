//! The revisions of MCP that Castra speaks, and the two eras that they fall into.

/// A revision of the specification, named by its date. Ordered by date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Revision {
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
    V2026_07_28,
}

/// How version, identity and capabilities are told (2026-07-28, basic/versioning, "Terminology").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Era {
    /// An `initialize` handshake that opens a session.
    Legacy,
    /// In the `_meta` of every request.
    Modern,
}

impl Revision {
    /// All that are spoken, newest first, as they are offered to others.
    pub const SUPPORTED: [Self; 4] =
        [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26];
    /// The newest.
    pub const LATEST: Self = Self::V2026_07_28;
    /// The newest that opens with a handshake.
    pub const LATEST_LEGACY: Self = Self::V2025_11_25;

    /// Reads the date; None for a revision that is not spoken.
    pub fn parse(text: &str) -> Option<Self> {
        Self::SUPPORTED.into_iter().find(|revision| revision.as_str() == text)
    }

    /// The date that stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era that it belongs to.
    pub fn era(self) -> Era {
        if self >= Self::V2026_07_28 { Era::Modern } else { Era::Legacy }
    }
}

/// The legacy revision to answer an `initialize` with: the one that was asked for if both sides speak
/// it, else the newest legacy one that the server speaks (2025-11-25, basic/lifecycle, "Version
/// Negotiation"). `server` is empty for a server that speaks only the modern era: then the bridge
/// speaks for it, in any revision.
pub fn negotiate(asked: &str, server: &[Revision]) -> Revision {
    let spoken = |revision: &Revision| {
        revision.era() == Era::Legacy
            && (server.iter().all(|s| s.era() == Era::Modern) || server.contains(revision))
    };
    let newest = || Revision::SUPPORTED.into_iter().find(spoken).unwrap_or(Revision::LATEST_LEGACY);
    Revision::parse(asked).filter(spoken).unwrap_or_else(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_ordered_and_read_back() {
        for revision in Revision::SUPPORTED {
            assert_eq!(Revision::parse(revision.as_str()), Some(revision));
        }
        assert!(Revision::SUPPORTED.is_sorted_by(|a, b| a > b));
        assert_eq!(Revision::parse("2024-11-05"), None);
        assert_eq!(Revision::LATEST.era(), Era::Modern);
        assert_eq!(Revision::LATEST_LEGACY.era(), Era::Legacy);
    }

    #[test]
    fn the_asked_revision_is_kept_where_the_server_speaks_it() {
        use Revision::*;
        assert_eq!(negotiate("2025-06-18", &[V2025_06_18, V2025_11_25]), V2025_06_18);
        assert_eq!(negotiate("2025-06-18", &[V2025_11_25]), V2025_11_25);
        assert_eq!(negotiate("2025-06-18", &[V2026_07_28]), V2025_06_18);
        assert_eq!(negotiate("2026-07-28", &[V2026_07_28]), V2025_11_25);
        assert_eq!(negotiate("1900-01-01", &[]), V2025_11_25);
    }
}
