//! Coverage-guided driver of [`slirp_fuzz::frame`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slirp_fuzz::frame(data));
