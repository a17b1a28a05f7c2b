//! Envelope encryption of what Castra keeps.
