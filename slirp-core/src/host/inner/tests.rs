//! The inner thread in a namespace of its own.
