//! Tests of links that need several devices, or a network namespace.

mod frame_server;
mod switchboard;
