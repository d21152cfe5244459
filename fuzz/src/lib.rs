//! Fuzz targets and their corpus replay.
