//! Coverage-guided driver of [`slirp_fuzz::control_line`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slirp_fuzz::control_line(data));
