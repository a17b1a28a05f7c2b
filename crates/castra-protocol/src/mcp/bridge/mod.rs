//! bridge (written next)
