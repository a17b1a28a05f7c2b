//! The path of an action, one file per step.
