//! Simulation and namespace tests.
