//! The program as a process: start, configuration and end; a socket in place of a device;
//! recordings; the log.

mod frame_socket;
mod lifecycle;
mod log;
mod qemu;
mod recording;
