//! Everything of the machine: child processes.
