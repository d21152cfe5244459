//! Coverage-guided driver of [`slirp_fuzz::http_head`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slirp_fuzz::http_head(data));
