//! The program as a process: start, configuration and end; a socket in place of a device;
//! recordings.

mod bess;
mod lifecycle;
mod recording;
