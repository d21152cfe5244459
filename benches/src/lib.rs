//! Measurements against peers and of the pure side.
