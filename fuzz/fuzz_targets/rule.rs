//! Coverage-guided driver of [`slirp_fuzz::rule`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slirp_fuzz::rule(data));
