//! Runs processes in sandboxes.
