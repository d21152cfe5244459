//! The program as a process: start, configuration and end; a socket in place of a device;
//! recordings; the log.

mod bess;
mod lifecycle;
mod log;
mod recording;
